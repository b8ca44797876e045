"""Activations of a chain's layers, in place and in float32. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def activate(function: str | None, values: Floats) -> None:
    """Apply an activation in place; see :data:`bprune_hpc.chain.ACTIVATIONS`."""
    activation(function, values)()


def activation(function: str | None, values: Floats) -> Callable[[], Any]:
    """What applies an activation to an array in place, again and again."""
    if function is None:
        return _nothing
    if function == "Relu" and values.flags.c_contiguous:
        return _relu_by_blocks(values.reshape(-1))
    return partial(_ACTIVATIONS[function], values)


def moves_one(function: str | None) -> bool:
    """Whether an activation makes another number of 1."""
    return function not in (None, "Relu", "Relu6", "Elu")


_ZEROS = np.zeros(8192, np.float32)
"""NumPy is five times faster with an array of zeros than with the number 0, and three times faster
with so many than with half as many; they stay in the innermost cache."""


def _nothing() -> None:
    pass


def _relu_by_blocks(flat: Floats) -> Callable[[], Any]:
    n_whole = len(flat) // len(_ZEROS) * len(_ZEROS)
    blocks, rest = flat[:n_whole].reshape(-1, len(_ZEROS)), flat[n_whole:]
    zeros = _ZEROS[: len(rest)]

    def apply() -> None:
        np.maximum(blocks, _ZEROS, out=blocks)
        np.maximum(rest, zeros, out=rest)

    return apply


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
    "Relu": lambda values: np.maximum(values, 0, out=values),
    "Relu6": lambda values: np.clip(values, 0, 6, out=values),
    "Tanh": lambda values: np.tanh(values, out=values),
    "Sigmoid": _sigmoid,
    "Elu": _elu,
    "Softplus": lambda values: np.logaddexp(values, np.float32(0), out=values),
}
