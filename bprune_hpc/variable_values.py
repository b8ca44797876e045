"""Values of a graph's variables: each read once, when it is needed, and let go when it is not.

What belongs here: how long an array lives while a network is lifted, which decides how much memory
that takes. What does not: files (the ``source_*`` modules), what the values mean (``graph``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
