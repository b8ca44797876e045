"""No wait without an end: who has not come to where all ranks have to be, and then no more waiting.

A rank that hangs, is stopped, or whose host is gone would hold the others in a collective until
the job's limit. So every collective begins with a roll call by messages that can be waited for
with a time limit, and rank 0, which hears of all, names those it has not heard of.

What belongs here: waiting with a limit, and the message. What does not: the collectives themselves
(``mpi.comm``, which also makes the communicator that is used here).
"""

from __future__ import annotations

import faulthandler
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from ..errors import LaunchError
from . import watchdog as watchdog_script
from .launchers import LAUNCHERS, launcher

LIMIT_VARIABLE = "BPRUNE_WAIT_LIMIT_MIN"
DEFAULT_LIMIT_MIN = 30.0

_TAG = 7717
_TOKEN_BYTES = 256
_LONGEST_NAP_S = 0.01
# A longer step of the clock counts as this: a job that was suspended did not wait meanwhile.
_LONGEST_STEP_S = 1.0
_ABORT_S = 20.0


class Request(Protocol):
    """A message under way."""

    def Test(self) -> bool:
        """Whether it has arrived."""


def limit_s(environ: Mapping[str, str] = os.environ) -> float:
    """Longest wait for another rank, in seconds; infinite for 0.

    Raises
    ------
    LaunchError
        If the variable holds no number of minutes.
    """
    text = environ.get(LIMIT_VARIABLE, "").strip()
    try:
        minutes = float(text) if text else DEFAULT_LIMIT_MIN
    except ValueError:
        minutes = -1.0
    if not minutes >= 0:
        raise LaunchError(
            f"{LIMIT_VARIABLE}: {text!r} is not a time; give minutes, or 0 for no limit"
        )
    return 60 * minutes or math.inf


def still_missing(
    pending: Mapping[int, Request],
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[int]:
    """Wait until every message has come, or for so many seconds.

    Waiting sleeps, where MPI's own would spin and slow down ranks that share the core.

    Returns
    -------
    list of int
        Keys of those that have not come; empty if all have.
    """
    left = dict(pending)
    waited, nap, last = 0.0, 5e-5, clock()
    while True:
        left = {rank: request for rank, request in left.items() if not request.Test()}
        if not left or waited >= limit_s:
            return sorted(left)
        sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP_S)
        now = clock()
        waited, last = waited + min(now - last, _LONGEST_STEP_S), now


def start_watchdog(what: str, limit_s: float) -> subprocess.Popen[bytes] | None:
    """Start what ends this process, with a message, if it is not killed within the limit.

    A small process waits beside this one (``watchdog``), and goes with it, however that ends.

    Returns
    -------
    subprocess.Popen or None
        ``None`` where there is no limit.
    """
    if math.isinf(limit_s):
        return None
    name, _, rank = launcher() or ("", None, 0)
    rank_variable = next((variable for one, _, variable in LAUNCHERS if one == name), "")
    message = (
        f"error: {_name(rank)} has waited {_minutes(limit_s)} in {what} for "
        f"{watchdog_script.MARK}; "
        "look for hosts that are down and for processes that hang or have ended early; "
        f"{LIMIT_VARIABLE} sets the limit\n"
    )
    seconds = limit_s + _apart_s(rank)
    command = [
        sys.executable, "-I", "-S", watchdog_script.__file__, repr(seconds), str(os.getpid()),
        rank_variable, what, message,
    ]  # fmt: skip
    # The end of its standard input tells it that this process has gone.
    return subprocess.Popen(command, stdin=subprocess.PIPE)


@contextmanager
def watchdog(what: str, limit_s: float) -> Iterator[None]:
    """End this process, with a message, if the body takes longer (see :func:`start_watchdog`)."""
    waiting = start_watchdog(what, limit_s)
    try:
        yield
    finally:
        if waiting is not None:
            waiting.kill()
            waiting.communicate()


