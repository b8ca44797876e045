"""What a network is for: classes, or numbers. The one place where the two part.

A task knows how outputs become a prediction, which sums are kept of predictions, and which
statistics are made of the sums. Which task a network is for is decided in
``runner.task_selection``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np

from .. import compiled
from .._typing import Float32Array, Float64Array, Int64Array
from ..accumulators import classification, regression
from ..accumulators.classification import MAX_NLL, DrawSums, GroupSums, Predictions
from ..accumulators.classification_compiled import add_logits
from ..accumulators.regression import NormalDrawSums, NormalPrediction, NormalSums
from ..errors import BpruneError
from ..posterior.draws import Draw, DrawDesign
from .classification import Statistics
from .estimates import Metric
from .regression import RegressionStatistics

AnySums = GroupSums | NormalSums
AnyDrawSums = DrawSums | NormalDrawSums

_MOST_PROBABILITY_BYTES = 2**30
ROUNDING = 0.01
"""By how much probabilities may miss [0, 1], and their sum 1: in half precision, or behind a clip,
they do."""
_IS_IT_THIS = "are these the data that it was trained for, scaled and labelled as then?"


def _by_group(draws: Sequence[tuple[int, Draw]]) -> Iterator[tuple[int, slice]]:
    """Groups, and which of the draws are theirs."""
    start = 0
    for group, members in groupby(draws, key=lambda member: member[0]):
        stop = start + len(list(members))
        yield group, slice(start, stop)
        start = stop


def class_logits(outputs: Float32Array, output_kind: str | None, is_binary: bool) -> Float32Array:
    """Logits of classes, from what a network gives; see :meth:`Classification.logits`."""
    if output_kind is None:
        raise ValueError("not told yet whether outputs are logits or probabilities")
    if output_kind == "logits":
        if not is_binary:
            return outputs
        return np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    least, largest = outputs.min(initial=0), outputs.max(initial=0)
    if least < -ROUNDING or (is_binary and largest > 1 + ROUNDING):
        raise BpruneError(
            f"the network gives {least if least < -ROUNDING else largest:g} where it gave "
            "probabilities before; pass --output_kind=logits"
        )
    outputs = np.maximum(outputs, np.float32(0))
    with np.errstate(divide="ignore"):
        of_outputs = np.log(outputs)
        if is_binary:
            of_zero = np.log1p(-np.minimum(outputs, np.float32(1)))
            of_outputs = np.concatenate([of_zero, of_outputs], axis=1)
    return np.maximum(of_outputs, np.float32(-MAX_NLL))


@dataclass(frozen=True)
class Classification:
    """Outputs are of classes that exclude each other, labels are class numbers.

    Attributes
    ----------
    n_classes : int
    output_kind : {"logits", "probabilities"} or None
        None as long as no outputs were seen that tell it.
    is_binary : bool
        Whether the network gives one number, of class 1, for two classes.
    """

    n_classes: int
    output_kind: str | None = "logits"
    is_binary: bool = False
    name: ClassVar[str] = "classification"
    noises_per_replicate: ClassVar[int] = 1

    @property
    def bytes_per_cell(self) -> int:
        """Bytes of one group's sums for one threshold and example."""
        return classification.bytes_per_cell(self.n_classes)

    @property
    def n_outputs(self) -> int:
        """Numbers that the network gives for an example."""
        return 1 if self.is_binary else self.n_classes

    def logits(self, outputs: Float32Array) -> Float32Array:
        """Logits of the classes: of probabilities their logarithms, which a softmax takes back.

        A probability of 0 counts as 2**-150, below float32's smallest number: its NLL is
        ``MAX_NLL``. One logit z of class 1 is (0, z) of two classes.

        Parameters
        ----------
        outputs : float32 array, shape (n_draws, n_outputs, n_examples), finite

        Returns
        -------
        float32 array, shape (n_draws, n_classes, n_examples)

        Raises
        ------
        BpruneError
            If a probability is negative, or a single one above 1, by more than rounding.
        """
        return class_logits(outputs, self.output_kind, self.is_binary)

    def sums(self, n_thresholds: int, n_examples: int, draws_per_replicate: int) -> GroupSums:
        """Empty sums of a group of draws."""
        return GroupSums(n_thresholds, n_examples, self.n_classes)

    def draw_sums(self, n_thresholds: int, n_draws: int) -> DrawSums:
        """Empty sums of each draw."""
        return DrawSums.zeros(n_thresholds, n_draws)

    def add_up(
        self,
        outputs: Float32Array,
        label: Int64Array,
        draws: Sequence[tuple[int, Draw]],
        at: tuple[int, slice],
        sums: Mapping[int, GroupSums] | None,
        draw_sums: DrawSums,
    ) -> None:
        """Add what some draws say of a batch of examples.

        Parameters
        ----------
        outputs : float32 array, shape (n_draws, n_outputs, n_examples)
        draws : sequence of (group, Draw)
            Those of one group come one after the other.
        at : tuple
            Threshold, and rows within the block of examples.
        sums : mapping of group to GroupSums, or None
            None where sums are kept of draws alone.
        """
        outputs = self.logits(outputs).astype(np.float32, copy=False)
        # The posterior mean is no draw; it comes first.
        indices = [draw.index for _, draw in draws if draw.sign]
        places = slice(len(draws) - len(indices), None)
        if compiled.instructions() != compiled.NONE:
            narrow = label.astype(np.int32)
            if sums is None:
                unused, rows = GroupSums(1, len(label), self.n_classes), slice(0, len(label))
                of_draws = [add_logits(unused, 0, rows, outputs, narrow)]
            else:
                of_draws = [
                    add_logits(sums[group], *at, outputs[of_group], narrow)
                    for group, of_group in _by_group(draws)
                ]
            draw_sums.add_sums(at[0], indices, np.concatenate(of_draws, axis=1)[:, places])
            return
        predictions = Predictions.from_logits(outputs, label)
        if sums is not None:
            for group, of_group in _by_group(draws):
                sums[group].add(*at, predictions, of_group)
        if indices:
            draw_sums.add(at[0], indices, predictions, places)

    def statistics(self, plan: DrawDesign, n_examples: int, save_probabilities: bool) -> Statistics:
        """Where sums become metrics."""
        n_bytes = 4 * plan.n_thresholds * n_examples * self.n_classes
        return Statistics(plan, n_bytes < _MOST_PROBABILITY_BYTES or save_probabilities)

    def doubt(self, label: Int64Array, metrics: Mapping[str, Metric]) -> str:
        """Why the first threshold's numbers may be those of other data; empty if nothing says so.

        Parameters
        ----------
        label : int64 array, shape (n_examples,)
        metrics : mapping of str to Metric
        """
        counts = np.bincount(label)
        share = counts.max() / len(label)
        accuracy = metrics["accuracy"].value[0]
        if share == 1 or not accuracy <= share:  # of one class a guess is always right
            return ""
        return (
            f"the unpruned network is right in {accuracy:.4g} of the examples, no more than "
            f"{share:.4g} by always naming class {counts.argmax()}; {_IS_IT_THIS}"
        )


