"""By which launcher this process was started, as its own variables tell.

What belongs here: reading the environment, and what MPI is told by it. What does not: MPI itself
(``mpi.comm``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

# Size and rank as each launcher tells its processes, innermost launcher first: mpirun inside a
# Slurm step sets its own. None where the launcher does not tell the size.
LAUNCHERS = (
    ("Open MPI mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PALS mpiexec", None, "PALS_RANKID"),
    ("ALPS aprun", None, "ALPS_APP_PE"),
    ("PMI launcher", "PMI_SIZE", "PMI_RANK"),
    ("Slurm srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)

# Number of a process among those on its host. MPICH's launcher and PALS set these besides.
_LOCAL_RANKS = {
    "Open MPI mpirun": ("OMPI_COMM_WORLD_LOCAL_RANK",),
    "PALS mpiexec": ("PALS_LOCAL_RANKID",),
    "PMI launcher": ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
    "Slurm srun": ("SLURM_LOCALID",),
}


def launcher(environ: Mapping[str, str] = os.environ) -> tuple[str, int | None, int] | None:
    """Launcher of this process by its own variables: name, number of processes, rank.

    Returns
    -------
    tuple or None
        The number is ``None`` where the launcher does not tell; ``None`` for a process that was
        not started by a launcher.
    """
    for name, size_variable, rank_variable in LAUNCHERS:
        rank = environ.get(rank_variable, "")
        if not is_number(rank):
            continue
        if size_variable is None:
            return name, None, int(rank)
        if is_number(environ.get(size_variable, "")):
            return name, int(environ[size_variable]), int(rank)
    return None


def local_rank(environ: Mapping[str, str] = os.environ) -> int | None:
    """Number of this process among those on its host; None where its launcher does not tell."""
    started = launcher(environ)
    names = _LOCAL_RANKS.get(started[0], ()) if started else ()
    return next((int(environ[one]) for one in names if is_number(environ.get(one, ""))), None)


def is_number(text: str) -> bool:
    """Whether this is a number without sign."""
    return text.isascii() and text.isdecimal()


def leave_out_idle_network(environ: MutableMapping[str, str] = os.environ) -> None:
    """Spare a job on one host, whose ranks share memory, Open MPI's wait for a network.

    Its component ``ofi`` of the byte transfer layer sleeps for a second inside ``MPI_Init`` where
    it finds no device for it. What the user says of that layer stays.
    """
    size = environ.get("OMPI_COMM_WORLD_SIZE")
    if size and size == environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"):
        environ.setdefault("OMPI_MCA_btl", "^ofi")
