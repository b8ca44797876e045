"""Statistics of a classifier's predictions at each threshold, with standard errors and intervals.

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
from .detection import area_under_risk_coverage, areas, worth
from .estimates import Estimate, Metric, all_but_one_group
from .example_means import ExampleMeans, TaskStatistics
from .half_samples import half_sample_error, half_samples
from .intervals import TAIL, freedom_of_sum, of_share
from .quantiles import t_quantile
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

RANKED = (
    "aurc",
    "auroc_errors_entropy",
    "aupr_errors_entropy",
    "auroc_errors_mutual_information",
    "aupr_errors_mutual_information",
)
"""What :func:`ranked_statistics` gives, in its order."""

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
        Those of :func:`smooth_statistics` and of :func:`step_statistics`.
    """
    smooth = smooth_statistics(mean)
    return {**smooth, **step_statistics(mean, label, smooth["predictive_entropy"])}


def smooth_statistics(mean: MeanPrediction) -> dict[str, Float64Array]:
    """Those that are averages over draws, or smooth functions of such.

    Returns
    -------
    mapping of str to float64 array, shape (n_thresholds, n_examples)
        ``nll`` (nats), ``brier`` (sum over classes, between 0 and 2), ``predictive_entropy``,
        ``expected_entropy`` and ``mutual_information`` (nats), ``probability_variance`` (variance
        over draws of the class probabilities, summed over classes), ``accuracy_single_draw``.
    """
    probability, true = mean.probability, mean.true_probability
    entropy = _entropy(probability)
    squares = (probability * probability).sum(axis=2)
    with np.errstate(divide="ignore"):
        nll = np.minimum(-np.log(true), MAX_NLL)
    return {
        "nll": nll,
        "brier": squares - 2.0 * true + 1.0,
        "predictive_entropy": entropy,
        "expected_entropy": mean.expected_entropy,
        "mutual_information": entropy - mean.expected_entropy,
        "probability_variance": np.maximum(mean.expected_squares - squares, 0.0),
        "accuracy_single_draw": mean.single_draw_accuracy,
    }


def step_statistics(
    mean: MeanPrediction, label: Int64Array, entropy: Float64Array | None = None
) -> dict[str, Float64Array]:
    """Those that move in steps with the draws, or that what moves in steps is made of.

    Parameters
    ----------
    entropy : float64 array, shape (n_thresholds, n_examples), optional
        Of the averaged predictive, where it is known, nats.

    Returns
    -------
    mapping of str to float64 array, shape (n_thresholds, n_examples)
        ``accuracy`` and ``accuracy_top_k`` (0 or 1), and each of ``SCORES``.
    """
    probability = mean.probability
    rank = _rank(probability, label)
    entropy = _entropy(probability) if entropy is None else entropy
    return {
        "accuracy": (rank == 0).astype(np.float64),
        "accuracy_top_k": (rank < TOP_K).astype(np.float64),
        "confidence": probability.max(axis=2),
        "predictive_entropy": entropy,
        "mutual_information": entropy - mean.expected_entropy,
    }


def _entropy(probability: Float64Array) -> Float64Array:
    """In nats, over the last axis."""
    log = np.log(np.where(probability > 0, probability, 1.0))
    entropy: Float64Array = -(probability * log).sum(axis=2)
    return entropy


def _rank(probability: Float64Array, label: Int64Array) -> Int64Array:
    """Number of classes before the true one, of equals the first coming first."""
    true = np.take_along_axis(probability, label[None, :, None], axis=2)
    is_before = np.arange(probability.shape[2]) < label[:, None]
    return ((probability > true) | ((probability == true) & is_before)).sum(axis=2)


