"""Tables of text: columns by place and by name, headers, class names, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import data
from bprune_hpc.errors import DataError

X = np.round(np.random.default_rng(0).normal(size=(6, 4)), 4)
Y = np.array([0, 1, 2, 2, 1, 0])
NAMES = np.array(["ant", "bee", "cat"])
HEADER = "a,b,c,d,kind"


def table(*columns: np.ndarray, header: str = "", sep: str = ",") -> str:
    rows = [
        sep.join(str(value) for column in columns for value in np.atleast_1d(column[row]))
        for row in range(len(columns[0]))
    ]
    return "\n".join(([header.replace(",", sep)] if header else []) + rows) + "\n"


def save(place: Path, text: str, name: str = "t.csv") -> str:
    (place / name).write_text(text, newline="")
    return str(place / name)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (table(X, Y), {}),
        (table(X, Y, header=HEADER), {}),
        (table(X, Y, header=HEADER, sep=";"), {}),
        (table(X, Y, header=HEADER, sep="\t"), {}),
        (table(X, Y, sep=" "), {}),
        (" " + table(X, Y, header=HEADER, sep="   ").replace("\n", " \n "), {}),
        (table(Y, X, sep="  "), {"target_columns": ["0"]}),
        (table(X, Y, header="0,1,2,3,4"), {}),
        (table(X, Y, header="0,1,2,3,label"), {}),
        (table(X, Y, header='"a","b","c","d","label"'), {}),
        (table(Y, X, header="label,a,b,c,d"), {}),
        (table(Y, X), {"target_columns": ["0"]}),
        (table(Y, X), {"target_columns": ["-5"]}),
        (table(Y, X, header="kind,a,b,c,d"), {"target_columns": ["kind"]}),
        (table(X[:, :2], Y, X[:, 2:], header="a,b,kind,c,d"), {"target_columns": ["2"]}),
        (table(X, np.eye(3, dtype=int)[Y]), {"target_columns": ["4", "5", "6"]}),
        (table(X, Y * 1.0), {}),
        (table(X, Y).replace("\n", "\r\n"), {}),
        ("\ufeff" + table(X, Y, header=HEADER), {}),
        (table(X, Y).replace("\n", "\n\n"), {}),
        (table(X, Y).rstrip("\n"), {}),
    ],
)
def test_tables_of_numbers(tmp_path: Path, text: str, asked: dict) -> None:
    path = save(tmp_path, text)
    for dataset in ("auto", "csv"):
        found = data.read(dataset, path, **asked)
        np.testing.assert_array_equal(found.x, X)
        np.testing.assert_array_equal(found.y, Y)
        assert (found.x.dtype, found.classes) == (np.float64, None)
        assert (found.name, found.scaling) == ("csv", "text as stored")
        assert found.sha256 == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    narrow = data.read("csv", path, network=data.NetworkInput((None, 4)), **asked)
    np.testing.assert_array_equal(narrow.x, X.astype(np.float32))


@pytest.mark.parametrize("header", ["", "a,b,c,d,kind", "0,1,2,3,class"])
def test_names_of_classes(tmp_path: Path, header: str) -> None:
    found = data.load("csv", save(tmp_path, table(X, NAMES[Y], header=header)))
    np.testing.assert_array_equal(found.y, Y)
    assert found.classes == ("ant", "bee", "cat")
    quoted = np.array(['"ant, red"', '"bee"', '"cat"'])[Y]
    found = data.load("csv", save(tmp_path, table(X, quoted, header=header)))
    np.testing.assert_array_equal(found.y, Y)
    assert found.classes == ("ant, red", "bee", "cat")


def test_targets_of_a_regression(tmp_path: Path) -> None:
    path = save(tmp_path, table(X[:, 1:], X[:, 0]))
    found = data.load("csv", path, task="regression")
    np.testing.assert_array_equal(found.y, X[:, 0])
    with pytest.raises(DataError, match="column 3 has .* at example 0; save class numbers"):
        data.load("csv", path)


def test_without_labels(tmp_path: Path) -> None:
    network = data.NetworkInput((None, 4))
    for text in (
        table(X),
        table(X, Y),
        table(X, NAMES[Y], header=HEADER),
        table(X, header="a,b,c,d"),
    ):
        found = data.read("csv", save(tmp_path, text), with_labels=False, network=network)
        np.testing.assert_array_equal(found.x, X.astype(np.float32))
        assert found.y is None


@pytest.mark.parametrize("text", ["1,9,0\n0,8,1\n", "1,9,0\n2,8,0\n"])
def test_a_label_that_is_told_may_be_of_any_column(tmp_path: Path, text: str) -> None:
    values = np.array([[int(field) for field in line.split(",")] for line in text.split()])
    for column in (0, 1, 2):
        found = data.load("csv", save(tmp_path, text), target_columns=[str(column)])
        np.testing.assert_array_equal(found.y, values[:, column])
    found = data.load("csv", save(tmp_path, f"a,b,label\n{text}"))
    np.testing.assert_array_equal(found.y, values[:, 2])


@pytest.mark.parametrize(
    ("text", "asked", "finding"),
    [
        ("", {}, "has no first line"),
        ("\n1,2\n", {}, "has no first line"),
        (HEADER + "\n", {}, "has no example behind its header"),
        ("1\n2\n", {}, "has 1 columns in its first line; needs examples and labels"),
        ("1,2,0\n1,2\n", {}, "example 1 has 2 fields, those before 3"),
        ("1,2,0\n1,2,0,5\n", {}, "example 1 has 4 fields, those before 3"),
        ("a,b,label\n1,2,0\n1,x,1\n", {}, "example 1 has 'x' in column 'b', which is not a number"),
        ("1,2,0\n1,,1\n", {}, "example 1 has '' in column 1"),
        ("1,2,0\n1,2,\n", {}, "example 1 has no label; mend or drop it"),
        ("1,2,0\n1,nan,1\n", {}, "has nan in example 1; mend or drop it"),
        ("1,NA,cat\n1,2,dog\n", {}, "texts 'NA' and 'cat' beside numbers"),
        (",a,b,label\n0,1,2,0\n1,1,2,0\n", {}, "the first column has no name"),
        ("Unnamed: 0,a,b,label\n0,1,2,0\n", {}, "index=False"),
        # As MNIST is often passed on: the label first, no header, and the last pixel always black.
        ("1,9,0\n2,8,0\n0,9,0\n", {}, "0 in each example; say with --target_columns .*0 or"),
        ("1,9,0\n0,8,1\n0,9,1\n", {}, "the same values, as classes have; .*--target_columns"),
        ("a,target,label\n1,2,0\n", {}, "'target' and 'label' could be the label; say which with"),
        ("a,b,c\n1,2,0\n", {"target_columns": ["d"]}, "no column 'd'; its columns: 'a', 'b', 'c'"),
        ("1,2,0\n", {"target_columns": ["3"]}, "has no column '3'; its columns: 0 to 2, without"),
        ("1,2,0\n", {"target_columns": ["1", "-2"]}, "names a column twice"),
        ("1,2\0,0\n", {}, "not text"),
        ("1;2,5;0\n", {}, "first line has|not a number|beside numbers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, text: str, asked: dict, finding: str
) -> None:
    path = save(tmp_path, text)
    with pytest.raises(DataError, match=finding) as caught:
        data.load("csv", path, **asked)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(path)


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"1,2,caf\xe9\n")
    with pytest.raises(DataError, match="cannot be read as a table of text .*UTF-8"):
        data.load("csv", str(path))
    np.savez(tmp_path / "t.npz", x=X)
    with pytest.raises(DataError, match="t.npz: "):
        data.load("csv", str(tmp_path / "t.npz"))
    with pytest.raises(DataError, match="--x_key: is of npz, npy, hdf5, not of csv"):
        data.load("csv", str(path), x_key="a")
    with pytest.raises(DataError, match="--target_columns: is of csv, not of npz"):
        data.load("npz", str(tmp_path / "t.npz"), target_columns=["a"])
