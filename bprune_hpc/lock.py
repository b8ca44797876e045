"""One writer a results file: ``FILE.lock``, on file systems without flock too.

The lock is a file that is linked into its place whole, which only one process can do, and whose
time of change its holder renews. It says who holds it, so that one whose holder is gone can be told
from one that is held, and is taken over by exactly one of those who try.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import LockError, WriteError

logger = logging.getLogger(__name__)

RENEW_S = 20.0
"""How often a holder renews its lock, s."""
LEAST_SILENCE_S = 3 * RENEW_S
"""A holder on a host that was restarted is taken to be gone after this much silence, s."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    token : str
        Of this lock alone.
    host, boot, pid_namespace : str
        Where: a process number means nothing elsewhere, or after a restart.
    pid, started : int
        Process, and when it began (ticks since boot), since numbers are used again.
    since : str
    """

    token: str
    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: int
    since: str

    @classmethod
    def me(cls) -> Holder:
        """This process."""
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            boot=_read("/proc/sys/kernel/random/boot_id"),
            pid_namespace=_link("/proc/self/ns/pid"),
            pid=os.getpid(),
            started=_started(os.getpid()) or 0,
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
        )

    def is_gone(self, silence_s: float, timeout_s: float) -> bool:
        """Whether it can hold no lock any more.

        Parameters
        ----------
        silence_s : float
            Time since it renewed its lock.
        timeout_s : float
            Silence after which a holder elsewhere is taken to be gone.
        """
        here = Holder.me()
        if self.is_at(here):
            return _started(self.pid) != self.started
        if self.host == here.host and self.boot != here.boot:  # or another machine of that name
            return silence_s > min(LEAST_SILENCE_S, timeout_s)
        return silence_s > timeout_s

    def is_at(self, other: Holder) -> bool:
        """Whether the process number of one means the same to the other."""
        places = ((one.host, one.boot, one.pid_namespace) for one in (self, other))
        return len(set(places)) == 1

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """A lock that is held; see :func:`hold`."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path = path
        self._holder = holder
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
        found = _holder_of(self._path)
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
        found = _holder_of(self._path)
        if found is not None and found.token == self._holder.token:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _renew(self) -> None:
        while not self._released.wait(RENEW_S):
            with contextlib.suppress(OSError):
                found = _holder_of(self._path)
                if found is not None and found.token == self._holder.token:
                    os.utime(self._path)


@contextlib.contextmanager
def hold(output: str | os.PathLike[str], timeout_s: float) -> Iterator[Lock]:
    """Be the only one who writes a file, or fail.

    Parameters
    ----------
    output : path
        Of the file; two names of one file have one lock. Its directory is made, and removed
        again if nothing is in it at the end.
    timeout_s : float
        Silence after which a holder on another host is taken to be gone; it is waited for.

    Raises
    ------
    LockError
        If another holds it.
    """
    target = Path(output).resolve()
    made = _make_directory(target.parent)
    lock: Lock | None = None
    try:
        path = target.with_name(f"{target.name}.lock")
        holder = Holder.me()
        _acquire(path, holder, timeout_s, target)
        lock = Lock(path, holder)
        yield lock
    finally:
        if lock is not None:
            lock.release()
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _acquire(path: Path, holder: Holder, timeout_s: float, target: Path) -> None:
    text = json.dumps(asdict(holder)).encode()
    give_up = time.monotonic() + timeout_s + 2 * RENEW_S
    last_seen: tuple[str, float] | None = None
    while not _create(path, text):
        held_by, renewal = _holder_of(path), _renewal(path)
        if held_by is None or renewal is None:
            continue  # it has just been given back
        renewed, silence_s = renewal
        if held_by.is_gone(silence_s, timeout_s):
            if _take_over(path, held_by, text, timeout_s):
                logger.warning("%s: left by %s, which is gone: taken over", path, held_by)
                return
            continue
        is_renewed = last_seen not in (None, (held_by.token, renewed))
        if held_by.is_at(holder) or is_renewed or time.monotonic() > give_up:
            raise LockError(
                f"{target}: is being written by {held_by}; wait for it, or choose another "
                f"--output (the lock is {path.name})"
            )
        if last_seen is None:
            logger.info("%s: held by %s; waiting to see whether it is there", path, held_by)
        last_seen = held_by.token, renewed
        time.sleep(min(1.0, timeout_s / 4))


def _take_over(path: Path, gone: Holder, text: bytes, timeout_s: float) -> bool:
    """Put a lock in the place of one whose holder is gone; False if another did.

    Who creates the file that is named after the lock's token, and only one can, may replace that
    lock and no later one. Should it be gone before it has, the same goes for its own token.
    """
    claims = [_claim(path, gone)]
    while not _create(claims[-1], text):
        other, renewal = _holder_of(claims[-1]), _renewal(claims[-1])
        if other is None or renewal is None or not other.is_gone(renewal[1], timeout_s):
            time.sleep(0.01)
            return False
        claims.append(_claim(path, other))
    try:
        now = _holder_of(path)
        if now is None or now.token != gone.token:
            claims = claims[-1:]
            return False
        ready = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        ready.write_bytes(text)
        ready.replace(path)
        return True
    finally:
        for claim in claims:
            claim.unlink(missing_ok=True)


def _claim(path: Path, gone: Holder) -> Path:
    return path.with_name(f".{path.name}.{gone.token}.next")


def _create(path: Path, text: bytes) -> bool:
    """Create a file with its contents, unless there is one: exactly one of many succeeds."""
    ready = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    ready.write_bytes(text)
    try:
        os.link(ready, path)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    finally:
        ready.unlink(missing_ok=True)
    try:
        with path.open("xb") as file:
            file.write(text)
        return True
    except FileExistsError:
        return False


def _holder_of(path: Path) -> Holder | None:
    """Who holds a lock; None if there is none."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            text = file.read()
    except OSError:
        return None
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):  # not written yet, or cut short
        token = f"{found.st_ino:x}-{found.st_mtime_ns:x}"
        return Holder(token, "an unknown host", "", "", 0, 0, "an unknown time")


def _renewal(path: Path) -> tuple[float, float] | None:
    """When a lock was renewed, and how many seconds ago by the clock of its file system."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        probe.touch()
        renewed = path.stat().st_mtime
        return renewed, probe.stat().st_mtime - renewed
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _started(pid: int) -> int | None:
    """When a process began, in ticks since boot; None if there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _make_directory(directory: Path) -> list[Path]:
    """Make a directory; give those that were made, the deepest first."""
    missing = []
    at = directory
    while not at.exists():
        missing.append(at)
        at = at.parent
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
