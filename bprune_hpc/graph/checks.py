"""Refuses graphs that are none, or that cannot be evaluated safely or repeatably.

What belongs here: that nodes are as their operations are defined, that their inputs exist and no
cycle is closed (TensorFlow checks this when it imports a graph; here graphs are walked before
that); rules about operations one by one. What does not: noise and weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..errors import GraphError
from ..tensorflow_import import MOST_AXES
from .nodes import Depends, Node, Nodes, Tensor, describe, is_random, operation

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


# Stateful only in name: what they do is what the functions do that they call.
_FUNCTIONAL = frozenset({"If", "While", "Case", "PartitionedCall", "StatefulPartitionedCall"})
# Run code or read files although TensorFlow does not count them as stateful.
_OUTSIDE = frozenset({"PyFuncStateless", "ReadFile", "MatchingFiles"})
_LOOPS_AND_BRANCHES = frozenset(
    {"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "RefSwitch", "RefMerge"}
)
_CONDITIONALS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})


def check_operations(nodes: Nodes, library: Any, label: str) -> None:
    """Refuse operations that are unknown, have side effects, run code, or branch on data.

    Random ones pass here: they may be the posterior's noise.

    Raises
    ------
    GraphError
    """
    inside = {
        f"{function.signature.name}/{node.name}": Node(node.name, node.op)
        for function in used_functions(nodes.values(), library)
        for node in function.node_def
    }
    called = {function.signature.name for function in library.function}
    everything = {**nodes, **inside}
    unknown, effects, branches = [], [], []
    for name, node in everything.items():
        definition = operation(node.op)
        if node.op.startswith("Horovod") or (definition is None and node.op not in called):
            unknown.append(name)
        elif node.op in _LOOPS_AND_BRANCHES:
            branches.append(name)
        elif node.op in _OUTSIDE or (
            definition is not None
            and definition.is_stateful
            and not is_random(node.op)
            and node.op not in _FUNCTIONAL
        ):
            effects.append(name)
    if unknown:
        raise GraphError(
            f"{label}: operations between input and output that this TensorFlow does not know "
            f"or cannot run here: {describe(everything, unknown)}; export the graph without them"
        )
    if effects:
        raise GraphError(
            f"{label}: operations between input and output that run code, touch files or keep "
            f"state: {describe(everything, effects)}; pass --input_op behind them, or export the "
            "graph without them"
        )
    _refuse_branches(nodes, branches, label)
    random = [name for name, node in inside.items() if is_random(node.op)]
    if random:
        raise GraphError(
            f"{label}: random operations in loops or conditionals: {describe(inside, random)}; "
            "export the graph for inference"
        )


def check_conditionals(nodes: Nodes, depends: Mapping[str, Depends], label: str) -> None:
    """Refuse conditionals on the examples: the branch is one for all that are in a batch.

    Parameters
    ----------
    depends : mapping of str to Depends
        What each node that counts depends on.

    Raises
    ------
    GraphError
    """
    on_data = [
        name
        for name in depends
        if nodes[name].op in _CONDITIONALS and depends[nodes[name].inputs[0][0]] & Depends.INPUT
    ]
    _refuse_branches(nodes, on_data, label)


def _refuse_branches(nodes: Nodes, branches: Collection[str], label: str) -> None:
    if branches:
        raise GraphError(
            f"{label}: control flow that depends on data: {describe(nodes, branches)}; export the "
            "graph for inference"
        )


def check_lifted(
    nodes: Nodes, kept: Collection[str], input_tensor: Tensor, fed: Collection[str], label: str
) -> None:
    """Refuse a lifted graph that still draws random numbers or waits for another input.

    Raises
    ------
    GraphError
    """
    random = [name for name in kept if is_random(nodes[name].op)]
    if random:
        raise GraphError(
            f"{label}: random operations that are not a posterior's noise: "
            f"{describe(nodes, random)}; export the graph for inference (dropout off), or give the "
            "placeholder that turns it off its value with --feed NAME=VALUE"
        )
    if input_tensor[0] not in kept:
        raise GraphError(
            f"{label}: the output does not depend on '{input_tensor[0]}'; pass another as "
            "--input_op"
        )
    waiting = [
        name
        for name in kept
        if nodes[name].op == "Placeholder" and name not in fed and name != input_tensor[0]
    ]
    if waiting:
        raise GraphError(
            f"{label}: placeholders besides the input: {describe(nodes, waiting)}; give them "
            "values with --feed NAME=VALUE, or export the graph for inference"
        )


def used_functions(nodes: Iterable[Node], library: Any) -> list[Any]:
    """Library functions that nodes call, and those that these call, in the library's order."""
    by_name = {function.signature.name: function for function in library.function}
    used: set[str] = set()
    waiting = [value for node in nodes for value in node.attr.values()]
    while waiting:
        value = waiting.pop()
        for called in [value.func, *value.list.func]:
            if called.name in by_name and called.name not in used:
                used.add(called.name)
                for node in by_name[called.name].node_def:
                    waiting.extend(node.attr.values())
    return [function for name, function in by_name.items() if name in used]