class Rendezvous:
    """Roll calls of the ranks of one communicator, with rank 0 as the one that hears of all.

    Parameters
    ----------
    world : mpi4py.MPI.Comm
        No other messages with this module's tag may be under way in it.
    limit_s : float
        How long rank 0 waits for one that is missing; the others wait half as long again.
    is_threaded : bool
        Whether two threads may be in MPI at a time.
    abort : callable
        Ends the job with a status.
    """

    def __init__(
        self, world: Any, limit_s: float, is_threaded: bool, abort: Callable[[int], None]
    ) -> None:
        self._world = world
        self._is_threaded = is_threaded
        self._rank, self._size = world.Get_rank(), world.Get_size()
        self._limit_s = limit_s
        self._abort = abort
        self._names = [f"rank {rank}" for rank in range(self._size)]
        self._inside: tuple[str, Sequence[int]] | None = None
        self._inbox = np.zeros((self._size, _TOKEN_BYTES), np.uint8)

    def call_the_roll(self) -> None:
        """Hear of every rank for the first time, and from which host; then watch what follows."""
        name = _name(self._rank)
        token = np.zeros(_TOKEN_BYTES, np.uint8)
        text = np.frombuffer(name.encode()[:_TOKEN_BYTES], np.uint8)
        token[: len(text)] = text
        self._meet("the start", range(self._size), token)
        for rank, heard in enumerate(self._inbox):
            if heard.any():
                self._names[rank] = bytes(heard).rstrip(b"\0").decode(errors="replace")
        self._names[self._rank] = name
        if self._size > 1 and not math.isinf(self._limit_s):
            threading.Thread(target=self._watch, name="waits", daemon=True).start()

    @contextmanager
    def all_at(self, what: str, members: Sequence[int] | None = None) -> Iterator[None]:
        """Begin the body, a collective, once every member has come to it.

        Parameters
        ----------
        what : str
            Name of the collective, for messages.
        members : sequence of int, optional
            Ranks that take part, rank 0 among them; default: all.
        """
        members = range(self._size) if members is None else members
        self._meet(what, members, np.zeros(_TOKEN_BYTES, np.uint8))
        with self.inside(what, members):
            yield

    @contextmanager
    def inside(self, what: str, members: Sequence[int] = ()) -> Iterator[None]:
        """Watch the body, a collective of all that begins without a roll call.

        Parameters
        ----------
        members : sequence of int, optional
            Ranks that have answered a roll call; without, a message can name nobody.
        """
        self._inside = what, members
        try:
            yield
        finally:
            self._inside = None

    def _meet(self, what: str, members: Sequence[int], token: np.ndarray) -> None:
        others = [rank for rank in members if rank != 0]
        if self._rank == 0:
            pending = {
                rank: self._world.Irecv(self._inbox[rank], source=rank, tag=_TAG) for rank in others
            }
            missing = still_missing(pending, self._limit_s)
            if missing:
                self._give_up(self._silent(missing, what))
            for rank in others:
                self._world.Send(token, dest=rank, tag=_TAG)
        elif others:
            self._world.Send(token, dest=0, tag=_TAG)
            pending = {0: self._world.Irecv(self._inbox[0], source=0, tag=_TAG)}
            if still_missing(pending, self._patience_s()):
                self._give_up(self._silent([0], what))

    def _patience_s(self) -> float:
        """Longer for those that do not hear of all."""
        if self._rank == 0:
            return self._limit_s
        return 1.5 * self._limit_s + _apart_s(self._rank)

    def _silent(self, missing: Sequence[int], what: str) -> str:
        return (
            f"not heard of for {_minutes(self._limit_s)}: "
            f"{', '.join(self._names[rank] for rank in missing)}; "
            f"rank {self._rank} waited for that at: {what}"
        )

    def _watch(self) -> None:
        """End the job when a collective that all have begun does not end."""
        last, current, inside_s = time.monotonic(), None, 0.0
        while True:
            time.sleep(min(1.0, self._limit_s / 4))
            now, inside = time.monotonic(), self._inside
            inside_s = inside_s + min(now - last, _LONGEST_STEP_S) if inside is current else 0.0
            last, current = now, inside
            if inside is None or inside_s < self._patience_s():
                continue
            what, members = inside
            if not members:
                self._give_up(
                    f"{self._names[self._rank]} waited {_minutes(self._limit_s)} at: {what}"
                )
            # Rank 0 would have named another; so it is thought to be the one itself.
            missing = [0]
            if self._rank == 0 and self._is_threaded:
                # Who has left this collective has announced itself for the next.
                others = [rank for rank in members if rank != 0]
                missing = [rank for rank in others if not self._world.Iprobe(rank, _TAG)]
            self._give_up(self._silent(missing, what))

    def _give_up(self, message: str) -> None:
        sys.stderr.write(
            f"error: {message}; a rank hangs or is stopped, or its host is gone; "
            f"{LIMIT_VARIABLE} sets the limit\n"
        )
        sys.stderr.flush()
        # MPI_Abort may itself wait for the host that is gone, and holds the interpreter.
        faulthandler.dump_traceback_later(_ABORT_S, exit=True)
        self._abort(1)


def _apart_s(rank: int) -> float:
    """By how much longer a rank waits than the one before it, so that one speaks for all."""
    return min(0.25 * rank, 60.0)


def _name(rank: int) -> str:
    return f"rank {rank} on {socket.gethostname()} (process {os.getpid()})"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.3g} min"
