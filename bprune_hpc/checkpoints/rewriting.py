"""Writes a source again, in its own form, with other values of some of its variables.

What belongs here: the files of each kind; whatever is not changed stays as it was stored. What does
not: which values (``graph.parametrization``), reading (the other modules of this package).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..graph.source import GraphSource
from ..tensorflow_import import import_tensorflow
from . import saver
from .case import Opening
from .keras import open_saved
from .keras_weights import INSIDE

Values = Mapping[str, NDArray[Any]]

_TEXT = ".txt"
_MOST_TEXT_BYTES = 1 << 20


def rewrite(opening: Opening, source: GraphSource, values: Values, directory: Path) -> None:
    """Write a source's files below a directory, with new values of some variables.

    Of a model in memory its weights are saved.

    Parameters
    ----------
    opening : Opening
        Which gave the source.
    source : GraphSource
    values : mapping of str to array
        By the source's names of variables; of the type and shape that is stored.
    directory : Path
        That is there, and empty.

    Raises
    ------
    CheckpointError
        If a variable is not stored, or a file is damaged.
    """
    place = place_in(directory, source)
    if not source.files:
        opening.model_dir.save_weights(place)
        source = open_saved(opening.model_dir, place)
    stored = {source.keys.get(name, name): value for name, value in values.items()}
    if source.kind == "saved_model":
        shutil.copytree(source.path, directory, dirs_exist_ok=True)
        prefix = directory / "variables" / "variables"
        for old in saver.checkpoint_files(prefix):
            old.unlink()
        _write_bundle(source.path / "variables" / "variables", stored, prefix)
    elif source.kind == "keras":
        _write_keras(source.path, stored, place)
    else:
        _copy_texts(source.path.parent, directory)
        meta = source.path.with_name(f"{source.path.name}.meta")
        if meta.is_file():
            shutil.copyfile(meta, directory / meta.name)
        _write_bundle(source.path, stored, place)
        (directory / "checkpoint").write_text(
            f'model_checkpoint_path: "{place.name}"\nall_model_checkpoint_paths: "{place.name}"\n'
        )


def place_in(directory: Path, source: GraphSource) -> Path:
    """What is to be opened: the checkpoint without suffixes, the file, or the directory."""
    if source.kind == "saved_model":
        return directory
    return directory / (source.path.name if source.files else f"{source.path.name}.weights.h5")


def open_again(opening: Opening, source: GraphSource, directory: Path) -> GraphSource:
    """Open what :func:`rewrite` has written, in the way that the source was opened."""
    place = place_in(directory, source)
    if not source.files:
        return open_saved(opening.model_dir, place)
    return replace(opening, model_dir=str(place), model_ckpt=None).open()


def _copy_texts(home: Path, directory: Path) -> None:
    """Text files beside a checkpoint; BPrune keeps its two one directory up, too."""
    above = home.resolve().parent
    of_bprune = (above / name for name in ("Ops_name_BNN.txt", "LayerNames.txt"))
    for path in (*of_bprune, *sorted(home.glob(f"*{_TEXT}"))):
        if path.is_file() and path.stat().st_size <= _MOST_TEXT_BYTES:
            shutil.copyfile(path, directory / path.name)


def _write_bundle(source: Path, values: Values, prefix: Path) -> None:
    """All tensors of a checkpoint under their own names, some with new values."""
    tensorflow = import_tensorflow()
    reader = saver.CheckpointReader(source)
    _check_names(source, values, reader.types)
    names = list(reader.types)
    tensors = []
    for name in names:
        dtype = reader.types[name][1]
        if name in values:
            value: Any = values[name]
        elif dtype == "object":
            value = reader.read_raw(name)
        else:
            value = reader.read([name])[name]
        tensors.append(tensorflow.constant(value))
    is_v2 = source.with_name(f"{source.name}.index").is_file()
    if is_v2:
        tensorflow.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=tensors,
        )
    else:
        tensorflow.raw_ops.Save(filename=str(prefix), tensor_names=names, data=tensors)


def _write_keras(source: Path, values: Values, path: Path) -> None:
    import h5py

    if path.suffix != ".keras":
        if path != source:
            shutil.copyfile(source, path)
        with h5py.File(path, "r+") as file:
            _assign(source, file, values)
        return
    inside = path.with_name(INSIDE)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            if member.filename != INSIDE:
                new.writestr(member, old.read(member))
                continue
            with old.open(member) as stream, inside.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            with h5py.File(inside, "r+") as file:
                _assign(source, file, values)
            new.write(inside, INSIDE, member.compress_type)
            inside.unlink()


def _assign(source: Path, file: Any, values: Values) -> None:
    _check_names(source, values, [name for name in values if name in file])
    for name, value in values.items():
        file[name][...] = np.asarray(value, file[name].dtype)


def _check_names(source: Path, values: Values, names: Any) -> None:
    absent = sorted(set(values) - set(names))
    if absent:
        raise CheckpointError(
            f"{source}: does not hold '{absent[0]}', which pruning changes; save the whole network"
        )
