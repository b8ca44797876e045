"""Opens weights that Keras stored (``.weights.h5``, ``.h5``, ``.keras``) for a model that is built.

What belongs here: weights alone. The file's own description of a model is never read, so nothing in
it is executed. What does not: building and tracing the model (``builder``).
"""

from __future__ import annotations

import gc
import io
import json
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import builder
from .checkpoint import reading
from .errors import CheckpointError
from .opened import Opened
from .variable_values import VariableTypes

SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras")

_OPTIMIZER_GROUPS = ("optimizer", "optimizer_weights")


def open_keras(path: Path, model_function: str, n_intra: int = 1, n_inter: int = 1) -> Opened:
    """Build a model, give it a file's weights, and trace its call.

    Parameters
    ----------
    path : Path
        The weights.
    model_function : str
        ``MODULE:FUNCTION``.
    n_intra, n_inter : int
        TensorFlow threads.

    Raises
    ------
    ConfigError
        If the model cannot be built.
    CheckpointError
        If the file is damaged or holds the weights of another model.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; check --model_dir and --model_ckpt")
    version, others = _contents(path)
    model = builder.build_model(model_function, n_intra, n_inter)
    try:
        model.load_weights(str(path))
    except Exception as error:
        raise CheckpointError(
            f"{path}: does not fit the model of {model_function}: "
            f"{' '.join(str(error).split())[:200]}; pass the --model that it was saved from"
        ) from error
    traced = builder.trace(model_function, model)
    variables = builder.variables_by_name(model)
    types = {name: (tuple(v.shape), v.dtype.name) for name, v in variables.items()}
    # The arrays share the variables' memory; each is handed over, not copied.
    values = {name: np.asarray(v.read_value()) for name, v in variables.items()}
    del model, variables
    # Keras models refer to themselves; without this their constants stay in memory.
    gc.collect()

    def read(names: Collection[str]) -> dict[str, NDArray[Any]]:
        return {name: values.pop(name) for name in names}

    return Opened(
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
    )


def _contents(path: Path) -> tuple[str, VariableTypes]:
    """Version of Keras that wrote a file, where it says so, and the optimizer's tensors in it."""
    import h5py

    with reading(path):
        if path.suffix != ".keras":
            with h5py.File(path, "r") as file:
                version = file.attrs.get("keras_version", "")
                if not version and "model_weights" in file:
                    version = file["model_weights"].attrs.get("keras_version", "")
                return _with_keras(version), _optimizer(file)
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
            with archive.open("model.weights.h5") as stream:
                inside = io.BytesIO(stream.read())
        with h5py.File(inside, "r") as file:
            return _with_keras(version), _optimizer(file)


def _with_keras(version: Any) -> str:
    text = version.decode(errors="replace") if isinstance(version, bytes) else str(version)
    return f"{text} (Keras)" if text else ""


def _optimizer(file: Any) -> VariableTypes:
    import h5py

    found: dict[str, tuple[tuple[int, ...], str]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[f"{group}/{name}"] = (tuple(item.shape), item.dtype.name)

    for group in _OPTIMIZER_GROUPS:
        if isinstance(file.get(group), h5py.Group):
            file[group].visititems(note)
    return found
