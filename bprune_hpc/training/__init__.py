"""A training run: its settings, its graph, what is written of it; pruned weights in it.

May import: ``results``, ``config``, ``models``, ``data``, ``job`` and below. Begin with
``train.py``, then ``graph``. Scripts of one's own use :func:`hold`.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["hold"]


def __getattr__(name: str) -> Any:
    if name == "hold":
        return importlib.import_module(".held_weights", __name__).hold
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
