"""What a results file on disk means for a sweep that is to write there: go on, or refuse.

Reading the state and comparing it with what is asked for belong here; doing the rest of the work
does not (``runner.loop``).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..config.sweep_config import SweepConfig
from ..config.targets import SOFTEN
from ..errors import ResultsError
from ..files.atomic_write import Signature, signature
from ..job.provenance import SHARED_NOISE, Environment, Identity, differences
from ..metrics.threshold_selection import MODES
from ..posterior.criteria import CRITERIA
from ..posterior.thresholds import is_allowed
from ..runner.datasets import Examples, Layout, layout_of
from ..runner.network import Network
from ..runner.preparation import Joined, PreparedSweep
from ..runner.state import Progress, SweepState, ThresholdIndices, with_rest
from .file import STATE, open_results
from .identity import identity_of
from .saved_state import (
    ANEW,
    arrays_of,
    as_written,
    check_arrays,
    check_config,
    check_ends,
    check_environment,
    check_layout,
    check_positions,
    check_sums,
    json_of,
)

logger = logging.getLogger(__name__)

_FIXED = {
    "grid": "the thresholds",
    "n_draws": "the number of draws",
    "target": "--target_se",
    "limit": "the limit",
    "soften": "--soften",
}
"""What an exact choice needs to be fixed before anything is seen."""


@dataclass(frozen=True)
class Saved:
    """A results file, as far as a resume needs it.

    Attributes
    ----------
    path : str
    status : str
    identity : Identity
    environment : Environment
    config : mapping
        What was asked for.
    layout : Layout
    grids : list of tuple of float
        Thresholds (or fractions) of each sweep state.
    n_active : list of int
        Weights left at those of the first state.
    sweep_states : list of mapping of str to array
        What :meth:`bprune_hpc.runner.state.SweepState.arrays` gave.
    has_sums : bool
        Whether all of it was read; else how far each is.
    signature : Signature
        Of the file that was read.
    """

    path: str
    status: str
    identity: Identity
    environment: Environment
    config: Mapping[str, Any]
    layout: Layout
    grids: list[tuple[float, ...]]
    n_active: list[int]
    sweep_states: list[Mapping[str, AnyArray]]
    has_sums: bool
    signature: Signature | None

    @property
    def grid(self) -> tuple[float, ...]:
        """All thresholds or fractions."""
        return tuple(value for grid in self.grids for value in grid)

    @property
    def positions(self) -> list[Progress]:
        """How far each sweep state is."""
        return [(int(one["position"][0]), int(one["position"][1])) for one in self.sweep_states]

    @property
    def n_replicates(self) -> int:
        """Most replicates that any threshold has of the first pass."""
        return max(n_replicates for _, n_replicates in self.positions)

    def progress(self, draws_per_replicate: int) -> str:
        """How far it is, in words."""
        parts = []
        for grid, (n_blocks, n_replicates) in zip(self.grids, self.positions, strict=True):
            of_blocks = f" after {n_blocks} blocks of examples" if n_blocks else ""
            parts.append(
                f"{n_replicates * draws_per_replicate} draws{of_blocks} at {len(grid)} thresholds"
            )
        return ", ".join(parts)

    @property
    def has_finished_blocks(self) -> bool:
        """Whether examples are taken in blocks, and sums of some have been let go."""
        return any(n_passes > 0 for n_passes, _ in self.positions)


def state(
    sweep: PreparedSweep, sweep_states: Sequence[SweepState]
) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Arrays and attributes of ``/state``."""
    arrays = {}
    for index, sweep_state in enumerate(sweep_states):
        arrays[f"{index}/grid"] = np.array(sweep_state.thresholds.of(sweep.config.grid))
        for name, array in sweep_state.arrays().items():
            arrays[f"{index}/{name}"] = array
    attrs = {
        "identity": json.dumps(sweep.identity),
        "environment": json.dumps(sweep.environment),
        "blocks": json.dumps(layout_of(sweep.datasets)),
    }
    return arrays, attrs


