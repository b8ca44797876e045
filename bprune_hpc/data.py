"""Data sets: what stands in a file, as arrays the networks here take.

What belongs here: reading examples and labels, the checks that make them usable, and fitting
their shape to a network's input. What does not: networks, batches, ranks; nothing is downloaded
(compute nodes have no internet) and TensorFlow is not needed.

The digits inside the package are the 1,797 8 x 8 images that scikit-learn distributes, the test
set of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49), CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

DATASETS = ("auto", "digits", "npz", "mnist")
_EMBEDDED_DIGITS = "bprune_hpc/embedded/digits.npz"
_MNIST_FILE = "mnist.npz"
_DIGITS_HELD_OUT_EVERY = 5

Split = Literal["test", "train"]


@dataclass(frozen=True)
class DataSet:
    """Examples and their labels.

    Attributes
    ----------
    x : float32 array, shape (n, ...)
        Examples; images are scaled to [0, 1].
    y : int64 array, shape (n,)
        Class of each example, from 0.
    name : str
        One of :data:`DATASETS`, never ``"auto"``.
    sha256 : dict of str to str
        Digest of every file read, by its path.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    name: str
    sha256: dict[str, str]


def load(dataset: str = "auto", path: str | None = None, split: Split = "test") -> DataSet:
    """Read one half of a data set.

    Parameters
    ----------
    dataset : str
        ``digits`` (inside the package), ``npz`` (``x_test``/``y_test``, ``x_train``/``y_train``,
        or ``x``/``y`` for both halves), ``mnist`` (``mnist.npz`` as Keras distributes it) or
        ``auto`` (digits without a path, else by the file's name).
    path : str, optional
        The file; for ``mnist`` also a directory that holds it.
    split : {"test", "train"}
        ``test`` are the held-out examples: of the digits, every fifth.

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        If the file is missing, damaged, or does not hold finite examples with one label each.
    """
    name = _by_name(path) if dataset == "auto" else dataset
    if name == "digits":
        if path is not None:
            raise DataError(f"{path}: the digits are inside the package; leave the path out")
        return _digits(split)
    if name not in DATASETS:
        raise DataError(f"no data set is called '{name}'; choose one of {', '.join(DATASETS)}")
    if path is None:
        raise DataError(f"data set '{name}' is a file; give its path")
    file = Path(path)
    if name == "mnist" and file.is_dir():
        file /= _MNIST_FILE
    arrays, digest = _read_npz(_read_bytes(file), str(file))
    x_key, y_key = _keys(arrays, split, str(file))
    x = _examples(arrays[x_key], f"{file}: '{x_key}'")
    y = _labels(arrays[y_key], f"{file}: '{y_key}'")
    if len(x) != len(y):
        raise DataError(
            f"{file}: '{x_key}' has {len(x)} examples, '{y_key}' {len(y)} labels; "
            "each example needs one label"
        )
    return DataSet(x, y, name, {str(file): digest})


def fit_input(
    x: NDArray[np.float32], input_shape: Sequence[int | None] | None
) -> NDArray[np.float32]:
    """Reshape examples to what a network takes, when their number of values is right.

    Parameters
    ----------
    x : float32 array, shape (n, ...)
    input_shape : sequence of int or None
        Shape of the network's input, the examples' axis first; None where it is open. None
        instead of a sequence: the network takes any shape.

    Returns
    -------
    float32 array, shape (n, *input_shape[1:])

    Raises
    ------
    DataError
        If an example's number of values does not fit.
    """
    if input_shape is None:
        return x
    wanted, found = tuple(input_shape[1:]), x.shape[1:]
    if len(wanted) == len(found) and all(
        w is None or w == f for w, f in zip(wanted, found, strict=True)
    ):
        return x
    fixed = tuple(size for size in wanted if size is not None)
    if len(fixed) == len(wanted) and np.prod(fixed, dtype=np.int64) == np.prod(
        found, dtype=np.int64
    ):
        return x.reshape(len(x), *fixed)
    shown = ", ".join("any" if size is None else str(size) for size in wanted)
    raise DataError(
        f"one example of the data has shape ({', '.join(map(str, found))}), the network takes "
        f"({shown}); give the data set the network was trained on"
    )


def check_labels(y: NDArray[Any], n_classes: int) -> None:
    """Raise unless every label is the number of one of a network's classes.

    Parameters
    ----------
    y : integer array, shape (n,)
    n_classes : int

    Raises
    ------
    DataError
        With the first label that is not an integer in [0, n_classes).
    """
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"labels are {y.dtype}, not integers; save class numbers from 0")
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"label {int(y[first])} of example {first} is not a class of the network, which has "
            f"{n_classes}; labels run from 0 to {n_classes - 1}"
        )


def _by_name(path: str | None) -> str:
    if path is None:
        return "digits"
    file = Path(path)
    if file.name == _MNIST_FILE or (file / _MNIST_FILE).is_file():
        return "mnist"
    if file.suffix == ".npz":
        return "npz"
    raise DataError(f"{path}: the name does not tell which data set this is; pass --dataset")


def _digits(split: Split) -> DataSet:
    content = (resources.files("bprune_hpc") / "embedded" / "digits.npz").read_bytes()
    arrays, digest = _read_npz(content, _EMBEDDED_DIGITS)
    held_out = np.arange(len(arrays["y"])) % _DIGITS_HELD_OUT_EVERY == _DIGITS_HELD_OUT_EVERY - 1
    chosen = held_out if split == "test" else ~held_out
    x = arrays["x"][chosen].astype(np.float32) / np.float32(16)
    y = arrays["y"][chosen].astype(np.int64)
    return DataSet(x, y, "digits", {_EMBEDDED_DIGITS: digest})


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from None


def _read_npz(content: bytes, name: str) -> tuple[dict[str, NDArray[Any]], str]:
    """Arrays of an npz file and the digest of the very bytes that they were read from."""
    if not content.startswith(b"PK"):
        raise DataError(f"{name}: not an npz file; save the arrays with numpy.savez")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        # Pickled objects would run code on loading, so they are refused like damage.
        if "pickle" in str(error).lower():
            raise DataError(
                f"{name}: holds Python objects; save plain arrays with numpy.savez"
            ) from None
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: damaged npz file ({reason}); copy it again") from None
    return arrays, hashlib.sha256(content).hexdigest()


def _keys(arrays: Mapping[str, NDArray[Any]], split: Split, name: str) -> tuple[str, str]:
    for x_key, y_key in ((f"x_{split}", f"y_{split}"), ("x", "y")):
        if x_key in arrays and y_key in arrays:
            return x_key, y_key
    raise DataError(
        f"{name}: has the arrays {', '.join(arrays) or '(none)'}; needs 'x_{split}' and "
        f"'y_{split}', or 'x' and 'y'"
    )


def _examples(x: NDArray[Any], name: str) -> NDArray[np.float32]:
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{name} has shape {x.shape}; needs one or more examples, (n, ...)")
    if x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(255)
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"{name} is {x.dtype}; save images as uint8 (divided by 255 here) or as floats "
            "(taken as they are)"
        )
    with np.errstate(over="ignore"):  # what overflows float32 is named as infinite below
        values = x.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DataError(f"{name} has {values[first]} in example {first[0]}; mend or drop it")
    return values


def _labels(y: NDArray[Any], name: str) -> NDArray[np.int64]:
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
        raise DataError(f"{name} has {y[first]} at example {first}; save class numbers from 0")
    return y.astype(np.int64)
