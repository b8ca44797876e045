"""Finds a model inside an object-based checkpoint by the shape of the object graph, not by names.

What belongs here: walking the graph that a checkpoint stores beside a model's own. What does not:
reading tensors (``checkpoints.saver``), building the model (``checkpoints.keras_tracing``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..tensorflow_import import import_tensorflow

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_VALUE = "VARIABLE_VALUE"


@dataclass(frozen=True)
class Match:
    """How an object in a checkpoint fits a model.

    Attributes
    ----------
    path : str
        Attribute names that lead from the checkpoint's root to the object; empty for the root.
    keys : dict of str to str
        Key in the checkpoint of each variable that was found, by the variable's name.
    """

    path: str
    keys: dict[str, str]


def matches(stored: Any, model: Any, variables: Mapping[str, Any]) -> list[Match]:
    """All objects of a checkpoint that hold some of a model's variables, best and outermost first.

    Parameters
    ----------
    stored : TrackableObjectGraph
        Of the checkpoint.
    model : tf_keras.Model
        Built.
    variables : mapping of str to tf.Variable
        The model's, by name.
    """
    name_of = {id(variable): name for name, variable in variables.items()}
    children_of = _model_children(model)
    found = []
    for index, path in _paths(stored).items():
        keys = _walk(stored, index, model, children_of, name_of)
        if keys:
            found.append(Match(path, keys))
    return sorted(found, key=lambda match: -len(match.keys))


def children_names(stored: Any) -> list[str]:
    """Attributes of a checkpoint's root object."""
    return sorted(child.local_name for child in stored.nodes[0].children) if stored.nodes else []


def _paths(stored: Any) -> dict[int, str]:
    """Path of every object, shortest first."""
    paths, order = {0: ""}, [0]
    for index in order:
        for child in stored.nodes[index].children:
            if child.node_id not in paths and child.node_id < len(stored.nodes):
                paths[child.node_id] = f"{paths[index]}/{child.local_name}".lstrip("/")
                order.append(child.node_id)
    return paths


def _model_children(model: Any) -> dict[int, dict[str, Any]]:
    """Children by name of every object below a model, by the object's id."""
    view = import_tensorflow().train.TrackableView
    children: dict[int, dict[str, Any]] = {}
    waiting = [model]
    while waiting:
        thing = waiting.pop()
        if id(thing) in children:
            continue
        children[id(thing)] = dict(view.children(thing))
        waiting.extend(children[id(thing)].values())
    return children


def _walk(
    stored: Any,
    index: int,
    model: Any,
    children_of: Mapping[int, Mapping[str, Any]],
    name_of: Mapping[int, str],
) -> dict[str, str]:
    keys: dict[str, str] = {}
    seen: set[tuple[int, int]] = set()
    waiting = [(index, model)]
    while waiting:
        number, thing = waiting.pop()
        if (number, id(thing)) in seen:
            continue
        seen.add((number, id(thing)))
        node = stored.nodes[number]
        name = name_of.get(id(thing))
        for attribute in node.attributes if name is not None else ():
            if attribute.name == _VALUE and name is not None:
                keys.setdefault(name, attribute.checkpoint_key)
        children = children_of[id(thing)]
        for child in node.children:
            if child.local_name in children and child.node_id < len(stored.nodes):
                waiting.append((child.node_id, children[child.local_name]))
    return keys
