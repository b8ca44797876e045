"""What draws of a classifier predict, added to exact sums by the compiled module.

The same as ``Predictions`` of ``accumulators.classification`` makes of logits, without arrays in
between. Its exponential and logarithm are other ones, so that last bits may differ from NumPy's.
"""

from __future__ import annotations

import numpy as np

from .. import compiled
from .._typing import Float32Array, Int32Array, Int64Array
from .classification import GroupSums


def add_logits(
    sums: GroupSums,
    threshold: int,
    rows: slice,
    logits: Float32Array,
    label: Int32Array,
) -> Int64Array:
    """Add what some draws say of some rows of a block to the sums of their group.

    Parameters
    ----------
    logits : float32 array, shape (n_draws, n_classes, n_examples), finite
    label : int32 array, shape (n_examples,)

    Returns
    -------
    int64 array, shape (2, n_draws)
        Sums over the examples, as those of ``accumulators.classification.DrawSums``.
    """
    if logits.strides[2] != logits.itemsize:
        logits = np.ascontiguousarray(logits)
    n_draws, n_classes, _ = logits.shape
    n_rows, n_examples = sums.buffer.shape[1:]
    of_draws = np.zeros((2, n_draws), np.int64)
    compiled.module.add_predictions(
        compiled.instructions(), logits, label, sums.buffer,
        threshold * n_rows * n_examples + rows.start, n_examples,
        np.empty((n_classes, 3, compiled.module.EXAMPLES)), of_draws[0], of_draws[1],
    )  # fmt: skip
    return of_draws
