"""model-index.yml, the metafiles, the configs and their READMEs say the same."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.utils import get_installed_path

ROOT = Path(__file__).parents[2]
METAFILES = sorted((ROOT / "configs").glob("*/metafile.yml"))


def read(path):
    return yaml.safe_load(path.read_text())


def metrics(model):
    return {k: v for result in model.get("Results", []) for k, v in result["Metrics"].items()}


def test_model_index_imports_every_metafile():
    imported = read(ROOT / "model-index.yml")["Import"]
    assert imported == [str(path.relative_to(ROOT)) for path in METAFILES]


def test_model_index_loads_without_errors():
    modelindex = pytest.importorskip("modelindex")
    index = modelindex.load(str(ROOT / "model-index.yml"))
    index.check(silent=False)
    assert [m.name for m in index.models] == [
        m["Name"] for p in METAFILES for m in read(p)["Models"]
    ]


@pytest.mark.parametrize("path", METAFILES, ids=lambda p: p.parent.name)
class TestMetafile:
    def test_lists_every_config_once(self, path):
        listed = [model["Config"] for model in read(path)["Models"]]
        configs = [str(p.relative_to(ROOT)) for p in path.parent.glob("*.py")]
        assert sorted(listed) == sorted(configs)

    def test_names_are_file_names_and_collections_exist(self, path):
        meta = read(path)
        collections = {c["Name"] for c in meta["Collections"]}
        for model in meta["Models"]:
            assert model["Name"] == Path(model["Config"]).stem
            assert model["In Collection"] in collections
        assert {m["In Collection"] for m in meta["Models"]} == collections
        for collection in meta["Collections"]:
            assert (ROOT / collection["README"]).is_file()
            assert collection["Paper"]["URL"].startswith("https://arxiv.org/abs/")

    def test_says_where_results_come_from(self, path):
        for model in read(path)["Models"]:
            assert ("Results From" in model["Metadata"]) == bool(metrics(model))

    def test_readme_shows_the_same_numbers_and_links(self, path):
        readme = (path.parent / "README.md").read_text()
        for model in read(path)["Models"]:
            (row,) = re.findall(rf"^\|.*\]\({re.escape(model['Name'])}\.py\).*\|$", readme, re.M)
            cells = [cell.strip() for cell in row.split("|")]
            for value in metrics(model).values():
                assert str(value) in cells
            assert model.get("Weights", "none") in row


def test_dcn_results_are_those_that_mmdet_publishes():
    mmdet = pytest.importorskip("mmdet")
    configs = Path(get_installed_path(mmdet.__name__)) / ".mim" / "configs"
    published = {
        Path(model["Config"]).name: (metrics(model), model["Weights"])
        for folder in ("dcn", "dcnv2")
        for model in read(configs / folder / "metafile.yml")["Models"]
    }
    ours = {
        Path(model["Config"]).name: (metrics(model), model.get("Weights"))
        for model in read(ROOT / "configs" / "dcn" / "metafile.yml")["Models"]
        if "by the authors" not in model["Metadata"].get("Results From", "")
    }
    for name, result in ours.items():
        assert result == published.get(name, ({}, None))
