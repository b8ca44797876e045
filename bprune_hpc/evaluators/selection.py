"""Which evaluator runs a network: decided by the network and by what was asked for.

Never by ranks, since the bits depend on it; its name is stored with the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..graph.layer_graph import (
    Activation,
    Bias,
    Convolution,
    Dense,
    Layer,
    LayerGraph,
    Operation,
    Pooling,
    Reshape,
    UnknownOperation,
    layers_of,
)
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
    possible = {"chain": _is_dense(graph), "channels": _is_chain(graph), "graph": True}
    if asked == "auto":
        return next(name for name, fits in possible.items() if fits)
    if not possible[asked]:
        unknown = graph.layers
        has = " is another"
        if isinstance(unknown, UnknownOperation):
            has = f" has '{unknown.name}' ({unknown.operation})"
        raise ConfigError(
            f"--evaluator: {asked} is for {FORMS[asked]}, and this network{has}; leave the flag out"
        )
    return asked


def _is_chain(graph: LiftedGraph) -> bool:
    """Whether a network is layers one after the other, each with weights of its own."""
    layers = layers_of(graph.layers) or ()
    names = [name for layer in layers for name in (layer.kernel, layer.bias) if name]
    return bool(layers) and len(set(names)) == len(names)


def _is_dense(graph: LiftedGraph) -> bool:
    """Whether a network is dense layers, perhaps after one convolution.

    The convolution may be pooled to maxima of windows that tile it, before or after its activation
    (none of which falls as its argument grows), and is made flat once.
    """
    layers, chain = layers_of(graph.layers), _chain_of(graph)
    if layers is None or chain is None:
        return False
    first = layers[0]
    if not all(isinstance(one, Reshape) for one in chain[: chain.index(first.product)]):
        return False
    dense = layers
    if isinstance(first.product, Convolution):
        dense = layers[1:]
        if not dense or not _is_made_flat(first, first.product):
            return False
    return all(
        isinstance(layer.product, Dense) and _kinds(layer) in ((), (Activation,)) for layer in dense
    )


def _is_made_flat(layer: Layer, convolution: Convolution) -> bool:
    pooling = layer.pooling
    is_tiled = pooling is None or (
        pooling.function == "MaxPool"
        and pooling.strides == pooling.size
        and all(size % each == 0 for size, each in zip(convolution.size, pooling.size, strict=True))
    )
    has_late_bias = any(isinstance(one, Bias) for one in layer.after[1:])
    *between, last = _kinds(layer) or (None,)
    is_known = tuple(between) in (
        (), (Activation,), (Pooling,), (Activation, Pooling), (Pooling, Activation),
    )  # fmt: skip
    return is_tiled and not has_late_bias and is_known and last is Reshape


def _kinds(layer: Layer) -> tuple[type[Operation], ...]:
    """What follows a product, but for its bias."""
    return tuple(type(one) for one in layer.after if not isinstance(one, Bias))


def _chain_of(graph: LiftedGraph) -> tuple[Operation, ...] | None:
    return graph.layers.chain() if isinstance(graph.layers, LayerGraph) else None


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
    layers, chain = layers_of(graph.layers), _chain_of(graph)
    if name == "chain" and layers is not None:
        from .chain import ChainNetwork

        return ChainNetwork(layers, fixed, n_intra)
    if name == "channels" and layers is not None and chain is not None:
        from .channels import ChannelNetwork

        return ChannelNetwork(chain, layers, fixed, n_intra, n_inter)
    from .graph import GraphEvaluator, GraphNetwork

    return GraphEvaluator(GraphNetwork(graph, fixed, n_intra, n_inter, with_scale=True))
