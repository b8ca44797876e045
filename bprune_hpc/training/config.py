"""What a training run is told, and what follows from that alone.

What belongs here: the flags, their ranges, the schedules and the share of each rank, all of them
pure functions. What does not: TensorFlow, Horovod, files.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.argument_file import ArgumentParser
from ..config.flags import add_names, read_columns
from ..data.loading import DATASETS
from ..data.splitting import SPLIT_FILE
from ..errors import ConfigError
from ..metrics.tasks import TASKS
from ..models.zoo import MODELS
from ..posterior.criteria import CRITERIA
from .log import CSV_FILE, LOGS

ALLREDUCES = ("horovod", "mpi")
ESTIMATORS = ("flipout", "reparameterization", "local")
SCHEDULES = ("constant", "polynomial")
_POWER = 3  # of a polynomial schedule
_MOST_UNITS = 10**6  # of a layer
_OF_SOME = ("sweep_stages", "x_key", "y_key", "target_columns", "first_label", "test_fraction",
            "split_seed", "standardize", "validate_every", "n_draws_validate",
            "log")  # fmt: skip
"""Settings that are recorded where they are not what they are by default."""
_NOT_DEFINING = ("model_dir", "dataset", "data_path", "save_every", "overwrite", "allreduce",
                 "num_intra", "num_inter", "start_from", "mask", "at", "sweep_stages", "status",
                 "time_limit_min", "stop_margin_s", "validate_every", "n_draws_validate",
                 "log")  # fmt: skip
"""Settings that decide no numbers, or name files, which are known by what is in them."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; see :func:`parser` for what each one means.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    dataset: str
    data_path: str | None
    subtract_pixel_mean: bool
    model_dir: str
    model: str
    task: str
    noise_scale: float | None
    hidden: tuple[int, ...]
    width: int
    epochs: int
    batch_size: int
    estimator: str
    learning_rate: float
    warmup_epochs: float
    kl_weight: float
    kl_anneal_epochs: float
    prior_scale: float
    posterior_scale_init: float
    seed: int
    n_draws_eval: int
    save_every: int
    overwrite: bool
    status: bool
    time_limit_min: float | None
    stop_margin_s: float | None
    allreduce: str | None
    num_intra: int
    num_inter: int
    start_from: str | None
    mask: str | None
    at: str
    prune_schedule: str | None
    prune_criterion: str
    initial_fraction: float
    final_fraction: float | None
    begin_epoch: int
    end_epoch: int | None
    frequency: int
    sweep_stages: str | None
    x_key: str | None
    y_key: str | None
    target_columns: tuple[str, ...]
    first_label: int
    test_fraction: float | None
    split_seed: int
    standardize: bool
    validate_every: int
    n_draws_validate: int
    log: str | None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "n_draws_eval", "width"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("learning_rate", "prior_scale", "posterior_scale_init"):
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value > 0, "positive and finite")
        for name in ("kl_weight", "warmup_epochs", "kl_anneal_epochs"):
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value >= 0, "0 or more, and finite")
        if self.noise_scale is not None:
            self._require("noise_scale", 1e-30 <= self.noise_scale <= 1e30, "in 1e-30 to 1e30")
            self._require("noise_scale", self.task == "regression", "left out of a classification")
        if self.estimator == "local" and self.model != "dense":
            raise ConfigError(
                f"--posterior=local: is of --model=dense; choose another for --model={self.model}"
            )
        fraction = self.test_fraction
        self._require("test_fraction", fraction is None or 0 < fraction < 1, "above 0 and below 1")
        self._require("n_draws_validate", self.n_draws_validate >= 2, "2 or more")
        for name in (
            "save_every", "num_intra", "num_inter", "seed", "split_seed", "validate_every",
        ):  # fmt: skip
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("seed", "split_seed"):
            self._require(name, getattr(self, name) < 2**63, "below 2**63")
        for name in ("num_intra", "num_inter", "batch_size", "epochs"):
            self._require(name, getattr(self, name) <= 10**6, "a million or less")
        self._require("width", self.width <= _MOST_UNITS, f"{_MOST_UNITS} or less")
        fits = all(1 <= width <= _MOST_UNITS for width in self.hidden)
        self._require("hidden", fits, f"widths of 1 to {_MOST_UNITS}")
        self._require("model_dir", bool(self.model_dir), "a directory")
        self._check_pruning()
        margin_s = self.stop_margin_s
        if margin_s is not None:
            self._require("stop_margin_s", 0 <= margin_s < math.inf, "seconds, 0 or more")

    def _check_pruning(self) -> None:
        if self.start_from is None and self.mask is not None:
            raise ConfigError("--mask: prunes a trained network; name it with --start_from")
        if self.prune_schedule is None:
            for name in ("final_fraction", "end_epoch", "sweep_stages"):
                self._require(name, getattr(self, name) is None, "left out without a schedule")
            return
        self._require("final_fraction", self.final_fraction is not None, "given with a schedule")
        for name in ("initial_fraction", "final_fraction"):
            self._require(name, 0 <= getattr(self, name) < 1, "0 or more, and below 1")
        self._require("frequency", self.frequency >= 1, "1 or more")
        begin, end = self.begin_epoch, self.end_epoch
        self._require("begin_epoch", 0 <= begin < self.epochs, f"0 to {self.epochs - 1}")
        if self.prune_schedule == "polynomial":
            self._require("end_epoch", end is not None, "given with --prune_schedule=polynomial")
            assert end is not None
            self._require(
                "end_epoch", begin < end < self.epochs, f"{begin + 1} to {self.epochs - 1}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What ``train.json`` records: all but what concerns one job alone, or does not apply."""
        left_out = {"status", "time_limit_min", "stop_margin_s"}
        if self.start_from is None:
            left_out |= {"start_from", "mask", "at"}
        if self.prune_schedule is None:
            left_out |= {"prune_schedule", "prune_criterion", "initial_fraction", "final_fraction",
                         "begin_epoch", "end_epoch", "frequency"}  # fmt: skip
        left_out |= {name for name in _OF_SOME if getattr(self, name) == defaults()[name]}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def defining(self) -> dict[str, Any]:
        """Settings that decide the numbers, by flag; files are known by what is in them."""
        settings = self.settings
        return {
            f"--{name}": settings.get(name, default)
            for name, default in defaults().items()
            if name not in _NOT_DEFINING
        }

    @property
    def threads(self) -> tuple[int, int]:
        """Threads within an operation and between operations."""
        return self.num_intra, self.num_inter

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"--{name}={getattr(self, name)}: must be {wanted}")


