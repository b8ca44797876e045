"""SIGUSR1, SIGTERM and SIGINT as a request to stop in good order, seen even while MPI blocks.

A handler in Python runs when the main thread is next in the interpreter, which a rank that waits
inside MPI is not; and what it raises there is lost if that thread is in a callback, as of a weak
reference. So the signals are blocked, and a thread of its own waits for them. Threads inherit what
is blocked; hence :func:`start` comes before NumPy, MPI and TensorFlow make theirs:

    from . import startup

    if __name__ == "__main__":
        startup.begin(saves=True)

What belongs here: that a signal came. What does not: when to stop for it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

logger = logging.getLogger(__name__)

CAUGHT = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

# `scancel` and a launcher that forwards may both deliver one and the same SIGTERM, a terminal and a
# launcher one and the same Ctrl-C.
_SAME_REQUEST_S = {int(signal.SIGTERM): 3.0, int(signal.SIGINT): 0.5}

_UNBLOCK = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, []); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class StopSignals:
    """Which stop signal this process has got.

    Attributes
    ----------
    seen : str or None
        Name of the first signal that came, as ``"SIGUSR1"``.
    """

    def __init__(self) -> None:
        self.seen: str | None = None
        self._is_started = False
        self._first: tuple[int, float] | None = None
        self._has_nothing_to_save = False

    def start(self) -> None:
        """Block the signals in this thread and all that come after it, and await them.

        Has to be called from the main thread; a second call does nothing.
        """
        if self._is_started:
            return
        self._is_started = True
        # A shell lets what it starts in the background ignore Ctrl-C.
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        caught = [number for number in CAUGHT if number != signal.SIGINT or not is_ignored]
        signal.pthread_sigmask(signal.SIG_BLOCK, caught)
        if not is_ignored:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(
            target=self._wait, args=(caught,), name="stop signals", daemon=True
        ).start()

    def save_nothing(self) -> None:
        """Let the first SIGTERM or SIGINT end the process, also one that has come already."""
        self._has_nothing_to_save = True
        if self._first is not None:
            _end_by(self._first[0])

    def note(self, signal_number: int, now: float) -> bool:
        """Take in a signal that came at ``now`` (seconds); return whether to end at once.

        The second SIGTERM or SIGINT ends the process, unless it comes so soon after the first that
        it is the same request on another way. SIGUSR1 only ever asks.
        """
        if self.seen is None:
            self.seen = signal.Signals(signal_number).name
        if signal_number not in _SAME_REQUEST_S:
            return False
        if self._first is None:
            self._first = signal_number, now
        is_another = now - self._first[1] > _SAME_REQUEST_S[signal_number]
        return is_another or self._has_nothing_to_save

    def _wait(self, caught: Sequence[signal.Signals]) -> None:
        while True:
            signal_number = signal.sigwait(caught)
            if self.note(signal_number, time.monotonic()):
                _end_by(signal_number)
            name = signal.Signals(signal_number).name
            more = ", or at once if it comes again" if signal_number in _SAME_REQUEST_S else ""
            logger.info("%s received: stopping after this stretch of work%s", name, more)


def _end_by(signal_number: int) -> None:
    """End this process by a signal, so that its status says by which."""
    # No handler is set, so that this has its usual effect.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal_number])
    os.kill(os.getpid(), signal_number)


signals = StopSignals()
"""Those of this process; nothing is caught before :func:`start`."""


def start() -> StopSignals:
    """Catch the stop signals of this process from now on; give what tells of them."""
    signals.start()
    return signals


def do_not_catch() -> None:
    """Let SIGINT end this process as SIGTERM does: for a command that has nothing to save."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def with_default_signals(command: Sequence[str]) -> list[str]:
    """Command line that runs ``command`` with no signal blocked: children inherit the mask."""
    return [sys.executable, "-I", "-S", "-c", _UNBLOCK, *command]
