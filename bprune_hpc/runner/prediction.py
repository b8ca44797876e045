"""What a posterior predicts for single examples: a sweep of one network, kept example by example.

What belongs here: the averages over draws of a network as it is, and what they are called. What
does not: how users' arrays are checked (``library.validation``), sweeps (``runner.loop``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..blas import limit_threads
from ..errors import BpruneError
from ..evaluators.graph import Network as Function
from ..evaluators.interface import Evaluator, Weights
from ..metrics.regression import RegressionStatistics
from ..metrics.tasks import AnyStatistics, AnySums, Regression
from ..posterior.draws import MEAN
from ..posterior.pruning import mask_at_threshold
from .datasets import TEST_SET, EvaluationSet
from .evaluation import NotFinite, batches, evaluate
from .network import Network
from .work_split import assign, make_plan

_SUMS_LIMIT_BYTES = 2**30


@dataclass(frozen=True)
class Predictive:
    """What the posterior says of each example, averaged over draws.

    Attributes
    ----------
    mean_probability : float32 array, shape (n_examples, n_classes)
        The predictive distribution: class probabilities averaged over draws.
    predictive_entropy : float64 array, shape (n_examples,)
        Entropy of ``mean_probability``, nats: the whole uncertainty.
    expected_entropy : float64 array, shape (n_examples,)
        Mean entropy of single draws' predictions, nats: what more training data would not mend.
    mutual_information : float64 array, shape (n_examples,)
        The difference of the two, nats: disagreement of the draws. With few draws it is too small
        by a term of the order of 1 / ``n_draws``.
    log_probability : float64 array, shape (n_examples,), or None
        Logarithm of ``mean_probability`` at the label, nats, where labels were given.
    n_draws, seed : int
    pairing : {"antithetic", "none"}
    """

    mean_probability: NDArray[np.float32]
    predictive_entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    log_probability: NDArray[np.float64] | None
    n_draws: int
    seed: int
    pairing: str

    @property
    def predicted_class(self) -> NDArray[np.int64]:
        """Most probable class of each example (the first of equals), int64, (n_examples,)."""
        return self.mean_probability.argmax(axis=1)


@dataclass(frozen=True)
class NormalPredictive:
    """What the posterior of a regression says of each example: a mixture of the draws' Normals.

    Attributes
    ----------
    predictive_mean, predictive_sd : float64 array, shape (n_examples,) or (n_examples, n_targets)
        Mean and standard deviation of the mixture, in units of the target.
    epistemic_variance : float64 array of the same shape
        Variance over draws of their means: what more training data could teach. With few draws it
        is too small by a factor of 1 - 1 / ``n_draws``, where these are independent.
    aleatoric_variance : float64 array of the same shape
        Mean over draws of their own variance. The two add up to the square of ``predictive_sd``.
    log_density : float64 array, shape (n_examples,), or None
        Logarithm of the mixture's density at the target, nats, where targets were given; of
        several targets at all of them together.
    n_draws, seed : int
    pairing : {"antithetic", "none"}
    """

    predictive_mean: NDArray[np.float64]
    predictive_sd: NDArray[np.float64]
    epistemic_variance: NDArray[np.float64]
    aleatoric_variance: NDArray[np.float64]
    log_density: NDArray[np.float64] | None
    n_draws: int
    seed: int
    pairing: str


@dataclass(frozen=True)
class Sampling:
    """Which draws there are of a posterior.

    Attributes
    ----------
    n_draws : int
        In whole replicates of the task.
    seed : int
    pairing : {"antithetic", "none"}
    batch_size : int
        Examples evaluated at once.
    first_example : int
        Position of the first one in the whole data set, which decides noise of its own.
    """

    n_draws: int = 200
    seed: int = 0
    pairing: str = "antithetic"
    batch_size: int = 500
    first_example: int = 0


def outputs_at(
    function: Function, x: NDArray[Any], weights: Weights, batch_size: int
) -> NDArray[Any]:
    """Outputs of examples under one set of weights, shape (n_examples, n_outputs)."""
    size = min(batch_size, len(x))
    parts = [
        function(batch, weights)[: rows.stop - rows.start].reshape(rows.stop - rows.start, -1)
        for rows, batch in batches(x, range(len(x)), size)
    ]
    return np.concatenate(parts)


def predict(
    network: Network,
    evaluator: Evaluator,
    function: Function,
    x: NDArray[Any],
    label: NDArray[Any] | None,
    sampling: Sampling,
) -> Predictive | NormalPredictive:
    """The predictive distribution of examples, averaged over draws; the bits of a sweep.

    Parameters
    ----------
    network : Network
        With the posterior that is drawn from.
    evaluator : Evaluator
        What runs it.
    function : callable
        The same network under given weights.
    x : array, shape (n_examples, ...)
        As the network takes them.
    label : array or None
        Of the examples, where their log-probability or log-density is wanted.
    sampling : Sampling

    Raises
    ------
    BpruneError
        If an output is not finite.
    """
    summed = label
    if label is None and isinstance(network.task, Regression):
        summed = _reference(network, function, x, network.task.n_targets, sampling.batch_size)
    statistics = statistics_of(network, evaluator, x, summed, sampling)

    def of(name: str) -> NDArray[np.float64]:
        return cast(NDArray[np.float64], statistics.per_example(name)[0])

    log_of_label = None if label is None else -of("nll")
    drawn = {
        "n_draws": sampling.n_draws, "seed": sampling.seed, "pairing": sampling.pairing
    }  # fmt: skip
    if isinstance(statistics, RegressionStatistics):
        names = ("error", "predictive_sd", "epistemic_variance", "aleatoric_variance")
        of_targets = {name: statistics.of_targets(name)[0] for name in names}
        predictive_mean = statistics.target + of_targets.pop("error")
        parts: Any = {**of_targets, **drawn}
        return NormalPredictive(predictive_mean=predictive_mean, log_density=log_of_label, **parts)
    mean_probability = statistics.mean_probability
    assert mean_probability is not None  # it was asked for
    entropies = ("predictive_entropy", "expected_entropy", "mutual_information")
    parts = {**{name: of(name) for name in entropies}, **drawn}
    return Predictive(mean_probability=mean_probability[0], log_probability=log_of_label, **parts)


def statistics_of(
    network: Network,
    evaluator: Evaluator,
    x: NDArray[Any],
    label: NDArray[Any] | None,
    sampling: Sampling,
) -> AnyStatistics:
    """What a sweep at threshold 0 finds of examples.

    Raises
    ------
    BpruneError
        If an output is not finite.
    """
    task = network.task
    plan = make_plan(
        n_draws=sampling.n_draws,
        pairing=sampling.pairing,
        n_thresholds=1,
        n_examples=len(x),
        bytes_per_cell=task.bytes_per_cell,
        batch_size=sampling.batch_size,
        limit_bytes=_SUMS_LIMIT_BYTES,
        noises_per_replicate=task.noises_per_replicate,
    )
    dataset = EvaluationSet(TEST_SET, x, label, plan=plan, first_example=sampling.first_example)
    everything = [mask_at_threshold(network.posterior, 0.0)]
    (partition,) = assign(range(len(plan.replicates)), [1], 1).partitions
    draw_sums: Any = task.draw_sums(1, sampling.n_draws)
    not_finite: NotFinite = {}
    statistics: Any = task.statistics(plan, len(x), True)
    for block in plan.blocks:
        sums: dict[int, AnySums] = {}
        with limit_threads(evaluator.n_threads):
            evaluate(
                evaluator, network, everything, dataset, partition, block,
                sums, draw_sums, not_finite,
                seed=sampling.seed, advance=lambda n_cells: None,
            )  # fmt: skip
        _check_outputs(not_finite)
        statistics.add_block(sums, dataset.summed_label[block.start : block.stop])
    return cast(AnyStatistics, statistics)


def _reference(
    network: Network, function: Function, x: NDArray[Any], n_targets: int, batch_size: int
) -> NDArray[np.float64]:
    """What a regression's moments are taken about where no targets are given.

    Those are the means at the posterior mean, which lose least to rounding; what is asked for
    does not depend on them.
    """
    means = outputs_at(function, x, network.posterior.loc, batch_size).astype(np.float64)
    means = means[:, 0] if n_targets == 1 else means[:, :n_targets]
    return np.where(np.isfinite(means), means, 0.0)


def _check_outputs(not_finite: NotFinite) -> None:
    """Raise BpruneError where outputs of a draw, or of the posterior mean, are not finite."""
    for draw, _ in not_finite.values():
        which = "the posterior mean" if draw == MEAN else f"draw {draw}"
        raise BpruneError(
            f"outputs are not finite for {which}; check the scale of examples and weights"
        )
