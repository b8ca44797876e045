"""Which weights are pruned at each point of a sweep, and the posterior that is left.

Pure: posterior in, masks out. A pruned weight is exactly zero, mean *and* deviation, unless
BPrune's defect is asked for (:data:`PRUNED_SCALE`). How weights are scored stands in
``posterior.criteria``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .criteria import CRITERIA, Criterion, Floats, scores
from .mean_field import Posterior, Prior

GRANULARITIES = ("weight", "neuron", "filter")

_KERNELS = {
    "neuron": "dense kernel (one of two axes)",
    "filter": "convolution kernel (one of three axes or more)",
}


def tensors_of_units(posterior: Posterior, granularity: str) -> dict[str, str | None]:
    """Name of the tensor whose units each mean-field tensor follows when it is pruned.

    A kernel follows itself. A vector follows the one kernel beside it (the same name up to the
    last ``/``) that has as many units. All else is left alone: None.

    Raises
    ------
    ConfigError
        If the network has no kernel of the granularity asked for.
    """
    if granularity == "weight":
        return {name: name for name in posterior.names}
    shape = {name: loc.shape for name, loc in posterior.loc.items()}
    kernels = [
        name
        for name in posterior.names
        if (len(shape[name]) == 2 if granularity == "neuron" else len(shape[name]) > 2)
    ]
    if not kernels:
        raise ConfigError(
            f"--granularity={granularity}: the network has no mean-field {_KERNELS[granularity]}; "
            "choose another granularity"
        )
    owner: dict[str, str | None] = {}
    for name in posterior.names:
        beside = [
            kernel
            for kernel in kernels
            if kernel.rpartition("/")[0] == name.rpartition("/")[0]
            and shape[kernel][-1:] == shape[name]
        ]
        owner[name] = name if name in kernels else beside[0] if len(beside) == 1 else None
    return owner


SCOPES = ("global", "layer")
PRUNED_SCALE = {"zero": 0.0, "bprune": math.log(2)}
"""Deviation of a pruned weight: BPrune writes 0 before the softplus, which leaves softplus(0)."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """In which order weights are pruned.

    Attributes
    ----------
    criterion : str
        A key of :data:`bprune_hpc.posterior.criteria.CRITERIA`.
    scope : {"global", "layer"}
        Whether a fraction is of all mean-field tensors together, or of each alone.
    granularity : {"weight", "neuron", "filter"}
        What is pruned as a whole: single weights, the inputs of a dense unit (last axis of
        kernels of two axes), or a convolution's filters (last axis of kernels of more).
    prior_scale : float, optional
        Standard deviation of the weights' prior N(0, prior_scale²), for the criteria that need it.
    seed : int
        For the criterion ``random``.
    prior : mapping of str to Prior, optional
        Of every tensor, in place of ``prior_scale``.
    """

    criterion: str = "snr"
    scope: str = "global"
    granularity: str = "weight"
    prior_scale: float | None = None
    seed: int = 0
    prior: Mapping[str, Prior] | None = None

    def heading(self, kind: str) -> str:
        """Of a column of points: what is pruned at each.

        A fraction is named as one: no threshold says which of equal scores go, and in which layer.

        >>> Rule(granularity="neuron").heading("threshold")
        'neuron SNR <='
        >>> Rule(granularity="neuron", scope="layer").heading("fraction")
        'neurons of lowest SNR in each layer'

        Parameters
        ----------
        kind : {"threshold", "fraction"}
            See :func:`cuts`.
        """
        criterion = CRITERIA[self.criterion]
        if kind == "threshold":
            units = "" if self.granularity == "weight" else f"{self.granularity} "
            return f"{units}{criterion.heading}"
        units = "" if self.granularity == "weight" else f"{self.granularity}s of "
        side = "lowest" if criterion.keeps == "above" else "highest"
        where = " in each layer" if self.scope == "layer" else ""
        return f"{units}{side} {criterion.heading.rpartition(' ')[0]}{where}"


SNR = Rule()
"""Single weights by their SNR, all tensors together."""


@dataclass(frozen=True)
class Cut:
    """One point of a sweep.

    Attributes
    ----------
    threshold : float
        Score up to which weights are pruned. For a cut by fraction: the last score that is
        pruned in any tensor, or the threshold that prunes nothing where nothing is.
    requested_fraction : float
        Fraction asked for; NaN for a cut by threshold.
    kept : mapping of str to bool array
        True where a weight stays, for each mean-field tensor.
    layer_threshold : mapping of str to float
        The threshold within each tensor; NaN for one that the granularity leaves alone.
    """

    threshold: float
    requested_fraction: float
    kept: Mapping[str, Mask]
    layer_threshold: Mapping[str, float]

    @property
    def n_active(self) -> int:
        """Number of weights that stay."""
        return sum(int(np.count_nonzero(mask)) for mask in self.kept.values())

    @property
    def pruned_fraction(self) -> float:
        """Fraction of the weights with a scale that is pruned."""
        total = sum(mask.size for mask in self.kept.values())
        return (total - self.n_active) / total

    def pruned_fraction_of(self, name: str) -> float:
        """Fraction of one tensor's weights that is pruned."""
        mask = self.kept[name]
        return 1.0 - int(np.count_nonzero(mask)) / mask.size if mask.size else 0.0


