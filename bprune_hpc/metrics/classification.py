"""Statistics of a classifier's predictions at each threshold, with two standard errors each.

``NAME_se`` is the Monte Carlo error: delete-group jackknife over groups of pairs. ``NAME_se_data``
is the error of having tested on these examples and no others: for means over examples their
standard deviation over the root of their number, for the rest a delete-group jackknife over
examples. Sums in, numbers out; the definitions stand in ``metrics.definitions``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accumulators.classification import GroupSums, mean_prediction
from ..posterior.draws import MEAN, DrawDesign
from .definitions import SCORES, SET_STATISTICS, example_statistics, set_statistics
from .jackknife import jackknife, with_correction

Floats = NDArray[np.float64]

PER_EXAMPLE = (
    "nll",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "probability_variance",
)
"""Quantities that the results keep for every example."""

DISCRETE = ("accuracy", "accuracy_top_k", "accuracy_single_draw", "accuracy_mean_weights")
"""Means over examples that move in steps, so that their errors are less sure."""

N_DATA_GROUPS = 50

BIAS_CORRECTED = (
    "nll",
    "brier",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "probability_variance",
)
"""Smooth functions of the averaged predictive, whose bias of order 1/draws is taken off.

Expected entropy has none; with it in the list, mutual information remains the difference.
"""

_NUMBERS = 2**16
"""Sums of a group that are worked on at a time: what comes of them is several times as much."""

_DIFFERENCES = {"accuracy_drop": ("accuracy", -1.0), "nll_rise": ("nll", 1.0)}


def metric_names() -> list[str]:
    """Every metric of :meth:`Statistics.metrics`."""
    names = [*DISCRETE, *BIAS_CORRECTED, *SET_STATISTICS]
    changes = [f"{name}_change" for name in names if name not in ("accuracy", "nll")]
    return [*names, *_DIFFERENCES, *changes]


def is_discrete(name: str) -> bool:
    """Whether a metric moves in steps, so that its errors are rough."""
    base = name.removesuffix("_change")
    is_rank = base.startswith(("auroc_", "aupr_"))
    return is_rank or base in (*DISCRETE, *SET_STATISTICS, "accuracy_drop")


def is_difference(name: str) -> bool:
    """Whether a metric is a difference to the first threshold."""
    return name.endswith("_change") or name in _DIFFERENCES


@dataclass(frozen=True)
class Metric:
    """One number for each threshold.

    Attributes
    ----------
    value, se, se_data : float64 array, shape (n_thresholds, ...)
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


@dataclass(frozen=True)
class _Replicates:
    """A statistic, and what it is without each group of draws and without each group of examples.

    Attributes
    ----------
    value : float64 array, shape (n_thresholds, ...)
    without_draws : float64 array, shape (n_groups, n_thresholds, ...), or None
        None for what has no Monte Carlo error.
    without_examples : float64 array, shape (n_data_groups, n_thresholds, ...), or None
        None where ``values`` is there.
    values : float64 array, shape (n_thresholds, n_examples), or None
        Of every example, where the statistic is their mean.
    """

    value: Floats
    without_draws: Floats | None
    without_examples: Floats | None = None
    values: Floats | None = None

    def less_the_first(self, sign: float) -> _Replicates:
        """The difference to the first threshold, times a sign."""
        draws, examples, values = self.without_draws, self.without_examples, self.values
        return _Replicates(
            sign * (self.value - self.value[0]) + 0.0,  # no minus zero
            None if draws is None else sign * (draws - draws[:, :1]),
            None if examples is None else sign * (examples - examples[:, :1]),
            None if values is None else sign * (values - values[0]),
        )


