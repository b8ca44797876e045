"""Finds the Gaussian prior of each mean-field tensor in the graph that it was trained with.

What belongs here: finding the divergence from a fixed prior by what it computes, and which prior
that is. Names do not count: a tensor is the divergence if it has the closed form, weight by weight.
What does not: the posterior (``graph.noise_removal``), what a prior is used for
(``posterior.criteria``).

A layer whose divergence from its prior is known in closed form leaves in the graph a tensor with
one number for each weight, KL(N(loc, scale²) || N(prior_loc, prior_scale²)), before it is summed
for the loss. Its values at the trained weights are as many equations for two unknowns.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from ..posterior.mean_field import Posterior, Prior
from ..tensorflow_import import import_graphs
from .checks import check_operations, used_functions
from .constant_folding import Evaluator
from .inlining import flatten
from .nodes import Node, Nodes, ancestors, build_graph, consumers, operation, placeholder_node
from .source import GraphSource, VariableValues
from .variables import VARIABLES, expose_variables

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

_LAST_STEP = frozenset({"Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div"})
_ROUNDING = 4e-6  # some ten roundings of float32, in units of the largest term
_WORST_CONDITION = 1e5
_STEPS = 5
_FITTED = 10_000


def find_priors(
    source: GraphSource,
    posterior: Posterior,
    scale_variables: Mapping[str, Collection[str]],
    threads: tuple[int, int] = (1, 1),
) -> dict[str, Prior]:
    """Prior of every mean-field tensor for which the graph says it.

    Parameters
    ----------
    source : GraphSource
        The graph as it was stored, with what it was trained on.
    posterior : Posterior
        Lifted from it.
    scale_variables : mapping of str to collection of str
        Variables that each tensor's scale is computed from.
    threads : tuple of int
        Of TensorFlow, within and between operations.

    Returns
    -------
    dict of tensor name to Prior
        Without the tensors whose divergence is not in the graph, is none from a fixed Normal (a
        trained prior, another distribution, an estimate from draws), or is there with several.
    """
    nodes, _ = flatten(source.graph_def)
    behind = _of_variables_alone(nodes, source.variable_names)
    last_steps = [
        node
        for node, variables in behind.items()
        if nodes[node].op in _LAST_STEP and variables <= source.types.keys()
    ]
    candidates = {
        name: [node for node in last_steps if behind[node] >= set(scale_variables[name])]
        for name in posterior.names
    }
    found: dict[str, Prior] = {}
    try:
        evaluate = _evaluator(source, nodes, candidates, threads)
        for name, loc in posterior.loc.items():
            of_scale = set(scale_variables[name])
            sized = [node for node in candidates[name] if evaluate.size((node, 0)) == loc.size]
            # Mostly a mean is another variable than its scale; else both are parts of one.
            for is_of_more in (True, False):
                fits = {
                    fit(loc.ravel(), posterior.scale[name].ravel(), evaluate((node, 0)).ravel())
                    for node in sized
                    if (behind[node] > of_scale) is is_of_more
                }
                priors = [prior for prior in fits if prior is not None]
                if len(priors) == 1:
                    found[name] = priors[0]
                if priors:
                    break
    except GraphError as error:
        logger.warning("the prior could not be read from the graph: %s", error)
        return {}
    return found


def _of_variables_alone(
    nodes: Nodes, variable_names: Mapping[str, str]
) -> dict[str, frozenset[str]]:
    """Stored names of the variables behind each node that nothing else is behind but constants."""
    behind: dict[str, frozenset[str]] = {}
    missing = {name: len(node.inputs) for name, node in nodes.items()}
    followers = consumers(nodes, nodes)
    ready = [name for name, count in missing.items() if count == 0]
    while ready:
        name = ready.pop()
        node = nodes[name]
        if node.op in VARIABLES or name in variable_names:
            behind[name] = frozenset([variable_names.get(name, name)])
        elif _only_computes(node):
            behind[name] = frozenset().union(*(behind[source] for source, _ in node.inputs))
        else:
            continue
        for follower, _ in followers.get(name, []):
            missing[follower] -= 1
            if missing[follower] == 0:
                ready.append(follower)
    return behind


def _only_computes(node: Node) -> bool:
    """Whether an operation neither draws, waits for an input, nor changes a variable."""
    if node.op == "ReadVariableOp":
        return True
    definition = operation(node.op)
    return (
        definition is not None
        and not definition.is_stateful
        and node.op != "Placeholder"
        and not any(argument.is_ref for argument in definition.input_arg)
    )


def _evaluator(
    source: GraphSource,
    nodes: Nodes,
    candidates: Mapping[str, Sequence[str]],
    threads: tuple[int, int],
) -> Evaluator:
    ends = [(node, 0) for of_one in candidates.values() for node in of_one]
    nodes = {name: nodes[name] for name in ancestors(nodes, ends)}
    names = expose_variables(nodes, source.variable_names, source.label)
    names = {node: name for node, name in names.items() if node in nodes}
    others = {name: node for name, node in nodes.items() if name not in names}
    check_operations(others, source.graph_def.library, source.label)
    values = VariableValues(names.values(), source.read, source.types)
    for node, name in names.items():
        dtype = import_graphs().as_dtype(values.dtype(name)).as_datatype_enum
        nodes[node] = placeholder_node(node, dtype, values.shape(name))
    graph_def = source.graph_def
    functions = used_functions(nodes.values(), graph_def.library)
    return Evaluator(
        nodes, names, values,
        build=lambda some: build_graph(some, graph_def.versions, functions),
        label=source.label, threads=threads,
    )  # fmt: skip


def fit(
    loc: NDArray[np.floating], scale: NDArray[np.floating], divergence: NDArray[np.floating]
) -> Prior | None:
    """The Normal prior from which these are the divergences of N(loc, scale²), if there is one.

    Parameters
    ----------
    loc, scale, divergence : float array, shape (n_weights,)
        ``divergence`` as float32 arithmetic has it, nats. Weights that are exactly zero and cost
        nothing, as they were pruned before, are passed over.

    Returns
    -------
    Prior or None
        One that explains every number to within rounding, with the shortest decimals that do;
        mean 0 if that does. None too if there are not more weights than unknowns, or they are too
        much alike to tell.
    """
    is_gone = (loc == 0) & (scale == 0) & (divergence == 0)
    loc, scale, divergence = loc[~is_gone], scale[~is_gone], divergence[~is_gone]
    if not (loc.size and np.isfinite(divergence).all() and (scale > 0).all()):
        return None
    everything = loc.astype(np.float64), scale.astype(np.float64), divergence.astype(np.float64)
    # Some are enough for the fit; all have to agree with it.
    step = max(1, loc.size // _FITTED)
    some = everything[0][::step], everything[1][::step], everything[2][::step]
    for is_centred in (True, False):
        start = _linear_fit(*some, is_centred)
        if start is None:
            continue
        mean, deviation = _refined(*some, *start, is_centred)
        for digits in range(1, 8):
            prior = Prior(float(f"{mean:.{digits}g}"), float(f"{deviation:.{digits}g}"))
            if _explains(*some, prior) and _explains(*everything, prior):
                return prior
    return None


def _linear_fit(
    loc: Floats, scale: Floats, divergence: Floats, is_centred: bool
) -> tuple[float, float] | None:
    """Start values of the prior's mean and deviation.

    divergence + ln scale is linear in (loc² + scale², loc, 1).
    """
    columns = [loc**2 + scale**2, np.ones_like(loc)] + ([] if is_centred else [loc])
    design = np.stack(columns, axis=1)
    size = np.linalg.norm(design, axis=0)
    if len(loc) <= design.shape[1] or not size.all():
        return None
    if np.linalg.cond(design / size) > _WORST_CONDITION:
        return None
    solution = np.linalg.lstsq(design, divergence + np.log(scale))[0]
    if not solution[0] > 0:
        return None
    variance = 0.5 / solution[0]
    return 0.0 if is_centred else -variance * solution[2], float(np.sqrt(variance))


def _refined(
    loc: Floats, scale: Floats, divergence: Floats, mean: float, deviation: float, is_centred: bool
) -> tuple[float, float]:
    """A few steps of Gauss and Newton: the constant term says more than the slope."""
    for _ in range(_STEPS):
        away = loc - mean
        square = (away**2 + scale**2) / deviation**2
        rest = divergence - (square / 2 - np.log(scale / deviation) - 0.5)
        slopes = [1 - square] + ([] if is_centred else [-away / deviation**2])
        step = np.linalg.lstsq(np.stack(slopes, axis=1), rest)[0]
        deviation *= float(np.exp(np.clip(step[0], -1, 1)))
        if not is_centred:
            mean += float(step[1])
    return mean, deviation


def _explains(loc: Floats, scale: Floats, divergence: Floats, prior: Prior) -> bool:
    if not prior.scale > 0:
        return False
    square = ((loc - prior.loc) ** 2 + scale**2) / prior.scale**2
    log = np.log(scale / prior.scale)
    size = 1 + square + np.abs(log) + (loc**2 + prior.loc**2) / prior.scale**2
    error = np.abs(divergence - (square / 2 - log - 0.5))
    return bool((error <= _ROUNDING * size).all())
