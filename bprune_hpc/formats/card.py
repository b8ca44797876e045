"""The model card: what a pruned network is, where it came from, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.case import Source
from ..job.environment import versions
from ..posterior.pruning import PruningRule
from .pruned_network import PrunedNetwork

FILE_NAME = "model_card.json"

_PACKAGES = ("bprune_hpc", "tensorflow", "numpy")


def provenance(source: Source, rule: PruningRule | None) -> dict[str, Any]:
    """Digests of what was read, the rule by which weights were pruned, and versions."""
    found: dict[str, Any] = {"sha256": dict(source.sha256), "step": source.step}
    if rule is not None:
        names = ("criterion", "scope", "granularity", "prior_scale", "seed")
        found |= {name: getattr(rule, name) for name in names}
    return {**found, "versions": versions(_PACKAGES)}


def make(network: PrunedNetwork, checks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The card as JSON can hold it.

    Parameters
    ----------
    checks : mapping of str to mapping
        By format, what its check has given.
    """
    return {
        "cut": network.cut,
        "source": {"kind": network.source.kind, "path": network.source.path},
        "provenance": dict(network.provenance),
        "metrics": {name: asdict(metric) for name, metric in network.metrics.items()},
        "formats": {name: dict(check) for name, check in checks.items()},
    }


def write(card: Mapping[str, Any], directory: Path) -> None:
    """Write ``model_card.json``."""
    (directory / FILE_NAME).write_text(json.dumps(card, indent=2) + "\n")
