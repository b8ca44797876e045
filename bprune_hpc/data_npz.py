"""Data sets in npz files, streamed: a zip archive's members cannot be mapped into memory.

What belongs here: NumPy's archive format. What does not: what makes values usable
(``data_values``).
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data_values import (
    Part,
    Split,
    blocks,
    check_claim,
    check_finite,
    check_kind,
    check_lengths,
    choose_keys,
    convert,
    empty_examples,
    labels_of,
    open_binary,
    scaling_of,
    sha256_of,
)
from .errors import DataError

_SUFFIX = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip


def read(file: Path, split: Split, task: str = "classification") -> Part:
    """Examples and labels of an npz file: ``x_test`` and ``y_test``, or ``x`` and ``y``.

    Raises
    ------
    DataError
        If the file is missing, damaged, or does not hold finite examples with one label each.
    """
    name = str(file)
    with open_binary(file) as stream:
        digest = sha256_of(stream)
        if stream.read(2) != b"PK":
            raise DataError(f"{name}: not an npz file; save the arrays with numpy.savez")
        file_bytes = stream.seek(0, os.SEEK_END)
        with _whole(name), zipfile.ZipFile(stream) as archive:
            members = {info.filename.removesuffix(_SUFFIX): info for info in archive.infolist()}
            keys = x_key, y_key = choose_keys(members, split, name)
            y_name, x_name = (f"{name}: '{key}'" for key in (y_key, x_key))
            y = labels_of(task, _read_raw(archive, members[y_key], y_name, file_bytes), y_name)
            x, scaling = _read_examples(archive, members[x_key], x_name, file_bytes)
    check_lengths(len(x), len(y), keys, name)
    return Part(x, y, {name: digest}, scaling)


@contextmanager
def _whole(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError,
            RuntimeError) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: damaged npz file ({reason}); copy it again") from None


def _header(
    member: Any, info: zipfile.ZipInfo, name: str, file_bytes: int
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version not in _HEADERS:
        raise DataError(f"{name} is a structured array; save plain arrays with numpy.savez")
    shape, is_fortran, dtype = _HEADERS[version](member)
    # Pickled objects would run code on loading.
    if dtype.hasobject:
        raise DataError(f"{name} holds Python objects; save plain arrays with numpy.savez")
    check_claim(math.prod(shape) * dtype.itemsize, file_bytes, name)
    return shape, is_fortran, dtype


def _read_bytes(member: Any, n_bytes: int) -> bytes:
    content: bytes = member.read(n_bytes)
    if len(content) != n_bytes:
        raise EOFError(f"ends {n_bytes - len(content)} bytes early")
    return content


def _end(member: Any) -> None:
    # Only at its very end is a member's CRC compared.
    if member.read(1):
        raise ValueError("goes on after its array")


def _read_raw(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, file_bytes: int
) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, is_fortran, dtype = _header(member, info, name, file_bytes)
        content = _read_bytes(member, math.prod(shape) * dtype.itemsize)
        _end(member)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_examples(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, file_bytes: int
) -> tuple[NDArray[np.float32], str]:
    with archive.open(info) as member:
        shape, is_fortran, dtype = _header(member, info, name, file_bytes)
        check_kind(shape, dtype, name)
        # In Fortran's order the file has the last axis first, and the result keeps that order.
        stored = shape[::-1] if is_fortran else shape
        x = empty_examples(stored, name)
        n_values = math.prod(stored[1:])
        for rows in blocks(stored[0], n_values * max(4, dtype.itemsize)):
            size = (rows.stop - rows.start) * n_values * dtype.itemsize
            block = np.frombuffer(_read_bytes(member, size), dtype)
            convert(block.reshape(-1, *stored[1:]), x[rows])
            if not is_fortran and dtype != np.uint8:
                check_finite(x[rows], name, rows.start)
        _end(member)
    if is_fortran:
        x = x.T
        if dtype != np.uint8:
            check_finite(x, name)
    return x, scaling_of(dtype)
