"""The model card: what a pruned network is, where it came from, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .pruned_network import PrunedNetwork

FILE_NAME = "model_card.json"


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
