"""What all kinds of data files share: digests, values taken in blocks, labels.

What belongs here: the checks that make values usable, each with one line for whatever is wrong.
What does not: any file format (``data.npz``, ``data.hdf5``, ...), choosing one (``data``), what a
network makes of the values (``data.fitting``).

Reading a data set costs about its own size: values come block by block into the array that is
given back, in the type in which they are stored; floats that are wider than the network's input
are narrowed on the way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import sources
from ..errors import DataError

Split = Literal["test", "train"]
AS_STORED = "as stored"

BLOCK_BYTES = 8 * 2**20
# Deflate, the strongest filter in use, shrinks no further; what claims more is a forged size.
_MOST_COMPRESSED = 1032
_GIB = 2**30
_REAL = "biuf"  # kinds of NumPy's types
_MOST_CLASSES = 10**6  # of labels that are one-hot rows
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_LAST_CHARACTER = 0x10FFFF
_LARGEST_TARGET = float(np.finfo(np.float32).max)  # what a network could give


@dataclass(frozen=True)
class Request:
    """What is wanted of the files of a data set.

    Attributes
    ----------
    split : {"test", "train"}
    task : {"classification", "regression"}
        Whether labels are classes or numbers.
    with_labels : bool
        Without, labels are neither needed nor read.
    x_key, y_key : str or None
        Names of the examples' array and of the labels'; None for those that are known.
    target_columns : tuple of str
        Of a table: names or numbers of the columns that are labels; empty for the last.
    subtract_pixel_mean : bool
        Of CIFAR-10.
    dtype : dtype or None
        Type of the network's input; None where it is not known.
    n_values : int or None
        How many numbers an example has for the network; None where that is not known.
    """

    split: Split = "test"
    task: str = "classification"
    with_labels: bool = True
    x_key: str | None = None
    y_key: str | None = None
    target_columns: tuple[str, ...] = ()
    subtract_pixel_mean: bool = False
    dtype: np.dtype[Any] | None = None
    n_values: int | None = None

    def type_of(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """Type in which examples are read: as stored, floats no wider than the network's."""
        wanted = self.dtype
        is_wide = wanted is not None and wanted.kind == stored.kind == "f"
        if wanted is not None and is_wide and stored.itemsize > wanted.itemsize:
            return wanted
        return stored.newbyteorder("=")


class Part(NamedTuple):
    """What a file holds of a data set.

    Attributes
    ----------
    x : array, shape (n, ...)
        Examples, as they are stored; of ``is_scaled`` data float32.
    y : int64 or float64 array, shape (n,), or None
        Classes, or targets; None where they were not wanted.
    sha256 : dict of str to str
        Digest of every file that was read, by path.
    scaling : str
        Type of the examples in the file, and what was done to them.
    classes : tuple of str or None
        Names of the classes, where labels are text: class 0 has the first.
    is_scaled : bool
        Whether examples are scaled here, as this data set always is.
    n_columns : int
        Length of one-hot rows, where labels are such; else 0 or 1.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    sha256: dict[str, str]
    scaling: str
    classes: tuple[str, ...] | None = None
    is_scaled: bool = False
    n_columns: int = 0


@lru_cache
def as_stored(dtype: np.dtype[Any]) -> str:
    """``Part.scaling`` of examples that are as they are in the file."""
    return f"{dtype} {AS_STORED}"


@contextmanager
def open_binary(file: Path) -> Iterator[BufferedReader]:
    """Open a file for reading.

    Raises
    ------
    DataError
        If that or anything read from it fails.
    """
    try:
        with file.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; check the path") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{file}: cannot be read ({reason}); check the path") from None


def sha256_of(stream: BufferedReader) -> str:
    """Digest of a file from its beginning; the file stands at its beginning afterwards."""
    stream.seek(0)
    digest = sources.sha256_of(stream)
    stream.seek(0)
    return digest


def check_claim(n_bytes: int, file_bytes: int, name: str) -> None:
    """Refuse a size that a file cannot hold, before memory of that size is asked for."""
    if n_bytes > _MOST_COMPRESSED * file_bytes:
        raise DataError(
            f"{name} claims {n_bytes} bytes in a file of {file_bytes}; damaged: copy it again"
        )


def check_kind(shape: Sequence[int], dtype: np.dtype[Any], name: str) -> None:
    """Refuse what cannot be examples.

    Raises
    ------
    DataError
        If there is no example, no axis besides the examples', or a type that is no real number.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise DataError(f"{name} has shape {tuple(shape)}; needs one or more examples, (n, ...)")
    if dtype.kind not in _REAL:
        raise DataError(f"{name} is {dtype}; a network takes numbers: save integers or floats")


