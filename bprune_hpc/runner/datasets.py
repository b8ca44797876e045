"""What a sweep is made of: sets of examples, each with its plan, and passes over blocks of them.

Where blocks begin and end is decided once, when a results file is begun; a resume takes what the
file says. Doing the work does not belong here (``runner.loop``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config.sweep_config import SweepConfig
from ..errors import ConfigError
from ..metrics.stopping import FIRST_TEST
from .problem import Problem
from .work_split import Plan, doubling, make_plan

GIB = 2**30

Layout = list[list[tuple[int, int]]]
"""First example of each block and the one behind its last, for each set of examples."""


@dataclass(frozen=True)
class Part:
    """A set of examples in a sweep.

    Attributes
    ----------
    problem : Problem
        The network and these examples.
    plan : Plan
        Its stages are the same for every set.
    """

    problem: Problem
    plan: Plan


def lay_out(
    config: SweepConfig, problem: Problem, n_thresholds: int, layout: Layout | None = None
) -> list[Part]:
    """A plan for every set of examples, the test set first.

    Parameters
    ----------
    layout : Layout, optional
        Blocks as they are; without, as few as fit in the limit.
    """
    problems = problem.on_every_set()
    limit_gb = config.state_limit_gb / len(problems)
    parts = []
    for index, one in enumerate(problems):
        plan = make_plan(
            n_draws=config.n_draws,
            pairing=config.pairing,
            n_thresholds=n_thresholds,
            n_examples=len(one.label),
            bytes_per_cell=one.task.bytes_per_cell,
            batch_size=config.batch_size,
            limit_bytes=limit_gb * GIB,
            noises_per_unit=one.task.noises_per_unit,
            stage_ends=doubling(FIRST_TEST, config.n_draws) if config.target else (),
        )
        if layout is not None:
            plan = replace(plan, blocks=tuple(range(*ends) for ends in layout[index]))
        parts.append(Part(one, plan))
    return parts


def layout_of(parts: Sequence[Part]) -> Layout:
    """The blocks of a sweep."""
    return [[(block.start, block.stop) for block in part.plan.blocks] for part in parts]


def passes(parts: Sequence[Part]) -> list[list[tuple[int, range]]]:
    """Blocks of examples, by the index of their set, whose sums are held at the same time."""
    blocks = [(index, block) for index, part in enumerate(parts) for block in part.plan.blocks]
    return [blocks] if len(blocks) == len(parts) else [[block] for block in blocks]


def state_bytes(parts: Sequence[Part], *, whole: bool = False) -> int:
    """Bytes of the exact sums of a pass, at most; or were all examples taken in one."""
    return len(parts) * max(_bytes_of(part, whole) for part in parts)


def _bytes_of(part: Part, whole: bool) -> int:
    n_groups = 1 + len(part.plan.group_sizes)
    largest = max(len(block) for block in part.plan.blocks)
    n_examples = len(part.problem.label) if whole else largest
    return n_groups * part.plan.n_thresholds * n_examples * part.problem.task.bytes_per_cell


def check_memory(config: SweepConfig, parts: Sequence[Part]) -> None:
    """Raise where sums are not allowed the memory that they need.

    A target needs the sums of all examples at once; a file that was begun needs those of its
    blocks, of which one batch is the least.

    Raises
    ------
    ConfigError
    """
    if config.target is not None and any(len(part.plan.blocks) > 1 for part in parts):
        raise ConfigError(
            "--target_se: needs the sums of all examples at once; "
            + _raise_limit(config, state_bytes(parts, whole=True))
        )
    too_large = any(
        _bytes_of(part, False) * len(parts) > config.state_limit_gb * GIB
        and len(part.plan.blocks[0]) > part.plan.batch_size
        for part in parts
    )
    if too_large:
        raise ConfigError(
            f"{config.output}: its blocks of examples, with these thresholds and draws, need more "
            f"memory than is allowed; {_raise_limit(config, state_bytes(parts))}, or choose "
            "another --output"
        )


def _raise_limit(config: SweepConfig, n_bytes: int) -> str:
    enough = math.ceil(1000 * n_bytes / GIB) / 1000
    return f"raise --state_limit_gb from {config.state_limit_gb:g} to {enough:g}"
