"""Ends a process that waits too long, and says for whom it waits: a script that runs beside it.

For what cannot be watched from within, as MPI's start and end hold the interpreter. It goes with
the process that it watches, however that ends: its standard input is closed then. Who waits is
seen by these scripts themselves, of which each rank has one; who of the host's ranks does not,
by the variables that launchers give their processes. This file imports nothing of the package, so
that it starts at once: ``python -I -S alarm.py SECONDS PROCESS RANK_VARIABLE WHAT MESSAGE``.
"""

from __future__ import annotations

import os
import select
import signal
import sys

MARK = "ranks that have not come"
"""Stands in messages for who is missing."""

# By which a launch is told from others of the same host; all that are set have to be the same.
_LAUNCH = (
    "PMIX_NAMESPACE", "SLURM_JOB_ID", "SLURM_STEP_ID", "PBS_JOBID", "COBALT_JOBID", "PALS_APID",
    "ALPS_APP_ID", "HYDI_CONTROL_FD",
)  # fmt: skip
_MOST_NAMES = 5

Environ = dict[str, str]


def processes(proc: str = "/proc") -> dict[int, tuple[list[str], Environ]]:
    """Command line and environment of every process that may be looked at."""
    found = {}
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        texts = []
        try:
            for part in ("cmdline", "environ"):
                with open(f"{proc}/{name}/{part}", "rb") as file:
                    texts.append(file.read().decode(errors="replace").split("\0"))
        except OSError:
            continue
        command, variables = texts
        pairs = (variable.partition("=") for variable in variables)
        found[int(name)] = command, {key: value for key, _, value in pairs}
    return found


def missing(
    found: dict[int, tuple[list[str], Environ]], mine: Environ, rank_variable: str, what: str
) -> tuple[dict[int, int], int]:
    """Ranks of this host that do not wait, and how many do.

    Parameters
    ----------
    found : dict
        See :func:`processes`.
    mine : dict
        Environment of a process of the launch.
    what : str
        For what is waited.

    Returns
    -------
    dict of int to int
        Process of each rank that does not wait.
    int
        Number of ranks that do.
    """
    launch = {name: mine[name] for name in _LAUNCH if name in mine}
    waiting: set[int] = set()
    first: dict[int, int] = {}
    for process in sorted(found):
        command, environ = found[process]
        rank = environ.get(rank_variable, "")
        if not rank.isdecimal() or {key: environ.get(key) for key in launch} != launch:
            continue
        first.setdefault(int(rank), process)
        if len(command) > 7 and command[3].endswith("alarm.py") and command[7] == what:
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
        absent, n_waiting = missing(processes(), dict(os.environ), rank_variable, what)
        message = message.replace(MARK, who(absent, n_waiting, os.uname().nodename))
    finally:
        sys.stderr.write(message)
        sys.stderr.flush()
        os.kill(int(process), signal.SIGKILL)


if __name__ == "__main__":
    main()
