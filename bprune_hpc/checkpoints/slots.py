"""What an optimizer keeps for each number of a variable: whose it is, and what it begins with.

What belongs here: slots by the names under which they are stored. What does not: writing files
(``checkpoints.rewriting``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.source import VariableTypes
from ..tensorflow_import import import_graphs, open_session

OPTIMIZER_GROUPS = ("optimizer", "optimizer_weights")
"""Of a file of Keras weights."""
_OF_NO_VARIABLE = re.compile(r"(?:.*/)?beta[12]_power(?:_\d+)?")
_CONSTANT = {"Const", "Fill", "Identity", "Cast", "Pack", "Reshape", "ConcatV2"}
_KEY = ".ATTRIBUTES/VARIABLE_VALUE"
_SLOT_KEY = ".OPTIMIZER_SLOT/"
_NUMBERED = re.compile(r"(?:^|/)_variables/\d+/\.ATTRIBUTES/")


def of_saver(types: VariableTypes) -> dict[str, str | None]:
    """Slots in a checkpoint of TF1's Saver, and the variable of each, whose name they begin with.

    Adam's powers are of no variable.
    """
    found: dict[str, str | None] = {}
    for name in types:
        owner = name.rpartition("/")[0]
        if types.get(owner) == types[name] and types[name][0]:
            found[name] = owner
        elif _OF_NO_VARIABLE.fullmatch(name) and not types[name][0]:
            found[name] = None
    return found


def of_objects(names: Collection[str], stored: Any) -> dict[str, str]:
    """Slots in an object-based checkpoint, and the variable of each, by their keys.

    Parameters
    ----------
    names : collection of str
        Keys of all that is stored.
    stored : TrackableObjectGraph
        Of the checkpoint: newer optimizers number their slots, and say there whose each is.
    """
    found = {}
    for name in names:
        owner, is_slot, _ = name.partition(_SLOT_KEY)
        if is_slot:
            found[name] = f"{owner}{_KEY}"
    full = {
        attribute.checkpoint_key: attribute.full_name
        for node in stored.nodes
        for attribute in node.attributes
        if attribute.full_name and attribute.checkpoint_key in names
    }
    owners = {name: key for key, name in full.items()}
    for key, name in full.items():
        _, _, of_variable = name.partition("/")[2].partition("/")  # of "Adam/m/dense/kernel"
        if _NUMBERED.search(key) and of_variable in owners:
            found[key] = owners[of_variable]
    return found


def of_keras(file: Any, groups: Collection[str], variables: Collection[str]) -> dict[str, str]:
    """Slots in a file of Keras weights, and the variable of each, where the names say so.

    Parameters
    ----------
    file : h5py.File
    groups : collection of str
        Those of the optimizer.
    variables : collection of str
        Data sets.
    """
    import h5py

    owner_of = {
        f"/{'/'.join(name.partition(':')[0].split('/')[-2:])}/": name
        for name in variables
        if "/vars/" not in name  # of numbers only
    }
    found = {}

    def note(name: str, item: Any) -> None:
        path = f"/{name.partition(':')[0]}/"
        inside = [part for part in owner_of if part in path]
        if isinstance(item, h5py.Dataset) and inside:
            owner = owner_of[max(inside, key=len)]
            if item.shape == file[owner].shape:
                found[str(item.name)] = owner

    for group in groups:
        file[group].visititems(note)
    return found


def initial_values(
    graph_def: Any, names: Collection[str], threads: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """What a TF1 graph gives variables to begin with; of those that begin with constants."""
    nodes = {node.name: node for node in graph_def.node}
    sources: dict[str, str] = {}
    needed: set[str] = set()
    for name in names:
        assigned = nodes.get(f"{name}/Assign")
        if assigned is not None and len(assigned.input) == 2:
            behind = _nodes_behind(nodes, assigned.input[1])
            if {nodes[one].op for one in behind} <= _CONSTANT:
                sources[name] = assigned.input[1]
                needed |= behind
    if not sources:
        return {}
    tensorflow = import_graphs()
    part = tensorflow.GraphDef(
        node=[node for node in graph_def.node if node.name in needed], versions=graph_def.versions
    )
    for node in part.node:
        node.device = ""
        node.attr.pop("_class", None)  # where it lies: with nodes that are not here
    graph = tensorflow.Graph()
    with graph.as_default(), open_session(graph, *threads) as session:
        tensorflow.import_graph_def(part, name="")
        tensors = {
            name: graph.get_tensor_by_name(source if ":" in source else f"{source}:0")
            for name, source in sources.items()
        }
        return {name: np.asarray(value) for name, value in session.run(tensors).items()}


def _nodes_behind(nodes: Mapping[str, Any], tensor: str) -> set[str]:
    """Names of all operations that a tensor depends on."""
    found: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name not in found and name in nodes:
            found.add(name)
            waiting.extend(nodes[name].input)
    return found
