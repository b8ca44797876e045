"""What a sweep is asked to do: one frozen dataclass, checked once and saved with the results.

The flags, their ranges and their grammar belong here. Reading argument files does not
(``argument_file``), nor does opening any of the files that are named.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import goals
from .argument_file import ArgumentParser
from .choice import Limit
from .criteria import CRITERIA
from .data import DATASETS
from .errors import ConfigError
from .evaluator_choice import EVALUATORS
from .grid import read_grid
from .heads import TASKS
from .predictive import MAX_DRAWS
from .pruning import PRUNED_SCALE, SCOPES, Rule
from .stopping import Target
from .units import GRANULARITIES

logger = logging.getLogger(__name__)

MAX_COUNT = 10**6
"""Largest batch, number of threads and GiB of sums that are taken to be meant."""


_NOT_NEEDED = {
    "horovod_used": "Horovod is not needed to evaluate; the graph's Horovod ops are dropped",
    "name_scope": "names under scopes are read from the graph",
    "cluster": "threads are set by --num_intra and --num_inter alone",
    "plotting": "plots are made from the results file",
    "kmp_blocktime": "export KMP_BLOCKTIME instead: it must be set before the process starts",
    "kmp_affinity": "export KMP_AFFINITY instead: it must be set before the process starts",
}


@dataclass(frozen=True)
class SweepConfig:
    """One sweep, as it was asked for.

    Attributes
    ----------
    grid_kind : {"threshold", "fraction"}
        Whether ``grid`` holds thresholds of the criterion or fractions of weights to prune.
    grid : tuple of float
        From the least that is pruned to the most, without repeats; an infinity is the unpruned
        network of a criterion whose scores can be negative.
    criterion, scope, granularity, prior_scale
        See :class:`bprune_hpc.pruning.Rule`.
    pruned_weights : {"zero", "bprune"}
        What a pruned weight becomes: exactly zero, or BPrune's N(0, ln 2²).
    ood_path, ood_dataset : str or None
        Examples to be told from the test set; None for both: no such.
    task : {"auto", "classification", "regression"}
    noise_scale : float or None
        Standard deviation of a regression's noise, where the network does not give it.
    n_draws : int
        Even when ``pairing`` is "antithetic"; the most, where there is a target.
    target : Target or None
        Monte Carlo error at which to stop earlier.
    limit : Limit or None
        What pruning may cost, for the choice of a threshold.
    evaluator : {"auto", "chain", "channels", "graph"}
        See ``evaluator_choice``.
    state_limit_gb : float
        GiB that the exact sums may take on rank 0 before examples are taken in blocks.
    """

    model_dir: str
    model_ckpt: str | None
    model: str | None
    input_op: str | None
    logits_op: str | None
    loc_op: str | None
    scale_op: str | None
    task: str
    noise_scale: float | None
    data_path: str | None
    dataset: str
    subtract_pixel_mean: bool
    ood_path: str | None
    ood_dataset: str | None
    grid_kind: str
    grid: tuple[float, ...]
    criterion: str
    scope: str
    granularity: str
    prior_scale: float | None
    pruned_weights: str
    n_draws: int
    seed: int
    pairing: str
    target: Target | None
    limit: Limit | None
    batch_size: int
    evaluator: str
    output: str
    save_probabilities: bool
    state_limit_gb: float
    num_intra: int
    num_inter: int
    verbose: bool

    def to_json(self) -> str:
        """The whole configuration as JSON, as it is stored with the results."""
        grid = [value if math.isfinite(value) else "none" for value in self.grid]
        return json.dumps({**dataclasses.asdict(self), "grid": grid}, sort_keys=True)

    @property
    def rule(self) -> Rule:
        """In which order weights are pruned."""
        return Rule(self.criterion, self.scope, self.granularity, self.prior_scale, self.seed)


def parse(argv: Sequence[str]) -> SweepConfig:
    """Read a command line into a checked configuration.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name; ``@FILE`` names an argument file.

    Raises
    ------
    ConfigError
        If an argument is unknown, missing, out of range or does not fit the others.
    """
    arguments = parser().parse(argv)
    for name in ("model_dir", "data_path", "data_dir", "output"):
        if getattr(arguments, name) == "":
            raise ConfigError(f"--{name}: is empty; give a path, or leave the flag out")
    if arguments.model_dir is None:
        raise ConfigError("--model_dir is missing; name a case directory, or embedded:digits_fc")
    if arguments.mode == "inference":
        arguments.grid = ("threshold", "none")
    kind, text = arguments.grid
    kind, grid = read_grid(text, kind, arguments.criterion)
    _check_prior(arguments.criterion, arguments.prior_scale)
    if arguments.noise_scale is not None and not 1e-30 <= arguments.noise_scale <= 1e30:
        raise ConfigError(f"--noise_scale: {arguments.noise_scale:g} is not in 1e-30 to 1e30")
    n_draws = arguments.num_monte_carlo
    if not 1 <= n_draws <= MAX_DRAWS:
        raise ConfigError(f"--num_monte_carlo: {n_draws} is not in 1 to {MAX_DRAWS}")
    if arguments.pairing == "antithetic" and n_draws % 2:
        n_draws += 1
        logger.info("draws come in antithetic pairs: --num_monte_carlo rounded up to %d", n_draws)
    target, limit = goals.read(
        arguments, kind, grid[0], n_draws if arguments.pairing == "none" else n_draws // 2
    )
    for name in ("batch_size", "num_intra", "num_inter"):
        if not 1 <= getattr(arguments, name) <= MAX_COUNT:
            raise ConfigError(f"--{name}: {getattr(arguments, name)} is not in 1 to {MAX_COUNT}")
    if not 0 <= arguments.seed < 2**64:
        raise ConfigError(f"--seed: {arguments.seed} is not in 0 to 2**64 - 1")
    if not 0 < arguments.state_limit_gb <= MAX_COUNT:
        raise ConfigError(
            f"--state_limit_gb: {arguments.state_limit_gb} is not in 0 to {MAX_COUNT}"
        )
    for name, reason in _NOT_NEEDED.items():
        if getattr(arguments, name) not in (None, False):
            logger.info("--%s is accepted and does nothing: %s", name, reason)
    output = os.path.expanduser(arguments.output or os.path.join(arguments.data_dir, "sweep.h5"))
    data_path = os.path.expanduser(arguments.data_path) if arguments.data_path else None
    if data_path and os.path.realpath(output) == os.path.realpath(data_path):
        raise ConfigError(f"--output: {output} is the data set itself; choose another file")
    return SweepConfig(
        model_dir=os.path.expanduser(arguments.model_dir),
        model_ckpt=arguments.model_ckpt,
        model=arguments.model,
        input_op=arguments.input_op,
        logits_op=arguments.logits_op,
        loc_op=arguments.loc_op,
        scale_op=arguments.scale_op,
        task=arguments.task,
        noise_scale=arguments.noise_scale,
        data_path=data_path,
        dataset=_dataset(arguments.dataset, arguments.cifar10),
        subtract_pixel_mean=arguments.subtract_pixel_mean,
        ood_path=os.path.expanduser(arguments.ood_path) if arguments.ood_path else None,
        ood_dataset=arguments.ood_dataset or ("auto" if arguments.ood_path else None),
        grid_kind=kind,
        grid=grid,
        criterion=arguments.criterion,
        scope=arguments.scope,
        granularity=arguments.granularity,
        prior_scale=arguments.prior_scale,
        pruned_weights=arguments.pruned_weights,
        n_draws=n_draws,
        seed=arguments.seed,
        pairing=arguments.pairing,
        target=target,
        limit=limit,
        batch_size=arguments.batch_size,
        evaluator=arguments.evaluator,
        output=output,
        save_probabilities=arguments.save_probabilities,
        state_limit_gb=arguments.state_limit_gb,
        num_intra=arguments.num_intra,
        num_inter=arguments.num_inter,
        verbose=arguments.verbose,
    )


def _dataset(dataset: str, is_cifar10: bool) -> str:
    if is_cifar10 and dataset not in ("auto", "cifar10"):
        logger.info("--cifar10 does nothing: --dataset=%s is named", dataset)
    return "cifar10" if is_cifar10 and dataset == "auto" else dataset


def _check_prior(criterion: str, prior_scale: float | None) -> None:
    if prior_scale is None and CRITERIA[criterion].needs_prior:
        raise ConfigError(
            f"--criterion={criterion}: the prior is not known; give the standard deviation of the "
            "weights' Gaussian prior with --prior_scale"
        )
    if prior_scale is not None and not 1e-30 <= prior_scale <= 1e30:
        raise ConfigError(f"--prior_scale: {prior_scale:g} is not in 1e-30 to 1e30")


class _Grid(argparse.Action):
    """Keep the last of --thresholds, --thres_val and --prune_fractions, with its kind."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        kind = "fraction" if option_string == "--prune_fractions" else "threshold"
        namespace.grid = (kind, values)


