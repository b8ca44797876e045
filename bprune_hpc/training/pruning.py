"""Pruned weights in a training: exactly zero from one step on, and for good.

What belongs here: masks of a network of this trainer, and the network that a training begins with.
What does not: when weights are pruned (``training.config``), gradients, which leave out what is
pruned (``training.gradients``), scripts of one's own (``training.held_weights``).
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..models.layers import MASK
from ..posterior.mean_field import Posterior
from ..posterior.pruning import PruningRule, pruning_masks
from .config import TrainConfig
from .graph import Training, set_state, state_of
from .units import SCOPE

Masks = Mapping[str, NDArray[np.bool_]]
"""Which weights stay, by the name of the variable of their means."""

logger = logging.getLogger(__name__)


def has_masks(values: Mapping[str, NDArray[Any]]) -> bool:
    """Whether weights of a network may be pruned for good, by the names of its variables."""
    return any(name.endswith(f"/{MASK}") for name in values)


def read_masks(path: str) -> dict[str, NDArray[np.bool_]]:
    """Masks of a file that an export has written.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"--mask: {path}: cannot be read: {error}") from error
    for name, mask in found.items():
        if mask.dtype != np.bool_:
            raise ConfigError(
                f"--mask: {path}: '{name}' holds {mask.dtype}, not which weights stay (bool); give "
                "mask.npz of an export"
            )
    return found


def begin_with(training: Training, session: Any, values: Mapping[str, NDArray[Any]]) -> None:
    """Give a new training the variables of an older one, the optimizer's among them.

    Raises
    ------
    ConfigError
        If one that is trained is missing, or has another shape.
    """
    state = state_of(training, session)
    steps = "global_step:0"
    has_units, takes_units = (
        any(name.startswith(f"{SCOPE}/") for name in of_one) for of_one in (values, state)
    )
    if has_units != takes_units:
        what = "pass --standardize" if has_units else "leave --standardize out"
        raise ConfigError(f"--start_from: {what}, as the network was trained")
    taken = {f"{name}:0": value for name, value in values.items() if f"{name}:0" in state}
    taken.pop(steps, None)
    for variable in training.graph.get_collection("trainable_variables"):
        shape = variable.shape.as_list()
        found = taken.get(variable.name)
        if found is None or list(found.shape) != shape:
            what = "no such variable" if found is None else f"shape {list(found.shape)} there"
            raise ConfigError(
                f"--start_from: '{variable.op.name}' of shape {shape} has {what}; pass the flags "
                "that the network was trained with (--model, --hidden, --width, --task)"
            )
    set_state(training, session, {name: np.asarray(value) for name, value in taken.items()})


def prune(training: Training, session: Any, masks: Masks) -> None:
    """Prune weights: means, standard deviations and the optimizer's averages become exactly 0.

    What is pruned already stays so.

    Raises
    ------
    ConfigError
        If the masks are not of this network.
    """
    network = training.network
    names = {name: loc.op.name for name, loc in network.loc_variables.items()}
    unknown = sorted(masks.keys() - set(names.values()))
    if unknown:
        raise ConfigError(
            f"--mask: has '{unknown[0]}', and the network has {', '.join(names.values())}"
        )
    state, changed = state_of(training, session), {}
    for layer, name in names.items():
        mask_name = network.masks[layer].name
        mask = state[mask_name].astype(bool)
        if name in masks:
            if masks[name].shape != mask.shape:
                raise ConfigError(
                    f"--mask: '{name}' has shape {masks[name].shape}, in the network {mask.shape}"
                )
            mask = mask & masks[name]
        changed[mask_name] = mask.astype(np.float32)
        raw = network.untransformed_scales[layer].op.name
        slots = [n for n in state if n.startswith((f"{name}/", f"{raw}/"))]
        for of_weights in [f"{name}:0", *slots]:
            changed[of_weights] = np.where(mask, state[of_weights], np.float32(0))
    set_state(training, session, changed)


def prune_fraction(
    training: Training, session: Any, config: TrainConfig, fraction: float
) -> dict[str, NDArray[np.bool_]]:
    """Which weights stay when a fraction of all is pruned by the criterion of the schedule."""
    network = training.network
    locs, scales = session.run((network.locs, network.scales))
    names = {name: loc.op.name for name, loc in network.loc_variables.items()}
    posterior = Posterior(
        {names[layer]: loc for layer, loc in locs.items()},
        {names[layer]: scale for layer, scale in scales.items()},
    )
    rule = PruningRule(config.prune_criterion, prior_scale=config.prior_scale, seed=config.seed)
    (mask,) = pruning_masks(posterior, "fraction", [fraction], rule)
    return dict(mask.kept)


def share_pruned(training: Training, session: Any) -> float:
    """Fraction of all weights with a posterior that is pruned."""
    masks = session.run(list(training.network.masks.values()))
    return 1 - sum(float(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)
