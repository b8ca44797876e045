"""Statistics of a regression's predictions at each threshold, with standard errors and intervals.

The counterpart of ``metrics.classification`` for Normals: sums in, numbers out. The predictive
distribution of an example is the mixture of the draws' Normals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._typing import Float64Array
from ..accumulators.regression import MOMENTS, GroupValues, MeanNormal, NormalSums
from ..posterior.draws import MEAN
from .definitions import LEVELS, REGRESSION
from .estimates import Metric, with_errors
from .example_means import TaskStatistics
from .half_samples import half_samples

_OF_ONE_TARGET = ("error", "pit")
"""Quantities of which an average over targets means nothing."""


def example_quantities(mean: MeanNormal) -> dict[str, Float64Array]:
    """What the mixture says of each example.

    Returns
    -------
    mapping of str to float64 array, shape (n_thresholds, n_examples)
        Where there are several targets, averages over them, but ``nll``, which is of all targets
        together; and under ``NAME_by_target``, with an axis more, what it is of each.
        ``error``: mean of the mixture less target, whose square is ``squared_error``;
        ``squared_error_single_draw``: mean over draws; ``nll``, nats; ``crps``, unbiased for any
        number of draws, so that single values can be negative; ``pit``; ``inside_50`` and so on:
        whether the target is in the mixture's central interval; ``aleatoric_variance``: mean over
        draws of the Normals' variances; ``epistemic_variance``: variance over draws of their
        means; ``predictive_sd``: root of the sum of both.
    """
    error = mean.error
    epistemic = np.maximum(mean.squared_error - error * error, 0.0)
    pit = np.clip(mean.below, 0.0, 1.0)
    quantities = {
        "error": error,
        "squared_error": error * error,
        "squared_error_single_draw": mean.squared_error,
        "absolute_error": np.abs(error),
        "nll": -mean.log_density,
        "crps": mean.distance - 0.5 * mean.spread,
        "pit": pit,
        **_inside(pit),
        "aleatoric_variance": mean.variance,
        "epistemic_variance": epistemic,
        "predictive_sd": np.sqrt(mean.variance + epistemic),
    }
    return {**_over_targets(quantities), "nll": -mean.joint_log_density}


def _inside(pit: Float64Array) -> dict[str, Float64Array]:
    """Whether each target is in the central intervals: what moves in steps."""
    return {
        f"inside_{level}": (np.abs(pit - 0.5) <= level / 200).astype(np.float64) for level in LEVELS
    }


def _over_targets(quantities: Mapping[str, Float64Array]) -> dict[str, Float64Array]:
    """Averages over targets and, beside them, what was averaged; one target's stay as they are."""
    if all(values.ndim == 2 for values in quantities.values()):
        return dict(quantities)
    means = {
        name: values.mean(axis=2)
        for name, values in quantities.items()
        if name not in _OF_ONE_TARGET
    }
    return means | {f"{name}_by_target": values for name, values in quantities.items()}


@dataclass
class RegressionStatistics(TaskStatistics):
    """Statistics of Normals; units of the plan hold draws of two noises each, to be compared."""

    definitions = REGRESSION

    def add_block(self, sums: Mapping[int, NormalSums], label: Float64Array) -> None:
        """Take in a block of examples.

        Parameters
        ----------
        sums : mapping of group to NormalSums
            Of every group, and of the mean network under ``MEAN``.
        label : float64 array, shape (n_examples,) or (n_examples, n_targets) of the block
            Targets.
        """
        sizes = self.plan.group_sizes
        groups = [GroupValues.of(sums[group]) for group in range(len(sizes))]
        total, without = _all_and_without_each(groups)
        whole = example_quantities(self._mean(total, sum(sizes)))
        at_mean = GroupValues.of(sums[MEAN]).mean(1, 0)
        whole |= _over_targets({"squared_error_mean_weights": at_mean.error * at_mean.error})
        self._means.add(
            whole,
            (
                {
                    name: values
                    for name, values in example_quantities(
                        self._mean(rest, sum(sizes) - size)
                    ).items()
                    if not name.startswith("inside")
                }
                for rest, size in zip(without, sizes, strict=False)
            ),
            self._of_halves(groups),
        )
        self._labels.append(label)

    @property
    def target(self) -> Float64Array:
        """Targets of the examples so far."""
        return self.label

    def of_targets(self, name: str) -> Float64Array:
        """A quantity of every example, where there are several targets of each of them.

        Returns
        -------
        float64 array, shape (n_thresholds, n_examples) or (n_thresholds, n_examples, n_targets)
        """
        return self.per_example(name if self.target.ndim == 1 else f"{name}_by_target")

    def metrics_by_target(self) -> dict[str, Metric]:
        """Every metric of each of several targets, arrays of shape (n_thresholds, n_targets)."""
        of_targets = {
            name: replace(
                definition,
                quantity=f"{definition.quantity or name}_by_target",
                has_band=False,
            )
            for name, definition in self.definitions.items()
        }
        estimates = self._means.estimates(of_targets)
        return with_errors(estimates, of_targets, self.plan.group_sizes)

    def _of_halves(self, groups: Sequence[GroupValues]) -> Iterator[dict[str, Float64Array]]:
        """What moves in steps, of each half of the draws."""
        sizes = np.array(self.plan.group_sizes)
        below = [group.sums[..., MOMENTS.index("below")] for group in groups]
        for half in half_samples(len(sizes)):
            first, *others = np.flatnonzero(half)
            total = below[first].copy()
            for group in others:
                total += below[group]
            n_draws = int(sizes[half].sum()) * self.plan.draws_per_replicate
            yield _over_targets(_inside(np.clip(total / n_draws, 0.0, 1.0)))

    def _mean(self, values: GroupValues, n_replicates: int) -> MeanNormal:
        replicate = self.plan.replicates[0]
        comparisons = sum(
            draw.noise != other.noise for k, draw in enumerate(replicate) for other in replicate[:k]
        )
        return values.mean(n_replicates * len(replicate), n_replicates * comparisons)


def _all_and_without_each(
    groups: Sequence[GroupValues],
) -> tuple[GroupValues, Iterator[GroupValues]]:
    """The sum of all groups, and the sums of all but each in turn.

    What is left is added up anew, from both sides: taken off the whole, a density next to one
    that is many powers of ten larger would be lost.
    """
    after = [groups[-1]]
    for group in groups[-2::-1]:
        after.append(group + after[-1])
    after.reverse()

    def without_each() -> Iterator[GroupValues]:
        if len(groups) < 2:
            return
        before: GroupValues | None = None
        for index, group in enumerate(groups):
            last = index + 1 == len(groups)
            if before is None:
                yield after[1]
            else:
                yield before if last else before + after[index + 1]
            before = group if before is None else before + group

    return after[0], without_each()
