"""Dense layers in NumPy: activations in place, and products of kernels padded to whole blocks.
Pure.

Values of a layer lie with one row for each example; after its units comes a one, which the row
below the next kernel, its bias, multiplies. A kernel whose units do not fill whole blocks of
columns is filled up with zeros, as such products are faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffers import Workspace
from .compaction import CompactLayer
from .interface import Noise

Floats = NDArray[np.float32]


def activate(function: str | None, values: Floats) -> None:
    """Apply an activation in place; see :data:`bprune_hpc.graph.chain.ACTIVATIONS`."""
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

_BLOCK_ROWS = 1024
"""Terms that are added one after the other; the rounding of a longer sum would be seen."""


_BLOCK_COLUMNS = 8
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


def columns_of(n_out: int) -> int:
    """Columns of a kernel that another one follows."""
    return -(-n_out // _BLOCK_COLUMNS) * _BLOCK_COLUMNS


def width_of(n_units: int) -> int:
    """Columns of values: all that the kernel before gives and the next one asks for."""
    return max(columns_of(n_units), rows_of(n_units))


def put_zeros(kernel: Floats, n_in: int, n_out: int) -> None:
    """Fill in what is below the inputs and after the units: no bias yet."""
    kernel[..., n_in:, :] = 0
    kernel[..., n_out:] = 0


def put_one(values: Floats, n_units: int) -> None:
    """Fill in what comes after the units in a kernel's input, shape (n_examples, n_rows)."""
    values[:, n_units] = 1
    values[:, n_units + 1 :] = 0


def activation_of_units(function: str | None, values: Floats, n_units: int) -> Callable[[], Any]:
    """What applies an activation in place to (n_examples, n_columns) values; the one stays."""
    apply = activation(function, values)
    if values.shape[1] == n_units or not moves_one(function):
        return apply

    def apply_and_put_one() -> None:
        apply()
        values[:, n_units] = 1

    return apply_and_put_one


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


def drawn_kernels(
    layers: Sequence[CompactLayer], noises: Sequence[Noise], room: Workspace
) -> list[Floats]:
    """Kernels of all layers but the first in every draw.

    Returns
    -------
    list of float32 array, shape (n_draws, rows_of(n_in), columns_of(n_out))
        The last one has a column for each output and no others. What the constant units before a
        layer give is in its bias. They are overwritten when kernels are drawn again in that room.
    """
    biases = drawn_biases(layers, noises)
    out = []
    for number, (layer, bias) in enumerate(zip(layers[1:], biases, strict=True), 1):
        n_in, n_out = layer.kernel.loc.shape
        n_columns = n_out if layer is layers[-1] else columns_of(n_out)
        kernel = room.array(f"kernels {number}", len(bias), rows_of(n_in), n_columns)
        put_zeros(kernel, n_in, n_out)
        layer.kernel.draws(noises, kernel[:, :n_in, :n_out])
        kernel[:, n_in, :n_out] = bias
        out.append(kernel)
    return out


def drawn_biases(layers: Sequence[CompactLayer], noises: Sequence[Noise]) -> list[Floats]:
    """Biases of all layers but the first in every draw, with what constant units before them give.

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
    """Values of a layer's constant units in every draw: shape (n_draws, n_constants, 1)."""
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
    activate(layer.activation, value)
    return value
