"""More ranks: twice as fast on two cores, and how little of the time goes into messages.

What 64 ranks on as many cores would wait for messages cannot be measured on two cores. It is
projected from what a message between two ranks costs here:

- Which ranks add to a group, and who sends whom what, the sweep's own plan and tree say. A message
  begins when both ends have come to it; when rank 0 has the last one, the sums are there.
- Network and examples are broadcast in ceil(log2 64) steps.
- Stretches of work are as the sweep's own schedule has them, and so is when groups are brought
  together: for a write, and at the end.
- What all ranks agree on (whether to stop, what is next, who is there) takes ceil(log2 64) times
  what it takes two. The share is given, too, with what it takes 64 ranks on the cores that there
  are here, waits for a core included: that is too much; the first is too little where rank 0
  hears of each rank by itself.
- Every rank evaluates its share of the draws at what one costs on one rank, measured here.

On a cluster messages between nodes have a lower rate than shared memory; the whole traffic of
rank 0 is given, so that the share can be told for another rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from bprune_hpc.accumulators.classification import bytes_per_cell
from bprune_hpc.config import sweep_config as configuration
from bprune_hpc.mpi.reduction_tree import messages, n_steps
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.draws import N_GROUPS
from bprune_hpc.runner.evaluation import costs_of, units_at_once
from bprune_hpc.runner.reduction import PendingReductions
from bprune_hpc.runner.scheduler import superstep_of
from bprune_hpc.runner.timing import Timing
from bprune_hpc.runner.work_split import make_plan, round_of

from . import overpruned
from .processes import python
from .record import Measured
from .timing import Settings

THRESHOLDS = "0:2:21"
N_THRESHOLDS = 21
# The projected sweep.
_N_RANKS, _N_DRAWS, _N_EXAMPLES = 64, 6_400, 10_000
_AGREED_A_STRETCH = 4  # whether to stop; what is next; who is there; which draws were no numbers
_AGREED_A_REDUCTION = 3  # whether to stop; what is next; who is there


def run(settings: Settings) -> Measured:
    """Measure two ranks against one, many ranks of a tiny network, and messages."""
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    n_examples, n_draws = settings.choose((200, 4), (_N_EXAMPLES, 400))
    case = {
        "network": "overpruned",
        "n_examples": n_examples,
        "n_draws": n_draws,
        "thresholds": settings.choose("0,1", THRESHOLDS),
    }
    runs: dict[int, list[Any]] = {1: [], 2: []}
    for _ in range(settings.choose(1, 6)):
        for n_ranks, of_one in runs.items():
            of_one.append(on_ranks(n_ranks, case))
    seconds = {n: [one["seconds"] for one in of_one] for n, of_one in runs.items()}
    peaks = {n: median(sum(one["peak_gflops"]) for one in of_one) for n, of_one in runs.items()}
    ratios["two_ranks_over_one"] = median(seconds[1]) / median(seconds[2])
    ratios["two_products_over_one"] = peaks[2] / peaks[1]
    absolute["two_ranks"] = {**case, "seconds": seconds, "peak_gflops": peaks}
    absolute["two_ranks"]["waiting_shares"] = [one["waiting_share"] for one in runs[2]]

    tiny = {"network": "tiny", "n_examples": 360, "thresholds": "0:2:9"}
    tiny["n_draws"] = settings.choose(20, 640)
    for n_ranks in settings.choose([4], [8, 16, 32, 64]):
        one = on_ranks(n_ranks, tiny)
        reduce, evaluate = sum(one["reduce_seconds"]), sum(one["evaluate_seconds"])
        share = reduce / (evaluate + reduce)
        ratios[f"oversubscribed_communication_share_{n_ranks}"] = share
        absolute[f"oversubscribed_{n_ranks}"] = {
            "seconds": one["seconds"],
            "launch_to_end_seconds": one["whole_seconds"],
            "most_seconds_in_reduction": max(one["reduce_seconds"]),
            "most_memory_mib": max(one["peak_memory_mib"]),
        }

    n_thresholds = settings.choose(2, N_THRESHOLDS)
    projected = project(runs[1][-1], n_thresholds * (n_draws + 1), settings)
    for share in ("share", "share_with_agreement_on_these_cores"):
        name = share.replace("share", "communication_share_projected", 1)
        ratios[name] = projected.pop(share)
    absolute["projected"] = projected
    return Measured(ratios, absolute)


def on_ranks(n_ranks: int, case: dict[str, Any]) -> Any:
    """What ``rank_program`` says of a case."""
    done = python("-m", "benchmarks.rank_program", json.dumps(case), n_ranks=n_ranks)
    return {**done.said, "whole_seconds": done.seconds}


def project(one: Mapping[str, Any], n_evaluations: int, settings: Settings) -> dict[str, float]:
    """The share of rank 0's time that goes into messages on 64 ranks; see the module.

    Parameters
    ----------
    one : mapping
        What a run on one rank has found.
    n_evaluations : int
        Draws (the posterior mean too) at thresholds that it has evaluated.
    """
    network, _ = overpruned.problem(1)
    masks = pruning.pruning_masks(
        network.posterior, "threshold", list(np.linspace(0, 2, N_THRESHOLDS))
    )
    costs = costs_of(network.make_evaluator(1, 1), network.posterior, masks)
    size = bytes_per_cell(overpruned.SIZES[-1])
    defaults = configuration.parse(["--model_dir=none"])
    plan = make_plan(
        n_draws=_N_DRAWS, pairing="antithetic", n_thresholds=N_THRESHOLDS, n_examples=_N_EXAMPLES,
        bytes_per_cell=size, batch_size=defaults.batch_size,
        limit_bytes=defaults.state_limit_gb * 2**30,
    )  # fmt: skip
    evaluation_s = sum(one["evaluate_seconds"]) / n_evaluations
    write_s = sum(one.get("write_seconds", [0.0]))
    group_bytes = size * N_THRESHOLDS * _N_EXAMPLES
    draw_bytes = 2 * 8 * N_THRESHOLDS * _N_DRAWS
    case_bytes = 4 * _N_EXAMPLES * overpruned.SIZES[0] + 2 * 4 * overpruned.N_WEIGHTS
    of_group, of_draws = (
        _message_costs(n_bytes, case_bytes, settings) for n_bytes in (group_bytes, draw_bytes)
    )
    steps = math.ceil(math.log2(_N_RANKS))
    vote_s = steps * of_draws["vote_s"]
    here = _message_costs(0, 0, settings, n_ranks=settings.choose(4, _N_RANKS))["vote_s"]
    in_messages, computing = steps * of_group["broadcast_s"], 0.0
    n_messages = n_supersteps = n_reductions = 0
    pace = Timing(group_bytes * (N_GROUPS + 1))
    pending = PendingReductions.of(plan, _N_RANKS)
    behind: Any = SimpleNamespace(rows=tuple(range(N_THRESHOLDS)), n_passes=0, n_units=0)
    n_units, n_together = len(plan.units), units_at_once(overpruned.N_WEIGHTS)

    def reduce() -> float:
        nonlocal n_messages, n_reductions
        members = pending.participants.values()
        seconds = n_steps(members) * of_group["sum_s"] + _AGREED_A_REDUCTION * vote_s
        n_messages += sum(to == 0 for ranks in members for _, to in messages(ranks))
        n_reductions += 1
        pace.reduced(seconds)
        pending.clear()
        return seconds

    while behind.n_units < n_units:
        superstep = superstep_of(behind, n_units, _N_EXAMPLES, _N_RANKS, pace.n_cells(), n_together)
        of_round = round_of(superstep.units, costs, _N_RANKS)
        if not pending.has_room(of_round):
            in_messages += reduce()
        messages_s = (
            steps * len(superstep.units) / n_units * of_draws["sum_s"] + _AGREED_A_STRETCH * vote_s
        )
        n_cells = len(superstep.units) * N_THRESHOLDS
        computing_s = 2 * n_cells * evaluation_s / _N_RANKS  # two draws a unit
        of_one_rank = -(-n_cells // _N_RANKS) * _N_EXAMPLES
        pace.worked(computing_s + messages_s, computing_s, of_one_rank)
        pending.add(of_round)
        in_messages, computing = in_messages + messages_s, computing + computing_s
        n_supersteps += 1
        behind.n_units = superstep.units.stop
        if pace.is_due or behind.n_units == n_units:
            in_messages += reduce()
            pace.wrote(write_s)
    n_agreed = _AGREED_A_STRETCH * n_supersteps + _AGREED_A_REDUCTION * n_reductions
    as_here = in_messages + n_agreed * (here - vote_s)
    return {
        "share": in_messages / (in_messages + computing),
        "share_with_agreement_on_these_cores": as_here / (as_here + computing),
        "stretches": n_supersteps,
        "reductions": n_reductions,
        "writes": pace.n_writes,
        "group_messages_to_rank_0": n_messages,
        "group_message_bytes": group_bytes,
        "group_message_seconds": of_group["sum_s"],
        "broadcast_seconds": of_group["broadcast_s"],
        "draws_message_seconds": of_draws["sum_s"],
        "agreement_seconds": vote_s,
        "agreement_seconds_on_these_cores": here,
        "seconds_in_messages": in_messages,
        "seconds_computing": computing,
        "ms_per_draw_and_threshold": 1e3 * evaluation_s,
        "received_by_rank_0_gib": (n_messages * group_bytes + steps * draw_bytes) / 2**30,
    }


def _message_costs(
    sum_bytes: int, broadcast_bytes: int, settings: Settings, n_ranks: int = 2
) -> Any:
    divide = settings.choose(100, 1)
    sizes = (str(sum_bytes // divide), str(broadcast_bytes // divide))
    return python("-m", "benchmarks.message_program", *sizes, n_ranks=n_ranks).said
