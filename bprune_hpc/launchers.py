"""By which launcher this process was started, as its own variables tell.

What belongs here: reading the environment. What does not: MPI (``comm``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# Size and rank as each launcher tells its processes, innermost launcher first: mpirun inside a
# Slurm step sets its own. None where the launcher does not tell the size.
LAUNCHERS = (
    ("Open MPI mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PALS mpiexec", None, "PALS_RANKID"),
    ("ALPS aprun", None, "ALPS_APP_PE"),
    ("PMI launcher", "PMI_SIZE", "PMI_RANK"),
    ("Slurm srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


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


def is_number(text: str) -> bool:
    """Whether this is a number without sign."""
    return text.isascii() and text.isdecimal()
