"""What a command does before all else, NumPy, MPI and TensorFlow, which are slow to import.

    from . import startup

    if __name__ == "__main__":
        startup.begin(saves=True)

    ...

    if __name__ == "__main__":
        startup.end(main)

What belongs here: what has to be in place before other modules are imported, and how the process
ends. What does not: what can wait for the ranks (``comm.run``).
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from .. import errors, streams
from . import signals


def begin(saves: bool) -> None:
    """Make ready the standard streams, signals, and the words for what cannot be imported.

    Parameters
    ----------
    saves : bool
        Whether the command asks for the stop signals, and saves what it has done; else the first
        one ends it.
    """
    gc.disable()  # until all is imported, which makes no garbage
    streams.keep()
    sys.excepthook = _tell
    if saves:
        signals.start()
    else:
        signals.do_not_catch()
        # Such a command multiplies no matrices. OpenBLAS would start a thread a core, and interrupt
        # the process where it cannot.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def end(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end the process with its status."""
    gc.enable()
    try:
        status = main()
    except SystemExit as leaving:
        _leave_if_short(leaving, leaving.code)
        raise
    sys.exit(status)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if errors.is_bug(error):
        traceback.print_exception(kind, error, trace)
    else:
        sys.stderr.write(f"error: {errors.message_of(error)}\n")
    _leave_if_short(error, 1)


def _leave_if_short(error: BaseException, status: int | str | None) -> None:
    """Do not wait at the end for threads that libraries could not start, as some do."""
    if errors.shortage(error) and isinstance(status, int):
        os._exit(status)
