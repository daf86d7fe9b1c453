"""Images that cannot be used are named, before a run or when they are loaded."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdcn.datasets import images
from mmdcn.datasets.errors import DatasetError, ImageError

pytest.importorskip("mmdet")
from mmdcn.datasets.image_loading import LoadImageFromFile  # noqa: E402

SIZE = (20, 10)


def noise(size=SIZE):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def empty(file):
    file.write_bytes(b"")


def text(file):
    file.write_text("404: Not Found")


def cut_off(file):
    noise().save(file)
    file.write_bytes(file.read_bytes()[:-10])


def huge(file):
    """A PNG file of 50,000 x 50,000 pixels in a few kilobytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(50_001))), (b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def other_size(file):
    noise((10, 20)).save(file)


def folder(file):
    file.unlink()
    file.mkdir()


BEFORE = {
    empty: r"1 of its 2 images are empty files in .*train.*: b\.jpg",
    text: r"images that cannot be read \(1 times: .*b\.jpg \(cannot identify image file",
    huge: r"images of more than 1073741824 pixels \(1 times: .*b\.jpg\)",
    other_size: r"another size than annotated \(1 times: .*b\.jpg has 10x20 pixels, its annotation "
    r"20x10",
    folder: r"1 of its 2 images are not in .*train.*: b\.jpg",
}
ON_LOADING = {
    empty: "it cannot be read",
    text: "it cannot be read",
    cut_off: "it cannot be read",
    huge: "it cannot be read: .*CV_IO_MAX_IMAGE_PIXELS",
    other_size: "has 10x20 pixels, its annotation 20x10",
}


@pytest.mark.parametrize("damage", BEFORE)
def test_image_is_named_before_a_run(coco, damage):
    damage(coco.image(1))
    with pytest.raises(DatasetError, match=BEFORE[damage]):
        coco.check()


@pytest.mark.parametrize("damage", ON_LOADING)
def test_image_is_named_on_loading(tmp_path, damage):
    file = tmp_path / "b.jpg"
    noise().save(file)
    damage(file)
    results = dict(img_path=str(file), width=20, height=10)
    with pytest.raises(ImageError, match=rf"^image .*b\.jpg:? {ON_LOADING[damage]}") as caught:
        LoadImageFromFile()(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_good_image_is_loaded_as_before(tmp_path, suffix):
    from mmcv.transforms import LoadImageFromFile as Original

    file = tmp_path / f"a{suffix}"
    noise().save(file)
    if suffix == ".jpg":  # something may follow the image
        file.write_bytes(file.read_bytes() + b"trailer")
    results, expected = (load()(dict(img_path=str(file))) for load in (LoadImageFromFile, Original))
    assert results.keys() == expected.keys()
    assert np.array_equal(results["img"], expected["img"])


def test_missing_image(coco):
    coco.content["images"][1]["file_name"] = "c.jpg"
    with pytest.raises(DatasetError, match=r"1 of its 2 images are not in .*train.*: c\.jpg"):
        coco.check()


def test_images_in_subfolders(coco):
    (coco.path / "train" / "sub").mkdir()
    (coco.path / "train" / "b.jpg").rename(coco.path / "train" / "sub" / "b.jpg")
    with pytest.raises(DatasetError, match="1 of its 2 images"):
        coco.check()
    coco.content["images"][1]["file_name"] = "sub/b.jpg"
    coco.check()


def test_names_do_not_lead_out_of_the_folder(coco):
    inside, secret = coco.image(1), coco.path / "secret.jpg"
    noise().save(secret)
    for name in ("../secret.jpg", "sub/../../secret.jpg", str(secret), "..", "b.jpg\0"):
        coco.content["images"][1]["file_name"] = name
        with pytest.raises(DatasetError, match=r"1 of its 2 images lead out of .*train/'"):
            coco.check()
    for name in (str(inside), "../train/b.jpg"):
        coco.content["images"][1]["file_name"] = name
        coco.check()


def test_many_images_are_sampled(coco, monkeypatch):
    opened = []
    header = images.open_header
    monkeypatch.setattr(images, "open_header", lambda file: (opened.append(file), header(file))[1])
    monkeypatch.setattr(images, "HEADERS", 10)
    template = coco.content["images"].pop()
    for number in range(25):
        name = f"{number:02d}.jpg"
        noise().save(coco.path / "train" / name)
        coco.content["images"].append(dict(template, id=2 + number, file_name=name))
    coco.check()
    assert [file[-6:] for file in opened] == [
        "/a.jpg", "02.jpg", "05.jpg", "08.jpg", "11.jpg", "14.jpg", "17.jpg", "20.jpg", "23.jpg",
    ]  # fmt: skip
    opened.clear()
    monkeypatch.setattr(images, "SECONDS", -1)
    coco.check()
    assert not opened


def turn(file, orientation, size=SIZE):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(size).save(file, exif=exif)


def test_turned_image_with_boxes_of_the_stored_one(coco):
    turn(coco.image(1), 6)
    message = r"b\.jpg has 10x20 pixels, its annotation 20x10; it is turned .* orientation is 6"
    with pytest.raises(DatasetError, match=message):
        coco.check()
    results = dict(img_path=str(coco.image(1)), width=20, height=10)
    with pytest.raises(ImageError, match="orientation is 6"):
        LoadImageFromFile()(results)


def test_turned_image_with_boxes_of_the_upright_one(coco, lines):
    turn(coco.image(1), 6, (10, 20))
    coco.check()
    assert len(lines()) == 1
    results = dict(img_path=str(coco.image(1)), width=20, height=10)
    assert LoadImageFromFile()(results)["img_shape"] == (10, 20)


def test_image_of_which_sizes_say_nothing(coco, lines):
    turn(coco.image(1), 3)
    coco.check()
    assert "1 images are turned or mirrored by their EXIF orientation" in lines()[0]
    assert "b.jpg" in lines()[0]


def test_images_that_are_not_turned_on_loading(coco, lines):
    turn(coco.image(1), 6)
    coco.dataset.pipeline[0].color_type = "color_ignore_orientation"
    coco.check()
    assert len(lines()) == 1


def test_broken_exif_block(coco):
    file = coco.image(1)
    noise().save(file, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    coco.check()
    assert LoadImageFromFile()(dict(img_path=str(file)))["img_shape"] == (10, 20)


@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_in_sixteen(tmp_path, channels):
    rng = np.random.default_rng(0)
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), rng.integers(0, 4096, (10, 20, channels), dtype=np.uint16))
    with pytest.raises(ImageError, match=r"a\.png: it has 16 bits .* no value above 40\d\d"):
        LoadImageFromFile()(dict(img_path=str(file)))
    # all bits used, or really black
    cv2.imwrite(str(file), rng.integers(0, 65536, (10, 20, channels), dtype=np.uint16))
    assert LoadImageFromFile()(dict(img_path=str(file)))["img"].max() > 200
    for dtype in (np.uint8, np.uint16):
        cv2.imwrite(str(file), np.zeros((10, 20, channels), dtype))
        LoadImageFromFile()(dict(img_path=str(file)))


def test_turned_image_with_its_label_map(tmp_path, check, lines):
    for part, suffix in (("images", ".jpg"), ("labels", ".png")):
        (tmp_path / part).mkdir()
        for name in "ab":
            Image.new("L", SIZE, 1).save(tmp_path / part / (name + suffix))
    cfg = Config(
        dict(
            default_scope="mmseg",
            train_dataloader=dict(
                dataset=dict(
                    type="mmseg.BaseSegDataset",
                    data_root=str(tmp_path),
                    data_prefix=dict(img_path="images", seg_map_path="labels"),
                    metainfo=dict(classes=("ground", "road")),
                    pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
                )
            ),
        )
    )
    turn(tmp_path / "images" / "b.jpg", 8)
    message = r"b\.jpg has 10x20 pixels, its label map .*b\.png 20x10; it is turned .* is 8"
    with pytest.raises(DatasetError, match=message):
        check(cfg)
    turn(tmp_path / "images" / "b.jpg", 2)
    check(cfg)
    assert "1 images are turned or mirrored" in lines()[0]
