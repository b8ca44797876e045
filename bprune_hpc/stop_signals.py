"""SIGUSR1 and SIGTERM as a request to stop in good order, seen even while MPI blocks.

A handler in Python runs when the main thread is next in the interpreter, which a rank that waits
inside MPI is not. So both signals are blocked, and a thread of its own waits for them. Threads
inherit what is blocked; hence :func:`start` comes before NumPy, MPI and TensorFlow make theirs:

    from . import stop_signals

    if __name__ == "__main__":
        stop_signals.start()

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

CAUGHT = (signal.SIGUSR1, signal.SIGTERM)

# `scancel` and a launcher that forwards may both deliver one and the same SIGTERM.
_SAME_REQUEST_S = 3.0

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
        self._first_term: float | None = None

    def start(self) -> None:
        """Block the signals in this thread and all that come after it, and await them.

        Has to be called from the main thread; a second call does nothing.
        """
        if self._is_started:
            return
        self._is_started = True
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        threading.Thread(target=self._wait, name="stop signals", daemon=True).start()

    def note(self, signal_number: int, now: float) -> bool:
        """Take in a signal that came at ``now`` (seconds); return whether to end at once.

        The second SIGTERM ends the process, unless it comes so soon after the first that it is
        the same request on another way. SIGUSR1 only ever asks.
        """
        if self.seen is None:
            self.seen = signal.Signals(signal_number).name
        if signal_number != signal.SIGTERM:
            return False
        if self._first_term is None:
            self._first_term = now
        return now - self._first_term > _SAME_REQUEST_S

    def _wait(self) -> None:
        while True:
            signal_number = signal.sigwait(CAUGHT)
            if self.note(signal_number, time.monotonic()):
                # Nobody has set a handler, so that this has its usual effect, and the status
                # says what ended the process.
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                os.kill(os.getpid(), signal.SIGTERM)
            name = signal.Signals(signal_number).name
            logger.info("%s came: to stop after this stretch of work", name)


signals = StopSignals()
"""Those of this process; nothing is caught before :func:`start`."""


def start() -> StopSignals:
    """Catch the stop signals of this process from now on; give what tells of them."""
    signals.start()
    return signals


def with_default_signals(command: Sequence[str]) -> list[str]:
    """Command line that runs ``command`` with no signal blocked: children inherit the mask."""
    return [sys.executable, "-I", "-S", "-c", _UNBLOCK, *command]
