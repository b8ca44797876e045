"""How much a weight matters: one score for each weight, by any of several criteria.

Pure: posterior in, float64 scores out. What a criterion's numbers mean, on which side of a
threshold weights are pruned and how the scores of a whole unit come together belong here; which
weights a sweep prunes does not (``posterior.pruning``). ``docs/criteria.md`` compares them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .mean_field import Posterior, Prior, in_float64, snr

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """What a user has to know of a criterion.

    Attributes
    ----------
    label : str
        The score in a word or two.
    meaning : str
        What a threshold is, as a sentence.
    units : str
        Of score and threshold.
    keeps : {"above", "below"}
        The side of a threshold on which weights stay; those exactly at it are pruned.
    unpruned : float
        The threshold that prunes nothing, by definition: 0 where no score is below 0, else the
        infinity that no finite threshold reaches.
    of_units : callable
        Scores of units, shape (n_units,), from those of their weights, shape (..., n_units).
    needs_prior : bool
        Whether the weights' prior has to be known.
    """

    label: str
    meaning: str
    units: str
    keeps: str
    unpruned: float
    of_units: Callable[[Floats], Floats]
    needs_prior: bool = False

    @property
    def heading(self) -> str:
        """Of a column of thresholds: what is pruned at the numbers below it."""
        return f"{self.label} {'<=' if self.keeps == 'above' else '>='}"

    @property
    def signed(self) -> bool:
        """Whether scores, and so thresholds, can be negative."""
        return np.isinf(self.unpruned)


def signal_plus_noise(loc: Floats32, scale: Floats32) -> Floats:
    """\\|loc\\| + scale: how large a weight is likely to be, drawn (0 for a weight that is 0)."""
    mean, deviation = in_float64(loc, scale)
    return mean + deviation


def magnitude(loc: Floats32, scale: Floats32) -> Floats:
    """\\|loc\\|: what is pruned in networks without a posterior."""
    return in_float64(loc, scale)[0]


def log_alpha(loc: Floats32, scale: Floats32) -> Floats:
    """log(scale² / loc²) = -2 log SNR; inf where ``loc`` is 0, else -inf where ``scale`` is.

    References
    ----------
    D. Molchanov, A. Ashukha and D. Vetrov, "Variational dropout sparsifies deep neural
    networks", ICML 2017.
    """
    with np.errstate(divide="ignore"):
        return -2.0 * np.log(snr(loc, scale))


def kl(loc: Floats32, scale: Floats32, prior_scale: float, prior_loc: float = 0.0) -> Floats:
    """KL divergence of N(loc, scale²) from the prior N(prior_loc, prior_scale²), nats.

    Returns
    -------
    float64 array, at least 0. inf where ``scale`` is 0 and ``loc`` is not; 0 where both are
    (nothing changes when a weight that is zero is pruned).
    """
    mean, deviation = in_float64(loc, scale)
    prior = _checked_prior(prior_scale)
    away = np.asarray(loc, np.float64) - prior_loc
    ratio = deviation / prior
    # r - 1 - ln r for r = ratio². Most scales are near the prior's, where it is the small
    # difference of large terms: there by way of r - 1, which has an exact form.
    excess = (ratio - 1) * (ratio + 1)
    with np.errstate(divide="ignore"):
        far = excess - 2 * np.log(ratio)
        near = excess - np.log1p(np.clip(excess, -0.5, 0.5))
    divergence = np.where(np.abs(excess) < 0.5, near, far) / 2 + (away / prior) ** 2 / 2
    return np.where((mean == 0) & (deviation == 0), 0.0, np.maximum(divergence, 0.0))


def bmr(loc: Floats32, scale: Floats32, prior_scale: float, prior_loc: float = 0.0) -> Floats:
    """Log evidence that is lost by fixing a weight at zero, nats: ln p(0) - ln q(0).

    With prior p = N(prior_loc, prior_scale²) and posterior q = N(loc, scale²) this is the
    Savage-Dickey ratio, SNR² / 2 - ln(prior_scale / scale) - (prior_loc / prior_scale)² / 2.
    Where it is negative, the network without the weight is the more probable one.

    Returns
    -------
    float64 array. inf where ``scale`` is 0 and ``loc`` is not; 0 where both are (nothing changes
    when a weight that is zero is pruned).

    References
    ----------
    K. Friston and W. Penny, "Post hoc Bayesian model selection", NeuroImage 56 (2011) 2089.
    J. M. Dickey, "The weighted likelihood ratio, linear hypotheses on normal location
    parameters", Annals of Mathematical Statistics 42 (1971) 204.
    """
    _, deviation = in_float64(loc, scale)
    prior = _checked_prior(prior_scale)
    ratio = snr(loc, scale)
    certain = deviation == 0
    loss = ratio**2 / 2 + np.log(np.where(certain, 1.0, deviation / prior))
    loss = loss - (prior_loc / prior) ** 2 / 2
    return np.where(certain & (ratio == 0), 0.0, loss)


def uniform(seed: int, tensor: str, shape: tuple[int, ...]) -> Floats:
    """A score in [0, 1) for each weight, a function of seed, tensor name and position alone.

    Independent of the draws' noise, which is keyed by the same seed.
    """
    digest = hashlib.blake2b(f"prune/{seed}/{tensor}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(shape)


def _checked_prior(prior_scale: float) -> float:
    if not (np.isfinite(prior_scale) and prior_scale >= np.finfo(np.float32).tiny):
        raise ValueError(f"prior_scale {prior_scale} is not a positive float32")
    return float(prior_scale)


def _mean(scores: Floats) -> Floats:
    return scores.mean(axis=tuple(range(scores.ndim - 1)))


def _root_mean_square(scores: Floats) -> Floats:
    return np.sqrt(_mean(scores**2))


def _of_root_mean_square(scores: Floats) -> Floats:
    """log α of the root mean square SNR, so that units are in the order of ``snr``."""
    with np.errstate(divide="ignore"):
        return -np.log(_mean(np.exp(-scores)))


def _first(scores: Floats) -> Floats:
    return scores[(0,) * (scores.ndim - 1)]


CRITERIA = {
    "snr": Criterion(
        "SNR", "SNR at or below which weights are pruned; 0 prunes nothing",
        "1", "above", 0.0, _root_mean_square,
    ),
    "signal_plus_noise": Criterion(
        "|loc| + scale", "|loc| + scale at or below which weights are pruned; 0 prunes nothing",
        "1", "above", 0.0, _root_mean_square,
    ),
    "magnitude": Criterion(
        "|loc|", "|loc| at or below which weights are pruned; 0 prunes nothing",
        "1", "above", 0.0, _root_mean_square,
    ),
    "log_alpha": Criterion(
        "log alpha", "log alpha at or above which weights are pruned; inf prunes nothing",
        "1", "below", np.inf, _of_root_mean_square,
    ),
    "kl": Criterion(
        "KL",
        "KL divergence from the prior at or below which weights are pruned; 0 prunes nothing",
        "nat", "above", 0.0, _mean, needs_prior=True,
    ),
    "bmr": Criterion(
        "evidence lost",
        "loss of log evidence at or below which weights are pruned; -inf prunes nothing",
        "nat", "above", -np.inf, _mean, needs_prior=True,
    ),
    "random": Criterion(
        "random", "uniform random number at or below which weights are pruned; 0 prunes nothing",
        "1", "above", 0.0, _first,
    ),
}  # fmt: skip
"""Every criterion, by the name that ``--criterion`` takes."""


def scores(
    criterion: str,
    posterior: Posterior,
    *,
    prior_scale: float | None = None,
    prior: Mapping[str, Prior] | None = None,
    seed: int = 0,
) -> dict[str, Floats]:
    """Score of every weight of a posterior.

    Parameters
    ----------
    criterion : str
        A key of :data:`CRITERIA`.
    prior_scale : float, optional
        Standard deviation of the prior N(0, prior_scale²) of every weight, for ``kl`` and ``bmr``.
    prior : mapping of str to Prior, optional
        Of every tensor; for the same, where ``prior_scale`` is not given.
    seed : int
        For ``random``.

    Returns
    -------
    dict of tensor name to float64 array, shape of the tensor; never NaN

    Raises
    ------
    ValueError
        If the prior is needed and not given, or the posterior is none.
    """
    if prior_scale is not None:
        prior = dict.fromkeys(posterior.names, Prior(0.0, prior_scale))
    prior = prior or {}
    unknown = [name for name in posterior.names if name not in prior]
    if CRITERIA[criterion].needs_prior and unknown:
        raise ValueError(f"criterion {criterion} needs prior_scale, or the prior of {unknown}")
    with_prior = {"kl": kl, "bmr": bmr}
    without = {
        "snr": snr,
        "signal_plus_noise": signal_plus_noise,
        "magnitude": magnitude,
        "log_alpha": log_alpha,
    }
    found = {}
    for name, loc in posterior.loc.items():
        scale = posterior.scale[name]
        if criterion == "random":
            found[name] = uniform(seed, name, loc.shape)
        elif criterion in with_prior:
            found[name] = with_prior[criterion](loc, scale, prior[name].scale, prior[name].loc)
        else:
            found[name] = without[criterion](loc, scale)
    return found
