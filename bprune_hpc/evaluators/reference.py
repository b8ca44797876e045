"""Runs any graph of layers with NumPy, without the channels that pruning has made idle.

Short and plain: the oracle of what is faster, and what runs where there is no compiled module. What
each operation means is in ``graph.layer_ops``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Convolution, Dense, LayerGraph
from ..graph.layer_ops import run
from ..posterior.mean_field import Posterior
from .compact_graph import CompactGraph, compact_graph
from .compaction import Floats, Weights
from .interface import Noise, Pruned, Sampled, noise_batches_of

_CHUNK_BYTES = 2**24
"""Numbers of the largest tensor, for as many examples as go through all layers together."""


class ReferenceNetwork:
    """A graph of layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    graph : LayerGraph
    fixed : mapping of str to array
        Weights that have no posterior; without the graph's constants.
    n_threads : int
        Of this process.
    """

    def __init__(
        self, graph: LayerGraph, fixed: Mapping[str, NDArray[Any]], n_threads: int = 1
    ) -> None:
        self.n_threads = n_threads
        self._graph = graph
        self._fixed = {
            name: np.asarray(value, np.float32)
            for name, value in {**fixed, **graph.constants}.items()
        }

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        return PrunedReference(compact_graph(self._graph, Weights(table, self._fixed)))


@dataclass(frozen=True)
class PrunedReference:
    """A pruned network; see :class:`bprune_hpc.evaluators.interface.Pruned`."""

    network: CompactGraph

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        total = sum(math.prod(shape) for shape in self.network.shapes)
        for node, shape in zip(self.network.graph.nodes, self.network.shapes, strict=True):
            if isinstance(node.operation, Dense | Convolution):
                kernel = self.network.weights[node.operation.kernel].loc
                total += 2 * math.prod(shape[:-1]) * kernel.size
        return 1 + total

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return noise_batches_of(noises, 1)

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return _SampledReference(self.network, noises)


@dataclass(frozen=True)
class _SampledReference:
    network: CompactGraph
    noises: Sequence[Noise]

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[Floats]:
        examples = self.network.take(np.asarray(x, np.float32))
        largest = max([math.prod(shape) for shape in self.network.shapes], default=1)
        n_at_once = max(1, _CHUNK_BYTES // (4 * max(1, largest)))
        for noise_batch in noise_batches:
            yield np.stack(
                [
                    np.concatenate(
                        [
                            run(self.network.graph, weights, examples[start : start + n_at_once])
                            for start in range(0, len(examples), n_at_once)
                        ]
                    )
                    .reshape(len(examples), -1)
                    .T
                    for noise in self.noises[noise_batch]
                    for weights in drawn(self.network, noise)
                ]
            )


def drawn(network: CompactGraph, noise: Noise) -> list[dict[str, Floats]]:
    """All weights of a network in each draw of a noise, those made of constants included."""
    out = network.biases(noise)
    for name, weights in network.weights.items():
        values = np.empty((len(noise.draws), *weights.loc.shape), np.float32)
        weights.draws([noise], values)
        for of_draw, value in zip(out, values, strict=True):
            of_draw[name] = value
    return out
