"""A sweep of a network that rank 0 makes up: no TensorFlow on any rank, and no files but results.

    mpirun -n 2 python -m benchmarks.rank_program '{"network": "tiny", "n_draws": 20, ...}'

All but the network and its examples is the command's own: plan, rounds, sums, writes. Prints JSON
on rank 0: seconds from the moment all ranks are ready until all work is done, what ``/run`` says of
each rank, and the rate of the matrix product on each while the others are at it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc.config.sweep_config import SweepConfig
from bprune_hpc.mpi.comm import Comm
from bprune_hpc.mpi.comm import run as run_on_ranks
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.results import identity
from bprune_hpc.results.file import open_results
from bprune_hpc.runner import loop
from bprune_hpc.runner import problem as problems
from bprune_hpc.runner.datasets import TEST_SET, Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.runner.problem import Problem

from . import overpruned

TINY_SIZES = (64, 32, 10)
_PEAK_SIZE = 1024
_PEAK_REPEATS = 20

sweeps: Any = import_module("bprune_hpc.sweep")


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes
    ----------
    network : {"overpruned", "tiny"}
        The first is that of ``overpruned``; the second is dense, 64-32-10 or as ``sizes`` say.
    """

    network: str
    n_examples: int
    n_draws: int
    thresholds: str
    sizes: tuple[int, ...] = TINY_SIZES

    def problem(self) -> tuple[Network, Examples]:
        """The network and its examples."""
        if self.network == "overpruned":
            return overpruned.problem(self.n_examples)
        rng = np.random.default_rng(0)
        loc = {
            f"kernel{layer}": rng.normal(0, 0.3, shape).astype(np.float32)
            for layer, shape in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        }
        scale = {name: np.full_like(value, 0.1) for name, value in loc.items()}
        x = rng.random((self.n_examples, self.sizes[0]), dtype=np.float32)
        label = rng.integers(0, self.sizes[-1], self.n_examples)
        return overpruned.dense_network(Posterior(loc, scale)), Examples(TEST_SET, x, label)


def main(case: Case, comm: Comm) -> int:
    """Run on every rank."""
    problem = None
    if comm.is_root:
        network, test = case.problem()
        problem = network, [test]
    arguments = [f"--thresholds={case.thresholds}", f"--num_monte_carlo={case.n_draws}"]
    found = sweep(problem, arguments, comm)
    peaks = comm.gather(_product_rate()) or []
    if comm.is_root:
        found["peak_gflops"] = [rate / 1e9 for rate in peaks]
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def sweep(problem: Problem | None, arguments: Sequence[str], comm: Comm) -> dict[str, Any]:
    """Run a sweep of a problem in memory; every rank calls this.

    Parameters
    ----------
    problem : Problem on rank 0, None elsewhere
    arguments : sequence of str
        Of the command, without network, data and output.

    Returns
    -------
    dict
        ``seconds`` until all draws are done; ``after_seconds``, until statistics and the file are,
        too; of ``/run``, lists with one entry a rank; ``nll_se`` and ``nll_rise_se``;
        ``sha256`` of all metrics. Of ranks other than 0, the first alone.
    """
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "sweep.h5"
        flags = ["--model_dir=none", f"--output={output}", *arguments]
        with _instead_of_files(problem) as seconds, contextlib.redirect_stdout(io.StringIO()):
            status = sweeps.sweep(comm, flags)
        if status:
            raise RuntimeError(f"the sweep ended with status {status}")
        taken, end = seconds
        found: dict[str, Any] = {"seconds": taken, "after_seconds": time.perf_counter() - end}
        if comm.is_root:
            with open_results(output) as file:
                run, metrics = file["run"], file["metrics"]
                found |= {
                    name: np.asarray(run[name]).tolist()
                    for name in run
                    if name.endswith(("_seconds", "_mib", "_share"))
                }
                found |= {f"{name}_se": metrics[f"{name}_se"][()].tolist() for name in _METRICS}
                values = b"".join(np.asarray(metrics[name]).tobytes() for name in sorted(metrics))
                found["sha256"] = hashlib.sha256(values).hexdigest()
        return found


_METRICS = ("nll", "nll_rise")


@contextlib.contextmanager
def _instead_of_files(problem: Problem | None) -> Iterator[list[float]]:
    """Give the sweep a problem where it reads one, and time its work from a common start.

    The list is how long that takes, and when it ends.
    """
    seconds: list[float] = []
    load, run, digest = problems.load, loop.run, identity.graph_sha256

    def share(_: SweepConfig, comm: Comm, *device: Any) -> Problem:
        return problems.share(problem, comm)

    def timed(comm: Comm, *arguments: Any) -> Any:
        comm.gather(0)
        comm.from_root(lambda: None)  # nobody begins before all are here
        start = time.perf_counter()
        outcome = run(comm, *arguments)
        end = time.perf_counter()
        seconds.extend([end - start, end])
        return outcome

    problems.load = share  # type: ignore[assignment]
    loop.run = timed  # type: ignore[assignment]
    identity.graph_sha256 = lambda lifted: ""  # there is no graph
    try:
        yield seconds
    finally:
        problems.load, loop.run, identity.graph_sha256 = load, run, digest


def _product_rate() -> float:
    left, right = np.random.default_rng(0).random((2, _PEAK_SIZE, _PEAK_SIZE), dtype=np.float32)
    seconds = []
    for _ in range(_PEAK_REPEATS):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * _PEAK_SIZE**3 / float(np.median(seconds))


if __name__ == "__main__":
    _case = Case(**json.loads(sys.argv[1]))
    _case = replace(_case, sizes=tuple(_case.sizes))
    sys.exit(run_on_ranks(lambda comm: main(_case, comm)))
