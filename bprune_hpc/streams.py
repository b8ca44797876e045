"""Standard input, output and error of a command: what cannot be written to them ends nothing.

Whoever reads may leave (``| head -1``), the disk of a log may be full, and a program may be started
with a stream closed. What it computes is worth more than what it says of that.

What belongs here: how text gets to a person. What does not: what it says.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
from typing import Any

from .errors import WriteError

logger = logging.getLogger(__name__)


class _Stream(io.FileIO):
    """A standard stream that takes everything and remembers what it could not pass on.

    Attributes
    ----------
    error : OSError or None
        Why something was not written.
    """

    def __init__(self, descriptor: int, is_missing: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._is_missing = is_missing
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, if possible."""
        if self._is_missing:
            self.error = OSError(errno.EBADF, "it is closed")
            return len(data)
        while True:
            try:
                n_bytes = super().write(data)
            except OSError as error:
                self.error = error
                return len(data)
            if n_bytes is not None:
                return n_bytes
            # Another program, as a launcher, has set the pipe or terminal so that it does not wait.
            select.select([], [self], [])


def keep() -> None:
    """Let nothing that happens to standard output and standard error end this process.

    To be called before any file is opened: one that took the number of a standard stream that is
    closed would get what others write there. A second call does nothing, nor is a stream touched
    that a notebook or a test has put in place.
    """
    missing = open_missing()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        kept = io.TextIOWrapper(
            io.BufferedWriter(_Stream(descriptor, descriptor in missing)),
            encoding=getattr(stream, "encoding", None),
            errors=getattr(stream, "errors", None) or "backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, kept)


def open_missing() -> set[int]:
    """Open standard streams that are closed as an empty file, and give their numbers."""
    missing = set()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            missing.add(os.open(os.devnull, os.O_RDWR))  # takes the lowest number that is free
            os.set_inheritable(descriptor, True)
    return missing


def show(text: str) -> None:
    """Print, also where standard output cannot write "±"."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def check_shown(what: str, is_product: bool = True) -> None:
    """Say so if something that was printed has not come to standard output.

    Parameters
    ----------
    what : str
        What was printed, and where else it can be read.
    is_product : bool
        Whether it is all that the command is there for. A disk that is full fails such a command;
        a reader that has left, or a stream that was closed from the start, does not.

    Raises
    ------
    WriteError
        If it fails.
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, _Stream) else None
    if error is None:
        return
    message = f"standard output: cannot be written ({error.strerror}): {what}"
    if is_product and error.errno not in (errno.EPIPE, errno.EBADF):
        raise WriteError(message)
    logger.warning("%s", message)
