"""Gradients of the ELBO: of the likelihood by TensorFlow, of the KL divergence in closed form.

What does not belong here: the network, the optimizer.

By its value, the divergence of half a million weights takes longer to differentiate than all
products of the network: logarithms, exponentials and a dozen passes over the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models.zoo import Network
from ..tensorflow_import import import_tensorflow


def of_elbo(
    network: Network,
    nll: Any,
    scales: Mapping[str, Any],
    kl_factor: Any,
    prior_scale: float,
    share: float,
) -> list[tuple[Any, Any]]:
    """Gradient of ``share * (nll + kl_factor * KL)``.

    With ``KL = sum(log(p / scale) + (scale**2 + loc**2) / (2 p**2) - 1/2)`` for a prior of mean 0
    and standard deviation p, its derivatives are ``loc / p**2`` and ``scale / p**2 - 1 / scale``.
    Those of pruned weights are 0.

    Parameters
    ----------
    network : Network
    nll : float32 tensor, shape ()
        Mean negative log-likelihood.
    scales : mapping of str to float32 tensor
        Standard deviations that it depends on, by the layer's name.
    kl_factor : float32 tensor, shape ()
        Weight of the sum over all weights, in which the number of training examples is already.
    prior_scale : float
    share : float
        1 over the number of ranks, so that the sum over ranks is the mean.

    Returns
    -------
    list of (gradient, variable)
        Of every trainable variable, in the order of the graph.
    """
    tf = import_tensorflow()
    variables = nll.graph.get_collection("trainable_variables")
    raw_of = {raw.ref(): name for name, raw in network.untransformed_scales.items()}
    loc_of = {loc.ref(): name for name, loc in network.loc_variables.items()}
    # Of the scales in place of the variables below them: their softplus comes after.
    at = [scales[raw_of[v.ref()]] if v.ref() in raw_of else v for v in variables]
    found = tf.gradients(nll, at, grad_ys=tf.constant(share))
    weight = share * kl_factor
    pairs = []
    for gradient, where, variable in zip(found, at, variables, strict=True):
        name = loc_of.get(variable.ref()) or raw_of.get(variable.ref())
        if variable.ref() in loc_of:
            gradient += (weight / prior_scale**2) * variable
        elif variable.ref() in raw_of:
            gradient += (weight / prior_scale**2) * where - weight / where
            gradient = tf.raw_ops.SoftplusGrad(gradients=gradient, features=variable)
        if name in network.masks:
            gradient *= network.masks[name]
        pairs.append((gradient, variable))
    return pairs
