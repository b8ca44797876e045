"""Which evaluator runs a network: decided by the network and by what was asked for.

Never by ranks, since the bits depend on it; its name is stored with the results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..graph.layer_graph import (
    Activation,
    Add,
    BatchNormalization,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    Operation,
    Pooling,
    Reshape,
    UnknownOperation,
    layers_of,
)
from ..graph.lifted import LiftedGraph
from ..tensorflow_import import CPU, Device
from .interface import Evaluator

EVALUATORS = ("auto", "chain", "channels", "graph")


FORMS = {
    "chain": "dense layers, perhaps after one convolution",
    "channels": "layers one after the other",
    "graph": "any network",
}
"""What each evaluator takes."""
RUNS_TENSORFLOW = {"chain": False, "channels": True, "graph": True}
"""Whether ranks load TensorFlow for it, and need the memory."""

_LETTERS: Mapping[type[Operation], str] = {
    Dense: "D", Convolution: "C", Bias: "B", BatchNormalization: "N", Activation: "A",
    Pooling: "P", Reshape: "R", Add: "+",
}  # fmt: skip
_DENSE = re.compile("[RF]*(CB?(A|P|AP|PA)?[RF])?(DB?A?)+")
"""Dense layers, perhaps after a convolution. No activation falls as its argument grows, so that it
may come before or after a maximum. F is a reshape that makes an image flat."""
_CHANNELS = re.compile("[RFP]*([CD][PR]*B?[PRFA]*)+")
"""Layers with a bias for each neuron or channel, before activations and before images are flat."""


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
    chain = _chain_of(graph)
    possible = {"chain": _is_dense(chain), "channels": _has_channels(chain), "graph": True}
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


def _is_dense(chain: Sequence[Operation]) -> bool:
    """Whether a chain is for ``chain``: what pools its convolution are maxima of tiles."""
    if not _DENSE.fullmatch(_form(chain)):
        return False
    first, pooling = layers_of(chain)[0].product, layers_of(chain)[0].pooling
    if pooling is None or not isinstance(first, Convolution):
        return True
    are_tiles = all(n % each == 0 for n, each in zip(first.size, pooling.size, strict=True))
    return pooling.function == "MaxPool" and pooling.strides == pooling.size and are_tiles


def _has_channels(chain: Sequence[Operation]) -> bool:
    """Whether a chain is for ``channels``: each layer with weights of its own."""
    names = [name for layer in layers_of(chain) for name in (layer.kernel, layer.bias) if name]
    return bool(_CHANNELS.fullmatch(_form(chain))) and len(set(names)) == len(names)


def _form(chain: Sequence[Operation]) -> str:
    """A letter for each operation."""
    return "".join(
        "F" if isinstance(one, Reshape) and one.n_places > 1 else _LETTERS[type(one)]
        for one in chain
    )


def _chain_of(graph: LiftedGraph) -> Sequence[Operation]:
    """The operations of a network without branches; none of any other."""
    return (graph.layers.chain() if isinstance(graph.layers, LayerGraph) else None) or ()


def make_evaluator(
    name: str,
    graph: LiftedGraph,
    fixed: Mapping[str, NDArray[Any]],
    n_intra: int = 1,
    n_inter: int = 1,
    device: Device = CPU,
) -> Evaluator:
    """The evaluator of a name that :func:`choose_evaluator` gave.

    Parameters
    ----------
    fixed : mapping of str to array
        Weights without a posterior.
    n_intra, n_inter : int
        Threads of this process.
    device : Device
        A GPU runs the graph alone.
    """
    chain = _chain_of(graph)
    if name == "chain":
        from .chain import ChainNetwork

        return ChainNetwork(layers_of(chain), fixed, n_intra)
    if name == "channels":
        from .channels import ChannelNetwork

        return ChannelNetwork(chain, fixed, n_intra, n_inter)
    if device != CPU:
        from .stacked_graph import StackedGraph

        return StackedGraph(graph, fixed, n_intra, n_inter, device)
    from .graph import GraphEvaluator, GraphNetwork

    return GraphEvaluator(GraphNetwork(graph, fixed, n_intra, n_inter, with_scale=True))
