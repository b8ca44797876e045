"""Describes a lifted graph as a graph of layers, by its structure.

What belongs here: walking from the output back to the input, and stopping at whatever is not
plainly one of the operations that ``graph.layer_graph`` has. Nothing is lost by that: the graph
itself is run then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import GraphError
from .constant_folding import import_graph, static_type
from .layer_graph import (
    ACTIVATIONS,
    EXAMPLES,
    Activation,
    Add,
    BatchNormalization,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Operation,
    Pooling,
    Reshape,
    UnknownOperation,
)
from .nodes import SAME_NUMBERS, SAME_VALUE, Node, Nodes, Tensor

_FLOAT32 = "float32"
_N_EXAMPLES = 7
_BATCH_NORMALIZATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})


class _UnknownError(Exception):
    """A node is not plainly one of the operations of a LayerGraph."""


def find_layers(
    graph_def: Any,
    nodes: Nodes,
    input_tensor: Tensor,
    output: Tensor,
    weights: Mapping[str, str],
) -> LayerGraph | UnknownOperation:
    """Describe a lifted graph as a graph of layers, or say what is in it that is none.

    Parameters
    ----------
    graph_def : GraphDef
        The lifted graph.
    nodes : dict of str to Node
        The same, parsed.
    input_tensor, output : Tensor
    weights : mapping of str to str
        Name of each tensor of weights, by the node that it is fed to.

    Returns
    -------
    LayerGraph or UnknownOperation
        Of several operations that are not known, the one that is met first from the output back.
    """
    try:
        with_examples = _with_examples(graph_def, input_tensor)
    except GraphError:  # a graph can be for another number of examples alone
        return UnknownOperation(input_tensor[0], nodes[input_tensor[0]].op)
    search = _Search(with_examples, nodes, input_tensor, weights)
    found: list[LayerNode] = []
    numbers = {input_tensor: EXAMPLES}
    has_product: list[bool] = []
    waiting = [output]
    while waiting:
        at = waiting[-1]
        try:
            operation, inputs = search.operation(at)
        except _UnknownError:
            node = nodes[at[0]]
            return UnknownOperation(node.name, node.op)
        missing = [tensor for tensor in inputs if tensor not in numbers]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if at in numbers:
            continue
        if operation is None:
            numbers[at] = numbers[inputs[0]]
            continue
        of_inputs = tuple(numbers[tensor] for tensor in inputs)
        is_behind = any(number != EXAMPLES and has_product[number] for number in of_inputs)
        if isinstance(operation, Reshape) and is_behind and len(operation.shape) != 1:
            # Between layers, images are only made flat.
            return UnknownOperation(nodes[at[0]].name, nodes[at[0]].op)
        numbers[at] = len(found)
        has_product.append(is_behind or isinstance(operation, Dense | Convolution))
        found.append(LayerNode(operation, of_inputs))
    return LayerGraph(tuple(found))


def _with_examples(graph_def: Any, input_tensor: Tensor) -> Any:
    """The graph with a number of examples, so that every shape that follows from it is known."""
    counted = type(graph_def)()
    counted.CopyFrom(graph_def)
    for node in counted.node:
        if node.name == input_tensor[0] and node.attr["shape"].shape.dim:
            node.attr["shape"].shape.dim[0].size = _N_EXAMPLES
    return import_graph(counted, "lifted graph")


class _Search:
    def __init__(
        self, graph: Any, nodes: Nodes, input_tensor: Tensor, weights: Mapping[str, str]
    ) -> None:
        self._graph = graph
        self._nodes = nodes
        self._input = input_tensor
        self._weights = weights

    def operation(self, at: Tensor) -> tuple[Operation | None, tuple[Tensor, ...]]:
        """An operation, and the tensors that it takes; None for one that changes nothing."""
        node = self._nodes[at[0]]
        if at == self._input:
            return None, ()
        if at[1] != 0 or not node.inputs:
            raise _UnknownError
        data = node.inputs[:1]
        if node.op in SAME_VALUE:
            return None, tuple(data)
        if node.op == "Cast" and data[0] == self._input:
            return None, tuple(data)  # examples of another type are cast as they are read
        self._expect_float32(at)
        if node.op in ("BiasAdd", "Add", "AddV2", "AddN"):
            return self._sum(node, at)
        return self._of_one(node, at), tuple(data)

    def _of_one(self, node: Node, at: Tensor) -> Operation:
        """An operation on its first input."""
        if node.op == "MatMul":
            if node.attr["transpose_a"].b or node.attr["transpose_b"].b:
                raise _UnknownError
            return Dense(self._weight(node.inputs[1]))
        if node.op == "Conv2D":
            return self._convolution(node)
        if node.op in _BATCH_NORMALIZATIONS:
            return self._batch_normalization(node)
        if node.op in ACTIVATIONS:
            return Activation(node.op)
        if node.op in ("MaxPool", "AvgPool"):
            return self._pooling(node)
        if node.op in ("Reshape", "Squeeze", "ExpandDims"):
            shape, before = self._shape(at), self._shape(node.inputs[0])
            is_kept = shape and before and shape[0] == before[0] == _N_EXAMPLES
            if not shape or not is_kept or _size(shape) is None or _size(shape) != _size(before):
                raise _UnknownError
            sizes, channels = _known(shape[1:]), _known((before or ())[-1:])
            return Reshape(sizes, math.prod(_known((before or ())[1:])) // channels[0])
        raise _UnknownError

    def _sum(self, node: Node, at: Tensor) -> tuple[Operation, tuple[Tensor, ...]]:
        """A bias, or a sum of tensors of one shape."""
        self._expect_channels_last(node)
        for data, other in (node.inputs, node.inputs[::-1]) if len(node.inputs) == 2 else ():
            name = self._weights.get(self._origin(other)[0])
            if name is None:
                continue
            shape, data_shape = self._shape(other), self._shape(data)
            whole = self._shape(at)
            if shape is None or data_shape is None or whole is None or None in shape:
                raise _UnknownError
            # One number for each neuron: nothing is broadcast but the axes before the last.
            if not shape or _count(shape) != shape[-1] or data_shape[-1] != shape[-1]:
                raise _UnknownError
            if len(data_shape) != len(whole):
                raise _UnknownError
            return Bias(name), (data,)
        shapes = {self._shape(tensor) for tensor in node.inputs}
        if len(shapes) > 1 or None in shapes or _count(self._shape(at)) is None:
            raise _UnknownError
        return Add(), tuple(node.inputs)

    def _batch_normalization(self, node: Node) -> BatchNormalization:
        self._expect_channels_last(node)
        # Attributes that are not written down have their defaults: this one's is true.
        is_plain = "is_training" in node.attr and "epsilon" in node.attr
        if not is_plain or node.attr["is_training"].b:
            raise _UnknownError
        scale, offset, mean, variance = (self._weight(tensor) for tensor in node.inputs[1:5])
        return BatchNormalization(scale, offset, mean, variance, node.attr["epsilon"].f)

    def _convolution(self, node: Node) -> Convolution:
        strides, dilations = list(node.attr["strides"].list.i), list(node.attr["dilations"].list.i)
        padding = node.attr["padding"].s.decode()
        is_plain = not any(size != 1 for size in dilations) and padding in ("SAME", "VALID")
        self._expect_channels_last(node)
        if not is_plain:
            raise _UnknownError
        name = self._weight(node.inputs[1])
        channels, kernel = self._shape(node.inputs[0]), self._shape(node.inputs[1])
        if channels is None or kernel is None or channels[-1] != kernel[2]:
            raise _UnknownError  # a grouped convolution
        window, image = _known(kernel[:2]), _known(channels[1:])
        return Convolution(
            name, (window[0], window[1]), (image[0], image[1], image[2]), (strides[1], strides[2]),
            padding,
        )  # fmt: skip

    def _pooling(self, node: Node) -> Pooling:
        size, strides = list(node.attr["ksize"].list.i), list(node.attr["strides"].list.i)
        padding = node.attr["padding"].s.decode()
        spatial = size[0] == size[3] == strides[0] == strides[3] == 1
        if not spatial or padding not in ("SAME", "VALID"):
            raise _UnknownError
        self._expect_channels_last(node)
        return Pooling(node.op, (size[1], size[2]), (strides[1], strides[2]), padding)

    def _weight(self, tensor: Tensor) -> str:
        """Name of the weights that a tensor is, in their own shape."""
        origin = self._origin(tensor)
        name = self._weights.get(origin[0])
        if name is None or self._shape(origin) != self._shape(tensor):
            raise _UnknownError
        self._expect_float32(tensor)
        return name

    def _origin(self, tensor: Tensor) -> Tensor:
        """The tensor that has the same numbers in the same order, as far back as it goes."""
        while True:
            node = self._nodes[tensor[0]]
            is_same = node.op in SAME_NUMBERS or (
                node.op == "BroadcastTo"
                and _count(self._shape(tensor)) == _count(self._shape(node.inputs[0]))
            )
            if not is_same or tensor[1] != 0:
                return tensor
            tensor = node.inputs[0]

    def _shape(self, tensor: Tensor) -> tuple[int | None, ...] | None:
        return static_type(self._graph, tensor).shape

    def _expect_channels_last(self, node: Node) -> None:
        if "data_format" in node.attr and node.attr["data_format"].s not in (b"", b"NHWC"):
            raise _UnknownError

    def _expect_float32(self, tensor: Tensor) -> None:
        if static_type(self._graph, tensor).dtype != _FLOAT32:
            raise _UnknownError


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    """A shape of which nothing may be open."""
    out = tuple(size for size in shape if size is not None)
    if len(out) < len(shape):
        raise _UnknownError
    return out


def _size(shape: tuple[int | None, ...] | None) -> int | None:
    """Numbers of one example; None where unknown."""
    return None if shape is None else _count(shape[1:])


def _count(shape: tuple[int | None, ...] | None) -> int | None:
    """Numbers in all; None where unknown."""
    if shape is None:
        return None
    out = 1
    for size in shape:
        if size is None:
            return None
        out *= size
    return out
