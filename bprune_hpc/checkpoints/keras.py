"""Opens weights that Keras stored (``.weights.h5``, ``.h5``, ``.keras``) for a model that is built.

What belongs here: weights alone, of a file or of a model in memory. The file's own description of a
model is never read, so nothing in it is executed. What does not: building and tracing the model
(``checkpoints.keras_tracing``).
"""

from __future__ import annotations

import gc
import json
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, damage
from ..graph.source import GraphSource, VariableTypes
from . import keras_tracing, keras_weights
from .keras_tracing import Builder
from .saver import reading
from .slots import OPTIMIZER_GROUPS

SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras")


def open_keras(path: Path, builder: Builder) -> GraphSource:
    """Build a model, give it a file's weights, and trace its call.

    Parameters
    ----------
    path : Path
        The weights.
    builder : Builder
        Of the model that they were saved from.

    Raises
    ------
    ConfigError
        If the model cannot be built.
    CheckpointError
        If the file is damaged or holds the weights of another model.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; check the path")
    with reading(path):
        file = keras_weights.open_hdf5(path)
        version, others = _version(path, file), _optimizer(file)
    is_whole = path.name.endswith((".weights.h5", ".keras"))

    def does_not_fit(_: Exception, reason: str) -> CheckpointError:
        return CheckpointError(
            f"{path}: does not fit the model of {builder.name}: {reason}; pass the --model that it "
            "was saved from"
        )

    def load(model: Any, has_values: bool) -> dict[str, Any]:
        with damage(does_not_fit):
            found = keras_weights.data_sets(file, model, is_whole, is_assigned=has_values)
        # What the file lacks keeps the value that it starts with.
        return {
            name: found[id(v)] if id(v) in found else np.asarray(v.read_value())
            for name, v in keras_tracing.variables_by_name(model).items()
        }

    model, sources, traced = keras_tracing.load_and_trace(builder, load)
    types = keras_tracing.types_of(model)
    del model
    # Keras models refer to themselves; without this their constants stay in memory.
    gc.collect()

    def read(names: Collection[str]) -> dict[str, NDArray[Any]]:
        values = {}
        for name in names:
            with reading(path, f" at '{name}'"):
                source = sources[name]
                is_held = isinstance(source, np.ndarray)
                values[name] = source if is_held else keras_weights.read(source, types[name][1])
        return values

    return GraphSource(
        kind="keras",
        path=path,
        label=path.name,
        graph_def=traced.graph_def,
        read=read,
        types=types,
        variable_names=traced.handles,
        ends=traced.ends,
        files=[path],
        tf_version=version,
        others=others,
        keys={
            name: source.name
            for name, source in sources.items()
            if not isinstance(source, np.ndarray)
        },
    )


def open_model(model: Any) -> GraphSource:
    """Trace the call of a model that is in memory, with the weights that it has.

    Raises
    ------
    ConfigError
        If it is no tf_keras model, is not built, or cannot be traced.
    """
    keras_tracing.check_model(model)
    traced = keras_tracing.trace(model.name, model)
    variables = keras_tracing.variables_by_name(model)

    def read(names: Collection[str]) -> dict[str, NDArray[Any]]:
        # Copies: the model may go on to be trained.
        return {name: np.array(variables[name].read_value()) for name in names}

    return GraphSource(
        kind="keras",
        path=Path(model.name),
        label=model.name,
        graph_def=traced.graph_def,
        read=read,
        types=keras_tracing.types_of(model),
        variable_names=traced.handles,
        ends=traced.ends,
        files=[],
    )


def open_saved(model: Any, path: Path) -> GraphSource:
    """A model in memory, with the weights of a ``.weights.h5`` that was saved from it."""
    source = open_model(model)
    with reading(path):
        file = keras_weights.open_hdf5(path)
        found = keras_weights.data_sets(file, model, is_whole=True)
        variables = keras_tracing.variables_by_name(model)
        keys = {name: found[id(v)].name for name, v in variables.items() if id(v) in found}
        file.close()

    def read(names: Collection[str]) -> dict[str, NDArray[Any]]:
        with reading(path), keras_weights.open_hdf5(path) as file:
            return {name: file[keys[name]][()] for name in names}

    return replace(source, path=path, read=read, files=[path], keys=keys)


def _version(path: Path, file: Any) -> str:
    """Version of Keras that wrote a file, where it says so."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return _with_keras(json.loads(archive.read("metadata.json")).get("keras_version", ""))
    version = file.attrs.get("keras_version", "")
    if not version and "model_weights" in file:
        version = file["model_weights"].attrs.get("keras_version", "")
    return _with_keras(version)


def _with_keras(version: Any) -> str:
    text = version.decode(errors="replace") if isinstance(version, bytes) else str(version)
    return f"{text} (Keras)" if text else ""


def _optimizer(file: Any) -> VariableTypes:
    import h5py

    found: dict[str, tuple[tuple[int, ...], str]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[f"{group}/{name}"] = (tuple(item.shape), item.dtype.name)

    for group in OPTIMIZER_GROUPS:
        if isinstance(file.get(group), h5py.Group):
            file[group].visititems(note)
    return found
