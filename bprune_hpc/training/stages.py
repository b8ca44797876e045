"""Stages of a training that prunes: what is between two prunings, and a sweep at the end of each.

What belongs here: what these sweeps are asked for, and where their results go. What does not: when
weights are pruned (``training.config``), the sweep (``results.sweeping``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path

from ..config import flags
from ..config.sweep_config import SweepConfig, from_arguments
from ..errors import ConfigError
from ..files.checksum import AGAIN
from ..mpi.comm import EndedByRoot
from ..results.progress import progress_of
from ..results.saved_state import ANEW
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


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Sweep a stage: a refusal says what to do in a training, which names the file itself."""
    try:
        yield
    except EndedByRoot as error:
        said = error.message.replace(AGAIN, "move it away")
        said = said.replace(ANEW, "move it away, or leave these flags as they were")
        raise EndedByRoot(int(error.code or 0), f"--sweep_stages: {said}") from error


def failures(config: TrainConfig, directory: Path) -> dict[str, int]:
    """How many thresholds failed, by the name of each results file in which some did.

    Of the sweeps of all stages, whichever job has made them.

    Raises
    ------
    ResultsError
        If a results file is damaged.
    """
    if config.sweep_stages is None:
        return {}
    names = [results_name(config, epoch) for epoch in stage_ends(config)]
    there = [name for name in names if (directory / name).exists()]
    found = {name: progress_of(directory / name).n_failed for name in there}
    return {name: n_failed for name, n_failed in found.items() if n_failed}


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
