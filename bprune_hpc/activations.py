"""Activations of a chain's layers, in place and in float32. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def activate(function: str | None, values: Floats) -> None:
    """Apply an activation in place; see :data:`bprune_hpc.chain.ACTIVATIONS`."""
    if function is not None:
        _ACTIVATIONS[function](values)


def _relu(values: Floats) -> None:
    # NumPy is several times faster with an array of zeros than with the number 0.
    np.maximum(values, _zeros(values.shape[-2:]), out=values)


@lru_cache(maxsize=16)
def _zeros(shape: tuple[int, ...]) -> Floats:
    return np.zeros(shape, np.float32)


def _sigmoid(values: Floats) -> None:
    np.negative(values, out=values)
    with np.errstate(over="ignore"):
        np.exp(values, out=values)
    values += 1
    np.reciprocal(values, out=values)


def _elu(values: Floats) -> None:
    negative = np.expm1(np.minimum(values, 0))
    np.maximum(values, 0, out=values)
    values += negative


_ACTIVATIONS: Mapping[str, Callable[[Floats], Any]] = {
    "Relu": _relu,
    "Relu6": lambda values: np.clip(values, 0, 6, out=values),
    "Tanh": lambda values: np.tanh(values, out=values),
    "Sigmoid": _sigmoid,
    "Elu": _elu,
    "Softplus": lambda values: np.logaddexp(values, np.float32(0), out=values),
}
