"""Everything in a results file that figures and reports are made of, read once.

What belongs here: reading, and what follows from it in words. What does not: drawing
(``results.figure``), tables (``results.table``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .._typing import Float64Array
from ..posterior.criteria import CRITERIA
from .file import STATE, open_results
from .table import ResultsTable, read_table

_GROUPS = ("calibration", "examples", "free_energy", "ood", "risk_coverage", "sparsity")
_MOST_EXAMPLES = 10**7  # numbers of single examples that are read for a histogram


@dataclass(frozen=True)
class Swept:
    """A sweep, as its file has it.

    Attributes
    ----------
    path : str
    label : str
        What to call it beside others.
    table : ResultsTable
    thresholds : float64 array, shape (n_thresholds,)
    groups : mapping of str to mapping of str to array
        Datasets by their names, of the groups that figures are made of.
    snr : mapping of str to (counts, edges)
        Histogram of each layer's signal-to-noise ratios, before pruning.
    group_attrs : mapping of str to mapping of str to what HDF5 holds
        Attributes of these groups.
    attrs : mapping of str to what HDF5 holds
    identity : mapping of str to str
    layers : list of str
    """

    path: str
    label: str
    table: ResultsTable
    thresholds: Float64Array
    groups: Mapping[str, Mapping[str, NDArray[Any]]]
    group_attrs: Mapping[str, Mapping[str, Any]]
    snr: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
    attrs: Mapping[str, Any]
    identity: Mapping[str, Any]
    layers: list[str]

    @property
    def weights_left(self) -> Float64Array:
        """Fraction of the weights that stay, shape (n_thresholds,)."""
        return 1 - self.table.pruned_fraction

    @property
    def chosen(self) -> int | None:
        """Index of the threshold that was chosen."""
        choice = self.table.choice
        index = -1 if choice is None else int(choice.attrs["index"])
        return None if index < 0 else index

    @property
    def shown(self) -> list[int]:
        """Up to three thresholds to look at closely: the first, the chosen one, the last."""
        last = len(self.thresholds) - 1
        return sorted({0, last} if self.chosen is None else {0, self.chosen, last})

    def point(self, index: int) -> str:
        """A threshold in words: ``SNR <= 0.5``, or ``unpruned``."""
        if self.table.pruned_fraction[index] == 0:
            return "unpruned"
        return f"{100 * self.table.pruned_fraction[index]:.4g} % pruned"

    @property
    def title(self) -> str:
        """Case and criterion."""
        name = Path(str(self.attrs.get("checkpoint", ""))).name
        config = self.config
        scope = "" if config.get("scope", "global") == "global" else ", within each layer"
        unit = config.get("granularity", "weight")
        criterion = str(config.get("criterion", "snr"))
        score = CRITERIA[criterion].label if criterion in CRITERIA else criterion
        return f"{name}: {unit}s pruned by {score}{scope}"

    @property
    def footer(self) -> str:
        """Examples, draws and seed."""
        parts = [("n_examples", "{:,} examples"), ("n_draws", "{:,} posterior draws"),
                 ("seed", "seed {}")]  # fmt: skip
        return ", ".join(
            text.format(int(self.attrs[name])) for name, text in parts if name in self.attrs
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """What the sweep was asked for."""
        found: Mapping[str, Any] = json.loads(str(self.attrs.get("config", "{}")))
        return found


def read_swept(path: str) -> Swept:
    """Read a results file for figures and reports.

    Raises
    ------
    ResultsError
        If there is no such file, or it is not a sweep's.
    """
    table = read_table(path)
    with open_results(path) as file:
        groups = {name: _datasets(file[name]) for name in _GROUPS if name in file}
        group_attrs = {name: dict(file[name].attrs) for name in groups}
        layers = [_text(name) for name in groups.get("sparsity", {}).get("layer", ())]
        snr = {}
        for layer in layers:
            if f"snr/{layer}/counts" in file:
                of_one = file[f"snr/{layer}"]
                snr[layer] = of_one["counts"][()], of_one["edges"][()]
        identity = json.loads(file[STATE].attrs["identity"]) if STATE in file else {}
        return Swept(
            path, Path(path).stem, table, file["threshold"][()], groups, group_attrs, snr,
            dict(file.attrs), identity, layers,
        )  # fmt: skip


def read_all(paths: Sequence[str]) -> list[Swept]:
    """Read results files that are shown together: called by their names, or paths if those clash.

    Raises
    ------
    ResultsError
        If there is no such file, or it is not a sweep's.
    """
    sweeps = [read_swept(path) for path in paths]
    if len({one.label for one in sweeps}) == len(sweeps):
        return sweeps
    return [replace(one, label=str(Path(one.path).with_suffix(""))) for one in sweeps]


def comparison_fault(sweeps: list[Swept]) -> str:
    """Why sweeps cannot be compared, in words; empty where they can."""
    first = sweeps[0]
    for other in sweeps[1:]:
        for name, what in (("task", "task"), ("data", "test set")):
            if first.identity.get(name) != other.identity.get(name):
                return f"{first.label} and {other.label} have not the same {what}"
    return ""


def _datasets(group: h5py.Group) -> dict[str, NDArray[Any]]:
    return {
        name: item[()]
        for name, item in group.items()
        if isinstance(item, h5py.Dataset) and item.ndim < 3 and item.size <= _MOST_EXAMPLES
    }


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """Those that are finite, in one axis."""
    flat = np.ravel(values)
    return flat[np.isfinite(flat)]
