"""How well uncertainty tells examples of another kind (out of distribution) from the test set.

Pure: the scores of both sets in, areas under curves out, with both standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._typing import BoolArray, Float64Array
from .definitions import OUT_OF_DISTRIBUTION
from .detection import areas, worth
from .estimates import Estimate, Metric, all_but_one_group, with_errors
from .row_chunks import by_rows

_AREAS = ("auroc", "aupr")
_SCORES = {"entropy": "predictive_entropy", "mutual_information": "mutual_information"}


def ood_metrics(
    test: Mapping[str, Float64Array], other: Mapping[str, Float64Array], group_sizes: Sequence[int]
) -> dict[str, Metric]:
    """Areas under the curves of every score, and their differences to the first threshold.

    The sets are independent samples: the test-set error is the root of the summed squares of two
    jackknives, over groups of the one and of the other (Arvesen 1969).

    Parameters
    ----------
    test, other : mapping of str to float64 array, shape (1 + n_halves, n_thresholds, n_examples)
        Scores of all draws and of each half of them, as of
        :meth:`bprune_hpc.metrics.classification.Statistics.scores`.
    group_sizes : sequence of int
        Of the groups of draws.

    References
    ----------
    J. N. Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40 (1969) 2076.
    """
    estimates = {}
    for short, score in _SCORES.items():
        n_examples = test[score].shape[2], other[score].shape[2]
        n_test, n_other = np.array(n_examples, np.float64)
        is_other = np.repeat([False, True], n_examples)
        of_draws = _areas(test[score], other[score], is_other, None)
        without = [
            _areas(test[score][0], other[score][0], is_other, all_but_one_group(is_in_sample))
            for is_in_sample in (~is_other, is_other)
        ]
        for area, draws, *examples in zip(_AREAS, of_draws, *without, strict=True):
            estimates[f"{area}_ood_{short}"] = Estimate(
                draws[0], draws[1:], None, tuple(examples), n_examples, True,
                n_worth=np.broadcast_to(worth(area, n_other, n_test), draws[0].shape),
            )  # fmt: skip
    return with_errors(estimates, OUT_OF_DISTRIBUTION, group_sizes)


def _areas(
    test: Float64Array, other: Float64Array, is_other: BoolArray, keep: BoolArray | None
) -> list[Float64Array]:
    def of_rows(test: Float64Array, other: Float64Array) -> list[Float64Array]:
        both = np.concatenate([test, other], axis=1)
        of_both = areas(both, np.broadcast_to(is_other, both.shape), keep)
        return [area.reshape(-1, len(both)) for area in of_both]

    return by_rows(of_rows, keep, test, other)
