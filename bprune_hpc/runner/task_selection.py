"""Which task a network is for, by its outputs and by what was asked for."""

from __future__ import annotations

import logging

from ..errors import ConfigError, GraphError
from ..graph.lifted import LiftedGraph
from ..metrics.tasks import Classification, Regression, Task

logger = logging.getLogger(__name__)


def choose_task(asked: str, noise_scale: float | None, graph: LiftedGraph, path: str) -> Task:
    """The task of a network, said in the log.

    A Normal's (loc, scale) is a regression, several logits are a classification; a single output
    is a regression where ``noise_scale`` is given, and without it nothing that can be told.

    Parameters
    ----------
    asked : str
        One of ``TASKS``.
    noise_scale : float, optional
        Standard deviation of the targets' noise, for networks that give a mean alone.
    graph : LiftedGraph
    path : str
        Of the network, for messages.

    Raises
    ------
    ConfigError, GraphError
        If what was asked for does not fit the network.
    """
    output = graph.output_tensor
    is_normal = "loc" in graph.output_tensors
    if asked == "classification" and (is_normal or noise_scale is not None):
        found = f"{path}: gives a Normal distribution, with the mean at {output}"
        raise GraphError(
            f"{found}; pass --task=regression, or name the logits with --logits_op"
            if is_normal
            else "--noise_scale: is of a regression; leave it out, or pass --task=regression"
        )
    shape = graph.output_shape
    width = None if shape is None else 1 if len(shape) == 1 else shape[-1]
    if is_normal:
        if noise_scale is not None:
            raise ConfigError(
                f"--noise_scale: {path} gives its own standard deviation, at "
                f"{graph.output_tensors['scale']}; leave the flag out"
            )
        _check_one_mean(width, output, path)
        scale = graph.output_tensors["scale"]
        logger.info("regression: a Normal, with loc at %s and scale at %s", output, scale)
        return Regression(None)
    if asked == "regression" or noise_scale is not None:
        _check_one_mean(width, output, path)
        if noise_scale is None:
            raise ConfigError(
                f"{path}: gives a mean alone, at {output}; give the standard deviation of the "
                "targets' noise with --noise_scale, or --loc_op and --scale_op"
            )
        logger.info("regression: a mean at %s, with --noise_scale=%g", output, noise_scale)
        return Regression(noise_scale)
    if width is None:
        raise GraphError(
            f"{path}: {output} has an unknown number of classes; name the logits with --logits_op"
        )
    if width == 1 and asked == "auto":
        raise ConfigError(
            f"{path}: {output} is a single number an example; if it is a regression's mean, give "
            "the standard deviation of the noise with --noise_scale"
        )
    return Classification(width)


def _check_one_mean(width: int | None, output: str, path: str) -> None:
    if width is not None and width != 1:
        raise GraphError(
            f"{path}: {output} has {width} numbers an example; a regression here has one: pass "
            "--task=classification, or name its operation"
        )
