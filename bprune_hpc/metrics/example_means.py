"""Means over examples, of all draws and of parts of them: what all tasks' statistics share.

Pure. Sums over examples are taken batch by batch, so that they do not depend on the blocks in
which examples came. Which quantities there are is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .._typing import AnyArray, BoolArray, Float64Array
from ..posterior.draws import DrawDesign
from .definitions import Definition
from .estimates import Estimate, Metric, with_errors


@dataclass
class ExampleMeans:
    """Quantities of every example, gathered block by block.

    Attributes
    ----------
    batch_size : int
        Blocks are whole batches, but for the last.
    kinds : tuple of str
        What columns begin with: of values, of their sums without each group of draws, of their
        sums with each half of the draws, of values with all draws and with each half.
    scores : tuple of str
        Quantities of which the last are kept, in place of the sums with each half.
    """

    batch_size: int
    kinds: tuple[str, str, str, str] = ("values", "without", "halves", "scores")
    scores: tuple[str, ...] = ()
    _columns: dict[str, list[AnyArray]] = field(default_factory=dict)

    def add(
        self,
        whole: Mapping[str, AnyArray],
        without: Iterable[Mapping[str, Float64Array]],
        halves: Iterable[Mapping[str, Float64Array]] = (),
    ) -> None:
        """Take in a block.

        Parameters
        ----------
        whole : mapping of str to array, shape (n_thresholds, n_examples, ...) of the block
        without : iterable of the same
            Without each group of draws in turn: of what is smooth in the draws.
        halves : iterable of the same
            With each half of the draws: of what moves in steps.
        """
        of_values, of_sums, of_halves, of_scores = self.kinds
        for name, values in whole.items():
            self._append(f"{of_values}/{name}", values)
        parts: dict[str, list[Float64Array]] = {
            f"{of_scores}/{name}": [whole[name]] for name in self.scores
        }
        for quantities in without:
            for name, values in quantities.items():
                parts.setdefault(f"{of_sums}/{name}", []).append(self._batch_sums(values))
        for quantities in halves:
            for name, values in quantities.items():
                if name in self.scores:
                    parts[f"{of_scores}/{name}"].append(values)
                else:
                    parts.setdefault(f"{of_halves}/{name}", []).append(self._batch_sums(values))
        for key, arrays in parts.items():
            self._append(key, np.stack(arrays))

    def columns(self) -> dict[str, AnyArray]:
        """Everything so far, all arrays with thresholds along the first axis."""
        return {
            key: np.moveaxis(self._column(key), self._axis_of_thresholds(key), 0)
            for key in self._columns
        }

    def add_columns(self, columns: Mapping[str, AnyArray]) -> None:
        """Take in a block, or several, as :meth:`columns` gives it."""
        for key, array in columns.items():
            # In the layout of an array that was never taken apart: sums depend on it.
            axes = np.moveaxis(array, 0, self._axis_of_thresholds(key))
            self._append(key, np.ascontiguousarray(axes))

    def values(self, name: str) -> AnyArray:
        """A quantity of every example so far, shape (n_thresholds, n_examples, ...)."""
        return self._column(f"{self.kinds[0]}/{name}")

    def score(self, name: str) -> Float64Array:
        """The same with all draws and with each half, (1 + n_halves, n_thresholds, ...)."""
        return self._column(f"{self.kinds[3]}/{name}")

    def estimates(self, definitions: Mapping[str, Definition]) -> dict[str, Estimate]:
        """Those metrics, but for differences, that are means over examples, or roots of such."""
        out = {}
        for name, definition in definitions.items():
            if not (definition.is_of_set or definition.difference_of):
                mean = self._mean(definition.quantity or name, definition)
                out[name] = mean.root() if definition.is_root else mean
        return out

    def _mean(self, quantity: str, definition: Definition) -> Estimate:
        values = self.values(quantity)
        value = self._batch_sums(values).sum(axis=1) / values.shape[1]
        if not definition.has_draws:
            return Estimate(value, None, values)
        parts = np.zeros((0, *value.shape))  # of one group, of which there are none
        of_sums, of_halves, of_scores = self.kinds[1:]
        key = f"{of_halves if definition.has_halves else of_sums}/{quantity}"
        if definition.has_halves and f"{of_scores}/{quantity}" in self._columns:
            parts = self.score(quantity)[1:].mean(axis=2)
        elif key in self._columns:
            parts = self._column(key).sum(axis=2) / values.shape[1]
        return Estimate(value, parts, values, has_halves=definition.has_halves)

    def _batch_sums(self, values: Float64Array) -> Float64Array:
        return np.add.reduceat(values, np.arange(0, values.shape[1], self.batch_size), axis=1)

    def _append(self, key: str, block: AnyArray) -> None:
        self._columns.setdefault(key, []).append(block)

    def _column(self, key: str) -> AnyArray:
        return np.concatenate(self._columns[key], axis=1 + self._axis_of_thresholds(key))

    def _axis_of_thresholds(self, key: str) -> int:
        """Examples, or batches of them, are along the next axis."""
        return int(key.partition("/")[0] != self.kinds[0])


@dataclass
class TaskStatistics:
    """Statistics gathered block by block of examples, then turned into metrics.

    Attributes
    ----------
    plan : DrawDesign
        Sums over examples are taken batch by batch, so that they do not depend on the blocks.
    definitions : mapping of str to Definition
        Of every metric of the task.
    """

    plan: DrawDesign
    definitions: ClassVar[Mapping[str, Definition]]
    _means: ExampleMeans = field(init=False)
    _labels: list[AnyArray] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._means = self._no_examples()

    def _no_examples(self) -> ExampleMeans:
        return ExampleMeans(self.plan.batch_size)

    def columns(self) -> dict[str, AnyArray]:
        """What is kept of the examples so far, all arrays with thresholds along the first axis."""
        return self._means.columns()

    def take_columns(self, columns: Mapping[str, AnyArray], label: AnyArray) -> None:
        """Take in what :meth:`columns` gave, in place of the blocks that it was made of."""
        self._means.add_columns(columns)
        self._labels.append(label)

    @property
    def label(self) -> AnyArray:
        """Labels, or targets, of the examples so far."""
        return np.concatenate(self._labels)

    def per_example(self, name: str) -> AnyArray:
        """A quantity of every example so far, shape (n_thresholds, n_examples)."""
        return self._means.values(name)

    def metrics(self, failed: BoolArray | None = None) -> dict[str, Metric]:
        """Every metric that is defined, of the examples so far.

        Parameters
        ----------
        failed : bool array, shape (n_thresholds,), optional
            Thresholds that mean nothing, and that bands over the others are not about.
        """
        estimates = self._means.estimates(self.definitions) | self._of_the_set()
        return with_errors(estimates, self.definitions, self.plan.group_sizes, failed)

    def _of_the_set(self) -> dict[str, Estimate]:
        """Those that are no means over examples."""
        return {}
