"""Opens an object-based checkpoint (``tf.train.Checkpoint``) for a model that is built.

What belongs here: finding the model in it, whatever it is called there, and the training step. What
does not: walking object graphs (``checkpoints.object_graph``), building the model
(``checkpoints.keras_tracing``).
"""

from __future__ import annotations

import gc
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import CheckpointError
from ..graph.source import GraphSource
from ..tensorflow_import import import_graphs
from . import keras_tracing, object_graph, saver
from .keras_tracing import Builder

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# A training script's own counter first, then the optimizer's.
_STEPS = (r"(?:.*/)?(?:global_)?step", r"(?:.*/)?_?iter(?:ations)?")


def is_object_based(reader: saver.CheckpointReader) -> bool:
    """Whether a checkpoint was written by ``tf.train.Checkpoint`` and not by a Saver."""
    return object_graph.OBJECT_GRAPH_KEY in reader.types


def open_tf2_checkpoint(prefix: Path, builder: Builder) -> GraphSource:
    """Build a model, find its variables in a checkpoint, and trace its call.

    Parameters
    ----------
    prefix : Path
        The checkpoint, without suffixes.
    builder : Builder
        Of the model that it was saved from.

    Raises
    ------
    ConfigError
        If the model cannot be built.
    CheckpointError
        If the checkpoint is damaged, or holds no object that fits the model, or several.
    """
    reader = saver.CheckpointReader(prefix)
    stored = _object_graph(prefix, reader)

    def load(model: Any, has_values: bool) -> dict[str, str]:
        variables = keras_tracing.variables_by_name(model)
        keys = _find(prefix, stored, model, variables, builder.name)
        for name, variable in variables.items():
            shape, _ = reader.types.get(keys[name], ((), ""))
            if keys[name] not in reader.types or not variable.shape.is_compatible_with(shape):
                raise CheckpointError(
                    f"{prefix.name}: '{name}' is stored with shape {shape}, the model of "
                    f"{builder.name} has {tuple(variable.shape)}; pass the --model it was saved "
                    "from"
                )
            if has_values:
                variable.assign(reader.read([keys[name]])[keys[name]])
        return keys

    # Keras models refer to themselves; without this their memory stays beside what is read below.
    _, keys, traced = keras_tracing.load_and_trace(builder, load)
    gc.collect()

    def read(names: Collection[str]) -> dict[str, NDArray[Any]]:
        values = reader.read([keys[name] for name in names])
        return {name: values[keys[name]] for name in names}

    used = set(keys.values())
    others = {
        key.removesuffix(_SUFFIX): kept
        for key, kept in reader.types.items()
        if key not in used and key != object_graph.OBJECT_GRAPH_KEY
    }
    return GraphSource(
        kind="tf2_checkpoint",
        path=prefix,
        label=prefix.name,
        graph_def=traced.graph_def,
        read=read,
        types={name: reader.types[key] for name, key in keys.items()},
        variable_names=traced.handles,
        ends=traced.ends,
        files=saver.checkpoint_files(prefix),
        step=_step(reader),
        others=others,
        keys=keys,
    )


def _object_graph(prefix: Path, reader: saver.CheckpointReader) -> Any:
    data = reader.read_bytes(object_graph.OBJECT_GRAPH_KEY)
    with saver.reading(prefix, " at its object graph"):
        return import_graphs().TrackableObjectGraph.FromString(data)


def _find(
    prefix: Path, stored: Any, model: Any, variables: dict[str, Any], model_function: str
) -> dict[str, str]:
    found = object_graph.matches(stored, model, variables)
    whole = [match for match in found if len(match.keys) == len(variables)]
    if not whole:
        if found:
            missing = sorted(set(variables) - found[0].keys.keys())
            finding = (
                f"what comes closest, '{found[0].path or 'the root'}', lacks "
                f"{', '.join(map(repr, missing[:3]))}{' and others' if len(missing) > 3 else ''}"
            )
        else:
            finding = f"it has {', '.join(object_graph.children_names(stored)) or 'nothing'}"
        raise CheckpointError(
            f"{prefix.name}: holds no object that fits the model of {model_function}: {finding}; "
            "pass the --model it was saved from"
        )
    distinct = {tuple(sorted(match.keys.items())) for match in whole}
    if len(distinct) > 1:
        called_model = [match for match in whole if match.path.rpartition("/")[2] == "model"]
        if len(called_model) != 1:
            raise CheckpointError(
                f"{prefix.name}: several objects fit the model of {model_function}: "
                f"{', '.join(match.path for match in whole)}; save the one to use as 'model'"
            )
        whole = called_model
    return whole[0].keys


def _step(reader: saver.CheckpointReader) -> int | None:
    for pattern in _STEPS:
        for key, (shape, dtype) in reader.types.items():
            if (
                shape == ()
                and dtype in ("int32", "int64")
                and re.fullmatch(pattern + re.escape(_SUFFIX), key)
            ):
                return int(reader.read([key])[key])
    return None
