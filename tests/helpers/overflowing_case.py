"""A network that overflows float32 for some draws, at one threshold alone; swept on any ranks.

    mpirun -n 2 python tests/helpers/overflowing_case.py EVALUATOR OUTPUT [EVALUATOR OUTPUT ...]

Hidden unit 0 is kept shut by its bias. At the threshold at which that is pruned it opens, and
what it is multiplied with is near float32's largest number: at the mean still below, for some of
the draws beyond.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from bprune_hpc import sweep
from bprune_hpc.evaluators.selection import choose_evaluator
from bprune_hpc.metrics.tasks import Classification
from bprune_hpc.mpi.comm import Comm, run
from bprune_hpc.posterior.draws import standard_normal
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.runner import problem as problems
from bprune_hpc.runner.datasets import TEST_SET, Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.runner.problem import Problem
from tests.helpers.lifted_graphs import SHAPES, lifted

THRESHOLDS = (0.0, 1.0, 7.0, 30.0)
HOT = 2
"""Which of them fails."""
N_DRAWS = 24
FLAGS = [
    "--model_dir=hot", "--thresholds=0,1,7,30", f"--num_monte_carlo={N_DRAWS}", "--batch_size=8",
    "--max_nll_rise=5",
]  # fmt: skip


def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    with tf.name_scope("first"):
        hidden = tf.nn.relu(tf.matmul(x, w["d0"]) + w["e0"])
    with tf.name_scope("second"):
        return tf.matmul(hidden, w["d1"])


def problem(evaluator: str) -> Problem:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 16)).astype(np.float32)
    values = {name: rng.normal(size=SHAPES[name]).astype(np.float32) for name in ("d0", "e0", "d1")}
    scale = {name: np.abs(values[name]) / 20 for name in ("e0", "d1")}
    values["e0"][0], scale["e0"][0] = -1e3, 1e3 / 6
    highest = float((x @ values["d0"][:, 0]).max())
    values["d1"][0, 0] = 3e38 / highest
    scale["d1"][0, 0] = values["d1"][0, 0] / 10
    graph = lifted(build, (16,), {"e0", "d1"}, ["d0", "e0", "d1"])
    assert evaluator == "graph" or choose_evaluator("auto", graph) == evaluator
    network = Network(
        graph=graph,
        posterior=Posterior({name: values[name] for name in scale}, scale),
        fixed={"d0": values["d0"]},
        task=Classification(3),
        checkpoint="hot",
        sha256={},
        evaluator=evaluator,
    )
    return network, [Examples(TEST_SET, x, rng.integers(0, 3, 20))]


def hot_draws(seed: int = 0) -> list[int]:
    """Draws beyond float32's largest number, by plain arithmetic."""
    largest = float(np.finfo(np.float32).max)
    noise = [standard_normal(seed, "d1", pair, SHAPES["d1"])[0, 0] for pair in range(N_DRAWS // 2)]
    sizes = [3e38 * (1 + (-1) ** k * float(noise[k // 2]) / 10) for k in range(N_DRAWS)]
    assert all(abs(size / largest - 1) > 1e-4 for size in sizes)  # rounding decides nothing
    return [k for k, size in enumerate(sizes) if size > largest]


def load(config: Any, comm: Comm, *device: Any) -> Problem:
    """Stands for :func:`bprune_hpc.runner.problem.load`."""
    return problems.share(problem(config.evaluator) if comm.is_root else None, comm)


def main(comm: Comm) -> int:
    arguments = sys.argv[1:]
    for evaluator, output in zip(arguments[::2], arguments[1::2], strict=True):
        status = sweep.sweep(comm, [*FLAGS, f"--evaluator={evaluator}", f"--output={output}"])
        if status != sweep.FAILED:
            return 1
    return 0


if __name__ == "__main__":
    problems.load = load
    sys.exit(run(main))
