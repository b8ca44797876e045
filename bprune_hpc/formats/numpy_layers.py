"""A graph of layers in NumPy: short, and the form in which a bundle runs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import (
    EXAMPLES,
    Activation,
    Add,
    Bias,
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
    n_places,
)

_PATCH_NUMBERS = 2**22
"""Numbers of patches that are in memory at once."""
_TERMS = 1024


def run(
    layers: LayerGraph, weights: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Outputs of examples under given weights.

    Parameters
    ----------
    weights : mapping of str to float32 array
        All that the graph names, in its own constants too.
    x : float32 array, shape (n_examples, ...)

    Returns
    -------
    float32 array, shape (n_examples, n_outputs)
    """
    found: dict[int, NDArray[np.float32]] = {EXAMPLES: x.reshape(len(x), *layers.input_shape)}
    last_use = {at: number for number, node in enumerate(layers.nodes) for at in node.inputs}
    for number, node in enumerate(layers.nodes):
        found[number] = _applied(node.operation, [found[at] for at in node.inputs], weights)
        for at in {at for at in node.inputs if last_use[at] == number}:
            del found[at]
    return found[len(layers.nodes) - 1].reshape(len(x), -1)


def _applied(
    one: Operation,
    inputs: Sequence[NDArray[np.float32]],
    weights: Mapping[str, NDArray[np.float32]],
) -> NDArray[np.float32]:
    values = inputs[0]
    if isinstance(one, Dense):
        return _product(values, weights[one.kernel].reshape(values.shape[-1], -1))
    if isinstance(one, Convolution):
        return _convolved(one, values, weights[one.kernel])
    if isinstance(one, Bias):
        return values + weights[one.name].reshape(-1)
    if isinstance(one, Scale):
        return values * weights[one.name].reshape(-1)
    if isinstance(one, Activation):
        return _activated(one, values)
    if isinstance(one, Pooling):
        return _pooled(one, values)
    if isinstance(one, Padding):
        return np.pad(values, ((0, 0), *one.borders, (0, 0)))
    if isinstance(one, Reshape):
        return values.reshape(len(values), *one.shape)
    if isinstance(one, Concatenation):
        return np.concatenate(inputs, axis=-1)
    together = np.multiply if isinstance(one, Multiply) else np.add
    assert isinstance(one, Add | Multiply)
    for other in inputs[1:]:
        values = together(values, other)
    return values


def _product(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rows @ matrix``; long sums in parts, so that they round less."""
    n_terms = rows.shape[-1]
    if n_terms <= 2 * _TERMS:
        return rows @ matrix
    starts = range(0, n_terms, _TERMS)
    parts = (rows[..., at : at + _TERMS] @ matrix[..., at : at + _TERMS, :] for at in starts)
    out = next(parts)
    for part in parts:
        out += part
    return out


def _convolved(
    one: Convolution, values: NDArray[np.float32], kernel: NDArray[np.float32]
) -> NDArray[np.float32]:
    n_out = kernel.size // one.n_terms
    n_in = one.image[2] // one.groups
    by_group = kernel.reshape(-1, n_in, one.groups, n_out // one.groups)
    matrices = by_group.transpose(2, 0, 1, 3).reshape(one.groups, one.n_terms, -1)
    out = np.empty((len(values), *one.size, n_out), np.float32)
    step = max(1, _PATCH_NUMBERS // (math.prod(one.size) * one.n_terms * one.groups))
    places = [
        tuple(at * step for at, step in zip(place, one.dilations, strict=True))
        for place in np.ndindex(*one.window)
    ]
    for start in range(0, len(values), step):
        some = values[start : start + step]
        if np.any(one.borders):
            some = np.pad(some, ((0, 0), *one.borders, (0, 0)))
        shape = (one.groups, len(some), *one.size)
        patches = np.empty((*shape, len(places), n_in), np.float32)
        for number, place in enumerate(places):
            taken = _at(some, place, one.size, one.strides)
            by_group = taken.reshape(*taken.shape[:3], one.groups, n_in)
            patches[..., number, :] = np.moveaxis(by_group, 3, 0)
        found = _product(patches.reshape(one.groups, -1, one.n_terms), matrices)
        of_groups = np.moveaxis(found.reshape(*shape, -1), 0, 3)
        out[start : start + step] = of_groups.reshape(len(some), *one.size, n_out)
    return out


def _pooled(one: Pooling, values: NDArray[np.float32]) -> NDArray[np.float32]:
    borders, is_max = ((0, 0), *one.borders, (0, 0)), one.function == "MaxPool"
    if np.any(one.borders):
        values = np.pad(values, borders, constant_values=-np.inf if is_max else 0)
    places = list(np.ndindex(*one.window))
    size = [
        n_places(n, window, stride, (0, 0))
        for n, window, stride in zip(values.shape[1:3], one.window, one.strides, strict=True)
    ]
    together = np.maximum if is_max else np.add
    out = _at(values, places[0], size, one.strides).copy()
    for place in places[1:]:
        together(out, _at(values, place, size, one.strides), out=out)
    if is_max:
        return out
    image = [n - sum(border) for n, border in zip(values.shape[1:3], one.borders, strict=True)]
    ones = np.pad(np.ones((1, *image, 1), np.float32), borders)
    counts = [_at(ones, place, size, one.strides) for place in places]
    return out / np.add.reduce(counts)


def _at(
    values: NDArray[np.float32], place: tuple[int, ...], size: Sequence[int], strides: Sequence[int]
) -> NDArray[np.float32]:
    """What each window has at a place, shape (n_examples, *size, channels)."""
    rows, columns = (
        slice(start, start + (n - 1) * stride + 1, stride)
        for start, n, stride in zip(place, size, strides, strict=True)
    )
    return values[:, rows, columns]


def _activated(one: Activation, x: NDArray[np.float32]) -> NDArray[np.float32]:
    if one.function == "Relu":
        return np.maximum(x, 0)
    if one.function == "Relu6":
        return np.clip(x, 0, 6)
    if one.function == "LeakyRelu":
        return np.where(x > 0, x, np.float32(one.alpha) * x)
    if one.function == "Elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    if one.function == "Selu":
        scale, alpha = np.float32(1.0507009873554805), np.float32(1.6732632423543772)
        return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    if one.function == "Tanh":
        return np.tanh(x)
    if one.function == "Softplus":
        return np.logaddexp(x, np.float32(0))
    if one.function == "Softsign":
        return x / (1 + np.abs(x))
    if one.function == "GeluTanh":
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
        return np.float32(0.5) * x * (1 + np.tanh(inner))
    if one.function == "Gelu":
        from scipy import special

        return np.asarray(np.float32(0.5) * x * special.erfc(-x / np.float32(math.sqrt(2))))
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x))
    if one.function == "Swish":
        return x * sigmoid
    assert one.function == "Sigmoid"
    return sigmoid
