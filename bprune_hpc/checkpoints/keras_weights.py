"""Finds the data set of a Keras file that belongs to each variable, and reads it when asked.

Keras's own loaders walk the model and assign; here they walk, and what they would assign is noted.
What belongs here: HDF5, alone or inside a ``.keras`` archive. What does not: the model
(``checkpoints.keras_tracing``) and what becomes of the values (``checkpoints.keras``).
"""

from __future__ import annotations

import ctypes
import importlib
import io
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..tensorflow_import import import_tensorflow

INSIDE = "model.weights.h5"
# What a compressed member may unpack to, in sizes of its own: Keras stores them uncompressed.
_MOST_EXPANSION = 100
_CHUNK = 1 << 20


def open_hdf5(path: Path) -> Any:
    """The h5py.File of a file of weights; of a ``.keras`` archive, that inside, its CRC checked.

    Raises
    ------
    CheckpointError
        If an archive unpacks to far more than it holds.
    Exception
        Whatever h5py or zipfile raise on damage.
    """
    import h5py

    if path.suffix != ".keras":
        return h5py.File(path, "r")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(INSIDE)
        if member.file_size > _MOST_EXPANSION * member.compress_size:
            raise CheckpointError(
                f"{path}: {INSIDE} would unpack from {member.compress_size} bytes to "
                f"{member.file_size}; save the model again"
            )
        is_stored = member.compress_type == zipfile.ZIP_STORED
        # On disk, so that it takes no memory; read through in any case, which checks the CRC.
        unpacked = None if is_stored else tempfile.TemporaryFile()  # noqa: SIM115 (h5py's)
        with archive.open(member) as stream:
            while chunk := stream.read(_CHUNK):
                if unpacked is not None:
                    unpacked.write(chunk)
    if unpacked is None:
        start = _content_start(path, member.header_offset)
        return h5py.File(_Part(path, start, member.file_size), "r")
    return h5py.File(unpacked, "r")


def _content_start(path: Path, header: int) -> int:
    """Where a member's bytes start: behind its local header, a name and an extra field."""
    with path.open("rb") as stream:
        stream.seek(header + 26)
        n_name, n_extra = struct.unpack("<HH", stream.read(4))
    return header + 30 + int(n_name) + int(n_extra)


def data_sets(file: Any, model: Any, is_whole: bool, is_assigned: bool = False) -> dict[int, Any]:
    """The h5py.Dataset of each of a model's variables that the file has, by the variable's id.

    Parameters
    ----------
    file : h5py.File
    model : tf_keras.Model
        Built; its variables need not have values.
    is_whole : bool
        Whether the file is of the form of ``.weights.h5`` and ``.keras``, not of the older ``.h5``.
    is_assigned : bool
        Whether the variables get the values too, as layers that compute something from them need.

    Raises
    ------
    Exception
        Whatever Keras raises where model and file do not fit each other.
    """
    found: dict[int, Any] = {}
    with _noting(file, found, is_assigned):
        if is_whole:
            saving_lib = importlib.import_module("tf_keras.src.saving.saving_lib")
            saving_lib._load_state(
                model, weights_store=_Store(file), assets_store=None, inner_path="",
                visited_trackables=set(),
            )  # fmt: skip
        else:
            legacy = importlib.import_module("tf_keras.src.saving.legacy.hdf5_format")
            is_inside = "layer_names" not in file.attrs and "model_weights" in file
            group = file["model_weights"] if is_inside else file
            legacy.load_weights_from_hdf5_group(group, model)
    return found


def read(data_set: Any, dtype: str) -> NDArray[Any]:
    """Values of a data set, in memory that TensorFlow manages.

    Building the model has taken as much there for the priors' means; TensorFlow uses that again but
    gives nothing back to the system.

    Parameters
    ----------
    data_set : h5py.Dataset
    dtype : str
        Type of the array.
    """
    fresh = import_tensorflow().raw_ops.Empty(shape=data_set.shape, dtype=dtype)
    values = np.asarray(fresh)  # shares the memory and keeps it, but may not be written to
    if values.size:
        memory = (ctypes.c_char * values.nbytes).from_address(values.ctypes.data)
        data_set.read_direct(np.frombuffer(memoryview(memory), values.dtype).reshape(values.shape))
    return values


@contextmanager
def _noting(file: Any, found: dict[int, Any], is_assigned: bool) -> Iterator[None]:
    """Note what Keras's loaders assign, by the variable's id, and assign it only if asked to."""
    import h5py

    legacy = importlib.import_module("tf_keras.src.saving.legacy.hdf5_format")
    assign_of = _with_assign(import_tensorflow().Variable)

    def note(variable: Any, value: Any, *arguments: Any, **keywords: Any) -> Any:
        if not isinstance(value, h5py.Dataset):
            kind = next(kind for kind in type(variable).__mro__ if kind in assign_of)
            return assign_of[kind](variable, value, *arguments, **keywords)
        _check(file, variable, value)
        found[id(variable)] = value
        return variable.assign(value[()]) if is_assigned else variable

    def note_all(pairs: Any) -> None:
        for variable, value in pairs:
            note(variable, value)

    def lazy(group: Any) -> list[Any]:
        names = legacy.load_attributes_from_hdf5_group(group, "weight_names")
        return [group[name] for name in names]

    with ExitStack() as stack:
        for kind in assign_of:
            stack.enter_context(mock.patch.object(kind, "assign", note))
        stack.enter_context(mock.patch.object(legacy.backend, "batch_set_value", note_all))
        stack.enter_context(mock.patch.object(legacy, "load_subset_weights_from_hdf5_group", lazy))
        yield


def _with_assign(kind: type) -> dict[type, Any]:
    """The classes of variables, of one and what derives from it, that have an ``assign`` each."""
    # Not all take it from the base: TensorFlow wraps methods, also of classes that inherit them.
    found: dict[type, Any] = {kind: vars(kind)["assign"]} if "assign" in vars(kind) else {}
    subclasses: list[type] = kind.__subclasses__()
    for derived in subclasses:
        found |= _with_assign(derived)
    return found


def _check(file: Any, variable: Any, value: Any) -> None:
    if not variable.shape.is_compatible_with(value.shape):
        raise ValueError(
            f"'{variable.name}' has the shape {tuple(variable.shape)}, what is stored {value.shape}"
        )
    if value.dtype.kind not in "fiub":
        raise ValueError(f"'{variable.name}' is stored as {value.dtype}")
    if value.external or value.is_virtual or value.file.id != file.id:
        raise ValueError(f"'{variable.name}' lies in another file")


class _Store:
    """What Keras's loader asks for the data sets of one layer."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def get(self, path: str) -> Any:
        """Group of the layer at a path of attributes, empty where it has no variables."""
        if not path:
            return self._file["vars"]
        if path in self._file and "vars" in self._file[path]:
            return self._file[path]["vars"]
        return {}


class _Part(io.RawIOBase):
    """A range of a file, as a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._stream = path.open("rb")
        self._start, self._size, self._position = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n_bytes = max(0, min(len(view), self._size - self._position))
        self._stream.seek(self._start + self._position)
        n_read = self._stream.readinto(view[:n_bytes])
        self._position += n_read
        return n_read

    def close(self) -> None:
        self._stream.close()
        super().close()
