"""A sweep in small, to measure by: a few draws at some thresholds, then a file of full size.

Every rank rehearses at the same time, as they would work. The first draws warm up and are not
counted. A draw's time is what the clock or the processor says, whichever is less: others that use
this machine now will not use the one of the sweep. The file is written to a temporary directory,
not to the output. What follows from the measurements does not belong here
(``estimate.cost_model``).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..job import memory
from ..mpi.comm import Comm
from ..posterior.draws import MEAN, N_GROUPS
from ..results import file as results_file
from ..results import resume
from ..results.contents import contents
from ..runner.evaluation import evaluate
from ..runner.preparation import PreparedSweep
from ..runner.reduction import PendingReductions, reduce_draws, reduce_groups
from ..runner.state import SweepState, ThresholdIndices
from ..runner.statistics import SweepStatistics, with_block
from ..runner.synthetic_state import fill, finish, repeated_labels
from ..runner.work_split import Partition, assign
from .cost_model import DrawTime, Peaks, Rates, between, replicates_held

BUDGET_S = 20.0
"""Time for timed draws, about; more where a single draw takes longer."""
_MOST_TIMED = 6
_MOST_REPEATS = 5
_SHORT_WRITE_S = 2.0


@dataclass(frozen=True)
class PilotRun:
    """What was measured; whole on rank 0 only.

    Attributes
    ----------
    workspace_mib : float
        What rank 0 took to draw, beside its sums.
    n_replicates : int
        Replicates that were held at a time.
    file_bytes : int
    """

    rates: Rates
    root: Peaks
    others: list[Peaks]
    workspace_mib: float
    n_replicates: int
    file_bytes: int


@dataclass(frozen=True)
class Trial:
    """Draws of a sweep at some of its thresholds.

    Attributes
    ----------
    thresholds : ThresholdIndices
        Those that are timed: of different work, from the least to the most.
    """

    sweep: PreparedSweep
    thresholds: ThresholdIndices

    @classmethod
    def of(cls, sweep: PreparedSweep) -> Trial:
        """At a few thresholds, whose work is spread evenly."""
        costs = np.array(sweep.costs)
        wanted = np.linspace(costs.min(), costs.max(), _MOST_TIMED)
        nearest = [int(np.argmin(np.abs(costs - cost))) for cost in wanted]
        return cls(sweep, ThresholdIndices(dict.fromkeys(nearest)))

    def draw(self, replicates: Sequence[int], n_batches: int, sums: Any, draws: Any) -> list[float]:
        """Draw replicates at each threshold; seconds of each, that of the noise in the first."""
        sweep, n_thresholds = self.sweep, len(self.thresholds)
        dataset = sweep.datasets[0]
        block = range(min(n_batches * dataset.plan.batch_size, len(dataset)))
        partition = Partition(tuple(replicates), n_thresholds, 0, len(replicates) * n_thresholds)
        ticks = [_now()]
        evaluate(
            sweep.evaluator, sweep.network, self.thresholds.of(sweep.masks), dataset,
            partition, block, sums, draws, {}, seed=sweep.config.seed,
            advance=lambda _: ticks.append(_now()),
        )  # fmt: skip
        return [_least(before, after) for before, after in pairwise(ticks)]

    def noise_s(self, n_replicates: int) -> float:
        """Time of the normals of a replicate, where those of several are made together.

        0 where they are made for some examples at a time, and count with these.
        """
        sweep = self.sweep
        noise, dataset = sweep.network.noise(sweep.config.seed), sweep.datasets[0]
        if noise.kind != "shared":
            return 0.0
        posterior, replicates = sweep.network.posterior, sweep.plan.replicates
        start = _now()
        held = [
            noise.of_replicate(posterior, replicate, replicates, dataset.name, 0)
            for replicate in range(n_replicates)
        ]
        return _least(start, _now()) / len(held)


def _now() -> tuple[float, float]:
    """Time of the clock, and of this process on processors."""
    return time.perf_counter(), time.process_time()


def _least(before: tuple[float, float], after: tuple[float, float]) -> float:
    return min(later - earlier for earlier, later in zip(before, after, strict=True))


def rehearse(comm: Comm, sweep: PreparedSweep, n_ranks: int, run: Mapping[str, Any]) -> PilotRun:
    """Measure; every rank calls this, and the peaks of memory begin anew.

    Parameters
    ----------
    n_ranks : int
        For which the sweep is planned: with more of them each holds fewer replicates.
    run : mapping
        What goes to ``/run`` of a results file.
    """
    reading = memory.peak_mib()
    memory.forget_peak()
    trial, task = Trial.of(sweep), sweep.network.task
    small = _Small.of(trial)  # which warms up as well
    sweep_state = SweepState(ThresholdIndices(range(len(sweep.masks))))
    if comm.is_root:
        small.fill(sweep_state)
        sums = sweep_state.sums[0]
    else:  # one group's, for all of them: those of the whole sweep are counted in the forecast
        _, block = sweep.passes[0][0]
        of_group = task.sums(len(sweep.masks), len(block), sweep.plan.draws_per_replicate)
        sums = dict.fromkeys([MEAN, *range(N_GROUPS)], of_group)
    resident = memory.resident_mib()
    timer = _Timer(comm, trial, sums)
    n_replicates = timer.at_most(replicates_held(sweep, n_ranks))
    timer.draw(n_replicates, 1)
    _reduce(comm, sweep, sums)
    drawing = memory.peak_mib()
    rates = timer.rates()
    del timer, sums  # which the sweep state makes anew
    memory.forget_peak()
    writing, file_bytes = 0.0, 0
    if comm.is_root:
        small.fill(sweep_state)
        block_s, write_s, file_bytes = _write(sweep, sweep_state, run)
        rates = dataclasses.replace(rates, block_s=block_s, write_s=write_s)
        writing = memory.peak_mib()
    peaks = Peaks(reading, drawing, writing)
    everyone = comm.gather(peaks) or [peaks]
    return PilotRun(rates, peaks, everyone[1:], drawing - resident, n_replicates, file_bytes)


@dataclass(frozen=True)
class _Small:
    """Sums of the posterior mean and of one replicate, for a batch of examples."""

    trial: Trial
    sums: dict[int, Any]
    draws: Any

    @classmethod
    def of(cls, trial: Trial) -> _Small:
        sweep, sums = trial.sweep, dict[int, Any]()
        draws = sweep.network.task.draw_sums(len(trial.thresholds), sweep.plan.draws_per_replicate)
        trial.draw([MEAN, 0], 1, sums, draws)
        return cls(trial, sums, draws)

    def fill(self, sweep_state: SweepState) -> None:
        """Begin the sweep state's pass anew, with sums of full size."""
        sweep_state.sums.clear()
        sweep = self.trial.sweep
        costs = np.array(sweep.costs)
        like = [int(np.argmin(np.abs(costs[list(self.trial.thresholds)] - cost))) for cost in costs]
        fill(sweep_state, sweep, like, self.sums[MEAN], self.sums[0], self.draws)


