"""The product's own numbers of a pruned network, which what was exported is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ExportError
from ..evaluators.graph import GraphEvaluator, GraphNetwork, weights_of
from ..evaluators.interface import Evaluator, Noise, Weights
from ..graph.layer_graph import Convolution, Dense
from ..metrics.tasks import Regression, Task
from ..posterior.draws import Draw, standard_normal
from ..posterior.mean_field import Posterior
from ..runner.batch_dependence import made_up_examples
from ..runner.prediction import (
    NormalPredictive,
    Predictive,
    Sampling,
    outputs_at,
    predict,
)
from .pruned_network import PrunedNetwork

_MOST_EXAMPLES = 64
TOLERANCE = 1e-6
"""Of outputs in float32, as a share of the largest of them, where layers are few."""


class Reference:
    """Runs the lifted graph of a pruned network, one draw after the other.

    Parameters
    ----------
    network : PrunedNetwork

    Attributes
    ----------
    x : array, shape (n_examples, ...)
        A few examples as the network takes them: of the evaluation data, else made up.
    """

    def __init__(self, network: PrunedNetwork) -> None:
        self._network = network
        self._function = GraphNetwork(
            network.unpruned.graph,
            network.fixed,
            *network.opening.threads,
            with_scale=with_scale(network.task),
        )
        self.x = _some_examples(network)

    def mean(self, x: NDArray[Any]) -> NDArray[Any]:
        """Outputs at the pruned posterior's mean, shape (n_examples, n_outputs).

        Of a Normal its means, and after them its standard deviations.
        """
        network = self._network
        return outputs_of_draws(self._function, network.posterior, network.sampling, x, [None])[0]

    def sample(self, x: NDArray[Any], draws: Sequence[int]) -> NDArray[Any]:
        """Outputs of some draws of the sweep, shape (n_draws, n_examples, n_outputs).

        Parameters
        ----------
        draws : sequence of int
            Their indices along the draw dimension of the results.
        """
        network = self._network
        return outputs_of_draws(self._function, network.posterior, network.sampling, x, draws)

    def predict(self, x: NDArray[Any], n_draws: int | None = None) -> Predictive | NormalPredictive:
        """What the pruned posterior predicts, with the draws and the noise of the sweep."""
        kind, block = self._network.draw_noise
        pruned = replace(self._network.pruned, draw_noise=kind, noise_block=block)
        sampling = self._network.sampling
        sampling = replace(
            sampling,
            n_draws=n_draws or sampling.n_draws,
            batch_size=pruned.noise(sampling.seed).batch_size(sampling.batch_size),
        )
        evaluator: Evaluator = GraphEvaluator(self._function)
        if kind == "per_example":
            evaluator = pruned.make_evaluator(*self._network.opening.threads)
        return predict(pruned, evaluator, self._function, x, None, sampling)

    @cached_property
    def mean_outputs(self) -> NDArray[Any]:
        """Of ``x``; see :meth:`mean`."""
        return self.mean(self.x)

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._function.close()


def with_scale(task: Task) -> bool:
    """Whether a network's outputs are means, and after them standard deviations."""
    return isinstance(task, Regression) and task.noise_scale is None


def outputs_of_draws(
    function: GraphNetwork,
    posterior: Posterior,
    sampling: Sampling,
    x: NDArray[Any],
    draws: Sequence[int | None],
) -> NDArray[Any]:
    """Outputs of some draws of a sweep, shape (n_draws, n_examples, n_outputs).

    Parameters
    ----------
    draws : sequence of int or None
        Indices along the draw dimension of the results; None for the posterior mean.
    """
    outputs = []
    for index in draws:
        weights: Weights = posterior.loc
        if index is not None:
            is_paired = sampling.pairing != "none"
            noise_of = index // 2 if is_paired else index
            sign = -1 if is_paired and index % 2 else 1
            values = {
                name: standard_normal(sampling.seed, name, noise_of, scale.shape)
                for name, scale in posterior.scale.items()
            }
            noise = Noise(noise_of, (Draw(index, sign, noise_of),), values)
            (weights,) = weights_of(posterior, noise)
        outputs.append(outputs_at(function, x, weights, sampling.batch_size))
    return np.stack(outputs)


def _some_examples(network: PrunedNetwork) -> NDArray[Any]:
    graph = network.unpruned.graph
    if network.examples is not None:
        given = network.examples.x
        # A graph for a certain number of examples is given as many.
        size = graph.batch_size or min(_MOST_EXAMPLES, len(given))
        return np.take(given, np.arange(size), axis=0, mode="wrap")
    made = made_up_examples(graph)
    if made is None:
        raise ConfigError(
            f"{network.source.path}: the shape of its examples is open, so that what is exported "
            "cannot be compared; give examples with --data_path"
        )
    return made


def tolerance_of(network: PrunedNetwork) -> float:
    """Of outputs in float32, which round more the more layers follow one another."""
    nodes = network.layers.nodes if network.layers else ()
    n_products = sum(isinstance(node.operation, Dense | Convolution) for node in nodes)
    return TOLERANCE * max(1.0, (n_products / 4) ** 0.5)


def compare(
    found: NDArray[Any],
    expected: NDArray[Any],
    what: str,
    tolerance: float = TOLERANCE,
    unit: float | None = None,
) -> float:
    """Largest difference of two arrays, as a share of the largest number that is expected.

    Parameters
    ----------
    unit : float, optional
        What it is a share of in place of that.

    Raises
    ------
    ExportError
        If it is above the tolerance, or the shapes differ.
    """
    if found.shape != expected.shape:
        raise ExportError(
            f"{what}: gives numbers of shape {found.shape} where the network gives "
            f"{expected.shape}; nothing was kept"
        )
    largest = float(np.abs(expected).max(initial=0)) if unit is None else unit
    difference = float(np.abs(np.asarray(found, np.float64) - expected).max(initial=0))
    share = difference / largest if largest else difference
    if not share <= tolerance:
        raise ExportError(
            f"{what}: differs from the network by {share:.3g} of its largest number, above "
            f"{tolerance:g}; nothing was kept"
        )
    return share
