"""Exact, order-free sums over draws of what a classifier predicts.

Every quantity is put on a fixed-point grid and added as an integer, so that no sum rounds and
none depends on the order or the place in which its terms were added. What is bounded takes one
integer. The true class's probability takes three of 50 bits each, so that its mean is right
down to 2**-150, below float32's smallest number (2**-149).

Adding up belongs here; statistics of the sums do not (``metrics.classification``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .._typing import AnyArray, BoolArray, Float32Array, Float64Array, Int64Array
from ..posterior.draws import N_GROUPS

PROBABILITY_BITS = 50
ENTROPY_BITS = 46  # an entropy is below 16 nats for less than 8.8 million classes
DRAW_NLL_BITS = 30
N_TAILS = 2
N_OTHERS = 3  # squares, entropy, n_correct: the last columns, in this order
MAX_NLL = 150 * math.log(2)
"""NLL in nats of a true-class probability of 2**-150; what is smaller still is counted as this."""
MAX_DRAWS = N_GROUPS * 2 ** (63 - PROBABILITY_BITS - 1)
"""Draws that no group's 64-bit sums can overflow at."""

_ONE = 2.0**PROBABILITY_BITS
_SIX = np.float64(6)
"""Added to numbers between -2 and 2: a sum's last bit is worth 2**-50, so that its bits, less those
of 6, are the nearest integer multiple. Several times faster than NumPy's conversion."""
_SIX_BITS = np.array([_SIX]).view(np.int64)
_NLL_SHIFT = np.float64(1.5 * 2.0 ** (52 - DRAW_NLL_BITS))
"""The same for multiples of the unit of a draw's NLL."""


class GroupSums:
    """Sums over the draws of one group, for every threshold and for a block of examples.

    All arrays are views of one int64 buffer, which is what is sent and reduced. A class's examples
    are next to each other in it, since that is how they are computed.

    Attributes
    ----------
    buffer : int64 array, shape (n_thresholds, n_classes + 5, n_examples)
    packed : int64 array, shape (n_thresholds, n_examples, n_classes + 5)
        The same, example by example.
    probability : int64 array, shape (n_thresholds, n_examples, n_classes)
        Class probabilities, in units of 2**-50.
    tail : int64 array, shape (n_thresholds, n_examples, 2)
        What the true class's probability has beyond that, in units of 2**-100 and 2**-150; negative
        where it was rounded up.
    squares : int64 array, shape (n_thresholds, n_examples)
        Sum over classes of each draw's squared probabilities, in units of 2**-50.
    entropy : int64 array, shape (n_thresholds, n_examples)
        Entropy of each draw's prediction, in units of 2**-46 nats.
    n_correct : int64 array, shape (n_thresholds, n_examples)
        Number of draws that put the true class first.
    """

    def __init__(self, n_thresholds: int, n_examples: int, n_classes: int) -> None:
        self.buffer = np.zeros((n_thresholds, n_classes + N_TAILS + N_OTHERS, n_examples), np.int64)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.buffer.shape[1] - N_TAILS - N_OTHERS

    @property
    def packed(self) -> Int64Array:
        """See the class."""
        return np.moveaxis(self.buffer, 1, 2)

    @property
    def probability(self) -> Int64Array:
        """See the class."""
        return self.packed[..., : self.n_classes]

    @property
    def tail(self) -> Int64Array:
        """See the class."""
        return self.packed[..., self.n_classes : self.n_classes + N_TAILS]

    @property
    def squares(self) -> Int64Array:
        """See the class."""
        return self.packed[..., -3]

    @property
    def entropy(self) -> Int64Array:
        """See the class."""
        return self.packed[..., -2]

    @property
    def n_correct(self) -> Int64Array:
        """See the class."""
        return self.packed[..., -1]

    def clear(self) -> None:
        """Begin again at zero."""
        self.buffer.fill(0)

    def are_possible(self, thresholds: BoolArray, n_draws: int) -> bool:
        """Whether so many draws can have given the sums at some thresholds."""
        for column in range(self.buffer.shape[1]):
            numbers = self.buffer[thresholds, column]
            is_tail = 0 <= column - self.n_classes < N_TAILS
            is_count = column == self.buffer.shape[1] - 1
            most = n_draws * (1.0 if is_count else _ONE + 2**20)  # entropies are below 16 nats
            least = -most if is_tail else 0
            if numbers.size and not least <= numbers.min() <= numbers.max() <= most:
                return False
        return True

    def add(
        self, threshold: int, rows: slice, predictions: Predictions, draws: slice = slice(None)
    ) -> None:
        """Add what draws (by their places among the predictions) say of some rows of the block."""
        into = self.buffer[threshold, :, rows]
        into += predictions.summed(draws)


