"""What rank 0 keeps of the work that is done: exact sums, and how far they go.

A sweep state is of some thresholds that are level. Thresholds that were added later have one of
their own until they have caught up. A threshold has two numbers, which meet in
:class:`ThresholdIndices` alone: its ``threshold_index`` in the grid, and its ``position`` in a
state, and so in the state's sums, supersteps and partitions. Nothing here depends on ranks or on
the supersteps in which the work was done. What is made of the sums does not belong here
(``runner.statistics``), nor which work is next (``runner.scheduler``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..accumulators.binned import BinnedSums
from ..accumulators.classification import DrawSums, GroupSums
from ..metrics.tasks import AnyDrawSums, AnySums, Task
from ..posterior.draws import MEAN
from .nonfinite import Fault, Faults

Arrays = dict[str, NDArray[Any]]

Progress = tuple[int, int]
"""Passes that are finished, and replicates done of the pass in progress."""

SumsOf = Callable[[int], dict[int, AnySums]]
"""Gives a rank's sums of a block of the pass in progress, by jackknife group, to be added to."""

T = TypeVar("T")


class ThresholdIndices(tuple[int, ...]):
    """Some thresholds of the grid: the threshold index at each position; of a state, ascending."""

    __slots__ = ()

    @classmethod
    def find(cls, values: Sequence[float], grid: Sequence[float]) -> ThresholdIndices:
        """Those of thresholds (or fractions) that are in a grid."""
        index_of = {value: threshold_index for threshold_index, value in enumerate(grid)}
        return cls(index_of[value] for value in values)

    def of(self, grid: Sequence[T]) -> list[T]:
        """By position, what there is by threshold index."""
        return [grid[threshold_index] for threshold_index in self]

    def by_index(self, by_position: Mapping[int, T]) -> dict[int, T]:
        """By threshold index, what there is by position."""
        return {self[position]: value for position, value in by_position.items()}

    def by_position(self, by_index: Mapping[int, T]) -> dict[int, T]:
        """By position, what there is by threshold index."""
        return {self.index(threshold_index): value for threshold_index, value in by_index.items()}


@dataclass
class SweepState:
    """The sums of some thresholds that are level.

    Attributes
    ----------
    thresholds : ThresholdIndices
        Or any sequence of threshold indices, which becomes one.
    n_passes : int
        Passes that are finished. A pass is a block of examples, or all sets of examples together.
    n_replicates : int
        Replicates done of the pass in progress.
    sums : list of dict of jackknife group to AnySums
        Of each block of the pass in progress.
    draws : dict of int to AnyDrawSums
        Sums of each draw over the examples of the pass in progress, by index of the set.
    finished : dict of int to Arrays
        Statistics of the examples of finished passes, by index of the set: arrays with thresholds
        along the first axis.
    finished_draws : dict of int to AnyDrawSums
    faults : Faults
        Thresholds that failed, in any pass, by threshold index.
    """

    thresholds: ThresholdIndices
    n_passes: int = 0
    n_replicates: int = 0
    sums: list[dict[int, AnySums]] = field(default_factory=list)
    draws: dict[int, AnyDrawSums] = field(default_factory=dict)
    finished: dict[int, Arrays] = field(default_factory=dict)
    finished_draws: dict[int, AnyDrawSums] = field(default_factory=dict)
    faults: Faults = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.thresholds = ThresholdIndices(self.thresholds)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self.n_passes, self.n_replicates

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
        self.n_passes, self.n_replicates, self.sums, self.draws = self.n_passes + 1, 0, [], {}

    def arrays(self) -> Arrays:
        """All but the thresholds, by name, as it is stored."""
        out: Arrays = {"position": np.array(self.progress)}
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
            faults = self.thresholds.by_position(self.faults)
            out["faults/at"] = np.array(
                [(position, *fault.place) for position, fault in faults.items()]
            )
            out["faults/layer"] = np.array([one.layer.encode() for one in faults.values()])
        return out

    @classmethod
    def from_arrays(
        cls, thresholds: ThresholdIndices, arrays: Mapping[str, NDArray[Any]], task: Task, size: int
    ) -> SweepState:
        """A sweep state from what :meth:`arrays` gave.

        Parameters
        ----------
        size : int
            Draws of a replicate.
        """
        n_passes, n_replicates = (int(number) for number in arrays["position"])
        sweep_state = cls(thresholds, n_passes, n_replicates)
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
        faults = {
            int(position): Fault(int(draw), int(dataset), int(example), layer.decode())
            for (position, draw, dataset, example), layer in zip(
                stored["at"], stored["layer"], strict=True
            )
        }
        sweep_state.faults = sweep_state.thresholds.by_index(faults)
        return sweep_state


def with_rest(sweep_states: Sequence[SweepState], n_thresholds: int) -> list[SweepState]:
    """The sweep states, and one that is at its beginning of all other thresholds of the grid."""
    there = {index for sweep_state in sweep_states for index in sweep_state.thresholds}
    rest = ThresholdIndices(index for index in range(n_thresholds) if index not in there)
    return [*sweep_states, SweepState(rest)] if rest else list(sweep_states)


def merged(sweep_states: Sequence[SweepState]) -> SweepState:
    """One sweep state of all thresholds of several that are level, in the order of the grid."""
    first = sweep_states[0]
    if len(sweep_states) == 1:
        return first
    if any(sweep_state.progress != first.progress for sweep_state in sweep_states):
        raise ValueError("only what is level can be merged")
    thresholds = np.concatenate([sweep_state.thresholds for sweep_state in sweep_states])
    order = np.argsort(thresholds)

    def joined(parts: Sequence[Any]) -> Any:
        return _joined(parts, axis=0, order=order)

    return SweepState(
        ThresholdIndices(thresholds[order].tolist()),
        *first.progress,
        sums=[
            {group: joined([one.sums[index][group] for one in sweep_states]) for group in of_block}
            for index, of_block in enumerate(first.sums)
        ],
        draws={
            dataset: joined([one.draws[dataset] for one in sweep_states]) for dataset in first.draws
        },
        finished={
            dataset: {
                name: joined([one.finished[dataset][name] for one in sweep_states])
                for name in columns
                if all(name in one.finished[dataset] for one in sweep_states)
            }
            for dataset, columns in first.finished.items()
        },
        finished_draws={
            dataset: joined([one.finished_draws[dataset] for one in sweep_states])
            for dataset in first.finished_draws
        },
        faults={index: fault for one in sweep_states for index, fault in one.faults.items()},
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