@dataclass(frozen=True)
class _Units:
    """What is pruned as a whole: the scores, and which tensor follows whose.

    Attributes
    ----------
    scores : mapping of str to float64 array
        One score for each unit of the tensors that are scored: all weights, or the last axis.
    owner : mapping of str to (str or None)
        For every mean-field tensor, the tensor whose units it follows; None if it is left alone.
    shape : mapping of str to tuple of int
        Of every mean-field tensor.
    """

    scores: Mapping[str, Floats]
    owner: Mapping[str, str | None]
    shape: Mapping[str, tuple[int, ...]]

    def cut(
        self, threshold: float, fraction: float, kept: Mapping[str, Mask], cuts: Mapping[str, float]
    ) -> Cut:
        """The cut that keeps these units; masks of whole units are views and take no memory."""
        masks, thresholds = {}, {}
        for name, shape in self.shape.items():
            owner = self.owner[name]
            masks[name] = np.broadcast_to(np.True_ if owner is None else kept[owner], shape)
            thresholds[name] = math.nan if owner is None else cuts[owner]
        return Cut(threshold, fraction, masks, thresholds)


def labels_of(values: Sequence[float], *, is_share: bool) -> list[str]:
    """Points of a sweep as they are shown: ``0.5``; a share ``50 %``; ``none`` for infinity."""
    if is_share:
        return [f"{100 * value:.4g} %" for value in values]
    return [f"{value:.4g}" if np.isfinite(value) else "none" for value in values]


def cuts(posterior: Posterior, kind: str, grid: Sequence[float], rule: Rule = SNR) -> list[Cut]:
    """One cut for each value of a grid of thresholds or fractions.

    Scores are computed, and ordered, once for all.

    Parameters
    ----------
    kind : {"threshold", "fraction"}
        A threshold prunes every unit whose score is at it or beyond; the criterion's ``unpruned``
        prunes nothing, by definition. A fraction in [0, 1) prunes exactly ``round(fraction *
        n_units)`` units, of all tensors together or of each; ties are broken by position.
    grid : sequence of float

    Raises
    ------
    ConfigError
        If the network has nothing of the granularity asked for.
    ValueError
        If a threshold or a fraction is not in range, or the prior is missing.
    """
    criterion = CRITERIA[rule.criterion]
    units = _units(posterior, rule)
    if kind == "threshold":
        return [_cut_at_threshold(units, criterion, value) for value in grid]
    return _cut_at_fractions(units, criterion, rule.scope, grid)


def cut_at_threshold(posterior: Posterior, threshold: float, rule: Rule = SNR) -> Cut:
    """One cut by threshold; see :func:`cuts`."""
    return cuts(posterior, "threshold", [threshold], rule)[0]


