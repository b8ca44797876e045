"""The command line of a sweep: which flags there are, and what ``--help`` says of them.

Their ranges do not belong here (``config.sweep_config``), nor how argument files are read
(``config.argument_file``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..data.fitting import LAYOUTS
from ..data.loading import DATASETS
from ..errors import ConfigError
from ..evaluators.draw_noise import DRAW_NOISES
from ..evaluators.selection import EVALUATORS
from ..graph.lifted import OUTPUT_KINDS
from ..job.device import DEVICES
from ..metrics.tasks import TASKS
from ..posterior.criteria import CRITERIA
from ..posterior.pruning import GRANULARITIES, PRUNED_SCALE, SCOPES
from ..posterior.thresholds import DEFAULT_OF_OTHERS, DEFAULT_THRESHOLDS
from . import targets
from .argument_file import ArgumentParser

NOT_NEEDED = {
    "horovod_used": "Horovod is not needed to evaluate; the graph's Horovod ops are dropped",
    "name_scope": "names under scopes are read from the graph",
    "cluster": "threads are set by --num_intra and --num_inter alone",
    "plotting": "plots are made from the results file",
    "kmp_blocktime": "export KMP_BLOCKTIME instead: it must be set before the process starts",
    "kmp_affinity": "export KMP_AFFINITY instead: it must be set before the process starts",
}
"""Flags of BPrune that do nothing here, and why."""


FEED: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "NAME=VALUE",
    "help": "value of another placeholder, such as a dropout rate; once for each of them",
}
"""How ``--feed`` is read, by every command that opens a network."""


def read_feed(given: Sequence[str]) -> dict[str, str]:
    """Values of placeholders by name; the last one of a name counts.

    Raises
    ------
    ConfigError
    """
    feed = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ConfigError(f"--feed: '{text}' is not NAME=VALUE")
        feed[name.strip()] = value.strip()
    return feed


class Grid(argparse.Action):
    """Keep the last of --thresholds, --thres_val and --prune_fractions: kind, text and flag."""

    NONE = ("threshold", None, "--thresholds")

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        kind = "fraction" if option_string == "--prune_fractions" else "threshold"
        namespace.grid = (kind, values, option_string)


def add_names(group: Any) -> None:
    """Flags that say what is what in a file of data, of every command that reads labels."""
    group.add_argument(
        "--x_key",
        metavar="KEY",
        help="name of the array of examples, if it is no usual one (x, images, ...)",
    )
    group.add_argument(
        "--y_key",
        metavar="KEY",
        help="name of the array of labels, if it is no usual one (y, labels, ...)",
    )
    group.add_argument(
        "--target_columns",
        metavar="LIST",
        help="for CSV: names or numbers (from 0) of the label columns; default: one that is called "
        "label, target, class or y, else the last",
    )
    group.add_argument(
        "--first_label", type=int, default=0, metavar="N", help="label of the first class"
    )


def read_columns(text: str | None) -> tuple[str, ...]:
    """What ``--target_columns`` lists.

    Raises
    ------
    ConfigError
    """
    columns = () if text is None else tuple(column.strip() for column in text.split(","))
    if not all(columns):
        raise ConfigError(f"--target_columns: '{text}' names no column; give names, or numbers")
    return columns


def parser() -> ArgumentParser:
    """The command line of ``python -m bprune_hpc.sweep``."""
    root = ArgumentParser(
        prog="python -m bprune_hpc.sweep",
        description="Prune a mean-field Bayesian network by signal-to-noise ratio, or another "
        "criterion, over a range of thresholds; accuracy, NLL and uncertainty at each go to an "
        "HDF5 file.",
        epilog="@FILE reads arguments from a file, one a line; the last occurrence wins.",
    )
    first = root.add_argument_group("what most sweeps need")
    case = root.add_argument_group("network")
    first.add_argument(
        "--model_dir",
        metavar="DIR",
        help="the network: directory of a checkpoint or SavedModel, weights file, or "
        "embedded:digits_fc",
    )
    case.add_argument("--model_ckpt", metavar="NAME", help="model.ckpt-N; default: the newest")
    first.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="function that builds the tf_keras model of a weights file; or FILE.py:FUNCTION",
    )
    case.add_argument(
        "--input_op", metavar="OP", help="placeholder of the examples, if it is not found"
    )
    case.add_argument(
        "--logits_op", metavar="OP", help="operation that gives the logits, if it is not found"
    )
    case.add_argument("--feed", **FEED)
    case.add_argument(
        "--loc_op", metavar="OP", help="operation that gives the mean of a regression"
    )
    case.add_argument(
        "--scale_op", metavar="OP", help="operation that gives its standard deviation"
    )
    case.add_argument(
        "--task", choices=TASKS, default="auto", help="auto: what the network's output says"
    )
    case.add_argument(
        "--noise_scale",
        type=float,
        metavar="X",
        help="standard deviation of the targets, for a regression network that gives only a mean",
    )
    case.add_argument(
        "--output_kind",
        choices=("auto", *OUTPUT_KINDS),
        default="auto",
        help="what the output's numbers are; auto: found from the network's structure or from the "
        "numbers",
    )
    data = root.add_argument_group("data")
    first.add_argument(
        "--data_path",
        metavar="PATH",
        help="test set: a file, a directory, or a pattern of TFRecord files",
    )
    first.add_argument(
        "--dataset",
        choices=DATASETS,
        default="auto",
        help="format of --data_path; auto: found from the path",
    )
    data.add_argument("--cifar10", action="store_true", help="the same as --dataset=cifar10")
    data.add_argument(
        "--subtract_pixel_mean",
        action="store_true",
        help="for cifar10: subtract the mean image of the training set",
    )
    data.add_argument(
        "--ood_path",
        metavar="PATH",
        help="examples out of distribution, to be told from the test set by their uncertainty",
    )
    data.add_argument("--ood_dataset", choices=DATASETS, help="format of --ood_path; default: auto")
    data.add_argument(
        "--elbo_path",
        metavar="PATH",
        help="training data: adds the variational free energy at each threshold",
    )
    data.add_argument(
        "--elbo_dataset", choices=DATASETS, help="format of --elbo_path; default: auto"
    )
    data.add_argument(
        "--input_scale",
        default="auto",
        metavar="X",
        help="factor on the examples: none, 0.5, 1/255, ...; auto: 1/255 for bytes, unless the "
        "network takes integers or scales them itself",
    )
    data.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="which axis of the data has the channels, if that is not clear",
    )
    add_names(data)
    data.add_argument(
        "--batch_size", type=int, default=1000, metavar="N", help="examples evaluated at once"
    )
    data.add_argument(
        "--evaluator",
        choices=EVALUATORS,
        default="auto",
        help="how the network is run; auto: the fastest way that it allows",
    )
    sweep = root.add_argument_group("sweep")
    for flag, form, text in (
        (
            "--thresholds",
            "LIST",
            "0,0.1,0.5, START:STOP:COUNT[:log], or auto:N for N "
            f"equal steps of pruned weights; default: {DEFAULT_THRESHOLDS['snr']} "
            f"for snr, {DEFAULT_OF_OTHERS} for other criteria",
        ),
        ("--thres_val", "X", "one threshold"),
        ("--prune_fractions", "LIST", "fractions of weights to prune, in [0, 1)"),
    ):
        group = sweep if flag == "--thres_val" else first
        group.add_argument(
            flag,
            action=Grid,
            dest="grid",
            metavar=form,
            default=Grid.NONE,
            help=text,
        )
    for flag, choices, text in (
        ("--criterion", CRITERIA, "score by which weights are pruned"),
        ("--scope", SCOPES, "take a fraction of all weights together, or of each layer"),
        ("--granularity", GRANULARITIES, "prune single weights, or whole neurons or filters"),
        (
            "--pruned_weights",
            PRUNED_SCALE,
            "set pruned weights to exactly zero, or leave noise as BPrune does",
        ),
    ):
        default = next(iter(choices))
        group = first if flag == "--criterion" else sweep
        group.add_argument(flag, choices=tuple(choices), default=default, help=text)
    sweep.add_argument(
        "--prior_scale",
        type=float,
        metavar="X",
        help="standard deviation of the weights' prior, for kl, bmr and --elbo_path; default: as "
        "in the graph",
    )
    first.add_argument(
        "--num_monte_carlo", type=int, default=200, metavar="S", help="posterior draws"
    )
    targets.add_arguments(sweep)
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws")
    sweep.add_argument(
        "--pairing",
        choices=("antithetic", "none"),
        default="antithetic",
        help="antithetic: draws come in pairs of opposite noise, which lowers most errors",
    )
    sweep.add_argument(
        "--draw_noise",
        choices=("auto", *DRAW_NOISES),
        default="auto",
        help="which examples share the noise of a draw; auto: what is valid for the network and "
        "has the least Monte Carlo error",
    )
    sweep.add_argument(
        "--noise_block",
        type=int,
        metavar="N",
        help="examples that share noise, for per_block; default: chosen from the network",
    )
    mode: dict[str, Any] = {"dest": "mode", "action": "store_const", "default": "prune"}
    sweep.add_argument("--prune", const="prune", help="the sweep (default)", **mode)
    sweep.add_argument("--inference", const="inference", help="the unpruned network only", **mode)
    output = root.add_argument_group("output")
    output.add_argument(
        "--data_dir", metavar="DIR", default="results", help="directory of sweep.h5"
    )
    first.add_argument(
        "--output", metavar="FILE", help="results file; default: sweep.h5 in --data_dir"
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew; without it, an existing results file is continued",
    )
    output.add_argument(
        "--lock_timeout_min",
        type=float,
        default=3.0,
        metavar="MIN",
        help="take a file over from a job on another host after this long without a sign of life",
    )
    output.add_argument(
        "--save_probabilities",
        action="store_true",
        help="store all mean probabilities, even if they take more than 1 GiB",
    )
    output.add_argument("--verbose", action="store_true", help="log more: each tensor, ...")
    plan = root.add_argument_group("before a long sweep")
    first.add_argument(
        "--plan",
        action="store_true",
        help="do not sweep: time a few draws, and print what time, memory and disk a sweep needs",
    )
    plan.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="with --plan: number of ranks to plan for (default: as started)",
    )
    machine = root.add_argument_group("machine")
    machine.add_argument(
        "--time_limit_min",
        type=float,
        metavar="MIN",
        help="stop cleanly this many minutes after the start (default: the scheduler's limit)",
    )
    machine.add_argument(
        "--stop_margin_s",
        type=float,
        metavar="S",
        help="stop this many seconds before that limit (default: as long as rounds and writes "
        "take, and 30 s)",
    )
    machine.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="gpu: the network runs on one GPU a rank; cpu leaves GPUs alone",
    )
    machine.add_argument("--num_intra", type=int, default=1, metavar="N", help="threads per rank")
    machine.add_argument(
        "--num_inter", type=int, default=1, metavar="N", help="TensorFlow ops at once"
    )
    machine.add_argument(
        "--state_limit_gb",
        type=float,
        default=1.0,
        metavar="GIB",
        help="memory for sums on rank 0; if they need more, examples are taken in blocks",
    )
    accepted = root.add_argument_group("flags of BPrune, accepted and not needed")
    for name, reason in NOT_NEEDED.items():
        action: dict[str, Any] = {} if name.startswith("kmp_") else {"action": "store_true"}
        accepted.add_argument(f"--{name}", help=reason, **action)
    return root
