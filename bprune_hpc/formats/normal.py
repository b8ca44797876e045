"""A regression's network as one graph of layers, where its standard deviation is the same always.

Its means and, after them, its standard deviations are the outputs then, as the product has them.
What belongs here: putting the two together. What does not: finding layers (``graph.layer_search``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluators.graph import GraphNetwork
from ..graph.layer_graph import (
    Bias,
    Concatenation,
    LayerGraph,
    LayerNode,
    Scale,
    UnknownOperation,
)
from ..graph.layer_search import find_layers
from ..graph.lifted import LiftedGraph
from ..graph.nodes import Depends, ancestors, dependences, parse_graph, parse_tensor
from ..posterior.mean_field import Posterior
from ..runner.batch_dependence import made_up_examples
from ..tensorflow_import import import_graphs

_ZEROS, _DEVIATIONS = "standard_deviation/zeros", "standard_deviation"


def normal_layers(
    lifted: LiftedGraph, posterior: Posterior, fixed: Mapping[str, NDArray[Any]]
) -> LayerGraph | UnknownOperation:
    """The layers of a lifted network of two outputs, ``loc`` and ``scale``.

    Returns
    -------
    LayerGraph or UnknownOperation
        The latter also where the standard deviation depends on the example or the posterior.
    """
    graph_def = import_graphs().GraphDef.FromString(lifted.graph_def)
    nodes = parse_graph(graph_def)
    loc, scale = (parse_tensor(lifted.output_tensors[kind]) for kind in ("loc", "scale"))
    given = parse_tensor(lifted.input_tensor)
    drawn = {parse_tensor(tensor)[0]: name for name, tensor in lifted.loc_tensors.items()}
    behind = ancestors(nodes, [scale])
    depends = dependences(nodes, behind, given, drawn)[scale[0]]
    if depends & (Depends.INPUT | Depends.VARIABLE):
        return UnknownOperation(scale[0], nodes[scale[0]].op)
    weights = {
        parse_tensor(tensor)[0]: name
        for name, tensor in lifted.fixed_tensors.items()
        if name not in lifted.loc_tensors
    }
    of_fixed = {name: fixed[name] for name in weights.values()}
    found = find_layers(graph_def, nodes, given, loc, weights | drawn, of_fixed)
    x = made_up_examples(lifted)
    if isinstance(found, UnknownOperation) or x is None:
        return found
    with GraphNetwork(lifted, fixed, with_scale=True) as network:
        outputs = network(x, posterior.loc).reshape(len(x), -1)
    deviations = outputs[0, outputs.shape[1] // 2 :].astype(np.float32)
    last = len(found.nodes) - 1
    nodes_of_scale = (
        LayerNode(Scale(_ZEROS), (last,)),
        LayerNode(Bias(_DEVIATIONS), (last + 1,)),
        LayerNode(Concatenation(), (last, last + 2)),
    )
    constants = {_ZEROS: np.zeros_like(deviations), _DEVIATIONS: deviations}
    return replace(
        found, nodes=found.nodes + nodes_of_scale, constants={**found.constants, **constants}
    )
