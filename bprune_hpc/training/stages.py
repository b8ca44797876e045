"""Stages of a training that prunes: what is between two prunings, and a sweep at the end of each.

What belongs here: what these sweeps are asked for, and where their results go. What does not: when
weights are pruned (``training.config``), the sweep (``results.sweeping``).
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from ..config import flags
from ..config.sweep_config import SweepConfig, from_arguments
from ..errors import ConfigError
from .config import TrainConfig, stage_ends
from .directory import CHECKPOINT

_DATA = ("--dataset", "--data_path", "--cifar10")


def results_name(config: TrainConfig, epoch: int) -> str:
    """Name of the results file of the stage that ends before an epoch: ``stage0.h5``, ..."""
    ends = stage_ends(config)
    return f"stage{ends.index(epoch):0{len(str(len(ends) - 1))}d}.h5"


def sweep_of(config: TrainConfig, directory: Path, epoch: int, step: int) -> SweepConfig:
    """What the sweep of a stage is asked for: ``--sweep_stages``, on the data of the training.

    Parameters
    ----------
    directory : Path
        Where the network is now.
    epoch, step : int
        That are done.

    Raises
    ------
    ConfigError
        If a flag is unknown, or does not fit.
    """
    assert config.sweep_stages is not None
    try:
        asked = shlex.split(config.sweep_stages)
    except ValueError as error:
        raise ConfigError(f"--sweep_stages: {config.sweep_stages!r}: {error}") from error
    parser = flags.parser()
    parser.parse(asked)
    has_data = any(flag in parser.given for flag in _DATA)
    ours = [f"--model_dir={directory}", f"--task={config.task}"]
    arguments = flags.parser().parse([*ours, *([] if has_data else _data(config)), *asked])
    if arguments.plan:
        raise ConfigError("--sweep_stages: --plan sweeps nothing; leave it out")
    arguments.model_dir, arguments.model_ckpt = str(directory), f"{CHECKPOINT}-{step}"
    arguments.output = str(directory / results_name(config, epoch))
    # All sessions of a process have the same threads.
    arguments.num_intra, arguments.num_inter = (max(1, n) for n in config.threads)
    return dataclasses.replace(from_arguments(arguments), overwrite=False)


def _data(config: TrainConfig) -> list[str]:
    """Flags of the data that the training has as its test half."""
    if config.test_fraction is not None:
        return []  # the case has them
    found = [f"--dataset={config.dataset}", f"--first_label={config.first_label}"]
    named = {
        "data_path": config.data_path,
        "x_key": config.x_key,
        "y_key": config.y_key,
        "target_columns": ",".join(config.target_columns),
    }
    found += [f"--{name}={value}" for name, value in named.items() if value]
    return [*found, *(["--subtract_pixel_mean"] if config.subtract_pixel_mean else [])]
