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
from .errors import ResultsError
from .mpi.comm import Comm, run
from .results.figure import plot
from .results.table import read_findings
from .streams import check_shown

logger = logging.getLogger(__name__)


def report(comm: Comm, argv: Sequence[str]) -> int:
    """Print the table of a results file and draw its figure, on rank 0."""
    parser = ArgumentParser(prog="python -m bprune_hpc.report", description=__doc__)
    parser.add_argument("file", help="results file of a sweep")
    parser.add_argument("--plot", metavar="FILE", help="figure to draw: .png, .pdf, .svg")

    def on_root() -> None:
        arguments: Any = parser.parse(argv)
        found = read_findings(arguments.file)
        found.show()
        if arguments.plot:
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
