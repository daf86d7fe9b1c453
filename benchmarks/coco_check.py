"""Time and memory of checking a file of the size of COCO's ``instances_train2017.json``.

    python -m benchmarks.coco_check [FOLDER]

writes such a file (118,287 images, 860,001 annotations with polygons, about 450 MB) to the folder,
the current one by default, unless it is there, and checks it in a process of its own.
"""

import random
import resource
import sys
import time
from multiprocessing import get_context
from pathlib import Path

IMAGES, ANNOTATIONS, CLASSES = 118_287, 860_001, 80
NAME = "generated_train2017.json"


def write(file: Path) -> None:
    """Write the file; objects have 3 to 47 corners, as many as COCO's on average."""
    rng = random.Random(0)
    with open(file, "w") as stream:
        stream.write('{"info": {}, "licenses": [], "categories": [')
        stream.write(", ".join(f'{{"id": {i + 1}, "name": "class {i}"}}' for i in range(CLASSES)))
        stream.write('], "images": [')
        for number in range(IMAGES):
            stream.write(", " * bool(number))
            stream.write(
                f'{{"license": 3, "file_name": "{number:012d}.jpg", "coco_url": "http://images.'
                f'cocodataset.org/train2017/{number:012d}.jpg", "height": 480, "width": 640, '
                f'"date_captured": "2013-11-14 11:18:45", "id": {number}}}'
            )
        stream.write('], "annotations": [')
        for number in range(ANNOTATIONS):
            x, y = rng.uniform(0, 500), rng.uniform(0, 350)
            width, height = rng.uniform(5, 130), rng.uniform(5, 130)
            corners = [
                f"{(x + rng.random() * width):.2f}, {(y + rng.random() * height):.2f}"
                for _ in range(rng.randint(3, 47))
            ]
            stream.write(", " * bool(number))
            stream.write(
                f'{{"segmentation": [[{", ".join(corners)}]], "area": {width * height / 2:.4f}, '
                f'"iscrowd": 0, "image_id": {number * 7 % IMAGES}, '
                f'"bbox": [{x:.2f}, {y:.2f}, {width:.2f}, {height:.2f}], '
                f'"category_id": {number % CLASSES + 1}, "id": {number + 1}}}'
            )
        stream.write("]}")


def check(file: str) -> None:
    """Check the file and print what it took."""
    from mmdcn.datasets.coco_checks import Use, check_file

    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    checked = check_file(file, file, Use(train_masks=True))
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert checked.used == ANNOTATIONS
    print(
        f"{Path(file).stat().st_size / 1e6:.0f} MB, {len(checked.images)} images, "
        f"{checked.used} annotations: {wall:.1f} s ({cpu:.1f} s of CPU time), "
        f"{after.ru_maxrss / 2**20:.2f} GiB at most"
    )


def main() -> None:
    file = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / NAME
    if not file.exists():
        write(file)
    process = get_context("spawn").Process(target=check, args=(str(file),))
    process.start()
    process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
