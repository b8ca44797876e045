"""Examples that are held out of a file without halves, and the file that keeps both.

Pure, but for the bytes of that file, which are in NumPy's format.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLIT_FILE = "split.npz"
"""Of a case: both halves, as its network takes them; what a sweep reads if no data are named."""


def held_out(n: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which of n examples, 2 or more, are the test half: a random choice, at least one of each.

    Parameters
    ----------
    n : int
    fraction : float
        Of the test half.
    seed : int
        Another one gives another choice.
    """
    n_test = min(max(1, round(fraction * n)), n - 1)
    is_held_out = np.zeros(n, bool)
    is_held_out[np.random.Generator(np.random.Philox([seed, n])).permutation(n)[:n_test]] = True
    return is_held_out


def as_file(
    train: tuple[NDArray[Any], NDArray[Any]], test: tuple[NDArray[Any], NDArray[Any]]
) -> bytes:
    """Contents of :data:`SPLIT_FILE`, the same for the same examples and labels."""
    buffer = io.BytesIO()
    np.savez(buffer, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    return buffer.getvalue()
