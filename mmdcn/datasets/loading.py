"""Loading of label maps that names the file at fault; this module needs MMSegmentation."""

from mmseg.datasets.transforms import LoadAnnotations

from mmdcn.datasets.errors import LabelMapError
from mmdcn.datasets.images import first_line, open_header, orientation_of
from mmdcn.registry import TRANSFORMS

MODES = ("1", "L", "P")  # PIL's names of images with one byte per pixel


@TRANSFORMS.register_module()
class LoadSegAnnotations(LoadAnnotations):
    """MMSegmentation's ``LoadAnnotations`` for local files, with checks of the label map.

    A label out of range otherwise ends in an assertion on the device or is not seen at all.

    Args:
        num_classes: Number of classes; a label map may hold 0 to ``num_classes - 1``, or 1 to
            ``num_classes`` where ``reduce_zero_label`` makes 0 the label of ignored pixels.
        ignore_index: Label of pixels that do not count.
        kwargs: Arguments of ``LoadAnnotations``.

    Raises:
        LabelMapError: When a label map is loaded: it cannot be read as an image of one byte per
            pixel, has another size than its image, or holds a label out of range.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def _load_seg_map(self, results: dict) -> None:
        file = results["seg_map_path"]
        try:
            with open_header(file) as image:
                mode, (width, height) = image.mode, image.size
            super()._load_seg_map(results)
        except Exception as error:  # decoders raise what they like
            raise LabelMapError(f"label map {file}: it cannot be read: {first_line(error)}") from (
                error
            )
        if mode not in MODES:
            raise LabelMapError(
                f"label map {file}: one byte per pixel was expected, the image has mode {mode!r}"
            )
        size = results.get("ori_shape", (height, width))
        if (height, width) != tuple(size):
            raise LabelMapError(
                f"label map {file}: it has {width}x{height} pixels, its image "
                f"{results['img_path']} has {size[1]}x{size[0]}{self._turn(results['img_path'])}"
            )
        labels = results["gt_seg_map"]
        wrong = labels[(labels >= self.num_classes) & (labels != self.ignore_index)]
        if wrong.size:
            first = int(self.reduce_zero_label)
            raise LabelMapError(
                f"label map {file}: label {wrong[0] + first} in {wrong.size} pixels; the "
                f"{self.num_classes} classes have the labels {first} to "
                f"{self.num_classes - 1 + first}"
            )

    @staticmethod
    def _turn(file: str) -> str:
        turn = orientation_of(file)
        return "" if turn == 1 else f"; the image is turned by its EXIF orientation, {turn}"
