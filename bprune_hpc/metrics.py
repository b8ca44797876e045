"""Statistics of a classifier's predictions at each threshold, with two standard errors each.

``NAME_se`` is the Monte Carlo error (delete-group jackknife, see ``jackknife``), ``NAME_se_data``
the error of having tested on these examples and no others (standard deviation over examples
divided by the root of their number). Sums in, numbers out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .jackknife import jackknife
from .plan import MEAN, Plan
from .predictive import MAX_NLL, GroupSums, MeanPrediction, as_float, mean_prediction

Floats = NDArray[np.float64]

PER_EXAMPLE = ("predictive_entropy", "expected_entropy", "mutual_information")
"""Quantities that the results keep for every example."""

_BIAS_CORRECTED = ("mutual_information",)
_PAIRED = {"accuracy_drop": ("accuracy", -1.0), "nll_rise": ("nll", 1.0)}


@dataclass(frozen=True)
class Metric:
    """One number for each threshold.

    Attributes
    ----------
    value, se, se_data : float64 array, shape (n_thresholds,)
        Estimate, Monte Carlo standard error, test-set standard error; an error that cannot be
        told (one pair, one example) is NaN.
    """

    value: Floats
    se: Floats
    se_data: Floats

    @property
    def se_combined(self) -> Floats:
        """Root of the sum of both errors' squares: what stands after the ± sign."""
        return np.hypot(self.se, self.se_data)


def example_statistics(mean: MeanPrediction, label: NDArray[np.int64]) -> dict[str, Floats]:
    """What the averaged prediction says of each example.

    Parameters
    ----------
    mean : MeanPrediction
    label : int64 array, shape (n_examples,)

    Returns
    -------
    mapping of str to float64 array, shape (n_thresholds, n_examples)
        ``accuracy`` (0 or 1), ``accuracy_single_draw``, ``nll``, ``predictive_entropy``,
        ``expected_entropy``, ``mutual_information``; the last four in nats.
    """
    probability = mean.probability
    log = np.log(np.where(probability > 0, probability, 1.0))
    entropy = -(probability * log).sum(axis=2)
    with np.errstate(divide="ignore"):
        nll = np.minimum(-np.log(mean.true_probability), MAX_NLL)
    return {
        "accuracy": (probability.argmax(axis=2) == label).astype(np.float64),
        "accuracy_single_draw": mean.single_draw_accuracy,
        "nll": nll,
        "predictive_entropy": entropy,
        "expected_entropy": mean.expected_entropy,
        "mutual_information": entropy - mean.expected_entropy,
    }


@dataclass
class Statistics:
    """Statistics gathered block by block of examples, then turned into metrics.

    Attributes
    ----------
    plan : Plan
        Sums over examples are taken batch by batch, so that they do not depend on the blocks.
    keep_probabilities : bool
        Whether to keep the predictive distribution of every example.
    """

    plan: Plan
    keep_probabilities: bool = False
    examples: list[dict[str, Floats]] = field(default_factory=list)
    _probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    _deleted_batch_sums: list[dict[str, Floats]] = field(default_factory=list)

    def add_block(self, sums: Mapping[int, GroupSums], label: NDArray[np.int64]) -> None:
        """Take in a block of examples.

        Parameters
        ----------
        sums : mapping of group to GroupSums
            Of every group, and of the mean network under ``MEAN``.
        label : int64 array, shape (n_examples,) of the block
        """
        sizes = self.plan.group_sizes
        n_groups = len(sizes)
        groups = [as_float(sums[group]) for group in range(n_groups)]
        total = groups[0].copy()
        for group in groups[1:]:
            total += group
        n_draws = self.plan.n_draws
        draws_per_unit = n_draws // len(self.plan.units)
        whole = mean_prediction(total, n_draws, label)
        if self.keep_probabilities:
            self._probabilities.append(whole.probability.astype(np.float32))
        statistics = example_statistics(whole, label)
        at_mean = mean_prediction(as_float(sums[MEAN]), 1, label)
        statistics["accuracy_mean_weights"] = example_statistics(at_mean, label)["accuracy"]
        self.examples.append(statistics)
        deleted: dict[str, list[Floats]] = {}
        starts = np.arange(0, len(label), self.plan.batch_size)
        for size, group in zip(sizes, groups, strict=True) if n_groups > 1 else ():
            rest = mean_prediction(total - group, n_draws - size * draws_per_unit, label)
            for name, values in example_statistics(rest, label).items():
                deleted.setdefault(name, []).append(np.add.reduceat(values, starts, axis=1))
        self._deleted_batch_sums.append({name: np.stack(v) for name, v in deleted.items()})

    @property
    def mean_probability(self) -> NDArray[np.float32] | None:
        """Predictive distributions, shape (n_thresholds, n_examples, n_classes), if kept."""
        if not self.keep_probabilities:
            return None
        return np.concatenate(self._probabilities, axis=1)

    def per_example(self, name: str) -> Floats:
        """One statistic of every example so far, shape (n_thresholds, n_examples)."""
        return np.concatenate([block[name] for block in self.examples], axis=1)

    def metrics(self) -> dict[str, Metric]:
        """Means over the examples so far, and the paired differences to the first threshold."""
        out: dict[str, Metric] = {}
        for name in self.examples[0]:
            out[name] = self._metric(name, reference=None, sign=1.0)
        for name, (base, sign) in _PAIRED.items():
            out[name] = self._metric(base, reference=0, sign=sign)
        return out

    def _metric(self, name: str, reference: int | None, sign: float) -> Metric:
        values = self.per_example(name)
        if reference is not None:
            values = sign * (values - values[reference])
        n_examples = values.shape[1]
        starts = np.arange(0, n_examples, self.plan.batch_size)
        estimate = np.add.reduceat(values, starts, axis=1).sum(axis=1) / n_examples
        if n_examples > 1:
            se_data = values.std(axis=1, ddof=1) / np.sqrt(n_examples)
        else:
            se_data = np.full(estimate.shape, np.nan)
        if name == "accuracy_mean_weights":  # no draws, so no Monte Carlo error
            return Metric(estimate, np.zeros_like(estimate), se_data)
        if len(self.plan.group_sizes) < 2:
            return Metric(estimate, np.full(estimate.shape, np.nan), se_data)
        batches = [block[name] for block in self._deleted_batch_sums]
        deleted = np.concatenate(batches, axis=2).sum(axis=2) / n_examples
        if reference is not None:
            deleted = sign * (deleted - deleted[:, reference, None])
        corrected, se = jackknife(estimate, deleted, self.plan.group_sizes)
        return Metric(corrected if name in _BIAS_CORRECTED else estimate, se, se_data)
