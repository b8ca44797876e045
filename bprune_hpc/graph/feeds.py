"""Placeholders that training scripts feed besides the input: constants from here on.

What belongs here: their values, and the noise of a dropout that drops nothing at these values. What
does not: conditionals that become constant with them (``graph.inlining``), other noise
(``graph.noise``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..errors import GraphError
from ..tensorflow_import import import_graphs
from .nodes import (
    SAME_VALUE,
    SHAPE_ONLY,
    Node,
    Nodes,
    Tensor,
    constant,
    constant_node,
    consumers,
    describe,
    parse_graph,
    typed_node,
)

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_UNIFORMS = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})

_FOLLOWED = SAME_VALUE | {
    "Add", "AddV2", "Cast", "Floor", "Greater", "GreaterEqual", "Less", "LessEqual", "Mul",
    "Reshape", "Sub",
}  # fmt: skip
_MOST_STEPS = 6

Interval = tuple[float, float]
"""Least value, included, and bound above, which is reached only where both are equal."""


def fed(graph_def: Any, feed: Mapping[str, str], label: str) -> Any:
    """A graph with constants in place of some placeholders.

    Parameters
    ----------
    graph_def : GraphDef
        Is not changed.
    feed : mapping of str to str
        Value of each, a number or ``true`` or ``false``, by its operation's name; where the
        placeholder has axes, of all of its elements.
    label : str
        What messages call the graph.

    Raises
    ------
    GraphError
        If there is no such placeholder, or it cannot have the value.
    """
    changed = type(graph_def)()
    changed.CopyFrom(graph_def)
    definitions = {definition.name: definition for definition in changed.node}
    for name, text in feed.items():
        definition = definitions.get(name.removesuffix(":0"))
        if definition is None or definition.op not in PLACEHOLDERS:
            nodes = parse_graph(graph_def)
            found = [
                node.name
                for node in nodes.values()
                if node.op in PLACEHOLDERS and _is_fed(node.attr["dtype"].type)
            ]
            raise GraphError(
                f"{label}: --feed: '{name}' is not a placeholder; there are "
                f"{describe(nodes, found) or 'none'}"
            )
        node = constant_node(definition.name, _value(definition, name, text, label))
        definition.Clear()
        definition.name, definition.op = node.name, node.op
        for key, value in node.attr.items():
            definition.attr[key].CopyFrom(value)
    return changed


def _is_fed(dtype: Any) -> bool:
    """Whether a placeholder of this type can have a number, and is no variable's handle."""
    dtype = import_graphs().as_dtype(dtype)
    return bool(dtype.is_integer or dtype.is_floating or dtype.name == "bool")


def _value(definition: Any, name: str, text: str, label: str) -> Any:
    dtype = import_graphs().as_dtype(definition.attr["dtype"].type)
    try:
        if dtype.name == "bool":
            value: Any = _BOOLEANS[text.lower()]
        else:
            value = int(text) if dtype.is_integer else float(text)
        if not _is_fed(dtype):
            raise ValueError
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype.as_numpy_dtype)
        if dtype.is_floating and not np.isfinite(array):
            raise ValueError
    except (KeyError, ValueError, OverflowError) as error:
        raise GraphError(
            f"{label}: --feed: '{name}' takes a {dtype.name}, and '{text}' is none"
        ) from error
    shape = definition.attr["shape"].shape
    sizes = () if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
    if any(size < 0 for size in sizes):
        raise GraphError(
            f"{label}: --feed: '{name}' takes arrays of any size, and one number is given; name "
            "the input with --input_op if it is this"
        )
    return np.full(sizes, array)


def still_dropout(nodes: Nodes, order: Collection[str], outputs: Collection[Tensor]) -> None:
    """Replace uniform noise whose value nothing depends on, as of a dropout with the rate 0.

    Parameters
    ----------
    nodes : dict of str to Node
        Changed in place.
    order : collection of str
        The nodes that the network is computed by.
    outputs : collection of Tensor
    """
    followers = consumers(nodes, order)
    ends = {name for name, _ in outputs}
    for name in order:
        node = nodes[name]
        if node.op in _UNIFORMS and _is_idle(nodes, name, followers, ends):
            dtype = node.attr["dtype"].type
            level = f"{name}/level"
            nodes[level] = constant_node(
                level, np.asarray(0.5, import_graphs().as_dtype(dtype).as_numpy_dtype)
            )
            index = node.attr["Tshape" if "Tshape" in node.attr else "T"].type
            nodes[name] = typed_node(
                name, "Fill", [node.inputs[0], (level, 0)], T=dtype, index_type=index
            )


def _is_idle(
    nodes: Nodes,
    noise: str,
    followers: Mapping[str, list[tuple[str, int]]],
    ends: Collection[str],
) -> bool:
    """Whether each way onwards comes to a number that is the same for any value in [0, 1)."""
    known: dict[str, Interval] = {noise: (0.0, 1.0)}
    waiting = [noise]
    while waiting:
        name = waiting.pop()
        if name in ends:
            return False
        for follower, _ in followers.get(name, []):
            if nodes[follower].op in SHAPE_ONLY or follower in known:
                continue
            found = _interval(nodes, nodes[follower], known)
            if found is None:
                return False
            known[follower] = found
            if found[0] != found[1]:
                waiting.append(follower)
    return True


def _interval(
    nodes: Nodes, node: Node, known: Mapping[str, Interval], depth: int = _MOST_STEPS
) -> Interval | None:
    """Where the values of a node lie; None where that cannot be told."""
    if node.op not in _FOLLOWED:
        return None
    values = []
    for source, _ in node.inputs[: 1 if node.op == "Reshape" else None]:
        value = known.get(source) or _number(nodes, source, depth - 1)
        if value is None:
            return None
        values.append(value)
    a, b = values[0]
    if len(values) == 1:
        if node.op == "Floor":
            return (math.floor(a),) * 2 if b <= math.floor(a) + 1 else None
        return values[0] if node.op != "Cast" or a == b else None
    c, d = values[1]
    if node.op in ("Add", "AddV2"):
        return a + c, b + d
    if node.op == "Sub":
        return (a - c, b - c) if c == d else None
    if node.op == "Mul":
        return (a * c, b * c) if c == d >= 0 else (a * c, a * d) if a == b >= 0 else None
    if node.op in ("Less", "LessEqual"):
        (a, b), (c, d) = (c, d), (a, b)
    takes_equal = node.op.endswith("Equal")
    if a > d or (a == d and (takes_equal or c < d)):
        return 1.0, 1.0
    return (0.0, 0.0) if b < c or (b == c and (a < b or not takes_equal)) else None


def _number(nodes: Nodes, name: str, depth: int) -> Interval | None:
    """A constant, or what a few steps of arithmetic make of constants."""
    value = constant(nodes, (name, 0))
    if value is not None:
        return (float(value),) * 2 if value.size == 1 and value.dtype.kind in "fiub" else None
    return _interval(nodes, nodes[name], {}, depth) if depth else None
