"""Which work is next: the thresholds that are furthest behind, up to where something waits.

Pure. How far a superstep of work may go at most is fixed by the draws (the numbers at which an
error is tested, other thresholds' progress, the end of a pass); how much of it is taken at once is
the clock's business (``runner.timing``) and changes no number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..metrics.tasks import AnyDrawSums
from .nonfinite import Faults
from .state import Progress, SweepState, ThresholdIndices, merged
from .work_split import even_number


@dataclass(frozen=True)
class Superstep:
    """Work that is done before rank 0 looks up again.

    Attributes
    ----------
    thresholds : ThresholdIndices
    n_passes : int
        Which pass.
    replicates : range
        Replicates.
    """

    thresholds: ThresholdIndices
    n_passes: int
    replicates: range


@dataclass(frozen=True)
class Reduce:
    """The sums of all ranks are brought together on rank 0.

    Attributes
    ----------
    thresholds : ThresholdIndices
    n_passes : int
        Which pass the sums are of.
    participants : mapping of jackknife group to tuple of int
        Ranks, ascending, that have a part of it.
    is_forced : bool
        Whether since ranks have no room for more, and not since rank 0 wants the sums.
    """

    thresholds: ThresholdIndices
    n_passes: int
    participants: Mapping[int, tuple[int, ...]]
    is_forced: bool = False


@dataclass(frozen=True)
class Publication:
    """The results file is written, on rank 0."""


Step = Superstep | Reduce | Publication


@dataclass(frozen=True)
class WorkResult:
    """What rank 0 learns of a superstep at once; the other sums stay where they are.

    Attributes
    ----------
    draws : dict of int to AnyDrawSums
        Sums of each draw, by index of the set of examples.
    faults : Faults
    computing_s : float
        Of the rank that took longest.
    """

    draws: dict[int, AnyDrawSums] = field(default_factory=dict)
    faults: Faults = field(default_factory=dict)
    computing_s: float = 0.0


def level(sweep_states: Sequence[SweepState]) -> list[SweepState]:
    """The sweep states with those merged that are level, the furthest first."""
    by_progress: dict[Progress, list[SweepState]] = {}
    for sweep_state in sweep_states:
        by_progress.setdefault(sweep_state.progress, []).append(sweep_state)
    return [merged(by_progress[progress]) for progress in sorted(by_progress, reverse=True)]


def stops(sweep_states: Sequence[SweepState], stage_ends: Sequence[int]) -> Sequence[int]:
    """Units, ascending, at which something waits for all sums of the state furthest behind.

    Parameters
    ----------
    sweep_states : sequence of SweepState
        As :func:`level` gives them.
    stage_ends : sequence of int
        Ascending; the last is all replicates.
    """
    if len(sweep_states) > 1 and sweep_states[-2].n_passes == sweep_states[-1].n_passes:
        return (sweep_states[-2].n_replicates,)
    return stage_ends


def superstep_of(
    behind: SweepState,
    stops: Sequence[int],
    n_examples: int,
    n_ranks: int,
    n_items: float | None,
    n_together: int = 1,
) -> Superstep:
    """A superstep of work that begins where a sweep state is.

    Parameters
    ----------
    stops : sequence of int
        Replicates at which it ends at the latest; see :func:`stops`.
    n_examples : int
        Of the pass.
    n_items : float or None
        Work items of one rank, times examples, that there is time for; None: as few as serve all
        ranks.
    n_together : int
        Replicates that a rank draws together, at most.
    """
    n_thresholds = len(behind.thresholds)
    left = next(stop for stop in stops if stop > behind.n_replicates) - behind.n_replicates
    wanted = 0.0 if n_items is None else n_items * n_ranks / (n_thresholds * n_examples)
    number = min(even_number(wanted, n_thresholds, n_ranks, n_together), left)
    if left <= 1.25 * wanted:
        number = left  # rather than leave a rest that is a write of its own
    replicates = range(behind.n_replicates, behind.n_replicates + number)
    return Superstep(behind.thresholds, behind.n_passes, replicates)
