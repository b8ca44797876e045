"""Turns the variables of a graph into plain tensors, so that values can be fed in their place.

What belongs here: handles, reads, and slices of partitioned variables. What does not: values
(``graph.source``), noise (``graph.noise``).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import GraphError
from .nodes import SAME_VALUE, Node, Nodes, constant_node, source_of, typed_node

VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_REFERENCES = frozenset({"VariableV2", "Variable"})


def expose_variables(nodes: Nodes, variable_names: Mapping[str, str], label: str) -> dict[str, str]:
    """Turn variables into plain tensors; stored name of each, by node.

    A resource's handle takes the place of its value, and its reads become identities; a reference
    variable is a tensor already. Where several nodes have one stored name they are the slices of a
    partitioned variable, and the node that joins them becomes the variable.

    Parameters
    ----------
    nodes : dict of str to Node
        Changed in place.
    variable_names : mapping of str to str
        Stored name of a variable's node (or of a placeholder that takes its handle) where it is not
        the node's own; the slices of a partitioned variable in their order.

    Raises
    ------
    GraphError
        If a variable is used other than by reading it, or slices are used one by one.
    """
    names: dict[str, str] = {}
    for node in nodes.values():
        if node.op in VARIABLES or node.name in variable_names:
            names[node.name] = variable_names.get(node.name, node.name)
    aliases: dict[str, str] = {}
    for name in list(nodes):
        node = nodes[name]
        node.inputs = [(aliases.get(source, source), output) for source, output in node.inputs]
        source = next((source for source, _ in node.inputs if source in names), None)
        if source is None or nodes[source].op in _REFERENCES:
            continue
        if node.op in SAME_VALUE:
            aliases[name] = source
            del nodes[name]
        elif node.op == "ReadVariableOp":
            nodes[name] = typed_node(name, "Identity", node.inputs, T=node.attr["dtype"].type)
        elif node.op == "ResourceGather" and not node.attr["batch_dims"].i:
            axis = f"{name}/axis"
            nodes[axis] = constant_node(axis, 0)
            nodes[name] = typed_node(
                name,
                "GatherV2",
                [*node.inputs, (axis, 0)],
                Tparams=node.attr["dtype"].type,
                Tindices=node.attr["Tindices"].type,
                Taxis=nodes[axis].attr["dtype"].type,
            )
        else:
            raise GraphError(
                f"{label}: '{name}' ({node.op}) takes the variable '{source}' other than by "
                "reading it; export the graph for inference"
            )
    return _join_slices(nodes, names, variable_names, label)


def _join_slices(
    nodes: Nodes, names: dict[str, str], variable_names: Mapping[str, str], label: str
) -> dict[str, str]:
    order: dict[str, list[str]] = {}
    for node_name, name in variable_names.items():
        order.setdefault(name, []).append(node_name)
    sliced = {name: parts for name, parts in order.items() if len(parts) > 1}
    used = {name for name in names.values() if name in sliced}
    for name in sorted(used):
        joined = [n for n in nodes.values() if _parts_of(nodes, n) == sliced[name]]
        for node in joined:
            nodes[node.name] = Node(node.name, "VariableV2")
            names[node.name] = name
        parts = set(sliced[name])
        taken = {n: node for n, node in nodes.items() if not _only_reads(nodes, n, parts)}
        direct = [n for n, node in taken.items() if _reads_any(nodes, node, parts)]
        if not joined or direct:
            where = f"'{direct[0]}'" if direct else "the graph"
            raise GraphError(
                f"{label}: the slices of the partitioned variable '{name}' are used one by one in "
                f"{where}; export the graph without a partitioner"
            )
        for part in parts:
            names.pop(part, None)
    return names


def _parts_of(nodes: Nodes, node: Node) -> list[str]:
    if node.op not in ("ConcatV2", "Concat"):
        return []
    values = node.inputs[:-1] if node.op == "ConcatV2" else node.inputs[1:]
    return [source_of(nodes, tensor)[0] for tensor in values]


def _only_reads(nodes: Nodes, name: str, parts: set[str]) -> bool:
    node = nodes[name]
    return name in parts or (node.op in SAME_VALUE and source_of(nodes, (name, 0))[0] in parts)


def _reads_any(nodes: Nodes, node: Node, parts: set[str]) -> bool:
    return any(source_of(nodes, tensor)[0] in parts for tensor in node.inputs)
