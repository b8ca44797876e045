"""npy files, in pairs or by the directory; names of arrays in npy, npz and HDF5 files alike."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import data
from bprune_hpc.errors import DataError

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2, 1])
OTHER_X, OTHER_Y = X[:5] + 1, Y[:5][::-1].copy()


def save(kind: str, place: Path, **arrays: np.ndarray) -> str:
    """Arrays by their names in a file, or a directory, of a kind."""
    if kind == "npz":
        np.savez(place / "a.npz", **arrays)
        return str(place / "a.npz")
    if kind == "hdf5":
        with h5py.File(place / "a.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array
        return str(place / "a.h5")
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array)
    return str(place)


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
@pytest.mark.parametrize(
    ("x_name", "y_name"),
    [("x_test", "y_test"), ("X_test", "y_test"), ("X_TEST", "Y_TEST"), ("x", "y"), ("X", "y"),
     ("test_images", "test_labels"), ("images_test", "labels_test"), ("test_data", "test_targets"),
     ("data", "target"), ("images", "labels"), ("features", "label")],
)  # fmt: skip
def test_names_that_are_known(tmp_path: Path, kind: str, x_name: str, y_name: str) -> None:
    others = {"train_images": OTHER_X, "train_labels": OTHER_Y, "val_images": OTHER_X}
    path = save(kind, tmp_path, **{x_name: X, y_name: Y[:, None]}, **others)
    found = data.load("auto", path)
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.y, Y)
    assert found.name == kind
    assert set(found.sha256.values()) == {
        hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in found.sha256
    }
    assert len(found.sha256) == (2 if kind == "npy" else 1)


def test_one_hot_rows_have_their_length(tmp_path: Path) -> None:
    for kind in ("npz", "hdf5", "npy"):
        path = save(kind, tmp_path, x=X, y=np.eye(4)[Y])
        found = data.load("auto", path)
        np.testing.assert_array_equal(found.y, Y)
        assert found.n_columns == 4
        with pytest.raises(DataError, match="--first_label .* are one-hot rows; leave it out"):
            data.load("auto", path, first_label=1)


@pytest.mark.parametrize("names", [("x_test", "y_test"), ("X_test", "y_test")])
@pytest.mark.parametrize("others", [("x", "y"), ("X", "Y"), ("images", "labels")])
@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
def test_the_test_set_comes_before_all_else(
    tmp_path: Path, kind: str, names: tuple[str, str], others: tuple[str, str]
) -> None:
    arrays = dict(zip((*names, *others), (X, Y, OTHER_X, OTHER_Y), strict=True))
    found = data.load("auto", save(kind, tmp_path, **arrays))
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.y, Y)


@pytest.mark.parametrize("half", ["x_test", "y_test", "X_test"])
def test_half_a_test_set_is_not_made_whole_by_other_examples(tmp_path: Path, half: str) -> None:
    path = save("npz", tmp_path, **{half: X, "x": OTHER_X, "y": OTHER_Y})
    with pytest.raises(DataError, match="name others with --x_key and --y_key"):
        data.load("auto", path)


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"x_key": "spectra", "y_key": "kinds"}, (X, Y)),
        ({"x_key": "images_val"}, (OTHER_X, OTHER_Y)),
        ({"y_key": "labels_val"}, (OTHER_X, OTHER_Y)),
        ({"x_key": "images_val", "y_key": "other"}, (OTHER_X, OTHER_Y[::-1])),
    ],
)
def test_names_that_are_given(tmp_path: Path, kind: str, asked: dict, expected: tuple) -> None:
    path = save(
        kind, tmp_path, spectra=X, kinds=Y, images_val=OTHER_X, labels_val=OTHER_Y,
        other=OTHER_Y[::-1], x_test=X[:2], y_test=Y[:2],
    )  # fmt: skip
    found = data.load("auto", path, **asked)
    np.testing.assert_array_equal(found.x, expected[0])
    np.testing.assert_array_equal(found.y, expected[1])


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
@pytest.mark.parametrize(
    ("arrays", "asked", "finding"),
    [
        ({"a": X, "b": Y}, {}, "has the arrays a, b; needs 'x_test' and 'y_test', or 'x' and 'y'; "
         "name others with --x_key and --y_key"),
        ({"images": X, "data": X, "labels": Y}, {}, "--x_key which is meant"),
        ({"images": X, "labels": Y, "target": Y}, {}, "say with --y_key which is meant"),
        ({"x": X, "y": Y}, {"x_key": "z"}, "no 'z' in the arrays x, y; check --x_key"),
        ({"x": X, "y": Y}, {"y_key": "z"}, "no 'z' in the arrays x, y; check --y_key"),
        ({"x_val": X, "y_test": Y}, {"x_key": "x_val"}, "needs 'x_test' and 'y_test'"),
    ],
)  # fmt: skip
def test_names_that_are_refused(
    tmp_path: Path, kind: str, arrays: dict, asked: dict, finding: str
) -> None:
    path = save(kind, tmp_path, **arrays)
    with pytest.raises(DataError, match=finding) as caught:
        data.load(kind, path, **asked)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(path)


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
def test_without_labels(tmp_path: Path, kind: str) -> None:
    path = save(kind, tmp_path, spectra=X)
    found = data.load(kind, path, with_labels=False)
    np.testing.assert_array_equal(found.x, X)
    assert found.y is None
    path = save(kind, tmp_path, spectra=X, test_images=OTHER_X, test_labels=np.array(["?"] * 9))
    for asked, x in (({}, OTHER_X), ({"x_key": "spectra"}, X), ({"x_key": "absent"}, OTHER_X)):
        found = data.load(kind, path, with_labels=False, **asked)
        np.testing.assert_array_equal(found.x, x)


def test_arrays_in_groups_of_an_hdf5_file(tmp_path: Path) -> None:
    path = save("hdf5", tmp_path, **{"test/images": X, "test/labels": Y})
    found = data.load("hdf5", path, x_key="test/images", y_key="/test/labels")
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.y, Y)
    with pytest.raises(DataError, match="no 'test/other' in the arrays test; check --x_key"):
        data.load("hdf5", path, x_key="test/other", y_key="test/labels")


def test_a_file_of_examples_beside_that_of_its_labels(tmp_path: Path) -> None:
    save("npy", tmp_path, x_test=X, y_test=Y, x_train=OTHER_X, y_train=OTHER_Y, kinds=Y, spectra=X)
    for name, asked, expected in (
        ("x_test", {}, (X, Y)),
        ("x_train", {}, (OTHER_X, OTHER_Y)),
        ("spectra", {"y_key": "kinds.npy"}, (X, Y)),
        ("spectra", {"y_key": "kinds"}, (X, Y)),
    ):
        found = data.load("auto", str(tmp_path / f"{name}.npy"), **asked)
        np.testing.assert_array_equal(found.x, expected[0])
        np.testing.assert_array_equal(found.y, expected[1])
    (tmp_path / "y_test.npy").unlink()
    with pytest.raises(
        DataError, match="x_test.npy: has the arrays .*name others with --x_key and"
    ):
        data.load("auto", str(tmp_path / "x_test.npy"))


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
@pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">i2", "u4", "i8", "<f2", ">f4", "f8"])
def test_every_real_type_is_read(tmp_path: Path, kind: str, dtype: str) -> None:
    x = np.abs(X * 3).astype(dtype)
    path = save(kind, tmp_path, x=x, y=Y)
    found = data.read(kind, path)
    assert found.x.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found.x, x)
    assert found.scaling == f"{np.dtype(dtype)} as stored"
    narrow = data.read(kind, path, network=data.NetworkInput(dtype="float32"))
    assert narrow.x.dtype == ("float32" if dtype == "f8" else found.x.dtype)


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy"])
@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        (Y.astype(np.int64), Y, None),
        (Y == 1, Y == 1, None),
        (np.array(["cat", "dog", "ant"])[Y], np.array([1, 2, 0])[Y], ("ant", "cat", "dog")),
        (np.array(["0", "10", "2"])[Y], np.array([0, 10, 2])[Y], None),
        (np.eye(3)[Y], Y, None),
    ],
)
def test_forms_of_labels(
    tmp_path: Path, kind: str, labels: np.ndarray, expected: np.ndarray, classes: object
) -> None:
    found = data.load(kind, save(kind, tmp_path, x=X, y=labels))
    np.testing.assert_array_equal(found.y, expected)
    assert found.classes == classes
    if classes is not None:
        assert "classes 0 'ant', 1 'cat', 2 'dog'; labels 0 to 2" in data.describe(found, "a")
        data.check_labels(found.labels, 3, found.classes)
        with pytest.raises(DataError, match="labels are 3 names .*, the network has 4 classes"):
            data.check_labels(found.labels, 4, found.classes)


def test_classes_that_are_not_numbered_from_0(tmp_path: Path) -> None:
    path = save("npz", tmp_path, x=X, y=Y + 1)
    found = data.load("npz", path)
    with pytest.raises(DataError, match="label 3 of example 2 .* pass --first_label=1 where"):
        data.check_labels(found.labels, 3)
    np.testing.assert_array_equal(data.load("npz", path, first_label=1).y, Y)
    named = save("npz", tmp_path, x=X, y=np.array(["a", "b", "c"])[Y])
    with pytest.raises(DataError, match="--first_label is of class numbers, and its labels are na"):
        data.load("npz", named, first_label=1)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "not an npy file; save the array with numpy.save"),
        (b"PK\x03\x04" + bytes(40), "not an npy file"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, "damaged npy file"),
        (b"\x93NUMPY\x03\x00\x10\x00\x00\x00" + b"{" * 16, "structured array"),
        ("cut", "damaged npy file .*ends 1 bytes early"),
        ("long", "damaged npy file .*goes on after its array"),
        ("object", "holds Python objects"),
    ],
)
@pytest.mark.parametrize("part", ["x", "y"])
def test_damaged_files(tmp_path: Path, part: str, content: bytes | str, finding: str) -> None:
    save("npy", tmp_path, x=X, y=Y)
    file = tmp_path / f"{part}.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "object":
        np.save(file, np.array([[1, "a"]] * 7, object), allow_pickle=True)
    else:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] if content == "cut" else whole + b"x")
    for path in (tmp_path, tmp_path / "x.npy"):
        with pytest.raises(DataError, match=f"^{re.escape(str(file))}:? .*{finding}") as caught:
            data.load("npy", str(path))
        assert "\n" not in str(caught.value)


def test_a_header_that_claims_more_than_there_can_be(tmp_path: Path) -> None:
    save("npy", tmp_path, y=Y)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (7, 10**12)}
    )
    (tmp_path / "x.npy").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="claims 28000000000000 bytes in a file of"):
        data.load("npy", str(tmp_path))


@pytest.mark.parametrize("kind", ["npz", "hdf5", "npy", "csv"])
def test_random_damage_is_refused_in_one_line_or_changes_values_alone(
    tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(7)
    if kind == "csv":
        files = [tmp_path / "a.csv"]
        np.savetxt(files[0], np.c_[X, Y], delimiter=",", fmt="%.4g")
    else:
        save(kind, tmp_path, x=X, y=np.array(["a", "b", "c"])[Y])
        files = sorted(path for path in tmp_path.iterdir() if path.is_file())
    place = str(tmp_path if kind == "npy" else files[0])
    whole = {file: file.read_bytes() for file in files}
    for _ in range(150):
        file = files[rng.integers(len(files))]
        content = bytearray(whole[file])
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            content[at] = rng.integers(256)
        file.write_bytes(content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.2
                         else content)  # fmt: skip
        try:
            found = data.load(kind, place)
            assert np.isfinite(found.x).all() and len(found.x) == len(found.labels)
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
        file.write_bytes(whole[file])
