"""What a person reads of a sweep: its table, figures, a web page.

    python -m bprune_hpc.report results/sweep.h5 --plot sweep.png

Made of a results file alone; needs no MPI and no TensorFlow.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=False)

from .config.argument_file import ArgumentParser
from .errors import ConfigError, ResultsError
from .mpi.comm import Comm, run
from .results.figure import AXES, PANELS, panels_of, plot
from .results.follow import follow
from .results.html_report import page
from .results.swept import comparison_fault, read_all
from .results.table_formats import as_csv, as_latex, as_markdown
from .streams import check_shown, show

logger = logging.getLogger(__name__)


def parser() -> ArgumentParser:
    """Flags of this command."""
    flags = ArgumentParser(
        prog="python -m bprune_hpc.report",
        description="Show the table of a sweep, and make figures, a web page and tables of it. "
        "Needs no MPI and no TensorFlow.",
    )
    flags.add_argument("file", nargs="+", help="results file of a sweep, or several")
    flags.add_argument(
        "--follow",
        action="store_true",
        help="show table and progress of one file while its sweep runs; Ctrl-C ends it",
    )
    figures = flags.add_argument_group("figures")
    figures.add_argument(
        "--plot",
        metavar="FILE",
        help="draw a figure: .pdf, .svg or .png; several results files are drawn over each other",
    )
    figures.add_argument(
        "--html", metavar="FILE", help="write a report of one results file as a web page"
    )
    figures.add_argument(
        "--panels", type=_names, metavar="LIST",
        help=f"panels to draw, of {', '.join(PANELS)} (default: all that the file has)",
    )  # fmt: skip
    figures.add_argument(
        "--x", choices=AXES, default=AXES[0], help="horizontal axis; default: %(default)s"
    )
    tables = flags.add_argument_group("tables")
    for name, what in (("csv", "every metric, in full precision"), ("latex", "booktabs"),
                       ("markdown", "for a README")):  # fmt: skip
        tables.add_argument(
            f"--{name}", metavar="FILE", help=f"write the table of one results file: {what}"
        )
    return flags


def report(comm: Comm, argv: Sequence[str]) -> int:
    """Print the table of each results file; draw and write what was asked for, on rank 0."""

    def on_root() -> None:
        arguments: Any = parser().parse(argv)
        for flag in ("follow", "html", "csv", "latex", "markdown"):
            if getattr(arguments, flag) and len(arguments.file) > 1:
                raise ConfigError(f"--{flag}: takes one results file; give one")
        if arguments.follow:
            follow(arguments.file[0])
        sweeps = read_all(arguments.file)
        tables = [sweep.table for sweep in sweeps]
        panels = panels_of(sweeps, arguments.panels)
        n_choices = sum(found.choice is not None for found in tables)
        if n_choices > 1:
            logger.warning(
                "%d choices are shown; each is tested again at 5 %% / %d, so that all hold "
                "together (a sweep does so with --n_comparisons)", n_choices, n_choices,
            )  # fmt: skip
        fault = comparison_fault(sweeps)
        if fault:
            logger.warning("these files cannot be compared: %s", fault)
        for path, found in zip(arguments.file, tables, strict=True):
            if len(tables) > 1:
                show(f"{path}:")
            found.show(n_choices)
        if arguments.plot:
            with _writing(arguments.plot, "drawn"):
                plot(arguments.plot, sweeps, panels, arguments.x)
        if arguments.html:
            with _writing(arguments.html):
                _write(arguments.html, page(sweeps[0], arguments.x, arguments.panels))
        for flag, text_of in _TABLES.items():
            path = getattr(arguments, flag)
            if path:
                with _writing(path):
                    _write(path, text_of(tables[0]))
        check_shown("the table is not whole")

    comm.from_root(on_root)
    return 0


_TABLES = {"csv": as_csv, "latex": as_latex, "markdown": as_markdown}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _writing(path: str, how: str = "written") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise ResultsError(f"{path}: cannot be {how}: {error}") from error
    logger.info("%s: %s", path, how)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.report``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: report(comm, arguments))


if __name__ == "__main__":
    startup.end(main)
