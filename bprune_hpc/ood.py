"""How well uncertainty tells examples of another kind (out of distribution) from the test set.

Pure: the scores of both sets in, areas under curves out, with both standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .detection import auroc, average_precision
from .jackknife import jackknife
from .metrics import N_DATA_GROUPS, Metric

Floats = NDArray[np.float64]

_AREAS = {"auroc": auroc, "aupr": average_precision}
_SCORES = {"entropy": "predictive_entropy", "mutual_information": "mutual_information"}
OOD_STATISTICS = {
    f"{area}_ood_{short}": (function, score)
    for short, score in _SCORES.items()
    for area, function in _AREAS.items()
}
"""Area under a curve and the score that it judges, by name; what is positive is the other set."""


def ood_metric_names() -> list[str]:
    """Every metric of :func:`ood_metrics`."""
    return [*OOD_STATISTICS, *(f"{name}_change" for name in OOD_STATISTICS)]


def ood_metrics(
    test: Mapping[str, Floats], other: Mapping[str, Floats], group_sizes: Sequence[int]
) -> dict[str, Metric]:
    """Areas under the curves of every score, and their differences to the first threshold.

    The sets are independent samples: the test-set error is the root of the summed squares of two
    jackknives, over groups of the one and of the other (Arvesen 1969).

    Parameters
    ----------
    test, other : mapping of str to float64 array, shape (1 + n_groups, n_thresholds, n_examples)
        Scores of all draws and without each group of draws, as of
        :meth:`bprune_hpc.metrics.Statistics.scores`.
    group_sizes : sequence of int
        Of the groups of draws.

    References
    ----------
    J. N. Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40 (1969) 2076.
    """
    out = {}
    for name, (area, score) in OOD_STATISTICS.items():
        sets = test[score], other[score]
        n_replicates, n_thresholds = sets[0].shape[:2]
        is_other = np.repeat([False, True], [one.shape[2] for one in sets])
        masks = _all_but_one_group(is_other)
        draws = np.empty((n_replicates, n_thresholds))
        examples = [np.empty((len(keep), n_thresholds)) for keep in masks]
        for t in range(n_thresholds):
            for r in range(n_replicates):
                draws[r, t] = area(np.concatenate([one[r, t] for one in sets]), is_other)
            both = np.concatenate([one[0, t] for one in sets])
            for without, keep in zip(examples, masks, strict=True):
                without[:, t] = area(both, is_other, keep)
        counts = [_group_counts(one.shape[2]) for one in sets]
        out[name] = _metric(draws, examples, group_sizes, counts)
        draws = draws - draws[:, :1]
        examples = [without - without[:, :1] for without in examples]
        out[f"{name}_change"] = _metric(draws, examples, group_sizes, counts)
    return out


def _metric(
    draws: Floats,
    examples: Sequence[Floats],
    group_sizes: Sequence[int],
    counts: Sequence[Sequence[int]],
) -> Metric:
    value = draws[0]
    _, se = jackknife(value, draws[1:], group_sizes)
    of_test, of_other = (
        jackknife(value, without, sizes)[1] for without, sizes in zip(examples, counts, strict=True)
    )
    return Metric(value, se, np.hypot(of_test, of_other))


def _group_counts(n_examples: int) -> list[int]:
    n_groups = min(N_DATA_GROUPS, n_examples)
    return np.bincount(np.arange(n_examples) % n_groups).tolist()


def _all_but_one_group(is_other: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Masks of both sets together that leave out one group of one of them, for each of the two."""
    masks = []
    for in_set in (~is_other, is_other):
        place = np.cumsum(in_set) - 1
        n_groups = min(N_DATA_GROUPS, int(in_set.sum()))
        group = np.where(in_set, place % n_groups, -1)
        masks.append(group != np.arange(n_groups)[:, None])
    return masks
