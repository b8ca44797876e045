"""What to type for a sweep on so many ranks: the line of each launcher and scheduler.

The scripts that are submitted are those of ``jobs/``; machines that have one of their own, with
their cores and queues, are listed in ``machines.toml``.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

_STEP_S = 300
_SHARE = 1.25
"""Of the predicted time that is asked for: predictions are off by some."""
SMALL_S = 600
"""A sweep that takes no longer on the cores of one node is submitted to one."""
_START_S = 120
"""For starting Python on many nodes from a file system that is busy."""
NO_FILE = "MyArguments.txt"
"""Name of an argument file for arguments that stand in none."""


def time_to_ask_for(seconds: float, margin_s: float) -> int:
    """Limit of a job in s, for a sweep that is predicted to take so long.

    Parameters
    ----------
    margin_s : float
        How long before the limit a sweep stops.
    """
    return math.ceil((_SHARE * seconds + margin_s + _START_S) / _STEP_S) * _STEP_S


@dataclass(frozen=True)
class Request:
    """A sweep to be submitted.

    Attributes
    ----------
    arguments : tuple of str
        Of the sweep.
    output : str
    n_ranks, n_threads : int
        Threads of each rank.
    seconds : int
        To be asked for.
    n_cores : int
        Of a node.
    """

    arguments: tuple[str, ...]
    output: str
    n_ranks: int
    n_threads: int
    seconds: int
    n_cores: int

    @property
    def argument_file(self) -> str | None:
        """The one that says it all; None: there is none, and the scripts need one."""
        names = [argument[1:] for argument in self.arguments if argument.startswith("@")]
        return names[0] if len(self.arguments) == len(names) == 1 else None

    @property
    def variables(self) -> dict[str, str]:
        """What a job script is told in the environment."""
        return {"ARG_FILE": self.argument_file or NO_FILE, "OUTPUT": self.output}

    def placed(self, n_cores: int) -> tuple[int, int]:
        """Nodes, and ranks of each, at a core for each thread."""
        fitting = max(1, n_cores // self.n_threads)
        n_nodes = math.ceil(self.n_ranks / fitting)
        return n_nodes, math.ceil(self.n_ranks / n_nodes)


@dataclass(frozen=True)
class Lines:
    """What one launcher or scheduler is given.

    Attributes
    ----------
    title : str
    directives : tuple of str
        Lines of the script that are to be changed first.
    command : str
    """

    title: str
    command: str
    directives: tuple[str, ...] = ()


def all_lines(request: Request) -> list[Lines]:
    """The lines of every launcher and scheduler, and of the machines that are known."""
    general = [mpirun(request), slurm(request), srun(request), pbs(request)]
    return general + [on_machine(request, machine) for machine in machines()]


def machines() -> list[dict[str, Any]]:
    """The tables of ``machines.toml``."""
    text = resources.files(__package__).joinpath("machines.toml").read_text()
    found: list[dict[str, Any]] = tomllib.loads(text)["machine"]
    return found


def mpirun(request: Request) -> Lines:
    """Open MPI's launcher."""
    words = [
        "mpirun", "-n", str(request.n_ranks), "--map-by", f"slot:PE={request.n_threads}",
        "--bind-to", "core",
    ]  # fmt: skip
    return Lines("Open MPI", _line([*words, *_sweep(request)]))


def slurm(request: Request) -> Lines:
    """The script for Slurm."""
    n_nodes, per_node = request.placed(request.n_cores)
    variables = [f"{name}={shlex.quote(value)}" for name, value in request.variables.items()]
    words = [
        "sbatch", f"--nodes={n_nodes}", f"--ntasks-per-node={per_node}",
        f"--cpus-per-task={request.n_threads}", f"--time={clock(request.seconds)}",
        "jobs/slurm.sh",
    ]  # fmt: skip
    return Lines("Slurm", " ".join([*variables, _line(words)]))


def srun(request: Request) -> Lines:
    """Slurm's launcher, in a job that is there."""
    words = [
        "srun", "--mpi=pmix", f"--ntasks={request.n_ranks}", f"--cpus-per-task={request.n_threads}",
        "--cpu-bind=cores", "--kill-on-bad-exit=1",
    ]  # fmt: skip
    return Lines("Slurm, inside a job", _line([*words, *_sweep(request)]))


def pbs(request: Request) -> Lines:
    """The script for PBS with Open MPI."""
    n_nodes, per_node = request.placed(request.n_cores)
    variables = request.variables | {
        "WALLTIME": clock(request.seconds), "THREADS": str(request.n_threads)
    }  # fmt: skip
    return Lines(
        "PBS",
        _qsub_v(variables, "jobs/pbs.sh"),
        (
            f"#PBS -l select={n_nodes}:ncpus={per_node * request.n_threads}:mpiprocs={per_node}",
            f"#PBS -l walltime={clock(request.seconds)}",
        ),
    )


def on_machine(request: Request, machine: Mapping[str, Any]) -> Lines:
    """The script of a machine, with the first of its queues that holds the job.

    Where none does, it is the last one, for as long as that allows: the sweep goes on in the next
    job.
    """
    n_nodes, _ = request.placed(machine["n_cores"])
    queues = machine["queues"]
    fitting = [
        queue for queue in queues
        if n_nodes <= queue["max_nodes"] and request.seconds <= 3600 * queue["max_hours"]
    ]  # fmt: skip
    queue = (fitting or queues[-1:])[0]
    n_nodes = max(n_nodes, queue.get("min_nodes", 1))
    seconds = max(request.seconds, 60 * queue.get("min_minutes", 0))
    seconds = min(seconds, 3600 * queue["max_hours"])
    variables = request.variables | {
        "RANKS_PER_NODE": str(math.ceil(request.n_ranks / n_nodes)),
        "THREADS": str(request.n_threads),
    }
    if machine["scheduler"] == "PBS":
        time = clock(seconds)
        command = _qsub_v(variables | {"WALLTIME": time}, machine["script"])
        directives = (
            f"#PBS -q {queue['name']}",
            f"#PBS -l select={n_nodes}:{machine['resources']}",
            f"#PBS -l walltime={time}",
        )
    else:
        text = ":".join(f"{name}={value}" for name, value in variables.items())
        command = _line(["qsub", "--env", text, machine["script"]])
        directives = (
            f"#COBALT -n {n_nodes}", f"#COBALT -t {seconds // 60}", f"#COBALT -q {queue['name']}"
        )  # fmt: skip
    return Lines(machine["title"], command, directives)


def clock(seconds: int) -> str:
    """``HH:MM:SS``."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _sweep(request: Request) -> list[str]:
    return ["python", "-m", "bprune_hpc.sweep", *request.arguments]


def _qsub_v(variables: dict[str, str], script: str) -> str:
    text = ",".join(f"{name}={value}" for name, value in variables.items())
    return _line(["qsub", "-v", text, script])


def _line(words: Sequence[str]) -> str:
    return shlex.join(words)