def parser() -> ArgumentParser:
    """The command line of ``python -m bprune_hpc.sweep``."""
    root = ArgumentParser(
        prog="python -m bprune_hpc.sweep",
        description="Prune a mean-field Bayesian network by signal-to-noise ratio, or another "
        "criterion, over a range of thresholds; accuracy, NLL and uncertainty at each go to an "
        "HDF5 file.",
        epilog="@FILE reads arguments from a file, one a line; the last occurrence wins.",
    )
    case = root.add_argument_group("network")
    case.add_argument("--model_dir", metavar="DIR", help="case directory, or embedded:digits_fc")
    case.add_argument("--model_ckpt", metavar="NAME", help="model.ckpt-N; default: the newest")
    case.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="builds the tf_keras model of a weights file"
    )
    case.add_argument("--input_op", metavar="OP", help="input placeholder, if not found")
    case.add_argument("--logits_op", metavar="OP", help="logits, if not found")
    case.add_argument("--loc_op", metavar="OP", help="mean of a regression, for --logits_op")
    case.add_argument("--scale_op", metavar="OP", help="standard deviation of a regression")
    case.add_argument(
        "--task", choices=TASKS, default="auto", help="default: what the network's output says"
    )
    case.add_argument(
        "--noise_scale",
        type=float,
        metavar="X",
        help="deviation of the targets' noise, for a regression that gives a mean alone",
    )
    data = root.add_argument_group("data")
    data.add_argument("--data_path", metavar="PATH", help="file, directory, or TFRecord pattern")
    data.add_argument("--dataset", choices=DATASETS, default="auto")
    data.add_argument("--cifar10", action="store_true", help="the same as --dataset=cifar10")
    data.add_argument(
        "--subtract_pixel_mean",
        action="store_true",
        help="of cifar10: subtract the training set's mean image",
    )
    data.add_argument(
        "--ood_path", metavar="PATH", help="other examples of the same shape, to be told apart"
    )
    data.add_argument("--ood_dataset", choices=DATASETS, help="what they are (auto)")
    data.add_argument(
        "--batch_size", type=int, default=1000, help="examples evaluated at once (%(default)s)"
    )
    data.add_argument(
        "--evaluator", choices=EVALUATORS, default="auto", help="auto: the fastest that fits"
    )
    sweep = root.add_argument_group("sweep")
    for flag, form, text in (
        ("--thresholds", "LIST", "0,0.1,0.5, START:STOP:COUNT[:log], or auto:N for N equal steps"),
        ("--thres_val", "X", "one threshold"),
        ("--prune_fractions", "LIST", "fractions of weights to prune, in [0, 1)"),
    ):
        sweep.add_argument(
            flag,
            action=_Grid,
            dest="grid",
            metavar=form,
            default=("threshold", None),
            help=text,
        )
    for flag, choices, text in (
        ("--criterion", CRITERIA, "score by which weights are pruned"),
        ("--scope", SCOPES, "fractions of all weights together, or layer by layer"),
        ("--granularity", GRANULARITIES, "what is pruned as a whole"),
        ("--pruned_weights", PRUNED_SCALE, "exactly zero, or noise as BPrune leaves it"),
    ):
        default = next(iter(choices))
        sweep.add_argument(
            flag, choices=tuple(choices), default=default, help=f"{text} ({default})"
        )
    sweep.add_argument(
        "--prior_scale",
        type=float,
        metavar="X",
        help="deviation of the weights' prior, for the criteria kl and bmr",
    )
    sweep.add_argument(
        "--num_monte_carlo", type=int, default=200, metavar="S", help="draws (%(default)s)"
    )
    goals.add_arguments(sweep)
    sweep.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    sweep.add_argument("--pairing", choices=("antithetic", "none"), default="antithetic")
    mode: dict[str, Any] = {"dest": "mode", "action": "store_const", "default": "prune"}
    sweep.add_argument("--prune", const="prune", help="the sweep (default)", **mode)
    sweep.add_argument("--inference", const="inference", help="the unpruned network only", **mode)
    output = root.add_argument_group("output")
    output.add_argument("--data_dir", metavar="DIR", default="results", help="for sweep.h5")
    output.add_argument("--output", metavar="FILE", help="results file; default DIR/sweep.h5")
    output.add_argument(
        "--save_probabilities",
        action="store_true",
        help="store every mean probability even above 1 GiB",
    )
    output.add_argument("--verbose", action="store_true", help="log more")
    machine = root.add_argument_group("machine")
    machine.add_argument("--num_intra", type=int, default=1, help="threads per rank (%(default)s)")
    machine.add_argument("--num_inter", type=int, default=1, help="ops at once (%(default)s)")
    machine.add_argument(
        "--state_limit_gb",
        type=float,
        default=1.0,
        metavar="GIB",
        help="sums on rank 0 before examples are taken in blocks (%(default)s)",
    )
    accepted = root.add_argument_group("flags of BPrune, accepted and not needed")
    for name, reason in _NOT_NEEDED.items():
        action: dict[str, Any] = {} if name.startswith("kmp_") else {"action": "store_true"}
        accepted.add_argument(f"--{name}", help=reason, **action)
    return root
