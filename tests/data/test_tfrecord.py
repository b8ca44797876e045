"""TFRecord data sets: BPrune's fields, its file names, and damage caught by the checksums."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc import data
from bprune_hpc.errors import DataError
from bprune_hpc.tensorflow_import import import_tensorflow

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 5, 4, 2), np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 1, 3, 0], np.int64)


def record(i: int, **changes: Any) -> bytes:
    """One record as BPrune's users write it; ``changes`` replace fields, None drops one."""
    tf = import_tensorflow()
    height, width, depth = IMAGES.shape[1:]
    found = {
        "height": [height], "width": [width], "depth": [depth], "label": [int(CLASSES[i])],
        "image_raw": [IMAGES[i].tobytes()],
    } | changes  # fmt: skip
    features = {}
    for name, values in found.items():
        if values is not None and isinstance((*values, 0)[0], bytes):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif values is not None:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())


def save(path: Path, records: Iterable[bytes]) -> str:
    with import_tensorflow().io.TFRecordWriter(str(path)) as writer:
        for content in records:
            writer.write(content)
    return str(path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, examples in (("Test_Rank_0", (0, 1, 2)), ("Test_Rank_1", (3, 4)),
                           ("Train_Rank_0", (5, 6)), ("Train_Rank_1", (7, 8))):  # fmt: skip
        save(tmp_path / f"{name}.tfrecords", map(record, examples))
    (tmp_path / "notes.txt").write_text("not data")
    return tmp_path


@pytest.mark.parametrize(
    ("place", "split", "examples"),
    [
        ("", "test", slice(0, 5)),
        ("", "train", slice(5, 9)),
        ("Test_Rank_*.tfrecords", "test", slice(0, 5)),
        ("Test_Rank_*.tfrecords", "train", slice(0, 5)),
        ("T*_Rank_1.tfrecords", "test", [3, 4, 7, 8]),
        ("Train_Rank_0.tfrecords", "test", slice(5, 7)),
    ],
)
@pytest.mark.parametrize("dataset", ["auto", "tfrecord"])
def test_file_directory_and_pattern(
    directory: Path, dataset: str, place: str, split: Any, examples: Any
) -> None:
    found = data.load(dataset, str(directory / place), split)
    np.testing.assert_array_equal(found.x, (IMAGES[examples] / 255).astype(np.float32))
    np.testing.assert_array_equal(found.y, CLASSES[examples])
    assert (found.name, found.x.dtype, found.y.dtype) == ("tfrecord", np.float32, np.int64)
    for name, digest in found.sha256.items():
        assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == digest
    assert len(found.sha256) == (1 if place == "Train_Rank_0.tfrecords" else 2)


def test_names_that_do_not_tell_the_halves_apart(directory: Path) -> None:
    for file in directory.glob("Test_*"):
        file.unlink()
    with pytest.raises(DataError, match="has no test files among 2 of TFRecord; pass a pattern"):
        data.load("tfrecord", str(directory))
    for file in directory.glob("Train_*"):
        file.rename(directory / file.name.replace("Train", "Part"))
    for split in ("test", "train"):
        np.testing.assert_array_equal(data.load("auto", str(directory), split).y, CLASSES[5:])


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"image_raw": None}, "has the fields depth, height, label, width; lacks image_raw"),
        ({"label": None, "class": [1]}, "lacks label"),
        ({"label": []}, "'label' holds 0 integers"),
        ({"label": [b"1"]}, "'label' holds 0 integers"),
        ({"height": [5, 5]}, "'height' holds 2 integers"),
        ({"height": [6]}, "'image_raw' holds 40 bytes, height × width × depth are 6 × 4 × 2"),
        ({"width": [-4], "height": [-5]}, "are -5 × -4 × 2; save one uint8 a value"),
        ({"image_raw": [7]}, "'image_raw' holds 0 bytes"),
        ({"height": [4], "width": [5]}, r"an image of \(4, 5, 2\), the first one is \(5, 4, 2\)"),
    ],
)
def test_what_is_wrong_with_a_record(tmp_path: Path, changes: Any, finding: str) -> None:
    path = save(tmp_path / "a.tfrecord", [record(0), record(1, **changes)])
    with pytest.raises(DataError, match=f"{re.escape(path)}: record 1.*{finding}") as caught:
        data.load("tfrecord", path)
    assert "\n" not in str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    whole = Path(save(path, [record(0), record(1)])).read_bytes()
    second = len(whole) // 2
    for content, finding in (
        (whole[:-1], "record 1 goes beyond the end of the file"),
        (whole[: second + 5], "record 1 goes beyond the end of the file"),
        (flipped(whole, second + 1), "record 1 goes beyond"),  # its length
        (flipped(whole, second + 9), "record 1 is damaged .*corrupted record"),  # its CRC
        (flipped(whole, second + 60), "record 1 is damaged .*corrupted record"),
        (b"", "holds no records"),
        (b"PK\x03\x04 some other file of some length", "or it is no TFRecord file"),
        (gzip.compress(whole), "compressed with gzip; unpack it first"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{finding}") as caught:
            data.load("tfrecord", str(path))
        assert "\n" not in str(caught.value)
    save(path, [b"\xff\xff\xff"])
    with pytest.raises(DataError, match="record 0 is not a tf.train.Example"):
        data.load("tfrecord", str(path))


def flipped(content: bytes, i: int) -> bytes:
    changed = bytearray(content)
    changed[i] ^= 4
    return bytes(changed)


def test_absent_files(tmp_path: Path) -> None:
    for name, finding in (
        ("a.tfrecord", "no such file"),
        ("*.tfrecord", "no file has such a name; check the pattern"),
        ("", "has no test files among 0 of TFRecord"),
    ):
        with pytest.raises(DataError, match=finding):
            data.load("tfrecord", str(tmp_path / name))
