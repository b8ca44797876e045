"""A graph of layers in plain NumPy: what each operation means, as shortly as it can be. Pure.

The oracle of what is faster, and what runs where there is no compiled module. What does not belong
here: draws of weights, leaving anything out (``evaluators.reference``, ``evaluators.compaction``).
Examples come first in every array; their type, float32 or float64, is that of all sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layer_graph import (
    EXAMPLES,
    NO_BORDERS,
    Activation,
    Add,
    Bias,
    Borders,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    Multiply,
    Operation,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Transpose,
    n_places,
)

Array = NDArray[Any]

_GIVES_NEW = Dense, Convolution, Bias, Scale, Activation, Pooling
"""What gives an array of its own, never a view of another."""
_TERMS, _TERMS_OF_FEW, _FEW = 1024, 256, 32
"""Terms of a sum that are added in a row: fewer of fewer outputs, where BLAS makes no blocks."""

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_erf = np.vectorize(math.erf, otypes=[np.float64])

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Relu6": lambda x: np.clip(x, 0, 6),
    "Elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Selu": lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "Gelu": lambda x: x * (0.5 * (1 + _erf(x * math.sqrt(0.5)))),
    "GeluTanh": lambda x: x * (0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    "Swish": lambda x: x * _sigmoid(x),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: _sigmoid(x),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
}
"""All activations that have no number of their own."""


def run(graph: LayerGraph, weights: Mapping[str, Array], x: Array) -> Array:
    """What a network gives examples.

    Parameters
    ----------
    graph : LayerGraph
    weights : mapping of str to array
        Of every name in the graph, its constants included.
    x : float array, shape (n_examples, ...)

    Returns
    -------
    array, shape (n_examples, *shape of the outputs), of the examples' type
    """
    x = x.reshape(len(x), *graph.input_shape)
    values = {EXAMPLES: x}
    for number, (node, n_uses, is_last) in enumerate(
        zip(graph.nodes, graph.n_uses_of_first, graph.last_uses, strict=True)
    ):
        inputs, first = [values[at] for at in node.inputs], node.inputs[0]
        is_free = first >= 0 and n_uses == 1
        is_free = is_free and isinstance(graph.nodes[first].operation, _GIVES_NEW)
        out = inputs[0] if is_free else None
        values[number] = apply(node.operation, inputs, weights, out)
        for at in is_last:
            del values[at]
    return values[len(graph.nodes) - 1] if graph.nodes else x


def apply(
    operation: Operation,
    inputs: Sequence[Array],
    weights: Mapping[str, Array],
    out: Array | None = None,
) -> Array:
    """What an operation gives of tensors, whose first axis are the examples.

    ``out`` is an array that the result may be put in, where that is of the same shape.
    """
    x = inputs[0]
    if isinstance(operation, Dense):
        return product(x, weights[operation.kernel].astype(x.dtype, copy=False))
    if isinstance(operation, Convolution):
        return convolution(x, weights[operation.kernel].astype(x.dtype, copy=False), operation)
    if isinstance(operation, Bias | Scale):
        values = weights[operation.name].astype(x.dtype, copy=False)
        if values.size == x.shape[-1]:  # else one for each place of an image, too
            values = values.reshape(-1)
        together = np.add if isinstance(operation, Bias) else np.multiply
        return np.asarray(together(x, values, out=out))
    if isinstance(operation, Activation):
        if operation.function == "Relu":
            zeros = np.zeros(x.shape[-1:], x.dtype)  # twice as fast as the number 0
            return np.asarray(np.maximum(x, zeros, out=out))
        return activation(x, operation)
    if isinstance(operation, Pooling):
        return pooling(x, operation)
    if isinstance(operation, Padding):
        return _padded(x, operation.borders)
    if isinstance(operation, Reshape):
        return x.reshape(len(x), *operation.shape)
    if isinstance(operation, Transpose):
        return x.transpose(0, *(1 + axis for axis in operation.axes))
    if isinstance(operation, Add):
        return sum(inputs[1:], start=x)
    if isinstance(operation, Multiply):
        return x * inputs[1]
    assert isinstance(operation, Concatenation)
    return np.concatenate(inputs, axis=-1)


def product(rows: Array, matrix: Array, out: Array | None = None) -> Array:
    """``rows @ matrix``; long sums in parts, so that they round less."""
    n_terms, at_once = rows.shape[-1], _TERMS if matrix.shape[-1] >= _FEW else _TERMS_OF_FEW
    if n_terms <= 2 * at_once:
        return np.asarray(np.matmul(rows, matrix, out=out))
    out = np.matmul(rows[..., :at_once], matrix[..., :at_once, :], out=out)
    for at in range(at_once, n_terms, at_once):
        out += rows[..., at : at + at_once] @ matrix[..., at : at + at_once, :]
    return np.asarray(out)


def convolution(x: Array, kernel: Array, one: Convolution) -> Array:
    """A product of matrices for each group: a row is what the kernel sees at a place."""
    x = _padded(x, one.borders)
    n_seen, shape = x.shape[3] // one.groups, (one.groups, len(x), *one.size)
    patches = np.empty((*shape, *one.window, n_seen), x.dtype)
    for down, right in np.ndindex(*one.window):
        start = down * one.dilations[0], right * one.dilations[1]
        seen = _at(x, start, one.size, one.strides).reshape(*shape[1:], one.groups, n_seen)
        patches[..., down, right, :] = np.moveaxis(seen, 3, 0)
    n_out = kernel.size // one.n_terms if one.n_terms else kernel.shape[-1]
    of_groups = kernel.reshape(one.n_terms, one.groups, n_out // one.groups).transpose(1, 0, 2)
    rows = patches.reshape(one.groups, math.prod(shape[1:]), one.n_terms)
    out = product(rows, of_groups).reshape(*shape, n_out // one.groups)
    return np.moveaxis(out, 0, 3).reshape(*shape[1:], n_out)


def pooling(x: Array, one: Pooling) -> Array:
    """The largest number of each window, or their mean; borders do not count."""
    is_max = one.function == "MaxPool"
    padded = _padded(x, one.borders, -np.inf if is_max else 0.0)
    size = tuple(map(n_places, x.shape[1:3], one.window, one.strides, one.borders))
    together = np.maximum if is_max else np.add
    seen = [_at(padded, place, size, one.strides) for place in np.ndindex(*one.window)]
    out = seen[0].copy()
    for other in seen[1:]:
        together(out, other, out=out)
    if is_max:
        return out
    inside = _padded(np.ones((1, *x.shape[1:3], 1), x.dtype), one.borders)
    counts = [_at(inside, place, size, one.strides) for place in np.ndindex(*one.window)]
    return np.asarray(out / np.add.reduce(counts))


def activation(x: Array, one: Activation) -> Array:
    """A function of each number."""
    if one.function == "LeakyRelu":
        return np.where(x > 0, x, x.dtype.type(one.alpha) * x)
    return FUNCTIONS[one.function](x).astype(x.dtype, copy=False)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def _padded(x: Array, borders: Borders, value: float = 0.0) -> Array:
    if borders == NO_BORDERS:
        return x
    return np.pad(x, ((0, 0), *borders, (0, 0)), constant_values=value)


def _at(x: Array, start: Sequence[int], size: Sequence[int], strides: Sequence[int]) -> Array:
    """A view of what each window has at one of its places, shape (n_examples, *size, channels)."""
    rows, columns = (
        slice(first, first + (n - 1) * stride + 1, stride)
        for first, n, stride in zip(start, size, strides, strict=True)
    )
    return x[:, rows, columns]
