"""YAML configs are data: MMEngine would run what they name."""

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers.yaml_handler import YamlHandler


class ConfigLoader(yaml.SafeLoader):
    """Plain values, and the tuples of configs that MMEngine has written."""


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


ConfigLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


class SafeYamlHandler(YamlHandler):
    """MMEngine's reader and writer of YAML, which refuses tags that make objects of Python."""

    def load_from_fileobj(self, file, **kwargs):
        return yaml.load(file, **{**kwargs, "Loader": ConfigLoader})


def install() -> None:
    """Make MMEngine read YAML safely in this process, base files of configs included."""
    register_handler(["yaml", "yml"])(SafeYamlHandler)
