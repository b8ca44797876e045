"""Progress of a long loop: a bar on a terminal, a line now and then elsewhere, on rank 0 only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 30.0


@contextmanager
def progress(total: int, what: str, show: bool) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the number of steps just done.

    Parameters
    ----------
    total : int
        Steps in all.
    what : str
        What is being done, for the bar and the log.
    show : bool
        False on ranks that keep quiet.
    """
    if not show:
        yield lambda n: None
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit="cell", leave=False) as bar:
            yield lambda n: (bar.update(n), None)[1]
        return
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _LOG_EVERY_S and done < total:
            last = now
            left = (now - start) / done * (total - done)
            logger.info("%s: %.0f %%, about %.0f s left", what, 100 * done / total, left)

    yield advance
