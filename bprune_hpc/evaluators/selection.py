"""Which evaluator runs a network: decided by the network and by what was asked for.

Never by ranks, since the bits depend on it; its name is stored with the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..graph.chain import channel_layers, layers_of
from ..graph.lifted import LiftedGraph
from .interface import Evaluator

EVALUATORS = ("auto", "chain", "channels", "graph")


FORMS = {
    "chain": "dense layers, perhaps after one convolution",
    "channels": "layers one after the other",
    "graph": "any network",
}
"""What each evaluator takes."""


def choose_evaluator(asked: str, graph: LiftedGraph) -> str:
    """Name of the evaluator for a network.

    Parameters
    ----------
    asked : str
        One of ``EVALUATORS``; ``auto`` takes the fastest that there is.

    Raises
    ------
    ConfigError
        If the network is not of the form that the one asked for takes.
    """
    possible = {
        "chain": layers_of(graph.chain) is not None,
        "channels": channel_layers(graph.chain) is not None,
        "graph": True,
    }
    if asked == "auto":
        return next(name for name, fits in possible.items() if fits)
    if not possible[asked]:
        raise ConfigError(
            f"--evaluator: {asked} is for {FORMS[asked]}, and this network is another; leave the "
            "flag out"
        )
    return asked


def make_evaluator(
    name: str,
    graph: LiftedGraph,
    fixed: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, tuple[int, ...]],
    n_intra: int = 1,
    n_inter: int = 1,
) -> Evaluator:
    """The evaluator of a name that :func:`choose_evaluator` gave.

    Parameters
    ----------
    fixed : mapping of str to array
        Weights without a posterior.
    shapes : mapping of str to tuple of int
        Of every mean-field tensor.
    n_intra, n_inter : int
        Threads of this process.
    """
    if name == "chain":
        from .chain import ChainNetwork

        layers = layers_of(graph.chain)
        if layers is None:
            raise ValueError("not a chain of layers")
        return ChainNetwork(layers, fixed, n_intra)
    if name == "channels" and graph.chain is not None:
        from .channels import ChannelNetwork

        return ChannelNetwork(graph.chain, fixed, shapes, n_intra, n_inter)
    from .graph import GraphEvaluator, GraphNetwork

    return GraphEvaluator(GraphNetwork(graph, fixed, n_intra, n_inter, with_scale=True))
