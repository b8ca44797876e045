"""Tells whether a lifted graph is a chain of layers, by its structure.

What belongs here: walking from the output back to the input, and refusing whatever is not plainly a
step of a chain. Nothing is lost by a refusal: the graph itself is run then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import GraphError
from .chain import (
    ACTIVATIONS,
    Activation,
    Bias,
    Chain,
    Convolution,
    Pooling,
    Product,
    Reshaping,
    Step,
)
from .constant_folding import import_graph, static_type
from .nodes import SAME_NUMBERS, SAME_VALUE, Node, Nodes, Tensor

_FLOAT32 = "float32"
_N_EXAMPLES = 7


class _NotAChainError(Exception):
    """The graph has something that no step of a chain is."""


def find_chain(
    graph_def: Any,
    nodes: Nodes,
    input_tensor: Tensor,
    output: Tensor,
    weights: Mapping[str, str],
) -> Chain | None:
    """Describe a lifted graph as a chain, where it is one.

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
    Chain or None
    """
    try:
        search = _Search(_with_examples(graph_def, input_tensor), nodes, weights)
        return Chain(search.steps(output, input_tensor))
    except (_NotAChainError, GraphError):  # a graph can be for another number of examples alone
        return None


def _with_examples(graph_def: Any, input_tensor: Tensor) -> Any:
    """The graph with a number of examples, so that every shape that follows from it is known."""
    counted = type(graph_def)()
    counted.CopyFrom(graph_def)
    for node in counted.node:
        if node.name == input_tensor[0] and node.attr["shape"].shape.dim:
            node.attr["shape"].shape.dim[0].size = _N_EXAMPLES
    return import_graph(counted, "lifted graph")


class _Search:
    def __init__(self, graph: Any, nodes: Nodes, weights: Mapping[str, str]) -> None:
        self._graph = graph
        self._nodes = nodes
        self._weights = weights

    def steps(self, output: Tensor, input_tensor: Tensor) -> tuple[Step, ...]:
        """Steps from the input to the output."""
        backwards: list[Step] = []
        at = output
        while at != input_tensor:
            node = self._nodes[at[0]]
            if at[1] != 0 or not node.inputs:
                raise _NotAChainError
            if node.op in SAME_VALUE:
                at = node.inputs[0]
                continue
            if node.op == "Cast":
                # Examples of another type are cast as they are read; nothing else may be.
                at = node.inputs[0]
                if at != input_tensor:
                    raise _NotAChainError
                continue
            self._expect_float32(at)
            step, at = self._step(node, at)
            backwards.append(step)
        steps = tuple(reversed(backwards))
        kinds = [isinstance(step, Product | Convolution) for step in steps]
        for index, step in enumerate(steps):
            # Between layers, images are only made flat.
            if isinstance(step, Reshaping) and any(kinds[:index]) and len(step.shape) != 1:
                raise _NotAChainError
        return steps

    def _step(self, node: Node, at: Tensor) -> tuple[Step, Tensor]:
        """A step and the tensor that it is made from."""
        data = node.inputs[0]
        if node.op == "MatMul":
            if node.attr["transpose_a"].b or node.attr["transpose_b"].b:
                raise _NotAChainError
            return Product(self._weight(node.inputs[1])), data
        if node.op == "Conv2D":
            return self._convolution(node), data
        if node.op in ("BiasAdd", "Add", "AddV2"):
            return self._bias(node, at)
        if node.op in ACTIVATIONS:
            return Activation(node.op), data
        if node.op in ("MaxPool", "AvgPool"):
            return self._pooling(node), data
        if node.op in ("Reshape", "Squeeze", "ExpandDims"):
            shape, before = self._shape(at), self._shape(data)
            is_kept = shape and before and shape[0] == before[0] == _N_EXAMPLES
            if not shape or not is_kept or _size(shape) is None or _size(shape) != _size(before):
                raise _NotAChainError
            sizes, channels = _known(shape[1:]), _known((before or ())[-1:])
            return Reshaping(sizes, math.prod(_known((before or ())[1:])) // channels[0]), data
        raise _NotAChainError

    def _bias(self, node: Node, at: Tensor) -> tuple[Step, Tensor]:
        if "data_format" in node.attr and node.attr["data_format"].s not in (b"", b"NHWC"):
            raise _NotAChainError
        for data, other in (node.inputs, node.inputs[::-1]):
            name = self._weights.get(self._origin(other)[0])
            if name is None:
                continue
            shape, data_shape = self._shape(other), self._shape(data)
            whole = self._shape(at)
            if shape is None or data_shape is None or whole is None or None in shape:
                raise _NotAChainError
            # One number for each unit: nothing is broadcast but the axes before the last.
            if not shape or _count(shape) != shape[-1] or data_shape[-1] != shape[-1]:
                raise _NotAChainError
            if len(data_shape) != len(whole):
                raise _NotAChainError
            return Bias(name), data
        raise _NotAChainError

    def _convolution(self, node: Node) -> Convolution:
        strides, dilations = list(node.attr["strides"].list.i), list(node.attr["dilations"].list.i)
        padding = node.attr["padding"].s.decode()
        is_plain = not any(size != 1 for size in dilations) and padding in ("SAME", "VALID")
        if not is_plain or node.attr["data_format"].s not in (b"", b"NHWC"):
            raise _NotAChainError
        name = self._weight(node.inputs[1])
        channels, kernel = self._shape(node.inputs[0]), self._shape(node.inputs[1])
        if channels is None or kernel is None or channels[-1] != kernel[2]:
            raise _NotAChainError  # a grouped convolution
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
            raise _NotAChainError
        if node.attr["data_format"].s not in (b"", b"NHWC"):
            raise _NotAChainError
        return Pooling(node.op, (size[1], size[2]), (strides[1], strides[2]), padding)

    def _weight(self, tensor: Tensor) -> str:
        """Name of the weights that a tensor is, in their own shape."""
        origin = self._origin(tensor)
        name = self._weights.get(origin[0])
        if name is None or self._shape(origin) != self._shape(tensor):
            raise _NotAChainError
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

    def _expect_float32(self, tensor: Tensor) -> None:
        if static_type(self._graph, tensor).dtype != _FLOAT32:
            raise _NotAChainError


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    """A shape of which nothing may be open."""
    out = tuple(size for size in shape if size is not None)
    if len(out) < len(shape):
        raise _NotAChainError
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
