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

from ..config.sweep_config import SweepConfig
from ..evaluators.interface import Evaluator
from ..job import memory
from ..job.provenance import Environment, Identity
from ..mpi.comm import Comm
from ..posterior.draws import MEAN, N_GROUPS
from ..posterior.pruning import PRUNED_SCALE, Cut
from ..results import file as results_file
from ..results import resume
from ..results.contents import contents
from ..runner.datasets import Part, passes
from ..runner.evaluation import evaluate, noises_of
from ..runner.reduction import PendingReductions, reduce_draws, reduce_groups
from ..runner.state import SweepState, ThresholdIndices
from ..runner.statistics import SweepStatistics, with_block
from ..runner.synthetic_state import fill, finish, repeated_labels
from ..runner.work_split import Partition
from .cost_model import DrawTime, Peaks, Rates, Work, between

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
    n_units : int
        Units of draws that were held at a time.
    file_bytes : int
    """

    rates: Rates
    root: Peaks
    others: list[Peaks]
    workspace_mib: float
    n_units: int
    file_bytes: int


@dataclass(frozen=True)
class Stage:
    """What a pilot run, and a sweep, needs to draw.

    Attributes
    ----------
    costs : sequence of int
        Work of a draw at each cut.
    """

    config: SweepConfig
    evaluator: Evaluator
    parts: Sequence[Part]
    cuts: Sequence[Cut]
    costs: Sequence[int]

    @property
    def timed(self) -> list[int]:
        """Thresholds that are timed: of different work, from the least to the most."""
        wanted = np.linspace(min(self.costs), max(self.costs), _MOST_TIMED)
        nearest = [int(np.argmin(np.abs(np.array(self.costs) - cost))) for cost in wanted]
        return list(dict.fromkeys(nearest))

    def draw(self, units: Sequence[int], n_batches: int, sums: Any, draws: Any) -> list[float]:
        """Draw units at the timed thresholds; seconds of each, that of the noise in the first."""
        part, timed = self.parts[0], self.timed
        block = range(min(n_batches * part.plan.batch_size, len(part.problem.label)))
        partition = Partition(tuple(units), len(timed), 0, len(units) * len(timed))
        ticks = [_now()]
        evaluate(
            self.evaluator, part.problem, [self.cuts[index] for index in timed], part.plan,
            partition, block, sums, draws, {}, seed=self.config.seed,
            advance=lambda _: ticks.append(_now()),
            pruned_scale=PRUNED_SCALE[self.config.pruned_weights],
        )  # fmt: skip
        return [_least(before, after) for before, after in pairwise(ticks)]

    def noise_s(self, n_units: int) -> float:
        """Time of the normals of a unit, where those of several are made together."""
        part = self.parts[0]
        start = _now()
        held = [
            noises_of(part.problem.posterior, unit, part.plan.units, self.config.seed)
            for unit in range(n_units)
        ]
        return _least(start, _now()) / len(held)


def _now() -> tuple[float, float]:
    """Time of the clock, and of this process on processors."""
    return time.perf_counter(), time.process_time()


def _least(before: tuple[float, float], after: tuple[float, float]) -> float:
    return min(later - earlier for earlier, later in zip(before, after, strict=True))


def rehearse(
    comm: Comm,
    stage: Stage,
    work: Work,
    n_ranks: int,
    identity: Identity,
    environment: Environment,
    run: Mapping[str, Any],
) -> PilotRun:
    """Measure; every rank calls this, and the peaks of memory begin anew.

    Parameters
    ----------
    work : Work
        The sweep's.
    n_ranks : int
        For which the sweep is planned: with more of them each holds fewer units.
    run : mapping
        What goes to ``/run`` of a results file.
    """
    reading = memory.peak_mib()
    memory.forget_peak()
    small = _Small.of(stage)  # which warms up as well
    sweep_state = SweepState(ThresholdIndices(range(len(stage.cuts))))
    if comm.is_root:
        small.fill(stage, sweep_state)
        sums = sweep_state.sums[0]
    else:  # one group's, for all of them: those of the whole sweep are counted in the forecast
        block = passes(stage.parts)[0][0][1]
        (one,) = (stage.parts[0].problem.task.sums(len(stage.cuts), len(block), small.n_draws),)
        sums = dict.fromkeys([MEAN, *range(N_GROUPS)], one)
    resident = memory.resident_mib()
    held = max(len(set(partition)) for partition in work.all_assigned(n_ranks).partitions)
    timer = _Timer(comm, stage, work, sums)
    n_units = timer.at_most(held)
    timer.draw(n_units, 1)
    _reduce(comm, stage, work, sums)
    drawing = memory.peak_mib()
    rates = timer.rates()
    del timer, sums  # which the sweep state makes anew
    memory.forget_peak()
    writing, file_bytes = 0.0, 0
    if comm.is_root:
        small.fill(stage, sweep_state)
        block_s, write_s, file_bytes = _write(stage, sweep_state, small, identity, environment, run)
        rates = dataclasses.replace(rates, block_s=block_s, write_s=write_s)
        writing = memory.peak_mib()
    peaks = Peaks(reading, drawing, writing)
    everyone = comm.gather(peaks) or [peaks]
    return PilotRun(rates, peaks, everyone[1:], drawing - resident, n_units, file_bytes)


@dataclass(frozen=True)
class _Small:
    """Sums of the posterior mean and of one unit of draws, for a batch of examples."""

    sums: dict[int, Any]
    draws: Any
    n_draws: int
    n_examples: int

    @classmethod
    def of(cls, stage: Stage) -> _Small:
        plan, task = stage.parts[0].plan, stage.parts[0].problem.task
        n_draws = len(plan.units[0])
        sums: dict[int, Any] = {}
        draws = task.draw_sums(len(stage.timed), n_draws)
        stage.draw([MEAN, 0], 1, sums, draws)
        return cls(sums, draws, n_draws, min(plan.batch_size, len(stage.parts[0].problem.label)))

    def fill(self, stage: Stage, sweep_state: SweepState) -> None:
        """Begin the sweep state's pass anew, with sums of full size."""
        sweep_state.sums.clear()
        costs, timed = np.array(stage.costs), stage.timed
        like = [int(np.argmin(np.abs(costs[timed] - cost))) for cost in costs]
        fill(sweep_state, stage.parts, like, self.sums[MEAN], self.sums[0], self.draws)