def empty_examples(shape: Sequence[int], name: str, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Room for examples.

    Raises
    ------
    DataError
        If this machine has not that much.
    """
    try:
        return np.empty(tuple(shape), dtype)
    except (MemoryError, ValueError):
        size = np.dtype(dtype).itemsize * math.prod(shape) / _GIB
        raise DataError(
            f"{name}: {tuple(shape)} in {np.dtype(dtype)} is {size:.1f} GiB, more than there is; "
            "take fewer examples"
        ) from None


def blocks(n: int, example_bytes: int) -> Iterator[slice]:
    """Slices that cover ``n`` examples, each of about :data:`BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // max(1, example_bytes))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def check_finite(x: NDArray[Any], name: str, first_example: int = 0) -> None:
    """Raise with the first example that holds a NaN or an infinity.

    Parameters
    ----------
    x : array, shape (n, ...)
    first_example : int
        Number of ``x[0]`` in the data set.
    """
    if x.dtype.kind != "f":
        return
    if x.dtype.itemsize in (4, 8) and x.flags.c_contiguous:
        numbers = x.reshape(-1)
        if math.isfinite(np.dot(numbers, numbers)):  # half the time of looking at each
            return
    finite = np.isfinite(x)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        number = first_example + first[0]
        raise DataError(f"{name} has {x[first]} in example {number}; mend or drop it")


def class_labels(y: NDArray[Any], name: str) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Class numbers, and the classes' names where labels are text.

    Parameters
    ----------
    y : array
        Numbers, truth values, texts, a column of these, or one-hot rows. Texts that are whole
        numbers are those numbers; others are the classes' names, numbered in alphabetical order.

    Raises
    ------
    DataError
        If ``y`` is none of these.
    """
    y = _one_axis(y)
    if y.dtype.kind not in "SUO":
        return labels(y, name), None
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}; save one class number an example, (n,)")
    if y.dtype.kind == "U":
        _check_characters(y, name)
    texts = [_text(value, name) for value in y]
    if all(_WHOLE.fullmatch(text) for text in texts):
        return np.array([int(text) for text in texts], np.int64), None
    known = tuple(sorted(set(texts)))
    number_of = {text: number for number, text in enumerate(known)}
    return np.array([number_of[text] for text in texts], np.int64), known


def _one_axis(y: NDArray[Any]) -> NDArray[Any]:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _check_characters(y: NDArray[Any], name: str) -> None:
    """Refuse numbers that are no characters, which Python cannot make texts of."""
    codes = np.ascontiguousarray(y).view(f"{y.dtype.byteorder}u4") if y.size else np.zeros(0, "u4")
    if ((codes > _LAST_CHARACTER) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
        raise DataError(f"{name} holds values that are not text; save class numbers from 0")


def _text(value: Any, name: str) -> str:
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        text = None
    if not isinstance(text, str):
        raise DataError(f"{name} holds {value!s:.40}, no text; save class numbers from 0")
    return str(text).strip()


def labels(y: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Class numbers from numbers, truth values, a column of these, or one-hot rows.

    Raises
    ------
    DataError
        If ``y`` is none of these.
    """
    if y.ndim == 2 and y.shape[1] > 1:
        if y.dtype.kind not in _REAL or not (
            np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        ):
            raise DataError(f"{name} has shape {y.shape} but is not one-hot; save class numbers")
        return y.argmax(axis=1).astype(np.int64)
    y = _one_axis(y)
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}; save one class number an example, (n,)")
    if y.dtype.kind in "biu":
        return y.astype(np.int64)
    # Complex numbers have no order: only floats can hold class numbers.
    if y.dtype.kind != "f":
        raise DataError(f"{name} is {y.dtype}; save class numbers from 0")
    wrong = np.flatnonzero(~(np.isfinite(y) & (y == np.round(y))))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{name} has {y[first]} at example {first}; save class numbers from 0, "
            "or pass --task=regression"
        )
    return y.astype(np.int64)


def targets(y: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Numbers to predict: one an example, shape (n,), or several, shape (n, n_targets).

    Raises
    ------
    DataError
        If ``y`` is neither, or has a number that is not finite.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2):
        raise DataError(
            f"{name} has shape {y.shape}; a regression takes (n,), or (n, n_targets) of several "
            "targets"
        )
    if not (np.issubdtype(y.dtype, np.integer) or np.issubdtype(y.dtype, np.floating)):
        raise DataError(f"{name} is {y.dtype}; a regression takes numbers")
    y = y.astype(np.float64)
    wrong = np.argwhere(~(np.abs(y) <= _LARGEST_TARGET))
    if wrong.size:
        first = tuple(wrong[0])
        raise DataError(
            f"{name} has {y[first]} at example {first[0]}; a regression takes finite numbers"
        )
    return y


def read_labels(
    task: str, y: NDArray[Any], name: str
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """:func:`class_labels` of a classification, :func:`targets` of a regression."""
    return (targets(y, name), None) if task == "regression" else class_labels(y, name)


def check_label_shape(
    shape: Sequence[int], n_examples: int, keys: tuple[str, str], name: str
) -> None:
    """Refuse labels that are not one an example, from their shape alone.

    Raises
    ------
    DataError
    """
    if shape and shape[0] != n_examples:
        raise DataError(
            f"{name}: '{keys[0]}' has {n_examples} examples, '{keys[1]}' {shape[0]} labels; "
            "each example needs one label"
        )
    if math.prod(shape[1:]) > _MOST_CLASSES:
        raise DataError(
            f"{name}: '{keys[1]}' has shape {tuple(shape)}; save one class number an example, (n,)"
        )
