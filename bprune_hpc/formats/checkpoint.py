"""The user's own format with the pruned weights in place, for the script that has trained it.

Means become 0 and scales as small as the graph's own function of its variables can make them:
TFP's softplus has 1.19e-7 added to it, which is left. All else is as it was stored, slots of
optimizers apart. ``mask.npz`` beside it says which weights stay, by tensor, for whoever trains on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.rewriting import open_again, place_in, rewrite
from ..errors import ExportError
from ..evaluators.graph import GraphNetwork
from ..graph.lifting import Lifted
from ..graph.parametrization import SharedError
from ..graph.source import GraphSource
from ..posterior.mean_field import Posterior
from .pruned_network import PrunedNetwork
from .reference import Reference, compare, outputs_of_draws, with_scale

MASK = "mask.npz"


class Checkpoint:
    """See :class:`bprune_hpc.formats.interface.Format`."""

    name = "checkpoint"
    place = "checkpoint"

    def why_not(self, network: PrunedNetwork) -> str | None:
        """See :class:`Format`."""
        try:
            _rewritten(network)
        except SharedError as error:
            said = str(error).removeprefix(f"{network.source.path}: ")
            return f"{said}; bundle and savedmodel hold means and scales themselves"
        return None

    def write(self, network: PrunedNetwork, directory: Path) -> None:
        """See :class:`Format`."""
        home = directory / self.place
        home.mkdir()
        new = _rewritten(network)
        rewrite(network.opening, new.source, new.values, home, keeps_slots=network.keeps_slots)
        masks: dict[str, Any] = dict(network.mask.kept)
        np.savez_compressed(home / MASK, **masks)

    def check(
        self, network: PrunedNetwork, directory: Path, reference: Reference
    ) -> dict[str, Any]:
        """See :class:`Format`."""
        home, opening = directory / self.place, network.opening
        source = _rewritten(network).source
        lifted = opening.lift(open_again(opening, source, home))
        _check_weights(network, lifted)
        _rewritten.cache_clear()
        with GraphNetwork(
            lifted.graph, lifted.fixed, *opening.threads, with_scale=with_scale(network.task)
        ) as function:
            sampling = network.sampling
            mean = outputs_of_draws(function, lifted.posterior, sampling, reference.x, [None])[0]
            drawn = outputs_of_draws(function, lifted.posterior, sampling, reference.x, [0, 1])
        off_by = compare(mean, reference.mean_outputs, f"--formats={self.name}")
        expected = reference.sample(reference.x, [0, 1])
        largest = float(np.abs(expected).max(initial=0)) or 1.0
        return {
            "file": place_in(home, source).relative_to(directory).as_posix(),
            "difference": {
                "mean": off_by,
                "draws": float(np.abs(drawn - expected).max()) / largest,
            },
            "scale_left_of_pruned": _largest_scale(network, lifted.posterior),
        }


@dataclass(frozen=True)
class _Rewritten:
    """What was opened, and new values of variables."""

    source: GraphSource
    values: Mapping[str, NDArray[Any]]


@lru_cache(maxsize=1)
def _rewritten(network: PrunedNetwork) -> _Rewritten:
    """The network's source, and the variables that make its pruned weights zero.

    Raises
    ------
    SharedError
        If they cannot be made so one by one.
    """
    source = network.opening.open()
    lifted = network.opening.lift(source)
    parametrization = lifted.parametrization
    pruned = {name: ~kept for name, kept in network.mask.kept.items()}
    values = parametrization.zeroed(source.read(parametrization.variables), pruned)
    both = sorted(set(values) & set(lifted.fixed))
    if both:
        raise SharedError(
            f"'{both[0]}' is also used without its noise, where pruning leaves it as it was"
        )
    return _Rewritten(source, values)


def _check_weights(network: PrunedNetwork, lifted: Lifted) -> None:
    """Compare what was read again with the pruned posterior, bit by bit."""
    expected, found = network.unpruned.posterior, lifted.posterior
    where = f"--formats={Checkpoint.name}"
    if found.names != expected.names:
        raise ExportError(f"{where}: has other mean-field tensors: {', '.join(found.names)}")
    for name, kept in network.mask.kept.items():
        for what, old, new in (
            ("mean", expected.loc[name], found.loc[name]),
            ("scale", expected.scale[name], found.scale[name]),
        ):
            if not np.array_equal(old[kept], new[kept]):
                raise ExportError(f"{where}: the {what} of kept weights of '{name}' has changed")
        if np.any(found.loc[name][~kept]):
            raise ExportError(f"{where}: the mean of pruned weights of '{name}' is not 0")
    for name, value in network.fixed.items():
        if not np.array_equal(value, lifted.fixed[name], equal_nan=value.dtype.kind == "f"):
            raise ExportError(f"{where}: '{name}' has changed, which has no posterior")


def _largest_scale(network: PrunedNetwork, posterior: Posterior) -> float:
    return max(
        float(posterior.scale[name][~kept].max(initial=0))
        for name, kept in network.mask.kept.items()
    )
