"""The evaluator for any architecture: the lifted graph, run once for each draw.

Nothing is left out, and nothing is shared between draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .evaluators import Noise, Pruned, Sampled, Weights, stacks_of
from .posterior import Posterior


class Network(Protocol):
    """The deterministic half of a Bayesian network."""

    def __call__(self, x: NDArray[Any], weights: Weights) -> NDArray[np.float32]:
        """Outputs, one row an example, of inputs under given mean-field weights."""


@dataclass(frozen=True)
class GraphEvaluator:
    """Runs a network as it is; nothing is left out, and nothing is shared between draws."""

    network: Network

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`Evaluator`."""
        return _PrunedGraph(self.network, table)


@dataclass(frozen=True)
class _PrunedGraph:
    network: Network
    table: Posterior

    @property
    def cost(self) -> int:
        return 1  # the same at every threshold, as nothing is left out

    def stacks(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        return stacks_of(noises, 1)

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        weights = [weights_of(self.table, noise) for noise in noises]
        return _SampledGraph(self.network, weights)


@dataclass(frozen=True)
class _SampledGraph:
    network: Network
    weights: Sequence[Sequence[Weights]]

    def outputs(self, x: NDArray[Any], stacks: Sequence[slice]) -> Iterator[NDArray[np.float32]]:
        for stack in stacks:
            rows = [
                self.network(x, weights).reshape(len(x), -1)
                for of_noise in self.weights[stack]
                for weights in of_noise
            ]
            yield np.stack([outputs.T for outputs in rows])


def weights_of(table: Posterior, noise: Noise) -> list[Weights]:
    """Weights of each draw: ``loc + sign * scale * noise``."""
    if noise.values is None:
        return [table.loc]
    deviation = {name: scale * noise.values[name] for name, scale in table.scale.items()}
    return [
        {name: loc + np.float32(draw.sign) * deviation[name] for name, loc in table.loc.items()}
        for draw in noise.draws
    ]
