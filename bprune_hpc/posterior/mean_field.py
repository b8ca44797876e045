"""The mean-field posterior: a frozen table of Gaussians over some of a network's weights.

What belongs here: the table and what follows from it alone (the signal-to-noise ratio). What does
not: where it came from (``checkpoints.case``), what is done with it (``posterior.pruning``,
``posterior.draws``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Posterior:
    """Independent Gaussians over the weights of the mean-field tensors, by tensor name.

    Attributes
    ----------
    loc, scale : mapping of str to float32 or float64 array
        Posterior mean and standard deviation of each weight; same names in the same order, and
        the same shape under each name. ``scale`` is the standard deviation itself, not the
        argument of a softplus.
    """

    loc: Mapping[str, NDArray[np.floating]]
    scale: Mapping[str, NDArray[np.floating]]

    def __post_init__(self) -> None:
        if list(self.loc) != list(self.scale):
            raise ValueError(f"loc has {list(self.loc)}, scale has {list(self.scale)}")
        for name, loc in self.loc.items():
            if loc.shape != self.scale[name].shape:
                raise ValueError(f"{name}: loc {loc.shape}, scale {self.scale[name].shape}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the mean-field tensors, in the order of the table."""
        return tuple(self.loc)

    @property
    def n_weights(self) -> int:
        """Number of weights that have a scale."""
        return sum(loc.size for loc in self.loc.values())

    def snr(self) -> dict[str, NDArray[np.float64]]:
        """Signal-to-noise ratio of every weight; see :func:`snr`."""
        return {name: snr(self.loc[name], self.scale[name]) for name in self.names}


def snr(loc: NDArray[np.floating], scale: NDArray[np.floating]) -> NDArray[np.float64]:
    """Signal-to-noise ratio \\|loc\\| / scale of each weight (Graves 2011; Blundell et al. 2015).

    Parameters
    ----------
    loc, scale : float array, any shape (the same)
        Posterior mean and standard deviation.

    Returns
    -------
    float64 array, same shape; dimensionless. 0 where both are 0, inf where only ``scale`` is.

    Raises
    ------
    ValueError
        If any ``scale`` is negative or anything is not finite.

    References
    ----------
    A. Graves, "Practical variational inference for neural networks", NIPS 2011.
    C. Blundell et al., "Weight uncertainty in neural networks", ICML 2015.
    """
    mean, deviation = in_float64(loc, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean / deviation
    return np.where((mean == 0) & (deviation == 0), 0.0, ratio)


def in_float64(
    loc: NDArray[np.floating], scale: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """\\|loc\\| and scale in float64, checked.

    Raises
    ------
    ValueError
        If any ``scale`` is negative or anything is not finite.
    """
    mean = np.abs(np.asarray(loc, np.float64))
    deviation = np.asarray(scale, np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise ValueError("loc and scale must be finite")
    if (deviation < 0).any():
        raise ValueError("scale must not be negative")
    return mean, deviation


@dataclass(frozen=True)
class Prior:
    """The prior N(loc, scale²) of every weight of a tensor.

    Attributes
    ----------
    loc : float
    scale : float
        Standard deviation, positive.
    """

    loc: float
    scale: float
