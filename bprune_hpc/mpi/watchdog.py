"""Ends a process that waits too long, and says for whom it waits: a script that runs beside it.

For what cannot be watched from within, as MPI's start and end hold the interpreter. It goes with
the process that it watches, however that ends: its standard input is closed then. Who waits is
seen by these scripts themselves, of which each rank has one; who of the host's ranks does not,
by the variables that launchers give their processes. This file imports nothing of the package, so
that it starts at once: ``python -I -S watchdog.py SECONDS PROCESS RANK_VARIABLE WHAT MESSAGE``.
"""

from __future__ import annotations

import os
import select
import signal
import sys

MARK = "ranks that have not come"
"""Stands in messages for who is missing."""

# By which launches of one daemon are told apart; all that are set have to be the same.
_LAUNCH = ("PMIX_NAMESPACE", "SLURM_JOB_ID", "SLURM_STEP_ID", "PALS_APID", "ALPS_APP_ID")
_MOST_NAMES = 5


class Process:
    """A process as the system shows it: who started it, how, with which variables."""

    def __init__(self, parent: int, command: list[str], environ: dict[str, str]) -> None:
        self.parent = parent
        self.command = command
        self.environ = environ


def processes(proc: str = "/proc") -> dict[int, Process]:
    """Every process that may be looked at, by its number."""
    found = {}
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        texts = []
        try:
            for part in ("stat", "cmdline", "environ"):
                with open(f"{proc}/{name}/{part}", "rb") as file:
                    texts.append(file.read().decode(errors="replace"))
        except OSError:
            continue
        stat, command, environ = texts
        pairs = (variable.partition("=") for variable in environ.split("\0"))
        found[int(name)] = Process(
            int(stat.rpartition(")")[2].split()[1]),
            command.split("\0"),
            {key: value for key, _, value in pairs},
        )
    return found


def missing(
    found: dict[int, Process], mine: int, rank_variable: str, what: str
) -> tuple[dict[int, int], int]:
    """Ranks of this host that do not wait, and how many do.

    Parameters
    ----------
    found : dict of int to Process
    mine : int
        A process of the launch that is looked at.
    what : str
        For what is waited.

    Returns
    -------
    dict of int to int
        Process of each rank that does not wait: the one that the launcher has started.
    int
        Number of ranks that do.
    """

    def of_launch(number: int) -> tuple[int, int, list[str | None]]:
        """The process that the launcher has started, its launcher, and the launch's names."""
        rank = found[number].environ.get(rank_variable)
        parent = found[number].parent
        while parent in found and found[parent].environ.get(rank_variable) == rank:
            number, parent = parent, found[parent].parent
        return number, parent, [found[number].environ.get(name) for name in _LAUNCH]

    if mine not in found:
        return {}, 0
    waiting: set[int] = set()
    first: dict[int, int] = {}
    for number, process in found.items():
        rank = process.environ.get(rank_variable, "")
        if not rank.isdecimal() or of_launch(number)[1:] != of_launch(mine)[1:]:
            continue
        first[int(rank)] = of_launch(number)[0]
        command = process.command
        if len(command) > 7 and command[3].endswith("watchdog.py") and command[7] == what:
            waiting.add(int(rank))
    return {rank: first[rank] for rank in first if rank not in waiting}, len(waiting)


def who(absent: dict[int, int], n_waiting: int, host: str) -> str:
    """In words."""
    if not absent:
        return f"{MARK} (all {n_waiting} of {host} are there)" if n_waiting else MARK
    names = [
        f"rank {rank} on {host} (process {process})"
        for rank, process in sorted(absent.items())[:_MOST_NAMES]
    ]
    more = f" and {len(absent) - _MOST_NAMES} more" if len(absent) > _MOST_NAMES else ""
    return ", ".join(names) + more


def main() -> None:
    """Wait, then end the process."""
    seconds, process, rank_variable, what, message = sys.argv[1:]
    if select.select([0], [], [], float(seconds))[0]:
        return
    try:
        absent, n_waiting = missing(processes(), int(process), rank_variable, what)
        message = message.replace(MARK, who(absent, n_waiting, os.uname().nodename))
    finally:
        try:
            os.write(2, message.encode())
        finally:
            os.kill(int(process), signal.SIGKILL)


if __name__ == "__main__":
    main()
