"""Which evaluator runs a network, with which noise: decided by the network and by what was asked.

Never by ranks, since the bits depend on it; the names are stored with the results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from .. import compiled
from ..errors import ConfigError
from ..graph.layer_graph import (
    Activation,
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
from ..graph.weight_uses import weight_uses
from ..tensorflow_import import CPU, Device
from .compaction import Weights
from .compiled_graph import is_known, what_is_unknown
from .interface import Evaluator

EVALUATORS = ("auto", "chain", "channels", "layers", "graph")

ALIASES = {"channels": "layers"}
"""Names of what others do now."""
NAMES_IN_RESULTS = {"layers": "layers-3"}
"""Those whose numbers are not all those of their former names."""
FORMS = {
    "chain": "dense layers, perhaps after one convolution",
    "layers": "convolutions, pooling, dense layers, batch normalization, activations and sums",
    "graph": "any network",
}
"""What each evaluator takes."""
RUNS_TENSORFLOW = {"chain": False, "layers": False, "graph": True}
"""Whether ranks load TensorFlow for it, and need the memory."""

_MOST_SCALE = 1e18
"""Deviations whose squares, and sums of these, float32 holds."""

_LETTERS: Mapping[type[Operation], str] = {
    Dense: "D", Convolution: "C", Bias: "B", Activation: "A", Pooling: "P", Reshape: "R",
}  # fmt: skip
_FUNCTIONS = frozenset({"Relu", "Relu6", "Tanh", "Sigmoid", "Elu", "Softplus"})
_DENSE = re.compile("[RF]*(CB?(A|P|AP|PA)?[RF])?(DB?A?)+")
"""Dense layers, perhaps after a convolution. No activation falls as its argument grows, so that it
may come before or after a maximum. F is a reshape that makes an image flat."""


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
    chain, layers = _chain_of(graph), graph.layers
    possible = {
        "chain": _is_dense(chain),
        "layers": isinstance(layers, LayerGraph) and is_known(layers),
        "graph": True,
    }
    if asked == "auto":
        return next(name for name, fits in possible.items() if fits)
    name = ALIASES.get(asked, asked)
    if not possible[name]:
        has = " is another"
        if isinstance(layers, UnknownOperation):
            has = f" has '{layers.name}' ({layers.operation})"
        elif isinstance(layers, LayerGraph) and name == "layers":
            has = f" has {what_is_unknown(layers)}"
        raise ConfigError(
            f"--evaluator: {asked} is for {FORMS[name]}, and this network{has}; leave the flag out"
        )
    return name


def choose_draw_noise(
    asked: str,
    evaluator: str,
    graph: LiftedGraph,
    weights: Weights,
    is_one_network: bool,
) -> str:
    """Which examples share the noise of a draw.

    Parameters
    ----------
    asked : str
        ``auto``, or one of ``evaluators.draw_noise.DRAW_NOISES``. ``auto`` is the one with the
        least Monte Carlo error that leaves each example's predictive distribution as it is.
    evaluator : str
        What :func:`choose_evaluator` gave.
    weights : Weights
    is_one_network : bool
        Whether something is wanted that blocks of examples with noise of their own cannot give.

    Raises
    ------
    ConfigError
        If examples of this network cannot have noise of their own.
    """
    reason = _why_not_per_example(evaluator, graph, weights)
    if asked == "per_example" and reason:
        raise ConfigError(
            "--draw_noise: per_example is for dense layers one after the other, whose weights are "
            f"used once for an example, and {reason}; pass --draw_noise=per_block"
        )
    if asked != "auto":
        return asked
    if not reason:
        return "per_example"
    return "shared" if is_one_network else "per_block"


def _why_not_per_example(evaluator: str, graph: LiftedGraph, weights: Weights) -> str:
    """What keeps examples from having noise of their own; empty if nothing does."""
    layers, posterior = graph.layers, weights.posterior
    if isinstance(layers, UnknownOperation):
        return f"this network has '{layers.name}' ({layers.operation})"
    if layers is None:
        return "this network has two outputs"
    shapes = {**weights.shapes, **{name: one.shape for name, one in layers.constants.items()}}
    for name, n_uses in weight_uses(layers, shapes).items():
        if n_uses > 1 and name in posterior.loc:
            return f"'{name}' is used {n_uses} times"
    for name, scale in posterior.scale.items():
        if scale.size and float(scale.max()) > _MOST_SCALE:
            return f"'{name}' has a deviation of {scale.max():.2g}, whose square is beyond float32"
    if evaluator != "chain" or any(isinstance(one, Convolution) for one in _chain_of(graph)):
        return f"this network is run by the evaluator {evaluator}, with other layers or as it is"
    return ""


def _is_dense(chain: Sequence[Operation]) -> bool:
    """Whether a chain is for ``chain``: what pools its convolution are maxima of tiles."""
    if not _DENSE.fullmatch(_form(chain)):
        return False
    first, pooling = layers_of(chain)[0].product, layers_of(chain)[0].pooling
    if pooling is None or not isinstance(first, Convolution):
        return True
    are_tiles = all(n % each == 0 for n, each in zip(first.size, pooling.window, strict=True))
    return pooling.function == "MaxPool" and pooling.strides == pooling.window and are_tiles


def _form(chain: Sequence[Operation]) -> str:
    """A letter for each operation; X for one that ``chain`` has not."""
    letters: list[str] = []
    for one in chain:
        letter = _LETTERS.get(type(one), "X")
        if isinstance(one, Convolution) and (one.dilations != (1, 1) or one.groups > 1):
            letter = "X"
        if isinstance(one, Activation) and one.function not in _FUNCTIONS:
            letter = "X"
        if isinstance(one, Reshape) and one.n_places > 1:
            letter = "F"
        if isinstance(one, Reshape) and len(one.shape) > 1 and {"D", "C"} & set(letters):
            letter = "X"  # between layers, images are only made flat
        letters.append(letter)
    return "".join(letters)


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
    draw_noise: str = "shared",
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
    draw_noise : str
        What :func:`choose_draw_noise` gave.
    """
    layers = graph.layers
    if isinstance(layers, LayerGraph) and draw_noise == "per_example":
        from .local_chain import LocalChain

        return LocalChain(layers_of(_chain_of(graph)), {**fixed, **layers.constants}, n_intra)
    if isinstance(layers, LayerGraph) and name == "chain":
        from .chain import ChainNetwork

        return ChainNetwork(layers_of(_chain_of(graph)), {**fixed, **layers.constants}, n_intra)
    if isinstance(layers, LayerGraph) and name == "layers":
        if compiled.instructions() != compiled.NONE:
            from .compiled_graph import CompiledGraph

            return CompiledGraph(layers, fixed, n_intra)
        from .reference import ReferenceNetwork

        return ReferenceNetwork(layers, fixed, n_intra)
    if device != CPU:
        from .stacked_graph import StackedGraph

        return StackedGraph(graph, fixed, n_intra, n_inter, device)
    from .graph import GraphEvaluator, GraphNetwork

    return GraphEvaluator(GraphNetwork(graph, fixed, n_intra, n_inter, with_scale=True))
