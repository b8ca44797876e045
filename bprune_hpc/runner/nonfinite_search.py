"""The operation of a network at which numbers stop being finite.

The lifted graph is run once more, for one draw and one batch of examples, with a look at every
tensor on the way. That outputs were not finite is found elsewhere (``runner.evaluation``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluators.graph import weights_of
from ..evaluators.interface import Noise
from ..evaluators.local_chain import LocalChain
from ..graph.layer_graph import Bias, Layer, LayerGraph, layers_of
from ..graph.lifted import LiftedGraph
from ..posterior.draws import MEAN
from ..posterior.mean_field import Posterior
from ..tensorflow_import import import_graphs, open_session, quiet_file_descriptor_2
from .evaluation import batches
from .nonfinite import Fault
from .preparation import PreparedSweep

logger = logging.getLogger(__name__)


def find_layer(sweep: PreparedSweep, threshold_index: int, fault: Fault) -> str:
    """Where the outputs of a draw at a threshold stop being finite.

    Parameters
    ----------
    threshold_index : int
        The threshold, of the grid.

    Returns
    -------
    str
        Name of an operation, see :func:`first_not_finite`; empty where the graph gives finite
        numbers (another evaluator adds up in another order), or cannot be looked into.
    """
    network, dataset = sweep.network, sweep.datasets[fault.dataset]
    plan = dataset.plan
    pruned = sweep.masks[threshold_index].apply(network.posterior)
    replicate = MEAN if fault.draw == MEAN else fault.draw // plan.draws_per_replicate
    of_replicate = network.noise(sweep.config.seed).of_replicate(
        network.posterior, replicate, plan.replicates, dataset.name, fault.example
    )
    (noise,) = (
        Noise(replicate, (draw,), noise.values, noise.of_examples)
        for noise in of_replicate
        for draw in noise.draws
        if draw.index == fault.draw
    )
    stop = min(fault.example + plan.batch_size, len(dataset))
    ((_, x),) = batches(dataset.x, range(fault.example, stop), plan.batch_size)
    if noise.of_examples is not None:
        return _first_layer(sweep, pruned, noise, x, fault.example)
    with np.errstate(over="ignore", invalid="ignore"):
        (weights,) = weights_of(pruned, noise)
    try:
        return first_not_finite(network.graph, x, {**network.fixed, **weights})
    except _refusals() as error:
        logger.debug("no look into the graph: %s", error)
        return ""


@np.errstate(over="ignore", invalid="ignore")
def _first_layer(
    sweep: PreparedSweep, pruned: Posterior, noise: Noise, x: NDArray[Any], first_example: int
) -> str:
    """The first layer whose units are not all finite, before activations, by its kernel."""
    graph = sweep.network.graph.layers
    assert isinstance(graph, LayerGraph)
    layers = layers_of(graph.chain() or ())
    fixed = {**sweep.network.fixed, **graph.constants}
    for number, layer in enumerate(layers):
        plain = Layer(layer.product, tuple(one for one in layer.after if isinstance(one, Bias)))
        sampled = LocalChain([*layers[:number], plain], fixed).prune(pruned)
        (outputs,) = sampled.sample([noise]).outputs(x, [slice(0, 1)], first_example)
        if not np.isfinite(outputs).all():
            return layer.kernel
    return ""


def _refusals() -> tuple[type[Exception], ...]:
    """What TensorFlow raises where tensors on the way cannot be had, as inside of a loop."""
    return (ValueError, TypeError, import_graphs().OpError)


def first_not_finite(lifted: LiftedGraph, x: NDArray[Any], weights: Mapping[str, Any]) -> str:
    """The first operation on the way from the input whose numbers are not all finite.

    That is one all of whose inputs are finite; of several the first in the order of the graph. It
    can be a weight, where that has overflowed.

    Parameters
    ----------
    x : array, shape (n_examples, ...)
    weights : mapping of str to array
        Value of every variable, mean-field or not, by the names of the lifted graph.

    Returns
    -------
    str
        Its name in the graph; empty if there is none.
    """
    tensorflow = import_graphs()
    graph = tensorflow.Graph()
    with graph.as_default():
        definition = tensorflow.GraphDef.FromString(lifted.graph_def)
        tensorflow.import_graph_def(definition, name="")
        outputs = {lifted.output_tensor, *lifted.output_tensors.values()}
        operations = _on_the_way(graph, [graph.get_tensor_by_name(name).op for name in outputs])
        tensors = {
            operation.name: [
                tensor
                for tensor in operation.outputs
                if tensor.dtype.is_floating and graph.is_fetchable(tensor)
            ]
            for operation in operations
        }
        # Single bits leave the graph, so that layers need not be kept until its end.
        is_finite = {
            tensor.name: tensorflow.reduce_all(tensorflow.is_finite(tensor))
            for of_operation in tensors.values()
            for tensor in of_operation
        }
    feeds = {lifted.input_tensor: x.astype(lifted.input_dtype, copy=False)}
    for names in (lifted.loc_tensors, lifted.fixed_tensors):
        feeds |= {tensor: weights[name] for name, tensor in names.items()}
    with quiet_file_descriptor_2(), open_session(graph, 1, 1, is_optimized=False) as session:
        of_tensors = session.run(is_finite, feeds)
    for operation in operations:
        is_bad = any(not of_tensors[tensor.name] for tensor in tensors[operation.name])
        if is_bad and all(of_tensors.get(tensor.name, True) for tensor in operation.inputs):
            return str(operation.name)
    return ""


def _on_the_way(graph: Any, ends: Sequence[Any]) -> list[Any]:
    """Operations that some depend on, and they themselves, in the order of the graph."""
    names, rest = set(), list(ends)
    while rest:
        operation = rest.pop()
        if operation.name not in names:
            names.add(operation.name)
            rest += [tensor.op for tensor in operation.inputs]
    return [operation for operation in graph.get_operations() if operation.name in names]