@cache
def defaults() -> dict[str, Any]:
    """What a setting is where it is not given, and in records that are older than its flag."""
    found = vars(parser().parse_args([]))
    return {**found, "task": "classification", "target_columns": ()}


def parse(argv: Sequence[str], prog: str) -> TrainConfig:
    """Settings from a command line, whose ``@FILE`` arguments are argument files.

    Raises
    ------
    ConfigError
        If a flag is not known or a value is of the wrong type or out of its range.
    """
    arguments = vars(parser(prog).parse(argv))
    arguments["target_columns"] = read_columns(arguments["target_columns"])
    for name in ("model_dir", "data_path"):
        if arguments[name]:
            arguments[name] = os.path.expanduser(arguments[name])
    if arguments["task"] == "auto":
        is_regression = arguments["dataset"] == "diabetes" or arguments["noise_scale"] is not None
        arguments["task"] = "regression" if is_regression else "classification"
    return TrainConfig(**arguments)


def parser(prog: str = "python -m bprune_hpc.train") -> ArgumentParser:
    """Flags of the trainer.

    Parameters
    ----------
    prog : str
        The command's name in its help.
    """
    flags = ArgumentParser(
        prog=prog,
        description="Train a mean-field Bayesian network; writes a TF1 checkpoint.",
        epilog="@FILE reads arguments from FILE, one a line; the last occurrence of a flag wins.",
    )
    data = flags.add_argument_group("data")
    data.add_argument("--dataset", choices=DATASETS, default="auto", help="default: %(default)s")
    data.add_argument("--data_path", metavar="PATH", help="file, directory, or TFRecord pattern")
    data.add_argument(
        "--subtract_pixel_mean",
        action="store_true",
        help="of cifar10: subtract the training set's mean image",
    )
    add_names(data)
    data.add_argument(
        "--test_fraction",
        type=float,
        metavar="F",
        help="for a file without halves: hold out this fraction at random; DIR keeps both halves "
        f"as {SPLIT_FILE}, and a sweep of DIR takes the test half",
    )
    data.add_argument(
        "--split_seed", type=int, default=0, metavar="N", help="seed of that split; default: 0"
    )
    data.add_argument(
        "--standardize",
        action="store_true",
        help="scale inputs, and a regression's targets, by mean and standard deviation of the "
        "training half; inside the network, which takes and gives the units of the data",
    )
    data.add_argument(
        "--model_dir",
        metavar="DIR",
        default="trained",
        help="directory of the network; until training is done it is DIR.training; default: "
        "%(default)s",
    )
    network = flags.add_argument_group("network")
    network.add_argument("--model", choices=MODELS, default="dense", help="default: %(default)s")
    network.add_argument(
        "--task",
        choices=TASKS,
        default="auto",
        help="default: regression of diabetes or with --noise_scale, else classification",
    )
    network.add_argument(
        "--noise_scale",
        type=float,
        metavar="SD",
        help="of a regression: standard deviation of the targets around the network's output; "
        "default: learned, from 1 on (standardise the targets)",
    )
    network.add_argument(
        "--hidden",
        type=_widths,
        default=(64, 32),
        metavar="N,N",
        help="units of the hidden layers of 'dense'; empty for none; default: 64,32",
    )
    network.add_argument(
        "--width",
        type=int,
        default=16,
        metavar="N",
        help="filters in the first stage of 'resnet18' (64 in its reference), 'vgg' and 'vgg16'; "
        "default: %(default)s",
    )
    network.add_argument(
        "--prior_scale",
        type=float,
        default=1.0,
        metavar="SD",
        help="standard deviation of the weights' prior; default: %(default)s",
    )
    network.add_argument(
        "--posterior_scale_init",
        type=float,
        default=0.05,
        metavar="SD",
        help="standard deviation of the posterior before training; default: %(default)s",
    )
    training = flags.add_argument_group("training")
    training.add_argument(
        "--epochs", type=int, default=200, metavar="N", help="default: %(default)s"
    )
    training.add_argument(
        "--batch_size", type=int, default=32, help="examples a step on each rank; default: 32"
    )
    training.add_argument(
        "--posterior",
        "--estimator",
        dest="estimator",
        choices=ESTIMATORS,
        default="flipout",
        help="how gradients are estimated: reparameterization draws all weights once a step; "
        "flipout gives each example other signs; local draws units (local reparameterization: "
        "faster; 'dense' only); the last two have less noise; the network that is saved is the "
        "same; default: %(default)s",
    )
    training.add_argument(
        "--learning_rate",
        type=float,
        default=0.005,
        help="Adam's, for one rank: it is multiplied by the number of ranks; default: %(default)s",
    )
    training.add_argument(
        "--warmup_epochs",
        type=float,
        default=5.0,
        help="epochs over which the learning rate grows from one rank's to all ranks'; default: 5",
    )
    training.add_argument(
        "--kl_weight", type=float, default=1.0, help="1 is the ELBO; default: %(default)s"
    )
    training.add_argument(
        "--kl_anneal_epochs",
        type=float,
        default=0.0,
        help="epochs over which the KL term grows to its weight; default: 0, at once",
    )
    training.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed; default: %(default)s"
    )
    pruning = flags.add_argument_group("pruning")
    pruning.add_argument(
        "--start_from",
        metavar="CASE",
        help="directory of a network that this command has trained: go on from its newest "
        "checkpoint, or from the one that --mask is a sweep of; what is pruned in it stays pruned",
    )
    pruning.add_argument(
        "--mask",
        metavar="FILE",
        help="prune it first; pruned weights stay 0: a results file of its sweep, or mask.npz of "
        "an export",
    )
    pruning.add_argument(
        "--at",
        default="choice",
        metavar="POINT",
        help="threshold of that results file: choice, index=K, threshold=X or fraction=F; default: "
        "%(default)s",
    )
    pruning.add_argument(
        "--prune_schedule",
        choices=SCHEDULES,
        help="prune while training: all at once ('constant'), or step by step ('polynomial')",
    )
    pruning.add_argument(
        "--prune_criterion",
        choices=tuple(CRITERIA),
        default="snr",
        help="which weights go first; default: %(default)s",
    )
    pruning.add_argument(
        "--initial_fraction", type=float, default=0.0, metavar="F",
        help="for 'polynomial': fraction pruned at --begin_epoch; default: 0",
    )  # fmt: skip
    pruning.add_argument(
        "--final_fraction", type=float, metavar="F", help="fraction pruned at the end"
    )
    pruning.add_argument(
        "--begin_epoch", type=int, default=0, metavar="N",
        help="epochs before the first weights are pruned; default: 0",
    )  # fmt: skip
    pruning.add_argument(
        "--end_epoch", type=int, metavar="N", help="epochs before the last weights are pruned"
    )
    pruning.add_argument(
        "--frequency",
        type=int,
        default=1,
        metavar="N",
        help="epochs between two prunings; default: 1",
    )
    pruning.add_argument(
        "--sweep_stages",
        nargs="?",
        const="",
        metavar="FLAGS",
        help="with a schedule: sweep the network before each pruning and at the end, into "
        "stage0.h5, stage1.h5, ... in DIR; FLAGS are those of the sweep ('--num_monte_carlo=50 "
        "--thresholds=0,1,2'), or its @FILE",
    )
    run = flags.add_argument_group("run")
    run.add_argument(
        "--n_draws_eval",
        type=int,
        default=100,
        help="posterior draws of the accuracy at the end; default: %(default)s",
    )
    run.add_argument(
        "--validate_every",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="every EPOCHS epochs, log the negative log-likelihood of the test half, averaged over "
        "--n_draws_validate draws, the same each time, with its standard error; default: 0, never",
    )
    run.add_argument(
        "--n_draws_validate",
        type=int,
        default=10,
        metavar="S",
        help="draws of that; default: %(default)s",
    )
    run.add_argument(
        "--log",
        choices=LOGS,
        help=f"keep the numbers of each epoch in DIR: {CSV_FILE}, or events for TensorBoard",
    )
    run.add_argument(
        "--save_every",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="also save every EPOCHS epochs; default: 0, only at the end",
    )
    run.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew, and replace the network in DIR once training is done; without it, an "
        "unfinished training is continued, and a DIR that holds another network is refused",
    )
    run.add_argument(
        "--status",
        action="store_true",
        help="do not train: print how far this training is (exit status 0: complete, 4: complete, "
        "but thresholds of --sweep_stages failed, 3: partial, else 1)",
    )
    run.add_argument(
        "--time_limit_min",
        type=float,
        metavar="MIN",
        help="stop cleanly this many minutes after the start (default: the scheduler's limit)",
    )
    run.add_argument(
        "--stop_margin_s",
        type=float,
        metavar="S",
        help="stop this many seconds before that limit (default: as long as a checkpoint takes, "
        "and 30 s)",
    )
    run.add_argument(
        "--allreduce",
        choices=ALLREDUCES,
        help="what adds up the gradients of several ranks (default: horovod where it is installed, "
        "else mpi)",
    )
    run.add_argument(
        "--num_intra", type=int, default=1, help="threads within an op; 0: all cores; default: 1"
    )
    run.add_argument(
        "--num_inter", type=int, default=1, help="ops at once; 0: all cores; default: 1"
    )
    return flags