def ranked_statistics(
    scores: Mapping[str, Float64Array], keep: BoolArray | None = None
) -> dict[str, Float64Array]:
    """Every one of ``RANKED``: what orders all examples by a score.

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
        wrong = accuracy == 0
        values = [area_under_risk_coverage(confidence, wrong, keep)]
        for score in (entropy, mutual_information):
            values += areas(score, wrong, keep)
        return [value.reshape(-1, len(accuracy)) for value in values]

    values = by_rows(of_rows, keep, *(scores[name] for name in SCORES))
    return dict(zip(RANKED, values, strict=True))


def calibration_errors(confidence: Float64Array, correct: BoolArray) -> dict[str, Estimate]:
    """Calibration errors, with all draws and with each half of them.

    Parameters
    ----------
    confidence, correct : float64 and bool array, shape (1 + n_halves, n_thresholds, n_examples)
    """
    of_width = reliability(confidence, correct, equal_width_edges())
    of_mass = reliability(confidence, correct, equal_mass_edges(confidence))
    n_examples = (confidence.shape[2],)
    out = {}
    for name, diagram in (("ece", of_width), ("ece_equal_mass", of_mass)):
        whole = diagram.first()
        out[name] = Estimate(
            whole.error, diagram.error[1:], None, (), n_examples, True,
            error_of_examples=whole.error_of_examples, bias=whole.bias,
        )  # fmt: skip
    squares, whole = of_mass.squared_l2, of_mass.first()
    out["calibration_error_l2_squared"] = Estimate(
        squares[0], squares[1:], None, (), n_examples, True,
        error_of_examples=whole.error_of_squared_l2,
    )  # fmt: skip
    return out


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
        return ExampleMeans(self.plan.batch_size, ("whole", "deleted", "halves", "scores"), SCORES)

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
        of_groups = np.empty((len(sizes), *sums[MEAN].shape))
        for group in range(len(sizes)):
            of_groups[group] = sums[group]
        total = np.zeros(sums[MEAN].shape)
        for of_group in of_groups:
            total += of_group
        n_draws = self.plan.n_draws
        mean = mean_prediction(total, n_draws, label)
        whole: dict[str, AnyArray] = {**example_statistics(mean, label)}
        at_mean = mean_prediction(sums[MEAN], 1, label)
        whole["accuracy_mean_weights"] = step_statistics(at_mean, label)["accuracy"]
        whole["predicted"] = mean.probability.argmax(axis=2)
        if self.keep_probabilities:
            whole["probability"] = mean.probability.astype(np.float32)

        size_of = np.array(sizes) * self.plan.draws_per_replicate

        def without_each() -> Iterator[dict[str, Float64Array]]:
            for of_group, n_left in zip(of_groups, n_draws - size_of, strict=True):
                if n_left:
                    yield smooth_statistics(mean_prediction(total - of_group, n_left, label))

        def halves() -> Iterator[dict[str, Float64Array]]:
            for half in half_samples(len(sizes)):
                first, *others = np.flatnonzero(half)
                of_half = of_groups[first].copy()
                for group in others:
                    of_half += of_groups[group]
                mean = mean_prediction(of_half, int(size_of[half].sum()), label)
                yield step_statistics(mean, label)

        means = self._no_examples()
        means.add(whole, without_each(), halves())
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
        """Scores of every example, of all draws and of each half of them.

        Returns
        -------
        mapping of str to float64 array, shape (1 + n_halves, n_thresholds, n_examples)
        """
        return {name: self._means.score(name) for name in SCORES}

    def _of_the_set(self) -> dict[str, Estimate]:
        scores, n_examples = self.scores(), len(self.label)
        keep = all_but_one_group(np.ones(n_examples, bool))
        draws = ranked_statistics(scores)
        examples = ranked_statistics({name: values[0] for name, values in scores.items()}, keep)
        n_wrong = (scores["accuracy"][0] == 0).sum(axis=1).astype(np.float64)
        return calibration_errors(scores["confidence"], scores["accuracy"] == 1) | {
            name: Estimate(
                of_all[0], of_all[1:], None, (examples[name],), (n_examples,), True,
                n_worth=None if name == "aurc" else worth(name, n_wrong, n_examples - n_wrong),
            )
            for name, of_all in draws.items()
        }  # fmt: skip

    def class_accuracy(self, n_classes: int) -> Metric:
        """Accuracy of the averaged predictive over the examples of each class.

        Returns
        -------
        Metric, arrays of shape (n_thresholds, n_classes)
            NaN for a class without examples.
        """
        correct, one_hot = self.scores()["accuracy"], np.eye(n_classes)[self.label]
        count: Float64Array = one_hot.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = correct @ one_hot / count
            p = accuracy[0]
            spread = np.sqrt(p * (1 - p) / (count - 1))
        se_data: Float64Array = np.where(count > 1, spread, np.nan)
        sizes = self.plan.group_sizes
        se = half_sample_error(p, accuracy[1:], sizes)
        freedom = freedom_of_sum(se**2, len(sizes) - 1, se_data**2, len(self.label) - 1)
        low, high = of_share(p, np.maximum(count, 1), se**2, t_quantile(freedom, TAIL))
        return Metric(p, se, se_data, low, high)
