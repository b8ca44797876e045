"""A file put in its place so that at any moment there is the old one, or the new one whole.

Temporary name in the same directory, fsync, the old file kept as ``FILE.bak``, rename, fsync of
the directory. What is in the file is not known here, nor who may write it (``files.lock``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import ResultsError, WriteError

Signature = tuple[int, int, int]
"""Inode, size and time of change of a file: what tells whether it is still the same."""

_OLD_S = 3600.0

NO_LINKS = (
    errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EACCES,
    errno.EXDEV,
)  # fmt: skip
"""How file systems refuse hard links."""

_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EBADF)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before any work whether a results file can be put at a path; changes nothing.

    Put again and again, with what was there as ``FILE.bak``, and held by ``FILE.lock``.

    Raises
    ------
    ResultsError
        If its directory, or the nearest one above it, cannot be written, or what is at the path
        is a directory, a device, or protected from being written, or what is beside it cannot be
        replaced.
    """
    target = Path(path)
    if os.fspath(path).endswith(os.sep) or target.is_dir():
        raise ResultsError(f"{target}: is a directory; give a file name with --output")
    try:
        directory = resolved(target).parent
    except RuntimeError as error:  # links in a circle
        raise ResultsError(f"{target}: {error}; choose another --output or --data_dir") from error
    if target.exists() and not target.is_file():
        raise ResultsError(f"{target}: is not a regular file; choose another --output")
    if target.exists() and not target.stat().st_mode & 0o222:  # a new one could take its place
        raise ResultsError(
            f"{target}: is protected from being written; chmod u+w it, or choose another --output"
        )
    for name in (f"{target.name}{suffix}" for suffix in ("", ".bak", ".lock")):
        _check_replaceable(directory / name, target)
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.NamedTemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ResultsError(
            f"{target}: cannot be written ({error.strerror}); choose another --output or --data_dir"
        ) from error


def _check_replaceable(there: Path, target: Path) -> None:
    """Raise where a file cannot be put in the place of what is at a path, which may be nothing."""
    if there.is_dir() and not there.is_symlink():
        raise ResultsError(
            f"{there}: is a directory, where a sweep that writes {target.name} has to put a file; "
            "move it, or choose another --output"
        )
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        owner, directory = there.lstat().st_uid, there.parent.stat()
        # In such directories, as /tmp is one, files are replaced by their owners alone.
        is_protected = directory.st_mode & stat.S_ISVTX
        if is_protected and os.geteuid() not in (0, owner, directory.st_uid):
            raise ResultsError(
                f"{there}: is another user's, in a directory where only they can replace it; "
                "choose another --output"
            )


def signature(path: Path) -> Signature | None:
    """The signature of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def put(
    path: str | os.PathLike[str],
    pieces: Sequence[bytes | memoryview],
    keep: Signature | None = None,
    just_before: Callable[[], None] = lambda: None,
) -> Signature:
    """Write a file whole: what stood at the path stays until the new file is complete.

    Parameters
    ----------
    path : path
        A link stays a link.
    pieces : sequence of bytes or memoryview
        One after the other the contents.
    keep : Signature, optional
        Of a file that was found good: if it still stands at the path it becomes ``FILE.bak``.
    just_before : callable
        Called when all is ready; what it raises leaves the old file where it is.

    Returns
    -------
    Signature
        Of the new file.

    Raises
    ------
    WriteError
        If the file system refuses.
    """
    target = Path(path).resolve()
    try:
        with _temporary(target) as temporary:
            with temporary.open("xb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            just_before()
            if keep is not None and signature(target) == keep:
                _back_up(target)
            new = signature(temporary)
            temporary.replace(target)
            _sync_directory(target.parent)
    except OSError as error:
        raise WriteError(
            f"{target}: cannot be written ({error.strerror}); what is there is as it was; mend "
            "that, and run the same command again"
        ) from error
    assert new is not None
    return new


def resolved(path: Path) -> Path:
    """Where links lead to.

    Raises
    ------
    RuntimeError
        If they lead in a circle; from Python 3.13 on ``Path.resolve`` does not say so.
    """
    found = path.resolve()
    if found.is_symlink():
        raise RuntimeError(f"Symlink loop from '{path}'")
    return found


def clean(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of a file have left; only who has its lock may call this."""
    target = Path(path).resolve()
    name = re.escape(target.name)
    of_writers = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.part")
    of_takers = re.compile(rf"\.{name}\.lock\.[0-9a-f]{{16}}(\.next)?")  # some may be at it now
    for entry in target.parent.iterdir():
        with contextlib.suppress(OSError):
            is_old = time.time() - entry.lstat().st_mtime > _OLD_S
            if of_writers.fullmatch(entry.name) or (of_takers.fullmatch(entry.name) and is_old):
                entry.unlink()


@contextlib.contextmanager
def _temporary(target: Path):  # type: ignore[no-untyped-def]
    """A name beside ``target`` that is gone afterwards."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _back_up(target: Path) -> None:
    """Let ``FILE.bak`` be what ``FILE`` is; ``FILE`` stays."""
    with _temporary(target) as second:
        try:
            os.link(target, second)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            shutil.copyfile(target, second)
            with second.open("rb") as file:
                os.fsync(file.fileno())
        second.replace(target.with_name(f"{target.name}.bak"))


def sync_tree(directory: Path) -> None:
    """Make all files below a directory last, before it is given its name."""
    for at, _, names in os.walk(directory):
        for name in names:
            with (Path(at) / name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(at))


def _sync_directory(directory: Path) -> None:
    """Make a rename last, where the file system lets directories be synced."""
    try:
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