def bytes_per_cell(n_classes: int) -> int:
    """Bytes of one group's sums for one threshold and one example."""
    return 8 * (n_classes + N_TAILS + N_OTHERS)


@dataclass(frozen=True)
class Predictions:
    """What some draws say of a batch of examples.

    Attributes
    ----------
    weight : float64 array, shape (n_draws, n_classes, n_examples)
        Probabilities of the classes relative to the largest one's.
    scale : float64 array, shape (n_draws, n_examples)
        What makes probabilities of them.
    entropy : float64 array, shape (n_draws, n_examples), nats
    true_index : int64 array, shape (n_examples,)
        Where each example's true class lies among ``n_classes * n_examples`` numbers.
    correct : bool array, shape (n_draws, n_examples)
        Whether the most probable class (the first of equals) is the true one.
    nll : float64 array, shape (n_draws, n_examples), nats
        Negative log-probability of the true class, at most ``MAX_NLL``.
    """

    weight: Float64Array
    scale: Float64Array
    entropy: Float64Array
    true_index: Int64Array
    correct: BoolArray
    nll: Float64Array

    @classmethod
    def from_logits(cls, logits: Float32Array, label: Int64Array) -> Predictions:
        """Softmax, entropy and log-probability in float64, by the log-sum-exp form.

        Parameters
        ----------
        logits : float array, shape (n_draws, n_classes, n_examples), finite
        label : int64 array, shape (n_examples,)
            Below ``n_classes``, as reading has made sure.
        """
        largest = logits.max(axis=1)[:, None]
        true_index = label * len(label) + np.arange(len(label))
        shifted = logits.astype(np.float64, order="C")
        correct = _at(logits, true_index) == largest[:, 0]
        if np.count_nonzero(logits == largest) != correct.size:  # several, of which the first
            correct = logits.argmax(axis=1) == label
        shifted -= largest.astype(np.float64)
        weight = np.exp(shifted)
        total = weight.sum(axis=1)
        scale = 1 / total
        log_total = np.log(total, out=total)
        entropy = np.einsum("dcn,dcn->dn", shifted, weight)
        entropy *= scale
        np.subtract(log_total, entropy, out=entropy)
        nll = log_total
        nll -= _at(shifted, true_index)
        return cls(
            weight=weight,
            scale=scale,
            entropy=np.maximum(entropy, 0.0, out=entropy),
            true_index=true_index,
            correct=correct,
            nll=np.minimum(nll, MAX_NLL, out=nll),
        )

    @property
    def probability(self) -> Float64Array:
        """Class probabilities, shape (n_draws, n_classes, n_examples)."""
        return self.weight * self.scale[:, None]

    @property
    def packed(self) -> Int64Array:
        """The predictions on the fixed-point grid of :class:`GroupSums`.

        Returns
        -------
        int64 array, shape (n_draws, n_classes + 5, n_examples)
        """
        return self._above_six - _SIX_BITS

    def summed(self, draws: slice) -> Int64Array:
        """Sum of some draws' ``packed``, shape (n_classes + 5, n_examples)."""
        above = self._above_six[draws]
        total: Int64Array
        # The usual pair, which NumPy's sum takes twice as long for.
        total = np.add(*above) if len(above) == 2 else above.sum(axis=0)
        total -= _SIX_BITS * len(above)  # modulo 2**64, as the sum is
        return total

    @cached_property
    def _above_six(self) -> Int64Array:
        """``packed`` and the bits of 6."""
        n_draws, n_classes, n_examples = self.weight.shape
        out = np.empty((n_draws, n_classes + N_TAILS + N_OTHERS, n_examples))
        of_classes = out[:, :n_classes]
        np.multiply(self.weight, self.scale[:, None], out=of_classes)
        np.einsum("dcn,dcn->dn", of_classes, of_classes, out=out[:, -3])
        # What the true class has beyond the grid: exact in float64, as is scaling it.
        rest = _at(self.weight, self.true_index)
        rest *= self.scale
        rest -= (rest + _SIX) - _SIX
        for tail in range(n_classes, n_classes + N_TAILS):
            rest *= _ONE
            np.add(rest, _SIX, out=out[:, tail])
            rest -= out[:, tail] - _SIX
        of_classes += _SIX
        out[:, -3] += _SIX
        np.multiply(self.entropy, 2.0**ENTROPY_BITS / _ONE, out=out[:, -2])
        np.divide(self.correct, _ONE, out=out[:, -1])
        out[:, -2:] += _SIX
        return out.view(np.int64)

    @property
    def nll_in_units(self) -> Int64Array:
        """The NLL to the nearest of :class:`DrawSums`' units, shape (n_draws, n_examples)."""
        units = (self.nll + _NLL_SHIFT).view(np.int64)
        units -= _NLL_SHIFT.view(np.int64)
        return units


