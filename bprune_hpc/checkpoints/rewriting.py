"""Writes a source again, in its own form, with other values of some of its variables.

What belongs here: the files of each kind; whatever is not changed stays as it was stored. What does
not: which values (``graph.parametrization``), reading (the other modules of this package).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..graph.source import GraphSource
from ..tensorflow_import import import_graphs, import_tensorflow
from . import saver, slots
from .case import Opening
from .keras import open_saved
from .keras_weights import INSIDE
from .object_graph import OBJECT_GRAPH_KEY
from .slots import OPTIMIZER_GROUPS

Values = Mapping[str, NDArray[Any]]

_TEXT = ".txt"
_MOST_TEXT_BYTES = 1 << 20


def rewrite(
    opening: Opening,
    source: GraphSource,
    values: Values,
    directory: Path,
    *,
    keeps_slots: bool = False,
) -> None:
    """Write a source's files below a directory, with new values of some variables.

    Of a model in memory its weights are saved. An optimizer's slots begin anew unless they are
    kept: a Keras file does without them; a Saver wants all of its variables, and gets what its
    graph begins with. Object-based checkpoints want them too, and do not say what they begin with:
    there they stay. Where slots stay, those of the numbers that have changed begin anew.

    Parameters
    ----------
    opening : Opening
        Which gave the source.
    source : GraphSource
    values : mapping of str to array
        By the source's names of variables; of the type and shape that is stored.
    directory : Path
        That is there, and empty.
    keeps_slots : bool

    Raises
    ------
    CheckpointError
        If a variable is not stored, or a file is damaged.
    """
    place = place_in(directory, source)
    if not source.files:
        opening.model_dir.save_weights(place)
        source = open_saved(opening.model_dir, place)
    before = source.read(list(values))
    stored = {source.keys.get(name, name): value for name, value in values.items()}
    changed = {source.keys.get(name, name): before[name] != values[name] for name in values}
    if source.kind == "saved_model":
        shutil.copytree(source.path, directory, dirs_exist_ok=True)
        prefix = directory / "variables" / "variables"
        for old in saver.checkpoint_files(prefix):
            old.unlink()
        reader = saver.CheckpointReader(source.path / "variables" / "variables")
        _write_bundle(reader, stored | _slots_of_objects(reader, changed), prefix)
    elif source.kind == "keras":
        used = set(source.keys.values())
        _write_keras(source.path, place, _KerasChange(stored, changed, used, keeps_slots))
    else:
        _copy_texts(source.path.parent, directory)
        meta = source.path.with_name(f"{source.path.name}.meta")
        if meta.is_file():
            shutil.copyfile(meta, directory / meta.name)
        reader = saver.CheckpointReader(source.path)
        if source.kind == "tf1":
            owners = slots.of_saver(reader.types)
            begun = slots.initial_values(source.graph_def, owners, opening.threads)
            stored |= _slots_of_saver(reader, owners, begun, changed) if keeps_slots else begun
        else:
            stored |= _slots_of_objects(reader, changed)
        _write_bundle(reader, stored, place, is_v2=not source.path.is_file())
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


def _slots_of_saver(
    reader: saver.CheckpointReader,
    owners: Mapping[str, str | None],
    begun: Values,
    changed: Values,
) -> dict[str, NDArray[Any]]:
    """New values of slots, of the numbers that have changed."""
    return {
        name: np.where(changed[owner], begun[name], reader.read([name])[name])
        for name, owner in owners.items()
        if owner is not None and owner in changed and name in begun
    }


def _slots_of_objects(reader: saver.CheckpointReader, changed: Values) -> dict[str, NDArray[Any]]:
    """New values of slots: zero for the numbers that have changed."""
    data = reader.read_bytes(OBJECT_GRAPH_KEY)
    owners = slots.of_objects(reader.types, import_graphs().TrackableObjectGraph.FromString(data))
    found = {}
    for name, owner in owners.items():
        if owner in changed and reader.types[name][0] == changed[owner].shape:
            value = reader.read([name])[name]
            found[name] = np.where(changed[owner], 0, value).astype(value.dtype)
    return found


def _write_bundle(
    reader: saver.CheckpointReader, values: Values, prefix: Path, is_v2: bool = True
) -> None:
    """All tensors of a checkpoint under their own names, some with new values."""
    tensorflow = import_tensorflow()
    _check_names(reader.path, values, reader.types)
    names = list(reader.types)
    tensors = []
    for name in names:
        dtype = reader.types[name][1]
        if name in values:
            value: Any = values[name]
        elif dtype == "string":  # an array of one would lose zero bytes at its end
            value = reader.read_raw(name)
        else:
            value = reader.read([name])[name]
        tensors.append(tensorflow.constant(value))
    if is_v2:
        tensorflow.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=tensors,
        )
    else:
        tensorflow.raw_ops.Save(filename=str(prefix), tensor_names=names, data=tensors)


@dataclass(frozen=True)
class _KerasChange:
    """What becomes other in a file of Keras weights.

    Attributes
    ----------
    values, changed : mapping of str to array
        By data set: what is to be there, and which numbers of it are others than before.
    used : set of str
        Data sets that the network has.
    keeps_slots : bool
    """

    values: Values
    changed: Values
    used: Collection[str]
    keeps_slots: bool

    def make(self, source: Path, path: Path) -> None:
        """Change a copy of an HDF5 file."""
        import h5py

        with h5py.File(path, "r+") as file:
            _check_names(source, self.values, [name for name in self.values if name in file])
            for name, value in self.values.items():
                file[name][...] = np.asarray(value, file[name].dtype)
            groups = [name for name in OPTIMIZER_GROUPS if self._is_slots(file, name)]
            for slot, owner in slots.of_keras(file, groups, self.changed).items():
                file[slot][...] = np.where(self.changed[owner], 0, file[slot][...])
        if groups and not self.keeps_slots:
            smaller = path.with_name(f"{path.name}.new")
            with h5py.File(path) as file, h5py.File(smaller, "w") as new:
                for name in file.keys() - set(groups):
                    file.copy(name, new)
                for name, value in file.attrs.items():
                    new.attrs[name] = value
            smaller.replace(path)

    def _is_slots(self, file: Any, name: str) -> bool:
        is_used = any(one.lstrip("/").startswith(f"{name}/") for one in self.used)
        return name in file and not is_used


def _write_keras(source: Path, path: Path, change: _KerasChange) -> None:
    if path.suffix != ".keras":
        if path != source:
            shutil.copyfile(source, path)
        change.make(source, path)
        return
    inside = path.with_name(INSIDE)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            if member.filename != INSIDE:
                new.writestr(member, old.read(member))
                continue
            with old.open(member) as stream, inside.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            change.make(source, inside)
            new.write(inside, INSIDE, member.compress_type)
            inside.unlink()


def _check_names(source: Path, values: Values, names: Any) -> None:
    absent = sorted(set(values) - set(names))
    if absent:
        raise CheckpointError(
            f"{source}: does not hold '{absent[0]}', which pruning changes; save the whole network"
        )
