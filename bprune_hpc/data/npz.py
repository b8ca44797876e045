"""Data sets in npz files, streamed: a zip archive's members cannot be mapped into memory.

What belongs here: NumPy's archive format. What does not: what makes values usable
(``data.values``).
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .values import (
    Part,
    Split,
    blocks,
    check_claim,
    check_finite,
    check_kind,
    check_label_shape,
    choose_keys,
    convert,
    empty_examples,
    labels_of,
    open_binary,
    scaling_of,
    sha256_of,
)

_SUFFIX = ".npy"
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
            # Sizes are compared before any values are read.
            shape, dtype = _declared(archive, members[x_key], x_name, file_bytes)
            check_kind(shape, dtype, x_name)
            n_examples = shape[0]
            shape, _ = _declared(archive, members[y_key], y_name, file_bytes)
            check_label_shape(shape, n_examples, keys, name)
            y = labels_of(task, _read_raw(archive, members[y_key], y_name, file_bytes), y_name)
            x, scaling = _read_examples(archive, members[x_key], x_name, file_bytes)
    return Part(x, y, {name: digest}, scaling)


@contextmanager
def _whole(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, KeyError,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: damaged npz file ({reason}); copy it again") from None


def _declared(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, file_bytes: int
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(info) as member:
        shape, _, dtype = _header(member, name, file_bytes)
    return shape, dtype


def _header(member: Any, name: str, file_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array; its values come next.

    Nothing in it is evaluated as Python, as NumPy's own reader does, which a few thousand brackets
    exhaust.
    """
    version = np.lib.format.read_magic(member)
    if version not in _LENGTH_BYTES:
        raise DataError(f"{name} is a structured array; save plain arrays with numpy.savez")
    n_bytes = int.from_bytes(_read_bytes(member, _LENGTH_BYTES[version]), "little")
    if n_bytes > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {n_bytes} bytes")
    text = _read_bytes(member, n_bytes).decode("latin1").strip()
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
        shape, is_fortran, dtype = _header(member, name, file_bytes)
        content = _read_bytes(member, math.prod(shape) * dtype.itemsize)
        _end(member)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_examples(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, file_bytes: int
) -> tuple[NDArray[np.float32], str]:
    with archive.open(info) as member:
        shape, is_fortran, dtype = _header(member, name, file_bytes)
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
