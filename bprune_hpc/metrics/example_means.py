"""Means over examples, whole and without each group of draws, with both standard errors.

Pure. Sums over examples are taken batch by batch, so that they do not depend on the blocks in
which examples came. Which quantities there are is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .classification import Metric
from .jackknife import jackknife, with_correction

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A statistic at each threshold, whole and without each group of draws.

    Attributes
    ----------
    value : float64 array, shape (n_thresholds,)
    without : float64 array, shape (n_groups, n_thresholds), or None
        None for what depends on no draw.
    influence : float64 array, shape (n_thresholds, n_examples)
        What the examples add to it, of which the statistic is, to first order, the mean (but for
        a constant).
    """

    value: Floats
    without: Floats | None
    influence: Floats

    def less_the_first(self) -> Estimate:
        """The difference to the first threshold."""
        return Estimate(
            self.value - self.value[0],
            None if self.without is None else self.without - self.without[:, :1],
            self.influence - self.influence[0],
        )

    def root(self) -> Estimate:
        """The square root of the statistic."""
        value = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(value > 0, 0.5 / value, 0.0)
        return Estimate(
            value,
            None if self.without is None else np.sqrt(self.without),
            self.influence * slope[:, None],  # the delta method
        )

    def metric(self, sizes: Sequence[int], is_corrected: bool) -> Metric:
        """The statistic with its two standard errors.

        Parameters
        ----------
        sizes : sequence of int
            Units in each group of draws.
        is_corrected : bool
            Whether to take the jackknife's estimate of the bias off.
        """
        value, se = self.value, np.zeros_like(self.value)
        if self.without is not None:
            corrected, se = jackknife(self.value, self.without, sizes)
            if is_corrected and len(sizes) > 1:
                value, se = corrected, with_correction(self.value, corrected, se)
        n_examples = self.influence.shape[1]
        se_data = np.full(value.shape, np.nan)
        if n_examples > 1:
            se_data = self.influence.std(axis=1, ddof=1) / np.sqrt(n_examples)
        return Metric(value + 0.0, se, se_data)  # no minus zero


@dataclass
class ExampleMeans:
    """Quantities of every example, gathered block by block.

    Attributes
    ----------
    batch_size : int
        Blocks are whole batches, but for the last.
    """

    batch_size: int
    _values: dict[str, list[Floats]] = field(default_factory=dict)
    _batch_sums_without: dict[str, list[Floats]] = field(default_factory=dict)

    def add(self, whole: dict[str, Floats], without: Iterable[dict[str, Floats]]) -> None:
        """Take in a block.

        Parameters
        ----------
        whole : mapping of str to float64 array, shape (n_thresholds, n_examples) of the block
        without : iterable of the same
            Without each group of draws in turn; what is missing there depends on no draw.
        """
        for name, values in whole.items():
            self._values.setdefault(name, []).append(values)
        sums: dict[str, list[Floats]] = {}
        for one in without:
            for name, values in one.items():
                sums.setdefault(name, []).append(self._batch_sums(values))
        for name, of_groups in sums.items():
            self._batch_sums_without.setdefault(name, []).append(np.stack(of_groups))

    def columns(self) -> dict[str, Floats]:
        """Everything so far, all arrays with thresholds along the first axis."""
        out = {f"values/{name}": self.values(name) for name in self._values}
        for name, sums in self._batch_sums_without.items():
            out[f"without/{name}"] = np.moveaxis(np.concatenate(sums, axis=2), 1, 0)
        return out

    def take_columns(self, columns: Mapping[str, Floats]) -> None:
        """Begin with what :meth:`columns` gave, in place of the blocks that it was made of."""
        self._values, self._batch_sums_without = {}, {}
        for key, array in columns.items():
            kind, _, name = key.partition("/")
            if kind == "values":
                self._values[name] = [np.ascontiguousarray(array)]
            else:
                # In the layout of an array that was never taken apart: sums depend on it.
                self._batch_sums_without[name] = [np.ascontiguousarray(np.moveaxis(array, 0, 1))]

    def values(self, name: str) -> Floats:
        """A quantity of every example so far, shape (n_thresholds, n_examples)."""
        return np.concatenate(self._values[name], axis=1)

    def mean(self, name: str, n_groups: int) -> Estimate:
        """Its mean over the examples."""
        values = self.values(name)
        n_examples = values.shape[1]
        value = self._batch_sums(values).sum(axis=1) / n_examples
        sums = self._batch_sums_without.get(name)
        without = np.zeros((0, *value.shape)) if n_groups < 2 else None
        if sums is not None:
            without = np.concatenate(sums, axis=2).sum(axis=2) / n_examples
        return Estimate(value, without, values)

    def _batch_sums(self, values: Floats) -> Floats:
        return np.add.reduceat(values, np.arange(0, values.shape[1], self.batch_size), axis=1)
