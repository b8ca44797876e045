"""Which weights are pruned at each point of a sweep, and the posterior that is left.

Pure: posterior in, masks out. A pruned weight is exactly zero, mean *and* deviation, unless
BPrune's defect is asked for (:data:`PRUNED_SCALE`). How weights are scored stands in
``posterior.criteria``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .criteria import CRITERIA, Criterion, Floats, scores
from .mean_field import Posterior, Prior
from .thresholds import unpruned

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
class PruningRule:
    """In which order weights are pruned, and what becomes of them.

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
    pruned_scale : float
        Deviation of pruned weights; 0 for weights that are exactly zero.
    """

    criterion: str = "snr"
    scope: str = "global"
    granularity: str = "weight"
    prior_scale: float | None = None
    seed: int = 0
    prior: Mapping[str, Prior] | None = None
    pruned_scale: float = 0.0

    def heading(self, kind: str) -> str:
        """Of a column of points: what is pruned at each.

        A fraction is named as one: no threshold says which of equal scores go, and in which layer.

        >>> PruningRule(granularity="neuron").heading("threshold")
        'neuron SNR <='
        >>> PruningRule(granularity="neuron", scope="layer").heading("fraction")
        'neurons of lowest SNR in each layer'

        Parameters
        ----------
        kind : {"threshold", "fraction"}
            See :func:`pruning_masks`.
        """
        criterion = CRITERIA[self.criterion]
        if kind == "threshold":
            units = "" if self.granularity == "weight" else f"{self.granularity} "
            return f"{units}{criterion.heading}"
        units = "" if self.granularity == "weight" else f"{self.granularity}s of "
        side = "lowest" if criterion.keeps == "above" else "highest"
        where = " in each layer" if self.scope == "layer" else ""
        return f"{units}{side} {criterion.label}{where}"


SNR = PruningRule()
"""Single weights by their SNR, all tensors together."""


@dataclass(frozen=True)
class PruningMask:
    """Which weights stay at one point of a sweep, and what becomes of the others.

    Attributes
    ----------
    threshold : float
        Score up to which weights are pruned. By fraction: the last score that is pruned in any
        tensor, or the threshold that prunes nothing where nothing is.
    requested_fraction : float
        Fraction asked for; NaN by threshold.
    kept : mapping of str to bool array
        True where a weight stays, for each mean-field tensor.
    layer_threshold : mapping of str to float
        The threshold within each tensor; NaN for one that the granularity leaves alone.
    pruned_scale : float
        Deviation of pruned weights.
    """

    threshold: float
    requested_fraction: float
    kept: Mapping[str, Mask]
    layer_threshold: Mapping[str, float]
    pruned_scale: float = 0.0

    def apply(self, posterior: Posterior) -> Posterior:
        """The posterior in which every pruned weight has loc 0 and ``pruned_scale``."""
        if self.n_active == posterior.n_weights:
            return posterior
        kept, left = self.kept, np.float32(self.pruned_scale)
        loc = {name: _or_zero(kept[name], values) for name, values in posterior.loc.items()}
        scale = {
            name: np.where(kept[name], values, left) if left else _or_zero(kept[name], values)
            for name, values in posterior.scale.items()
        }
        return Posterior(loc, scale)

    @property
    def n_active(self) -> int:
        """Number of weights that stay."""
        return sum(int(np.count_nonzero(mask)) for mask in self.kept.values())

    @property
    def pruned_fraction(self) -> float:
        """Fraction of the weights with a scale that is pruned."""
        total = sum(mask.size for mask in self.kept.values())
        return (total - self.n_active) / total

    def prunes_nothing(self, criterion: str) -> bool:
        """Whether all weights stay that are not zero already, by the sweep's criterion."""
        if self.pruned_fraction == 0:
            return True
        if math.isnan(self.requested_fraction):
            return self.threshold == unpruned("threshold", CRITERIA[criterion])
        return self.requested_fraction == unpruned("fraction", CRITERIA[criterion])

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
    pruned_scale : float
    gone : mapping of str to bool array
        Of tensors that have such: True where mean and deviation are exactly zero already.
    """

    scores: Mapping[str, Floats]
    owner: Mapping[str, str | None]
    shape: Mapping[str, tuple[int, ...]]
    pruned_scale: float
    gone: Mapping[str, Mask]

    def mask(
        self,
        threshold: float,
        fraction: float,
        kept: Mapping[str, Mask],
        layer_threshold: Mapping[str, float],
    ) -> PruningMask:
        """The mask that keeps these units; those of whole units are views and take no memory."""
        masks, thresholds = {}, {}
        for name, shape in self.shape.items():
            owner = self.owner[name]
            mask = np.broadcast_to(np.True_ if owner is None else kept[owner], shape)
            masks[name] = mask & ~self.gone[name] if name in self.gone else mask
            thresholds[name] = math.nan if owner is None else layer_threshold[owner]
        return PruningMask(threshold, fraction, masks, thresholds, self.pruned_scale)

    def gone_of(self, pool: Sequence[str]) -> NDArray[np.intp]:
        """Which units of some tensors, one behind the other, are exactly zero already."""
        if not any(name in self.gone for name in pool):
            return np.zeros(0, np.intp)
        found = []
        for name in pool:
            shape = self.scores[name].shape
            gone = self.gone.get(name, np.zeros(self.shape[name], bool))
            found.append(gone.reshape(-1, *shape).all(axis=0) if gone.shape != shape else gone)
        return np.flatnonzero(np.concatenate([gone.ravel() for gone in found]))


def labels_of(values: Sequence[float], *, is_share: bool) -> list[str]:
    """Points of a sweep as they are shown: ``0.5``; a share ``50 %``; ``none`` for infinity.

    With four digits, or as many as tell different values apart.
    """
    for n_digits in (4, 6, 9, 12, 17):
        labels = [
            f"{100 * value:.{n_digits}g} %"
            if is_share
            else f"{value:.{n_digits}g}"
            if np.isfinite(value)
            else "none"
            for value in values
        ]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def thresholds_in_words(rule: PruningRule, kind: str, masks: Sequence[PruningMask]) -> list[str]:
    """``SNR <= 0.5``, ``the 50 % of lowest SNR``; ``none`` for a threshold that prunes nothing.

    Parameters
    ----------
    kind : {"threshold", "fraction"}
        See :func:`pruning_masks`.
    """
    heading = rule.heading(kind)
    if kind == "fraction":
        labels = labels_of([mask.requested_fraction for mask in masks], is_share=True)
        return [f"the {label} of {heading}" for label in labels]
    labels = labels_of([mask.threshold for mask in masks], is_share=False)
    return [label if label == "none" else f"{heading} {label}" for label in labels]


def pruning_masks(
    posterior: Posterior, kind: str, grid: Sequence[float], rule: PruningRule = SNR
) -> list[PruningMask]:
    """One mask for each value of a grid of thresholds or fractions.

    Scores are computed, and ordered, once for all. Weights whose mean and deviation are exactly
    zero already count as pruned in every mask.

    Parameters
    ----------
    kind : {"threshold", "fraction"}
        A threshold prunes every unit whose score is at it or beyond; the criterion's ``unpruned``
        prunes nothing, by definition. A fraction in [0, 1) prunes exactly ``round(fraction *
        n_units)`` units, of all tensors together or of each: first those that are zero already,
        whatever their score, then those of least score; ties are broken by position.
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
        return [_mask_at_threshold(units, criterion, value) for value in grid]
    return _masks_at_fractions(units, criterion, rule.scope, grid)


