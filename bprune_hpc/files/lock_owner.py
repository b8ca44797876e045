"""Who holds a lock: a process on a host, and whether it is still there.

What belongs here: naming a process so that it can be told from all others, and looking for it.
What does not: the lock itself (``files.lock``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

LEAST_SILENCE_S = 60.0
"""A owner on a host that was restarted is taken to be gone after this much silence, s."""

_PROC = Path("/proc")
_TOKEN = re.compile("[0-9a-f-]+")


@dataclass(frozen=True)
class LockOwner:
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
    def me(cls) -> LockOwner:
        """This process."""
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            boot=_read(_PROC / "sys/kernel/random/boot_id"),
            pid_namespace=_link(_PROC / "self/ns/pid"),
            pid=os.getpid(),
            started=started_at(os.getpid()) or 0,
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
        )

    @classmethod
    def from_text(cls, text: bytes, token: str) -> LockOwner:
        """Whom a lock names; somebody unknown, with a token, if that makes no sense."""
        try:
            found = cls(**json.loads(text))
            kinds = {name: type(value) for name, value in asdict(found).items()}
        except (ValueError, TypeError, RecursionError):  # not written yet, cut short, garbage
            pass
        else:
            if kinds == _KINDS and _TOKEN.fullmatch(found.token):
                return found
        return cls(token, "an unknown host", "", "", 0, 0, "an unknown time")

    def to_text(self) -> bytes:
        """What a lock says of its owner."""
        return json.dumps(asdict(self)).encode()

    def is_gone(self, silence_s: float, timeout_s: float) -> bool:
        """Whether it can hold no lock any more.

        Parameters
        ----------
        silence_s : float
            Time since it renewed its lock.
        timeout_s : float
            Silence after which a owner that cannot be looked for is taken to be gone.
        """
        here = LockOwner.me()
        if self.is_at(here):
            is_there = _is_there(self.pid, self.started)
            return silence_s > timeout_s if is_there is None else not is_there
        if self.host == here.host and self.boot != here.boot:  # or another machine of that name
            return silence_s > min(LEAST_SILENCE_S, timeout_s)
        return silence_s > timeout_s

    def is_at(self, other: LockOwner) -> bool:
        """Whether the process number of one means the same to the other."""
        places = ((one.host, one.boot, one.pid_namespace) for one in (self, other))
        return len(set(places)) == 1

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


_KINDS = {name: int if name in ("pid", "started") else str for name in LockOwner.__annotations__}


def started_at(pid: int) -> int | None:
    """When a process began, in ticks since boot; None if none is seen, or it has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _is_there(pid: int, started: int) -> bool | None:
    """Whether a process that began at a time is still there; None where that is not shown."""
    if (_PROC / str(pid) / "stat").exists():
        return started_at(pid) == started
    # Many clusters hide the processes of others (hidepid), and not every system has /proc.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return None


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
