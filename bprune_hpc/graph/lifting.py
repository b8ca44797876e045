"""Lifts any TensorFlow graph to ``f(x, weights)`` and the mean-field posterior that it holds.

What belongs here: the cut, from a flat graph whose noise is known to a graph whose weights are
arguments. What does not: files (``checkpoints.saver``, ``checkpoints.case``), finding the input and
the logits (``graph.endpoints``), telling noise from noise (``graph.noise``), calls and conditionals
(``graph.inlining``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from ..errors import GraphError
from ..posterior.mean_field import Posterior
from ..tensorflow_import import import_graphs
from . import endpoints
from .checks import check_conditionals, check_lifted, check_operations, used_functions
from .constant_folding import Evaluator, static_types
from .feeds import still_dropout
from .inlining import flatten
from .layer_check import agrees
from .layer_graph import LayerGraph, UnknownOperation
from .layer_search import find_layers
from .lifted import LiftedGraph
from .nodes import (
    Nodes,
    Tensor,
    ancestors,
    build_graph,
    dependences,
    describe,
    is_random,
    placeholder_node,
    tensor_name,
)
from .noise import find_noise, find_sampled
from .noise_removal import NoiseRemoval
from .parametrization import Parametrization
from .source import ReadVariables, VariableTypes, VariableValues
from .variables import expose_variables

_FLAGS = {"logits": "--logits_op", "loc": "--loc_op", "scale": "--scale_op"}


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
    parametrization : Parametrization
        How means and scales come of the variables.
    scale_variables : dict of str to tuple of str
        Variables that each mean-field tensor's scale is computed from.
    dropped_ops : dict of str to int
        How many operations of each type the lifted graph does without, functions included.
    """

    graph: LiftedGraph
    posterior: Posterior
    fixed: dict[str, NDArray[Any]]
    used_variables: tuple[str, ...]
    parametrization: Parametrization
    scale_variables: dict[str, tuple[str, ...]]
    dropped_ops: dict[str, int]


