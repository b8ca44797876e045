"""What a training begins with in place of random numbers: a trained network, pruned or not.

What belongs here: reading it on rank 0. What does not: pruning in the session
(``training.pruning``), a training that is gone on with (``training.directory``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import saver
from ..errors import ConfigError
from ..posterior.pruning import pruning_masks
from ..results.threshold import SweptThreshold, read_threshold
from ..runner import problem
from ..runner.batch_dependence import made_up_examples
from .config import TrainConfig
from .graph import Training
from .pruning import Masks, begin_with, has_masks, prune, read_masks, share_pruned

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beginning:
    """A network to begin with; empty for one that begins with random numbers.

    Attributes
    ----------
    variables : mapping of str to array
        By name.
    masks : mapping of str to bool array
        Which weights stay, by the name of the variable of their means.
    sha256 : mapping of str to str
        Digests of the files, by flag.
    """

    variables: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_masks(self) -> bool:
        """Whether weights are pruned, or were."""
        return bool(self.masks) or has_masks(self.variables)

    def set(self, training: Training, session: Any) -> None:
        """Put it into the session of a new training.

        Raises
        ------
        ConfigError
            If it does not fit the network.
        """
        if not self.variables:
            return
        begin_with(training, session, self.variables)
        if training.network.masks:
            prune(training, session, self.masks)
            share = 100 * share_pruned(training, session)
            logger.info("%.2f %% of the weights are pruned at the start and stay pruned", share)


def read_beginning(config: TrainConfig) -> Beginning:
    """Read what ``--start_from`` and ``--mask`` name.

    The network is that of the newest checkpoint, or of the one that a results file is a sweep of.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    assert config.start_from is not None
    sha256: dict[str, str] = {}
    masks: Masks = {}
    swept: SweptThreshold | None = None
    if config.mask is not None:
        path = Path(config.mask)
        if not path.is_file():
            raise ConfigError(f"--mask: {path}: no such file; give a results file, or mask.npz")
        sha256["--mask"] = _digest([hashlib.sha256(path.read_bytes()).hexdigest(), config.at])
        if path.suffix == ".npz":
            masks = read_masks(config.mask)
        else:
            swept = read_threshold(config.mask, config.at)
            masks = _masks_of(swept, config.start_from)
    prefix = saver.find_checkpoint(
        config.start_from,
        None if swept is None else swept.config.model_ckpt,
        way="mend the file 'checkpoint' there, or give another --start_from",
    )
    logger.info("begins with the network of %s", prefix)
    sha256["--start_from"] = _digest(saver.file_sha256(saver.checkpoint_files(prefix)).values())
    reader = saver.CheckpointReader(prefix)
    return Beginning(reader.read(reader.types), masks, sha256)


def _masks_of(swept: SweptThreshold, model_dir: str) -> dict[str, NDArray[np.bool_]]:
    """The mask of a sweep's threshold, made anew from the network that was swept."""
    of_sweep = replace(swept.config, model_dir=model_dir)
    with swept.asks():
        found, task = problem.read_network(of_sweep)
    examples = made_up_examples(found.graph)
    if examples is None:
        raise ConfigError(f"--start_from: {found.source.path}: the shape of its examples is open")
    network = problem.network_of(of_sweep, found, task, examples)
    swept.check_network(network, "--start_from")
    rule = of_sweep.rule(network.prior)
    (mask,) = pruning_masks(found.posterior, swept.grid_kind, [swept.value], rule)
    swept.check_mask(mask)
    return dict(mask.kept)


def _digest(parts: Any) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()
