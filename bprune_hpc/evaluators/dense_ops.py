"""Dense layers in NumPy: activations in place, products whose sums are not too long, and biases in
every draw. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .compaction import CompactLayer, Floats
from .interface import Noise


def activate(functions: Sequence[str], values: Floats) -> None:
    """Apply activations in place to an array without gaps.

    See :data:`bprune_hpc.graph.layer_graph.ACTIVATIONS`.
    """
    if not values.flags.c_contiguous:
        raise ValueError("an array with gaps")  # of which a copy would be made
    flat = values.reshape(-1)
    for function in functions:
        _ACTIVATIONS[function](flat)


_ZEROS = np.zeros(8192, np.float32)
"""NumPy is four times faster with an array of zeros than with the number 0, and with so many, which
stay in the innermost cache."""


def _relu(values: Floats) -> None:
    n_rest = values.size % len(_ZEROS)
    blocks, rest = values[: values.size - n_rest].reshape(-1, len(_ZEROS)), values[-n_rest:]
    np.maximum(blocks, _ZEROS, out=blocks)
    if n_rest:
        np.maximum(rest, _ZEROS[:n_rest], out=rest)


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

_BLOCK_ROWS = 1024
"""Terms that are added one after the other; the rounding of a longer sum would be seen."""
_SMALL_PRODUCT = 900_000
"""Multiplications up to which OpenBLAS (since 0.3.17, with AVX-512) multiplies a matrix as it lies,
without arranging it in blocks first: twice as fast for few outputs."""
_FEWEST_EXAMPLES = 64
_SMALL_ROWS = 256
"""Terms of such a product, whose sums are in no blocks: 320 of them round as much as others do."""


def rows_of(n_in: int) -> int:
    """Rows of a kernel: its inputs, one for the bias, and zeros to whole blocks."""
    n_rows = n_in + 1
    return n_rows if n_rows <= 2 * _BLOCK_ROWS else -(-n_rows // _BLOCK_ROWS) * _BLOCK_ROWS


def multiply(values: Floats, kernel: Floats, out: Floats) -> None:
    """``values @ kernel`` of as many values as the kernel has rows; long sums in blocks.

    Parameters
    ----------
    values : float32 array, shape (n_examples, at least n_rows)
    kernel : float32 array, shape (n_rows, n_columns)
    out : float32 array, shape (n_examples, at least n_columns)
    """
    n_rows, n_columns = kernel.shape
    values, out = values[:, :n_rows], out[:, :n_columns]
    if n_rows <= 2 * _BLOCK_ROWS:
        np.matmul(values, kernel, out=out)
        return
    out[...] = 0
    for start in range(0, n_rows, _BLOCK_ROWS):  # so that they round less
        rows = slice(start, start + _BLOCK_ROWS)
        out += values[:, rows] @ kernel[rows]


def multiply_last(values: Floats, kernel: Floats, out: Floats) -> None:
    """The same, with an output's examples next to each other: ``out`` is (n_outputs, n_examples).

    Few outputs are made for some examples, and some terms of their sums, at a time.
    """
    n_rows, n_outputs = kernel.shape
    n_terms = n_rows if n_rows <= _SMALL_ROWS * 5 // 4 else _SMALL_ROWS
    at_once = _SMALL_PRODUCT // (n_terms * n_outputs)
    if at_once < _FEWEST_EXAMPLES:
        multiply(values, kernel, out.T)
        return
    transposed = kernel.T
    for start in range(0, len(values), at_once):
        some = slice(start, start + at_once)
        np.matmul(transposed[:, :n_terms], values[some, :n_terms].T, out=out[:, some])
        for first in range(n_terms, n_rows, n_terms):
            terms = slice(first, min(first + n_terms, n_rows))
            out[:, some] += transposed[:, terms] @ values[some, terms].T


def drawn_biases(layers: Sequence[CompactLayer], noises: Sequence[Noise]) -> list[Floats]:
    """Biases of all layers but the first in every draw, with what constants before them give.

    Returns
    -------
    list of float32 array, shape (n_draws, n_out)
    """
    n_draws = sum(len(noise.draws) for noise in noises)
    first, *others = layers
    constants = _constants(first, noises, None)
    out = []
    for layer in others:
        bias = np.zeros((n_draws, layer.kernel.loc.shape[1]), np.float32)
        _add_bias(layer, noises, constants, bias)
        out.append(bias)
        constants = _constants(layer, noises, constants)
    return out


def _add_bias(
    layer: CompactLayer, noises: Sequence[Noise], constants: Floats | None, bias: Floats
) -> None:
    """Fill in a layer's bias in every draw, shape (n_draws, n_out)."""
    if layer.bias is not None:
        layer.bias.draws(noises, bias)
    if layer.from_constants is not None:
        assert constants is not None
        drawn = np.empty((len(bias), *layer.from_constants.loc.shape), np.float32)
        layer.from_constants.draws(noises, drawn)
        # A long sum of few numbers: in double, so that its rounding is not seen.
        bias += (drawn.transpose(0, 2, 1).astype(float) @ constants)[:, :, 0].astype(np.float32)


def _constants(
    layer: CompactLayer, noises: Sequence[Noise], before: Floats | None
) -> Floats | None:
    """Values of a layer's constants in every draw: shape (n_draws, n_constants, 1)."""
    if not layer.n_constants:
        return None
    n_draws = sum(len(noise.draws) for noise in noises)
    value = np.zeros((n_draws, layer.n_constants, 1), np.float32)
    if layer.constants_bias is not None:
        layer.constants_bias.draws(noises, value[:, :, 0])
    if layer.constants is not None:
        assert before is not None
        drawn = np.empty((n_draws, *layer.constants.loc.shape), np.float32)
        layer.constants.draws(noises, drawn)
        value += drawn.transpose(0, 2, 1) @ before
    activate(layer.activations, value)
    return value
