"""A results file in memory, as a tree of labelled arrays.

What belongs here: what :func:`bprune_hpc.results.read` gives. What does not: reading
(``results.file``), which imports this module only then, since xarray is optional.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from ..errors import ResultsError


class Results(xarray.DataTree):
    """A results file in memory: an ``xarray.DataTree`` with a node for each group.

    The root has the labels; ``/state`` is left out. ``results["metrics/nll"]`` is an array and
    ``results["metrics"]`` a node, as in each tree; ``results.metrics`` is that group as a dataset.

    Attributes
    ----------
    attrs : dict
        Of the file: schema, status, config, hashes.
    groups : dict of str to xarray.Dataset
        Every group with its labels; ``results.metrics`` is ``results.groups["metrics"]``, and
        ``results.groups[""]`` holds the labels alone.
    """

    __slots__ = ()

    @property
    def groups(self) -> dict[str, xarray.Dataset]:  # type: ignore[override]
        """Every group as a dataset, by its path."""
        return {
            "" if path == "." else path: _dataset(node)
            for path, node in self.subtree_with_keys
            if node.has_data
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what xarray sets, and asks for before it is there
            raise AttributeError(name)
        if name in self.children:
            node = self.children[name]
            return _dataset(node) if node.has_data else node
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(f"no group '{name}'; there are {', '.join(self.groups)}") from None

    def pruning(self, index: int) -> dict[str, Any]:
        """How the library prunes as one point of the sweep does.

        Parameters
        ----------
        index : int
            Of the point along the dimension ``threshold``.

        Returns
        -------
        dict
            Arguments of :meth:`bprune_hpc.BayesianNetwork.prune`.
        """
        names = ("criterion", "scope", "granularity", "pruned_weights", "prior_scale")
        rule = self["sparsity"].attrs
        found: dict[str, Any] = {name: rule[name] for name in names if name in rule}
        fraction = float(self["requested_fraction"][index])
        if np.isnan(fraction):
            found["threshold"] = float(self["sparsity/threshold"][index])
        else:
            found["fraction"] = fraction
        if rule["criterion"] == "random":
            found["seed"] = int(self.attrs["seed"])
        return found

    def chosen_pruning(self) -> dict[str, Any]:
        """The same of the point that the sweep has chosen: ``--max_accuracy_drop``, say.

        Returns
        -------
        dict
            Arguments of :meth:`BayesianNetwork.prune`.

        Raises
        ------
        ResultsError
            If none was to be chosen, or none is.
        """
        if "choice" not in self.children:
            raise ResultsError(
                "no choice was asked for; sweep with --max_accuracy_drop or --max_nll_rise"
            )
        choice = self["choice"].attrs
        if choice["index"] < 0:
            raise ResultsError(f"there is no network to give: {choice['text']}")
        return self.pruning(int(choice["index"]))


def _dataset(node: xarray.DataTree) -> xarray.Dataset:
    """A group with the labels of its own arrays, where the tree inherits those of all."""
    found = node.to_dataset()
    own = node.to_dataset(inherit=False)
    used = {*own.dims, *own.coords}
    return found.drop_vars([name for name in found.coords if name not in used])
