"""Units of the data inside of a network: it takes and gives them, and is trained on deviations.

Mean and standard deviation are those of the training half, and are variables of the network, so
that whoever reads it, a sweep or an export, has them. What does not belong here: the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tensorflow_import import import_tensorflow

SCOPE = "standardize"


@dataclass(frozen=True)
class Units:
    """Means and standard deviations.

    Attributes
    ----------
    mean, scale : float32 array, shape (n_values,)
        Of the inputs; those that are all the same have a scale of 1.
    target_mean, target_scale : float
        Of a regression's targets; 0 and 1 of classes.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    target_mean: float
    target_scale: float


def units_of(x: NDArray[Any], y: NDArray[Any]) -> Units:
    """Units of examples that are trained on, shape (n, ...), and of their labels, shape (n,)."""
    rows = x.reshape(len(x), -1)
    mean, scale = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    # A column of one number has a deviation of 0, but for the rounding of its mean.
    scale[np.ptp(rows, axis=0) == 0] = 1
    targets = np.float64(y) if y.dtype.kind == "f" else np.array([-1.0, 1.0])
    spread = targets.std() if np.ptp(targets) else 1.0
    return Units(
        mean.astype(np.float32), scale.astype(np.float32), float(targets.mean()), float(spread)
    )


def variable(name: str, value: Any) -> Any:
    """A variable that is not trained, of the current graph."""
    v1 = import_tensorflow().compat.v1
    with v1.variable_scope(SCOPE):
        return v1.get_variable(name, initializer=np.float32(value), trainable=False)
