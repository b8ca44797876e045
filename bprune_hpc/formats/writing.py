"""A directory of formats that is there whole, or not at all.

Each format writes below a hidden directory beside it and is checked there; the last step is a
rename.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, WriteError
from ..files.atomic_write import sync_tree
from ..job.progress import progress
from ..tensorflow_import import import_graphs
from . import card, size_and_speed
from .interface import Format, UnknownLayerError
from .measurement import measure
from .pruned_network import PrunedNetwork
from .reference import Reference
from .selection import check_possible

_OLD_S = 24 * 3600.0


def export(
    network: PrunedNetwork,
    directory: str | os.PathLike[str],
    formats: Sequence[Format],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a network in some formats, each checked in its own runtime; and the model card.

    Parameters
    ----------
    directory : path
        That is made; one that is there is refused, unless it is empty.
    overwrite : bool
        Whether an export that is there is replaced.

    Returns
    -------
    dict
        The model card.

    Raises
    ------
    ConfigError
        If a format cannot take the network, or the directory is there.
    ExportError
        If what was written does not give the network's numbers.
    WriteError
        If the file system refuses.
    """
    target = place_of(directory)
    check_place(target, overwrite)
    check_possible(network, formats)
    with (
        Reference(network) as reference,
        _in_its_place(target, overwrite) as building,
        progress(2 * len(formats) + 2, "export", True) as advance,
    ):
        checks = {}
        for one in formats:
            try:
                one.write(network, building)
            except UnknownLayerError as error:
                raise ConfigError(
                    f"--formats={one.name}: {network.source.path}: {error}"
                ) from error
            advance(1)
            checks[one.name] = {"place": one.place, **one.check(network, building, reference)}
            advance(1)
        measured = measure(network)
        advance(1)
        found = card.make(network, checks, measured)
        found["size_and_speed"] = size_and_speed.measure(network, formats, building, reference)
        advance(1)
        card.write(found, building)
    return found


def place_of(directory: str | os.PathLike[str]) -> Path:
    """The whole path of a directory, links and ``~`` followed."""
    return Path(os.path.realpath(os.path.expanduser(os.fspath(directory))))


def check_place(target: Path, overwrite: bool) -> None:
    """Raise ConfigError where a directory cannot be put at a path."""
    if not target.name:
        raise ConfigError(f"--to: {target} is no place for an export; name a new directory")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"--to: {target} is a file; name a new directory")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not (target / card.FILE_NAME).is_file():
        raise ConfigError(f"--to: {target} is there, and no export; name a new directory")
    if not overwrite:
        raise ConfigError(
            f"--to: {target} has an export already; pass --overwrite, or name a new directory"
        )


@contextlib.contextmanager
def _in_its_place(target: Path, overwrite: bool) -> Iterator[Path]:
    """A directory that takes the place of ``target`` at the end, or is gone."""
    _clean(target)
    building = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    old = building.with_suffix(".old")
    try:
        try:
            building.mkdir(parents=True)
            yield building
            sync_tree(building)
            check_place(target, overwrite)
            if target.exists():
                target.rename(old)
            building.rename(target)
        except (OSError, import_graphs().OpError) as error:
            if old.exists():
                old.rename(target)
            said = str(getattr(error, "strerror", None) or getattr(error, "message", error))
            if not isinstance(error, OSError) and str(building) not in said:
                raise  # TensorFlow names the file if that is what it cannot write
            reason = " ".join(said.partition(" [Op:")[0].rpartition(";")[2].split())[:200]
            raise WriteError(
                f"{target}: cannot be written ({reason}); what is there is as it was"
            ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _clean(target: Path) -> None:
    """Remove what killed exports to the same place have left, unless one may still be at work."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.part")
    for entry in target.parent.iterdir() if target.parent.is_dir() else ():
        with contextlib.suppress(OSError):
            if ours.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _OLD_S:
                shutil.rmtree(entry)
