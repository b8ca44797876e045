"""Lifts any TensorFlow graph to ``f(x, weights)`` and the mean-field posterior that it holds.

What belongs here: the cut, from a flat graph whose noise is known to a graph whose weights are
arguments. What does not: files (``checkpoint``, ``case``), finding the input and the logits
(``graph_search``), telling noise from noise (``noise``), calls and conditionals (``inlining``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from . import graph_search
from .dependence import is_random
from .errors import GraphError
from .evaluate_graph import Evaluator, static_types
from .graph_checks import check_lifted, check_operations, used_functions
from .graph_nodes import (
    SAME_VALUE,
    Nodes,
    Tensor,
    ancestors,
    build_graph,
    constant_node,
    describe,
    numpy_type,
    placeholder_node,
    tensor_name,
    typed_node,
)
from .inlining import flatten
from .network import LiftedGraph
from .noise import find_noise
from .noise_removal import NoiseRemoval
from .posterior import Posterior

ReadVariables = Callable[[Collection[str]], Mapping[str, NDArray[Any]]]

_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})


@dataclass(frozen=True)
class Lifted:
    """What :func:`lift` gives.

    Attributes
    ----------
    graph : LiftedGraph
    posterior : Posterior
    fixed : dict of str to array
        Deterministic variables that the network reads, by checkpoint name.
    used_variables : tuple of str
        Checkpoint names of all variables that were read, scales included.
    dropped_ops : dict of str to int
        How many operations of each type the lifted graph does without, functions included.
    """

    graph: LiftedGraph
    posterior: Posterior
    fixed: dict[str, NDArray[Any]]
    used_variables: tuple[str, ...]
    dropped_ops: dict[str, int]


def lift(
    graph_def: Any,
    read_variables: ReadVariables,
    *,
    input_op: str | None = None,
    logits_op: str | None = None,
    variable_names: Mapping[str, str] | None = None,
    label: str = "graph",
    n_intra: int = 1,
    n_inter: int = 1,
) -> Lifted:
    """Separate a graph into a deterministic network and a table of Gaussians.

    Parameters
    ----------
    graph_def : GraphDef
        Of a TF1 meta graph, a traced Keras call or a SavedModel; it is not changed.
    read_variables : callable
        Takes names of variables, returns their values.
    input_op, logits_op : str, optional
        Operations (or tensors) between which the network lies; searched for where not given.
    variable_names : mapping of str to str, optional
        Names of the variables behind placeholders that take a variable's handle, as in traces.
    label : str
        What error messages call the graph; a file's name.
    n_intra, n_inter : int
        TensorFlow threads; the same as for the networks of this process.

    Returns
    -------
    Lifted

    Raises
    ------
    GraphError
        If there is no mean-field posterior in the graph, or something that cannot be evaluated.
    """
    with _named(label):
        return _lift(
            graph_def,
            read_variables,
            (input_op, logits_op),
            variable_names or {},
            label,
            (n_intra, n_inter),
        )


@contextmanager
def _named(label: str) -> Iterator[None]:
    # What walks a graph does not know the file that it came from.
    try:
        yield
    except GraphError as error:
        if str(error).startswith(f"{label}: "):
            raise
        raise GraphError(f"{label}: {error}") from error


def _lift(
    graph_def: Any,
    read_variables: ReadVariables,
    ends: tuple[str | None, str | None],
    variable_names: Mapping[str, str],
    label: str,
    threads: tuple[int, int],
) -> Lifted:
    input_op, logits_op = ends
    nodes, renamed = flatten(graph_def)
    original = {name: node.op for name, node in nodes.items()}
    logits = (
        graph_search.named_tensor(nodes, renamed, logits_op, "--logits_op", label)
        if logits_op
        else graph_search.find_logits(nodes, label)
    )
    if nodes[logits[0]].op == "Mul":  # BPrune names logits × ones like the labels
        logits = graph_search.before_ones(nodes, logits)
    given = (
        graph_search.named_tensor(nodes, renamed, input_op, "--input_op", label)
        if input_op
        else graph_search.find_input(nodes, logits, label)
    )
    input_tensor = _isolate_input(nodes, given)
    for node in nodes.values():
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            node.attr = {"T": node.attr["dtype"]}
    order = ancestors(nodes, [logits])
    if input_tensor[0] not in order:
        raise GraphError(
            f"{label}: no path from input '{tensor_name(given)}' to output "
            f"'{tensor_name(logits)}'; check --input_op and --logits_op"
        )
    nodes = {name: nodes[name] for name in order}
    names = _expose_variables(nodes, variable_names, label)
    others = {name: node for name, node in nodes.items() if name not in names}
    check_operations(others, graph_def.library, label)
    values = read_variables(sorted(set(names.values())))
    for node_name, name in names.items():
        value = values[name]
        nodes[node_name] = placeholder_node(node_name, numpy_type(value.dtype), value.shape)

    sites = find_noise(nodes, logits, input_tensor, names, label)
    if not sites:
        random = [name for name in nodes if is_random(nodes[name].op)]
        found = f"only {describe(nodes, random)}" if random else "nothing random"
        raise GraphError(
            f"{label}: no mean-field posterior: '{tensor_name(logits)}' is computed from no normal "
            f"noise; found {found}; check --logits_op, or train a variational network"
        )
    functions = used_functions(nodes.values(), graph_def.library)
    evaluator = Evaluator(
        nodes,
        {node: values[name] for node, name in names.items()},
        build=lambda some: build_graph(some, graph_def.versions, functions),
        label=label,
        threads=threads,
    )
    removal = NoiseRemoval(nodes, names, evaluator, label)
    for site in sites:
        removal.apply(site)
    kept = ancestors(nodes, [logits])
    check_lifted(nodes, kept, input_tensor, {*names, *removal.placeholders.values()}, label)
    fixed_nodes = {names[name]: name for name in kept if name in names}
    kept_nodes = [nodes[name] for name in kept]
    final = build_graph(
        kept_nodes, graph_def.versions, used_functions(kept_nodes, graph_def.library)
    )
    shapes = static_types(final, [input_tensor, logits], label)
    lifted = LiftedGraph(
        graph_def=final.SerializeToString(deterministic=True),
        input_tensor=tensor_name(input_tensor),
        input_shape=shapes[input_tensor].shape,
        input_dtype=shapes[input_tensor].dtype,
        output_tensor=tensor_name(logits),
        output_shape=shapes[logits].shape,
        loc_tensors={name: f"{node}:0" for name, node in removal.placeholders.items()},
        fixed_tensors={name: f"{node}:0" for name, node in sorted(fixed_nodes.items())},
        notes=tuple(removal.notes),
    )
    return Lifted(
        graph=lifted,
        posterior=Posterior(loc=removal.loc, scale=removal.scale),
        fixed={name: values[name] for name in lifted.fixed_tensors},
        used_variables=tuple(sorted(values)),
        dropped_ops=_dropped(graph_def, [n.op for n in kept_nodes if original.get(n.name) == n.op]),
    )


def _isolate_input(nodes: Nodes, given: Tensor) -> Tensor:
    """A placeholder in place of the tensor that examples are fed to."""
    name, output = given
    node = nodes[name]
    if node.op == "Placeholder":
        return given
    types = node.attr["output_types"].list.type if "output_types" in node.attr else ()
    shapes = node.attr["output_shapes"].list.shape if "output_shapes" in node.attr else ()
    keys = [key for key in ("dtype", "DstT", "T") if key in node.attr]
    if not types and not keys:
        raise GraphError(f"'{name}' ({node.op}) cannot be fed; pass another --input_op")
    dtype = types[output] if types else node.attr[keys[0]].type
    shape = shapes[output] if shapes else node.attr["shape"].shape if "shape" in node.attr else None
    fed = f"{name}/fed"
    nodes[fed] = placeholder_node(fed, dtype, shape)
    for other in nodes.values():
        other.inputs = [(fed, 0) if tensor == given else tensor for tensor in other.inputs]
    return fed, 0


def _expose_variables(
    nodes: Nodes, variable_names: Mapping[str, str], label: str
) -> dict[str, str]:
    """Turn variables into plain tensors; checkpoint name of each, by node.

    A resource's handle takes the place of its value, and its reads become identities; a reference
    variable is a tensor already.
    """
    names: dict[str, str] = {}
    for node in nodes.values():
        if node.op in _VARIABLES:
            names[node.name] = node.name
        elif node.name in variable_names:
            names[node.name] = variable_names[node.name]
    aliases: dict[str, str] = {}
    for name in list(nodes):
        node = nodes[name]
        node.inputs = [(aliases.get(source, source), output) for source, output in node.inputs]
        source = next((source for source, _ in node.inputs if source in names), None)
        if source is None or nodes[source].op in ("VariableV2", "Variable"):
            continue
        if node.op in SAME_VALUE:
            aliases[name] = source
            del nodes[name]
        elif node.op == "ReadVariableOp":
            nodes[name] = typed_node(name, "Identity", node.inputs, T=node.attr["dtype"].type)
        elif node.op == "ResourceGather" and not node.attr["batch_dims"].i:
            axis = f"{name}/axis"
            nodes[axis] = constant_node(axis, 0)
            gather = typed_node(
                name,
                "GatherV2",
                [*node.inputs, (axis, 0)],
                Tparams=node.attr["dtype"].type,
                Tindices=node.attr["Tindices"].type,
                Taxis=nodes[axis].attr["dtype"].type,
            )
            nodes[name] = gather
        else:
            raise GraphError(
                f"{label}: '{name}' ({node.op}) takes the variable '{source}' other than by "
                "reading it; export the graph for inference"
            )
    return names


def _dropped(graph_def: Any, kept_ops: Collection[str]) -> dict[str, int]:
    """How many operations of each type are gone, those inside functions included."""
    before = Counter(node.op for node in graph_def.node)
    for function in graph_def.library.function:
        before.update(node.op for node in function.node_def)
    gone = before - Counter(kept_ops)
    return dict(sorted(gone.items()))
