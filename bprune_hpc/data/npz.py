"""Data sets in npz files, streamed: a zip archive's members cannot be mapped into memory.

What belongs here: NumPy's archives. What does not: the format of an array in one (``data.npy``),
which arrays are meant (``data.named_arrays``), what makes values usable (``data.values``).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .named_arrays import read_arrays
from .npy import SUFFIX, header, read_examples, read_values, whole
from .values import Part, Request, open_binary, sha256_of


def read(file: Path, request: Request) -> Part:
    """Examples and labels of an npz file.

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
        with whole(name, "npz"), zipfile.ZipFile(stream) as archive:
            return read_arrays(_Members(name, archive, file_bytes), request, {name: digest})


class _Members:
    """The arrays of an open archive."""

    def __init__(self, name: str, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self.name = name
        self._archive = archive
        self._file_bytes = file_bytes
        self._members = {info.filename.removesuffix(SUFFIX): info for info in archive.infolist()}

    def keys(self) -> Collection[str]:
        return self._members.keys()

    def has(self, key: str) -> bool:
        return key in self._members

    def declared(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._archive.open(self._members[key]) as member:
            shape, _, dtype = header(member, self._name_of(key), self._file_bytes)
        return shape, dtype

    def values(self, key: str) -> NDArray[Any]:
        with self._archive.open(self._members[key]) as member:
            return read_values(member, self._name_of(key), self._file_bytes)

    def examples(self, key: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        with self._archive.open(self._members[key]) as member:
            return read_examples(member, self._name_of(key), self._file_bytes, dtype)

    def _name_of(self, key: str) -> str:
        return f"{self.name}: '{key}'"
