"""Whether two results files say the same, bit by bit."""

from __future__ import annotations

from pathlib import Path

import h5py

DIGITS = ["--model_dir=embedded:digits_fc", "--dataset=digits"]
SMALL = [*DIGITS, "--thresholds=0,0.1,0.5,1,3", "--num_monte_carlo=12", "--batch_size=100"]


def all_bits(path: Path) -> dict[str, tuple[object, ...]]:
    """Every dataset outside /run and /state, byte by byte, with its type, shape and attributes."""
    found: dict[str, tuple[object, ...]] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("run/", "state/")):
            array = item[()]
            raw = str(array.tolist()) if array.dtype == object else array.tobytes()
            found[name] = (raw, array.dtype.str, array.shape)

    with h5py.File(path) as file:
        file.visititems(visit)
        found["attributes"] = tuple(
            sorted((key, str(value)) for key, value in file.attrs.items() if key != "config")
        )
    assert len(found) > 50
    return found
