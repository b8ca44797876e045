"""More ranks: twice as fast on two cores, and how little of the time goes into messages.

What 64 ranks on as many cores would wait for messages cannot be measured on two cores. It is
projected from what a message between two ranks costs here:

- A sum of a group over m ranks is a binomial tree, of which rank 0, which is in every one, receives
  ceil(log2 m) messages one after the other. Who is in which group, the plan says.
- Network and examples are broadcast in ceil(log2 64) steps.
- Rank 0 evaluates its draws at its thresholds at what one costs on one rank, measured here.

On a cluster messages between nodes have a lower rate than shared memory; the whole traffic of
rank 0 is given, so that the share can be told for another rate.
"""

from __future__ import annotations

import json
import math
from statistics import median
from typing import Any

from bprune_hpc.plan import MEAN, N_GROUPS, make_plan
from bprune_hpc.predictive import bytes_per_cell

from . import overpruned
from .processes import python
from .record import Measured
from .timing import Settings

THRESHOLDS = "0:2:21"
N_THRESHOLDS = 21
# The projected sweep.
_N_RANKS, _N_DRAWS, _N_EXAMPLES = 64, 6_400, 10_000


def run(settings: Settings) -> Measured:
    """Measure two ranks against one, many ranks of a tiny network, and messages."""
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    n_examples, n_draws = settings.choose((200, 4), (_N_EXAMPLES, 40))
    case = {
        "network": "overpruned",
        "n_examples": n_examples,
        "n_draws": n_draws,
        "thresholds": settings.choose("0,1", THRESHOLDS),
    }
    runs: dict[int, list[Any]] = {1: [], 2: []}
    for _ in range(settings.choose(1, 3)):
        for n_ranks, of_one in runs.items():
            of_one.append(on_ranks(n_ranks, case))
    seconds = {n: median(one["seconds"] for one in of_one) for n, of_one in runs.items()}
    peaks = {n: median(sum(one["peak_gflops"]) for one in of_one) for n, of_one in runs.items()}
    ratios["two_ranks_over_one"] = seconds[1] / seconds[2]
    ratios["two_products_over_one"] = peaks[2] / peaks[1]
    absolute["two_ranks"] = {**case, "seconds": seconds, "peak_gflops": peaks}
    absolute["two_ranks"]["shares_of_reduction"] = [
        [_share(rank) for rank in zip(one["evaluate_seconds"], one["reduce_seconds"], strict=True)]
        for one in runs[2]
    ]

    tiny = {"network": "tiny", "n_examples": 360, "thresholds": "0:2:9"}
    tiny["n_draws"] = settings.choose(20, 640)
    for n_ranks in settings.choose([4], [8, 16, 32, 64]):
        one = on_ranks(n_ranks, tiny)
        reduce, evaluate = sum(one["reduce_seconds"]), sum(one["evaluate_seconds"])
        ratios[f"oversubscribed_communication_share_{n_ranks}"] = _share((evaluate, reduce))
        absolute[f"oversubscribed_{n_ranks}"] = {
            "seconds": one["seconds"],
            "launch_to_end_seconds": one["whole_seconds"],
            "most_seconds_in_reduction": max(one["reduce_seconds"]),
            "most_memory_mib": max(one["peak_memory_mib"]),
        }

    n_thresholds = settings.choose(2, N_THRESHOLDS)
    projected = project(seconds[1] / (n_thresholds * (n_draws + 1)), settings)
    ratios["communication_share_projected"] = projected.pop("share")
    absolute["projected"] = projected
    return Measured(ratios, absolute)


def on_ranks(n_ranks: int, case: dict[str, Any]) -> Any:
    """What ``rank_program`` says of a case."""
    done = python("-m", "benchmarks.rank_program", json.dumps(case), n_ranks=n_ranks)
    return {**done.said, "whole_seconds": done.seconds}


def project(evaluation_s: float, settings: Settings) -> dict[str, float]:
    """The share of rank 0's time that goes into messages on 64 ranks; see the module.

    Parameters
    ----------
    evaluation_s : float
        Seconds of one draw at one threshold.
    """
    n_classes = overpruned.SIZES[-1]
    group_bytes = bytes_per_cell(n_classes) * N_THRESHOLDS * _N_EXAMPLES
    draw_bytes = 2 * 8 * N_THRESHOLDS * _N_DRAWS
    case_bytes = 4 * _N_EXAMPLES * overpruned.SIZES[0] + 2 * 4 * overpruned.N_WEIGHTS
    divide = settings.choose(100, 1)
    sizes = {"group": group_bytes, "draws": draw_bytes}
    messages = {
        name: python(
            "-m", "benchmarks.message_program", str(size // divide), str(case_bytes // divide),
            n_ranks=2,
        ).said
        for name, size in sizes.items()
    }  # fmt: skip
    plan = make_plan(
        n_draws=_N_DRAWS, pairing="antithetic", n_thresholds=N_THRESHOLDS, n_examples=_N_EXAMPLES,
        bytes_per_cell=bytes_per_cell(n_classes), n_ranks=_N_RANKS, batch_size=1000,
        limit_bytes=2**30,
    )  # fmt: skip
    (stage,) = plan.stages
    members = [len({0, *stage.participants(group)}) for group in (MEAN, *range(N_GROUPS))]
    n_group_messages = sum(math.ceil(math.log2(of_group)) for of_group in members)
    steps = math.ceil(math.log2(_N_RANKS))
    in_messages = (
        n_group_messages * messages["group"]["sum_s"]
        + steps * messages["draws"]["sum_s"]
        + steps * messages["group"]["broadcast_s"]
    )
    n_evaluations = sum(
        len(thresholds) * (1 if unit == MEAN else len(plan.units[unit]))
        for unit, thresholds in stage.shares[0]
    )
    computing = evaluation_s * n_evaluations
    return {
        "share": in_messages / (in_messages + computing),
        "group_messages_of_rank_0": n_group_messages,
        "group_message_bytes": group_bytes,
        "group_message_seconds": messages["group"]["sum_s"],
        "broadcast_seconds": messages["group"]["broadcast_s"],
        "draws_message_seconds": messages["draws"]["sum_s"],
        "seconds_in_messages": in_messages,
        "seconds_computing": computing,
        "ms_per_draw_and_threshold": 1e3 * evaluation_s,
        "received_by_rank_0_gib": (n_group_messages * group_bytes + steps * draw_bytes) / 2**30,
    }


def _share(seconds: tuple[float, float]) -> float:
    evaluate, reduce = seconds
    return reduce / (evaluate + reduce)
