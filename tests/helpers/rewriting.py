"""Results files that are changed afterwards and still fit their digest."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import h5py

from bprune_hpc import results
from bprune_hpc.files import checksum


def rewritten(path: Path, change: Callable[[h5py.File], object]) -> None:
    """Change a results file as another program could, under a digest that fits."""
    image = io.BytesIO(path.read_bytes()[checksum.BLOCK_BYTES :])
    with h5py.File(image, "r+") as file:
        change(file)
    path.write_bytes(checksum.header(image.getvalue(), results.SCHEMA) + image.getvalue())
