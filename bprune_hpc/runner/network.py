"""A network as a sweep takes it: a function of examples and weights, and what is known of these.

Reading one does not belong here (``runner.problem``), nor the examples that it is given
(``runner.datasets``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..evaluators.draw_noise import DrawNoise
from ..evaluators.interface import Evaluator
from ..evaluators.selection import make_evaluator
from ..graph.lifted import LiftedGraph
from ..metrics.tasks import Task
from ..posterior.mean_field import Posterior, Prior
from ..tensorflow_import import CPU, Device


@dataclass(frozen=True)
class Network:
    """A deterministic function, and the posterior of its weights.

    Attributes
    ----------
    graph : LiftedGraph
        The deterministic network.
    posterior : Posterior
    fixed : mapping of str to array
        Variables of the network that have no posterior.
    task : Task
        What the network is for.
    checkpoint : str
        Where the network came from.
    sha256 : mapping of str to str
        Of every file that was read, those of the examples too.
    evaluator : str
        What runs the network; see ``evaluators.selection``.
    draw_noise : str
        Which examples share the noise of a draw; see ``evaluators.draw_noise``.
    noise_block : int
        Examples that do, where it is by block; else 0.
    prior : mapping of str to Prior, or None
        Of every mean-field tensor, read from the graph; None where it is not needed.
    """

    graph: LiftedGraph
    posterior: Posterior
    fixed: Mapping[str, NDArray[Any]]
    task: Task
    checkpoint: str
    sha256: Mapping[str, str]
    evaluator: str = "graph"
    draw_noise: str = "shared"
    noise_block: int = 0
    prior: Mapping[str, Prior] | None = None

    def make_evaluator(self, n_intra: int, n_inter: int, device: Device = CPU) -> Evaluator:
        """What runs the network, on this rank."""
        return make_evaluator(
            self.evaluator, self.graph, self.fixed, n_intra, n_inter, device, self.draw_noise
        )

    def noise(self, seed: int) -> DrawNoise:
        """The noise of its draws."""
        return DrawNoise(self.draw_noise, self.noise_block, seed)
