"""Which work is next: the thresholds that are furthest behind, up to where something waits.

Pure. How far a superstep of work may go at most is fixed by the draws (the numbers at which an
error is tested, other thresholds' positions, the end of a pass); how much of it is taken at once is
the clock's business (``runner.timing``) and changes no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .state import Position, SweepState, merged
from .work_split import even_number


@dataclass(frozen=True)
class Superstep:
    """Work that is done before rank 0 looks up again.

    Attributes
    ----------
    rows : tuple of int
        Thresholds of the grid.
    n_passes : int
        Which pass.
    units : range
        Units of draws.
    """

    rows: tuple[int, ...]
    n_passes: int
    units: range


@dataclass(frozen=True)
class Reduce:
    """The sums of all ranks are brought together on rank 0."""


@dataclass(frozen=True)
class Publication:
    """The results file is written, on rank 0."""


Step = Superstep | Reduce | Publication


def level(sweep_states: Sequence[SweepState]) -> list[SweepState]:
    """The sweep states with those merged that are at the same position, the furthest first."""
    positions: dict[Position, list[SweepState]] = {}
    for sweep_state in sweep_states:
        positions.setdefault(sweep_state.position, []).append(sweep_state)
    return [merged(positions[position]) for position in sorted(positions, reverse=True)]


def last_unit(sweep_states: Sequence[SweepState], stage_ends: Sequence[int]) -> int:
    """Where the sweep state that is furthest behind has to stop at the latest, in its pass.

    Parameters
    ----------
    sweep_states : sequence of SweepState
        As :func:`level` gives them.
    stage_ends : sequence of int
        Ascending; the last is all units.
    """
    behind = sweep_states[-1]
    if len(sweep_states) > 1 and sweep_states[-2].n_passes == behind.n_passes:
        return sweep_states[-2].n_units
    return next(end for end in stage_ends if end > behind.n_units)


def superstep_of(
    behind: SweepState,
    end: int,
    n_examples: int,
    n_ranks: int,
    n_cells: float | None,
    n_together: int = 1,
) -> Superstep:
    """A superstep of work that begins where a sweep state is.

    Parameters
    ----------
    end : int
        Unit before which it ends at the latest.
    n_examples : int
        Of the pass.
    n_cells : float or None
        Cells of one rank, times examples, that there is time for; None: as few as serve all ranks.
    n_together : int
        Units that a rank draws together, at most.
    """
    n_thresholds, left = len(behind.rows), end - behind.n_units
    wanted = 0.0 if n_cells is None else n_cells * n_ranks / (n_thresholds * n_examples)
    number = min(even_number(wanted, n_thresholds, n_ranks, n_together), left)
    if left <= 1.25 * wanted:
        number = left  # rather than leave a rest that is a write of its own
    return Superstep(behind.rows, behind.n_passes, range(behind.n_units, behind.n_units + number))
