"""Configs of mmdcn as bases of others: ``_base_ = "mmdcn::dcn/..."``."""

from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

PREFIX = "mmdcn::"
PACKAGE = Path(__file__).resolve().parent


def folder() -> Path:
    """Where the configs are, in a wheel or in the sources of an editable install.

    Raises:
        FileNotFoundError: This installation has none.
    """
    for path in (PACKAGE / ".mim" / "configs", PACKAGE.parent / "configs"):
        if path.is_dir():
            return path
    raise FileNotFoundError("this installation of mmdcn has no configs")


def known_configs() -> list[str]:
    """Paths of all recipes below the folder of configs."""
    return sorted(str(path.relative_to(folder())) for path in folder().glob("[a-z]*/*.py"))


def find_config(name: str) -> Path:
    """The file of a config.

    Args:
        name: Its path below the folder of configs.

    Raises:
        FileNotFoundError: There is no such config; the message names similar ones.
    """
    path = (folder() / name).resolve()
    if not path.is_relative_to(folder()) or not path.is_file():
        similar = get_close_matches(name, known_configs(), n=3) or known_configs()[:3]
        raise FileNotFoundError(f"{PREFIX}{name}: mmdcn has no such config; {', '.join(similar)}?")
    return path


def install() -> None:
    """Make MMEngine find mmdcn's configs in this process.

    MMEngine knows by name only packages of OpenMMLab. A package's name is also the scope in which
    it then looks for the types in a base, but mmdcn's configs name types of MMDetection and
    MMSegmentation: so no scope comes with them.
    """
    MODULE2PACKAGE["mmdcn"] = "mmdcn"  # for mmengine.hub.get_config
    others = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(PREFIX):
            return str(find_config(cfg_path.removeprefix(PREFIX))), None
        return others(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)
