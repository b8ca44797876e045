"""Data sets in HDF5 files.

What belongs here: HDF5. What does not: what makes values usable (``data.values``), results files
(``results``).
"""

from __future__ import annotations

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
    empty_examples,
    labels_of,
    open_binary,
    scaling_of,
    sha256_of,
)

_MOST_STEPS = 64


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
            y_name, x_name = (f"{name}: '{key}'" for key in (y_key, x_key))
            of_x, of_y = (_dataset(opened, key, name, file_bytes) for key in keys)
            # Sizes are compared before any values are read.
            check_kind(of_x.shape, of_x.dtype, x_name)
            check_label_shape(of_y.shape, len(of_x), keys, name)
            y = labels_of(task, np.asarray(of_y[()]), y_name)
            x, scaling = _examples(of_x, x_name), scaling_of(of_x.dtype)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: damaged HDF5 file ({reason}); copy it again") from None
    return Part(x, y, {name: digest}, scaling)


def _dataset(opened: Any, key: str, name: str, file_bytes: int) -> Any:
    """A dataset whose values stand in this file, the one that the digest is of."""
    import h5py

    found = _followed(opened, key)
    if found is None:
        raise DataError(f"{name}: '{key}' links to another file; copy the data into this one")
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise DataError(f"{name}: '{key}' is no array; save an array of that name")
    if found.is_virtual or found.external:
        raise DataError(f"{name}: '{key}' lies in other files; copy the data into this one")
    check_claim(found.size * found.dtype.itemsize, file_bytes, f"{name}: '{key}'")
    return found


def _followed(opened: Any, key: str) -> Any:
    """What a name stands for, links within the file followed; None where one leaves it.

    No other file is opened on the way, as HDF5 would.

    Raises
    ------
    KeyError, ValueError
        If there is nothing, or links lead on and on.
    """
    import h5py

    at, rest = opened, [key]
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
    raise ValueError(f"'{key}' leads through more than {_MOST_STEPS} links and groups")


def _examples(dataset: Any, name: str) -> NDArray[np.float32]:
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
