"""Training steps in this process, without the command."""

from __future__ import annotations

from typing import Any

import numpy as np

from bprune_hpc.tensorflow_import import open_session
from bprune_hpc.training import graph
from tests.helpers.trainings import config

N_TRAIN, N_CLASSES = 40, 3
SHAPE = (8, 8)


class Steps:
    """A training's graph in a session of its own, with examples."""

    def __init__(
        self, *flags: str, rank: int = 0, n_ranks: int = 1, n_examples: int = 5,
        is_masked: bool = False,
    ) -> None:  # fmt: skip
        given = config("--width=2", "--hidden=6,4", "--posterior_scale_init=0.3", *flags)
        is_regression = given.task == "regression"
        self.config = given
        n_outputs = 1 if is_regression else N_CLASSES
        self.training = graph.build(given, SHAPE, n_outputs, N_TRAIN, rank, n_ranks, is_masked)
        self.session = open_session(self.training.graph)
        self.session.run(self.training.init)
        self.noise = graph.noise_of(self.training, given, rank)
        rng = np.random.default_rng(rank)
        self.x = rng.uniform(size=(n_examples, 64)).astype(np.float32)
        self.y: Any = rng.integers(0, N_CLASSES, n_examples)
        if is_regression:
            self.y = self.y.astype(np.float32)

    def feed(self, kl_factor: float) -> dict[Any, Any]:
        training = self.training
        flag = training.network.is_training
        fed = {training.inputs: self.x, training.labels: self.y, training.kl_factor: kl_factor}
        fed |= {} if flag is None else {flag: True}
        return fed | dict(zip(self.noise.fed, self.noise.next(len(self.x)), strict=True))

    def close(self) -> None:
        self.session.close()


def random_masks(training: graph.Training, share: float = 0.4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    locs = training.network.loc_variables.values()
    return {loc.op.name: rng.random(loc.shape.as_list()) < share for loc in locs}