class _Timer:
    """Times draws: each the median of several, on the slowest rank, for which all others wait."""

    def __init__(self, comm: Comm, stage: Stage, work: Work, sums: dict[int, Any]) -> None:
        self._comm, self._stage, self._work, self._sums = comm, stage, work, sums
        one_s = sum(self.draw(1, 1))
        self._one_s = comm.from_root(lambda: max(one_s, 1e-6))

    def draw(self, n_units: int, n_batches: int) -> list[float]:
        """Seconds of each timed threshold; that of the noise is in the first."""
        task, n_draws = self._stage.parts[0].problem.task, n_units * self._work.draws_per_unit
        draws = task.draw_sums(len(self._stage.timed), n_draws)  # new, as those of a draw are
        return self._stage.draw(range(n_units), n_batches, self._sums, draws)

    def at_most(self, n_units: int) -> int:
        """So many units, or fewer that there is time for."""
        most = min(n_units, self._work.units_at_once, self._work.n_units)
        return _at_most(most, BUDGET_S / 8 / self._one_s)

    def rates(self) -> Rates:
        """Those of draws; every rank calls this."""
        stage, one_s = self._stage, self._one_s
        n_units = self.at_most(self._work.n_units)
        n_batches = _at_most(self._work.passes[0][0][1], BUDGET_S / 4 / one_s / n_units)
        sizes = sorted({(k, m) for k in (1, n_units) for m in (1, n_batches)})
        of_all = one_s * sum(k * m for k, m in sizes)
        found: dict[tuple[int, int], list[list[float]]] = {size: [] for size in sizes}
        noises = []
        for _ in range(_at_most(_MOST_REPEATS, BUDGET_S / of_all)):
            noises.append(stage.noise_s(n_units))
            for size, times in found.items():
                times.append(self.draw(*size))
        mine = np.array([np.median(found[size], axis=0) for size in sizes])
        everyone = self._comm.gather((float(np.median(noises)), mine)) or [(0.0, mine)]
        noise_s, seconds = max(everyone, key=lambda of_rank: float(of_rank[1].sum()))
        seconds[:, 0] = np.maximum(seconds[:, 0] - [k * noise_s for k, _ in sizes], 0)
        fitted = {
            index: DrawTime.fit(dict(zip(sizes, column, strict=True)))
            for index, column in zip(stage.timed, seconds.T, strict=True)
        }
        return Rates(noise_s, between(stage.costs, fitted), write_s=0.0)


def _reduce(comm: Comm, stage: Stage, work: Work, sums: Mapping[int, Any]) -> None:
    """Bring sums together as after a round, since MPI's own memory grows with what is sent."""
    part, (_, block) = stage.parts[0], passes(stage.parts)[0][0]
    assignment, pending = work.all_assigned(comm.size), PendingReductions(comm.size)
    pending.add(assignment)
    groups = sums if comm.is_root else assignment.partitions[comm.rank].groups
    mine = {group: sums[group] for group in groups}
    task, n_draws = part.problem.task, len(part.plan.units[0])
    make = partial(task.sums, len(stage.cuts), len(block), n_draws)
    reduce_groups(comm, pending.participants, mine, make)
    reduce_draws(comm, task.draw_sums(len(stage.cuts), part.plan.n_draws))


def _at_most(number: int, limit: float) -> int:
    return max(1, min(number, int(limit)))


def _write(
    stage: Stage,
    sweep_state: SweepState,
    small: _Small,
    identity: Identity,
    environment: Environment,
    run: Mapping[str, Any],
) -> tuple[float, float, int]:
    """Seconds at the end of a pass, seconds and bytes of the file, of all examples."""
    parts, config = repeated_labels(stage.parts, small.n_examples), stage.config
    n_passes, block_s = len(passes(parts)), 0.0
    if n_passes > 1:
        start = time.perf_counter()
        sweep_state.end_pass(with_block(parts, sweep_state, config.save_probabilities))
        block_s = time.perf_counter() - start
        finish(sweep_state, parts)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rehearsal.h5"
        start = time.perf_counter()
        _write_file(path, stage, parts, sweep_state, identity, environment, run)
        seconds = time.perf_counter() - start
        if seconds < _SHORT_WRITE_S:  # the first time more is loaded
            start = time.perf_counter()
            _write_file(path, stage, parts, sweep_state, identity, environment, run)
            seconds = min(seconds, time.perf_counter() - start)
        n_bytes = path.stat().st_size
    # With several passes a file begins with the first one's examples and ends with all.
    return block_s, seconds * (1 + 1 / n_passes) / 2, n_bytes


def _write_file(
    path: Path,
    stage: Stage,
    parts: Sequence[Part],
    sweep_state: SweepState,
    identity: Identity,
    environment: Environment,
    run: Mapping[str, Any],
) -> None:
    config = stage.config
    findings = SweepStatistics(parts, sweep_state, config.save_probabilities)
    found = contents(config, parts[0].problem, stage.cuts, findings, run, "complete")
    arrays, attrs = resume.state(identity, environment, config, parts, [sweep_state])
    results_file.write(path, dataclasses.replace(found, state=arrays, state_attrs=attrs))
