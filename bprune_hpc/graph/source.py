"""What a source on disk gives, before anything is made of it: a graph, and variables to be read.

What belongs here: the one form that every kind of source is brought to, and how long a variable's
array lives while a network is lifted (each is read once, when it is needed, and let go when it is
not). What does not: reading files (``checkpoints``), lifting (``graph.lifting``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Endpoints:
    """Operations (or tensors) between which the network lies; None: to be searched for.

    ``loc_op`` and ``scale_op``, in place of ``logits_op``, are those of a regression's output.
    ``output_kind`` is what the source itself says of ``logits_op``: ``"logits"`` or
    ``"probabilities"``, as of a distribution that the network ends in.
    """

    input_op: str | None = None
    logits_op: str | None = None
    loc_op: str | None = None
    scale_op: str | None = None
    output_kind: str | None = None

    def or_else(self, other: Endpoints) -> Endpoints:
        """These where they are given, else the others."""
        is_named = self.logits_op is not None or self.loc_op is not None
        outputs = self if is_named else other
        return replace(outputs, input_op=self.input_op or other.input_op)


@dataclass(frozen=True)
class GraphSource:
    """What was opened.

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
    ends : Endpoints
        As far as the source itself says.
    files : list of Path
        Every file that is read.
    tf_version : str
        What wrote it; empty where the files do not say.
    step : int or None
    others : mapping of str to (tuple of int, str)
        What is stored besides the variables (an optimizer's, a counter), by name.
    keys : mapping of str to str
        Where a variable is stored in the files, if not under its name.
    """

    kind: str
    path: Path
    label: str
    graph_def: Any
    read: ReadVariables
    types: VariableTypes
    variable_names: Mapping[str, str]
    ends: Endpoints
    files: list[Path]
    tf_version: str = ""
    step: int | None = None
    others: VariableTypes = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)


ReadVariables = Callable[[Collection[str]], Mapping[str, NDArray[Any]]]
VariableTypes = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and NumPy type name of each variable that can be read."""


class VariableValues:
    """Variables by name, read one at a time.

    Parameters
    ----------
    names : collection of str
        The variables that the graph has.
    read : callable
        Takes names, returns their values.
    types : mapping, optional
        Shapes and types, where they are known without reading; else all is read at once.

    Attributes
    ----------
    names : tuple of str, sorted
    """

    def __init__(
        self, names: Collection[str], read: ReadVariables, types: VariableTypes | None = None
    ) -> None:
        self.names = tuple(sorted(set(names)))
        self._read = read
        self._values: dict[str, NDArray[Any]] = {}
        self._uses: Counter[str] = Counter()
        if types is None or not types.keys() >= set(self.names):
            # A reader that lacks a name says so, with the name of its file.
            self._values = dict(read(self.names))
            types = {name: (v.shape, v.dtype.name) for name, v in self._values.items()}
        self._types = types

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a variable, without reading it."""
        return self._types[name][0]

    def dtype(self, name: str) -> str:
        """Type of a variable, without reading it."""
        return self._types[name][1]

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._values:
            self._values[name] = np.asarray(self._read([name])[name])
        return self._values[name]

    def announce(self, names: Iterable[str]) -> None:
        """Say that these will be used, and :meth:`release`\\ d, one more time each."""
        self._uses.update(set(names))

    def release(self, names: Iterable[str]) -> None:
        """Let go of the values for which this was the last announced use."""
        for name in set(names):
            self._uses[name] -= 1
            if self._uses[name] <= 0:
                self._values.pop(name, None)
