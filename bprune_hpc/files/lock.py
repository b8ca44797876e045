"""One writer a results file: ``FILE.lock``, on file systems without flock too.

The lock is a file that is linked into its place whole, which only one process can do, and whose
time of change its owner renews. It says who holds it, so that one whose owner is gone can be told
from one that is held, and is taken over by exactly one of those who try.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import LockError, WriteError
from .atomic_write import NO_LINKS
from .lock_owner import LockOwner

logger = logging.getLogger(__name__)

RENEW_S = 20.0
"""How often a owner renews its lock, s."""

_NAP_S = 0.01
_MOST_BYTES = 4096  # of a lock


class Lock:
    """A lock that is held; see :func:`hold`."""

    def __init__(self, path: Path, owner: LockOwner) -> None:
        self._path = path
        self._holder = owner
        self._released = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._renewer.start()

    def check(self) -> None:
        """Make sure that it is still held, just before something is written.

        Raises
        ------
        WriteError
            If another has taken it, or someone has removed it.
        """
        found = _owner_of(self._path)
        if found is None or found.token != self._holder.token:
            by = f"taken by {found}" if found else "removed"
            raise WriteError(
                f"{self._path}: was {by} while this job ran, which stops without writing"
            )
        os.utime(self._path)

    def release(self) -> None:
        """Give it back, if it is still held."""
        self._released.set()
        self._renewer.join()
        with contextlib.suppress(OSError):
            found = _owner_of(self._path)
            if found is not None and found.token == self._holder.token:
                self._path.unlink()

    def _renew(self) -> None:
        while not self._released.wait(RENEW_S):
            with contextlib.suppress(OSError):
                found = _owner_of(self._path)
                if found is not None and found.token == self._holder.token:
                    os.utime(self._path)


@contextlib.contextmanager
def hold(
    output: str | os.PathLike[str], timeout_s: float, flag: str = "--output"
) -> Iterator[Lock]:
    """Be the only one who writes a file or a directory, or fail.

    Parameters
    ----------
    output : path
        Of the file; two names of one file have one lock. Its directory is made, and removed
        again if nothing is in it at the end.
    timeout_s : float
        Silence after which a owner that cannot be looked for, as on another host, is taken to be
        gone; it is waited for.
    flag : str
        Where the user says what is written.

    Raises
    ------
    LockError
        If another holds it, or it cannot be told whether.
    """
    target = Path(output).resolve()
    made = _make_directory(target.parent)
    lock: Lock | None = None
    try:
        path = target.with_name(f"{target.name}.lock")
        owner = LockOwner.me()
        try:
            _acquire(path, owner, timeout_s, target, flag)
        except OSError as error:
            raise LockError(
                f"{path}: cannot be made or read ({error.strerror}); mend that, or choose another "
                f"{flag}"
            ) from error
        lock = Lock(path, owner)
        yield lock
    finally:
        if lock is not None:
            lock.release()
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()


def is_held(output: str | os.PathLike[str], timeout_s: float) -> bool:
    """Whether a job writes a file now, for who only reads it: nothing is written beside it.

    Parameters
    ----------
    output : path
        Of the file.
    timeout_s : float
        Silence after which an owner that cannot be looked for is taken to be gone.
    """
    target = Path(output).resolve()
    path = target.with_name(f"{target.name}.lock")
    try:
        owner, renewed = _owner_of(path), path.stat().st_mtime
    except FileNotFoundError:
        return False
    except OSError:  # it is there, and cannot be read
        return True
    return owner is not None and not owner.is_gone(time.time() - renewed, timeout_s)


def _acquire(path: Path, owner: LockOwner, timeout_s: float, target: Path, flag: str) -> None:
    give_up = time.monotonic() + timeout_s + 2 * RENEW_S
    last_seen: tuple[str, float] | None = None
    while not _create(path, owner):
        is_too_late = time.monotonic() > give_up
        held_by, renewal = _owner_of(path), _renewal(path)
        if held_by is None or renewal is None:
            if is_too_late:
                raise OSError(errno.EEXIST, "it comes and goes")
            time.sleep(_NAP_S)
            continue  # it has just been given back
        renewed, silence_s = renewal
        if not is_too_late and held_by.is_gone(silence_s, timeout_s):
            if _take_over(path, held_by, owner, timeout_s):
                logger.warning("%s: taken over from %s, which is gone", path, held_by)
                return
            time.sleep(_NAP_S)
            continue
        is_renewed = last_seen not in (None, (held_by.token, renewed))
        if held_by.is_at(owner) or is_renewed or is_too_late:
            raise LockError(
                f"{target}: is being written by {held_by}; wait for it, or choose another "
                f"{flag} (the lock is {path.name})"
            )
        if last_seen is None:
            logger.info(
                "%s: in use by %s; waiting to see whether that is still running", path, held_by
            )
        last_seen = held_by.token, renewed
        time.sleep(min(1.0, timeout_s / 4))


def _take_over(path: Path, gone: LockOwner, owner: LockOwner, timeout_s: float) -> bool:
    """Put a lock in the place of one whose owner is gone; False if another did.

    Who creates the file that is named after the lock's token, and only one can, may replace that
    lock and no later one. Should it be gone before it has, the same goes for its own token.
    """
    claims = [_claim(path, gone)]
    while not _create(claims[-1], owner):
        other, renewal = _owner_of(claims[-1]), _renewal(claims[-1])
        if other is None or renewal is None or not other.is_gone(renewal[1], timeout_s):
            return False
        claims.append(_claim(path, other))
    try:
        now = _owner_of(path)
        if now is None or now.token != gone.token:
            claims = claims[-1:]
            return False
        with _ready(path, owner) as ready:
            ready.replace(path)
        return True
    finally:
        for claim in claims:
            claim.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _claim(path: Path, gone: LockOwner) -> Path:
    return path.with_name(f".{path.name}.{gone.token}.next")


def _create(path: Path, owner: LockOwner) -> bool:
    """Create a file with its contents, unless there is one: exactly one of many succeeds."""
    with _ready(path, owner) as ready:
        try:
            os.link(ready, path)
            return True
        except FileExistsError:
            # A server of files that is asked twice finds what it has done already.
            return ready.stat().st_nlink > 1
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
    try:
        with path.open("xb") as file:
            try:
                file.write(owner.to_text())
                file.flush()
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return True
    except FileExistsError:
        return False


@contextlib.contextmanager
def _ready(path: Path, owner: LockOwner) -> Iterator[Path]:
    """A whole file beside a path that names a owner, to be put there."""
    ready = _beside(path)
    try:
        ready.write_bytes(owner.to_text())
        yield ready
    finally:
        with contextlib.suppress(OSError):
            ready.unlink(missing_ok=True)


def _owner_of(path: Path) -> LockOwner | None:
    """Who holds a lock; None if there is none.

    Raises
    ------
    OSError
        If there is one that cannot be read, or is no file: it may be held.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        text = file.read(_MOST_BYTES)
    return LockOwner.from_text(text, f"{found.st_ino:x}-{found.st_mtime_ns:x}")


def _renewal(path: Path) -> tuple[float, float] | None:
    """When a lock was renewed, and how many seconds ago by the clock of its file system."""
    probe = _beside(path)
    try:
        probe.touch()
        renewed = path.stat().st_mtime
        return renewed, probe.stat().st_mtime - renewed
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _make_directory(directory: Path) -> list[Path]:
    """Make a directory; give those that were made, the deepest first."""
    missing = []
    at = directory
    while not at.exists():
        missing.append(at)
        at = at.parent
    directory.mkdir(parents=True, exist_ok=True)
    return missing
