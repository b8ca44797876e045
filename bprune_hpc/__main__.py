"""The one command, of which the others are parts.

    bprune --help
    mpirun -n 64 bprune sweep @ArgFilePrune.txt

``bprune NAME`` is ``python -m bprune_hpc NAME`` and ``python -m bprune_hpc.NAME``: the module of
that name is run, before which nothing is imported that is slow or makes threads.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__, streams
from .mpi.launchers import launcher

COMMANDS = {
    "sweep": "prune a network over a range of thresholds, on any number of ranks",
    "train": "train a mean-field Bayesian network, on any number of ranks",
    "inspect": "say what is in a checkpoint, or how far a results file is",
    "report": "print the table of a results file, and draw it",
    "export": "write the network of a threshold in files that others open",
    "jobs": "list the job scripts for Slurm, PBS and Cobalt, and copy them",
}
"""What there is, in the order of the help: a module of that name, with ``main`` and ``parser``."""

_USAGE = "usage: bprune COMMAND [ARGUMENT ...]"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``bprune`` and of ``python -m bprune_hpc``."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in COMMANDS:
        sys.argv = [sys.argv[0], *rest]
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
        return 0
    streams.keep()
    is_first = (launcher() or ("", 0, 0))[2] == 0  # of the processes of a launcher one speaks
    if name in ("-h", "--help", "--version"):
        if is_first:
            streams.show(f"bprune_hpc {__version__}" if name == "--version" else _help())
        return 0
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "see bprune --help"
    if is_first:
        sys.stderr.write(f"error: unknown command '{name}'; {hint}\n")
    return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            _USAGE,
            "",
            *(f"  {name:{width}}  {does}" for name, does in COMMANDS.items()),
            "",
            "bprune COMMAND --help has the arguments of each; bprune --version.",
        ]
    )


def completion() -> argparse.ArgumentParser:
    """All commands and their flags as one parser, of which ``shtab`` makes a completion.

    ``shtab --shell=bash bprune_hpc.__main__.completion`` prints it.
    """
    from shtab import DIRECTORY, FILE

    whole = argparse.ArgumentParser("bprune")
    whole.add_argument("--version", action="store_true", help="print the version")
    parts = whole.add_subparsers()
    for name, does in COMMANDS.items():
        parser: Any = importlib.import_module(f".{name}", __package__).parser()
        for action in parser._actions:
            if action.metavar in ("CASE", "FILE", "PATH") or action.dest == "file":
                action.complete = FILE
            elif action.metavar == "DIR":
                action.complete = DIRECTORY
        parts.add_parser(name, parents=[parser], add_help=False, help=does)
    return whole


if __name__ == "__main__":
    sys.exit(main())
