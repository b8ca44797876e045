"""What a sweep will take, before it is submitted.

    python -m bprune_hpc.sweep @ArgFilePrune.txt --plan --ranks 64

The story of ``--plan``: the case is read as a sweep reads it, a pilot run is timed, and what
follows is printed. A results file that is there is read, and never written or locked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial

from ..config.sweep_config import SweepConfig
from ..evaluators.selection import RUNS_TENSORFLOW
from ..graph import flops
from ..job import deadline
from ..job import memory as process_memory
from ..job.environment import Stopwatch, age_s, describe_run
from ..job.signals import signals
from ..mpi.comm import Comm, on_root
from ..results import resume
from ..runner.preparation import PreparedSweep, prepare
from ..streams import check_shown, show
from ..tensorflow_import import import_graphs
from . import cost_model, submission, text
from .cost_model import Peaks
from .pilot_run import PilotRun, rehearse
from .text import Estimate

logger = logging.getLogger(__name__)

_OTHER_NUMBERS = (1, 4, 16, 64, 256, 1024)
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
    saved = None
    if not config.overwrite:
        saved = on_root(comm, lambda: resume.read(config.output, with_sums=False))
    sweep = prepare(config, comm, partial(resume.join, saved))
    run = describe_run(comm, Stopwatch(), config.num_intra, config.num_inter, sweep.used_device)
    start_s = age_s()
    if comm.is_root:
        logger.info("timing a few draws; the sweep itself is not run")
    n_ranks = config.ranks or comm.size
    pilot = rehearse(comm, sweep, n_ranks, run)
    if not comm.is_root:
        return 0
    sweep_states = resume.sweep_states_of(saved, sweep)
    n_cores = len(os.sched_getaffinity(0))
    of_a_node = max(1, min(n_ranks, n_cores // config.num_intra))
    of_ranks = {
        n: cost_model.timeline(sweep, pilot.rates, n, sweep_states)
        for n in {n_ranks, of_a_node, *_OTHER_NUMBERS}
    }
    is_small = start_s + of_ranks[of_a_node].seconds <= submission.SMALL_S
    if not RUNS_TENSORFLOW[sweep.network.evaluator]:
        tensorflow_mib = 0.0
    other = _other(pilot, before_mib + tensorflow_mib, sweep)
    missing = _missing_bytes(sweep, n_ranks, pilot.n_replicates)
    forecast = Estimate(
        sweep=sweep,
        n_ranks=n_ranks,
        n_here=comm.size,
        n_asked=of_a_node if is_small else n_ranks,
        n_cores=n_cores,
        multiplications=_multiplications(sweep),
        saved=saved,
        start_s=start_s,
        timelines=of_ranks,
        memory=cost_model.memory(pilot.root, other, missing, sweep, n_ranks),
        file_bytes=pilot.file_bytes,
    )
    request = _request(forecast, argv)
    show(text.text(forecast, request, submission.all_lines(request)))
    check_shown("the plan is not whole")
    return 0


def _other(pilot: PilotRun, started_mib: float, sweep: PreparedSweep) -> Peaks:
    """Peaks of a rank other than 0: the largest of those that there were, or what one would have.

    It has the arrays of the sweep, and room to draw as rank 0 has, but has read nothing.
    """
    if pilot.others:
        return Peaks(
            max(peaks.reading for peaks in pilot.others),
            max(peaks.drawing for peaks in pilot.others),
        )
    network = sweep.network
    arrays = [*network.posterior.loc.values(), *network.posterior.scale.values(),
              *network.fixed.values()]  # fmt: skip
    arrays += [array for one in sweep.datasets for array in (one.x, one.label) if array is not None]
    read_mib = started_mib + sum(array.nbytes for array in arrays) / cost_model.MIB
    return Peaks(read_mib, read_mib + pilot.workspace_mib)


def _missing_bytes(sweep: PreparedSweep, n_ranks: int, n_replicates: int) -> int:
    """Noise and weights of those replicates that a rank will hold more than the pilot run did."""
    missing = max(0, cost_model.replicates_held(sweep, n_ranks) - n_replicates)
    if sweep.network.draw_noise == "per_example":  # no weights are drawn
        return 0
    n_floats = _FLOATS_A_DRAW * sweep.network.posterior.n_weights
    return missing * 4 * n_floats * sweep.network.task.noises_per_replicate


def _multiplications(sweep: PreparedSweep) -> int | None:
    network = sweep.network
    weights = {**network.fixed, **network.posterior.loc}
    try:
        return flops.multiplications(network.graph, sweep.datasets[0].x[:1], weights)
    except (ValueError, TypeError, import_graphs().OpError) as error:
        logger.debug("operations cannot be counted: %s", error)
        return None


def _request(forecast: Estimate, argv: Sequence[str]) -> submission.Request:
    config, timeline = forecast.sweep.config, forecast.asked
    seconds = forecast.start_s + timeline.seconds
    write_s = timeline.write_s / max(1, timeline.n_writes)
    margin_s = deadline.margin(config.stop_margin_s, timeline.round_s, write_s)
    return submission.Request(
        arguments=tuple(of_the_sweep(argv)),
        output=config.output,
        n_ranks=forecast.n_asked,
        n_threads=config.num_intra,
        seconds=submission.time_to_ask_for(seconds, margin_s),
        n_cores=forecast.n_cores,
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
