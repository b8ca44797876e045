"""The work of a sweep on each rank, of a network that rank 0 makes up: no TensorFlow, no files.

    mpirun -n 2 python -m benchmarks.rank_program '{"network": "tiny", "n_draws": 20, ...}'

The ranks, the plan, the loop and the sums are those of the sweep. Prints JSON on rank 0: seconds
from the moment all ranks are ready, seconds and peak memory of every rank, and the rate of the
matrix product on each while the others are at it too.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from bprune_hpc import config as configuration
from bprune_hpc import pruning, results
from bprune_hpc.comm import Comm
from bprune_hpc.comm import run as run_on_ranks
from bprune_hpc.contents import contents
from bprune_hpc.environment import Stopwatch, describe_run
from bprune_hpc.gathering import draw_sums_of, gather, lay_out
from bprune_hpc.posterior import Posterior
from bprune_hpc.problem import Problem, share

from . import overpruned

TINY_SIZES = (64, 32, 10)
_PEAK_SIZE = 1024
_PEAK_REPEATS = 20


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes
    ----------
    network : {"overpruned", "tiny"}
        The first is that of ``overpruned``; the second is dense, 64-32-10 or as ``sizes`` say.
    output : str
        A results file to be written; none if empty.
    """

    network: str
    n_examples: int
    n_draws: int
    thresholds: str
    sizes: tuple[int, ...] = TINY_SIZES
    output: str = ""

    def problem(self) -> Problem:
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
        return overpruned.dense_problem(Posterior(loc, scale), x, label)


def main(case: Case, comm: Comm) -> int:
    """Run on every rank."""
    problem = share(case.problem() if comm.is_root else None, comm)
    config = configuration.parse(
        ["--model_dir=none", f"--thresholds={case.thresholds}", f"--output={case.output or 'none'}",
         f"--num_monte_carlo={case.n_draws}"],
    )  # fmt: skip
    evaluator = problem.make_evaluator(1, 1)
    cuts = pruning.cuts(problem.posterior, config.grid_kind, config.grid, config.rule)
    parts = lay_out(config, problem, len(cuts), comm.size)
    watch = Stopwatch()
    comm.gather(0)
    comm.from_root(lambda: None)  # nobody begins before all are here
    start = time.perf_counter()
    findings = gather(comm, evaluator, parts, cuts, config, watch, lambda n: None)
    seconds = time.perf_counter() - start
    if case.output:
        environment = describe_run(comm, watch, 1, 1)
        comm.from_root(
            lambda: results.write(
                case.output,
                contents(
                    config, problem, cuts, findings, draw_sums_of(parts[0], findings), environment
                ),
            )
        )
    found = describe_run(comm, watch, 1, 1)
    comm.from_root(lambda: None)
    peaks = comm.gather(_product_rate()) or []
    if comm.is_root:
        said = {
            "seconds": seconds,
            "peak_gflops": [rate / 1e9 for rate in peaks],
            **{name: found[name] for name in found if name.endswith(("_seconds", "_mib"))},
        }
        sys.stdout.write(json.dumps(said) + "\n")
    return 0


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
