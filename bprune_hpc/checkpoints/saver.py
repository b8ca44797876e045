"""Variables on disk: finds a Saver checkpoint (formats V2 and V1) and reads tensors from it.

What belongs here: file names, reading, and saying in one line what is damaged. What does not:
which variables a network needs (``graph.lifting``) and what they mean (``checkpoints.case``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, damage
from ..sources import sha256_of
from ..tensorflow_import import import_graphs
from .saver_index import check_stored, declared

_SUFFIX = re.compile(r"\.(meta|index|data-\d{5}-of-\d{5})$")
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")
_STEP = re.compile(r"-(\d+)$")


def find_checkpoint(
    model_dir: str | Path, model_ckpt: str | None = None, way: str = "pass --model_ckpt=NAME"
) -> Path:
    """Path of a checkpoint without the suffixes of its files.

    Parameters
    ----------
    model_dir : path
        Directory of the case.
    model_ckpt : str, optional
        ``model.ckpt-N``, also with ``.meta`` or ``.index``. Without it: the newest one in the file
        ``checkpoint``, of which only the base name counts (directories move); without that file
        the one with the highest step.
    way : str
        How the user names another one, for messages.

    Returns
    -------
    Path
        ``model_dir/model.ckpt-N``.

    Raises
    ------
    CheckpointError
        If the directory or the checkpoint is not there, or a shard of it is missing.
    """
    directory = Path(model_dir)
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory; check the path")
    prefixes = _prefixes(directory)
    if model_ckpt is not None:
        prefix, named_by = directory / _SUFFIX.sub("", model_ckpt), "--model_ckpt"
    elif (directory / "checkpoint").is_file():
        prefix, named_by = directory / _newest_name(directory / "checkpoint", way), "'checkpoint'"
    elif prefixes:
        return _checked(max(prefixes, key=lambda path: (step_of(path) or -1, path.name)))
    else:
        raise CheckpointError(f"{directory}: holds no checkpoint (*.index); check the path")
    if not _is_v2(prefix) and not prefix.is_file():
        found = ", ".join(path.name for path in prefixes) or "no checkpoint"
        shards = list(prefix.parent.glob(prefix.name + ".data-*"))
        finding = f"{prefix.name}.index is missing" if shards else f"no '{prefix.name}'"
        raise CheckpointError(
            f"{directory}: {finding} (named by {named_by}); found: {found}; {way}"
        )
    return _checked(prefix)


def step_of(prefix: Path) -> int | None:
    """Training step in a checkpoint's name (``model.ckpt-250`` gives 250), if it has one."""
    match = _STEP.search(prefix.name)
    return int(match.group(1)) if match else None


def checkpoint_files(prefix: Path) -> list[Path]:
    """Files of one checkpoint that exist: meta graph, index and shards, or the V1 file."""
    candidates = [prefix, prefix.with_name(prefix.name + ".meta")]
    candidates += [prefix.with_name(prefix.name + ".index"), *_shards(prefix)]
    return [path for path in candidates if path.is_file()]


def file_sha256(paths: Collection[Path]) -> dict[str, str]:
    """SHA-256 of each file, in hexadecimal, by its base name."""
    digests = {}
    for path in paths:
        with reading(path), path.open("rb") as stream:
            digests[path.name] = sha256_of(stream)
    return digests


