"""A network's predictions by its own stochastic calls, and how far a sweep's may lie from them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def own_outputs(call: Callable[[], Any], n_calls: int = 300) -> np.ndarray:
    """Outputs of many calls, shape (n_calls, n_examples, n_outputs)."""
    return np.array([np.asarray(call(), np.float64) for _ in range(n_calls)])


def worst_deviation(found: np.ndarray, n_draws: int, own: np.ndarray) -> float:
    """Largest difference of means, in units of what is allowed; at most 1 for the same network.

    As strict as 4 standard errors of one comparison, over all of them (Bonferroni). Draws in
    antithetic pairs count as half as many, which is the least that they are worth.

    Parameters
    ----------
    found : array, shape (n_examples, n_outputs)
        Averages over ``n_draws``.
    own : array, shape (n_calls, n_examples, n_outputs)
    """
    mean, variance = own.mean(axis=0), own.var(axis=0, ddof=1)
    error = np.sqrt(variance * (1 / len(own) + 2 / n_draws))
    allowed = -NormalDist().inv_cdf(NormalDist().cdf(-4) / mean.size)
    return float((np.abs(found.reshape(mean.shape) - mean) / (allowed * error + 1e-6)).max())
