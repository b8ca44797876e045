"""Which weights a threshold prunes, and the posterior that is left.

Pure: posterior in, masks out. A pruned weight is exactly zero, mean *and* deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .posterior import Posterior


@dataclass(frozen=True)
class Cut:
    """One point of a sweep.

    Attributes
    ----------
    threshold : float
        SNR at or below which weights are pruned. For a cut by fraction: the largest SNR that is
        pruned (0 where nothing is).
    requested_fraction : float
        Fraction of weights asked for; NaN for a cut by threshold.
    kept : mapping of str to bool array
        True where a weight stays, for each mean-field tensor.
    """

    threshold: float
    requested_fraction: float
    kept: dict[str, NDArray[np.bool_]]

    @property
    def n_active(self) -> int:
        """Number of weights that stay."""
        return sum(int(np.count_nonzero(mask)) for mask in self.kept.values())

    @property
    def pruned_fraction(self) -> float:
        """Fraction of the weights with a scale that is pruned."""
        total = sum(mask.size for mask in self.kept.values())
        return (total - self.n_active) / total

    def apply(self, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Arrays of the shape of the weights with exact zeros where weights are pruned."""
        zero = np.float32(0)
        return {name: np.where(self.kept[name], array, zero) for name, array in arrays.items()}

    def pruned_fraction_of(self, name: str) -> float:
        """Fraction of one tensor's weights that is pruned."""
        mask = self.kept[name]
        return 1.0 - int(np.count_nonzero(mask)) / mask.size if mask.size else 0.0


def cut_at_threshold(posterior: Posterior, threshold: float) -> Cut:
    """Prune every weight whose SNR is at or below a threshold; 0 prunes nothing.

    Parameters
    ----------
    threshold : float
        Dimensionless, finite, not negative.
    """
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold {threshold} is not finite and >= 0")
    ratios = posterior.snr()
    if threshold == 0:
        kept = {name: np.ones(ratio.shape, bool) for name, ratio in ratios.items()}
    else:
        kept = {name: ratio > threshold for name, ratio in ratios.items()}
    return Cut(float(threshold), float("nan"), kept)


def cut_at_fraction(posterior: Posterior, fraction: float) -> Cut:
    """Prune exactly ``round(fraction * n_weights)`` weights, those of the lowest SNR.

    Ties are broken by position, so that the number is exact and the choice is always the same.

    Parameters
    ----------
    fraction : float
        In [0, 1), over all mean-field tensors together.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction {fraction} is not in [0, 1)")
    ratios = posterior.snr()
    flat = np.concatenate([ratio.ravel() for ratio in ratios.values()])
    n_pruned = round(fraction * flat.size)
    pruned = np.argsort(flat, kind="stable")[:n_pruned]
    keep = np.ones(flat.size, bool)
    keep[pruned] = False
    kept = {}
    start = 0
    for name, ratio in ratios.items():
        kept[name] = keep[start : start + ratio.size].reshape(ratio.shape)
        start += ratio.size
    return Cut(float(flat[pruned[-1]]) if n_pruned else 0.0, float(fraction), kept)


def cuts(posterior: Posterior, kind: str, grid: Sequence[float]) -> list[Cut]:
    """One cut for each value of a grid of thresholds or fractions.

    Parameters
    ----------
    kind : {"threshold", "fraction"}
    grid : sequence of float
    """
    cut = {"threshold": cut_at_threshold, "fraction": cut_at_fraction}[kind]
    return [cut(posterior, value) for value in grid]


def prune(posterior: Posterior, cut: Cut) -> Posterior:
    """The posterior in which every pruned weight is exactly zero: loc 0 and scale 0."""
    return Posterior(cut.apply(posterior.loc), cut.apply(posterior.scale))
