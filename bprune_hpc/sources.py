"""Which code this is, and where what comes with it stands: the package's own files.

A version number stands for many states of the code; a digest for one.

What belongs here: the standard library alone, since ``setup.py`` runs this file too, to give the
compiled module the digest of what it is built from. Comparing digests does not (``mpi.comm``,
``compiled``, ``results.identity``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

HOME = Path(__file__).resolve().parent
FLAGS = "_compiled_flags.txt"
"""File of the compiler's flags, one a line."""
SHIPPED = "shipped"
"""Directory of an installed package for what stands beside the package in a checkout."""
_READ_BYTES = 2**20


def shipped(name: str) -> Path:
    """Directory of what comes with the package, ``configs`` or ``jobs``.

    It stands beside the package in a checkout, and in it where that was installed from a wheel.
    """
    inside = HOME / SHIPPED / name
    return inside if inside.is_dir() else HOME.parent / name


def compiled_sources(home: Path = HOME) -> list[Path]:
    """What the compiled module is built from."""
    return sorted([*home.glob("_compiled*.[ch]"), *home.glob(FLAGS)])


def compiled_sha256(home: Path = HOME) -> str:
    """Digest of what the compiled module is built from; of its binary there are many."""
    return _sha256(compiled_sources(home), home)


@lru_cache
def package_sha256(home: Path = HOME) -> str:
    """Digest of all code of the package: modules, C sources and the compiler's flags."""
    modules = (
        path for path in home.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(home).parts)
    )  # fmt: skip
    return _sha256([*modules, *compiled_sources(home)], home)


def sha256_of(stream: BinaryIO) -> str:
    """Digest of a file from where it stands, in hexadecimal."""
    digest = hashlib.sha256()
    while part := stream.read(_READ_BYTES):
        digest.update(part)
    return digest.hexdigest()


def _sha256(files: Iterable[Path], home: Path) -> str:
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(home).as_posix(), path) for path in files):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
