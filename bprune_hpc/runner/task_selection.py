"""Which task a network is for, and what its outputs are: the one place where both are decided.

By what was asked for, else by what the source and the structure of the graph say, else by the
numbers that the network gives (``runner.output_probe``), which are looked at in any case. What is
made of outputs does not belong here (``metrics.tasks``).
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, GraphError
from ..graph.endpoints import is_of_any_sign, is_of_probabilities
from ..graph.lifted import OF_REGRESSION, LiftedGraph
from ..graph.nodes import Nodes, Tensor, parse_graph, parse_tensor
from ..metrics.tasks import ROUNDING, Classification, Regression, Task
from ..tensorflow_import import import_graphs

logger = logging.getLogger(__name__)

_INDEPENDENT = "labels that do not exclude each other are not supported"


def kind_asked(asked: str, output_kind: str, noise_scale: float | None) -> str:
    """What outputs are asked to be taken for: ``auto``, or one of ``OUTPUT_KINDS``.

    Parameters
    ----------
    asked : str
        One of ``TASKS``.
    output_kind : str
        ``auto``, or one of ``OUTPUT_KINDS``.
    noise_scale : float, optional
        Standard deviation of the targets' noise, for networks that give a mean alone.

    Raises
    ------
    ConfigError
        If these contradict each other.
    """
    if output_kind == "independent":
        raise ConfigError(
            f"--output_kind=independent: {_INDEPENDENT}; a network that gives a single label is, "
            "with --output_kind=probabilities or --output_kind=logits"
        )
    if asked == "classification" and noise_scale is not None:
        raise ConfigError(
            "--noise_scale: is for regression; leave it out, or pass --task=regression"
        )
    is_regression = asked == "regression" or noise_scale is not None
    if output_kind == "auto":
        return "mean" if is_regression else "auto"
    if is_regression and output_kind not in OF_REGRESSION:
        flag = "--task=regression" if asked == "regression" else "--noise_scale"
        raise ConfigError(
            f"--output_kind={output_kind}: is of classes, {flag} is not; leave one out"
        )
    if asked == "classification" and output_kind in OF_REGRESSION:
        raise ConfigError(
            f"--output_kind={output_kind}: is of a regression, --task=classification is not; leave "
            "one out"
        )
    if output_kind == "mean_and_scale" and noise_scale is not None:
        raise ConfigError(
            "--noise_scale: --output_kind=mean_and_scale says that the network gives its own "
            "standard deviation; leave one out"
        )
    return output_kind


def choose_task(
    asked: str,
    noise_scale: float | None,
    graph: LiftedGraph,
    path: str,
    output_kind: str = "auto",
) -> Task:
    """The task of a network.

    A Normal's (loc, scale) is a regression, several numbers are of classes; a single one is a
    regression's where ``noise_scale`` is given, of two classes where the structure or
    ``output_kind`` says so, and without any of these nothing that can be told.

    Parameters
    ----------
    asked, noise_scale, output_kind
        See :func:`kind_asked`.
    graph : LiftedGraph
    path : str
        Of the network, for messages.

    Returns
    -------
    Task
        A classification may not know yet what its outputs are: :func:`told_by` does.

    Raises
    ------
    ConfigError, GraphError
        If what was asked for does not fit the network.
    """
    kind = kind_asked(asked, output_kind, noise_scale)
    output = graph.output_tensor
    is_normal = "loc" in graph.output_tensors
    if is_normal and (asked == "classification" or kind in ("logits", "probabilities")):
        raise GraphError(
            f"{path}: gives a Normal distribution, with the mean at {output}; pass "
            "--task=regression, or name the logits with --logits_op"
        )
    width = _numbers(graph, path)
    if is_normal:
        scale = graph.output_tensors["scale"]
        if noise_scale is not None or output_kind == "mean":
            flag = "--noise_scale" if noise_scale is not None else "--output_kind=mean"
            raise ConfigError(
                f"{flag}: {path} gives its own standard deviation, at {scale}; leave the flag out"
            )
        logger.info("regression: a Normal, with loc at %s and scale at %s", output, scale)
        return Regression(None, _known(width, output, path))
    if kind == "mean_and_scale":
        both = _known(width, output, path)
        if both % 2:
            raise GraphError(
                f"{path}: {output} gives {both} numbers an example, which are not as many means as "
                "standard deviations; name both with --loc_op and --scale_op"
            )
        logger.info("regression: %d means at %s, and behind them their scales", both // 2, output)
        return Regression(None, both // 2)
    if kind == "mean":
        if noise_scale is None:
            raise ConfigError(
                f"{path}: gives a mean alone, at {output}; give the standard deviation of the "
                "targets' noise with --noise_scale, or --loc_op and --scale_op, or "
                "--output_kind=mean_and_scale"
            )
        logger.info("regression: a mean at %s, with --noise_scale=%g", output, noise_scale)
        return Regression(noise_scale, _known(width, output, path))
    if width is None:
        raise GraphError(
            f"{path}: {output} has an unknown number of classes; name the logits with --logits_op"
        )
    known = graph.output_kind or (None if kind == "auto" else kind)
    if width == 1 and known is None and asked == "auto":
        raise ConfigError(
            f"{path}: {output} is a single number an example; if it is a regression's mean, give "
            "the standard deviation of the noise with --noise_scale; if it is of two classes, "
            "pass --task=classification"
        )
    return Classification(max(width, 2), known, is_binary=width == 1)


def told_by(
    outputs: NDArray[np.float32],
    task: Task,
    graph: LiftedGraph,
    path: str,
    output_kind: str = "auto",
) -> Task:
    """The task, once some outputs of the network have been seen.

    Rows that are not negative and sum to 1 are probabilities, whatever stands behind the softmax
    that made them, and so are single numbers in [0, 1] in which a sigmoid is seen; other numbers in
    [0, 1] are refused, as they may be anything, unless a linear layer gives them: its are logits.

    Parameters
    ----------
    outputs : float32 array, shape (n_draws, n_outputs, n_examples)
        Of the unpruned network; see :func:`bprune_hpc.runner.output_probe.some_outputs`. Rows that
        are not finite are passed over.
    task : Task
        From :func:`choose_task`.
    output_kind : str
        As it was asked for.

    Raises
    ------
    ConfigError, GraphError
        If the numbers are not what the task takes them for, or cannot be told.
    """
    output = graph.output_tensor
    n_draws, n_outputs, n_examples = outputs.shape
    if n_outputs != task.n_outputs:
        raise GraphError(
            f"{path}: {output} gives {n_outputs} numbers an example, not {task.n_outputs}; outputs "
            "of several places (sequences, images) are not supported"
        )
    if not isinstance(task, Classification):
        _check_scale(outputs, task, output, path)
        return task
    rows = np.moveaxis(outputs, 1, 2).reshape(-1, n_outputs)
    rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    if not len(rows):  # which the sweep itself tells better
        return replace(task, output_kind=task.output_kind or "logits")
    sums, least, largest = rows.sum(axis=1), rows.min(), rows.max()
    are_in_range = least >= -ROUNDING and largest <= 1 + ROUNDING
    are_probabilities = are_in_range and (
        task.output_kind is None and is_of_probabilities(*_output_of(graph))
        if task.is_binary
        else bool((np.abs(sums - 1) <= ROUNDING).all())
    )
    of_sums = f"sum to {sums.min():.4g} to {sums.max():.4g}"
    if task.output_kind is None:
        is_open = (
            are_in_range
            and least >= 0
            and not are_probabilities
            and not is_of_any_sign(*_output_of(graph))
        )
        if is_open and task.is_binary:
            raise ConfigError(
                f"{path}: {output} gives single numbers in [0, 1] ({least:.4g} to {largest:.4g}), "
                "which may be anything; say what they are: --output_kind=probabilities of class 1, "
                "or --output_kind=logits of it"
            )
        if is_open and largest > 0:
            raise ConfigError(
                f"{path}: {output} gives numbers in [0, 1] that do not sum to 1 (they {of_sums}); "
                "say what they are: --output_kind=probabilities of classes that exclude each other "
                f"(to be divided by their sum), or --output_kind=logits; {_INDEPENDENT}"
            )
        task = replace(task, output_kind="probabilities" if are_probabilities else "logits")
        why = (
            f"its numbers, {least:.4g} to {largest:.4g} in {n_draws} draws of {n_examples} examples"
        )
    elif graph.output_kind is not None:
        why = "the structure of the network"
    else:
        why = f"--output_kind={output_kind}"
    if task.output_kind == "probabilities" and not are_in_range:
        raise ConfigError(
            f"{path}: {output} gives numbers from {least:.4g} to {largest:.4g}, which are no "
            f"probabilities, as they are said to be by {why}; pass --output_kind=logits"
        )
    if task.output_kind == "probabilities" and not (are_probabilities or task.is_binary):
        logger.warning("probabilities at %s %s: each row is divided by its sum", output, of_sums)
    if task.output_kind == "logits" and are_probabilities:
        if graph.output_kind is None:
            raise ConfigError(
                f"{path}: {output} gives probabilities (rows sum to 1), and no logits, as they are "
                f"said to be by {why}; leave the flag out"
            )
        logger.warning(
            "logits at %s are probabilities already (rows sum to 1); the network takes another "
            "softmax of them, and so does this sweep",
            output,
        )
    what = f"{task.output_kind} of {task.n_classes} classes"
    if task.is_binary:
        what = f"one {'logit' if task.output_kind == 'logits' else 'probability'} of two classes"
    logger.info("classification: %s at %s, by %s", what, output, why)
    return task


def _output_of(graph: LiftedGraph) -> tuple[Nodes, Tensor]:
    nodes = parse_graph(import_graphs().GraphDef.FromString(graph.graph_def))
    return nodes, parse_tensor(graph.output_tensor)


def _check_scale(outputs: NDArray[np.float32], task: Regression, output: str, path: str) -> None:
    scale = outputs[:, task.n_targets :]
    if (scale <= 0).any():
        raise GraphError(
            f"{path}: a standard deviation at {output} is {scale.min():g}; name the operation that "
            "makes it positive (a softplus, an exponential) with --scale_op, and the mean with "
            "--loc_op"
        )


def _numbers(graph: LiftedGraph, path: str) -> int | None:
    """Numbers that a network gives for an example; None where the graph leaves them open.

    Raises
    ------
    GraphError
        If they are of several places.
    """
    shape = graph.output_shape
    if shape is None:
        return None
    if any(size not in (1, None) for size in shape[1:-1]):
        sizes = ", ".join("any" if size is None else str(size) for size in shape[1:])
        raise GraphError(
            f"{path}: {graph.output_tensor} gives ({sizes}) numbers an example; outputs of several "
            "places (sequences, images) are not supported: name an operation that gives one row an "
            "example with --logits_op"
        )
    return 1 if len(shape) == 1 else shape[-1]


def _known(width: int | None, output: str, path: str) -> int:
    if width is None:
        raise GraphError(
            f"{path}: {output} has an unknown number of targets; name operations of known shape "
            "with --loc_op and --scale_op"
        )
    return width