def _at(values: AnyArray, index: Int64Array) -> AnyArray:
    """Numbers of each draw at places among its (n_classes, n_examples)."""
    return values.reshape(len(values), -1).take(index, axis=1, mode="clip")  # the fastest mode


@dataclass
class DrawSums:
    """Sums over the examples, kept for each draw.

    Attributes
    ----------
    packed : int64 array, shape (2, n_thresholds, n_draws)
        Number of correct examples, and NLL in units of 2**-30 nats.
    """

    packed: Int64Array

    @classmethod
    def zeros(cls, n_thresholds: int, n_draws: int) -> DrawSums:
        """Empty sums."""
        return cls(np.zeros((2, n_thresholds, n_draws), np.int64))

    def are_possible(self, thresholds: BoolArray, n_examples: int) -> bool:
        """Whether at most so many examples can have given the sums at some thresholds."""
        correct, nll = self.packed[:, thresholds]
        largest_nll = n_examples * (MAX_NLL * 2.0**DRAW_NLL_BITS + 1)
        return bool(
            ((correct >= 0) & (correct <= n_examples)).all()
            and ((nll >= 0) & (nll <= largest_nll)).all()
        )

    def add(
        self,
        threshold: int,
        draws: Sequence[int],
        predictions: Predictions,
        places: slice = slice(None),
    ) -> None:
        """Add a batch of examples that some draws, each named once, have predicted."""
        correct, nll = predictions.correct[places], predictions.nll_in_units[places]
        self.packed[0, threshold, draws] += np.count_nonzero(correct, axis=1)
        self.packed[1, threshold, draws] += nll.sum(axis=1)

    def add_sums(self, threshold: int, draws: Sequence[int], sums: Int64Array) -> None:
        """Add such sums of some draws, each named once, shape (2, n_draws)."""
        self.packed[:, threshold, draws] += sums

    def accuracy(self, n_examples: int) -> Float64Array:
        """Accuracy of each draw, shape (n_thresholds, n_draws)."""
        return self.packed[0] / n_examples

    def nll(self, n_examples: int) -> Float64Array:
        """Mean NLL of each draw in nats, shape (n_thresholds, n_draws)."""
        return self.packed[1] / (2.0**DRAW_NLL_BITS * n_examples)


@dataclass(frozen=True)
class MeanPrediction:
    """Means over draws, from the exact sums of some groups, each worked out when asked for.

    Attributes
    ----------
    total : float64 or int64 array, shape (n_thresholds, n_examples, n_classes + 5)
        Sums of one or more groups, in the layout of :class:`GroupSums`, contiguous.
    n_draws : int
        Number of draws in them.
    label : int64 array, shape (n_examples,)
    """

    total: AnyArray
    n_draws: int
    label: Int64Array

    @property
    def _of_classes(self) -> AnyArray:
        return self.total[..., : -N_TAILS - N_OTHERS]

    @cached_property
    def probability(self) -> Float64Array:
        """The predictive distribution, shape (n_thresholds, n_examples, n_classes)."""
        return self._of_classes / (_ONE * self.n_draws)

    @cached_property
    def true_probability(self) -> Float64Array:
        """That of the true class, right down to 2**-150, shape (n_thresholds, n_examples)."""
        head = np.take_along_axis(self._of_classes, self.label[None, :, None], axis=2)[..., 0]
        true_probability = np.zeros(head.shape)
        first = self._of_classes.shape[2]
        for tail in reversed(range(N_TAILS)):  # smallest first
            true_probability = (true_probability + self.total[..., first + tail]) / _ONE
        return (true_probability + head) / (_ONE * self.n_draws)

    @property
    def expected_squares(self) -> Float64Array:
        """Mean over draws of the sum over classes of squared probabilities."""
        return self.total[..., -3] / (_ONE * self.n_draws)

    @property
    def expected_entropy(self) -> Float64Array:
        """Mean over draws of the entropy, nats."""
        return self.total[..., -2] / (2.0**ENTROPY_BITS * self.n_draws)

    @property
    def single_draw_accuracy(self) -> Float64Array:
        """Fraction of draws that put the true class first."""
        return self.total[..., -1] / self.n_draws


def mean_prediction(total: AnyArray, n_draws: int, label: Int64Array) -> MeanPrediction:
    """Turn sums over draws, in any layout, into means: :class:`MeanPrediction` of the same."""
    # One layout, whatever the number of thresholds: the order in which NumPy adds follows it.
    return MeanPrediction(np.ascontiguousarray(total), n_draws, label)
