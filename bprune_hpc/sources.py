"""Which code this is: digests of the package's sources, since a version number stands for many.

What belongs here: the standard library alone, since ``setup.py`` runs this file too, to give the
compiled module the digest of what it is built from. Comparing digests does not (``mpi.comm``,
``compiled``, ``results.identity``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

HOME = Path(__file__).resolve().parent
FLAGS = "_compiled_flags.txt"
"""File of the compiler's flags, one a line."""


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


def _sha256(files: Iterable[Path], home: Path) -> str:
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(home).as_posix(), path) for path in files):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
