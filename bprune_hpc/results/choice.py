"""The choice of a threshold in a results file: how it is made, stored and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import BoolArray, Float64Array
from ..config.sweep_config import SweepConfig
from ..metrics import exact_tests, free_energy, threshold_selection
from ..metrics.asymptotic_test import AsymptoticTest, skewness_of
from ..metrics.free_energy import FreeEnergy
from ..metrics.nonfinite import blank
from ..metrics.threshold_selection import LEVEL, CostTest, ExactDropTest, ExactRiseTest, Limit
from ..posterior.pruning import PruningMask, thresholds_in_words
from ..runner.statistics import SweepStatistics
from .file import Variable

_BRIER_RISE = 2.0
"""The most that a Brier score can rise."""

_ABOUT = {
    "shared": "this ensemble of {} networks",
    "per_example": "averages over {} draws, with noise of its own for each example",
}
"""What an exact claim is about: where noise is each example's own, losses of another example are
those of new noise, and the claim is about their mean."""


def choice(
    config: SweepConfig,
    masks: Sequence[PruningMask],
    sweep_statistics: SweepStatistics,
    n_classes: int,
    status: str,
    draw_noise: str,
) -> tuple[dict[str, Variable], dict[str, Any]] | None:
    """Datasets and attributes of ``/choice``; None where there is none to make.

    While more is drawn there may be one group of draws alone, or no unpruned network yet.

    Parameters
    ----------
    masks : sequence of PruningMask
        Of the statistics.
    n_classes : int
        0 of a regression.
    status : {"complete", "partial"}
    draw_noise : str
        Which examples share the noise of a draw.
    """
    limit = config.limit
    if sweep_statistics.n_replicates < 2 or not masks[0].prunes_nothing(config.criterion):
        return None
    if config.choose is not None and sweep_statistics.free_energy is not None:
        return _least_free_energy(config, masks, sweep_statistics.free_energy)
    if limit is None:
        return None
    why = _why_asymptotic(config, n_classes, status, draw_noise)
    test = (
        _asymptotic(limit, sweep_statistics)
        if why is not None
        else _exact(config, sweep_statistics, n_classes)
    )
    name, long_name, cost = limit.metric, "", threshold_selection.NAMES[limit.metric]
    attrs: dict[str, Any] = {}
    if why is None:
        about = _ABOUT[draw_noise].format(sweep_statistics.n_draws)
        name, long_name, cost = _decided_on(config, about)
        attrs["about"] = about
        if isinstance(test, ExactRiseTest):
            attrs["bound"] = test.bound
        if name == "nll_rise_softened":
            attrs["soften"] = config.soften
    found = threshold_selection.choose(test, limit, sweep_statistics.failed, config.n_comparisons)
    thresholds = thresholds_in_words(config.rule(), config.grid_kind, masks)
    fractions = np.array([mask.pruned_fraction for mask in masks])
    text = threshold_selection.sentences(found, test, cost, thresholds, fractions)
    attrs |= {
        "rule": limit.metric,
        "limit": limit.value,
        "mode": test.mode,
        "decided_on": name,
        "cost": cost,
        "confidence": found.confidence,
        "n_comparisons": found.n_comparisons,
        "index": found.index,
        "n_examples_needed": found.n_examples_needed,
        "text": f"{text} Not exact: {why}." if why else text,
    }
    variables = {
        **_bounds(test, limit, found.p_value, found.confidence),
        "p_value": Variable(
            ("threshold",),
            found.p_value,
            {"long_name": "least level at which the test passes; NaN where it was not reached"},
        ),
        "cut": Variable(("threshold",), thresholds),
    }
    if isinstance(test, ExactDropTest):
        variables["n_lost"] = Variable(("threshold",), blank(test.n_lost, sweep_statistics.failed))
        variables["n_won"] = Variable(("threshold",), blank(test.n_won, sweep_statistics.failed))
    elif isinstance(test, ExactRiseTest):
        value = blank(test.value, sweep_statistics.failed | sweep_statistics.failed[0])
        variables[name] = Variable(("threshold",), value, {"long_name": long_name})
    return variables, {key: value for key, value in attrs.items() if value is not None}


def _least_free_energy(
    config: SweepConfig, masks: Sequence[PruningMask], energy: FreeEnergy
) -> tuple[dict[str, Variable], dict[str, Any]]:
    """The choice where free energy is least."""
    index = free_energy.choose(energy, config.n_comparisons)
    thresholds = thresholds_in_words(config.rule(), config.grid_kind, masks)
    fractions = np.array([mask.pruned_fraction for mask in masks])
    level = LEVEL / config.n_comparisons
    attrs = {
        "rule": "free_energy",
        "mode": "draws",
        "decided_on": "free_energy_change",
        "cost": "free energy",
        "confidence": 1 - level,
        "n_comparisons": config.n_comparisons,
        "index": index,
        "text": free_energy.claim(index, config.n_comparisons, thresholds, fractions),
    }
    meaning = "least level at which the free energy is shown to be lower than unpruned, for all"
    variables = {
        "p_value": Variable(("threshold",), energy.p_value, {"long_name": meaning}),
        "is_below": Variable(("threshold",), (energy.p_value <= level).astype(np.int8)),
        "cut": Variable(("threshold",), thresholds),
    }
    return variables, attrs


def _why_asymptotic(
    config: SweepConfig, n_classes: int, status: str, draw_noise: str
) -> str | None:
    """Why the choice is not exact, empty where nothing else was asked for; None where it is."""
    if config.choice == "asymptotic":
        return ""
    if not n_classes:
        return "the losses of a regression have no bound"
    if draw_noise == "per_block":
        return "losses of the examples of a block, which share their noise, hang together"
    if config.target is not None:
        return "--target_se chose the number of draws by the data"
    if config.extended:
        return "what was asked for has changed since this file first had results"
    if status != "complete":
        return "not all is done that was asked for"
    return None


def _exact(config: SweepConfig, sweep_statistics: SweepStatistics, n_classes: int) -> CostTest:
    assert config.limit is not None
    statistics, limit = sweep_statistics.statistics[0], config.limit.value
    if config.limit.metric == "accuracy_drop":
        is_right = statistics.per_example("accuracy") == 1
        n_lost = (is_right[0] & ~is_right).sum(axis=1)
        n_won = (~is_right[0] & is_right).sum(axis=1)
        return ExactDropTest(n_lost, n_won, is_right.shape[1], limit)
    if config.limit.metric == "nll_rise":
        loss = exact_tests.softened_nll(statistics.per_example("nll"), config.soften, n_classes)
        bound = exact_tests.largest_softened_rise(config.soften, n_classes)
    else:
        loss, bound = statistics.per_example("brier"), _BRIER_RISE
    return ExactRiseTest(loss, bound, limit, config.seed)


def _decided_on(config: SweepConfig, about: str) -> tuple[str, str, str]:
    """What an exact choice rests on: its name in the file, its meaning, and what is printed."""
    assert config.limit is not None
    if config.limit.metric == "accuracy_drop":
        name = "accuracy_drop"
        return name, "", f"{threshold_selection.NAMES[name]} of {about}"
    if config.limit.metric == "nll_rise":
        name = "nll_rise_softened"
        mixed = f"NLL of {about}, mixed with a share of {config.soften:g} of the uniform"
        return (
            name,
            f"{mixed}: less that at the first threshold, nats",
            (f"{name} (--soften={config.soften:g}) of {about}"),
        )
    name = "brier_rise"
    meaning = f"Brier score of {about}, with no bias taken off: less that at the first threshold"
    return name, meaning, f"{name} of {about}"


def _asymptotic(limit: Limit, sweep_statistics: SweepStatistics) -> CostTest:
    statistics, difference = sweep_statistics.statistics[0], sweep_statistics.metrics[limit.metric]
    step, skewness = threshold_selection.STEPS[limit.metric], np.zeros(len(difference.value))
    if not step:
        loss = statistics.per_example(limit.metric.partition("_")[0])
        skewness = skewness_of(loss - loss[0])
    n_examples, n_groups = len(statistics.label), len(statistics.plan.group_sizes)
    return AsymptoticTest(difference, limit.value, n_examples, n_groups, step, skewness)


def _bounds(
    test: CostTest, limit: Limit, p_value: Float64Array, confidence: float
) -> dict[str, Variable]:
    """What is known of each threshold taken alone."""
    is_below = p_value <= 1 - confidence
    upper = np.full(len(p_value), np.nan)
    long_name = "an exact choice has none; see p_value"
    out = {}
    if isinstance(test, AsymptoticTest):
        upper = test.upper_bound(1 - confidence)
        is_below = upper < limit.value
        long_name = (
            f"upper bound of {limit.metric}, at the confidence, of each threshold alone: no claim "
            "about one that is picked after looking"
        )
        if not test.step:
            meaning = "single losses above this, which the test set lacks, could undo the claim"
            out["largest_loss"] = Variable(
                ("threshold",), test.largest_loss(), {"long_name": meaning}
            )
    return {
        "upper_bound": Variable(("threshold",), upper, {"long_name": long_name}),
        "is_below": Variable(("threshold",), is_below.astype(np.int8)),
        **out,
    }


@dataclass(frozen=True)
class StoredChoice:
    """A choice as it was read from a file.

    Attributes
    ----------
    text : str
        What was printed.
    attrs : mapping
        Of ``/choice``.
    p_value : float64 array, shape (n_thresholds,), or None
        None in a file of an older version.
    thresholds : list of str
    failed : bool array, shape (n_thresholds,)
    pruned_fraction : float64 array, shape (n_thresholds,)
    """

    text: str
    attrs: Mapping[str, Any]
    p_value: Float64Array | None
    thresholds: list[str]
    failed: BoolArray
    pruned_fraction: Float64Array

    def among(self, n_choices: int) -> str:
        """What it claims as one of several choices, which share what any may be wrong."""
        if self.p_value is None:
            return (
                "choice: made by an older version, alone; sweep again with "
                f"--n_comparisons={n_choices}"
            )
        n_comparisons = max(n_choices, int(self.attrs["n_comparisons"]))
        level = LEVEL / n_comparisons
        if self.attrs["rule"] == "free_energy":
            at = int(self.attrs["index"])
            still = at if at < 1 or self.p_value[at] <= level else 0
            return free_energy.claim(still, n_comparisons, self.thresholds, self.pruned_fraction)
        index = threshold_selection.last_passed(self.p_value, self.failed, level)
        cost, limit = str(self.attrs["cost"]), float(self.attrs["limit"])
        if self.failed[0] or index < 0:
            said = f"choice: none. Nothing is shown of the {cost}, below {limit:g} or not, at "
            said += threshold_selection.confidence_in_words(n_comparisons)
        elif index == 0:
            said = threshold_selection.no_claim(cost, limit, n_comparisons)
        else:
            share = float(self.pruned_fraction[index])
            said = threshold_selection.claim(
                cost, limit, n_comparisons, self.thresholds[index], share
            )
        how = threshold_selection.notes(str(self.attrs["mode"]), n_comparisons)
        return f"{said} {how}."


def read_choice(file: Any) -> StoredChoice | None:
    """The choice of an open results file; None where there is none."""
    if "choice" not in file:
        return None
    group, fractions = file["choice"], file["sparsity/pruned_fraction"][()]
    has_test = "p_value" in group
    failures = file["failure"][()] if "failure" in file else [b""] * len(fractions)
    return StoredChoice(
        text=str(group.attrs["text"]),
        attrs=dict(group.attrs),
        p_value=group["p_value"][()] if has_test else None,
        thresholds=[name.decode() for name in group["cut"][()]] if has_test else [],
        failed=np.array([text != b"" for text in failures]),
        pruned_fraction=fractions,
    )
