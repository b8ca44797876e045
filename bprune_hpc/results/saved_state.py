"""Whether the state in a results file is what a sweep writes: else it is not gone on from.

A digest tells that a file is as it was written, not who wrote it: what another program has put
there, under a valid digest, is refused here in one line before anything is made of it. Comparing a
state with what is asked for does not belong here (``results.resume``).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..accumulators.classification import MAX_DRAWS
from ..errors import ResultsError, damage
from ..posterior.draws import MEAN, N_GROUPS
from ..runner.datasets import Layout
from ..runner.preparation import PreparedSweep
from ..runner.state import Arrays, SweepState, ThresholdIndices
from ..runner.statistics import n_blocks_done

ANEW = "pass --overwrite or another --output"

_CONFIG: Mapping[str, type | tuple[type, ...]] = {
    "grid": list,
    "n_draws": int,
    "target": (dict, type(None)),
    "limit": (dict, type(None)),
    "save_probabilities": bool,
}
"""What a resume reads of the configuration."""

_OPTIONAL = frozenset({"faults/at", "faults/layer"})
_PROBABILITIES = "probabilities"  # kept or not, as memory allowed


@contextlib.contextmanager
def as_written(path: str) -> Iterator[None]:
    """Refuse a file in one line, whatever is found to be wrong with its state.

    Raises
    ------
    ResultsError
    """
    with damage(
        lambda _, why: ResultsError(
            f"{path}: its state is not what a sweep writes ({why}); {ANEW}"
        ),
        accepts=(MemoryError,),
    ):
        yield


def arrays_of(group: Any, names: Sequence[str] | None = None) -> Arrays:
    """Data sets of a group of the file and of all groups in it, by their paths; or some of them.

    Raises
    ------
    ValueError
        If one is a link, or does not lie in the file byte by byte, as it is written.
    """
    import h5py

    arrays: Arrays = {}
    for name in names or group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"'{name}' is missing, or a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            if item.name == group.name:  # in itself
                raise ValueError(f"'{name}' is a link")
            arrays |= {f"{name}/{inner}": array for inner, array in arrays_of(item).items()}
        elif item.external or item.is_virtual or item.id.get_storage_size() != item.nbytes:
            raise ValueError(f"'{name}' is not stored as it is written")
        else:
            arrays[name] = item[()]
    return arrays


def json_of(text: Any, kind: type) -> Any:
    """A JSON text of an object (``dict``) or an array (``list``)."""
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(f"'{str(text)[:40]}' is no {kind.__name__}")
    return value


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError where something that a resume reads is absent, or of another type."""
    for name, kind in _CONFIG.items():
        if name not in config or not isinstance(config[name], kind):
            raise ValueError(f"its configuration has no '{name}', or another kind of it")


def check_environment(environment: Mapping[str, Any]) -> None:
    """Raise ValueError unless each fact has a list of values."""
    for name, values in environment.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"'{name}' of its environment is {values!r}")


