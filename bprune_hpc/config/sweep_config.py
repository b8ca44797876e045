"""What a sweep is asked to do: one frozen dataclass, checked once and saved with the results.

The ranges of flags belong here. What flags there are does not (``config.flags``), nor does opening
any of the files that are named.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..accumulators.classification import MAX_DRAWS
from ..data.fitting import read_scale
from ..data.splitting import SPLIT_FILE
from ..errors import ConfigError, DataError
from ..metrics.stopping import Target
from ..metrics.threshold_selection import Limit
from ..posterior.draws import draws_per_replicate
from ..posterior.mean_field import Prior
from ..posterior.pruning import PRUNED_SCALE, PruningRule
from ..posterior.thresholds import read_grid
from . import targets
from .flags import NOT_NEEDED, parser, read_columns, read_feed

logger = logging.getLogger(__name__)

MAX_COUNT = 10**6
"""Largest batch, number of threads and GiB of sums that are taken to be meant."""


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
        See :class:`bprune_hpc.posterior.pruning.PruningRule`.
    pruned_weights : {"zero", "bprune"}
        What a pruned weight becomes: exactly zero, or BPrune's N(0, ln 2²).
    feed : mapping of str to str
        Values of placeholders besides the input, by name.
    input_scale : str
        See :func:`bprune_hpc.data.fitting.read_scale`.
    layout, x_key, y_key, target_columns, first_label
        See :func:`bprune_hpc.data.loading.load` and :func:`bprune_hpc.data.fitting.fit_shape`.
    ood_path, ood_dataset : str or None
        Examples to be told from the test set; None for both: no such.
    elbo_path, elbo_dataset : str or None
        Training data, for the free energy; None for both: no such.
    task : {"auto", "classification", "regression"}
    noise_scale : float or None
        Standard deviation of a regression's noise, where the network does not give it.
    output_kind : str
        ``auto``, or one of :data:`bprune_hpc.graph.lifted.OUTPUT_KINDS`.
    n_draws : int
        The most, where there is a target; of a prepared sweep in whole replicates.
    draw_noise : str
        ``auto``, or one of :data:`bprune_hpc.evaluators.draw_noise.DRAW_NOISES`: which examples
        share the noise of a draw.
    noise_block : int or None
        Examples that do, where it is by block; None for what the network says.
    target : Target or None
        Monte Carlo error at which to stop earlier.
    limit : Limit or None
        What pruning may cost, for the choice of a threshold.
    choose : {"free_energy"} or None
        Another rule of the choice: where the free energy is least.
    choice : {"auto", "exact", "asymptotic"}
        How the cost is tested; "auto" is exact where it can be.
    soften : float
        Share of the uniform distribution that the predictive is mixed with for an exact choice by
        NLL.
    n_comparisons : int
        Choices among which this one is.
    extended : bool
        Whether what a choice rests on was changed when the results file had results; no flag's.
    evaluator : {"auto", "chain", "channels", "layers", "graph"}
        See ``evaluators.selection``.
    output : str
        The results file, without links and ``..``.
    overwrite : bool
        Whether to begin anew where there is a results file.
    lock_timeout_min : float
        Silence after which a job elsewhere that holds the results file is taken to be gone.
    time_limit_min : float or None
        Time for this job; None for what the scheduler says.
    stop_margin_s : float or None
        Time before its end at which to stop; None for what is measured.
    device : {"cpu", "gpu"}
        What runs the network; a GPU, the evaluator "graph" alone.
    state_limit_gb : float
        GiB that the exact sums may take on rank 0 before examples are taken in blocks.
    plan : bool
        Whether to say what the sweep takes, and not to run it.
    ranks : int or None
        For how many ranks to say so; None for those that there are.
    """

    model_dir: str
    model_ckpt: str | None
    model: str | None
    input_op: str | None
    logits_op: str | None
    loc_op: str | None
    scale_op: str | None
    feed: Mapping[str, str]
    task: str
    noise_scale: float | None
    output_kind: str
    data_path: str | None
    dataset: str
    subtract_pixel_mean: bool
    input_scale: str
    layout: str | None
    x_key: str | None
    y_key: str | None
    target_columns: tuple[str, ...]
    first_label: int
    ood_path: str | None
    ood_dataset: str | None
    elbo_path: str | None
    elbo_dataset: str | None
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
    draw_noise: str
    noise_block: int | None
    target: Target | None
    limit: Limit | None
    choose: str | None
    choice: str
    soften: float
    n_comparisons: int
    extended: bool
    batch_size: int
    evaluator: str
    output: str
    overwrite: bool
    lock_timeout_min: float
    time_limit_min: float | None
    stop_margin_s: float | None
    save_probabilities: bool
    state_limit_gb: float
    device: str
    num_intra: int
    num_inter: int
    plan: bool
    ranks: int | None
    verbose: bool

    def to_json(self) -> str:
        """The whole configuration as JSON, as it is stored with the results."""
        grid = [value if math.isfinite(value) else "none" for value in self.grid]
        return json.dumps({**dataclasses.asdict(self), "grid": grid}, sort_keys=True)

    def rule(self, prior: Mapping[str, Prior] | None = None) -> PruningRule:
        """In which order weights are pruned, and what becomes of them.

        Parameters
        ----------
        prior : mapping of str to Prior, optional
            What the network says of it, where ``prior_scale`` is not given.
        """
        pruned_scale = PRUNED_SCALE[self.pruned_weights]
        return PruningRule(
            self.criterion, self.scope, self.granularity, self.prior_scale, self.seed, prior,
            pruned_scale,
        )  # fmt: skip


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
    return from_arguments(parser().parse(argv))