class CheckpointReader:
    """Tensors of one checkpoint, read by name.

    Parameters
    ----------
    prefix : Path
        Without the suffixes of the files.

    Attributes
    ----------
    path : Path
        The prefix.
    types : dict of str to (tuple of int, str)
        Shape and NumPy type name of every tensor, by name, sorted.

    Raises
    ------
    CheckpointError
        If the index cannot be read.
    """

    def __init__(self, prefix: Path) -> None:
        self.path = prefix
        tensorflow = import_graphs()
        index = prefix.with_name(prefix.name + ".index") if _is_v2(prefix) else prefix
        with reading(index):
            self._declared = declared(index) if _is_v2(prefix) else {}
            self._reader = tensorflow.open_checkpoint(str(prefix))
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
            self.types = {
                name: (tuple(int(size) for size in shapes[name]), dtypes[name].name)
                for name in sorted(shapes)
            }

    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """Values of the named variables; no other tensor is read, and each one once.

        Raises
        ------
        CheckpointError
            If a name is absent, or what is stored under it is damaged.
        """
        absent = sorted(set(names) - self.types.keys())
        if absent:
            raise CheckpointError(
                f"{self.path.name}: lacks {', '.join(map(repr, absent[:5]))}"
                f"{' and others' if len(absent) > 5 else ''}, which the graph reads; "
                f"use the .meta file that was written with this checkpoint"
            )
        values = {}
        for name in dict.fromkeys(names):
            self._check(name)
            with reading(self.path, f" at '{name}'"):
                values[name] = np.asarray(self._reader.get_tensor(name))
        return values

    def read_bytes(self, name: str) -> bytes:
        """Value of a scalar string tensor."""
        return bytes(self.read_raw(name))

    def read_raw(self, name: str) -> Any:
        """Value of a tensor of any type, as TensorFlow's reader gives it."""
        self._check(name)
        with reading(self.path, f" at '{name}'"):
            return self._reader.get_tensor(name)

    def _check(self, name: str) -> None:
        if name in self._declared:
            check_stored(self.path, name, self._declared[name], _shards(self.path))


def read_variables(prefix: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Values of the named variables, as :meth:`CheckpointReader.read` gives them."""
    return CheckpointReader(prefix).read(names)


def read_meta_graph(prefix: Path) -> Any:
    """The MetaGraphDef next to a checkpoint.

    Raises
    ------
    CheckpointError
        If ``PREFIX.meta`` is missing or cannot be parsed.
    """
    path = prefix.with_name(prefix.name + ".meta")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; copy the meta graph that the Saver wrote with the checkpoint"
        )
    tensorflow = import_graphs()
    from google.protobuf.message import DecodeError

    with reading(path):
        data = path.read_bytes()
    try:
        meta = tensorflow.MetaGraphDef.FromString(data)
    except DecodeError:
        meta = None
    if meta is None or not meta.graph_def.node:
        raise CheckpointError(f"{path}: not a meta graph, or cut short; copy the file again")
    return meta


def _prefixes(directory: Path) -> list[Path]:
    return sorted(path.with_suffix("") for path in directory.glob("*.index"))


def _newest_name(listing: Path, way: str) -> str:
    with reading(listing):
        text = listing.read_text(errors="replace")
    match = re.search(r'^model_checkpoint_path:\s*"(.+)"\s*$', text, re.MULTILINE)
    if match is None:
        raise CheckpointError(f"{listing}: names no checkpoint; {way}")
    return re.split(r"[/\\]", match.group(1))[-1]


def _is_v2(prefix: Path) -> bool:
    return prefix.with_name(prefix.name + ".index").is_file()


def _shards(prefix: Path) -> list[Path]:
    return sorted(
        path for path in prefix.parent.glob(prefix.name + ".data-*") if _SHARD.search(path.name)
    )


def _checked(prefix: Path) -> Path:
    if not _is_v2(prefix):
        return prefix
    numbers = [match.groups() for path in _shards(prefix) if (match := _SHARD.search(path.name))]
    total = numbers[0][1] if numbers else "00001"
    present = {number for number, of in numbers if of == total}
    for shard in range(int(total)):
        if f"{shard:05d}" not in present:
            missing = f"{prefix}.data-{shard:05d}-of-{total}"
            raise CheckpointError(f"{missing}: missing shard; copy it next to the .index file")
    return prefix


@contextmanager
def reading(path: Path, where: str = "") -> Iterator[None]:
    """Say in one line that a file cannot be read, or is damaged at a place."""

    # TensorFlow's reader raises errors of its own as well as plain RuntimeError and ValueError.
    def refuse(error: Exception, reason: str) -> CheckpointError:
        if isinstance(error, OSError) and error.errno:
            reason = error.strerror or reason
            return CheckpointError(f"{path}: cannot be read: {reason}; check its permissions")
        return CheckpointError(
            f"{path}: damaged{where}: {reason}; copy the checkpoint's files again"
        )

    with damage(refuse):
        yield
