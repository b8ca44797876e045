"""Data sets in npy files, one an array; and NumPy's format, which members of npz files have too.

What belongs here: the header and the values behind it. What does not: archives (``data.npz``),
what makes values usable (``data.values``).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, damage
from .named_arrays import read_arrays
from .values import (
    Part,
    Request,
    blocks,
    check_claim,
    check_finite,
    empty_examples,
    open_binary,
    sha256_of,
)

SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
"""Of the length of a header, by the format's version; a later one is of structured arrays."""
_MOST_HEADER_BYTES = 10_000
_MOST_AXES = 32
_KEYS = {"descr", "fortran_order", "shape"}
_ITEM = re.compile(
    r"""\s* (['"]) (?P<key> \w+) \1 \s* : \s*
    (?: (['"]) (?P<text> [^'"]*) \3 | (?P<flag> True|False) | \( (?P<sizes> [-\dL,\s]*) \)
    | (?P<fields> \[ .* \]) ) \s* (?: , | $)""",
    re.VERBOSE | re.DOTALL,
)
_DTYPE = re.compile(r"[<>=|]?[A-Za-z?]\d{0,9}(\[\w{1,9}\])?")


def read(path: Path, request: Request) -> Part:
    """Examples and labels of npy files.

    Parameters
    ----------
    path : Path
        The file of the examples, or a directory of npy files. Labels are found by their name
        (``y_test.npy`` beside ``x_test.npy``), or named by ``request.y_key``.

    Raises
    ------
    DataError
        If a file is missing, damaged, or they are not finite examples with one label each.
    """
    x_key, y_key = request.x_key, request.y_key
    if path.is_dir():
        files = _Files(str(path), path)
    else:
        with open_binary(path):
            files, x_key = _Files(str(path), path.parent), path.name
    named = dataclasses.replace(
        request,
        x_key=x_key and x_key.removesuffix(SUFFIX),
        y_key=y_key and y_key.removesuffix(SUFFIX),
    )
    return read_arrays(files, named, files.sha256)


class _Files:
    """The npy files of a directory, as arrays by their names."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.sha256: dict[str, str] = {}
        self._directory = directory

    def keys(self) -> Collection[str]:
        return sorted(file.stem for file in self._directory.glob(f"*{SUFFIX}"))

    def has(self, key: str) -> bool:
        return self._file(key).is_file()

    def declared(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._opened(key) as (stream, name, n_bytes):
            shape, _, dtype = header(stream, name, n_bytes)
        return shape, dtype

    def values(self, key: str) -> NDArray[Any]:
        with self._opened(key) as (stream, name, n_bytes):
            self.sha256[str(self._file(key))] = sha256_of(stream)
            return read_values(stream, name, n_bytes)

    def examples(self, key: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        with self._opened(key) as (stream, name, n_bytes):
            self.sha256[str(self._file(key))] = sha256_of(stream)
            return read_examples(stream, name, n_bytes, dtype)

    def _file(self, key: str) -> Path:
        return self._directory / f"{key}{SUFFIX}"

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[Any, str, int]]:
        file = self._file(key)
        with open_binary(file) as stream, whole(str(file), "npy"):
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise DataError(f"{file}: not an npy file; save the array with numpy.save")
            stream.seek(0)
            yield stream, str(file), file.stat().st_size


@contextmanager
def whole(name: str, kind: str) -> Iterator[None]:
    """Refuse a file in one line, whatever its bytes lead to.

    Raises
    ------
    DataError
    """
    with damage(lambda _, why: DataError(f"{name}: damaged {kind} file ({why}); copy it again")):
        yield


def header(stream: Any, name: str, file_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array; its values come next.

    Nothing in it is evaluated as Python, as NumPy's own reader does, which a few thousand brackets
    exhaust.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _LENGTH_BYTES:
        raise DataError(f"{name} is a structured array; save plain arrays with numpy.savez")
    n_bytes = int.from_bytes(_read_bytes(stream, _LENGTH_BYTES[version]), "little")
    if n_bytes > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {n_bytes} bytes")
    text = _read_bytes(stream, n_bytes).decode("latin1").strip()
    items: dict[str, re.Match[str]] = {}
    at, end = 1, len(text) - 1
    while text[:1] == "{" and at < end and (item := _ITEM.match(text[:end], at)) is not None:
        items[item["key"]] = item
        at = item.end()
    if text[:1] + text[end:] != "{}" or text[at:end].strip() or items.keys() != _KEYS:
        raise ValueError(f"the header {text[:80]}")
    descr, flag, sizes = (items[key] for key in ("descr", "fortran_order", "shape"))
    if descr["fields"] is not None:
        raise DataError(f"{name} is a structured array; save plain arrays with numpy.savez")
    if not _DTYPE.fullmatch(descr["text"] or "") or not flag["flag"] or sizes["sizes"] is None:
        raise ValueError(f"the header {text[:80]}")
    shape = tuple(
        int(size.strip().rstrip("L")) for size in sizes["sizes"].split(",") if size.strip()
    )
    if len(shape) > _MOST_AXES:
        raise ValueError(f"an array of {len(shape)} axes")
    dtype = np.dtype(descr["text"])
    # Pickled objects would run code on loading.
    if dtype.hasobject:
        raise DataError(f"{name} holds Python objects; save plain arrays with numpy.savez")
    check_claim(math.prod(shape) * dtype.itemsize, file_bytes, name)
    return shape, flag["flag"] == "True", dtype


def read_values(stream: Any, name: str, file_bytes: int) -> NDArray[Any]:
    """A whole array."""
    shape, is_fortran, dtype = header(stream, name, file_bytes)
    content = _read_bytes(stream, math.prod(shape) * dtype.itemsize)
    _end(stream)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def read_examples(stream: Any, name: str, file_bytes: int, wanted: np.dtype[Any]) -> NDArray[Any]:
    """An array of finite numbers, in blocks; in the order in which the file has them."""
    shape, is_fortran, dtype = header(stream, name, file_bytes)
    # In Fortran's order the file has the last axis first.
    stored = shape[::-1] if is_fortran else shape
    x = empty_examples(stored, name, wanted)
    n_values = math.prod(stored[1:])
    for rows in blocks(stored[0], n_values * max(wanted.itemsize, dtype.itemsize)):
        size = (rows.stop - rows.start) * n_values * dtype.itemsize
        block = np.frombuffer(_read_bytes(stream, size), dtype)
        with np.errstate(over="ignore"):  # what overflows is found to be infinite
            x[rows] = block.reshape(-1, *stored[1:])
        if not is_fortran:
            check_finite(x[rows], name, rows.start)
    _end(stream)
    if is_fortran:
        x = x.T
        check_finite(x, name)
    return x


def _read_bytes(stream: Any, n_bytes: int) -> bytes:
    content: bytes = stream.read(n_bytes)
    if len(content) != n_bytes:
        raise EOFError(f"ends {n_bytes - len(content)} bytes early")
    return content


def _end(stream: Any) -> None:
    # Only at its very end is the CRC of an archive's member compared.
    if stream.read(1):
        raise ValueError("goes on after its array")
