"""Makes a graph flat: calls of library functions inlined, conditionals on constants decided.

What belongs here: what TensorFlow would do itself before it runs a graph. What does not: anything
particular to Bayesian networks. Control edges count here, because they say which branch of a
TensorFlow 1 conditional a node lies in; nothing downstream looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import GraphError
from .checks import check_declared, check_nodes
from .nodes import Node, Nodes, Tensor, constant, operation, parse_graph, typed_node

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_MAX_DEPTH = 50
_FIX = "the file is damaged: copy it again"


def flatten(graph_def: Any) -> tuple[Nodes, dict[Tensor, Tensor]]:
    """Nodes of a GraphDef with every call inlined and every constant conditional decided.

    Returns
    -------
    nodes : dict of str to Node
        A node of a function lies under the name of its call: ``call/node``.
    renamed : dict of Tensor to Tensor
        What the outputs of the calls that are gone have become.

    Raises
    ------
    GraphError
        If a called function is absent from the library or calls itself, or a node is not one.
    """
    check_declared(graph_def.node)
    for function in graph_def.library.function:
        check_declared(function.node_def)
    nodes = parse_graph(graph_def)
    library = {function.signature.name: function for function in graph_def.library.function}
    renamed: dict[Tensor, Tensor] = {}
    for _ in range(_MAX_DEPTH):
        moved: dict[Tensor, Tensor] = {}
        for name in list(nodes):
            call = _called(nodes, nodes[name], library)
            if call is not None:
                moved.update(_inline(nodes, nodes.pop(name), *call))
        if not moved:
            check_nodes(nodes)
            _decide_switches(nodes)
            return nodes, {tensor: _follow(renamed, tensor) for tensor in renamed}
        renamed.update(moved)
        for node in nodes.values():
            node.inputs = [_follow(moved, tensor) for tensor in node.inputs]
            node.controls = [control for control in node.controls if control in nodes]
    raise GraphError(f"functions nested more than {_MAX_DEPTH} deep, or calling themselves")


def _called(
    nodes: Nodes, node: Node, library: Mapping[str, Any]
) -> tuple[Any, list[Tensor]] | None:
    if node.op in _CALLS:
        name, arguments = _named_function(node, "f"), node.inputs
    elif node.op in ("If", "StatelessIf"):
        if not node.inputs:
            raise GraphError(f"'{node.name}' ({node.op}) has no inputs; {_FIX}")
        chosen = constant(nodes, node.inputs[0])
        if chosen is None or chosen.size != 1:
            return None
        branch = "then_branch" if bool(chosen) else "else_branch"
        name, arguments = _named_function(node, branch), node.inputs[1:]
    elif node.op in library:
        name, arguments = node.op, node.inputs
    else:
        return None
    if name not in library:
        raise GraphError(f"'{node.name}' calls '{name}', which the graph's library lacks")
    return library[name], arguments


def _named_function(node: Node, attribute: str) -> str:
    """Name of the function that a node calls; nodes are not checked before calls are gone."""
    if attribute not in node.attr:
        raise GraphError(f"'{node.name}' ({node.op}) lacks '{attribute}'; {_FIX}")
    return str(node.attr[attribute].func.name)


def _inline(
    nodes: Nodes, call: Node, function: Any, arguments: list[Tensor]
) -> dict[Tensor, Tensor]:
    """Put a function's nodes under the call's name; what each output of the call is now."""
    formal = [argument.name for argument in function.signature.input_arg]
    if len(formal) != len(arguments):
        raise GraphError(
            f"'{call.name}' calls '{function.signature.name}' with {len(arguments)} arguments "
            f"instead of {len(formal)}; {_FIX}"
        )
    actual = dict(zip(formal, arguments, strict=True))
    body = {definition.name: definition for definition in function.node_def}

    def resolve(text: str) -> Tensor:
        name, *rest = text.split(":")
        if name in actual:
            return actual[name]
        position = int(rest[1]) if len(rest) > 1 and rest[1].isdecimal() else 0
        if name not in body:
            raise GraphError(
                f"'{function.signature.name}' takes data from '{name}', which it lacks; {_FIX}"
            )
        return f"{call.name}/{name}", _offset(body[name], rest[0] if rest else "") + position

    for definition in function.node_def:
        node = Node(f"{call.name}/{definition.name}", definition.op)
        for key, value in definition.attr.items():
            given = call.attr.get(value.placeholder) if value.placeholder else None
            node.attr[key] = given if given is not None else value
        for text in definition.input:
            if text.startswith("^"):
                if text[1:] in body:
                    node.controls.append(f"{call.name}/{text[1:]}")
            else:
                node.inputs.append(resolve(text))
        nodes[node.name] = node
    outputs = function.signature.output_arg
    return {
        (call.name, position): resolve(function.ret[output.name])
        for position, output in enumerate(outputs)
    }


def _offset(definition: Any, output_name: str) -> int:
    """Number of a node's first output under ``output_name`` (a function's way to name outputs)."""
    known = operation(definition.op)
    first = 0
    for output in known.output_arg if known is not None else ():
        if output.name == output_name:
            return first
        if output.number_attr:
            first += definition.attr[output.number_attr].i
        elif output.type_list_attr:
            first += len(definition.attr[output.type_list_attr].list.type)
        else:
            first += 1
    return 0


def _follow(moved: Mapping[Tensor, Tensor], tensor: Tensor) -> Tensor:
    start, n_steps = tensor, 0
    while tensor in moved:
        tensor, n_steps = moved[tensor], n_steps + 1
        if n_steps > len(moved):
            raise GraphError(f"'{start[0]}': calls pass data in a cycle; copy the file again")
    return tensor


def _decide_switches(nodes: Nodes) -> None:
    """Decide TensorFlow 1 conditionals (Switch, Merge) whose predicate is constant."""
    taken = {
        node.name: int(bool(chosen))
        for node in nodes.values()
        if node.op == "Switch"
        and (chosen := constant(nodes, node.inputs[1])) is not None
        and chosen.size == 1
    }
    if not taken:
        return
    dead = _dead_nodes(nodes, taken)

    def is_dead(tensor: Tensor) -> bool:
        name, output = tensor
        return name in dead or taken.get(name, output) != output

    for node in nodes.values():
        if node.op == "Merge":
            live = [tensor for tensor in node.inputs if not is_dead(tensor)]
            if len(live) == 1 and len(node.inputs) > 1:
                nodes[node.name] = typed_node(node.name, "Identity", live)
                nodes[node.name].attr["T"] = node.attr["T"]
    for name, output in taken.items():
        switch = nodes[name]
        passed = Node(name, "Identity", switch.inputs[:1], switch.controls, {"T": switch.attr["T"]})
        nodes[name] = passed
        if output == 1:
            for node in nodes.values():
                node.inputs = [(name, 0) if t == (name, 1) else t for t in node.inputs]


def _dead_nodes(nodes: Nodes, taken: Mapping[str, int]) -> set[str]:
    """Nodes that never run, because they lie in a branch that is not taken."""
    followers: dict[str, list[str]] = {}
    for node in nodes.values():
        for source in {name for name, _ in node.inputs} | set(node.controls):
            followers.setdefault(source, []).append(node.name)
    dead: set[str] = set()
    waiting = [follower for name in taken for follower in followers.get(name, [])]
    while waiting:
        node = nodes[waiting.pop()]
        if node.name in dead:
            continue
        lost = [name in dead or taken.get(name, output) != output for name, output in node.inputs]
        is_dead = (
            all(lost)
            if node.op == "Merge"
            else any(lost) or any(control in dead for control in node.controls)
        )
        if is_dead:
            dead.add(node.name)
            waiting.extend(followers.get(node.name, []))
    return dead