def _or_zero(kept: Mask, values: NDArray[Any]) -> NDArray[Any]:
    """Values where they are kept, else 0.

    By their bits: no branch, which would take long where kept ones lie at random, and no NaN.
    """
    of_its_size = np.dtype(f"i{values.itemsize}")  # a network can be of float64
    bits = np.multiply(values.view(of_its_size), kept, dtype=of_its_size)
    return bits.view(values.dtype)


def mask_at_threshold(
    posterior: Posterior, threshold: float, rule: PruningRule = SNR
) -> PruningMask:
    """One mask by threshold; see :func:`pruning_masks`."""
    return pruning_masks(posterior, "threshold", [threshold], rule)[0]


def mask_at_fraction(posterior: Posterior, fraction: float, rule: PruningRule = SNR) -> PruningMask:
    """One mask by fraction; see :func:`pruning_masks`."""
    return pruning_masks(posterior, "fraction", [fraction], rule)[0]


def _units(posterior: Posterior, rule: PruningRule) -> _Units:
    owner = tensors_of_units(posterior, rule.granularity)
    of_weights = scores(
        rule.criterion, posterior, prior_scale=rule.prior_scale, prior=rule.prior, seed=rule.seed
    )
    of_units = {name: score for name, score in of_weights.items() if owner[name] == name}
    if rule.granularity != "weight":
        together = CRITERIA[rule.criterion].of_units
        of_units = {name: together(score) for name, score in of_units.items()}
    shapes = {name: loc.shape for name, loc in posterior.loc.items()}
    return _Units(
        of_units, owner, shapes, rule.pruned_scale, {} if rule.pruned_scale else _gone(posterior)
    )


def _gone(posterior: Posterior) -> dict[str, Mask]:
    """Weights that were pruned before, of the tensors that have such."""
    found = {name: (loc == 0) & (posterior.scale[name] == 0) for name, loc in posterior.loc.items()}
    return {name: mask for name, mask in found.items() if mask.any()}


def _mask_at_threshold(units: _Units, criterion: Criterion, threshold: float) -> PruningMask:
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
    return units.mask(threshold, math.nan, kept, dict.fromkeys(kept, threshold))


def _masks_at_fractions(
    units: _Units, criterion: Criterion, scope: str, fractions: Sequence[float]
) -> list[PruningMask]:
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
        gone = units.gone_of(pool)
        others: NDArray[np.intp] | slice = slice(None)
        if gone.size:
            others = np.delete(np.arange(score.size), gone)
        left = score[others]
        numbers = [round(fraction * score.size) for fraction in fractions]
        of_others = [max(number - gone.size, 0) for number in numbers]
        last_pruned = np.array([number - 1 for number in of_others if number], np.intp)
        ordered = np.partition(left, last_pruned)
        for index, (number, of_left) in enumerate(zip(numbers, of_others, strict=True)):
            last = ordered[of_left - 1] if of_left else sign * criterion.unpruned
            keep = np.ones(score.size, bool)
            keep[gone[:number]] = False
            keep[others] = _all_but_first(left, of_left, last)
            for name, mask in zip(pool, np.split(keep, ends), strict=True):
                kept[index][name] = mask.reshape(units.scores[name].shape)
                thresholds[index][name] = float(sign * last)
    furthest = max if criterion.keeps == "above" else min
    return [
        units.mask(furthest(of_layers.values()), float(fraction), mask, of_layers)
        for fraction, mask, of_layers in zip(fractions, kept, thresholds, strict=True)
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
