"""Under which key a graph's own restore operation finds each variable in the checkpoint.

What belongs here: reading that from the structure of the graph, for TensorFlow 1 Savers and for
SavedModels alike. What does not: reading the checkpoint.
"""

from __future__ import annotations

from typing import Any

from ..errors import GraphError
from ..graph.inlining import flatten
from ..graph.nodes import Nodes, constant, source_of
from ..tensorflow_import import import_graphs

_ASSIGNMENTS = frozenset({"Assign", "AssignVariableOp"})
_RESHAPED = frozenset({"Identity", "Reshape"})


def restored_names(graph_def: Any, restore_op: str) -> dict[str, str]:
    """Key in the checkpoint of each variable that a restore operation assigns.

    Parameters
    ----------
    graph_def : GraphDef
    restore_op : str
        ``restore_op_name`` of the graph's SaverDef; empty where there is none.

    Returns
    -------
    dict of str to str
        By the variable's node. Slices of a partitioned variable share one key, and follow one
        another in the order of their offsets.
    """
    try:
        nodes = flatten(_behind(graph_def, restore_op))[0]
    except GraphError:
        # Restoring is not what the graph is needed for; where that part is damaged, names stay.
        return {}
    found: list[tuple[str, list[int], str]] = []
    for node in nodes.values():
        if node.op not in _ASSIGNMENTS or len(node.inputs) < 2:
            continue
        variable = source_of(nodes, node.inputs[0])[0]
        restore, position = source_of(nodes, node.inputs[1], _RESHAPED)
        if nodes[restore].op not in ("RestoreV2", "Restore", "RestoreSlice"):
            continue
        key, part = _key(nodes, restore, position)
        if key:
            found.append((key, part, variable))
    return {variable: key for key, _, variable in sorted(found)}


def _behind(graph_def: Any, restore_op: str) -> Any:
    """The part of a graph that runs for ``restore_op``, control edges included."""
    kept = import_graphs().GraphDef()
    nodes = {node.name: node for node in graph_def.node}
    waiting, seen = [restore_op.partition(":")[0]], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        kept.node.append(nodes[name])
        waiting.extend(text.lstrip("^").partition(":")[0] for text in nodes[name].input)
    kept.library.CopyFrom(graph_def.library)
    return kept


def _key(nodes: Nodes, restore: str, position: int) -> tuple[str, list[int]]:
    """Key and slice offsets that output ``position`` of a restore operation stands for."""
    inputs = nodes[restore].inputs
    keys = constant(nodes, inputs[1]) if len(inputs) > 1 else None
    slices = constant(nodes, inputs[2]) if len(inputs) > 2 else None
    if keys is None or keys.dtype != object or position >= keys.size:
        return "", []
    key = keys.reshape(-1)[position].decode(errors="replace")
    text = ""
    if slices is not None and slices.dtype == object and position < slices.size:
        # "10 4 0,5:0,4": the whole shape, then offset and length on each axis.
        text = slices.reshape(-1)[position].decode(errors="replace").rpartition(" ")[2]
    offsets = [part.partition(",")[0] for part in text.split(":") if text]
    return key, [int(offset) if offset.isdecimal() else 0 for offset in offsets]
