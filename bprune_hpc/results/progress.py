"""How far a results file is: whether its sweep is complete, and at how many thresholds it failed.

What belongs here: what the file says of its sweep as a whole, in numbers and in words. What does
not: the sweep's numbers (``results.table``), exit statuses (commands).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import ResultsError
from .file import open_results


@dataclass(frozen=True)
class Progress:
    """How far a results file is.

    Attributes
    ----------
    status : str
        ``complete`` or ``partial``.
    done, total : int
        Of the work: draws at each threshold, of each block of examples. 1 of 1 when complete; 0 of
        0 where a partial file does not say.
    n_failed : int
        Thresholds at which outputs were not finite.
    """

    status: str
    done: int
    total: int
    n_failed: int = 0

    @property
    def text(self) -> str:
        """In words: ``complete``, ``complete (2 thresholds failed)``, ``partial 120/200 cells``."""
        if self.status == "complete":
            return complete(self.n_failed)
        return f"{self.status} {self.done}/{self.total} cells" if self.total else self.status


def complete(n_failed: int) -> str:
    """What is done, in words, where so many thresholds failed."""
    plural = "s" if n_failed > 1 else ""
    return f"complete ({n_failed} threshold{plural} failed)" if n_failed else "complete"


def progress_of(path: str | os.PathLike[str]) -> Progress:
    """Read how far a sweep is.

    Raises
    ------
    ResultsError
        If there is no such file, it is damaged (DamagedError) or not a sweep's, or it says neither
        ``complete`` nor ``partial``.
    """
    with open_results(path) as file:
        attrs = dict(file.attrs)
        status = attrs.get("status")
        if status not in ("complete", "partial"):
            raise ResultsError(
                f"{path}: status is {status!r}, neither complete nor partial; run the sweep again"
            )
        n_all = 1 if status == "complete" else 0
        done, total = (int(attrs.get(name, n_all)) for name in ("n_cells_done", "n_cells"))
        return Progress(status, done, total, int(attrs.get("n_failed", 0)))
