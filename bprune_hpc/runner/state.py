"""What rank 0 keeps of the work that is done: exact sums, and how far they go.

A sweep state is of some thresholds that are level. Thresholds that were added later have one of
their own until they have caught up. Nothing here depends on ranks or on the rounds in which the
work was done. What is made of the sums does not belong here (``runner.statistics``), nor which work
is next (``runner.scheduler``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accumulators.binned import BinnedSums
from ..accumulators.classification import DrawSums, GroupSums
from ..metrics.tasks import AnyDrawSums, AnySums, Task
from ..posterior.draws import MEAN
from .nonfinite import Fault, Faults

Arrays = dict[str, NDArray[Any]]

Position = tuple[int, int]
"""Blocks of examples that are finished, and units of draws done of the block in progress."""


@dataclass
class SweepState:
    """The sums of some thresholds that are level.

    Attributes
    ----------
    rows : tuple of int
        Which thresholds of the grid, ascending.
    n_passes : int
        Passes that are finished. A pass is a block of examples, or all sets of examples together.
    n_units : int
        Units done of the pass in progress.
    sums : list of dict of group to AnySums
        Of each block of the pass in progress.
    draws : dict of int to AnyDrawSums
        Sums of each draw over the examples of the pass in progress, by index of the set.
    finished : dict of int to Arrays
        Statistics of the examples of finished passes, by index of the set: arrays with thresholds
        along the first axis.
    finished_draws : dict of int to AnyDrawSums
    faults : Faults
        Thresholds that failed, in any pass.
    """

    rows: tuple[int, ...]
    n_passes: int = 0
    n_units: int = 0
    sums: list[dict[int, AnySums]] = field(default_factory=list)
    draws: dict[int, AnyDrawSums] = field(default_factory=dict)
    finished: dict[int, Arrays] = field(default_factory=dict)
    finished_draws: dict[int, AnyDrawSums] = field(default_factory=dict)
    faults: Faults = field(default_factory=dict)

    @property
    def position(self) -> Position:
        """How far it is."""
        return self.n_passes, self.n_units

    def sums_of(self, index: int) -> dict[int, AnySums]:
        """Sums of one block of the pass in progress, to be added to."""
        while len(self.sums) <= index:
            self.sums.append({})
        return self.sums[index]

    def add_draws(self, dataset: int, draws: AnyDrawSums) -> None:
        """Put the sums of further draws behind those that are there."""
        before = self.draws.get(dataset)
        self.draws[dataset] = draws if before is None else _joined([before, draws], axis=1)

    def end_pass(self, finished: Mapping[int, Arrays]) -> None:
        """Go on to the next pass: exact sums are let go, their statistics stay.

        Parameters
        ----------
        finished : mapping of int to Arrays
            Statistics of all examples so far, of each set that was in the pass.
        """
        self.finished |= finished
        for dataset, draws in self.draws.items():
            before = self.finished_draws.get(dataset)
            self.finished_draws[dataset] = draws if before is None else _added(before, draws)
        self.n_passes, self.n_units, self.sums, self.draws = self.n_passes + 1, 0, [], {}

    def arrays(self) -> Arrays:
        """Everything, by name, as it is stored; ``rows`` apart, which are of this sweep alone."""
        out: Arrays = {"position": np.array(self.position)}
        for index, of_block in enumerate(self.sums):
            for group, sums in of_block.items():
                _store(out, f"sums/{index}/{'mean' if group == MEAN else group}", sums)
        for dataset, draws in self.draws.items():
            _store(out, f"draws/{dataset}", draws)
        for dataset, columns in self.finished.items():
            out |= {f"finished/{dataset}/{name}": array for name, array in columns.items()}
        for dataset, draws in self.finished_draws.items():
            _store(out, f"finished_draws/{dataset}", draws)
        if self.faults:
            out["faults/at"] = np.array(
                [(self.rows.index(row), *fault.place) for row, fault in self.faults.items()]
            )
            out["faults/layer"] = np.array([one.layer.encode() for one in self.faults.values()])
        return out

    @classmethod
    def from_arrays(
        cls, rows: Sequence[int], arrays: Mapping[str, NDArray[Any]], task: Task, size: int
    ) -> SweepState:
        """A sweep state from what :meth:`arrays` gave.

        Parameters
        ----------
        size : int
            Draws of a unit.
        """
        n_passes, n_units = (int(number) for number in arrays["position"])
        sweep_state = cls(tuple(rows), n_passes, n_units)
        tree: dict[str, Any] = {}
        for name, array in arrays.items():
            *path, last = name.split("/")
            at = tree
            for step in path:
                at = at.setdefault(step, {})
            at[last] = array
        for index in range(len(tree.get("sums", {}))):
            of_block = sweep_state.sums_of(index)
            for name, stored in tree["sums"][str(index)].items():
                empty = task.sums(0, 0, size)
                of_block[MEAN if name == "mean" else int(name)] = _restored(empty, stored)
        for kind, into in (
            ("draws", sweep_state.draws),
            ("finished_draws", sweep_state.finished_draws),
        ):
            for dataset, stored in tree.get(kind, {}).items():
                into[int(dataset)] = _restored(task.draw_sums(0, 0), stored)
        for dataset in tree.get("finished", {}):
            prefix = f"finished/{dataset}/"
            sweep_state.finished[int(dataset)] = {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
        stored = tree.get("faults", {"at": (), "layer": ()})
        for numbers, layer in zip(stored["at"], stored["layer"], strict=True):
            place, draw, dataset, example = (int(number) for number in numbers)
            sweep_state.faults[sweep_state.rows[place]] = Fault(
                draw, dataset, example, layer.decode()
            )
        return sweep_state


def merged(sweep_states: Sequence[SweepState]) -> SweepState:
    """One sweep state of all thresholds of several that are level, in the order of the grid."""
    first = sweep_states[0]
    if len(sweep_states) == 1:
        return first
    if any(sweep_state.position != first.position for sweep_state in sweep_states):
        raise ValueError("only what is level can be merged")
    rows = np.concatenate([sweep_state.rows for sweep_state in sweep_states])
    order = np.argsort(rows)

    def together(parts: Sequence[Any]) -> Any:
        return _joined(parts, axis=0, order=order)

    return SweepState(
        tuple(int(row) for row in rows[order]),
        *first.position,
        sums=[
            {
                group: together([one.sums[index][group] for one in sweep_states])
                for group in of_block
            }
            for index, of_block in enumerate(first.sums)
        ],
        draws={
            dataset: together([one.draws[dataset] for one in sweep_states])
            for dataset in first.draws
        },
        finished={
            dataset: {
                name: together([one.finished[dataset][name] for one in sweep_states])
                for name in columns
                if all(name in one.finished[dataset] for one in sweep_states)
            }
            for dataset, columns in first.finished.items()
        },
        finished_draws={
            dataset: together([one.finished_draws[dataset] for one in sweep_states])
            for dataset in first.finished_draws
        },
        faults={row: fault for one in sweep_states for row, fault in one.faults.items()},
    )


def _arrays_of(sums: Any) -> list[NDArray[Any]]:
    """The arrays that sums consist of, with thresholds along the first axis."""
    if isinstance(sums, np.ndarray):
        return [sums]
    if isinstance(sums, DrawSums):
        return [np.moveaxis(sums.packed, 0, 2)]  # then draws are the second axis of all
    if isinstance(sums, GroupSums):
        return [sums.buffer]
    return [sums.sums.top, sums.sums.bins]


def _like(sums: Any, arrays: Sequence[NDArray[Any]]) -> Any:
    """Sums of the same kind of other arrays; a group's are changed in place."""
    if isinstance(sums, np.ndarray):
        return arrays[0]
    if isinstance(sums, DrawSums):
        return DrawSums(np.ascontiguousarray(np.moveaxis(arrays[0], 2, 0)))
    if isinstance(sums, GroupSums):
        sums.buffer = arrays[0]
        return sums
    binned = BinnedSums(())
    binned.top, binned.bins = arrays
    sums.sums = binned
    return sums


def _joined(parts: Sequence[Any], axis: int, order: NDArray[np.intp] | None = None) -> Any:
    columns = zip(*(_arrays_of(part) for part in parts), strict=True)
    arrays = [np.concatenate(column, axis=axis) for column in columns]
    return _like(parts[0], arrays if order is None else [array[order] for array in arrays])


def _added(one: AnyDrawSums, other: AnyDrawSums) -> AnyDrawSums:
    if isinstance(one, DrawSums):
        assert isinstance(other, DrawSums)
        return DrawSums(one.packed + other.packed)
    assert not isinstance(other, DrawSums)
    one.sums.add_sums(slice(None), *other.sums.arrays)
    return one


def _store(out: Arrays, name: str, sums: Any) -> None:
    arrays = _arrays_of(sums)
    names = [name] if len(arrays) == 1 else [f"{name}/top", f"{name}/bins"]
    out |= dict(zip(names, arrays, strict=True))


def _restored(empty: Any, stored: Any) -> Any:
    return _like(empty, [stored["top"], stored["bins"]] if isinstance(stored, dict) else [stored])
