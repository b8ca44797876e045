"""What the library's predictions are: plain arrays with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictive:
    """What the posterior says of each example, averaged over draws.

    Attributes
    ----------
    mean_probability : float32 array, shape (n_examples, n_classes)
        The predictive distribution: class probabilities averaged over draws.
    predictive_entropy : float64 array, shape (n_examples,)
        Entropy of ``mean_probability``, nats: the whole uncertainty.
    expected_entropy : float64 array, shape (n_examples,)
        Mean entropy of single draws' predictions, nats: what more training data would not mend.
    mutual_information : float64 array, shape (n_examples,)
        The difference of the two, nats: disagreement of the draws. With few draws it is too small
        by a term of the order of 1 / ``n_draws``.
    log_probability : float64 array, shape (n_examples,), or None
        Logarithm of ``mean_probability`` at the label, nats, where labels were given.
    n_draws, seed : int
    pairing : {"antithetic", "none"}
    """

    mean_probability: NDArray[np.float32]
    predictive_entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    log_probability: NDArray[np.float64] | None
    n_draws: int
    seed: int
    pairing: str

    @property
    def predicted_class(self) -> NDArray[np.int64]:
        """Most probable class of each example (the first of equals), int64, (n_examples,)."""
        return self.mean_probability.argmax(axis=1)


@dataclass(frozen=True)
class NormalPredictive:
    """What the posterior of a regression says of each example: a mixture of the draws' Normals.

    Attributes
    ----------
    predictive_mean, predictive_sd : float64 array, shape (n_examples,) or (n_examples, n_targets)
        Mean and standard deviation of the mixture, in units of the target.
    epistemic_variance : float64 array of the same shape
        Variance over draws of their means: what more training data could teach. With few draws it
        is too small by a factor of 1 - 1 / ``n_draws``, where these are independent.
    aleatoric_variance : float64 array of the same shape
        Mean over draws of their own variance. The two add up to the square of ``predictive_sd``.
    log_density : float64 array, shape (n_examples,), or None
        Logarithm of the mixture's density at the target, nats, where targets were given; of
        several targets at all of them together.
    n_draws, seed : int
    pairing : {"antithetic", "none"}
    """

    predictive_mean: NDArray[np.float64]
    predictive_sd: NDArray[np.float64]
    epistemic_variance: NDArray[np.float64]
    aleatoric_variance: NDArray[np.float64]
    log_density: NDArray[np.float64] | None
    n_draws: int
    seed: int
    pairing: str
