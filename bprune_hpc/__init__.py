"""Pruning of mean-field Bayesian neural networks by signal-to-noise ratio, on many ranks.

    net = bprune_hpc.load("embedded:digits_fc")

Importing the package loads neither TensorFlow nor MPI; what it offers to notebooks is imported
when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "load": "library",
    "BayesianNetwork": "library",
    "NormalPredictive": "library",
    "Predictive": "library",
}
_MODULES = ("data", "graph_info", "results")

__all__ = [
    "BayesianNetwork",
    "NormalPredictive",
    "Predictive",
    "__version__",
    "data",
    "graph_info",
    "load",
    "results",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
