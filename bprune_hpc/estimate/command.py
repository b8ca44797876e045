"""What a sweep will take, before it is submitted.

    python -m bprune_hpc.sweep @ArgFilePrune.txt --plan --ranks 64

The story of ``--plan``: the case is read as a sweep reads it, a pilot run is timed, and what
follows is printed. A results file that is there is read, and never written or locked.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence

from ..config.sweep_config import SweepConfig
from ..graph import flops
from ..job import deadline
from ..job import memory as process_memory
from ..job.environment import Stopwatch, age_s, describe_run
from ..job.provenance import Identity, environment_of
from ..job.signals import signals
from ..mpi.comm import Comm
from ..posterior import pruning
from ..posterior.draws import draws_per_unit
from ..posterior.pruning import tensors_of_units
from ..results import resume
from ..results.identity import identity_of
from ..runner import problem as problems
from ..runner.datasets import Part, check_memory, lay_out, passes
from ..runner.evaluation import costs_of, units_at_once
from ..runner.problem import Problem
from ..runner.state import SweepState, ThresholdIndices, with_rest
from ..streams import check_shown, show
from ..tensorflow_import import import_graphs
from . import cost_model, submission, text
from .cost_model import Peaks, Work
from .pilot_run import PilotRun, Stage, rehearse
from .text import Estimate

logger = logging.getLogger(__name__)

_OTHER_NUMBERS = (1, 4, 16, 64, 256, 1024)
_RUNS_TENSORFLOW = ("graph", "channels")
_FLOATS_A_DRAW = 3  # of a weight: the noise, and the two draws of a pair


def estimate(comm: Comm, config: SweepConfig, argv: Sequence[str]) -> int:
    """Say what a sweep will take; every rank calls this.

    Parameters
    ----------
    config : SweepConfig
        With ``plan``.
    argv : sequence of str
        What it was made of.

    Returns
    -------
    int
        Exit status.
    """
    signals.save_nothing()
    before_mib = process_memory.resident_mib()
    if comm.is_root:
        import_graphs()  # reading a network does, sooner or later
    tensorflow_mib = process_memory.resident_mib() - before_mib
    ready = _prepare(comm, config)
    config, problem = ready.stage.config, ready.stage.parts[0].problem
    environment = environment_of(comm, config.num_intra, config.num_inter)
    run = describe_run(comm, Stopwatch(), config.num_intra, config.num_inter)
    start_s = age_s()
    if comm.is_root:
        logger.info("timing a few draws of the sweep, which is not run")
    n_ranks, work = config.ranks or comm.size, work_of(ready.stage.parts, ready.stage.costs)
    found = rehearse(comm, ready.stage, work, n_ranks, ready.identity, environment, run)
    if not comm.is_root:
        return 0
    sweep_states = _sweep_states(config, ready.saved)
    of_ranks = {
        n: cost_model.timeline(
            config, ready.stage.parts, ready.stage.costs, found.rates, n, sweep_states
        )
        for n in {n_ranks, *_OTHER_NUMBERS}
    }
    if problem.evaluator not in _RUNS_TENSORFLOW:
        tensorflow_mib = 0.0
    other = _other(found, before_mib + tensorflow_mib, problem)
    missing = _missing_bytes(problem, work, n_ranks, found.n_units)
    said = Estimate(
        config=config,
        parts=ready.stage.parts,
        n_ranks=n_ranks,
        n_here=comm.size,
        n_cores=len(os.sched_getaffinity(0)),
        costs=work.costs,
        multiplications=_multiplications(problem),
        saved=ready.saved,
        start_s=start_s,
        timeline=of_ranks.pop(n_ranks),
        others=of_ranks,
        memory=cost_model.memory(found.root, other, missing, work, n_ranks),
        file_bytes=found.file_bytes,
    )
    request = _request(said, argv)
    show(text.text(said, request, submission.all_lines(request)))
    check_shown("the plan is not whole")
    return 0


@dataclasses.dataclass(frozen=True)
class _Ready:
    """A sweep that could begin."""

    stage: Stage
    identity: Identity
    saved: resume.Saved | None


def _prepare(comm: Comm, config: SweepConfig) -> _Ready:
    """Read and lay out what a sweep does, and refuse what it refuses."""
    problem = problems.load(config, comm)
    size = draws_per_unit(config.pairing, problem.task.noises_per_unit)
    config = dataclasses.replace(config, n_draws=-(-config.n_draws // size) * size)
    identity = comm.from_root(lambda: identity_of(config, problem, problem.evaluator))
    saved = comm.from_root(lambda: _what_is_there(config, identity))
    if saved is not None:
        asked = config
        config = comm.from_root(lambda: resume.joined(asked, saved, problem, size))
    comm.from_root(lambda: tensors_of_units(problem.posterior, config.granularity))
    evaluator = problem.make_evaluator(config.num_intra, config.num_inter)
    rule = dataclasses.replace(config.rule, prior=problem.prior)
    cuts = pruning.cuts(problem.posterior, config.grid_kind, config.grid, rule)
    parts = lay_out(config, problem, len(cuts), saved.layout if saved is not None else None)
    comm.from_root(lambda: check_memory(config, parts))
    scale = pruning.PRUNED_SCALE[config.pruned_weights]
    costs = comm.from_root(lambda: costs_of(evaluator, problem.posterior, cuts, 2, scale))
    return _Ready(Stage(config, evaluator, parts, cuts, costs), identity, saved)


def work_of(parts: Sequence[Part], costs: Sequence[int]) -> Work:
    """The shapes of a sweep."""
    task, plan = parts[0].problem.task, parts[0].plan
    return Work(
        costs=tuple(costs),
        stage_ends=plan.stage_ends,
        passes=tuple(
            tuple((len(block), -(-len(block) // parts[index].plan.batch_size))
                  for index, block in blocks)
            for blocks in passes(parts)
        ),
        draws_per_unit=len(plan.units[0]),
        units_at_once=units_at_once(parts[0].problem.posterior.n_weights),
        bytes_per_cell=task.bytes_per_cell,
    )  # fmt: skip


def _what_is_there(config: SweepConfig, identity: Identity) -> resume.Saved | None:
    if config.overwrite:
        return None
    saved = resume.read(config.output, with_sums=False)
    if saved is not None:
        resume.check_identity(saved, identity)
    return saved


def _sweep_states(config: SweepConfig, saved: resume.Saved | None) -> list[SweepState]:
    """How far each threshold is, without its sums."""
    found = []
    if saved is not None:
        for grid, progress in zip(saved.grids, saved.positions, strict=True):
            found.append(SweepState(ThresholdIndices.find(grid, config.grid), *progress))
    return with_rest(found, len(config.grid))


def _other(found: PilotRun, started_mib: float, problem: Problem) -> Peaks:
    """Peaks of a rank other than 0: the largest of those that there were, or what one would have.

    It has the arrays of the problem, and room to draw as rank 0 has, but has read nothing.
    """
    if found.others:
        return Peaks(
            max(one.reading for one in found.others), max(one.drawing for one in found.others)
        )
    arrays = [*problem.posterior.loc.values(), *problem.posterior.scale.values(),
              *problem.fixed.values(), problem.x, problem.label]  # fmt: skip
    if problem.ood_x is not None:
        arrays.append(problem.ood_x)
    read_mib = started_mib + sum(array.nbytes for array in arrays) / cost_model.MIB
    return Peaks(read_mib, read_mib + found.workspace_mib)


def _missing_bytes(problem: Problem, work: Work, n_ranks: int, n_units: int) -> int:
    """Noise and weights of those units that a rank will hold more than the pilot run did."""
    largest = max(len(set(partition)) for partition in work.all_assigned(n_ranks).partitions)
    missing = max(0, min(work.units_at_once, largest) - n_units)
    of_unit = 4 * _FLOATS_A_DRAW * problem.posterior.n_weights * problem.task.noises_per_unit
    return missing * of_unit


def _multiplications(problem: Problem) -> int | None:
    weights = {**problem.fixed, **problem.posterior.loc}
    try:
        return flops.multiplications(problem.graph, problem.x[:1], weights)
    except (ValueError, TypeError, import_graphs().OpError) as error:
        logger.debug("operations cannot be counted: %s", error)
        return None


def _request(said: Estimate, argv: Sequence[str]) -> submission.Request:
    config, timeline = said.config, said.timeline
    seconds = said.start_s + timeline.seconds
    write_s = timeline.write_s / max(1, timeline.n_writes)
    margin_s = deadline.margin(config.stop_margin_s, timeline.round_s, write_s)
    return submission.Request(
        arguments=tuple(of_the_sweep(argv)),
        output=config.output,
        n_ranks=said.n_ranks,
        n_threads=config.num_intra,
        seconds=submission.time_to_ask_for(seconds, margin_s),
        n_cores=said.n_cores,
    )


def of_the_sweep(argv: Sequence[str]) -> list[str]:
    """The arguments without ``--plan`` and ``--ranks``."""
    rest, is_number = [], False
    for argument in argv:
        if is_number or argument == "--plan" or argument.startswith("--ranks="):
            is_number = False
        elif argument == "--ranks":
            is_number = True
        else:
            rest.append(argument)
    return rest
