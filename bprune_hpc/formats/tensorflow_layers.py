"""A graph of layers in TensorFlow's operations, with weights as constants.

What belongs here: what each operation is in TensorFlow. What does not: which file is made of the
function (``formats.tflite``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    Transpose,
    scales_apart,
)
from .interface import UnknownLayerError


def apply(
    tensorflow: Any, layers: LayerGraph, weights: Mapping[str, NDArray[np.float32]], examples: Any
) -> Any:
    """Outputs of a graph of layers, shape (n_examples, n_outputs).

    Parameters
    ----------
    tensorflow : module
    weights : mapping of str to float32 array
        All that the graph names, in its own constants too.
    examples : float32 tensor, shape (n_examples, *layers.input_shape)
    """
    found: list[Any] = []
    apart = scales_apart(layers, weights)
    for number, node in enumerate(layers.nodes):
        inputs = [examples if at == EXAMPLES else found[at] for at in node.inputs]
        if number in apart:  # over this the converter makes no sum with the next product
            inputs = [tensorflow.minimum(inputs[0], np.finfo(np.float32).max)]
        found.append(_applied(tensorflow, node.operation, inputs, weights))
    return found[-1]


def _applied(
    tf: Any, one: Operation, inputs: list[Any], weights: Mapping[str, NDArray[np.float32]]
) -> Any:
    values = inputs[0]
    if isinstance(one, Dense):
        return tf.matmul(values, weights[one.kernel])
    if isinstance(one, Convolution):
        kernel = weights[one.kernel].reshape(*one.window, one.image[2] // one.groups, -1)
        padding = [(0, 0), *one.borders, (0, 0)]
        values = tf.pad(values, padding) if np.any(one.borders) else values
        return tf.nn.conv2d(values, kernel, one.strides, "VALID", dilations=one.dilations)
    if isinstance(one, Bias | Scale):
        number = weights[one.name]
        number = number.reshape(-1) if number.size == values.shape[-1] else number
        return values + number if isinstance(one, Bias) else values * number
    if isinstance(one, Activation):
        return _activated(tf, one, values)
    if isinstance(one, Pooling):
        is_same = np.any(one.borders)  # borders of poolings are those of SAME
        kind = tf.nn.max_pool2d if one.function == "MaxPool" else tf.nn.avg_pool2d
        return kind(values, one.window, one.strides, "SAME" if is_same else "VALID")
    if isinstance(one, Padding):
        return tf.pad(values, [(0, 0), *one.borders, (0, 0)])
    if isinstance(one, Reshape):
        return tf.reshape(values, (-1, *one.shape))
    if isinstance(one, Transpose):
        return tf.transpose(values, (0, *(1 + axis for axis in one.axes)))
    if isinstance(one, Add):
        return tf.add_n(inputs)
    if isinstance(one, Multiply):
        return inputs[0] * inputs[1]
    if isinstance(one, Concatenation):
        return tf.concat(inputs, axis=-1)
    raise UnknownLayerError(one)


def _activated(tf: Any, one: Activation, values: Any) -> Any:
    if one.function == "LeakyRelu":
        return tf.nn.leaky_relu(values, one.alpha)
    if one.function in ("Gelu", "GeluTanh"):
        return tf.nn.gelu(values, approximate=one.function == "GeluTanh")
    if one.function == "Softsign":  # TFLite has no operation of that name
        return values / (1 + tf.abs(values))
    names = {"Swish": "silu"}
    function = getattr(tf.nn, names.get(one.function, one.function.lower()), None)
    if function is None:
        raise UnknownLayerError(one)
    return function(values)