def check_positions(sweep_states: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError unless each state says how far which thresholds are, all of them once."""
    if not sweep_states:
        raise ValueError("it has no sums")
    for one in sweep_states:
        position, grid = one["position"], one["grid"]
        if position.shape != (2,) or position.dtype.kind != "i" or min(position) < 0:
            raise ValueError(f"'position' is {position.tolist()}, not two numbers")
        if grid.ndim != 1 or not grid.size or grid.dtype != np.float64 or np.isnan(grid).any():
            raise ValueError("'grid' is no list of numbers")
    values = np.concatenate([one["grid"] for one in sweep_states])
    if len(np.unique(values)) < len(values):
        raise ValueError("a value of 'grid' stands there twice")


def check_ends(
    positions: Sequence[tuple[int, int]], layout: Layout, size: int, n_draws: int
) -> None:
    """Raise ValueError where a sweep state is further than to the end of what was asked for.

    Parameters
    ----------
    layout : Layout
        Which :func:`check_layout` has passed.
    size : int
        Draws of a replicate.
    n_draws : int
        That were asked for.
    """
    n_blocks = sum(map(len, layout))
    n_most = n_blocks if n_blocks > len(layout) else 0  # passes that are finished
    for n_passes, n_replicates in positions:
        is_over = n_passes == n_most > 0
        if n_passes > n_most or not n_replicates * size <= (0 if is_over else n_draws) <= MAX_DRAWS:
            raise ValueError(f"'position' is {[n_passes, n_replicates]}, beyond the end")


def check_layout(layout: Layout, n_examples: Sequence[int], batch_size: int) -> None:
    """Raise ValueError unless blocks of whole batches cover all examples of each set, in order."""
    if len(layout) != len(n_examples):
        raise ValueError(f"it is of {len(layout)} sets of examples, not {len(n_examples)}")
    for blocks, number in zip(layout, n_examples, strict=True):
        ends = [0]
        for start, stop in blocks:
            is_whole = type(start) is type(stop) is int and start % batch_size == 0
            if start != ends[-1] or not is_whole or not start < stop:
                raise ValueError(f"its blocks of examples are {blocks}")
            ends.append(stop)
        if ends[-1] != number:
            raise ValueError(f"its blocks of examples are {blocks}, of {number} examples")


def check_arrays(
    arrays: Mapping[str, AnyArray],
    n_rows: int,
    position: tuple[int, int],
    sweep: PreparedSweep,
) -> None:
    """Raise ValueError unless a sweep state's arrays are those of a sweep that is so far.

    Parameters
    ----------
    n_rows : int
        Thresholds of the sweep state.
    position : tuple of int
        See :data:`bprune_hpc.runner.state.Progress`.
    """
    like = _without_thresholds(position, sweep)
    for name in like.keys() | arrays.keys():
        if name in _OPTIONAL or (name.endswith(f"/{_PROBABILITIES}") and name not in arrays):
            continue
        if name not in arrays or name not in like:
            raise ValueError(f"'{name}' {'has no place there' if name in arrays else 'is missing'}")
        array, wanted = arrays[name], like[name]
        shape = wanted.shape if name == "position" else (n_rows, *wanted.shape[1:])
        if array.shape != shape or array.dtype != wanted.dtype:
            raise ValueError(
                f"'{name}' is {array.dtype} of shape {array.shape}, not {wanted.dtype} of {shape}"
            )
    _check_faults(arrays, n_rows)


def _without_thresholds(position: tuple[int, int], sweep: PreparedSweep) -> Arrays:
    """The arrays of a state that is so far, for no thresholds: their names, types and shapes."""
    task, size, (n_passes, n_replicates) = (
        sweep.network.task,
        sweep.plan.draws_per_replicate,
        position,
    )
    sweep_state = SweepState(ThresholdIndices(), n_passes, n_replicates)
    if n_replicates:
        for index, (_, block) in enumerate(sweep.kept(n_passes)):
            for group in (MEAN, *range(min(N_GROUPS, n_replicates))):
                sweep_state.sums_of(index)[group] = task.sums(0, len(block), size)
        for dataset_index, _ in sweep.passes[n_passes]:
            sweep_state.draws[dataset_index] = task.draw_sums(0, n_replicates * size)
    for index, dataset in enumerate(sweep.datasets):
        n_done, plan = n_blocks_done(sweep, sweep_state, index), dataset.plan
        if not n_done:
            continue
        sweep_state.finished_draws[index] = task.draw_sums(0, plan.n_draws)
        if not dataset.keeps_examples:
            continue
        label = dataset.summed_label[: plan.blocks[n_done - 1].stop]
        groups = (MEAN, *range(len(plan.group_sizes)))
        statistics: Any = task.statistics(plan, len(label), True)
        statistics.add_block({group: task.sums(0, len(label), size) for group in groups}, label)
        sweep_state.finished[index] = statistics.columns()
    return sweep_state.arrays()


def _check_faults(arrays: Mapping[str, AnyArray], n_rows: int) -> None:
    if not _OPTIONAL & arrays.keys():
        return
    at, layer = arrays["faults/at"], arrays["faults/layer"]
    if at.dtype.kind != "i" or at.shape != (len(layer), 4) or layer.dtype.kind != "S":
        raise ValueError("'faults' are no places and operations")
    rows = at[:, 0]
    if len(np.unique(rows)) < len(rows) or not ((rows >= 0) & (rows < n_rows)).all():
        raise ValueError("'faults' are of thresholds that there are not")


def check_sums(sweep_state: SweepState, sweep: PreparedSweep) -> None:
    """Raise ValueError where no draws can have given the sums, as they are negative, or too large.

    Parameters
    ----------
    sweep_state : SweepState
        Of arrays that :func:`check_arrays` has passed.
    """
    size = sweep.plan.draws_per_replicate
    sound = np.array([index not in sweep_state.faults for index in sweep_state.thresholds])
    for of_block in sweep_state.sums:
        for group, sums in of_block.items():
            n_replicates = len(range(group, sweep_state.n_replicates, N_GROUPS))
            if not sums.are_possible(sound, 1 if group == MEAN else n_replicates * size):
                raise ValueError(f"no draws have the sums of group {group}")
    for draws in (sweep_state.draws, sweep_state.finished_draws):
        for index, of_draws in draws.items():
            if not of_draws.are_possible(sound, len(sweep.datasets[index])):
                raise ValueError("no examples have the sums of single draws")
