"""Data sets: values against their sources, and one line for whatever is wrong with a file."""

from __future__ import annotations

import hashlib
import io
import re
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_digits

from bprune_hpc import data
from bprune_hpc.errors import DataError
from tests.helpers.launch import ROOT

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4), np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 1], np.int64)


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_digits_are_those_of_scikit_learn():
    original = load_digits()
    test, train = data.load("digits", split="test"), data.load("digits", split="train")
    assert (len(test.x), len(train.x)) == (359, 1438)
    assert test.x.dtype == np.float32 and test.y.dtype == np.int64
    np.testing.assert_array_equal(test.x, original.images[4::5] / 16)
    np.testing.assert_array_equal(test.y, original.target[4::5])
    rest = np.array([i for i in range(1797) if i % 5 != 4])
    np.testing.assert_array_equal(train.x, original.images[rest] / 16)
    np.testing.assert_array_equal(train.y, original.target[rest])


def test_digits_digest_is_that_of_the_file_in_the_package():
    (name, digest), *others = data.load().sha256.items()
    file = ROOT / name
    assert not others
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest


def test_uint8_is_scaled_and_floats_are_not(tmp_path):
    path = save(tmp_path / "a.npz", x_test=IMAGES, y_test=CLASSES, x_train=IMAGES / 7.0,
                y_train=CLASSES)  # fmt: skip
    test, train = data.load("auto", path), data.load("auto", path, split="train")
    np.testing.assert_array_equal(test.x, (IMAGES / 255).astype(np.float32))
    np.testing.assert_array_equal(train.x, (IMAGES / 7.0).astype(np.float32))
    assert test.name == "npz"
    assert test.sha256 == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def test_both_halves_fall_back_to_x_and_y(tmp_path):
    path = save(tmp_path / "a.npz", x=IMAGES, y=CLASSES)
    for split in ("test", "train"):
        np.testing.assert_array_equal(data.load("npz", path, split).y, CLASSES)


@pytest.mark.parametrize(
    "labels",
    [np.eye(3, dtype=np.float32)[CLASSES], CLASSES[:, None], CLASSES.astype(np.float64),
     CLASSES.astype(np.uint8)],
    ids=["one-hot", "column", "float", "uint8"],
)  # fmt: skip
def test_forms_of_labels(tmp_path, labels):
    y = data.load("npz", save(tmp_path / "a.npz", x=IMAGES, y=labels)).y
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, CLASSES)


def test_mnist_by_file_directory_and_name(tmp_path):
    path = save(tmp_path / "mnist.npz", x_train=IMAGES[:4], y_train=CLASSES[:4],
                x_test=IMAGES[4:], y_test=CLASSES[4:])  # fmt: skip
    for dataset in ("mnist", "auto"):
        for place in (path, str(tmp_path)):
            found = data.load(dataset, place)
            assert found.name == "mnist"
            np.testing.assert_array_equal(found.x, IMAGES[4:].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        ({"x": IMAGES, "y": CLASSES[:6]}, "'x' has 7 examples, 'y' 6 labels"),
        ({"x": IMAGES}, "has the arrays x; needs 'x_test' and 'y_test'"),
        ({"x": IMAGES[:0], "y": CLASSES[:0]}, r"shape \(0, 4, 4\); needs one or more"),
        ({"x": CLASSES, "y": CLASSES}, "needs one or more examples, "),
        ({"x": IMAGES.astype(complex), "y": CLASSES}, "'x' is complex128; a network takes num"),
        ({"x": IMAGES.astype(str), "y": CLASSES}, "'x' is <U3; a network takes numbers"),
        ({"x": np.where(IMAGES[2, 0, 0] == IMAGES, np.nan, 0.5), "y": CLASSES}, "nan in example"),
        ({"x": np.full((7, 4), 1e300), "y": CLASSES}, "inf in example 0"),
        ({"x": IMAGES, "y": np.full((7, 3), 0.3)}, "not one-hot"),
        ({"x": IMAGES, "y": CLASSES + 0.5}, "'y' has 0.5 at example 0"),
        ({"x": IMAGES, "y": np.array([b"\xff"] * 7)}, "holds b'.xff', no text; save class"),
        ({"x": IMAGES, "y": CLASSES[:, None, None]}, "one class number an example"),
        ({"x": IMAGES, "y": CLASSES.astype(object)}, "holds Python objects"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, arrays, finding):
    path = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=finding) as caught:
        data.load("npz", path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(path)


def test_damaged_and_absent_files(tmp_path):
    whole = Path(save(tmp_path / "whole.npz", x=IMAGES, y=CLASSES)).read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(IMAGES.tobytes()) + 5] ^= 1
    other_zip = io.BytesIO()
    with zipfile.ZipFile(other_zip, "w") as archive:
        archive.writestr("readme.txt", "no arrays here")
    for content, finding in (
        (whole[:-30], "damaged npz file"),
        (bytes(flipped), "damaged npz file .*CRC"),
        (b"", "not an npz file"),
        (b"label,pixel\n1,2\n", "not an npz file"),
        (other_zip.getvalue(), "readme.txt"),
    ):
        broken = tmp_path / "broken.npz"
        broken.write_bytes(content)
        with pytest.raises(DataError, match=f"{re.escape(str(broken))}.*{finding}"):
            data.load("npz", str(broken))
    for path, finding in (
        (tmp_path / "none.npz", "no such file"),
        (tmp_path, "cannot be read (Is a directory)"),
    ):
        with pytest.raises(DataError, match=re.escape(finding)):
            data.load("npz", str(path))


def npy_header(shape: str) -> bytes:
    return npy_header_of(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}")


