"""HDF5 data sets: values in every layout, and one line for whatever is wrong with a file."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bprune_hpc import data
from bprune_hpc.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4), np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 1], np.int64)


def save(path: Path, **arrays: Any) -> str:
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return str(path)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".hdf"])
def test_both_halves(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", x_test=IMAGES, y_test=CLASSES, x_train=IMAGES / 7.0,
                y_train=np.eye(3)[CLASSES])  # fmt: skip
    test, train = data.load("auto", path), data.load("auto", path, "train")
    np.testing.assert_array_equal(test.x, (IMAGES / 255).astype(np.float32))
    np.testing.assert_array_equal(train.x, (IMAGES / 7.0).astype(np.float32))
    for found in (test, train):
        np.testing.assert_array_equal(found.y, CLASSES)
        assert (found.name, found.x.dtype, found.y.dtype) == ("hdf5", np.float32, np.int64)
        assert found.sha256 == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()}


@pytest.mark.parametrize("dtype", ["uint8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("layout", [{"chunks": (3, 2, 4), "compression": "gzip"}, {"chunks": None}])
def test_layouts(tmp_path: Path, dtype: str, layout: dict[str, Any]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=IMAGES.astype(dtype), **layout)
        file["y"] = CLASSES.astype(np.uint8)[:, None]
    found = data.load("hdf5", str(path))
    expected = IMAGES.astype(np.float32)
    np.testing.assert_array_equal(found.x, expected / 255 if dtype == "uint8" else expected)
    np.testing.assert_array_equal(found.y, CLASSES)


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        ({"x": IMAGES, "y": CLASSES[:6]}, "'x' has 7 examples, 'y' 6 labels"),
        ({"metrics": IMAGES}, "has the arrays metrics; needs 'x_test' and 'y_test'"),
        ({"x": IMAGES[:0], "y": CLASSES[:0]}, r"shape \(0, 4, 4\); needs one or more"),
        ({"x": IMAGES.astype(complex), "y": CLASSES}, "'x' is complex128; a network takes num"),
        ({"x": np.full((7, 4), 1e300), "y": CLASSES}, "inf in example 0"),
        ({"x": np.where(IMAGES[5, 1, 2] == IMAGES, np.nan, 1.0), "y": CLASSES}, "nan in example"),
        ({"x": ["a"] * 7, "y": CLASSES}, "'x' has shape .7,.; needs one or more"),
        ({"x": IMAGES, "y": ["a" * 20_000] * 7}, "'y' holds texts of more than 10000 bytes"),
        ({"x": IMAGES, "y": [["a", "b"]] * 7}, "'y' has shape .7, 2.; save one label"),
        ({"x": h5py.Empty("f"), "y": CLASSES}, "'x' is not an array"),
        ({"x/inner": IMAGES, "y": CLASSES}, "'x' is not an array"),
        ({"x": h5py.ExternalLink("b.h5", "/x"), "y": CLASSES}, "'x' links to another file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, arrays: Any, finding: str) -> None:
    save(tmp_path / "b.h5", x=IMAGES)
    path = save(tmp_path / "a.h5", **arrays)
    with pytest.raises(DataError, match=finding) as caught:
        data.load("hdf5", path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(path)


def test_values_in_other_files_have_no_digest_and_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    save(tmp_path / "b.h5", x=IMAGES)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
        layout[...] = h5py.VirtualSource(str(tmp_path / "b.h5"), "x", IMAGES.shape)
        file.create_virtual_dataset("x", layout)
        file["y"] = CLASSES
    with pytest.raises(
        DataError, match="'x' is stored in other files; copy the data into this one"
    ):
        data.load("hdf5", str(path))


@pytest.mark.parametrize("through", ["soft", "group", "twice", "in a group"])
def test_a_link_to_another_file_is_found_behind_links(tmp_path: Path, through: str) -> None:
    """And none is opened on the way: to open a pipe would take for ever."""
    path = tmp_path / "a.h5"
    os.mkfifo(tmp_path / "b.h5")
    with h5py.File(path, "w") as file:
        file["y"] = CLASSES
        if through == "group":
            file["other"] = h5py.ExternalLink("b.h5", "/")
            file["x"] = h5py.SoftLink("/other/x")
        elif through == "in a group":
            file["some/more/x"] = h5py.ExternalLink("b.h5", "/x")
            file["x"] = h5py.SoftLink("./some/more/x")
        else:
            file["other"] = h5py.ExternalLink("b.h5", "/x")
            file["second"] = h5py.SoftLink("other")
            file["x"] = h5py.SoftLink("second" if through == "twice" else "/other")
    with pytest.raises(DataError, match="'x' links to another file; copy the data into this one"):
        data.load("hdf5", str(path))


def test_links_within_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["some/more/images"] = IMAGES
        file["some/labels"] = CLASSES
        file["here"] = h5py.SoftLink("some")
        file["some/x"] = h5py.SoftLink("more/images")
        file["x"] = h5py.SoftLink("/here/x")
        file["y"] = file["some/labels"]
    np.testing.assert_array_equal(data.load("hdf5", str(path)).y, CLASSES)
    with h5py.File(path, "r+") as file:
        del file["y"]
        file["y"] = h5py.SoftLink("z")
        file["z"] = h5py.SoftLink("y")
    with pytest.raises(DataError, match=r"a.h5: 'y' leads .* more than 64 links .* in a circle;"):
        data.load("hdf5", str(path))
    with h5py.File(path, "r+") as file:
        del file["z"]
    with pytest.raises(DataError, match="damaged HDF5 file .*no 'z' where 'y' leads"):
        data.load("hdf5", str(path))


def test_a_size_that_the_file_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**9, 784), "f4", chunks=(1000, 784))
        file["y"] = CLASSES
    with pytest.raises(DataError, match="'x' claims 3136000000000 bytes in a file of"):
        data.load("hdf5", str(path))


def test_damaged_and_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.tile(IMAGES, (50, 1, 1)), compression="gzip")
        file["y"] = np.tile(CLASSES, 50)
    whole = path.read_bytes()
    for content, finding in (
        (whole[:-100], "damaged HDF5 file"),
        (b"", "not an HDF5 file"),
        (b"PK\x03\x04", "not an HDF5 file"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {finding}") as caught:
            data.load("hdf5", str(path))
        assert "\n" not in str(caught.value)
    for place, finding in ((tmp_path / "none.h5", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(DataError, match=finding):
            data.load("hdf5", str(place))