def read(path: str, *, with_sums: bool = True) -> Saved | None:
    """Read what an earlier job has left; None where there is nothing.

    Parameters
    ----------
    with_sums : bool
        Without them it can be told how far the file is, and not be gone on from.

    Raises
    ------
    ResultsError
        If the file is damaged, or no sweep's.
    """
    if not Path(path).exists():
        return None
    of_file = signature(Path(path))
    try:
        with open_results(path) as file, as_written(path):
            if STATE not in file:
                raise ResultsError(f"{path}: has no state to go on from; {ANEW}")
            group = file[STATE]
            names = None if with_sums else ("grid", "position")
            sweep_states = [arrays_of(group[str(index)], names) for index in range(len(group))]
            check_positions(sweep_states)
            saved = Saved(
                path=path,
                status=str(file.attrs["status"]),
                identity=json_of(group.attrs["identity"], dict),
                environment=json_of(group.attrs["environment"], dict),
                config=json_of(file.attrs["config"], dict),
                layout=json_of(group.attrs["blocks"], list),
                grids=[tuple(float(value) for value in one.pop("grid")) for one in sweep_states],
                n_active=file["sparsity/n_active"][()].tolist() if "sparsity" in file else [],
                sweep_states=list(sweep_states),
                has_sums=with_sums,
                signature=of_file,
            )
            check_config(saved.config)
            check_environment(saved.environment)
            return saved
    except ResultsError as error:
        if "--overwrite" in str(error):
            raise
        finding = str(error).partition(";")[0]
        raise ResultsError(f"{finding}; {ANEW}") from error


def check_identity(saved: Saved, identity: Identity) -> None:
    """Refuse to go on where other numbers are asked for.

    Raises
    ------
    ResultsError
        Naming what differs.
    """
    if changes := differences(saved.identity, identity):
        way = ANEW
        before, now = (one.get("draw_noise", SHARED_NOISE) for one in (saved.identity, identity))
        if before != now:
            kind, _, block = str(before).partition(" of ")
            way = f"pass --draw_noise={kind}{f' --noise_block={block}' if block else ''} to go on"
            way += f"; or {ANEW}"
        raise ResultsError(f"{saved.path}: was made with {'; with '.join(changes)}; {way}")


def join(
    saved: Saved | None,
    config: SweepConfig,
    network: Network,
    examples: Sequence[Examples],
    draws_per_replicate: int,
) -> Joined:
    """What is asked for and what a file has, together: the request of the file that will be.

    Raises
    ------
    ResultsError
        If the file was made with something else; or was taken in blocks of examples, and they
        would have to be done again; or they are not of these examples.
    """
    identity = identity_of(config, network, examples)
    if saved is None:
        return Joined(config, identity, None)
    check_identity(saved, identity)
    with as_written(saved.path):
        check_layout(saved.layout, [len(one) for one in examples], config.batch_size)
        check_ends(saved.positions, saved.layout, draws_per_replicate, saved.config["n_draws"])
        for value in saved.grid:
            if not is_allowed(value, config.grid_kind, CRITERIA[config.criterion]):
                raise ValueError(f"'grid' has {value:g}, which is no {config.grid_kind}")
    kept = sorted(set(saved.grid) - set(config.grid))
    if kept:
        logger.info("%s: keeps %s, which it already has", saved.path, _listed(kept, config))
    new = sorted(set(config.grid) - set(saved.grid))
    if new:
        logger.info("%s: does not have %s yet; computed first", saved.path, _listed(new, config))
    descending = config.grid_kind == "threshold" and CRITERIA[config.criterion].keeps == "below"
    grid = tuple(sorted({*config.grid, *saved.grid}, reverse=descending))
    n_draws, n_saved = config.n_draws, saved.n_replicates * draws_per_replicate
    if saved.has_finished_blocks:
        n_saved = int(saved.config["n_draws"])
        if n_draws > n_saved:
            raise ResultsError(
                f"{saved.path}: was taken in blocks of examples, whose sums of {n_saved} draws are "
                f"not kept, so that draws cannot be added; {ANEW}"
            )
        if config.save_probabilities and not saved.config["save_probabilities"]:
            raise ResultsError(
                f"{saved.path}: was taken in blocks of examples, whose probabilities were not "
                f"kept; leave --save_probabilities out, or {ANEW}"
            )
    if n_saved > n_draws:
        logger.info("%s: keeps the %d draws that it already has", saved.path, n_saved)
        n_draws = n_saved
    config = dataclasses.replace(config, grid=grid, n_draws=n_draws)
    changed = _changed(saved, config)
    if changed and config.limit is not None and config.choice == "exact":
        raise ResultsError(
            f"{saved.path}: had results before {' and '.join(changed)} changed, and --choice=exact "
            f"is of what is fixed beforehand; pass --choice=asymptotic, or {ANEW}"
        )
    config = dataclasses.replace(config, extended=bool(changed))
    return Joined(config, identity, saved.layout)


