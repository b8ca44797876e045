"""A network that needs no TensorFlow, put in the place of a real one in whole sweeps.

Jobs start in half a second with it, so that many can be killed. All but the evaluator and the
reading of a case is the real thing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bprune_hpc.config.sweep_config import SweepConfig
from bprune_hpc.evaluators.graph import GraphEvaluator
from bprune_hpc.evaluators.interface import Evaluator
from bprune_hpc.evaluators.local_chain import LocalChain
from bprune_hpc.graph.layer_graph import Dense, Layer
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.metrics.tasks import Classification, Regression
from bprune_hpc.mpi.comm import Comm
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.posterior.pruning import pruning_masks
from bprune_hpc.results import identity
from bprune_hpc.runner import network, timing
from bprune_hpc.runner import problem as problems
from bprune_hpc.runner.datasets import OUT_OF_DISTRIBUTION, TEST_SET, TRAINING, Examples, lay_out
from bprune_hpc.runner.preparation import PreparedSweep
from bprune_hpc.runner.problem import Problem

N_FEATURES, N_CLASSES = 12, 4


class Network:
    """``x @ kernel``, and a standard deviation in the column behind it for a regression."""

    delay_s = 0.0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        pass

    def __call__(self, x: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        time.sleep(self.delay_s)
        out = (x[:, :, None] * weights["layer/kernel"]).sum(axis=1, dtype=np.float32)
        if out.shape[1] == 1:
            out = np.concatenate([out, np.full_like(out, 0.7)], axis=1)
        return out


def problem(config: SweepConfig, n_examples: int = 45) -> Problem:
    """A network and examples; ``--model_dir`` says of which kind: ``fake``, ``fake:regression``."""
    _, _, kind = config.model_dir.partition(":")
    rng = np.random.default_rng(7)
    n_outputs = 1 if kind == "regression" else N_CLASSES
    shape = (N_FEATURES, n_outputs)
    loc = rng.normal(0, 0.6, shape).astype(np.float32)
    scale = rng.uniform(0.1, 1.5, shape).astype(np.float32)
    x = rng.normal(size=(n_examples, N_FEATURES)).astype(np.float32)
    is_regression = kind == "regression"
    label = rng.normal(size=n_examples) if is_regression else rng.integers(0, 4, n_examples)
    examples = [Examples(TEST_SET, x, label)]
    if config.ood_dataset:
        examples.append(Examples(OUT_OF_DISTRIBUTION, x[:20] * 3))
    if config.elbo_dataset:
        examples.append(Examples(TRAINING, np.concatenate([x, x[:8]]) / 2, np.tile(label, 2)[:53]))
    return network.Network(
        graph=LiftedGraph(b"", "x:0", (None, N_FEATURES), "float32", "y:0", None, {}, {}),
        posterior=Posterior({"layer/kernel": loc}, {"layer/kernel": scale}),
        fixed={},
        task=Regression(None) if is_regression else Classification(N_CLASSES),
        checkpoint="fake",
        sha256={},
        draw_noise="shared" if config.draw_noise == "auto" else config.draw_noise,
        noise_block=config.noise_block or 0,
    ), examples


def prepared(config: SweepConfig, n_examples: int = 45, costs: Sequence[int] = ()) -> PreparedSweep:
    """A sweep of it that could begin."""
    of_sweep, examples = problem(config, n_examples)
    masks = pruning_masks(of_sweep.posterior, config.grid_kind, config.grid, config.rule())
    return PreparedSweep(
        config=config,
        network=of_sweep,
        datasets=lay_out(config, of_sweep.task, examples, len(masks)),
        masks=masks,
        evaluator=GraphEvaluator(Network()),
        costs=costs or [1] * len(masks),
        identity={"what": "a test"},
        environment={"cpu": ["one"]},
    )


def _evaluator(of_sweep: network.Network, *_: Any) -> Evaluator:
    if of_sweep.draw_noise == "per_example":
        return LocalChain([Layer(Dense("layer/kernel"))], {})
    return GraphEvaluator(Network())


def load(config: SweepConfig, comm: Comm, *device: Any) -> Problem:
    """Stands for :func:`bprune_hpc.runner.problem.load`."""
    return problems.share(problem(config) if comm.is_root else None, comm)


def install(
    set_attribute: Callable[[object, str, object], None] = setattr,
    round_s: float = 60.0,
    write_share: float = 0.02,
    delay_s: float = 0.0,
    replicate_by_replicate: bool = False,
) -> None:
    """Put the network in the place of real ones in this process, and set the pace.

    Parameters
    ----------
    set_attribute : callable
        That of ``monkeypatch``, where it is to end with a test.
    replicate_by_replicate : bool
        Whether a superstep of work is as short as can be, whatever there is time for.
    """
    set_attribute(problems, "load", load)
    set_attribute(network.Network, "make_evaluator", _evaluator)
    set_attribute(identity, "graph_sha256", lambda lifted: "fake")
    set_attribute(timing, "ROUND_S", round_s)
    set_attribute(timing, "FIRST_ROUND_S", round_s)
    set_attribute(timing, "WRITE_SHARE", write_share)
    set_attribute(Network, "delay_s", delay_s)
    if replicate_by_replicate:
        set_attribute(timing.Timing, "n_items", lambda self: None)
