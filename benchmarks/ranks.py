"""More ranks: twice as fast on two cores, and how little of the time goes into messages.

What 64 ranks on as many cores would wait for messages cannot be measured on two cores. It is
projected from what a message between two ranks costs here:

- Which ranks add to a group, and who sends whom what, the sweep's own plan and tree say. A message
  begins when both ends have come to it; when rank 0 has the last one, the sums are there.
- Network and examples are broadcast in ceil(log2 64) steps.
- The sweep's own loop runs, with a worker and a clock that add up costs.
- What all ranks agree on (whether to stop, what is next, who is there) takes ceil(log2 64) times
  what it takes two. The share is given, too, with what it takes 64 ranks on the cores that there
  are here, waits for a core included: that is too much; the first is too little where rank 0
  hears of each rank by itself.
- Every rank evaluates its share of the draws, as the sweep deals them, at what one costs on one
  rank, measured here.

On a cluster messages between nodes have a lower rate than shared memory; the whole traffic of
rank 0 is given, so that the share can be told for another rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np

from bprune_hpc.accumulators.classification import bytes_per_cell
from bprune_hpc.config import sweep_config as configuration
from bprune_hpc.estimate.cost_model import SimulatedWatch
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.mpi.reduction_tree import messages, n_steps
from bprune_hpc.posterior import pruning
from bprune_hpc.runner import loop
from bprune_hpc.runner.coordinator import Coordinator
from bprune_hpc.runner.datasets import EvaluationSet
from bprune_hpc.runner.evaluation import costs_of
from bprune_hpc.runner.preparation import PreparedSweep
from bprune_hpc.runner.scheduler import Reduce, Superstep, WorkResult
from bprune_hpc.runner.state import SumsOf, SweepState, ThresholdIndices
from bprune_hpc.runner.work_split import assign, make_plan
from bprune_hpc.runner.write_cost import WriteCost

from . import overpruned
from .processes import python
from .record import Measured
from .timing import Settings

THRESHOLDS = "0:2:21"
N_THRESHOLDS = 21
# The projected sweep.
_N_RANKS, _N_DRAWS, N_EXAMPLES = 64, 6_400, 10_000
_AGREED_A_SUPERSTEP = 4  # whether to stop; what is next; who is there; which draws were no numbers
_AGREED_A_REDUCTION = 3  # whether to stop; what is next; who is there


def run(settings: Settings) -> Measured:
    """Measure two ranks against one, many ranks of a tiny network, and messages."""
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    n_examples, n_draws = settings.choose((200, 4), (N_EXAMPLES, 400))
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


@dataclass(frozen=True)
class Messages:
    """Seconds of what two ranks tell each other.

    Attributes
    ----------
    broadcast_s : float
        Network and examples.
    group_s, draws_s : float
        The sums of a group of draws; those of each draw, of all draws.
    vote_s : float
    """

    broadcast_s: float
    group_s: float
    draws_s: float
    vote_s: float

    @classmethod
    def over(cls, latency_s: float, bytes_per_s: float) -> Messages:
        """Over a network of some latency and rate."""
        seconds = {name: latency_s + n / bytes_per_s for name, n in message_bytes().items()}
        return cls(seconds["broadcast"], seconds["group"], seconds["draws"], latency_s)


def message_bytes() -> dict[str, int]:
    """Of the projected sweep."""
    return {
        "broadcast": 4 * N_EXAMPLES * overpruned.SIZES[0] + 2 * 4 * overpruned.N_WEIGHTS,
        "group": bytes_per_cell(overpruned.SIZES[-1]) * N_THRESHOLDS * N_EXAMPLES,
        "draws": 2 * 8 * N_THRESHOLDS * _N_DRAWS,
    }


@dataclass(frozen=True)
class Projected:
    """How the time of the projected sweep passes.

    Attributes
    ----------
    computing_s, messages_s, writing_s : float
        Drawing, until the last rank has drawn; messages; statistics and files, on rank 0 alone.
    n_supersteps, n_reductions, n_writes : int
    n_messages : int
        Of sums of groups, to rank 0.
    """

    computing_s: float
    messages_s: float
    writing_s: float
    n_supersteps: int
    n_reductions: int
    n_writes: int
    n_messages: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.computing_s + self.messages_s + self.writing_s

    @property
    def cells_per_s(self) -> float:
        """Draws (the posterior mean too) at thresholds, each over all examples."""
        return N_THRESHOLDS * (_N_DRAWS + 1) / self.seconds

    @property
    def n_agreed(self) -> int:
        """How often all ranks agree on something."""
        return _AGREED_A_SUPERSTEP * self.n_supersteps + _AGREED_A_REDUCTION * self.n_reductions


def simulate(n_ranks: int, evaluation_s: float, write_s: float, between_two: Messages) -> Projected:
    """Let the sweep's own plan and loop run, with a clock that adds up costs; see the module.

    Parameters
    ----------
    evaluation_s : float
        Of a draw at a threshold, of the mean over thresholds; it is shared out by the costs that
        the sweep deals work by.
    write_s : float
    between_two : Messages
    """
    sweep = _projected_sweep()
    plan = sweep.datasets[0].plan
    steps = math.ceil(math.log2(n_ranks))
    vote_s = steps * between_two.vote_s
    watch = SimulatedWatch()
    worker = _ProjectedWorker(
        watch,
        n_ranks,
        sweep.costs,
        evaluation_s=evaluation_s,
        superstep_s=_AGREED_A_SUPERSTEP * vote_s,
        replicate_s=steps * between_two.draws_s / len(plan.replicates),
        reduction_s=_AGREED_A_REDUCTION * vote_s,
        sum_s=between_two.group_s,
    )

    def write(_: object) -> None:
        with watch.time("write"):
            watch.spend(write_s)

    coordinator = Coordinator(
        sweep, [SweepState(ThresholdIndices(range(N_THRESHOLDS)))], n_ranks, watch, write,
        WriteCost(0.0, 0.0),
    )  # fmt: skip
    loop.run(SerialComm(), worker, coordinator, watch, lambda _: None)
    if coordinator.timing.unsaved_s > 0:
        coordinator.publish()
    return Projected(
        watch.seconds["evaluate"],
        steps * between_two.broadcast_s + watch.seconds["reduce"],
        coordinator.timing.n_writes * write_s,
        worker.n_supersteps,
        worker.n_reductions,
        coordinator.timing.n_writes,
        worker.n_messages,
    )


@cache
def _projected_sweep() -> PreparedSweep:
    network, test = overpruned.problem(1)
    evaluator = network.make_evaluator(1, 1)
    masks = pruning.pruning_masks(
        network.posterior, "threshold", list(np.linspace(0, 2, N_THRESHOLDS))
    )
    costs = costs_of(evaluator, network.posterior, masks)
    defaults = configuration.parse(["--model_dir=none"])
    plan = make_plan(
        n_draws=_N_DRAWS, pairing="antithetic", n_thresholds=N_THRESHOLDS, n_examples=N_EXAMPLES,
        bytes_per_cell=bytes_per_cell(overpruned.SIZES[-1]), batch_size=defaults.batch_size,
        limit_bytes=defaults.state_limit_gb * 2**30,
    )  # fmt: skip
    dataset = EvaluationSet(test.name, test.x, test.label, plan=plan)  # of which there is one pass
    return PreparedSweep(defaults, network, [dataset], masks, evaluator, costs, {}, {})


def project(one: Mapping[str, Any], n_evaluations: int, settings: Settings) -> dict[str, float]:
    """The share of rank 0's time that goes into messages on 64 ranks; see the module.

    Parameters
    ----------
    one : mapping
        What a run on one rank has found.
    n_evaluations : int
        Draws (the posterior mean too) at thresholds that it has evaluated.
    """
    evaluation_s = sum(one["evaluate_seconds"]) / n_evaluations
    write_s = sum(one.get("write_seconds", [0.0]))
    size = message_bytes()
    of_group, of_draws = (
        _message_costs(size[name], size["broadcast"], settings) for name in ("group", "draws")
    )
    costs = Messages(
        of_group["broadcast_s"], of_group["sum_s"], of_draws["sum_s"], of_draws["vote_s"]
    )
    steps = math.ceil(math.log2(_N_RANKS))
    vote_s = steps * costs.vote_s
    here = _message_costs(0, 0, settings, n_ranks=settings.choose(4, _N_RANKS))["vote_s"]
    found = simulate(_N_RANKS, evaluation_s, write_s, costs)
    in_messages, computing = found.messages_s, found.computing_s
    as_here = in_messages + found.n_agreed * (here - vote_s)
    received = found.n_messages * size["group"] + steps * size["draws"]
    return {
        "share": in_messages / (in_messages + computing),
        "share_with_agreement_on_these_cores": as_here / (as_here + computing),
        "stretches": found.n_supersteps,
        "reductions": found.n_reductions,
        "writes": found.n_writes,
        "group_messages_to_rank_0": found.n_messages,
        "group_message_bytes": size["group"],
        "group_message_seconds": costs.group_s,
        "broadcast_seconds": costs.broadcast_s,
        "draws_message_seconds": costs.draws_s,
        "agreement_seconds": vote_s,
        "agreement_seconds_on_these_cores": here,
        "seconds_in_messages": in_messages,
        "seconds_computing": computing,
        "ms_per_draw_and_threshold": 1e3 * evaluation_s,
        "received_by_rank_0_gib": received / 2**30,
    }


@dataclass
class _ProjectedWorker:
    """A worker who lets the time pass that messages and work take; see the module.

    Attributes
    ----------
    costs : sequence of int
        Of a draw, by threshold: what work is dealt by.
    evaluation_s : float
        Of a draw at a threshold, of the mean over thresholds.
    superstep_s, replicate_s : float
        In messages, of a superstep and for each of its replicates.
    reduction_s, sum_s : float
        In messages, of a reduction and for each group's sums that are sent after others.
    """

    watch: SimulatedWatch
    n_ranks: int
    costs: Sequence[int]
    evaluation_s: float
    superstep_s: float
    replicate_s: float
    reduction_s: float
    sum_s: float
    n_messages: int = 0
    n_supersteps: int = 0
    n_reductions: int = 0

    def work(self, superstep: Superstep, sums_of: SumsOf) -> WorkResult:
        """See :class:`bprune_hpc.runner.loop.Worker`."""
        costs = superstep.thresholds.of(self.costs)
        parts = assign(superstep.replicates, costs, self.n_ranks).partitions
        of_slowest = max(part.cost for part in parts) / (sum(self.costs) / len(self.costs))
        computing_s = 2 * of_slowest * self.evaluation_s  # two draws a replicate
        with self.watch.time("evaluate"):
            self.watch.spend(computing_s)
        with self.watch.time("reduce"):
            self.watch.spend(self.superstep_s + len(superstep.replicates) * self.replicate_s)
        self.n_supersteps += 1
        return WorkResult(computing_s=computing_s)

    def reduce(self, step: Reduce, sums_of: SumsOf) -> None:
        """See :class:`bprune_hpc.runner.loop.Worker`."""
        members = step.participants.values()
        with self.watch.time("reduce"):
            self.watch.spend(self.reduction_s + n_steps(members) * self.sum_s)
        self.n_messages += sum(to == 0 for ranks in members for _, to in messages(ranks))
        self.n_reductions += 1


def _message_costs(
    sum_bytes: int, broadcast_bytes: int, settings: Settings, n_ranks: int = 2
) -> Any:
    divide = settings.choose(100, 1)
    sizes = (str(sum_bytes // divide), str(broadcast_bytes // divide))
    return python("-m", "benchmarks.message_program", *sizes, n_ranks=n_ranks).said