def npy_header_of(text: str) -> bytes:
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("shape", "content", "finding"),
    [
        ("(7, 4, 4)", IMAGES.tobytes()[:-1], "ends 1 bytes early"),
        ("(7, 4, 4)", IMAGES.tobytes() + b"x", "goes on after its array"),
        ("(2000000, 784)", IMAGES.tobytes(), "'x' claims 1568000000 bytes in a file of"),
        ("(-1, 4)", IMAGES.tobytes(), "needs one or more examples"),
        ("(7, 'a')", IMAGES.tobytes(), "damaged npz file"),
    ],
)
def test_a_header_that_the_values_do_not_fit(tmp_path, shape, content, finding):
    path = tmp_path / "a.npz"
    np.savez(path, y=CLASSES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", npy_header(shape) + content)
    with pytest.raises(DataError, match=finding) as caught:
        data.load("npz", str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("(" * 3000, "damaged npz file"),
        ("[" * 3000, "damaged npz file"),
        ("-" * 9000 + "1", "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 3000, "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (7, 4, 4)", "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (7, 4, 4), 'x': 1}", "damaged npz"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (7, 4, 4)}}", "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': 0, 'shape': (7, 4, 4)}", "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': 7}", "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (--7, 4)}", "damaged npz file"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 3000 + ")}", "3000 axes"),
        ("{'descr': 'zz', 'fortran_order': False, 'shape': (7, 4, 4)}", "damaged npz file"),
        ("{'descr': '(9,9)u1', 'fortran_order': False, 'shape': (7,)}", "damaged npz file"),
        ("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (7,)}", "structured array"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (7,)}", "holds Python objects"),
        ("", "damaged npz file"),
        ("{}", "damaged npz file"),
        ("x" * 20000, "damaged npz file"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, text: str, finding: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, y=CLASSES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", npy_header_of(text) + IMAGES.tobytes())
    with pytest.raises(DataError, match=finding) as caught:
        data.load("npz", str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (7, 4, 4), }",
        '{"shape": (7L, 4L, 4L), "fortran_order": False, "descr": "|u1"}',
        "{'fortran_order':False,'shape':(7,4,4),'descr':'u1'}",
    ],
)
def test_headers_as_others_write_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, y=CLASSES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", npy_header_of(text) + IMAGES.tobytes())
    np.testing.assert_array_equal(data.load("npz", str(path)).x, IMAGES.astype(np.float32) / 255)


def test_headers_of_the_second_version(tmp_path: Path) -> None:
    path, stream = tmp_path / "a.npz", io.BytesIO()
    np.savez(path, y=CLASSES)
    np.lib.format.write_array(stream, IMAGES, version=(2, 0))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", stream.getvalue())
    np.testing.assert_array_equal(data.load("npz", str(path)).x, IMAGES.astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("shape", "finding"),
    [((40_000_000,), "7 examples, 'y' 40000000 labels"), ((7, 6_000_000), "save one class number")],
)
@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_labels_that_are_not_one_an_example_are_not_read(
    tmp_path: Path, kind: str, shape: tuple[int, ...], finding: str
) -> None:
    labels = np.zeros(shape, np.uint8)
    if kind == "npz":
        path = tmp_path / "a.npz"
        np.savez_compressed(path, x=IMAGES, y=labels)
    else:
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["x"] = IMAGES
            file.create_dataset("y", data=labels, compression="gzip")
    del labels
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=finding):
            data.load(kind, str(path))
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_compressed_and_in_fortrans_order_and_big_endian(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez_compressed(path, x=np.asfortranarray(IMAGES), y=CLASSES.astype(">i4"))
    found = data.load("npz", path)
    np.testing.assert_array_equal(found.x, IMAGES.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(found.y, CLASSES)
    np.savez(path, x=(IMAGES / 7.0).astype(">f8"), y=CLASSES)
    np.testing.assert_array_equal(data.load("npz", path).x, (IMAGES / 7.0).astype(np.float32))


def test_blocks_leave_no_seam(tmp_path, monkeypatch):
    monkeypatch.setattr("bprune_hpc.data.values.BLOCK_BYTES", 3 * 16 * 4)
    path = save(tmp_path / "a.npz", x=IMAGES, y=CLASSES)
    np.testing.assert_array_equal(data.load("npz", path).x, IMAGES.astype(np.float32) / 255)
    holed = np.where(np.arange(7)[:, None, None] == 5, np.inf, IMAGES / 1.0)
    with pytest.raises(DataError, match="inf in example 5"):
        data.load("npz", save(tmp_path / "b.npz", x=holed, y=CLASSES))


def test_what_cannot_be_loaded_at_all(tmp_path):
    there = tmp_path / "y.dat"
    there.write_text("label,pixel\n")
    for dataset, path, finding in (
        ("npz", None, "give its path"),
        ("imagenet", None, "no data set is called 'imagenet'"),
        ("auto", str(tmp_path / "x.csv"), "x.csv: no such file"),
        ("auto", str(there), "pass --dataset"),
        ("auto", str(tmp_path), "pass --dataset"),
        ("digits", "digits.npz", "leave the path out"),
    ):
        with pytest.raises(DataError, match=finding):
            data.load(dataset, path)


def test_check_labels_names_the_first_offender():
    data.check_labels(CLASSES, 3)
    with pytest.raises(DataError, match=r"label 2 of example 2 .* which has 2; labels run"):
        data.check_labels(CLASSES, 2)
    with pytest.raises(DataError, match="label -1 of example 0"):
        data.check_labels(np.array([-1, 5]), 3)
    with pytest.raises(DataError, match="float64, not integers"):
        data.check_labels(CLASSES * 1.0, 3)
