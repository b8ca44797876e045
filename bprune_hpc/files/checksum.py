"""The digest of a results file, in the 512 bytes that HDF5 leaves to users at its head.

It is checked before the HDF5 library sees the file, since damaged metadata can crash the library,
and it is renamed with the file. What goes into the file is not known here.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from ..errors import DamagedError, ResultsError

BLOCK_BYTES = 512
"""Where HDF5 first looks for its signature behind a user block."""

AGAIN = "run the sweep with --overwrite"
"""What to do about a damaged file."""

_MAGIC = "bprune_hpc results"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PIECE_BYTES = 2**24


def header(image: bytes | memoryview, schema: str) -> bytes:
    """What stands before the bytes of an HDF5 file: a text of 512 bytes.

    Parameters
    ----------
    image : bytes
        All that follows.
    schema : str
    """
    return _text(schema, len(image), hashlib.sha256(image).hexdigest())


def check(file: BinaryIO, path: str | os.PathLike[str], schema: str) -> None:
    """Read a file through and compare it with its digest.

    Parameters
    ----------
    file : binary file
        Read from its beginning, and left there.
    path : path
        For messages.
    schema : str
        Of the files that are taken.

    Raises
    ------
    DamagedError
        If a bit is not as it was written.
    ResultsError
        If it is no results file at all, or one of another schema.
    """
    file.seek(0)
    block = file.read(BLOCK_BYTES)
    found, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE_BYTES):
        found.update(piece)
        size += len(piece)
    file.seek(0)
    if block == _text(schema, size, found.hexdigest()):
        return
    if block[: len(_HDF5_SIGNATURE)] == _HDF5_SIGNATURE:
        raise ResultsError(f"{path}: HDF5, but without a digest; give a sweep's results")
    other = block.decode("ascii", "replace").split("\n")[1:2]
    if other and block == _text(other[0].removeprefix("schema "), size, found.hexdigest()):
        raise ResultsError(f"{path}: {other[0]}, not '{schema}'; give a sweep's results")
    raise _damaged_or_foreign(block, path, schema)


def _damaged_or_foreign(block: bytes, path: str | os.PathLike[str], schema: str) -> ResultsError:
    # Where bits of the first line were lost, most of it still stands.
    magic = _MAGIC.encode()
    same = sum(a == b for a, b in zip(block, magic, strict=False))
    if same < len(magic) // 2 and block.strip(b"\0"):
        return ResultsError(f"{path}: not a readable results file; give a sweep's results")
    advice = _advice(path, schema)
    return DamagedError(f"{path}: damaged, its digest does not fit; {advice}{AGAIN}")


def _advice(path: str | os.PathLike[str], schema: str) -> str:
    """To go on from the earlier state, where there is one that is good."""
    target = Path(path).resolve()  # where a link leads to
    backup = target.with_name(f"{target.name}.bak")
    try:
        with backup.open("rb") as file:
            check(file, backup, schema)
    except (OSError, ResultsError):
        return ""
    name = backup.name if target.parent == Path(path).absolute().parent else backup
    return f"move {name}, an earlier state, to its place, or "


def _text(schema: str, size: int, sha256: str) -> bytes:
    lines = [_MAGIC, f"schema {schema}", f"bytes {size}", f"sha256 {sha256}"]
    return ("\n".join(lines) + "\n").encode().ljust(BLOCK_BYTES, b"\n")
