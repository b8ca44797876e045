"""Data sets in HDF5 files.

What belongs here: HDF5. What does not: what makes values usable (``data_values``), results files
(``results``).
"""

from __future__ import annotations

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
    empty_examples,
    labels_of,
    open_binary,
    scaling_of,
    sha256_of,
)
from .errors import DataError

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read(file: Path, split: Split, task: str = "classification") -> Part:
    """Examples and labels of an HDF5 file: ``x_test`` and ``y_test``, or ``x`` and ``y``.

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
    try:
        with h5py.File(file, "r") as opened:
            keys = x_key, y_key = choose_keys(list(opened), split, name)
            y_name = f"{name}: '{y_key}'"
            y = labels_of(task, np.asarray(_dataset(opened, y_key, name, file_bytes)[()]), y_name)
            examples = _dataset(opened, x_key, name, file_bytes)
            x, scaling = _examples(examples, f"{name}: '{x_key}'"), scaling_of(examples.dtype)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: damaged HDF5 file ({reason}); copy it again") from None
    check_lengths(len(x), len(y), keys, name)
    return Part(x, y, {name: digest}, scaling)


def _dataset(opened: Any, key: str, name: str, file_bytes: int) -> Any:
    """A dataset whose values stand in this file, the one that the digest is of."""
    import h5py

    if isinstance(opened.get(key, getlink=True), h5py.ExternalLink):
        raise DataError(f"{name}: '{key}' links to another file; copy the data into this one")
    found = opened[key]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise DataError(f"{name}: '{key}' is no array; save an array of that name")
    if found.is_virtual or found.external:
        raise DataError(f"{name}: '{key}' lies in other files; copy the data into this one")
    check_claim(found.size * found.dtype.itemsize, file_bytes, f"{name}: '{key}'")
    return found


def _examples(dataset: Any, name: str) -> NDArray[np.float32]:
    check_kind(dataset.shape, dataset.dtype, name)
    x = empty_examples(dataset.shape, name)
    # HDF5 converts each chunk as it comes: nothing is held twice, and no chunk is unpacked twice,
    # as it would be by blocks that cut across chunks.
    dataset.read_direct(x)
    for rows in blocks(len(x), x[0].nbytes):
        if dataset.dtype == np.uint8:
            x[rows] /= np.float32(255)
        else:
            check_finite(x[rows], name, rows.start)
    return x
