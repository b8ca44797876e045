"""What a sweep is to reach: flags for an error to draw until, and for what pruning may cost.

Their grammar and ranges belong here; what is made of them does not (``metrics.stopping``,
``metrics.threshold_selection``).
"""

from __future__ import annotations

import argparse
import logging
import math

from ..errors import ConfigError
from ..metrics.definitions import ALL, CLASSIFICATION, OUT_OF_DISTRIBUTION, REGRESSION
from ..metrics.stopping import Target, parse_target
from ..metrics.threshold_selection import MODES, STEPS, Limit
from ..posterior.criteria import CRITERIA
from ..posterior.thresholds import unpruned

logger = logging.getLogger(__name__)

SOFTEN = 0.01
"""Share of the uniform distribution in a softened predictive, unless another is asked for."""

_MOST_COMPARISONS = 500


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the flags to a group of a command line."""
    group.add_argument(
        "--target_se",
        metavar="METRIC=VALUE",
        help="stop once the Monte Carlo error of a metric is this small, tested at 50, 100, 200, "
        "... draws, up to --num_monte_carlo",
    )
    for metric in STEPS:
        group.add_argument(
            f"--max_{metric}",
            action=_Limit,
            dest="limit",
            type=float,
            metavar="X",
            help=f"choose the most-pruned threshold whose {metric.replace('_', ' ')} is below X "
            "with 95 %% confidence",
        )
    group.add_argument(
        "--choose",
        choices=("free_energy",),
        help="choose the threshold of the least free energy, if that is lower than unpruned with "
        "95 %% confidence; needs --elbo_path",
    )
    group.add_argument(
        "--choice",
        choices=MODES,
        default=MODES[0],
        help="test behind the choice: exact holds for any number of examples; asymptotic needs "
        "many, without rare large losses; auto: exact where possible",
    )
    group.add_argument(
        "--soften",
        type=float,
        default=SOFTEN,
        metavar="SHARE",
        help="for an exact choice by NLL: share of the uniform distribution mixed into the "
        "predictive; a larger share needs fewer examples",
    )
    group.add_argument(
        "--n_comparisons",
        type=int,
        default=1,
        metavar="K",
        help="number of choices that share the 5 %% of error: this one is tested at 5 %% / K",
    )


def read(
    arguments: argparse.Namespace, kind: str, least: float, n_replicates: int
) -> tuple[Target | None, Limit | None]:
    """What is asked for.

    Parameters
    ----------
    arguments : Namespace
        ``target_se``, ``limit`` and how it is tested, ``criterion``, ``task`` and those of the
        other examples are read.
    kind : {"threshold", "fraction"}
        Of the grid.
    least : float
        The first value of the grid.
    n_replicates : int
        Antithetic pairs, or single draws, at most.

    Raises
    ------
    ConfigError
        If a value is out of range, or the sweep cannot answer.
    """
    limit = arguments.limit
    target = None if arguments.target_se is None else _target(arguments)
    if limit is not None:
        flag = f"--max_{limit.metric}"
        if not (math.isfinite(limit.value) and limit.value > 0):
            raise ConfigError(f"{flag}: {limit.value:g} is not positive")
        _check_unpruned(flag, kind, least, arguments.criterion)
    if arguments.choose is not None:
        _check_choose(arguments, kind, least)
    if not 0 < arguments.soften < 1:
        raise ConfigError(f"--soften: {arguments.soften:g} is not between 0 and 1")
    if not 1 <= arguments.n_comparisons <= _MOST_COMPARISONS:
        raise ConfigError(
            f"--n_comparisons: {arguments.n_comparisons} is not in 1 to {_MOST_COMPARISONS}"
        )
    if target is not None and limit is not None and arguments.choice == "exact":
        raise ConfigError(
            "--choice=exact: --target_se chooses the number of draws by the data; leave one out"
        )
    is_asked = target is not None or limit is not None or arguments.choose is not None
    if n_replicates < 2 and is_asked:
        raise ConfigError(
            f"{_flag(limit, arguments.choose)}: one pair of draws (or single draw) has no standard "
            "error; raise --num_monte_carlo to 4 or more"
        )
    return target, limit


def check_task(
    target: Target | None,
    limit: Limit | None,
    choose: str | None,
    choice: str,
    task: str,
    n_replicates: int,
    draws_per_replicate: int,
) -> None:
    """Refuse what the task that was found does not have.

    Parameters
    ----------
    choose : str or None
        Another rule of the choice.
    choice : str
        How the cost is to be tested.
    task : {"classification", "regression"}
    n_replicates : int
        Independent replicates, at most.
    draws_per_replicate : int

    Raises
    ------
    ConfigError
    """
    if target is not None and target.metric not in (names := _names(task, has_ood=True)):
        raise ConfigError(
            f"--target_se: '{target.metric}' is not of a {task}; there are {', '.join(names)}"
        )
    if limit is not None and task == "regression" and limit.metric != "nll_rise":
        raise ConfigError(f"--max_{limit.metric}: is for classification; give --max_nll_rise")
    if limit is not None and task == "regression" and choice == "exact":
        raise ConfigError(
            "--choice=exact: the losses of a regression have no bound; pass --choice=asymptotic"
        )
    if n_replicates < 2 and (target is not None or limit is not None or choose is not None):
        raise ConfigError(
            f"{_flag(limit, choose)}: the draws of a {task} come {draws_per_replicate} at a time, "
            "and these alone have no standard error; raise --num_monte_carlo to "
            f"{2 * draws_per_replicate} or more"
        )


def _flag(limit: Limit | None, choose: str | None) -> str:
    if limit is not None:
        return f"--max_{limit.metric}"
    return "--target_se" if choose is None else f"--choose={choose}"


def _names(task: str, has_ood: bool) -> list[str]:
    """Metrics of a task, or of any with ``auto``, that have a Monte Carlo error."""
    of_classes = CLASSIFICATION | (OUT_OF_DISTRIBUTION if has_ood else {})
    tables = {"classification": of_classes, "regression": REGRESSION}
    definitions = tables.get(task, of_classes | REGRESSION)
    return [name for name, definition in definitions.items() if definition.has_draws]


def _target(arguments: argparse.Namespace) -> Target:
    has_ood = bool(arguments.ood_path or arguments.ood_dataset)
    target = parse_target(arguments.target_se, _names(arguments.task, has_ood))
    if ALL[target.metric].is_discrete:
        logger.warning(
            "--target_se: %s changes in steps; its error can be small, even 0, by chance",
            target.metric,
        )
    return target


def _check_choose(arguments: argparse.Namespace, kind: str, least: float) -> None:
    flag = f"--choose={arguments.choose}"
    if arguments.limit is not None:
        raise ConfigError(
            f"{flag}: is one choice, --max_{arguments.limit.metric} another; leave one out"
        )
    if not (arguments.elbo_path or arguments.elbo_dataset):
        raise ConfigError(f"{flag}: needs the training data; name them with --elbo_path")
    _check_unpruned(flag, kind, least, arguments.criterion)


def _check_unpruned(flag: str, kind: str, least: float, criterion: str) -> None:
    wanted = unpruned(kind, CRITERIA[criterion])
    if least != wanted:
        where = "0 to --prune_fractions" if kind == "fraction" else "0 to --thresholds"
        if not math.isfinite(wanted):
            where = "none to --thresholds"
        raise ConfigError(
            f"{flag}: the unpruned network, to compare with, is not in the sweep; add {where}"
        )


class _Limit(argparse.Action):
    """Keep the last of --max_accuracy_drop, --max_nll_rise and --max_brier_change."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        namespace.limit = Limit(option_string.removeprefix("--max_"), values)