def fraction_to_prune(config: TrainConfig, epoch: int) -> float | None:
    """Fraction of the weights that is to be pruned before an epoch; None: nothing is due.

    That of ``ConstantSparsity`` and of ``PolynomialDecay`` with its power of 3, in epochs.

    References
    ----------
    M. Zhu and S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", arXiv:1710.01878, 2017.
    """
    final, begin = config.final_fraction, config.begin_epoch
    if config.prune_schedule is None or final is None or epoch < begin:
        return None
    if config.prune_schedule == "constant":
        return final if epoch == begin else None
    end = config.end_epoch
    assert end is not None
    is_due = (epoch - begin) % config.frequency == 0 or epoch == end
    if epoch > end or not is_due:
        return None
    left = 1 - (epoch - begin) / (end - begin)
    return final + (config.initial_fraction - final) * left**_POWER


def stage_ends(config: TrainConfig) -> list[int]:
    """Epochs that are done where a stage ends: before each pruning, and where the training ends.

    What comes before the first pruning is a stage, unless it is a network of random numbers.
    """
    first = 0 if config.start_from is not None else 1
    return [
        *(epoch for epoch in range(first, config.epochs) if fraction_to_prune(config, epoch)),
        config.epochs,
    ]


def learning_rate(config: TrainConfig, n_ranks: int, epoch: float) -> float:
    """Linear scaling with a gradual warm-up: n_ranks times one rank's rate after the warm-up.

    Parameters
    ----------
    config : TrainConfig
    n_ranks : int
    epoch : float
        Epochs done when the step begins, with fraction.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour",
    arXiv:1706.02677, 2017.
    """
    done = min(1.0, epoch / config.warmup_epochs) if config.warmup_epochs else 1.0
    return config.learning_rate * (1.0 + (n_ranks - 1) * done)


