"""A TensorFlow graph as plain Python: nodes by name, tensors as (node name, output) pairs.

What belongs here: parsing, building, walking, and on what values depend (variables, the input,
random numbers). What does not: what any of it means for a Bayesian network (``graph.noise``,
``graph.lifting``).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import GraphError
from ..tensorflow_import import import_graphs

Tensor = tuple[str, int]

_MOST_NUMBERS = 2**20  # of a constant that is looked at

SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
SAME_VALUE = frozenset({"Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape"})
SAME_NUMBERS = SAME_VALUE | {"Reshape", "ExpandDims", "Squeeze"}


@dataclass
class Node:
    """One operation: its inputs are tensors, its attributes TensorFlow's ``AttrValue``."""

    name: str
    op: str
    inputs: list[Tensor] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    attr: dict[str, Any] = field(default_factory=dict)


Nodes = dict[str, Node]


def parse_tensor(name: str) -> Tensor:
    """``"a/b:1"`` as ``("a/b", 1)``; output 0 where none is named."""
    node, _, output = name.partition(":")
    # A name that TensorFlow could not have written stays whole, and is then not found.
    return (node, int(output or 0)) if not output or output.isdecimal() else (name, 0)


def tensor_name(tensor: Tensor) -> str:
    """``("a/b", 1)`` as ``"a/b:1"``."""
    return f"{tensor[0]}:{tensor[1]}"


def parse_graph(graph_def: Any) -> Nodes:
    """Nodes of a GraphDef; device strings are not taken over."""
    nodes = {}
    for definition in graph_def.node:
        node = Node(definition.name, definition.op, attr=dict(definition.attr))
        for text in definition.input:
            if text.startswith("^"):
                node.controls.append(text[1:])
            else:
                node.inputs.append(parse_tensor(text))
        nodes[node.name] = node
    return nodes


def build_graph(nodes: Iterable[Node], versions: Any, functions: Iterable[Any] = ()) -> Any:
    """GraphDef of the nodes, without control edges, devices and private attributes."""
    graph_def = import_graphs().GraphDef()
    graph_def.versions.CopyFrom(versions)
    graph_def.library.function.extend(functions)
    for node in nodes:
        definition = graph_def.node.add(name=node.name, op=node.op)
        definition.input.extend(tensor_name(tensor) for tensor in node.inputs)
        for key, value in node.attr.items():
            # Attributes with an underscore are hints: colocation, cached shapes, XLA scopes.
            if not key.startswith("_"):
                definition.attr[key].CopyFrom(value)
    return graph_def


def ancestors(nodes: Nodes, outputs: Collection[Tensor]) -> list[str]:
    """Names of all nodes that data flows from, each after those that it takes data from.

    Raises
    ------
    GraphError
        If data flows in a cycle.
    """
    order: list[str] = []
    state: dict[str, bool] = {}
    for output, _ in outputs:
        stack = [(output, False)]
        while stack:
            name, is_left = stack.pop()
            if is_left:
                state[name] = True
                order.append(name)
                continue
            if name in state:
                if not state[name]:
                    raise GraphError(
                        f"'{name}': data flows in a cycle; while loops of "
                        "TensorFlow 1 cannot be lifted"
                    )
                continue
            state[name] = False
            stack.append((name, True))
            # A node on the stack twice is met again only after it was finished.
            stack.extend(
                (source, False)
                for source, _ in reversed(nodes[name].inputs)
                if state.get(source) is not True
            )
    return order


