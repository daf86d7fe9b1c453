"""Loading of images that names the file at fault; this module needs MMCV."""

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile

from mmdcn.datasets.errors import ImageError
from mmdcn.datasets.images import first_line, orientation_of, size_mismatch
from mmdcn.registry import TRANSFORMS

NEARLY_BLACK = 1 << 4  # of 256: what 12 of 16 bits become


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """MMCV's ``LoadImageFromFile`` for local files, with checks.

    Args:
        kwargs: Arguments of ``LoadImageFromFile``.

    Raises:
        ImageError: When an image is loaded: it cannot be read, its size is not the
            annotated one, or its 16 bits per channel hold 12 bits or less, which becomes black.
    """

    def transform(self, results: dict) -> dict | None:
        """Load the image at ``results['img_path']``."""
        file = results["img_path"]
        try:
            loaded = super().transform(results)
        except Exception as error:  # decoders raise what they like
            raise ImageError(f"image {file}: it cannot be read: {first_line(error)}") from error
        if loaded is not None:
            self._check_size(file, loaded)
            self._check_depth(file, loaded["img"])
        return loaded

    @staticmethod
    def _check_size(file: str, results: dict) -> None:
        height, width = results["img"].shape[:2]
        expected = results.get("width", width), results.get("height", height)
        if (width, height) != expected:
            turn = orientation_of(file)
            raise ImageError(f"image {size_mismatch(file, (width, height), expected, turn)}")

    @staticmethod
    def _check_depth(file: str, image: np.ndarray) -> None:
        if image.dtype != np.uint8 or image.max() >= NEARLY_BLACK:
            return
        raw = mmcv.imread(file, flag="unchanged", backend="cv2")
        largest = int(raw.max())
        if raw.dtype == np.uint16 and largest:
            raise ImageError(
                f"image {file}: it has 16 bits per channel and no value above {largest}; loaded "
                "as 8 bits it is black or nearly so. Scale it to 0 to 65535, or store 8 bits"
            )
