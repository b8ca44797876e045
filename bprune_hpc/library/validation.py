"""What a notebook hands over, checked before it is used: each error is one line.

What belongs here: ranges, shapes and types of the library's arguments. What does not: using them
(``library``), or the flags of a command (``config.sweep_config``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..accumulators.classification import MAX_DRAWS
from ..data.fitting import NetworkInput, fit
from ..data.loading import check_labels, check_targets
from ..data.values import read_labels
from ..errors import ConfigError, DataError
from ..evaluators.draw_noise import DRAW_NOISES
from ..metrics.tasks import Classification, Task
from ..posterior.draws import draws_per_replicate, in_whole_replicates
from ..posterior.mean_field import Posterior

_PAIRINGS = ("antithetic", "none")

logger = logging.getLogger(__name__)


def checked_batch_size(batch_size: int) -> None:
    """Raise :class:`ConfigError` unless a batch holds an example."""
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is below 1")


def checked_draws(n_draws: int, seed: int, pairing: str, batch_size: int, task: Task) -> int:
    """Number of draws to take: as many as the task takes together, as in a sweep.

    Raises
    ------
    ConfigError
        If an argument is out of its range.
    """
    checked_batch_size(batch_size)
    if pairing not in _PAIRINGS:
        raise ConfigError(f"pairing: '{pairing}' is none of {', '.join(_PAIRINGS)}")
    if not 1 <= n_draws <= MAX_DRAWS:
        raise ConfigError(f"n_draws: {n_draws} is not in 1 to {MAX_DRAWS}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed: {seed} is not in 0 to 2**64 - 1")
    size = draws_per_replicate(pairing, task.noises_per_replicate)
    rounded = in_whole_replicates(n_draws, size)
    if rounded != n_draws:
        logger.info("draws come %d at a time: n_draws rounded up to %d", size, rounded)
    return rounded


def checked_noise(
    draw_noise: str, noise_block: int | None, first_example: int, n_examples: int
) -> tuple[str, int | None]:
    """Which examples share noise, as a sweep's flags say it.

    Raises
    ------
    ConfigError
        If an argument is out of its range.
    """
    if draw_noise not in ("auto", *DRAW_NOISES):
        raise ConfigError(f"draw_noise: '{draw_noise}' is none of auto, {', '.join(DRAW_NOISES)}")
    if noise_block is not None:
        if draw_noise not in ("auto", "per_block"):
            raise ConfigError("noise_block: goes with draw_noise='per_block'")
        if noise_block < 1:
            raise ConfigError(f"noise_block: {noise_block} is below 1")
        draw_noise = "per_block"
    if not 0 <= first_example <= 2**32 - n_examples:
        raise ConfigError(f"first_example: {first_example} is not in 0 to 2**32 - {n_examples}")
    return draw_noise, noise_block


def checked_labels(y: ArrayLike | None, n_examples: int, task: Task) -> NDArray[Any] | None:
    """Labels or targets of examples, as a sweep has them; None where there are none.

    Raises
    ------
    DataError
        If they do not fit the examples or the network.
    """
    if y is None:
        return None
    _check_unmasked(y, "y")
    try:
        found = np.asarray(y)
        n_columns = found.shape[1] if found.ndim == 2 else 0
        label, classes = read_labels(task.name, found, "y")
    except ValueError as error:
        raise DataError(f"y: is not an array ({error}); give one label an example") from error
    if len(label) != n_examples:
        raise DataError(f"y: has {len(label)} labels for {n_examples} examples; give one for each")
    try:
        if isinstance(task, Classification):
            check_labels(label, task.n_classes, classes, n_columns)
        else:
            check_targets(label, task.n_targets)
    except DataError as error:
        raise DataError(f"y: {error}") from error
    return label


def _check_unmasked(array: ArrayLike, name: str) -> None:
    if np.ma.is_masked(array):
        raise DataError(f"{name}: has masked values, which are no numbers; drop these examples")


def checked_examples(
    x: ArrayLike,
    network: NetworkInput,
    input_scale: str | float = "auto",
    layout: str | None = None,
) -> NDArray[Any]:
    """Examples in the shape, type and scale that a network takes, by the rules of a sweep.

    Parameters
    ----------
    x : array of real numbers, shape (n_examples, ...)
    input_scale : str or float
        ``auto``, ``none`` or a factor; see :func:`bprune_hpc.data.fitting.fit`.
    layout : {"channels_last", "channels_first"}, optional
        Where the examples have their channels, if that is not clear.

    Returns
    -------
    array of the type and the axes of the network's input

    Raises
    ------
    DataError
        If there are none, or they do not fit the network or are not finite.
    """
    try:
        examples = np.asarray(x)
    except ValueError as error:
        raise DataError(f"x: is not an array ({error}); give (n_examples, ...)") from error
    _check_unmasked(x, "x")
    if examples.ndim == 0 or not examples.size:
        raise DataError(f"x: shape {examples.shape} holds no examples; give (n_examples, ...)")
    try:
        fitted = fit(examples, network, input_scale=str(input_scale), layout=layout)
    except DataError as error:
        raise DataError(f"x: {error}") from error
    logger.info("x: %s, %s", fitted.scaling, fitted.why)
    for warning in fitted.warnings:
        logger.warning("x: %s", warning.replace("--", ""))
    return fitted.x


def checked_weights(
    weights: Mapping[str, ArrayLike], posterior: Posterior
) -> dict[str, NDArray[Any]]:
    """One array for each mean-field tensor, in the order of the posterior.

    Raises
    ------
    DataError
        If one is missing, of another shape, or of a name that the posterior lacks.
    """
    odd = sorted(set(weights) ^ set(posterior.names))
    if odd:
        raise DataError(
            f"weights: {', '.join(map(repr, odd))} missing or unknown; give one array for each "
            "name of posterior.loc"
        )
    given = {name: np.asarray(weights[name], posterior.loc[name].dtype) for name in posterior.names}
    for name, array in given.items():
        if array.shape != posterior.loc[name].shape:
            raise DataError(
                f"weights: '{name}' has shape {array.shape}, the network takes "
                f"{posterior.loc[name].shape}"
            )
    return given