@dataclass
class Statistics:
    """Statistics gathered block by block of examples, then turned into metrics.

    Attributes
    ----------
    plan : DrawDesign
        Sums over examples are taken batch by batch, so that they do not depend on the blocks.
    keep_probabilities : bool
        Whether to keep the predictive distribution of every example.
    """

    plan: DrawDesign
    keep_probabilities: bool = False
    _whole: list[dict[str, Floats]] = field(default_factory=list)
    _deleted_batch_sums: list[dict[str, Floats]] = field(default_factory=list)
    _scores: list[dict[str, Floats]] = field(default_factory=list)
    _labels: list[NDArray[np.int64]] = field(default_factory=list)
    _predicted: list[NDArray[np.int64]] = field(default_factory=list)
    _probabilities: list[NDArray[np.float32]] = field(default_factory=list)

    def add_block(self, sums: Mapping[int, GroupSums], label: NDArray[np.int64]) -> None:
        """Take in a block of examples.

        Parameters
        ----------
        sums : mapping of group to GroupSums
            Of every group, and of the mean network under ``MEAN``.
        label : int64 array, shape (n_examples,) of the block
        """
        # Batch by batch: what is computed on the way is several times as large as its sums.
        for start in range(0, len(label), self.plan.batch_size):
            rows = slice(start, start + self.plan.batch_size)
            packed = {group: of_group.packed[:, rows] for group, of_group in sums.items()}
            self._add_batch(packed, label[rows])

    def _add_batch(self, sums: Mapping[int, NDArray[np.int64]], label: NDArray[np.int64]) -> None:
        n_thresholds, *shape_of_one = sums[0].shape
        at_once = max(1, _NUMBERS // math.prod(shape_of_one))
        whole, deleted, scores = found = dict[str, Any](), dict[str, Any](), dict[str, Any]()
        for at in range(0, max(n_thresholds, 1), at_once):  # types and shapes also of none
            some = slice(at, at + at_once)
            parts = self._of_thresholds({k: one[some] for k, one in sums.items()}, label)
            for out, part, axis in zip(found, parts, (0, 1, 1), strict=True):
                for name, values in part.items():
                    if name not in out:
                        shape = (*values.shape[:axis], n_thresholds, *values.shape[axis + 1 :])
                        out[name] = np.empty(shape, values.dtype)
                    np.moveaxis(out[name], axis, 0)[some] = np.moveaxis(values, axis, 0)
        self._predicted.append(whole.pop("predicted"))
        if self.keep_probabilities:
            self._probabilities.append(whole.pop("probability"))
        self._whole.append(whole)
        self._deleted_batch_sums.append(deleted)
        self._scores.append(scores)
        self._labels.append(label)

    def _of_thresholds(
        self, sums: Mapping[int, NDArray[np.int64]], label: NDArray[np.int64]
    ) -> tuple[dict[str, Any], dict[str, Floats], dict[str, Floats]]:
        """Of every example, of the batch without each group, and scores; of some thresholds."""
        sizes = self.plan.group_sizes
        total = np.zeros(sums[0].shape)
        for group in range(len(sizes)):
            total += sums[group]  # one float64 array in all, not one a group
        n_draws = self.plan.n_draws
        draws_per_unit = n_draws // len(self.plan.units)
        mean = mean_prediction(total, n_draws, label)
        whole: dict[str, Any] = example_statistics(mean, label)
        scores = {name: [whole[name]] for name in SCORES}
        deleted: dict[str, list[Floats]] = {}
        for group, size in enumerate(sizes) if len(sizes) > 1 else ():
            n_left = n_draws - size * draws_per_unit
            rest = mean_prediction(np.subtract(total, sums[group], order="C"), n_left, label)
            for name, values in example_statistics(rest, label).items():
                deleted.setdefault(name, []).append(np.add.reduceat(values, [0], axis=1))
                if name in SCORES:
                    scores[name].append(values)
        at_mean = mean_prediction(sums[MEAN], 1, label)
        whole["accuracy_mean_weights"] = example_statistics(at_mean, label)["accuracy"]
        whole["predicted"] = mean.probability.argmax(axis=2)
        if self.keep_probabilities:
            whole["probability"] = mean.probability.astype(np.float32)
        return (
            whole,
            {name: np.stack(of_groups) for name, of_groups in deleted.items()},
            {name: np.stack(of_groups) for name, of_groups in scores.items()},
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """What is kept of the examples so far, all arrays with thresholds along the first axis."""
        out: dict[str, NDArray[Any]] = {
            f"whole/{name}": self.per_example(name) for name in self._whole[0]
        }
        for name in self._deleted_batch_sums[0]:
            sums = np.concatenate([block[name] for block in self._deleted_batch_sums], axis=2)
            out[f"deleted/{name}"] = np.moveaxis(sums, 1, 0)
        for name, values in self.scores().items():
            out[f"scores/{name}"] = np.moveaxis(values, 1, 0)
        out["predicted"] = self.predicted
        if self.keep_probabilities:
            out["probabilities"] = np.concatenate(self._probabilities, axis=1)
        return out

    def take_columns(self, columns: Mapping[str, NDArray[Any]], label: NDArray[np.int64]) -> None:
        """Begin with what :meth:`columns` gave, in place of the blocks that it was made of.

        Raises
        ------
        KeyError
            If probabilities are to be kept and were not.
        """
        found: dict[str, dict[str, Any]] = {"whole": {}, "deleted": {}, "scores": {}}
        for key, array in columns.items():
            kind, _, name = key.partition("/")
            if name:
                # In the layout of an array that was never taken apart: sums depend on it.
                axes = array if kind == "whole" else np.moveaxis(array, 0, 1)
                found[kind][name] = np.ascontiguousarray(axes)
        self._whole, self._scores = [found["whole"]], [found["scores"]]
        self._deleted_batch_sums = [found["deleted"]]
        self._predicted, self._labels = [columns["predicted"]], [label]
        self._probabilities = [columns["probabilities"]] if self.keep_probabilities else []

    @property
    def label(self) -> NDArray[np.int64]:
        """Labels of the examples so far."""
        return np.concatenate(self._labels)

    @property
    def mean_probability(self) -> NDArray[np.float32] | None:
        """Predictive distributions, shape (n_thresholds, n_examples, n_classes), if kept."""
        if not self.keep_probabilities:
            return None
        return np.concatenate(self._probabilities, axis=1)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Class that the predictive puts first, shape (n_thresholds, n_examples)."""
        return np.concatenate(self._predicted, axis=1)

    def per_example(self, name: str) -> Floats:
        """One statistic of every example so far, shape (n_thresholds, n_examples)."""
        return np.concatenate([block[name] for block in self._whole], axis=1)

    def scores(self) -> dict[str, Floats]:
        """Scores of every example, of all draws and without each group of them in turn.

        Returns
        -------
        mapping of str to float64 array, shape (1 + n_groups, n_thresholds, n_examples)
        """
        return {
            name: np.concatenate([block[name] for block in self._scores], axis=2) for name in SCORES
        }

    def metrics(self) -> dict[str, Metric]:
        """Every metric of the examples so far, and differences to the first threshold.

        ``NAME_change`` is the value less that at the first threshold; ``accuracy_drop`` and
        ``nll_rise`` are the two that decide.
        """
        replicates = {
            name: self._of_examples(name) for name in self._whole[0] if name != "confidence"
        }
        replicates |= self._of_the_set()
        out = {name: self._metric(name, found) for name, found in replicates.items()}
        for name, found in replicates.items():
            if name not in ("accuracy", "nll"):
                out[f"{name}_change"] = self._metric(name, found.less_the_first(1.0))
        for name, (base, sign) in _DIFFERENCES.items():
            out[name] = self._metric(base, replicates[base].less_the_first(sign))
        return out

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

    def _of_examples(self, name: str) -> _Replicates:
        values = self.per_example(name)
        n_examples = values.shape[1]
        starts = np.arange(0, n_examples, self.plan.batch_size)
        value = np.add.reduceat(values, starts, axis=1).sum(axis=1) / n_examples
        if name == "accuracy_mean_weights":  # no draws, so no Monte Carlo error
            return _Replicates(value, None, values=values)
        batches = [block[name] for block in self._deleted_batch_sums if name in block]
        deleted = np.zeros((0, *value.shape))
        if batches:
            deleted = np.concatenate(batches, axis=2).sum(axis=2) / n_examples
        return _Replicates(value, deleted, values=values)

    def _of_the_set(self) -> dict[str, _Replicates]:
        scores = self.scores()
        n_examples = len(self.label)
        n_groups = min(N_DATA_GROUPS, n_examples)
        keep = np.arange(n_examples) % n_groups != np.arange(n_groups)[:, None]
        draws = set_statistics(scores)
        examples = set_statistics({name: values[0] for name, values in scores.items()}, keep)
        return {
            name: _Replicates(draws[name][0], draws[name][1:], examples[name])
            for name in SET_STATISTICS
        }

    def _metric(self, name: str, found: _Replicates) -> Metric:
        sizes = self.plan.group_sizes
        value, se = found.value, np.zeros_like(found.value)
        if found.without_draws is not None:
            corrected, se = jackknife(found.value, found.without_draws, sizes)
            if name in BIAS_CORRECTED and len(sizes) > 1:
                value, se = corrected, with_correction(found.value, corrected, se)
        if found.values is not None:
            n_examples = found.values.shape[1]
            se_data = np.full(value.shape, np.nan)
            if n_examples > 1:
                se_data = found.values.std(axis=1, ddof=1) / np.sqrt(n_examples)
        else:
            assert found.without_examples is not None
            n_examples, n_groups = len(self.label), len(found.without_examples)
            counts = np.bincount(np.arange(n_examples) % n_groups)
            se_data = jackknife(found.value, found.without_examples, counts.tolist())[1]
        return Metric(value, se, se_data)
