"""The product's own numbers of a pruned network, which what was exported is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError
from ..evaluators.graph import GraphEvaluator, GraphNetwork, weights_of
from ..evaluators.interface import Noise
from ..metrics.tasks import Regression
from ..posterior.draws import replicates_of, standard_normal
from ..runner.batch_dependence import made_up_examples
from ..runner.prediction import (
    NormalPredictive,
    Predictive,
    outputs_at,
    predict,
)
from .pruned_network import PrunedNetwork

_MOST_EXAMPLES = 64
_N_DRAWS = 8
TOLERANCE = 1e-6
"""Of outputs in float32, as a share of the largest of them."""


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
        task = network.task
        is_normal = isinstance(task, Regression) and task.noise_scale is None
        self._network = network
        self._function = GraphNetwork(network.unpruned.graph, network.fixed, with_scale=is_normal)
        self.x = _some_examples(network)

    def mean(self, x: NDArray[Any]) -> NDArray[Any]:
        """Outputs at the pruned posterior's mean, shape (n_examples, n_outputs).

        Of a Normal its means, and after them its standard deviations.
        """
        return outputs_at(self._function, x, self._network.posterior.loc, self._batch_size)

    def sample(self, x: NDArray[Any], draws: Sequence[int]) -> NDArray[Any]:
        """Outputs of some draws of the sweep, shape (n_draws, n_examples, n_outputs).

        Parameters
        ----------
        draws : sequence of int
            Their indices along the draw dimension of the results.
        """
        sampling, posterior = self._network.sampling, self._network.posterior
        n_draws = 2 * (max(draws) // 2 + 1)
        of_index = {
            draw.index: draw
            for replicate in replicates_of(n_draws, sampling.pairing)
            for draw in replicate
        }
        outputs = []
        for index in draws:
            draw = of_index[index]
            values = {
                name: standard_normal(sampling.seed, name, draw.noise, scale.shape)
                for name, scale in posterior.scale.items()
            }
            (weights,) = weights_of(posterior, Noise(draw.noise, (draw,), values))
            outputs.append(outputs_at(self._function, x, weights, self._batch_size))
        return np.stack(outputs)

    def predict(self, x: NDArray[Any], n_draws: int | None = None) -> Predictive | NormalPredictive:
        """What the pruned posterior predicts, with the draws of the sweep."""
        sampling = self._network.sampling
        if n_draws is not None:
            sampling = replace(sampling, n_draws=n_draws)
        evaluator = GraphEvaluator(self._function)
        return predict(self._network.pruned, evaluator, self._function, x, None, sampling)

    @cached_property
    def mean_outputs(self) -> NDArray[Any]:
        """Of ``x``; see :meth:`mean`."""
        return self.mean(self.x)

    @property
    def _batch_size(self) -> int:
        return self._network.sampling.batch_size

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._function.close()


def _some_examples(network: PrunedNetwork) -> NDArray[Any]:
    if network.examples is not None:
        return network.examples.x[:_MOST_EXAMPLES]
    made = made_up_examples(network.unpruned.graph)
    if made is None:
        raise ExportError(
            f"{network.source.path}: the shape of its examples is open, so that what is exported "
            "cannot be compared; give examples with --data_path"
        )
    return made


def compare(
    found: NDArray[Any], expected: NDArray[Any], what: str, tolerance: float = TOLERANCE
) -> float:
    """Largest difference of two arrays, as a share of the largest number that is expected.

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
    largest = float(np.abs(expected).max(initial=0))
    difference = float(np.abs(np.asarray(found, np.float64) - expected).max(initial=0))
    share = difference / largest if largest else difference
    if not share <= tolerance:
        raise ExportError(
            f"{what}: differs from the network by {share:.3g} of its largest number, above "
            f"{tolerance:g}; nothing was kept"
        )
    return share
