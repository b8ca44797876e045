"""Checks by numbers that a graph of layers is what a lifted graph computes.

A search that knows structures alone can be mistaken about one; what it says is believed when both
give some examples the same. What does not belong here: the search (``graph.layer_search``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blas import limit_threads
from ..posterior.mean_field import Posterior
from ..tensorflow_import import import_graphs, open_session, quiet_file_descriptor_2
from .constant_folding import import_graph
from .layer_graph import LayerGraph
from .layer_ops import run
from .lifted import LiftedGraph

logger = logging.getLogger(__name__)

_N_EXAMPLES = 2
_MOST_NUMBERS = 2**24
"""Of a tensor of an example: what a file declares can be of any size."""
_ALLOWED = 1e-3
"""Of the largest output: rounding makes a hundredth of it, another network all of it."""


@np.errstate(over="ignore", invalid="ignore")
def agrees(
    layers: LayerGraph,
    lifted: LiftedGraph,
    posterior: Posterior,
    fixed: Mapping[str, NDArray[Any]],
    threads: tuple[int, int] = (1, 1),
) -> bool:
    """Whether both give made-up examples the same.

    Parameters
    ----------
    layers : LayerGraph
    lifted : LiftedGraph
    posterior : Posterior
        Its means are the weights; where they give all examples the same, a draw is tried too.
    fixed : mapping of str to array
        The other weights.
    threads : tuple of int
        Of TensorFlow, within and between operations.

    Returns
    -------
    bool
        False too where the graph cannot be run, or is too large to be tried.
    """
    shapes = {name: value.shape for name, value in {**fixed, **layers.constants}.items()}
    shapes |= {name: value.shape for name, value in posterior.loc.items()}
    sizes = [math.prod(shape) for shape in (layers.input_shape, *layers.shapes(shapes))]
    if max(sizes) > _MOST_NUMBERS:
        return False
    tensorflow = import_graphs()
    graph = import_graph(tensorflow.GraphDef.FromString(lifted.graph_def), "lifted graph")
    x = _examples(layers, lifted)
    of_fixed = {tensor: fixed[name] for name, tensor in lifted.fixed_tensors.items()}
    try:
        with (
            quiet_file_descriptor_2(),
            limit_threads(1),
            open_session(graph, *threads, is_optimized=False) as session,
        ):
            for is_mean in (True, False):
                weights = posterior.loc if is_mean else _draw(posterior)
                feeds = {tensor: weights[name] for name, tensor in lifted.loc_tensors.items()}
                feeds |= {lifted.input_tensor: x, **of_fixed}
                expected = _by_row(session.run(lifted.output_tensor, feeds), x)
                every = {**fixed, **layers.constants, **weights}
                found = _by_row(run(layers, every, x.astype(np.float32)), x)
                if found.shape != expected.shape:
                    return False
                error = np.abs(found - expected).max(initial=0)
                largest = np.abs(expected).max(initial=0)
                # What is not finite is told when the network is run.
                if np.isfinite(largest) and not error <= _ALLOWED * largest:
                    return False
                if np.ptp(expected, axis=0).max(initial=0) > 0:
                    break
    except (tensorflow.OpError, ValueError) as error:
        logger.debug("the graph cannot be run on made-up examples: %s", error)
        return False
    return True


def _examples(layers: LayerGraph, lifted: LiftedGraph) -> NDArray[Any]:
    shape = lifted.input_shape
    if not shape or None in shape[1:]:
        shape = None, *layers.input_shape
    sizes = [size or 0 for size in (lifted.batch_size or _N_EXAMPLES, *shape[1:])]
    rng, dtype = np.random.default_rng(0), np.dtype(lifted.input_dtype)
    made = rng.normal(size=sizes) if dtype.kind == "f" else rng.integers(0, 2, sizes)
    return made.astype(dtype)


def _draw(posterior: Posterior) -> dict[str, NDArray[Any]]:
    return {name: loc + posterior.scale[name] for name, loc in posterior.loc.items()}


def _by_row(outputs: Any, x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(outputs, np.float64).reshape(len(x), -1)
