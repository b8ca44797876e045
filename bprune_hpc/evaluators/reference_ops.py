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
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..graph.layer_graph import (
    EXAMPLES,
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
)

Array = NDArray[Any]

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
    last_use = {at: number for number, node in enumerate(graph.nodes) for at in node.inputs}
    values = {EXAMPLES: x}
    for number, node in enumerate(graph.nodes):
        values[number] = apply(node.operation, [values[at] for at in node.inputs], weights)
        for at in {at for at in node.inputs if last_use[at] == number}:
            del values[at]
    return values[len(graph.nodes) - 1] if graph.nodes else x


def apply(operation: Operation, inputs: Sequence[Array], weights: Mapping[str, Array]) -> Array:
    """What an operation gives of tensors, whose first axis are the examples."""
    x = inputs[0]
    if isinstance(operation, Dense):
        return x @ weights[operation.kernel].astype(x.dtype, copy=False)
    if isinstance(operation, Convolution):
        return convolution(x, weights[operation.kernel].astype(x.dtype, copy=False), operation)
    if isinstance(operation, Bias | Scale):
        values = weights[operation.name].astype(x.dtype, copy=False)
        if values.size == values.shape[-1]:  # else one for each place of an image, too
            values = values.reshape(-1)
        return x + values if isinstance(operation, Bias) else x * values
    if isinstance(operation, Activation):
        return activation(x, operation)
    if isinstance(operation, Pooling):
        return pooling(x, operation)
    if isinstance(operation, Padding):
        return _padded(x, operation.borders)
    if isinstance(operation, Reshape):
        return x.reshape(len(x), *operation.shape)
    if isinstance(operation, Add):
        return sum(inputs[1:], start=x)
    if isinstance(operation, Multiply):
        return x * inputs[1]
    assert isinstance(operation, Concatenation)
    return np.concatenate(inputs, axis=-1)


def convolution(x: Array, kernel: Array, one: Convolution) -> Array:
    """A product of matrices for each group: a row is what the kernel sees at a place."""
    down, right = one.window
    seen = _windows(_padded(x, one.borders), one.window, one.strides, one.dilations)
    n_examples, rows, columns, n_channels = seen.shape[:4]
    in_groups = seen.reshape(
        n_examples, rows, columns, one.groups, n_channels // one.groups, down, right
    )
    patches = in_groups.transpose(3, 0, 1, 2, 5, 6, 4).reshape(
        one.groups, n_examples * rows * columns, one.n_terms
    )
    n_out = kernel.size // one.n_terms if one.n_terms else kernel.shape[-1]
    of_groups = kernel.reshape(one.n_terms, one.groups, n_out // one.groups).transpose(1, 0, 2)
    out = (patches @ of_groups).transpose(1, 0, 2)
    return np.ascontiguousarray(out).reshape(n_examples, rows, columns, n_out)


def pooling(x: Array, one: Pooling) -> Array:
    """The largest number of each window, or their mean; borders do not count."""
    if one.function == "MaxPool":
        padded = _padded(x, one.borders, -np.inf)
        return np.asarray(_windows(padded, one.window, one.strides).max(axis=(4, 5)))
    total = _windows(_padded(x, one.borders), one.window, one.strides).sum(axis=(4, 5))
    inside = _padded(np.ones((1, *x.shape[1:3], 1), x.dtype), one.borders)
    return np.asarray(total / _windows(inside, one.window, one.strides).sum(axis=(4, 5)))


def activation(x: Array, one: Activation) -> Array:
    """A function of each number."""
    if one.function == "LeakyRelu":
        return np.where(x > 0, x, x.dtype.type(one.alpha) * x)
    return FUNCTIONS[one.function](x).astype(x.dtype, copy=False)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def _padded(x: Array, borders: Borders, value: float = 0.0) -> Array:
    return np.pad(x, ((0, 0), *borders, (0, 0)), constant_values=value)


def _windows(
    x: Array,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int] = (1, 1),
) -> Array:
    """A view of shape (n_examples, rows, columns, n_channels, *window)."""
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
    every: Array = sliding_window_view(x, spans, axis=(1, 2))  # type: ignore[call-overload]
    return every[:, :: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]
