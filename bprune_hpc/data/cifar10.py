"""CIFAR-10 as its authors distribute it for Python.

What belongs here: the layout of the batches, and reading their pickles without running anything
that stands in them. What does not: what makes values usable (``data.values``).

References
----------
A. Krizhevsky, "Learning multiple layers of features from tiny images", technical report,
University of Toronto, 2009; the layout: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, damage
from .values import Part, Request, as_stored, blocks, empty_examples, open_binary, sha256_of

TEST_FILE = "test_batch"
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
DIRECTORY = "cifar-10-batches-py"

_SHAPE = (3, 32, 32)
_N_VALUES = math.prod(_SHAPE)
_N_CLASSES = 10
_MOST_TUPLES = 1000
_INTEGERS = re.compile(r"[|<>=]?[iu][1248]")


def directory_of(path: Path) -> Path:
    """The directory with the batches: this one, or ``cifar-10-batches-py`` in it."""
    if not (path / TEST_FILE).is_file() and (path / DIRECTORY).is_dir():
        return path / DIRECTORY
    return path


def read(path: Path, request: Request) -> Part:
    """One half of CIFAR-10, of shape (n, 32, 32, 3).

    Parameters
    ----------
    path : Path
        Directory with ``data_batch_1`` to ``data_batch_5`` and ``test_batch``.
    request : Request
        With ``subtract_pixel_mean``, images are divided by 255, and the training set's mean image
        is subtracted, in either half. It is the exact mean, rounded once; BPrune adds up in
        float32.

    Raises
    ------
    DataError
        If a file is missing, damaged, or holds anything but plain arrays, texts and numbers.
    """
    if path.is_file():
        raise DataError(
            f"{path}: is a file; unpack it and give the directory with {TEST_FILE} and "
            f"{TRAIN_FILES[0]} to {TRAIN_FILES[-1][-1]}"
        )
    directory = directory_of(path)
    subtract_pixel_mean = request.subtract_pixel_mean
    names = (TEST_FILE,) if request.split == "test" else TRAIN_FILES
    digests: dict[str, str] = {}
    y = []
    total, n_train = np.zeros(_N_VALUES, np.int64), 0
    # No file holds more images than its size allows. What is too much here is never touched, so
    # it is no memory, and each batch can be let go before the next one is read.
    n_most = sum(_size(directory / name) for name in names) // _N_VALUES
    dtype = np.float32 if subtract_pixel_mean else np.uint8
    x = empty_examples((n_most, *_SHAPE[1:], _SHAPE[0]), str(directory), dtype)
    n = 0
    for name in (*TRAIN_FILES, TEST_FILE):
        is_read, is_summed = name in names, subtract_pixel_mean and name in TRAIN_FILES
        if not (is_read or is_summed):
            continue
        file = directory / name
        images, numbers, digests[str(file)] = _read_batch(file)
        if is_summed:
            total += images.sum(axis=0, dtype=np.int64)
            n_train += len(images)
        if is_read:
            for rows in blocks(len(images), 4 * _N_VALUES):
                x[n + rows.start : n + rows.stop] = _channels_last(images[rows])
            y.append(numbers)
            n += len(images)
    x = x[:n]
    scaling = as_stored(np.dtype(np.uint8))
    if subtract_pixel_mean:
        x /= np.float32(255)
        x -= _channels_last(total / n_train / 255).astype(np.float32)
        scaling = "uint8 divided by 255, less the training set's mean image"
    return Part(x, np.concatenate(y), digests, scaling, is_scaled=subtract_pixel_mean)


def _size(file: Path) -> int:
    with open_binary(file) as stream:
        return stream.seek(0, io.SEEK_END)


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(values.reshape(*values.shape[:-1], *_SHAPE), -3, -1)


def _read_batch(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    with open_binary(file) as stream:
        digest = sha256_of(stream)
        found = _unpickle(stream, str(file))
    if not isinstance(found, dict):
        raise DataError(f"{file}: holds no dictionary; it is not a batch of CIFAR-10")
    batch = {_text(key): value for key, value in found.items()}
    if "data" not in batch or "labels" not in batch:
        listed = ", ".join(map(str, batch)) or "(none)"
        raise DataError(f"{file}: has the keys {listed}; needs 'data' and 'labels'")
    images, numbers = _value(batch["data"]), _value(batch["labels"])
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise DataError(f"{file}: 'data' is not a uint8 array; it is not a batch of CIFAR-10")
    if images.shape[1:] not in ((_N_VALUES,), _SHAPE) or not len(images):
        raise DataError(f"{file}: 'data' has shape {images.shape}; needs (n, {_N_VALUES})")
    if isinstance(numbers, list | tuple) and not all(type(number) is int for number in numbers):
        raise DataError(f"{file}: 'labels' are not all integers; it is not a batch of CIFAR-10")
    y = np.asarray(numbers)
    if y.shape != images.shape[:1]:
        raise DataError(f"{file}: {len(images)} images have labels of shape {y.shape}")
    wrong = np.flatnonzero((y < 0) | (y >= _N_CLASSES))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(f"{file}: label {y[first]} of image {first} is not in 0 to 9")
    return images.reshape(len(images), _N_VALUES), y.astype(np.int64), digest


def _unpickle(stream: io.BufferedReader, name: str) -> Any:
    n_tuples = 0
    # The unpickler is C, so that what it stumbles over seems to be raised here.
    with damage(
        lambda _, why: DataError(f"{name}: no pickle, or a damaged one ({why}); copy it again"),
        accepts=(AttributeError, MemoryError, TypeError),
    ):
        # Two things that C code would take too far: room for the highest number that a value is
        # remembered under, and tuples in tuples in tuples.
        for code, argument, position in pickletools.genops(stream):
            n_tuples += code.name.startswith("TUPLE")
            if code.name.endswith("PUT") and argument is not None and argument > (position or 0):
                raise ValueError(f"remembers value {argument}")
            if n_tuples > _MOST_TUPLES:
                raise ValueError(f"more than {_MOST_TUPLES} tuples")
        stream.seek(0)
        return _Reader(stream, name).load()


class _Reader(pickle.Unpickler):
    """An unpickler that knows the five names in pickled arrays, and has its own of each."""

    def __init__(self, stream: io.BufferedReader, name: str) -> None:
        super().__init__(stream, encoding="bytes")  # what Python 2 wrote as text may be anything
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what a pickle asks for; nothing is imported."""
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise DataError(
                f"{self._name}: asks for '{module}.{name}', which no batch of CIFAR-10 needs; "
                "refused, nothing was run"
            )
        return known


class _StandIn:
    """Callable in place of a function or class; nothing in a pickle can change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("state for a function")


class _Type:
    """A type of integers, in place of ``numpy.dtype``."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._code = _text(code)
        self.dtype = self._of("")

    def __setstate__(self, state: Any) -> None:
        self.dtype = self._of(_text(state[1]))

    def _of(self, byte_order: str) -> np.dtype[Any]:
        code = byte_order + self._code
        if not _INTEGERS.fullmatch(code):
            raise ValueError(f"an array of type '{code}'")
        return np.dtype(code)


class _Array:
    """An array of integers, in place of ``numpy.ndarray``; filled by its state."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        flat = np.frombuffer(content, kind.dtype)
        self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def _from_buffer(content: Any, kind: _Type, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, _text(order) == "F", content))
    return array


def _encoded(text: str, encoding: Any) -> bytes:
    if _text(encoding) != "latin1":
        raise ValueError(f"bytes encoded as '{_text(encoding)}'")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _value(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(_Array),
    ("numpy", "ndarray"): _StandIn(_Array),
    ("numpy", "dtype"): _StandIn(_Type),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_from_buffer),
    ("_codecs", "encode"): _StandIn(_encoded),
}
