"""Checks that a graph is one: nodes as their operations are defined, inputs that exist, no cycles.

TensorFlow checks this when it imports a graph; here graphs are walked before that, and only part of
them is ever imported. What belongs here: what holds for every graph. What does not: what may be
evaluated (``graph_checks``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import GraphError
from .graph_nodes import Node, Nodes, operation
from .tensorflow_import import MOST_AXES

_FIX = "the file is damaged: copy it again"
# Cycles through these are the loops of TensorFlow 1.
_CLOSES_LOOP = frozenset({"NextIteration", "RefNextIteration"})
_KINDS = {"type": "type", "int": "i", "float": "f", "bool": "b", "string": "s", "shape": "shape",
          "tensor": "tensor", "func": "func"}  # fmt: skip


def check_declared(definitions: Iterable[Any]) -> None:
    """Refuse constants and attributes of more axes than a tensor can have.

    Parameters
    ----------
    definitions : iterable of NodeDef

    Raises
    ------
    GraphError
    """
    for definition in definitions:
        for value in definition.attr.values():
            shapes = value.list.shape or (value.shape, value.tensor.tensor_shape)
            n_axes = max(len(shape.dim) for shape in shapes)
            if n_axes > MOST_AXES:
                raise GraphError(
                    f"'{definition.name}' ({definition.op}) has a shape of {n_axes} axes, and no "
                    f"tensor has more than {MOST_AXES}; {_FIX}"
                )


def check_nodes(nodes: Nodes) -> None:
    """Refuse nodes that do not fit their operations' definitions, or take data in a cycle.

    Nodes of operations that this TensorFlow does not know are passed over.

    Raises
    ------
    GraphError
    """
    n_outputs = {name: _checked(node) for name, node in nodes.items()}
    for node in nodes.values():
        for source, output in node.inputs:
            if source not in nodes:
                raise GraphError(
                    f"'{node.name}' takes data from '{source}', which the graph lacks; {_FIX}"
                )
            known = n_outputs[source]
            if known is not None and output >= known:
                raise GraphError(
                    f"'{node.name}' takes output {output} of '{source}' "
                    f"({nodes[source].op}), which has {known}; {_FIX}"
                )
    _check_cycles(nodes)


def _checked(node: Node) -> int | None:
    """Number of a node's outputs, None where its operation is unknown."""
    definition = operation(node.op)
    if definition is None:
        return None
    for attribute in definition.attr:
        if attribute.HasField("default_value"):
            node.attr.setdefault(attribute.name, attribute.default_value)
        if attribute.name not in node.attr:
            raise GraphError(f"'{node.name}' ({node.op}) lacks '{attribute.name}'; {_FIX}")
        found = node.attr[attribute.name].WhichOneof("value")
        wanted = _KINDS.get(attribute.type, "list")
        if found not in (wanted, "placeholder"):
            raise GraphError(
                f"'{node.name}' ({node.op}) has '{attribute.name}' of kind {found}, not {wanted}; "
                f"{_FIX}"
            )
    n_inputs = _n_tensors(node, definition.input_arg)
    if n_inputs != len(node.inputs):
        raise GraphError(
            f"'{node.name}' ({node.op}) has {len(node.inputs)} inputs instead of {n_inputs}; {_FIX}"
        )
    return _n_tensors(node, definition.output_arg)


def _n_tensors(node: Node, arguments: Any) -> int:
    total = 0
    for argument in arguments:
        if argument.number_attr:
            total += node.attr[argument.number_attr].i
        elif argument.type_list_attr:
            total += len(node.attr[argument.type_list_attr].list.type)
        else:
            total += 1
    return total


def _check_cycles(nodes: Nodes) -> None:
    waiting = {
        name: len({source for source, _ in node.inputs}) if node.op not in _CLOSES_LOOP else 0
        for name, node in nodes.items()
    }
    followers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        if node.op not in _CLOSES_LOOP:
            for source in {source for source, _ in node.inputs}:
                followers.setdefault(source, []).append(name)
    ready = [name for name, count in waiting.items() if not count]
    n_done = 0
    while ready:
        n_done += 1
        for follower in followers.get(ready.pop(), []):
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    if n_done < len(nodes):
        stuck = next(name for name, count in waiting.items() if count)
        raise GraphError(f"'{stuck}': data flows in a cycle, here or before; {_FIX}")
