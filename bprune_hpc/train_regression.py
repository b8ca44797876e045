"""The likelihood of a regression in training, and what is measured of it at the end.

What belongs here: a Normal around the network's output, its noise scale given or learned. What does
not: the graph around it and the loop over draws (``train_graph``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source_tf1 import LOC_OP, SCALE_OP
from .tensorflow_import import import_tensorflow

_SMALLEST_SCALE = 1e-6  # so that a perfect fit cannot end in a division by zero


def likelihood(output: Any, targets: Any, noise_scale: float | None) -> tuple[Any, Any]:
    """Mean negative log-likelihood of a Normal around the output, and its standard deviation.

    The operations that a sweep takes the predictive from are called ``predictive/loc`` and
    ``predictive/scale``.

    Parameters
    ----------
    output : float32 tensor, shape (n, 1)
    targets : float32 tensor, shape (n,)
    noise_scale : float or None
        None: one for all examples is learned, from 1 on; targets of unit variance suit it.

    Returns
    -------
    nll, scale : float32 tensor, shape ()
    """
    tf = import_tensorflow()
    import tensorflow_probability as tfp

    loc = tf.identity(output, name=LOC_OP)
    if noise_scale is None:
        start = math.log(math.expm1(1.0))
        raw = tf.compat.v1.get_variable("noise/untransformed_scale", initializer=start)
        noise: Any = _SMALLEST_SCALE + tf.nn.softplus(raw)
    else:
        noise = tf.constant(noise_scale, tf.float32)
    scale = tf.identity(noise, name=SCALE_OP)
    normal = tfp.distributions.Normal(loc[:, 0], scale, name="target_dist")
    return -tf.reduce_mean(normal.log_prob(targets)), scale


def measure(
    draws: Iterator[NDArray[np.float64]],
    at_mean: Callable[[], NDArray[np.float64]],
    targets: NDArray[np.float64],
    scale: float,
) -> dict[str, float]:
    """Errors on the test half.

    Parameters
    ----------
    draws : iterator of float64 array, shape (n, 1)
        Means under draws of the weights.
    at_mean : callable
        Gives those under the mean weights.
    targets : float64 array, shape (n,)
    scale : float

    Returns
    -------
    dict
        ``rmse_mean_weights``, ``rmse_averaged`` (of the mean over the draws), ``rmse_single_draw``,
        ``nll_averaged`` (of the mixture of the draws' Normals, nats an example), ``noise_scale``.
    """
    error = np.stack([draw[:, 0] for draw in draws]) - targets
    log_density = -0.5 * (error / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))
    mixture = np.logaddexp.reduce(log_density, axis=0) - math.log(len(error))
    return {
        "rmse_mean_weights": _root_mean_square(at_mean()[:, 0] - targets),
        "rmse_averaged": _root_mean_square(error.mean(axis=0)),
        "rmse_single_draw": _root_mean_square(error),
        "nll_averaged": -float(mixture.mean()),
        "noise_scale": scale,
    }


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return math.sqrt(float((values**2).mean()))
