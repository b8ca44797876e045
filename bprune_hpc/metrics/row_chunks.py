"""Many sets of examples, the rows of an array, taken some at a time.

What is worked out on the way, with every mask, then stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .._typing import AnyArray, BoolArray

Arrays = Sequence[AnyArray]

_NUMBERS = 2**17
"""Masks times rows times examples that are taken at a time."""


def by_rows(
    function: Callable[..., Arrays], keep: BoolArray | None, *arrays: AnyArray
) -> list[AnyArray]:
    """Results of a function of rows, for all of them.

    Parameters
    ----------
    function : callable
        Given arrays of shape (n_rows, n_examples); gives arrays of shape (n_masks, n_rows, ...).
    keep : bool array, shape (n_masks, n_examples), or None
        Subsets of the examples; None: all of them, which is one mask.
    *arrays : array, shape (..., n_examples)

    Returns
    -------
    list of array, shape (n_masks, ..., ...), or (..., ...) without subsets
    """
    n_examples = arrays[0].shape[-1]
    flat = [array.reshape(-1, array.shape[-1]) for array in arrays]
    n_masks, n_rows = 1 if keep is None else len(keep), len(flat[0])
    at_once = max(1, _NUMBERS // max(1, n_masks * n_examples))
    chunks = [
        function(*(array[start : start + at_once] for array in flat))
        for start in range(0, n_rows, at_once)
    ]
    out = []
    for parts in zip(*chunks, strict=True):
        whole = np.concatenate(parts, axis=1)
        whole = whole.reshape(n_masks, *arrays[0].shape[:-1], *whole.shape[2:])
        out.append(whole[0] if keep is None else whole)
    return out