def from_json(text: str) -> SweepConfig:
    """What :meth:`SweepConfig.to_json` gave, as far as it is of network, data and pruning.

    What an older version did not write has its default. The grid and what is to be reached with it
    are left out.

    Raises
    ------
    ValueError
        If it is not what a sweep writes.
    """
    stored = json.loads(text)
    if not isinstance(stored, dict) or not isinstance(stored.get("model_dir"), str):
        raise ValueError("its configuration names no network")
    fields = {field.name for field in dataclasses.fields(SweepConfig)}
    found = {name: value for name, value in stored.items() if name in fields - _OF_THE_GRID}
    found["target_columns"] = tuple(found.get("target_columns", ()))
    return dataclasses.replace(parse([f"--model_dir={stored['model_dir']}"]), **found)


_OF_THE_GRID = {"grid", "target", "limit", "choose", "plan", "overwrite", "output"}


def from_arguments(arguments: argparse.Namespace) -> SweepConfig:
    """Check what :func:`bprune_hpc.config.flags.parser` has parsed; see :func:`parse`."""
    for name in ("model_dir", "data_path", "data_dir", "output", "x_key", "y_key"):
        if getattr(arguments, name) == "":
            raise ConfigError(f"--{name}: is empty; give a path, or leave the flag out")
    if arguments.model_dir is None:
        raise ConfigError("--model_dir is missing; name a case directory, or embedded:digits_fc")
    if arguments.mode == "inference":
        arguments.grid = ("threshold", "none", "--inference")
    kind, text, flag = arguments.grid
    kind, grid = read_grid(text, kind, arguments.criterion, flag)
    if arguments.prior_scale is not None and not 1e-30 <= arguments.prior_scale <= 1e30:
        raise ConfigError(f"--prior_scale: {arguments.prior_scale:g} is not in 1e-30 to 1e30")
    if arguments.noise_scale is not None and not 1e-30 <= arguments.noise_scale <= 1e30:
        raise ConfigError(f"--noise_scale: {arguments.noise_scale:g} is not in 1e-30 to 1e30")
    n_draws = arguments.num_monte_carlo
    if not 1 <= n_draws <= MAX_DRAWS:
        raise ConfigError(f"--num_monte_carlo: {n_draws} is not in 1 to {MAX_DRAWS}")
    n_replicates = -(-n_draws // draws_per_replicate(arguments.pairing))
    target, limit = targets.read(arguments, kind, grid[0], n_replicates)
    for name in ("batch_size", "num_intra", "num_inter"):
        if not 1 <= getattr(arguments, name) <= MAX_COUNT:
            raise ConfigError(f"--{name}: {getattr(arguments, name)} is not in 1 to {MAX_COUNT}")
    if arguments.device == "gpu" and arguments.evaluator not in ("auto", "graph"):
        raise ConfigError(
            f"--device=gpu: runs the evaluator graph, not {arguments.evaluator}; leave one of the "
            "two flags out"
        )
    if arguments.ranks is not None and not arguments.plan:
        raise ConfigError("--ranks: needs --plan; a sweep runs on the ranks that are started")
    if arguments.ranks is not None and not 1 <= arguments.ranks <= MAX_COUNT:
        raise ConfigError(f"--ranks: {arguments.ranks} is not in 1 to {MAX_COUNT}")
    if arguments.noise_block is not None:
        if arguments.draw_noise == "auto":
            arguments.draw_noise = "per_block"
        if arguments.draw_noise != "per_block":
            raise ConfigError("--noise_block: needs --draw_noise=per_block")
        if not 1 <= arguments.noise_block <= MAX_COUNT:
            raise ConfigError(f"--noise_block: {arguments.noise_block} is not in 1 to {MAX_COUNT}")
    if arguments.draw_noise == "per_block" and arguments.choice == "exact":
        raise ConfigError(
            "--choice: an exact choice needs independent losses, and those of a block of "
            "--draw_noise=per_block are not; pass --draw_noise=shared, or --choice=asymptotic"
        )
    if not 0 <= arguments.seed < 2**64:
        raise ConfigError(f"--seed: {arguments.seed} is not in 0 to 2**64 - 1")
    if not abs(arguments.first_label) <= MAX_COUNT:
        raise ConfigError(f"--first_label: {arguments.first_label} is not in ±{MAX_COUNT}")
    if not 0 < arguments.state_limit_gb <= MAX_COUNT:
        raise ConfigError(
            f"--state_limit_gb: {arguments.state_limit_gb} is not in 0 to {MAX_COUNT}"
        )
    margin_s = arguments.stop_margin_s
    if margin_s is not None and not 0 <= margin_s < math.inf:
        raise ConfigError(f"--stop_margin_s: {margin_s:g} is not a number of seconds, 0 or more")
    if not 0 < arguments.lock_timeout_min <= MAX_COUNT:
        raise ConfigError(
            f"--lock_timeout_min: {arguments.lock_timeout_min:g} is not in 0 to {MAX_COUNT}"
        )
    for name, reason in NOT_NEEDED.items():
        if getattr(arguments, name) not in (None, False):
            logger.info("--%s is accepted and does nothing: %s", name, reason)
    output = _resolved(arguments.output or os.path.join(arguments.data_dir, "sweep.h5"))
    data_path = os.path.expanduser(arguments.data_path) if arguments.data_path else None
    own = os.path.join(os.path.expanduser(arguments.model_dir), SPLIT_FILE)
    if os.path.isfile(own):
        if data_path is None and arguments.dataset == "auto" and not arguments.cifar10:
            data_path = own
        elif data_path is None or os.path.realpath(data_path) != os.path.realpath(own):
            logger.warning(
                "%s has what was held out of the training; --data_path and --dataset say otherwise "
                "and may have what the network was trained on", own,
            )  # fmt: skip
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
        feed=read_feed(arguments.feed),
        task=arguments.task,
        noise_scale=arguments.noise_scale,
        output_kind=arguments.output_kind,
        data_path=data_path,
        dataset=_dataset(arguments.dataset, arguments.cifar10),
        subtract_pixel_mean=arguments.subtract_pixel_mean,
        input_scale=_input_scale(arguments.input_scale),
        layout=arguments.layout,
        x_key=arguments.x_key,
        y_key=arguments.y_key,
        target_columns=read_columns(arguments.target_columns),
        first_label=arguments.first_label,
        ood_path=os.path.expanduser(arguments.ood_path) if arguments.ood_path else None,
        ood_dataset=arguments.ood_dataset or ("auto" if arguments.ood_path else None),
        elbo_path=os.path.expanduser(arguments.elbo_path) if arguments.elbo_path else None,
        elbo_dataset=arguments.elbo_dataset or ("auto" if arguments.elbo_path else None),
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
        draw_noise=arguments.draw_noise,
        noise_block=arguments.noise_block,
        target=target,
        limit=limit,
        choose=arguments.choose,
        choice=arguments.choice,
        soften=arguments.soften,
        n_comparisons=arguments.n_comparisons,
        extended=False,
        batch_size=arguments.batch_size,
        evaluator="graph" if arguments.device == "gpu" else arguments.evaluator,
        output=output,
        overwrite=arguments.overwrite,
        lock_timeout_min=arguments.lock_timeout_min,
        time_limit_min=arguments.time_limit_min,
        stop_margin_s=margin_s,
        save_probabilities=arguments.save_probabilities,
        state_limit_gb=arguments.state_limit_gb,
        device=arguments.device,
        num_intra=arguments.num_intra,
        num_inter=arguments.num_inter,
        plan=arguments.plan,
        ranks=arguments.ranks,
        verbose=arguments.verbose,
    )


def _resolved(output: str) -> str:
    """The one name of a results file, by which it is looked for, held and written.

    Links and ``..`` are followed here and nowhere else: what ``absent/../FILE`` means is another
    thing to the system, which finds no such file, than to who makes directories. Relative where it
    lies below the current directory.

    Raises
    ------
    ConfigError
        If it names a directory.
    """
    if os.path.basename(output) in ("", ".", ".."):
        raise ConfigError(f"--output: {output} is a directory; give a file name")
    path, here = os.path.realpath(os.path.expanduser(output)), os.path.realpath(os.curdir)
    return os.path.relpath(path, here) if path.startswith(os.path.join(here, "")) else path


def _input_scale(text: str) -> str:
    try:
        scale = read_scale(text)
    except DataError as error:
        raise ConfigError(str(error)) from None
    return "auto" if scale is None else str(scale)


def _dataset(dataset: str, is_cifar10: bool) -> str:
    if is_cifar10 and dataset not in ("auto", "cifar10"):
        logger.info("--cifar10 does nothing: --dataset=%s is named", dataset)
    return "cifar10" if is_cifar10 and dataset == "auto" else dataset
