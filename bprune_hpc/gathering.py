"""The work of a sweep on all ranks: sets of examples, blocks of them, stages of draws.

What is evaluated in which order, and when it ends, belongs here; how a share is evaluated does not
(``evaluation``), nor what the sums say (``metrics``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .comm import Comm
from .config import SweepConfig
from .environment import Stopwatch
from .errors import ConfigError
from .evaluation import evaluate
from .evaluators import Evaluator
from .metrics import Metric
from .ood import ood_metrics
from .plan import Plan, doubling, make_plan
from .problem import Problem
from .pruning import PRUNED_SCALE, Cut
from .reduction import reduce_draws, reduce_groups
from .stopping import FIRST_TEST
from .tasks import AnyDrawSums, AnySums

GIB = 2**30


@dataclass(frozen=True)
class Part:
    """A set of examples in a sweep.

    Attributes
    ----------
    problem : Problem
        The network and these examples.
    plan : Plan
        Its stages are the same for every set.
    draw_sums : DrawSums or NormalDrawSums
        This rank's, then those of all ranks on rank 0.
    """

    problem: Problem
    plan: Plan
    draw_sums: AnyDrawSums


class Findings:
    """What a sweep has found after some of its stages.

    Attributes
    ----------
    statistics : list of Statistics or RegressionStatistics
        Of each set of examples, the test set first.
    """

    def __init__(self, parts: Sequence[Part], n_stages: int, save_probabilities: bool) -> None:
        self.statistics: list[Any] = [
            part.problem.task.statistics(
                part.plan.until(n_stages), len(part.problem.label), save_probabilities
            )
            for part in parts
        ]

    @property
    def n_draws(self) -> int:
        """Draws of each example."""
        return int(self.statistics[0].plan.n_draws)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric; to be asked for when all blocks of examples are in."""
        test, *others = self.statistics
        found: dict[str, Metric] = test.metrics()
        for other in others:
            found |= ood_metrics(test.scores(), other.scores(), test.plan.group_sizes)
        return found


def lay_out(config: SweepConfig, problem: Problem, n_thresholds: int, n_ranks: int) -> list[Part]:
    """A plan for every set of examples, the test set first."""
    problems = problem.on_every_set()
    limit_gb = config.state_limit_gb / len(problems)
    parts = []
    for one in problems:
        n_examples = len(one.label)
        plan = make_plan(
            n_draws=config.n_draws,
            pairing=config.pairing,
            n_thresholds=n_thresholds,
            n_examples=n_examples,
            bytes_per_cell=one.task.bytes_per_cell,
            n_ranks=n_ranks,
            batch_size=config.batch_size,
            limit_bytes=limit_gb * GIB,
            noises_per_unit=one.task.noises_per_unit,
            stage_ends=doubling(FIRST_TEST, config.n_draws) if config.target else (),
        )
        parts.append(Part(one, plan, one.task.draw_sums(n_thresholds, config.n_draws)))
    return parts


def check_memory(config: SweepConfig, parts: Sequence[Part]) -> None:
    """Raise where a target needs the sums of all examples at once and they are not allowed that.

    Raises
    ------
    ConfigError
    """
    if config.target is None or all(len(part.plan.blocks) == 1 for part in parts):
        return
    needed = 0
    for part in parts:
        n_groups, n_thresholds = 1 + len(part.plan.group_sizes), part.plan.n_thresholds
        cells = n_groups * n_thresholds * len(part.problem.label)
        needed = max(needed, len(parts) * cells * part.problem.task.bytes_per_cell)
    raise ConfigError(
        f"--target_se: needs the sums of all examples at once; raise --state_limit_gb from "
        f"{config.state_limit_gb:g} to {math.ceil(1000 * needed / GIB) / 1000:g}"
    )


def draw_sums_of(part: Part, findings: Findings) -> AnyDrawSums:
    """Sums of the draws that were taken, which can be fewer than planned."""
    return part.draw_sums.first(findings.n_draws)


def n_cells(parts: Sequence[Part], rank: int) -> int:
    """Cells that a rank has to do in all."""
    return sum(part.plan.n_cells(rank) * len(part.plan.blocks) for part in parts)


def gather(
    comm: Comm,
    evaluator: Evaluator,
    parts: Sequence[Part],
    cuts: Sequence[Cut],
    config: SweepConfig,
    watch: Stopwatch,
    advance: Callable[[int], None],
) -> Findings:
    """Do the work; every rank calls this.

    Returns
    -------
    Findings
        Filled on rank 0 alone.
    """
    stages = parts[0].plan.stages
    findings = Findings(parts, len(stages), config.save_probabilities)
    for blocks in _passes(parts):
        sums: list[dict[int, AnySums]] = [{} for _ in blocks]
        for n_stages, stage in enumerate(stages, 1):
            for (index, block), of_block in zip(blocks, sums, strict=True):
                part = parts[index]
                with watch.time("evaluate"):
                    evaluate(
                        evaluator, part.problem, cuts, part.plan, stage.shares[comm.rank], block,
                        of_block, part.draw_sums, seed=config.seed, advance=advance,
                        pruned_scale=PRUNED_SCALE[config.pruned_weights],
                    )  # fmt: skip
                with watch.time("reduce"):
                    reduce_groups(
                        comm, stage, of_block, part.problem.task, (len(cuts), len(block)),
                        len(part.plan.units[0]),
                    )  # fmt: skip
            if n_stages < len(stages) and config.target is None:
                continue
            if config.target is not None:  # one pass holds everything
                findings = Findings(parts, n_stages, config.save_probabilities)
            if comm.is_root:
                _take_in(findings, parts, blocks, sums)
            if _is_enough(comm, config, findings):
                break
    with watch.time("reduce"):
        for part in parts:
            reduce_draws(comm, part.draw_sums)
    return findings


def _passes(parts: Sequence[Part]) -> list[list[tuple[int, range]]]:
    """Blocks of examples, by the index of their set, whose sums are held at the same time."""
    blocks = [(index, block) for index, part in enumerate(parts) for block in part.plan.blocks]
    return [blocks] if len(blocks) == len(parts) else [[block] for block in blocks]


def _take_in(
    findings: Findings,
    parts: Sequence[Part],
    blocks: Sequence[tuple[int, range]],
    sums: Sequence[dict[int, AnySums]],
) -> None:
    for (index, block), of_block in zip(blocks, sums, strict=True):
        label = parts[index].problem.label[block.start : block.stop]
        findings.statistics[index].add_block(of_block, label)


def _is_enough(comm: Comm, config: SweepConfig, findings: Findings) -> bool:
    target = config.target
    if target is None:
        return False
    return comm.from_root(lambda: target.is_reached(findings.metrics))