def lift(
    graph_def: Any,
    read_variables: ReadVariables,
    *,
    input_op: str | None = None,
    logits_op: str | None = None,
    loc_op: str | None = None,
    scale_op: str | None = None,
    output_kind: str | None = None,
    variable_names: Mapping[str, str] | None = None,
    variable_types: VariableTypes | None = None,
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
    loc_op, scale_op : str, optional
        In place of ``logits_op``: mean and standard deviation of a regression's output.
    output_kind : str, optional
        One of ``OUTPUT_KINDS``, where it is known. Without, and of probabilities, what is behind
        the output is searched for logits.
    variable_names : mapping of str to str, optional
        Stored names of variables where they are not their nodes' own: of placeholders that take a
        variable's handle (in traces), of variables that a Saver stores under another name.
    variable_types : mapping of str to (tuple of int, str), optional
        Shape and type of what can be read. With it, variables are read one at a time, each once,
        and let go once used.
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
    if (loc_op is None) != (scale_op is None) or (loc_op and logits_op):
        raise GraphError(
            f"{label}: --loc_op and --scale_op go together, and in place of --logits_op; pass "
            "either both or --logits_op"
        )
    with _named(label):
        return _lift(
            graph_def,
            read_variables,
            input_op,
            {"loc": loc_op, "scale": scale_op} if loc_op else {"logits": logits_op},
            output_kind,
            variable_names or {},
            variable_types,
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
    except RecursionError as error:
        raise GraphError(
            f"{label}: operations nested too deep to be followed; export the graph for inference"
        ) from error


def _lift(
    graph_def: Any,
    read_variables: ReadVariables,
    input_op: str | None,
    output_ops: Mapping[str, str | None],
    output_kind: str | None,
    variable_names: Mapping[str, str],
    variable_types: VariableTypes | None,
    label: str,
    threads: tuple[int, int],
) -> Lifted:
    nodes, renamed = flatten(graph_def)
    original = {name: node.op for name, node in nodes.items()}
    outputs = {
        kind: endpoints.named_tensor(nodes, renamed, name, _FLAGS[kind], label)
        if name
        else endpoints.find_logits(nodes, label)
        for kind, name in output_ops.items()
    }
    head = None
    if "loc" in outputs:
        output_kind = "mean_and_scale"
    elif output_kind in (None, "probabilities"):
        head = endpoints.look_behind(nodes, outputs["logits"])
        outputs["logits"] = head.output
        searched = output_ops["logits"] is None
        output_kind = "logits" if searched else head.kind or output_kind
    ends = list(outputs.values())
    behind = head.behind if head and output_kind != "logits" else None
    given = (
        endpoints.named_tensor(nodes, renamed, input_op, "--input_op", label)
        if input_op
        else endpoints.find_input(nodes, ends[0], label)
    )
    input_tensor = _isolate_input(nodes, given)
    for node in nodes.values():
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            node.attr = {"T": node.attr["dtype"]}
    order = ancestors(nodes, ends)
    if input_tensor[0] not in order:
        raise GraphError(
            f"{label}: no path from input '{tensor_name(given)}' to output "
            f"'{tensor_name(ends[0])}'; pass others as --input_op and {_FLAGS[next(iter(outputs))]}"
        )
    nodes = {name: nodes[name] for name in order}
    names = expose_variables(nodes, variable_names, label)
    order = ancestors(nodes, ends)
    nodes = {name: nodes[name] for name in order}
    still_dropout(nodes, order, ends)
    names = {node: name for node, name in names.items() if node in nodes}
    others = {name: node for name, node in nodes.items() if name not in names}
    check_operations(others, graph_def.library, label)
    order = ancestors(nodes, ends)
    check_conditionals(nodes, dependences(nodes, order, input_tensor, names), label)
    values = VariableValues(names.values(), read_variables, variable_types)
    for node_name, name in names.items():
        dtype = import_graphs().as_dtype(values.dtype(name)).as_datatype_enum
        nodes[node_name] = placeholder_node(node_name, dtype, values.shape(name))
    if "logits" in outputs and output_kind != "logits":
        sampled = find_sampled(nodes, outputs["logits"], input_tensor, names, label)
        if sampled is not None:
            outputs, output_kind = {"loc": sampled[0], "scale": sampled[1]}, "mean_and_scale"
            behind = None
            ends = list(outputs.values())
            nodes = {name: nodes[name] for name in ancestors(nodes, ends)}

    sites = find_noise(nodes, ends, input_tensor, names, label)
    if not sites:
        random = [name for name in nodes if is_random(nodes[name].op)]
        found = f"only {describe(nodes, random)}" if random else "nothing random"
        raise GraphError(
            f"{label}: no mean-field posterior: '{tensor_name(ends[0])}' is computed from no "
            f"normal noise; found {found}; pass another as --logits_op, or train a variational "
            "network"
        )
    functions = used_functions(nodes.values(), graph_def.library)
    evaluator = Evaluator(
        nodes,
        names,
        values,
        build=lambda some: build_graph(some, graph_def.versions, functions),
        label=label,
        threads=threads,
    )
    removal = NoiseRemoval(nodes, names, values, evaluator, label)
    removal.apply_all(sites)
    kept = ancestors(nodes, ends)
    check_lifted(nodes, kept, input_tensor, {*names, *removal.placeholders.values()}, label)

    def built(kept: Collection[str]) -> Any:
        some = [nodes[name] for name in kept]
        return build_graph(some, graph_def.versions, used_functions(some, graph_def.library))

    final = built(kept)
    types = static_types(final, [input_tensor, *ends, *([behind] if behind else [])], label)
    is_of_row = head is not None and output_kind == "logits"
    if head and behind and head.is_of(types[behind].shape, types[head.output].shape):
        outputs["logits"], output_kind = behind, "logits"
        is_of_row = head.activation == "Softmax"
        ends = [behind]
        kept = ancestors(nodes, ends)
        final = built(kept)
    if is_of_row and (types[ends[0]].shape or (None,))[-1] == 1:
        raise GraphError(
            f"{label}: the softmax behind '{tensor_name(ends[0])}' is of one number, and so always "
            "1; end a network of two classes in a sigmoid, or in two logits, and train it again"
        )
    fixed_nodes = {names[name]: name for name in kept if name in names}
    # A mean that is read without its noise too is in memory already.
    fixed = {
        name: removal.loc[name] if name in removal.loc else values[name]
        for name in sorted(fixed_nodes)
    }
    lifted = LiftedGraph(
        graph_def=final.SerializeToString(deterministic=True),
        input_tensor=tensor_name(input_tensor),
        input_shape=types[input_tensor].shape,
        input_dtype=types[input_tensor].dtype,
        output_tensor=tensor_name(ends[0]),
        output_shape=types[ends[0]].shape,
        output_tensors={kind: tensor_name(tensor) for kind, tensor in outputs.items()},
        loc_tensors={name: f"{node}:0" for name, node in removal.placeholders.items()},
        fixed_tensors={name: f"{node}:0" for name, node in sorted(fixed_nodes.items())},
        output_kind=output_kind,
        notes=tuple(removal.notes),
        rows_with_noise=tuple(tensor_name(tensor) for tensor in removal.rows_with_noise),
    )
    posterior = Posterior(loc=removal.loc, scale=removal.scale)
    if "logits" in outputs:  # a Normal has two outputs
        drawn = {node: name for name, node in removal.placeholders.items()}
        own = {name: value for name, value in fixed.items() if name not in removal.loc}
        of_nodes = {fixed_nodes[name]: name for name in own} | drawn
        layers = find_layers(final, nodes, input_tensor, ends[0], of_nodes, own, threads)
        if isinstance(layers, LayerGraph) and not agrees(layers, lifted, posterior, fixed, threads):
            layers = UnknownOperation(ends[0][0], nodes[ends[0][0]].op)
        lifted = replace(lifted, layers=layers)
    return Lifted(
        graph=lifted,
        posterior=posterior,
        fixed=fixed,
        used_variables=values.names,
        parametrization=Parametrization(
            evaluator, removal.ends, {name: loc.shape for name, loc in removal.loc.items()}
        ),
        scale_variables={name: ends.scale_variables for name, ends in removal.ends.items()},
        dropped_ops=_dropped(
            graph_def, [nodes[n].op for n in kept if original.get(n) == nodes[n].op]
        ),
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


def _dropped(graph_def: Any, kept_ops: Collection[str]) -> dict[str, int]:
    """How many operations of each type are gone, those inside functions included."""
    before = Counter(node.op for node in graph_def.node)
    for function in graph_def.library.function:
        before.update(node.op for node in function.node_def)
    gone = before - Counter(kept_ops)
    return dict(sorted(gone.items()))
