"""Statistics of a classifier's predictions at each threshold, with two standard errors each.

Sums in, numbers out: means over examples, and statistics of the whole set, which take the scores of
every example. What each metric is called and means stands in ``metrics.definitions``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .._typing import AnyArray, BoolArray, Float32Array, Float64Array, Int64Array
from ..accumulators.classification import MAX_NLL, GroupSums, MeanPrediction, mean_prediction
from ..posterior.draws import MEAN
from .calibration import equal_mass_edges, equal_width_edges, reliability
from .definitions import CLASSIFICATION, TOP_K
from .detection import area_under_risk_coverage, areas
from .estimates import Estimate, Metric, all_but_one_group
from .example_means import ExampleMeans, TaskStatistics
from .jackknife import jackknife
from .row_chunks import by_rows

PER_EXAMPLE = (
    "nll",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "probability_variance",
)
"""Quantities that the results keep for every example."""

SCORES = ("accuracy", "confidence", "predictive_entropy", "mutual_information")
"""Quantities of single examples that statistics of the whole set need."""

SET_STATISTICS = (
    "ece",
    "ece_equal_mass",
    "aurc",
    "auroc_errors_entropy",
    "aupr_errors_entropy",
    "auroc_errors_mutual_information",
    "aupr_errors_mutual_information",
)
"""What :func:`set_statistics` gives, in its order."""

_NUMBERS = 2**16
"""Sums of a group that are worked on at a time: what comes of them is several times as much."""


def example_statistics(mean: MeanPrediction, label: Int64Array) -> dict[str, Float64Array]:
    """Statistics of which the metrics are means over examples.

    Parameters
    ----------
    mean : MeanPrediction
    label : int64 array, shape (n_examples,)

    Returns
    -------
    mapping of str to float64 array, shape (n_thresholds, n_examples)
        ``accuracy`` and ``accuracy_top_k`` (0 or 1), ``accuracy_single_draw``, ``nll`` (nats),
        ``brier`` (sum over classes, between 0 and 2), ``predictive_entropy``,
        ``expected_entropy`` and ``mutual_information`` (nats), ``probability_variance`` (variance
        over draws of the class probabilities, summed over classes), ``confidence``.
    """
    probability = mean.probability
    log = np.log(np.where(probability > 0, probability, 1.0))
    entropy = -(probability * log).sum(axis=2)
    squares = (probability * probability).sum(axis=2)
    true, rank = mean.true_probability, _rank(probability, label)
    with np.errstate(divide="ignore"):
        nll = np.minimum(-np.log(true), MAX_NLL)
    return {
        "accuracy": (rank == 0).astype(np.float64),
        "accuracy_top_k": (rank < TOP_K).astype(np.float64),
        "accuracy_single_draw": mean.single_draw_accuracy,
        "nll": nll,
        "brier": squares - 2.0 * true + 1.0,
        "predictive_entropy": entropy,
        "expected_entropy": mean.expected_entropy,
        "mutual_information": entropy - mean.expected_entropy,
        "probability_variance": np.maximum(mean.expected_squares - squares, 0.0),
        "confidence": probability.max(axis=2),
    }


def _rank(probability: Float64Array, label: Int64Array) -> Int64Array:
    """Number of classes before the true one, of equals the first coming first."""
    true = np.take_along_axis(probability, label[None, :, None], axis=2)
    is_before = np.arange(probability.shape[2]) < label[:, None]
    return ((probability > true) | ((probability == true) & is_before)).sum(axis=2)


def set_statistics(
    scores: Mapping[str, Float64Array], keep: BoolArray | None = None
) -> dict[str, Float64Array]:
    """Every one of ``SET_STATISTICS``.

    Parameters
    ----------
    scores : mapping of str to float64 array, shape (..., n_examples)
        Each of ``SCORES``.
    keep : bool array, shape (n_masks, n_examples), optional
        Subsets of the examples to work them out for.

    Returns
    -------
    mapping of str to float64 array, shape (...), or (n_masks, ...)
    """

    def of_rows(*columns: Float64Array) -> list[Float64Array]:
        accuracy, confidence, entropy, mutual_information = columns
        correct, wrong = accuracy == 1, accuracy == 0
        values = [
            reliability(confidence, correct, edges, keep).error
            for edges in (equal_width_edges(), equal_mass_edges(confidence))
        ]
        values.append(area_under_risk_coverage(confidence, wrong, keep))
        for score in (entropy, mutual_information):
            values += areas(score, wrong, keep)
        return [value.reshape(-1, len(accuracy)) for value in values]

    values = by_rows(of_rows, keep, *(scores[name] for name in SCORES))
    return dict(zip(SET_STATISTICS, values, strict=True))


@dataclass
class Statistics(TaskStatistics):
    """Statistics of classes.

    Attributes
    ----------
    keep_probabilities : bool
        Whether to keep the predictive distribution of every example.
    """

    definitions = CLASSIFICATION
    keep_probabilities: bool = False

    def _no_examples(self) -> ExampleMeans:
        return ExampleMeans(self.plan.batch_size, ("whole", "deleted", "scores"), SCORES)

    def add_block(self, sums: Mapping[int, GroupSums], label: Int64Array) -> None:
        """Take in a block of examples.

        Parameters
        ----------
        sums : mapping of group to GroupSums
            Of every group, and of the mean network under ``MEAN``.
        label : int64 array, shape (n_examples,) of the block
        """
        # Some at a time: what is computed on the way is several times as large as its sums.
        for start in range(0, len(label), self.plan.batch_size):
            rows = slice(start, start + self.plan.batch_size)
            packed = {group: of_group.packed[:, rows] for group, of_group in sums.items()}
            n_thresholds, *shape_of_one = packed[MEAN].shape
            at_once = max(1, _NUMBERS // math.prod(shape_of_one))
            chunks = []
            for first in range(0, max(n_thresholds, 1), at_once):  # types and shapes also of none
                chunk = {group: all_of[first : first + at_once] for group, all_of in packed.items()}
                chunks.append(self._columns_of(chunk, label[rows]))
            self._means.add_columns(
                {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}
            )
        self._labels.append(label)

    def _columns_of(self, sums: Mapping[int, Int64Array], label: Int64Array) -> dict[str, AnyArray]:
        """What is kept of a batch at some thresholds."""
        sizes = self.plan.group_sizes
        total = np.zeros(sums[MEAN].shape)
        for group in range(len(sizes)):
            total += sums[group]  # one float64 array in all, not one a group
        n_draws = self.plan.n_draws
        mean = mean_prediction(total, n_draws, label)
        whole: dict[str, AnyArray] = {**example_statistics(mean, label)}
        at_mean = mean_prediction(sums[MEAN], 1, label)
        whole["accuracy_mean_weights"] = example_statistics(at_mean, label)["accuracy"]
        whole["predicted"] = mean.probability.argmax(axis=2)
        if self.keep_probabilities:
            whole["probability"] = mean.probability.astype(np.float32)

        def without_each() -> Iterator[dict[str, Float64Array]]:
            for group, size in enumerate(sizes) if len(sizes) > 1 else ():
                n_left = n_draws - size * (n_draws // len(self.plan.replicates))
                rest = np.subtract(total, sums[group], order="C")
                yield example_statistics(mean_prediction(rest, n_left, label), label)

        means = self._no_examples()
        means.add(whole, without_each())
        return means.columns()

    def columns(self) -> dict[str, AnyArray]:
        """See :meth:`TaskStatistics.columns`."""
        out = super().columns()
        out["predicted"] = out.pop("whole/predicted")
        if self.keep_probabilities:
            out["probabilities"] = out.pop("whole/probability")
        return out

    def take_columns(self, columns: Mapping[str, AnyArray], label: Int64Array) -> None:
        """See :meth:`TaskStatistics.take_columns`.

        Raises
        ------
        KeyError
            If probabilities are to be kept and were not.
        """
        kept = {key: array for key, array in columns.items() if "/" in key}
        kept["whole/predicted"] = columns["predicted"]
        if self.keep_probabilities:
            kept["whole/probability"] = columns["probabilities"]
        super().take_columns(kept, label)

    @property
    def mean_probability(self) -> Float32Array | None:
        """Predictive distributions, shape (n_thresholds, n_examples, n_classes), if kept."""
        return self._means.values("probability") if self.keep_probabilities else None

    @property
    def predicted(self) -> Int64Array:
        """Class that the predictive puts first, shape (n_thresholds, n_examples)."""
        return self._means.values("predicted")

    def scores(self) -> dict[str, Float64Array]:
        """Scores of every example, of all draws and without each group of them in turn.

        Returns
        -------
        mapping of str to float64 array, shape (1 + n_groups, n_thresholds, n_examples)
        """
        return {name: self._means.score(name) for name in SCORES}

    def _of_the_set(self) -> dict[str, Estimate]:
        scores, n_examples = self.scores(), len(self.label)
        keep = all_but_one_group(np.ones(n_examples, bool))
        draws = set_statistics(scores)
        examples = set_statistics({name: values[0] for name, values in scores.items()}, keep)
        return {
            name: Estimate(of_all[0], of_all[1:], None, (examples[name],), (n_examples,))
            for name, of_all in draws.items()
        }

    def class_accuracy(self, n_classes: int) -> Metric:
        """Accuracy of the averaged predictive over the examples of each class.

        Returns
        -------
        Metric, arrays of shape (n_thresholds, n_classes)
            NaN for a class without examples.
        """
        correct, one_hot = self.scores()["accuracy"], np.eye(n_classes)[self.label]
        count = one_hot.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = correct @ one_hot / count
            p = accuracy[0]
            se_data = np.sqrt(p * (1 - p) / (count - 1))
        se_data = np.where(count > 1, se_data, np.nan)
        _, se = jackknife(p, accuracy[1:], self.plan.group_sizes)
        return Metric(p, se, se_data)
