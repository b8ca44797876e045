"""Evaluates a scale block by block where each of its numbers comes from the same one of a variable.

What belongs here: telling such tensors from others, and their values, without the temporaries that
are as large as the weights. What does not: anything else about evaluation
(``graph.constant_folding``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tensorflow_import import import_graphs
from .nodes import (
    NORMALS,
    SAME_NUMBERS,
    Node,
    Nodes,
    Tensor,
    constant_node,
    placeholder_node,
    typed_node,
)

# Even, so that a block's vector instructions meet the same numbers as the whole tensor's would.
BLOCK = 1 << 20

_PASSED_ON = SAME_NUMBERS | {"BroadcastTo"}
_ELEMENTWISE = frozenset(
    {"Abs", "Add", "AddV2", "Cast", "Exp", "Expm1", "Log", "Log1p", "Maximum", "Minimum", "Mul",
     "Neg", "Pow", "RealDiv", "Reciprocal", "Relu", "Rsqrt", "Sigmoid", "Softplus", "Sqrt",
     "Square", "Sub"}
)  # fmt: skip


@dataclass(frozen=True)
class Elementwise:
    """A flat graph for a tensor, whatever the number of elements that are fed.

    Attributes
    ----------
    nodes : list of Node
        Variables are placeholders of one axis, and the noise is one number.
    tensor : Tensor
    variables : tuple of str
        Nodes of the variables, to be fed.
    n_elements : int
    """

    nodes: list[Node]
    tensor: Tensor
    variables: tuple[str, ...]
    n_elements: int

    def blocks(self) -> Iterator[slice]:
        """Parts to feed one after another."""
        for start in range(0, self.n_elements, BLOCK):
            yield slice(start, min(start + BLOCK, self.n_elements))


def elementwise(
    nodes: Nodes,
    variables: Mapping[str, str],
    tensor: Tensor,
    size_of: Callable[[Tensor], int | None],
    noise: str,
) -> Elementwise | None:
    """The flat graph of a tensor, or None where it is not computed number by number.

    Parameters
    ----------
    nodes : dict of str to Node
    variables : mapping of str to str
        By node.
    tensor : Tensor
    size_of : callable
        Number of elements of a tensor, None where it is not known.
    noise : str
        The node that every standard normal equals; not part of the result.
    """
    n_elements = size_of(tensor)
    found: dict[str, Node] = {}
    used: list[str] = []
    waiting = [tensor]
    while waiting:
        name, output = waiting.pop()
        if name in found:
            continue
        # Two sizes only: then no broadcasting moves a number from its place.
        if output or size_of((name, 0)) not in (1, n_elements):
            return None
        node = _flat(nodes[name], name in variables, noise)
        if node is None or (name in variables and size_of((name, 0)) != n_elements):
            return None
        found[name] = node
        used += [name] if name in variables else []
        waiting.extend(source for source in node.inputs if source[0] != noise)
    if not used or not n_elements:
        return None
    return Elementwise(list(found.values()), tensor, tuple(used), n_elements)


def _flat(node: Node, is_variable: bool, noise: str) -> Node | None:
    if is_variable:
        return placeholder_node(node.name, node.attr["dtype"].type, (None,))
    if node.op in NORMALS:
        dtype = node.attr["dtype"].type
        return typed_node(node.name, "Cast", [(noise, 0)], SrcT=_float64(), DstT=dtype)
    if node.op in ("ZerosLike", "OnesLike"):
        dtype = _numpy_type(node.attr["T"].type)
        return constant_node(node.name, np.asarray(node.op == "OnesLike", dtype))
    if node.op == "Fill":
        return typed_node(node.name, "Identity", node.inputs[1:], T=node.attr["T"].type)
    if node.op in _PASSED_ON:
        return typed_node(node.name, "Identity", node.inputs[:1], T=node.attr["T"].type)
    if node.op == "Const":
        return _scalar(node)
    if node.op in _ELEMENTWISE:
        return Node(node.name, node.op, node.inputs, attr=node.attr)
    return None


def _scalar(node: Node) -> Node | None:
    """A constant that is one number, also where that stands for many."""
    tensor = node.attr["value"].tensor
    values = [tensor.float_val, tensor.double_val, tensor.half_val]
    n_values = sum(len(value) for value in values)
    width = np.dtype(_numpy_type(tensor.dtype)).itemsize
    if n_values != 1 and (n_values or len(tensor.tensor_content) != width):
        return None
    scalar = Node(node.name, "Const", attr={"dtype": node.attr["dtype"]})
    value = type(node.attr["value"])()
    value.CopyFrom(node.attr["value"])
    value.tensor.tensor_shape.Clear()
    scalar.attr["value"] = value
    return scalar


def _float64() -> int:
    return int(import_graphs().float64.as_datatype_enum)


def _numpy_type(dtype: int) -> Any:
    return import_graphs().as_dtype(dtype).as_numpy_dtype