def kl_factor(config: TrainConfig, epoch: float) -> float:
    """Weight of the KL term at ``epoch`` (epochs done, with fraction)."""
    done = min(1.0, epoch / config.kl_anneal_epochs) if config.kl_anneal_epochs else 1.0
    return config.kl_weight * done


def steps_per_epoch(n_train: int, batch_size: int, n_ranks: int) -> int:
    """Steps of an epoch, the same for every rank: all ranks' batches are full.

    Raises
    ------
    ConfigError
        If there are not enough examples for one step.
    """
    n_steps = n_train // (batch_size * n_ranks)
    if n_steps == 0:
        raise ConfigError(
            f"--batch_size={batch_size}: {n_ranks} rank(s) need {batch_size * n_ranks} examples a "
            f"step, the training set has {n_train}; choose {max(1, n_train // n_ranks)} or less"
        )
    return n_steps


def epoch_batches(
    n_train: int, batch_size: int, n_ranks: int, rank: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Examples that ``rank`` takes in each step of ``epoch``.

    The permutation depends on ``(seed, epoch)`` alone, so ranks never share an example within an
    epoch; the few examples that do not fill a last step differ from epoch to epoch.

    Returns
    -------
    int64 array, shape (n_steps, batch_size)
    """
    n_steps = steps_per_epoch(n_train, batch_size, n_ranks)
    order = np.random.Generator(np.random.Philox([seed, epoch])).permutation(n_train)
    used = order[: n_steps * n_ranks * batch_size].astype(np.int64)
    return used.reshape(n_steps, n_ranks, batch_size)[:, rank]


def op_seed(seed: int, rank: int) -> int:
    """Seed of a rank's TensorFlow ops: its own noise, the same again in the next run."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]) & 0x7FFFFFFF


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",") if width.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not numbers with commas, as in 64,32"
        ) from None
