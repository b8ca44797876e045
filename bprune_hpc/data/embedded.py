"""The data sets inside the package: digits, for classification, and diabetes, for regression.

Every fifth example (4, 9, 14, ...) is held out as the test half. Where they come from stands in
``embedded/README.md``.
"""

from __future__ import annotations

import hashlib
import io
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .values import Part, Split

HELD_OUT_EVERY = 5


def digits(split: Split) -> Part:
    """8 x 8 images of digits in [0, 1], and their classes."""
    x, y, sha256 = _archive("digits.npz")
    chosen = half(len(y), split)
    scaled = x[chosen].astype(np.float32) / np.float32(16)
    scaling = f"{x.dtype} divided by 16"
    return Part(scaled, y[chosen].astype(np.int64), sha256, scaling, is_scaled=True)


def diabetes(split: Split) -> Part:
    """Ten measurements of a patient, and how far the disease came within a year.

    All eleven are standardised by mean and standard deviation (77.0 for the target) of the
    training half: an error of 1 is what the training half's mean alone would do.
    """
    x, y, sha256 = _archive("diabetes.npz")
    training, chosen = half(len(y), "train"), half(len(y), split)
    table = np.column_stack([x, y]).astype(np.float64)
    table = (table - table[training].mean(axis=0)) / table[training].std(axis=0)
    examples = table[chosen, :-1].astype(np.float32)
    scaling = f"{x.dtype} standardised"
    return Part(examples, table[chosen, -1], sha256, scaling, is_scaled=True)


def half(n: int, split: Split) -> NDArray[np.bool_]:
    """Which of n examples are in a half."""
    held_out = np.arange(n) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return held_out if split == "test" else ~held_out


def _archive(name: str) -> tuple[NDArray[Any], NDArray[Any], dict[str, str]]:
    content = (resources.files("bprune_hpc") / "embedded" / name).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        x, y = archive["x"], archive["y"]
    return x, y, {f"bprune_hpc/embedded/{name}": hashlib.sha256(content).hexdigest()}
