"""What a source on disk gives, before anything is made of it: a graph, and variables to be read.

What belongs here: the one form that every kind of source is brought to. What does not: reading any
of them (the ``source_*`` modules), lifting (``graph``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .variable_values import ReadVariables, VariableTypes


@dataclass(frozen=True)
class Ends:
    """Operations (or tensors) between which the network lies; None: to be searched for.

    ``loc_op`` and ``scale_op``, in place of ``logits_op``, are those of a regression's output.
    """

    input_op: str | None = None
    logits_op: str | None = None
    loc_op: str | None = None
    scale_op: str | None = None

    def or_else(self, other: Ends) -> Ends:
        """These where they are given, else the others."""
        is_named = self.logits_op is not None or self.loc_op is not None
        outputs = self if is_named else other
        return Ends(
            self.input_op or other.input_op, outputs.logits_op, outputs.loc_op, outputs.scale_op
        )


@dataclass(frozen=True)
class Opened:
    """A source that was opened.

    Attributes
    ----------
    kind : str
        ``tf1``, ``keras``, ``tf2_checkpoint`` or ``saved_model``.
    path : Path
    label : str
        What messages about the graph call it.
    graph_def : GraphDef
    read : callable
        Values of variables by their names.
    types : mapping of str to (tuple of int, str)
        Shape and type of every variable that can be read.
    variable_names : mapping of str to str
        Name of the variable at a node, where it is not the node's own.
    ends : Ends
        As far as the source itself says.
    files : list of Path
        Every file that is read.
    tf_version : str
        What wrote it; empty where the files do not say.
    step : int or None
    others : mapping of str to (tuple of int, str)
        What is stored besides the variables (an optimizer's, a counter), by name.
    """

    kind: str
    path: Path
    label: str
    graph_def: Any
    read: ReadVariables
    types: VariableTypes
    variable_names: Mapping[str, str]
    ends: Ends
    files: list[Path]
    tf_version: str = ""
    step: int | None = None
    others: VariableTypes = field(default_factory=dict)