class _Timer:
    """Times draws: each the median of several, on the slowest rank, for which all others wait."""

    def __init__(self, comm: Comm, trial: Trial, sums: dict[int, Any]) -> None:
        self._comm, self._trial, self._sums = comm, trial, sums
        one_s = sum(self.draw(1, 1))
        self._one_s = comm.from_root(lambda: max(one_s, 1e-6))

    def draw(self, n_replicates: int, n_batches: int) -> list[float]:
        """Seconds of each timed threshold; that of the noise is in the first."""
        trial, sweep = self._trial, self._trial.sweep
        n_draws = n_replicates * sweep.plan.draws_per_replicate
        draws = sweep.network.task.draw_sums(len(trial.thresholds), n_draws)
        return trial.draw(range(n_replicates), n_batches, self._sums, draws)

    def at_most(self, n_replicates: int) -> int:
        """So many replicates, or fewer that there is time for."""
        return _at_most(n_replicates, BUDGET_S / 8 / self._one_s)

    def rates(self) -> Rates:
        """Those of draws; every rank calls this."""
        trial, one_s = self._trial, self._one_s
        n_replicates = self.at_most(replicates_held(trial.sweep, 1))
        _, block = trial.sweep.passes[0][0]
        all_batches = -(-len(block) // trial.sweep.plan.batch_size)
        n_batches = _at_most(all_batches, BUDGET_S / 4 / one_s / n_replicates)
        sizes = sorted({(k, m) for k in (1, n_replicates) for m in (1, n_batches)})
        of_all = one_s * sum(k * m for k, m in sizes)
        found: dict[tuple[int, int], list[list[float]]] = {size: [] for size in sizes}
        noises = []
        for _ in range(_at_most(_MOST_REPEATS, BUDGET_S / of_all)):
            noises.append(trial.noise_s(n_replicates))
            for size, times in found.items():
                times.append(self.draw(*size))
        mine = np.array([np.median(found[size], axis=0) for size in sizes])
        everyone = self._comm.gather((float(np.median(noises)), mine)) or [(0.0, mine)]
        noise_s, seconds = max(everyone, key=lambda of_rank: float(of_rank[1].sum()))
        seconds[:, 0] = np.maximum(seconds[:, 0] - [k * noise_s for k, _ in sizes], 0)
        fitted = {
            index: DrawTime.fit(dict(zip(sizes, column, strict=True)))
            for index, column in zip(trial.thresholds, seconds.T, strict=True)
        }
        return Rates(noise_s, between(trial.sweep.costs, fitted), write_s=0.0)


def _reduce(comm: Comm, sweep: PreparedSweep, sums: Mapping[int, Any]) -> None:
    """Reduce sums as before a write, since MPI's own memory grows with what is sent."""
    task, n_thresholds, (_, block) = sweep.network.task, len(sweep.masks), sweep.passes[0][0]
    assignment = assign(range(len(sweep.plan.replicates)), sweep.costs, comm.size)
    pending = PendingReductions(comm.size)
    pending.add(assignment)
    groups = sums if comm.is_root else assignment.partitions[comm.rank].groups
    mine = {group: sums[group] for group in groups}
    make = partial(task.sums, n_thresholds, len(block), sweep.plan.draws_per_replicate)
    reduce_groups(comm, pending.participants, mine, make)
    reduce_draws(comm, task.draw_sums(n_thresholds, sweep.plan.n_draws))


def _at_most(number: int, limit: float) -> int:
    return max(1, min(number, int(limit)))


def _write(
    sweep: PreparedSweep, sweep_state: SweepState, run: Mapping[str, Any]
) -> tuple[float, float, int]:
    """Seconds at the end of a pass, seconds and bytes of the file, of all examples."""
    sweep = repeated_labels(sweep, sweep.plan.batch_size)  # as the sums of a batch are
    n_passes, block_s = len(sweep.passes), 0.0
    if n_passes > 1:
        start = time.perf_counter()
        sweep_state.end_pass(with_block(sweep, sweep_state))
        block_s = time.perf_counter() - start
        finish(sweep_state, sweep)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rehearsal.h5"
        start = time.perf_counter()
        _write_file(path, sweep, sweep_state, run)
        seconds = time.perf_counter() - start
        if seconds < _SHORT_WRITE_S:  # the first time more is loaded
            start = time.perf_counter()
            _write_file(path, sweep, sweep_state, run)
            seconds = min(seconds, time.perf_counter() - start)
        n_bytes = path.stat().st_size
    # With several passes a file begins with the first one's examples and ends with all.
    return block_s, seconds * (1 + 1 / n_passes) / 2, n_bytes


def _write_file(
    path: Path, sweep: PreparedSweep, sweep_state: SweepState, run: Mapping[str, Any]
) -> None:
    of_file = contents(sweep, SweepStatistics(sweep, sweep_state), run, "complete")
    arrays, attrs = resume.state(sweep, [sweep_state])
    results_file.write(path, dataclasses.replace(of_file, state=arrays, state_attrs=attrs))
