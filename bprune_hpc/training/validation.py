"""How good a network is on its way: the negative log-likelihood of the test half, with its error.

What belongs here: one number from some draws of the outputs. What does not: all that is measured in
the end (``training.graph``), when it is due (``train``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Validation:
    """The averaged predictive on examples that are not trained on.

    Attributes
    ----------
    nll, nll_se : float
        Mean negative log-likelihood, nats an example, and its standard error: of the examples and
        of the draws (jackknife) together.
    """

    nll: float
    nll_se: float


def validate(
    draws: Iterable[NDArray[np.float64]], y: NDArray[Any], noise_scale: float | None
) -> Validation:
    """Measure what two draws or more give.

    Parameters
    ----------
    draws : iterable of float64 array, shape (n, n_outputs)
        Logits or, of a regression, means.
    y : array, shape (n,)
        Classes or targets; of one alone the error is not known: NaN.
    noise_scale : float or None
        Of a regression.
    """
    each = np.stack([log_likelihood(draw, y, noise_scale) for draw in draws])
    n_draws, n = each.shape
    losses = _losses(each)
    without = [float(_losses(np.delete(each, k, axis=0)).mean()) for k in range(n_draws)]
    of_draws = (n_draws - 1) * float(np.var(without))
    of_examples = float(losses.var(ddof=1)) / n if n > 1 else math.nan
    return Validation(float(losses.mean()), math.sqrt(of_draws + of_examples))


def log_likelihood(
    output: NDArray[np.float64], y: NDArray[Any], noise_scale: float | None
) -> NDArray[np.float64]:
    """Log-probability of each class or log-density of each target, under one draw, shape (n,)."""
    if noise_scale is None:
        return output[np.arange(len(y)), y] - np.logaddexp.reduce(output, axis=1)
    error = (output[:, 0] - y) / noise_scale
    return -0.5 * error**2 - math.log(noise_scale * math.sqrt(2 * math.pi))


def _losses(each: NDArray[np.float64]) -> NDArray[np.float64]:
    """Negative log of the likelihood averaged over draws."""
    return math.log(len(each)) - np.logaddexp.reduce(each, axis=0)
