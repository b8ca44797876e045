"""Adds up what draws say of classes, in the way that the instructions in use have."""

from __future__ import annotations

import numpy as np

from bprune_hpc import compiled
from bprune_hpc.accumulators.classification import DrawSums, GroupSums, Predictions
from bprune_hpc.accumulators.classification_compiled import add_logits


def add_up(
    sums: GroupSums, threshold: int, rows: slice, logits: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Add outputs, shape (n_draws, n_classes, n_examples), to the sums of some rows.

    Returns
    -------
    int64 array, shape (2, n_draws)
        Of each draw: the number of correct examples, and the sum of NLL.
    """
    if compiled.instructions() != compiled.NONE:
        return add_logits(sums, threshold, rows, logits, label.astype(np.int32))
    predictions = Predictions.from_logits(logits, label)
    sums.add(threshold, rows, predictions)
    of_draws = DrawSums.zeros(1, len(logits))
    of_draws.add(0, range(len(logits)), predictions)
    return of_draws.packed[:, 0]
