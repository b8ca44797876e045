"""The results file: its schema, writing it whole, going on from it, reading it.

May import: ``runner`` and all below it; reading (``file``) needs none of that. Begin with ``file``
to read, with ``output`` for the file of a running sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .file import SCHEMA, open_results, read

if TYPE_CHECKING:
    from .tree import Results

__all__ = ["SCHEMA", "Results", "open_results", "read"]


def __getattr__(name: str) -> Any:
    if name == "Results":  # needs xarray, which is optional
        from .tree import Results

        return Results
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
