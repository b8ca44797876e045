"""What a person reads of a sweep: its table, and a figure.

    python -m bprune_hpc.report results/sweep.h5 --plot sweep.png

Made of a results file alone; needs no MPI and no TensorFlow.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=False)

from .config.argument_file import ArgumentParser
from .errors import ConfigError, ResultsError
from .mpi.comm import Comm, run
from .results.figure import plot
from .results.table import read_table
from .streams import check_shown, show

logger = logging.getLogger(__name__)


def parser() -> ArgumentParser:
    """Flags of the command."""
    root = ArgumentParser(prog="python -m bprune_hpc.report", description=__doc__)
    root.add_argument("file", nargs="+", help="results file of a sweep, or several")
    root.add_argument("--plot", metavar="FILE", help="figure to draw: .png, .pdf, .svg")
    return root


def report(comm: Comm, argv: Sequence[str]) -> int:
    """Print the table of each results file and draw a figure, on rank 0."""

    def on_root() -> None:
        arguments: Any = parser().parse(argv)
        tables = [read_table(path) for path in arguments.file]
        if arguments.plot and len(tables) > 1:
            raise ConfigError("--plot: draws one results file; give one")
        n_choices = sum(found.choice is not None for found in tables)
        if n_choices > 1:
            logger.warning(
                "%d choices are shown: each is made anew with the 5 %% at which one may be wrong "
                "divided by %d; say how many there are with --n_comparisons", n_choices, n_choices,
            )  # fmt: skip
        for path, found in zip(arguments.file, tables, strict=True):
            if len(tables) > 1:
                show(f"{path}:")
            found.show(n_choices)
        if arguments.plot:
            found = tables[0]
            try:
                plot(arguments.plot, found.pruned_fraction, found.metrics)
            except (OSError, ValueError, ImportError) as error:
                raise ResultsError(f"{arguments.plot}: cannot be drawn: {error}") from error
        check_shown("the table is not whole")

    comm.from_root(on_root)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.report``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: report(comm, arguments))


if __name__ == "__main__":
    startup.end(main)
