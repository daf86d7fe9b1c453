"""Checkpoint files: written whole or not at all, loaded without running code."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmdcn.checkpoints import CheckpointError, load_checkpoint_file, open_replacing


def training_state():
    """The parts of a checkpoint of MMEngine's runner."""
    hub = MessageHub("test")
    for value in (3.0, 2.0):
        hub.update_scalar("train/loss", value)
    hub.update_info("best_score", np.float64(0.5))
    return dict(
        meta=dict(epoch=1, iter=10, dataset_meta=dict(classes=("a", "b"))),
        state_dict={"weight": torch.arange(1000.0)},
        message_hub=hub.state_dict(),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
    )


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "epoch_1.pth"
    torch.save(training_state(), path)
    return path


def test_loads_what_mmengine_saves(whole):
    loaded = load_checkpoint_file(whole)
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(1000.0))
    history = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == 2.5 and history.statistics("min") == 2.0
    assert loaded["message_hub"]["runtime_info"]["best_score"] == 0.5


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, zipped, share):
    path = tmp_path / "epoch_1.pth"
    torch.save(training_state(), path, _use_new_zipfile_serialization=zipped)
    load_checkpoint_file(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"epoch_1\.pth: .*truncated"):
        load_checkpoint_file(path)


def test_damaged_file_is_refused(whole):
    content = bytearray(whole.read_bytes())
    middle = content.index(b"weight")
    content[middle - 40 : middle] = bytes(40)
    whole.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"epoch_1\.pth: .*damaged"):
        load_checkpoint_file(whole)


def plain(value):
    """A training state as Python's own objects, to be compared."""
    if isinstance(value, HistoryBuffer):
        value = vars(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value


def test_flipped_bits_are_found(whole):
    """Nothing but the padding between the records may change without being noticed."""
    content = whole.read_bytes()
    expected = load_checkpoint_file(whole)
    refused = 0
    for seed in range(70):
        place = random.Random(seed).randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        whole.write_bytes(damaged)
        try:
            loaded = load_checkpoint_file(whole)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert plain(loaded) == plain(expected), f"bit {place}"
    assert refused > 35


def test_every_flipped_bit_of_a_weight_is_found(whole):
    content = whole.read_bytes()
    start = content.index(torch.arange(1000.0).numpy().tobytes())
    for place in range(start, start + 4000, 100):
        damaged = bytearray(content)
        damaged[place] ^= 1
        whole.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"epoch_1\.pth: .*damaged.*CRC"):
            load_checkpoint_file(whole)


def test_files_without_checksums_can_be_loaded(whole):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(training_state(), whole)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint_file(whole)["meta"]["iter"] == 10


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: there is no such file"):
        load_checkpoint_file(tmp_path / "nowhere.pth")


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("made_by_checkpoint",)


class ReachesCode:
    """Reaches a function through the attributes of harmless ones, as ``getattr`` would allow."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, "__init__")


@pytest.mark.parametrize("harmful", [RunsCode(), ReachesCode()], ids=lambda x: type(x).__name__)
def test_foreign_objects_are_refused_and_not_run(tmp_path, monkeypatch, harmful):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(training_state(), extra=harmful), "epoch_1.pth")
    with pytest.raises(CheckpointError, match=r"it holds .*(mkdir|getattr).* refused"):
        load_checkpoint_file("epoch_1.pth")
    assert not Path("made_by_checkpoint").exists()


NUMBERS = [
    np.arange(6.0).reshape(2, 3).T,
    np.arange(3, dtype=">i4"),
    np.zeros((0, 2), dtype=np.float16),
    np.array([True, False]),
    np.array(2j),
    np.float32(0.5),
    np.bool_(True),
]


def test_numbers_of_numpy_are_what_they_were(tmp_path):
    value = dict(array=NUMBERS[0], nested=[(number, {"x": number}) for number in NUMBERS])
    value["dtype"] = np.dtype("f4")
    torch.save(value, tmp_path / "file.pth")
    loaded = load_checkpoint_file(tmp_path / "file.pth")
    assert loaded["dtype"] == np.dtype("f4")
    assert loaded["array"] is loaded["nested"][0][0]
    for (number, below), expected in zip(loaded["nested"], NUMBERS, strict=True):
        for found in (number, below["x"]):
            assert type(found) is type(expected) and found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    loaded["array"][0] = 7  # it can be written to


def test_a_list_that_holds_itself_can_be_loaded(tmp_path):
    value = [np.float64(1)]
    value.append(value)
    torch.save(value, tmp_path / "file.pth")
    loaded = load_checkpoint_file(tmp_path / "file.pth")
    assert loaded[0] == 1 and loaded[1] is loaded


class Forged:
    """Is pickled as a call of a function with what a file wants, and a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def forged_dtype(code="f8", order="<", rest=(None, None, None, -1, -1, 0)):
    return Forged(np.dtype, (code, False, True), (3, order, *rest))


def forged_array(dtype, shape=(2,), data=bytes(16), kind=np.ndarray):
    reconstruct = np.zeros(1).__reduce__()[0]
    return Forged(reconstruct, (kind, (0,), b"b"), (1, shape, dtype, False, data))


scalar = np.float64(1).__reduce__()[0]
FORGERIES = {
    "object array over bytes": forged_array(forged_dtype("O8", "|")),
    "object array over a list": forged_array(forged_dtype("O8", "|"), data=[1, 2]),
    "numbers that are flagged as objects": forged_array(
        forged_dtype(rest=(None, None, None, -1, -1, 63))
    ),
    "size of its own": forged_array(forged_dtype("V8", "|", (None, None, None, 8, 1, 0))),
    "fields": forged_array(
        forged_dtype("V8", "|", (None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 27))
    ),
    "shape beyond the data": forged_array(forged_dtype(), shape=(10**9,)),
    "shape that overflows": forged_array(forged_dtype(), shape=(2**62, 4), data=b""),
    "negative shape": forged_array(forged_dtype(), shape=(-1, -2)),
    "numbers over a list": forged_array(forged_dtype(), data=[1, 2]),
    "another class of arrays": forged_array(forged_dtype(), kind=np.matrix),
    "array without content": Forged(np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b")),
    "object from bytes": Forged(scalar, (forged_dtype("O8", "|"), bytes(8))),
    "number from too few bytes": Forged(scalar, (forged_dtype(), bytes(4))),
    "text": forged_array(forged_dtype("U2")),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_arrays_are_refused(tmp_path, forgery):
    """In files that are whole otherwise: their checksums are right."""
    torch.save(dict(training_state(), extra=[FORGERIES[forgery]]), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"file\.pth: (it holds numpy|.*numpy\.|.*numpy: )"):
        load_checkpoint_file(tmp_path / "file.pth")


def test_a_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"

    def write(content):
        with open_replacing(path) as file:
            file.write(content)

    def killed(descriptor):
        raise KeyboardInterrupt

    write(b"first")
    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write(b"second")
    monkeypatch.undo()
    assert path.read_bytes() == b"first"
    (path.parent / "file.0.tmp").write_bytes(b"left behind by a kill that nothing can catch")
    write(b"third")
    assert path.read_bytes() == b"third"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
