"""Refuses networks that do not take each example alone, or each once.

Where an example's output depends on the others of its batch, numbers would change with
``--batch_size``, and with the copies that fill the last batch. Where a network makes copies of an
example, each with noise of its own, a draw of weights has the same for all. What belongs here: the
test, by numbers, at weights that are fixed; and what to call the cause. What does not: running the
network (``evaluators.graph``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from ..evaluators.graph import GraphNetwork
from ..graph.layer_graph import LayerGraph
from ..graph.lifted import LiftedGraph
from ..graph.nodes import Node, Nodes, constant, dependences, parse_graph, parse_tensor
from ..posterior.mean_field import Posterior
from ..tensorflow_import import import_graphs, open_session, quiet_file_descriptor_2

logger = logging.getLogger(__name__)

_N_EXAMPLES = 4
_OF_SPREAD, _OF_SIZE = 1e-2, 1e-5
"""What rounding may make of a batch of another size: of the outputs' spread over examples, and of
their size. Statistics of a batch change outputs by about their spread."""
_NORMALIZATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})


def made_up_examples(lifted: LiftedGraph) -> NDArray[Any] | None:
    """A few examples for a network where there are no data; None where their shape is open."""
    if lifted.input_shape is None or None in lifted.input_shape[1:]:
        return None
    rng = np.random.default_rng(0)
    shape = (lifted.batch_size or _N_EXAMPLES, *(size or 0 for size in lifted.input_shape[1:]))
    dtype = np.dtype(lifted.input_dtype)
    # Numbers that a network takes whatever it does with them first: a logarithm, a look-up.
    made = rng.random(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
    return made.astype(dtype)


def check_examples_apart(
    lifted: LiftedGraph,
    posterior: Posterior,
    fixed: Mapping[str, NDArray[Any]],
    x: NDArray[Any],
    label: str,
    threads: tuple[int, int] = (1, 1),
) -> None:
    """Compare what examples give together with what each gives among copies of itself.

    Parameters
    ----------
    lifted : LiftedGraph
        A graph of layers takes each example alone, and is passed over.
    posterior : Posterior
        Its means are the weights; or, where they give every example the same, a draw.
    fixed : mapping of str to array
    x : array, shape (n_examples, ...)
        As the network takes them; a few are looked at.
    label : str
        What messages call the network.
    threads : tuple of int
        Of TensorFlow, within and between operations.

    Raises
    ------
    GraphError
        If an example's output depends on the others.
    """
    if isinstance(lifted.layers, LayerGraph):
        return
    some = _some(x, lifted.batch_size or _N_EXAMPLES)
    try:
        with GraphNetwork(lifted, fixed, *threads, with_scale=True) as network:
            for is_mean in (True, False):
                weights = posterior.loc if is_mean else _draw(posterior)
                together = network(some, weights).reshape(len(some), -1).astype(np.float64)
                if not np.isfinite(together).all():
                    return  # is told when the network is run
                spread = float(np.ptp(together, axis=0).max())
                allowed = _OF_SPREAD * spread + _OF_SIZE * float(np.abs(together).max())
                for row in (0, len(some) - 1):
                    n_copies = lifted.batch_size or 1
                    copies = np.repeat(some[row : row + 1], n_copies, axis=0)
                    alone = network(copies, weights).reshape(n_copies, -1)[row % n_copies]
                    if not np.abs(alone - together[row]).max() <= allowed:
                        raise GraphError(f"{label}: {_cause(lifted)}")
                if spread > 0:
                    break
        _check_copies(lifted, posterior, fixed, some, label, threads)
    except (import_graphs().OpError, ValueError) as error:
        logger.debug("whether examples depend on one another cannot be tested: %s", error)


def _check_copies(
    lifted: LiftedGraph,
    posterior: Posterior,
    fixed: Mapping[str, NDArray[Any]],
    some: NDArray[Any],
    label: str,
    threads: tuple[int, int],
) -> None:
    """Refuse a network in which all rows that have noise of their own are the same."""
    if lifted.batch_size not in (None, 1) or not lifted.rows_with_noise:
        return
    tensorflow = import_graphs()
    graph = tensorflow.Graph()
    with graph.as_default():
        definition = tensorflow.GraphDef.FromString(lifted.graph_def)
        tensorflow.import_graph_def(definition, name="")
    values = {**fixed, **posterior.loc}
    feeds = {
        tensor: values[name]
        for names in (lifted.loc_tensors, lifted.fixed_tensors)
        for name, tensor in names.items()
    }
    with (
        quiet_file_descriptor_2(),
        open_session(graph, *threads, is_optimized=False) as session,
    ):
        found = [
            session.run(
                list(lifted.rows_with_noise), {**feeds, lifted.input_tensor: some[row : row + 1]}
            )
            for row in range(len(some))
        ]
    for name, *of_examples in zip(lifted.rows_with_noise, *found, strict=True):
        n_copies = [_n_copies(factor) for factor in of_examples]
        if min(n_copies) > 1:
            raise GraphError(
                f"{label}: makes {n_copies[0]} copies of each example (see '{name}'), each with "
                "noise of its own, and a sweep has one draw for all; give each example once, and "
                "leave averages over passes to the sweep"
            )


def _n_copies(factor: NDArray[Any]) -> int:
    """Number of rows that are all the same; 1 where they are not, or may be so by chance."""
    # A convolution's noise is of a whole image.
    rows = factor.reshape(-1, factor.shape[-1]) if factor.ndim == 3 else factor
    is_copied = np.ptp(rows[0]) > 0 and np.allclose(rows, rows[:1], rtol=1e-5, atol=0)
    return len(rows) if is_copied else 1


def _draw(posterior: Posterior) -> dict[str, NDArray[np.float32]]:
    return {name: loc + posterior.scale[name] for name, loc in posterior.loc.items()}


def _some(x: NDArray[Any], size: int) -> NDArray[Any]:
    """Examples from all over the data, repeated where there are too few."""
    step = max(1, len(x) // size)
    found = x[::step][:size]
    return np.take(found, np.arange(size), axis=0, mode="wrap")


def _cause(lifted: LiftedGraph) -> str:
    definition = import_graphs().GraphDef.FromString(lifted.graph_def)
    nodes = parse_graph(definition)
    of_input = dependences(nodes, nodes, parse_tensor(lifted.input_tensor), ())
    found = [node for node in nodes.values() if of_input[node.name] and _mixes(nodes, node)]
    if not found:
        return (
            "what the network gives an example depends on the others of its batch, so that its "
            "numbers would change with --batch_size; export it for inference"
        )
    return (
        f"batch normalization with the statistics of each batch (see '{found[0].name}'), so that "
        "an example's output depends on the others of its batch; build the network with "
        "training=False, so that it takes the moving averages (--feed, if a placeholder says it)"
    )


def _mixes(nodes: Nodes, node: Node) -> bool:
    """Whether a node takes statistics over the examples."""
    if node.op in _NORMALIZATIONS:
        return bool(node.attr["is_training"].b)
    axes = constant(nodes, node.inputs[1]) if node.op == "Mean" else None
    return axes is not None and 0 in axes