def _changed(saved: Saved, config: SweepConfig) -> list[str]:
    """What a choice rests on and is not as it was when a file first had results."""
    if saved.config.get("extended"):
        return ["what was asked for"]
    now = json.loads(config.to_json())
    before = {"soften": SOFTEN, **saved.config}
    return [words for name, words in _FIXED.items() if before[name] != now[name]]


def _listed(values: Sequence[float], config: SweepConfig) -> str:
    return f"{config.grid_kind} {', '.join(f'{value:g}' for value in values)}"


def sweep_states_of(saved: Saved | None, sweep: PreparedSweep) -> list[SweepState]:
    """States of every threshold of the grid: of the file, and an empty one for the rest.

    Raises
    ------
    ResultsError
        If the file's are not what such a sweep writes, or are of other masks.
    """
    task, size = sweep.network.task, sweep.plan.draws_per_replicate
    states: list[SweepState] = []
    if saved is not None:
        _check_masks(saved, sweep)
        everything = zip(saved.grids, saved.positions, saved.sweep_states, strict=True)
        for grid, position, arrays in everything:
            thresholds = ThresholdIndices.find(grid, sweep.config.grid)
            if not saved.has_sums:
                states.append(SweepState(thresholds, *position))
                continue
            with as_written(saved.path):
                check_arrays(arrays, len(thresholds), position, sweep)
                states.append(SweepState.from_arrays(thresholds, arrays, task, size))
                check_sums(states[-1], sweep)
    return with_rest(states, len(sweep.config.grid))


def _check_masks(saved: Saved, sweep: PreparedSweep) -> None:
    """Refuse sums of a network that the rule would not make any more."""
    grid, config = saved.grids[0], sweep.config
    now = [mask.n_active for mask in ThresholdIndices.find(grid, config.grid).of(sweep.masks)]
    for value, before, here in zip(grid, saved.n_active, now, strict=False):
        if before != here:
            raise ResultsError(
                f"{saved.path}: says that {before} weights stay at {config.grid_kind} {value:g}, "
                f"and the same rule leaves {here}; {ANEW}"
            )


def is_the_same(saved: Saved, config: SweepConfig) -> bool:
    """Whether a complete file holds what is asked for, and was asked for in the same way."""
    if saved.status != "complete":
        return False
    now = json.loads(config.to_json())
    before = {
        "choose": None, "choice": MODES[0], "soften": SOFTEN, "n_comparisons": 1, **saved.config
    }  # fmt: skip
    names: tuple[str, ...] = ("grid", "n_draws", "target", "limit", "choose", "save_probabilities")
    names += ("choice", "soften") if config.limit is not None else ()
    names += ("n_comparisons",) if config.limit is not None or config.choose is not None else ()
    return all(before[name] == now[name] for name in names)
