"""The choice of a threshold in a results file: which number goes under which name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config.sweep_config import SweepConfig
from ..metrics import threshold_selection as choices
from ..posterior.pruning import PruningMask, labels_of
from ..runner.statistics import SweepStatistics
from .file import Variable


def group(
    config: SweepConfig, masks: Sequence[PruningMask], findings: SweepStatistics
) -> tuple[dict[str, Variable], dict[str, Any]] | None:
    """Datasets and attributes of ``/choice``; None where there is none to make.

    While more is drawn there may be one group of draws alone, or no unpruned network yet.

    Parameters
    ----------
    masks : sequence of PruningMask
        Of the findings.
    """
    limit = config.limit
    if limit is None or findings.n_units < 2 or masks[0].pruned_fraction != 0:
        return None
    statistics, difference = findings.statistics[0], findings.metrics[limit.metric]
    n_examples, n_groups = len(statistics.label), len(statistics.plan.group_sizes)
    rise = statistics.per_example("nll")
    skewness = choices.skewness_of(rise - rise[0]) if limit.metric == "nll_rise" else None
    chosen = choices.choose(difference, limit, n_examples, n_groups, skewness, findings.failed)
    names = _names_of(config, masks)
    fractions = np.array([mask.pruned_fraction for mask in masks])
    attrs = {
        "rule": limit.metric,
        "limit": limit.value,
        "confidence": chosen.confidence,
        "index": chosen.index,
        "n_examples_needed": chosen.n_examples_needed,
        "text": choices.sentences(chosen, difference.value, names, fractions, n_examples),
    }
    bound = {
        "long_name": f"upper bound of {limit.metric}, at the confidence, of each threshold alone: "
        "no claim about one that is picked after looking"
    }
    variables = {
        "upper_bound": Variable(("threshold",), chosen.upper_bound, bound),
        "is_below": Variable(("threshold",), chosen.is_below.astype(np.int8)),
    }
    return variables, {name: value for name, value in attrs.items() if value is not None}


def _names_of(config: SweepConfig, masks: Sequence[PruningMask]) -> list[str]:
    """``SNR <= 0.5``, ``the 50 % of lowest SNR``; ``none`` for a threshold that prunes nothing."""
    heading = config.rule().heading(config.grid_kind)
    if config.grid_kind == "fraction":
        labels = labels_of([mask.requested_fraction for mask in masks], is_share=True)
        return [f"the {label} of {heading}" for label in labels]
    labels = labels_of([mask.threshold for mask in masks], is_share=False)
    return [label if label == "none" else f"{heading} {label}" for label in labels]