def consumers(nodes: Nodes, names: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """For each node the (node, input position) pairs among ``names`` that take its data."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name in names:
        for position, (source, _) in enumerate(nodes[name].inputs):
            found.setdefault(source, []).append((name, position))
    return found


def value_inputs(node: Node) -> list[Tensor]:
    """Inputs that the values of a node's outputs depend on, not only their shapes."""
    if node.op in SHAPE_ONLY:
        return []
    if node.op == "Fill":
        return node.inputs[1:]
    return node.inputs


def source_of(nodes: Nodes, tensor: Tensor, through: Collection[str] = SAME_VALUE) -> Tensor:
    """The tensor that ``tensor`` repeats, stepping back over the operations ``through``."""
    while nodes[tensor[0]].op in through:
        tensor = nodes[tensor[0]].inputs[0]
    return tensor


def constant(nodes: Nodes, tensor: Tensor) -> NDArray[Any] | None:
    """Value of a tensor that is the same whatever is fed, or None where that is not plain."""
    node = nodes.get(tensor[0])
    if node is None:
        return None
    if node.op == "Const":
        proto = node.attr["value"].tensor
        # A few bytes can declare any size.
        if math.prod(dim.size for dim in proto.tensor_shape.dim) > _MOST_NUMBERS:
            return None
        return np.asarray(import_graphs().make_ndarray(proto))
    if node.op in SAME_VALUE or node.op == "PlaceholderWithDefault":
        return constant(nodes, node.inputs[0])
    if node.op in ("LogicalNot", "LogicalAnd", "LogicalOr"):
        values = [constant(nodes, source) for source in node.inputs]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        if node.op == "LogicalNot":
            return np.logical_not(known[0])
        return (np.logical_and if node.op == "LogicalAnd" else np.logical_or)(*known)
    return None


def structure(nodes: Nodes, tensor: Tensor) -> bytes:
    """A key that is equal for tensors computed in the same way from the same variables."""
    keys: dict[str, bytes] = {}
    # Digests of digests: as many as there are nodes, however often each is used.
    for name in ancestors(nodes, [tensor]):
        node = nodes[name]
        if node.op.startswith(("Placeholder", "Var")):
            keys[name] = name.encode()
            continue
        digest = hashlib.sha256(node.op.encode())
        for key, value in sorted(node.attr.items()):
            if not key.startswith("_"):
                digest.update(key.encode() + value.SerializeToString(deterministic=True))
        for source in node.inputs:
            output = source_of(nodes, source)
            digest.update(b"/%d/" % output[1] + keys[output[0]])
        keys[name] = digest.digest()
    name, output_number = source_of(nodes, tensor)
    return b"%d/" % output_number + keys[name]


def constant_node(name: str, value: ArrayLike) -> Node:
    """A Const node."""
    tensorflow = import_graphs()
    proto = tensorflow.make_tensor_proto(value)
    node = Node(name, "Const", attr={"dtype": type_attr(proto.dtype)})
    node.attr["value"] = tensorflow.AttrValue(tensor=proto)
    return node


def placeholder_node(name: str, dtype: int, shape: Any = None) -> Node:
    """A Placeholder node; ``shape`` is a tuple, a TensorShapeProto, or None for unknown."""
    tensorflow = import_graphs()
    if shape is None or isinstance(shape, tuple):
        shape = tensorflow.TensorShape(shape).as_proto()
    attr = {"dtype": type_attr(dtype), "shape": tensorflow.AttrValue(shape=shape)}
    return Node(name, "Placeholder", attr=attr)


def typed_node(name: str, op: str, inputs: list[Tensor], **types: int) -> Node:
    """A node all of whose attributes are types, such as ``T`` or ``DstT``."""
    return Node(name, op, inputs, attr={key: type_attr(value) for key, value in types.items()})


def type_attr(dtype: int) -> Any:
    """AttrValue of a type, given as TensorFlow's number for it."""
    return import_graphs().AttrValue(type=dtype)


def operation(op: str) -> Any:
    """The definition (OpDef) of an operation, or None if this TensorFlow does not know it."""
    return import_graphs().op_def_of(op)


def describe(nodes: Mapping[str, Node], names: Iterable[str], most: int = 5) -> str:
    """``'name' (Op)`` of the first few of the names, for messages."""
    listed = list(names)
    text = ", ".join(f"'{name}' ({nodes[name].op})" for name in listed[:most])
    return text + (f" and {len(listed) - most} more" if len(listed) > most else "")


NORMALS = frozenset({"RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2"})


class Depends(Flag):
    """What the value (not only the shape) of a node depends on."""

    NOTHING = 0
    VARIABLE = auto()
    INPUT = auto()
    RANDOM = auto()


def is_random(op: str) -> bool:
    """Whether an operation draws random numbers, going by TensorFlow's names for them."""
    return (
        ("Random" in op and not op.startswith(("StatelessRandomGet", "RandomDataset")))
        or "TruncatedNormal" in op
        or "Multinomial" in op
        or op in ("RngReadAndSkip", "RngSkip")
    )


def dependences(
    nodes: Nodes, order: Collection[str], input_tensor: Tensor, variables: Collection[str]
) -> dict[str, Depends]:
    """What each node depends on; ``order`` must list a node after its inputs."""
    found: dict[str, Depends] = {}
    for name in order:
        node = nodes[name]
        if name == input_tensor[0]:
            found[name] = Depends.INPUT
        elif name in variables:
            found[name] = Depends.VARIABLE
        elif is_random(node.op):
            found[name] = Depends.RANDOM
        else:
            found[name] = Depends.NOTHING
            for source, _ in value_inputs(node):
                found[name] |= found[source]
    return found
