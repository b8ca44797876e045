"""How well uncertainty tells examples of another kind (out of distribution) from the test set.

Pure: the scores of both sets in, areas under curves out, with both standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .classification import N_DATA_GROUPS, Metric
from .detection import areas
from .jackknife import jackknife
from .row_chunks import by_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_AREAS = ("auroc", "aupr")
_SCORES = {"entropy": "predictive_entropy", "mutual_information": "mutual_information"}
OOD_STATISTICS = tuple(f"{area}_ood_{short}" for short in _SCORES for area in _AREAS)
"""Areas under a curve, and the score that each judges; what is positive is the other set."""


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
        :meth:`bprune_hpc.metrics.classification.Statistics.scores`.
    group_sizes : sequence of int
        Of the groups of draws.

    References
    ----------
    J. N. Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40 (1969) 2076.
    """
    out = {}
    for short, score in _SCORES.items():
        sets = test[score], other[score]
        n_test, n_other = (one.shape[2] for one in sets)
        is_other = np.repeat([False, True], [n_test, n_other])
        of_draws = _areas(*sets, is_other, None)
        without = [
            _areas(sets[0][0], sets[1][0], is_other, keep) for keep in _all_but_one_group(is_other)
        ]
        counts = [_group_counts(n_test), _group_counts(n_other)]
        for area, draws, *examples in zip(_AREAS, of_draws, *without, strict=True):
            name = f"{area}_ood_{short}"
            out[name] = _metric(draws, examples, group_sizes, counts)
            draws, *examples = (one - one[:, :1] for one in (draws, *examples))
            out[f"{name}_change"] = _metric(draws, examples, group_sizes, counts)
    return out


def _areas(test: Floats, other: Floats, is_other: Bools, keep: Bools | None) -> list[Floats]:
    def of_some(test: Floats, other: Floats) -> list[Floats]:
        both = np.concatenate([test, other], axis=1)
        found = areas(both, np.broadcast_to(is_other, both.shape), keep)
        return [one.reshape(-1, len(both)) for one in found]

    return by_rows(of_some, keep, test, other)


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
