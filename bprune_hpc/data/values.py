"""What all kinds of data files share: digests, float32 values taken in blocks, labels.

What belongs here: the checks that make values usable, each with one line for whatever is wrong.
What does not: any file format (``data.npz``, ``data.hdf5``, ...), choosing one (``data``).

Reading a data set costs about its own size as float32: values are converted block by block into
the array that is given back.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Split = Literal["test", "train"]
AS_STORED = "as stored"
OVER_255 = "divided by 255"

BLOCK_BYTES = 8 * 2**20
# Deflate, the strongest filter in use, shrinks no further; what claims more is a forged size.
_MOST_COMPRESSED = 1032
_GIB = 2**30
_MOST_CLASSES = 10**6  # of labels that are one-hot rows
_LARGEST_TARGET = float(np.finfo(np.float32).max)  # what a network could give


class Part(NamedTuple):
    """What a file holds of a data set.

    Attributes
    ----------
    x : float32 array, shape (n, ...)
        Examples.
    y : int64 or float64 array, shape (n,)
        Classes, or targets.
    sha256 : dict of str to str
        Digest of every file that was read, by path.
    scaling : str
        Type of the examples in the file, and what was done to them.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    sha256: dict[str, str]
    scaling: str


def scaling_of(dtype: np.dtype[Any]) -> str:
    """What :func:`convert` does to examples of a type."""
    return f"{dtype} {OVER_255 if dtype == np.uint8 else AS_STORED}"


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
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    return digest


def choose_keys(present: Collection[str], split: Split, name: str) -> tuple[str, str]:
    """Keys of examples and labels: those of the split, else ``x`` and ``y`` for both halves.

    Raises
    ------
    DataError
        If neither pair is among the keys that are present.
    """
    for x_key, y_key in ((f"x_{split}", f"y_{split}"), ("x", "y")):
        if x_key in present and y_key in present:
            return x_key, y_key
    raise DataError(
        f"{name}: has the arrays {', '.join(present) or '(none)'}; needs 'x_{split}' and "
        f"'y_{split}', or 'x' and 'y'"
    )


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
        If there is no example, no axis besides the examples', or a type that is neither uint8 nor
        floating.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise DataError(f"{name} has shape {tuple(shape)}; needs one or more examples, (n, ...)")
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise DataError(
            f"{name} is {dtype}; save images as uint8 (divided by 255 here) or as floats "
            "(taken as they are)"
        )


def empty_examples(shape: Sequence[int], name: str) -> NDArray[np.float32]:
    """Room for examples.

    Raises
    ------
    DataError
        If this machine has not that much.
    """
    try:
        return np.empty(tuple(shape), np.float32)
    except (MemoryError, ValueError):
        size = 4 * math.prod(shape) / _GIB
        raise DataError(
            f"{name}: {tuple(shape)} in float32 is {size:.1f} GiB, more than there is; take fewer "
            "examples"
        ) from None


def blocks(n: int, example_bytes: int) -> Iterator[slice]:
    """Slices that cover ``n`` examples, each of about :data:`BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // max(1, example_bytes))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def convert(raw: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Raw values as float32: uint8 over 255, floats as they are."""
    if raw.dtype == np.uint8:
        np.divide(raw, np.float32(255), out=out, dtype=np.float32)
    else:
        with np.errstate(over="ignore"):  # what overflows float32 is found to be infinite
            out[...] = raw


def check_finite(x: NDArray[np.float32], name: str, first_example: int = 0) -> None:
    """Raise with the first example that holds a NaN or an infinity.

    Parameters
    ----------
    x : float32 array, shape (n, ...)
    first_example : int
        Number of ``x[0]`` in the data set.
    """
    finite = np.isfinite(x)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        number = first_example + first[0]
        raise DataError(f"{name} has {x[first]} in example {number}; mend or drop it")


def labels(y: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Class numbers from numbers, a column of numbers, or one-hot rows.

    Raises
    ------
    DataError
        If ``y`` is none of these.
    """
    if y.ndim == 2 and y.shape[1] > 1:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(f"{name} has shape {y.shape} but is not one-hot; save class numbers")
        return y.argmax(axis=1).astype(np.int64)
    if y.ndim == 2:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}; save one class number an example, (n,)")
    if np.issubdtype(y.dtype, np.integer):
        return y.astype(np.int64)
    # Text and complex numbers have no order or no rounding: only floats can hold class numbers.
    if not np.issubdtype(y.dtype, np.floating):
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


def labels_of(task: str, y: NDArray[Any], name: str) -> NDArray[Any]:
    """:func:`labels` of a classification, :func:`targets` of a regression."""
    return targets(y, name) if task == "regression" else labels(y, name)


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
