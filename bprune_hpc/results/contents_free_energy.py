"""The free energy's part of a results file: which number goes under which name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..config.sweep_config import SweepConfig
from ..metrics.free_energy import FreeEnergy, Sum, sentence
from ..metrics.threshold_selection import LEVEL
from ..posterior.pruning import PruningMask
from .file import Variable

_MEANING = {
    "complexity": "KL divergence from the prior of the weights that are left, in closed form",
    "expected_nll": "mean over draws of the negative log-likelihood, summed over training data",
    "free_energy": "variational free energy: complexity + expected_nll",
    "predicted": "the first threshold's free energy and the loss of evidence in closed form "
    "(Bayesian model reduction)",
}
COLUMNS = {
    "complexity": "complexity",
    "expected_nll": "expected NLL",
    "free_energy": "free energy",
    "predicted": "in closed form",
}
"""What a table shows, and its titles."""


def group(
    energy: FreeEnergy, config: SweepConfig, masks: Sequence[PruningMask], n_examples: int
) -> tuple[dict[str, Variable], dict[str, Any]]:
    """Datasets and attributes of ``/free_energy``.

    Parameters
    ----------
    masks : sequence of PruningMask
        Of the thresholds that the energies are of.
    n_examples : int
        Of the training data.
    """
    out = {
        **_exact("complexity", energy.complexity),
        **_measured("expected_nll", energy.expected_nll),
        **_measured("free_energy", energy.free_energy),
        **_exact("complexity_change", energy.complexity_change),
        **_measured("expected_nll_change", energy.expected_nll_change),
        **_measured("free_energy_change", energy.free_energy_change),
    }
    if energy.predicted is not None and energy.predicted_change is not None:
        out |= _measured("predicted", energy.predicted)
        out |= _exact("predicted_change", energy.predicted_change)
    at_the_minimum = "cannot be told from the least by these draws, at the confidence"
    out["may_be_minimum"] = Variable(
        ("threshold",), energy.may_be_minimum.astype(np.int8), {"long_name": at_the_minimum}
    )
    fractions = np.array([mask.pruned_fraction for mask in masks])
    attrs = {
        "data": config.elbo_path or config.elbo_dataset,
        "n_examples": n_examples,
        "prior": "read from the graph" if config.prior_scale is None else "--prior_scale",
        "minimum": energy.minimum,
        "predicted_minimum": energy.predicted_minimum,
        "confidence": 1 - LEVEL,
        "text": sentence(energy, fractions),
    }
    return out, attrs


def _exact(name: str, values: AnyArray) -> dict[str, Variable]:
    whole = name.removesuffix("_change")
    change = "" if whole == name else ", less that at the first threshold"
    attrs = {"units": "nat", "long_name": _MEANING[whole] + change}
    return {name: Variable(("threshold",), values, attrs)}


def _measured(name: str, found: Sum) -> dict[str, Variable]:
    error = Variable(("threshold",), found.se, {"units": "nat"})
    return {**_exact(name, found.value), f"{name}_se": error}