@dataclass(frozen=True)
class Regression:
    """Outputs are means of Normals, one a target, or these and standard deviations after them.

    Attributes
    ----------
    noise_scale : float or None
        The standard deviation of every example, where the network gives means alone.
    n_targets : int
        Numbers to predict of an example. Given the weights they are independent.
    """

    noise_scale: float | None
    n_targets: int = 1
    name: ClassVar[str] = "regression"
    n_classes: ClassVar[int] = 0
    # The mean distance of two draws, a part of CRPS, has to be that of independent ones: never of
    # the two of one antithetic pair. So two pairs make a replicate, and are compared with each
    # other.
    noises_per_replicate: ClassVar[int] = 2

    @property
    def bytes_per_cell(self) -> int:
        """Bytes of one group's sums for one threshold and example."""
        return regression.bytes_per_cell(self.n_targets)

    @property
    def n_outputs(self) -> int:
        """Numbers that the network gives for an example."""
        return self.n_targets * (1 if self.noise_scale is not None else 2)

    def sums(self, n_thresholds: int, n_examples: int, draws_per_replicate: int) -> NormalSums:
        """Empty sums of a group of draws."""
        return NormalSums(n_thresholds, n_examples, draws_per_replicate, self.n_targets)

    def draw_sums(self, n_thresholds: int, n_draws: int) -> NormalDrawSums:
        """Empty sums of each draw."""
        return NormalDrawSums(n_thresholds, n_draws)

    def add_up(
        self,
        outputs: Float32Array,
        label: Float64Array,
        draws: Sequence[tuple[int, Draw]],
        at: tuple[int, slice],
        sums: Mapping[int, NormalSums] | None,
        draw_sums: NormalDrawSums,
    ) -> None:
        """Add what some draws say of a batch of examples.

        Parameters
        ----------
        outputs : float32 array, shape (n_draws, n_outputs, n_examples)
        draws : sequence of (group, Draw)
            Those of a replicate come one after the other.
        at : tuple
            Threshold, and rows within the block of examples.
        sums : mapping of group to NormalSums, or None
            None where sums are kept of draws alone.

        Raises
        ------
        BpruneError
            If there is not one mean a target, or a standard deviation is not positive.
        """
        if outputs.shape[1] != self.n_outputs:
            raise BpruneError(
                f"the network gives {outputs.shape[1]} numbers an example, not {self.n_outputs}; a "
                "regression needs one mean a target"
            )
        for columns, (group, draw) in zip(outputs.astype(np.float64), draws, strict=True):
            loc = self._of_targets(columns[: self.n_targets])
            if self.noise_scale is None:
                scale = self._of_targets(columns[self.n_targets :])
            else:
                scale = np.full(label.shape, self.noise_scale)
            if not (scale > 0).all():
                raise BpruneError(
                    f"draw {draw.index}: the standard deviation that the network gives is "
                    f"{scale.min():g}; name another operation with --scale_op"
                )
            prediction = NormalPrediction(loc - label, scale, draw)
            if sums is not None:
                sums[group].add(*at, prediction)
            if draw.sign:
                draw_sums.add(at[0], draw.index, prediction)

    def statistics(
        self, plan: DrawDesign, n_examples: int, save_probabilities: bool
    ) -> RegressionStatistics:
        """Where sums become metrics."""
        return RegressionStatistics(plan)

    def _of_targets(self, columns: Float64Array) -> Float64Array:
        """Columns as labels are: one number an example, or a row of them."""
        return columns[0] if self.n_targets == 1 else columns.T

    def doubt(self, label: Float64Array, metrics: Mapping[str, Metric]) -> str:
        """See :meth:`Classification.doubt`; compared with the mean of the targets."""
        spread, error = np.sqrt(label.var(axis=0).mean()), metrics["rmse"].value[0]
        if not error >= spread:
            return ""
        return (
            f"the unpruned network's RMSE is {error:.4g}, no less than {spread:.4g} by always "
            f"giving the mean of the targets; {_IS_IT_THIS}"
        )


Task = Classification | Regression
AnyStatistics = Statistics | RegressionStatistics

TASKS = ("auto", "classification", "regression")
