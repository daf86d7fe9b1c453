"""``_base_ = "mmdcn::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py"`` in other projects' configs."""

from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

PREFIX = "mmdcn::"
PACKAGE = Path(__file__).resolve().parent


def find_config(name: str) -> Path:
    """The file of a config of mmdcn, from a wheel or from the sources of an editable install.

    Args:
        name: Its path below ``configs``.

    Raises:
        FileNotFoundError: There is no such config; the message names similar ones.
    """
    root = next((p for p in (PACKAGE / ".mim", PACKAGE.parent) if (p / "configs").is_dir()), None)
    if root is None:
        raise FileNotFoundError(f"{PREFIX}{name}: this installation of mmdcn has no configs")
    path = (root / "configs" / name).resolve()
    if not path.is_relative_to(root / "configs") or not path.is_file():
        known = [str(p.relative_to(root / "configs")) for p in root.glob("configs/[a-z]*/*.py")]
        similar = get_close_matches(name, known, n=3) or sorted(known)[:3]
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
