"""Refuses graphs that cannot be evaluated safely or repeatably, naming the operations.

What belongs here: rules about operations one by one. What does not: noise and weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .dependence import is_random
from .errors import GraphError
from .graph_nodes import Node, Nodes, Tensor, describe, operation

# Stateful only in name: what they do is what the functions do that they call.
_FUNCTIONAL = frozenset({"If", "While", "Case", "PartitionedCall", "StatefulPartitionedCall"})
# Run code or read files although TensorFlow does not count them as stateful.
_OUTSIDE = frozenset({"PyFuncStateless", "ReadFile", "MatchingFiles"})
_LOOPS_AND_BRANCHES = frozenset(
    {"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "RefSwitch", "RefMerge"}
)


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
    if branches:
        raise GraphError(
            f"{label}: control flow that depends on data: {describe(nodes, branches)}; export the "
            "graph for inference"
        )
    random = [name for name, node in inside.items() if is_random(node.op)]
    if random:
        raise GraphError(
            f"{label}: random operations in loops or conditionals: {describe(inside, random)}; "
            "export the graph for inference"
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
            f"{describe(nodes, random)}; export the graph for inference (dropout off)"
        )
    if input_tensor[0] not in kept:
        raise GraphError(
            f"{label}: the output does not depend on '{input_tensor[0]}'; check --input_op"
        )
    waiting = [
        name
        for name in kept
        if nodes[name].op == "Placeholder" and name not in fed and name != input_tensor[0]
    ]
    if waiting:
        raise GraphError(
            f"{label}: placeholders besides the input: {describe(nodes, waiting)}; give them a "
            "default (tf.placeholder_with_default) or export the graph for inference"
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
