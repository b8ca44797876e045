"""Data sets in HDF5 files.

What belongs here: HDF5. What does not: which arrays are meant (``data.named_arrays``), what makes
values usable (``data.values``), results files (``results``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
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

_MOST_STEPS = 64
_TEXTS_AT_ONCE = 1000
_LONGEST_TEXT = 10_000


def read(file: Path, request: Request) -> Part:
    """Examples and labels of an HDF5 file.

    Raises
    ------
    DataError
        If the file is missing, damaged, or does not hold finite examples with one label each.
    """
    import h5py

    name = str(file)
    with open_binary(file) as stream:
        if not h5py.is_hdf5(file):
            raise DataError(f"{name}: not an HDF5 file; save the arrays with h5py")
        digest = sha256_of(stream)
        file_bytes = file.stat().st_size
    with (
        damage(lambda _, why: DataError(f"{name}: damaged HDF5 file ({why}); copy it again")),
        h5py.File(file, "r") as opened,
    ):
        return read_arrays(_Datasets(name, opened, file_bytes), request, {name: digest})


class _Datasets:
    """The arrays of an open file; one in a group by its path, as in ``test/images``."""

    def __init__(self, name: str, opened: Any, file_bytes: int) -> None:
        self.name = name
        self._opened = opened
        self._file_bytes = file_bytes

    def keys(self) -> Collection[str]:
        # A name that is not UTF-8 comes as bytes.
        return [os.fsdecode(key) for key in self._opened]

    def has(self, key: str) -> bool:
        first, *rest = [step for step in key.split("/") if step] or [key]
        if first not in self.keys():
            return False
        try:
            return not rest or _followed(self._opened, key) is not None
        except KeyError:
            return False

    def declared(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        found = self._dataset(key)
        return found.shape, found.dtype

    def values(self, key: str) -> NDArray[Any]:
        import h5py

        found = self._dataset(key)
        if h5py.check_string_dtype(found.dtype) is None:
            return np.asarray(found[()])
        name = f"{self.name}: '{key}'"
        if math.prod(found.shape[1:]) != 1:
            raise DataError(f"{name} has shape {found.shape}; save one label an example, (n,)")
        texts: list[bytes] = []
        for start in range(0, found.shape[0], _TEXTS_AT_ONCE):
            texts += found[start : start + _TEXTS_AT_ONCE].reshape(-1).tolist()
            if max(map(len, texts[start:])) > _LONGEST_TEXT:
                raise DataError(f"{name} holds texts of more than {_LONGEST_TEXT} bytes, no labels")
        return np.array(texts, object)

    def examples(self, key: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        found, name = self._dataset(key), f"{self.name}: '{key}'"
        x = empty_examples(found.shape, name, dtype)
        # HDF5 converts each chunk as it comes: nothing is held twice, and no chunk is unpacked
        # twice, as it would be by blocks that cut across chunks.
        found.read_direct(x)
        for rows in blocks(len(x), x[0].nbytes):
            check_finite(x[rows], name, rows.start)
        return x

    def _dataset(self, key: str) -> Any:
        """A dataset whose values stand in this file, the one that the digest is of."""
        import h5py

        found = _followed(self._opened, key)
        if found is None:
            raise DataError(
                f"{self.name}: '{key}' links to another file; copy the data into this one"
            )
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise DataError(f"{self.name}: '{key}' is not an array; save an array of that name")
        if found.is_virtual or found.external:
            raise DataError(
                f"{self.name}: '{key}' is stored in other files; copy the data into this one"
            )
        n_bytes = found.size * found.dtype.itemsize
        check_claim(n_bytes, self._file_bytes, f"{self.name}: '{key}'")
        return found


def _followed(opened: Any, key: str) -> Any:
    """What a name stands for, links within the file followed; None where one leaves it.

    No other file is opened on the way, as HDF5 would.

    Raises
    ------
    KeyError
        If there is nothing.
    DataError
        If links lead on and on.
    """
    import h5py

    at, rest = opened, [step for step in key.split("/") if step]
    for _ in range(_MOST_STEPS):
        if not rest:
            return at
        step, *rest = rest
        link = at.get(step, getlink=True) if isinstance(at, h5py.Group) else None
        if link is None:
            raise KeyError(f"no '{step}' where '{key}' leads")
        if isinstance(link, h5py.ExternalLink):
            return None
        if isinstance(link, h5py.SoftLink):
            at = opened if link.path.startswith("/") else at
            rest = [part for part in link.path.split("/") if part not in ("", ".")] + rest
        else:
            at = at[step]
    raise DataError(
        f"{opened.filename}: '{key}' leads through more than {_MOST_STEPS} links and groups, "
        "perhaps in a circle; let it lead to an array"
    )
