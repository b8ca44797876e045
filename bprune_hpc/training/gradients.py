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


def of_nll(network: Network, nll: Any, scales: Mapping[str, Any], share: float) -> list[Any]:
    """Gradient of ``share * nll``, of the scales in place of the variables below them.

    Parameters
    ----------
    network : Network
    nll : float32 tensor, shape ()
        Mean negative log-likelihood.
    scales : mapping of str to float32 tensor
        Standard deviations that it depends on, by the layer's name.
    share : float
        1 over the number of ranks, so that the sum over ranks is the mean.

    Returns
    -------
    list of tensor
        One for every trainable variable, in the order of the graph.
    """
    tf = import_tensorflow()
    _, at = _places(network, nll.graph, scales)
    return list(tf.gradients(nll, at, grad_ys=tf.constant(share)))


def _places(network: Network, graph: Any, scales: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Trainable variables, and what stands for each: itself, or the scale above it."""
    variables = graph.get_collection("trainable_variables")
    raw_of = {raw.ref(): name for name, raw in network.untransformed_scales.items()}
    return variables, [scales[raw_of[v.ref()]] if v.ref() in raw_of else v for v in variables]


def of_elbo(
    network: Network,
    of_likelihood: list[Any],
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
    of_likelihood : list of tensor
        What :func:`of_nll` gives.
    scales : mapping of str to float32 tensor
        As there.
    kl_factor : float32 tensor, shape ()
        Weight of the sum over all weights, in which the number of training examples is already.
    prior_scale, share : float

    Returns
    -------
    list of (gradient, variable)
        Of every trainable variable, in the order of the graph.
    """
    tf = import_tensorflow()
    variables, at = _places(network, of_likelihood[0].graph, scales)
    loc_of = {loc.ref(): name for name, loc in network.loc_variables.items()}
    raw_of = {raw.ref(): name for name, raw in network.untransformed_scales.items()}
    weight = share * kl_factor
    pairs = []
    for gradient, where, variable in zip(of_likelihood, at, variables, strict=True):
        name = loc_of.get(variable.ref()) or raw_of.get(variable.ref())
        if variable.ref() in loc_of:
            gradient += (weight / prior_scale**2) * variable
        elif where is not variable:  # its softplus comes after
            gradient += (weight / prior_scale**2) * where - weight / where
            gradient = tf.raw_ops.SoftplusGrad(gradients=gradient, features=variable)
        if name in network.masks:
            gradient *= network.masks[name]
        pairs.append((gradient, variable))
    return pairs
