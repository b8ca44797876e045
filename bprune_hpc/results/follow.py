"""The table of a sweep that is running, on a terminal, until the sweep ends.

What belongs here: when to read the file again, and what is shown of it. What does not: what a table
says (``results.table``). The file is whole at any moment; it is read and never locked.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import ResultsError
from ..files.lock import is_held
from .progress import progress_of
from .table import read_table

EVERY_S = 1.0
"""How often the file is looked at, s."""

_SILENCE_S = 180.0
"""Silence after which a sweep on another host is taken to have ended, s."""


def follow(path: str) -> None:
    """Show a sweep's table and progress while its file grows, until the sweep ends, or Ctrl-C.

    What was shown is removed again; the caller prints the last table.

    Parameters
    ----------
    path : str
        Of the results file, which need not be there yet if a sweep is about to write it.

    Raises
    ------
    ResultsError
        If there is no such file, and no sweep that writes it; or it is not a sweep's.
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    bar = Bar(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
              TimeElapsedColumn())  # fmt: skip
    task = bar.add_task("waiting for the first results", total=None)
    console = Console(highlight=False)
    seen = None
    with _interrupts() as interrupts, Live(bar, console=console, transient=True) as live:
        while not interrupts:
            goes_on = is_held(path, _SILENCE_S)  # asked first: the last write comes before the end
            now = _signature(path)
            if now is None and not goes_on:
                raise ResultsError(f"{path}: no such file, and no sweep writes it; start one first")
            if now is not None and now != seen:
                seen, found, progress = now, read_table(path), progress_of(path)
                said = f"{progress.status}, {time.strftime('%H:%M:%S')}"
                bar.update(task, total=progress.total, completed=progress.done, description=said)
                lines = "\n".join([found.text, *found.remarks])
                live.update(Group(Text(lines, no_wrap=True, overflow="crop"), bar), refresh=True)
            if not goes_on:
                return
            time.sleep(EVERY_S)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect each Ctrl-C in place of ending the process: the terminal has to be put in order.

    An exception would be lost, or taken for a damaged file, where HDF5 reads through Python.
    """
    found: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: found.append(number))
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)


def _signature(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