def cut_at_fraction(posterior: Posterior, fraction: float, rule: Rule = SNR) -> Cut:
    """One cut by fraction; see :func:`cuts`."""
    return cuts(posterior, "fraction", [fraction], rule)[0]


def prune(posterior: Posterior, cut: Cut, pruned_scale: float = 0.0) -> Posterior:
    """The posterior in which every pruned weight has loc 0 and scale 0, or another scale."""
    if cut.n_active == posterior.n_weights:
        return posterior
    zero, left = np.float32(0), np.float32(pruned_scale)
    return Posterior(
        {name: np.where(cut.kept[name], loc, zero) for name, loc in posterior.loc.items()},
        {name: np.where(cut.kept[name], scale, left) for name, scale in posterior.scale.items()},
    )


def _units(posterior: Posterior, rule: Rule) -> _Units:
    owner = tensors_of_units(posterior, rule.granularity)
    found = scores(
        rule.criterion, posterior, prior_scale=rule.prior_scale, prior=rule.prior, seed=rule.seed
    )
    found = {name: score for name, score in found.items() if owner[name] == name}
    if rule.granularity != "weight":
        of_units = CRITERIA[rule.criterion].of_units
        found = {name: of_units(score) for name, score in found.items()}
    return _Units(found, owner, {name: loc.shape for name, loc in posterior.loc.items()})


def _cut_at_threshold(units: _Units, criterion: Criterion, threshold: float) -> Cut:
    kept: dict[str, Mask]
    if threshold == criterion.unpruned:
        kept = {name: np.ones(score.shape, bool) for name, score in units.scores.items()}
    elif not (np.isfinite(threshold) and (criterion.signed or threshold > 0)):
        allowed = "finite" if criterion.signed else "finite and >= 0"
        raise ValueError(f"threshold {threshold} is not {allowed}")
    elif criterion.keeps == "above":
        kept = {name: score > threshold for name, score in units.scores.items()}
    else:
        kept = {name: score < threshold for name, score in units.scores.items()}
    threshold = float(threshold)
    return units.cut(threshold, math.nan, kept, dict.fromkeys(kept, threshold))


def _cut_at_fractions(
    units: _Units, criterion: Criterion, scope: str, fractions: Sequence[float]
) -> list[Cut]:
    for fraction in fractions:
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction {fraction} is not in [0, 1)")
    kept: list[dict[str, Mask]] = [{} for _ in fractions]
    thresholds: list[dict[str, float]] = [{} for _ in fractions]
    names = list(units.scores)
    sign = 1 if criterion.keeps == "above" else -1
    for pool in [names] if scope == "global" else [[name] for name in names]:
        score = sign * np.concatenate([units.scores[name].ravel() for name in pool])
        ends = np.cumsum([units.scores[name].size for name in pool])[:-1]
        numbers = [round(fraction * score.size) for fraction in fractions]
        ends_of_cuts = np.array([number - 1 for number in numbers if number], np.intp)
        ordered = np.partition(score, ends_of_cuts)
        for index, number in enumerate(numbers):
            last = ordered[number - 1] if number else sign * criterion.unpruned
            keep = _all_but_first(score, number, last)
            for name, mask in zip(pool, np.split(keep, ends), strict=True):
                kept[index][name] = mask.reshape(units.scores[name].shape)
                thresholds[index][name] = float(sign * last)
    furthest = max if criterion.keeps == "above" else min
    return [
        units.cut(furthest(cut.values()), float(fraction), mask, cut)
        for fraction, mask, cut in zip(fractions, kept, thresholds, strict=True)
    ]


def _all_but_first(score: Floats, number: int, last: float) -> Mask:
    """False at the ``number`` lowest scores, of which ``last`` is the largest.

    Of scores that equal ``last``, the first in position go.
    """
    if number == 0:
        return np.ones(score.size, bool)
    keep = score > last
    tied = np.flatnonzero(score == last)
    n_lower = score.size - int(np.count_nonzero(keep)) - tied.size
    keep[tied[number - n_lower :]] = True
    return keep
