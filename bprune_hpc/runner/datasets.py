"""Sets of examples that a sweep evaluates, each with its plan.

Where blocks begin and end is decided once, when a results file is begun; a resume takes what the
file says. Doing the work does not belong here (``runner.loop``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.sweep_config import SweepConfig
from ..errors import ConfigError
from ..metrics.stopping import FIRST_TEST
from ..metrics.tasks import Task
from .work_split import Plan, doubling, make_plan

GIB = 2**30

Layout = list[list[tuple[int, int]]]
"""First example of each block and the one behind its last, for each set of examples."""


TEST_SET, OUT_OF_DISTRIBUTION, TRAINING = "test set", "out of distribution", "training data"


@dataclass(frozen=True)
class DataRecord:
    """What was done to examples, and what their labels are called.

    Attributes
    ----------
    scaling : str
        Type of the examples as stored, and what they were multiplied by.
    scale : str
        The latter alone: ``none``, ``1/255``, ...
    classes : tuple of str or None
        Names of the classes, where the labels are text.
    choices : mapping of str to str
        By flag, what decides the examples and is not at its default.
    """

    scaling: str = ""
    scale: str = "none"
    classes: tuple[str, ...] | None = None
    choices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """Examples that a network is given.

    Attributes
    ----------
    name : str
        What they are to the sweep: :data:`TEST_SET`, :data:`OUT_OF_DISTRIBUTION` or
        :data:`TRAINING`.
    x : array, shape (n_examples, ...)
        In the shape that the network takes.
    label : array, shape (n_examples,), or None
        Class numbers, int64 in [0, n_classes); or targets, float64. None: there are none, and no
        number that needs them.
    record : DataRecord
    """

    name: str
    x: NDArray[Any]
    label: NDArray[Any] | None = None
    record: DataRecord = field(default_factory=DataRecord)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def keeps_examples(self) -> bool:
        """Whether sums are kept of each example; else of each draw alone, over all examples.

        The free energy needs no more, so that training data of any size take no memory for sums.
        """
        return self.name != TRAINING

    @property
    def summed_label(self) -> NDArray[Any]:
        """What sums are made with, which are laid out for a label: class 0 where there is none.

        So ``/state`` has always held them. What is shown of examples without labels has no part
        that depends on it.
        """
        return np.zeros(len(self), np.int64) if self.label is None else self.label


@dataclass(frozen=True)
class EvaluationSet(Examples):
    """Examples in a sweep.

    Attributes
    ----------
    plan : Plan
        Its replicates and stages are the same for every set.
    first_example : int
        Position of the first one in the whole data set, which decides noise of its own.
    """

    plan: Plan = field(kw_only=True)
    first_example: int = 0

    def few(self, most: int) -> EvaluationSet:
        """The first of them."""
        label = None if self.label is None else self.label[:most]
        return replace(self, x=self.x[:most], label=label)


def lay_out(
    config: SweepConfig,
    task: Task,
    sets: Sequence[Examples],
    n_thresholds: int,
    layout: Layout | None = None,
) -> list[EvaluationSet]:
    """A plan for every set of examples, the test set first; what has no sums of examples last.

    Parameters
    ----------
    layout : Layout, optional
        Blocks as they are; without, as few as fit in the limit.
    """
    limit_gb = config.state_limit_gb / sum(examples.keeps_examples for examples in sets)
    datasets = []
    for index, examples in enumerate(sets):
        plan = make_plan(
            n_draws=config.n_draws,
            pairing=config.pairing,
            n_thresholds=n_thresholds,
            n_examples=len(examples),
            bytes_per_cell=task.bytes_per_cell if examples.keeps_examples else 0,
            batch_size=config.batch_size,
            limit_bytes=limit_gb * GIB,
            noises_per_replicate=task.noises_per_replicate,
            stage_ends=doubling(FIRST_TEST, config.n_draws) if config.target else (),
        )
        if layout is not None:
            plan = replace(plan, blocks=tuple(range(*ends) for ends in layout[index]))
        datasets.append(EvaluationSet(**vars(examples), plan=plan))
    return datasets


def layout_of(datasets: Sequence[EvaluationSet]) -> Layout:
    """The blocks of a sweep."""
    return [[(block.start, block.stop) for block in dataset.plan.blocks] for dataset in datasets]


def state_bytes(task: Task, datasets: Sequence[EvaluationSet], *, whole: bool = False) -> int:
    """Bytes of the exact sums of a pass, at most; or were all examples taken in one."""
    kept = [dataset for dataset in datasets if dataset.keeps_examples]
    return len(kept) * max(_bytes_of(task, dataset, whole) for dataset in kept)


def _bytes_of(task: Task, dataset: EvaluationSet, whole: bool) -> int:
    plan = dataset.plan
    n_groups = 1 + len(plan.group_sizes)
    n_examples = len(dataset) if whole else max(len(block) for block in plan.blocks)
    return n_groups * plan.n_thresholds * n_examples * task.bytes_per_cell


def check_memory(config: SweepConfig, task: Task, datasets: Sequence[EvaluationSet]) -> None:
    """Raise where sums are not allowed the memory that they need.

    A target needs the sums of all examples at once; a file that was begun needs those of its
    blocks, of which one batch is the least.

    Raises
    ------
    ConfigError
    """
    if config.target is not None and any(len(dataset.plan.blocks) > 1 for dataset in datasets):
        raise ConfigError(
            "--target_se: needs the sums of all examples at once; "
            + _raise_limit(config, state_bytes(task, datasets, whole=True))
        )
    kept = [dataset for dataset in datasets if dataset.keeps_examples]
    too_large = any(
        _bytes_of(task, dataset, False) * len(kept) > config.state_limit_gb * GIB
        and len(dataset.plan.blocks[0]) > dataset.plan.batch_size
        for dataset in kept
    )
    if too_large:
        limit = _raise_limit(config, state_bytes(task, datasets))
        raise ConfigError(
            f"{config.output}: its blocks of examples, with these thresholds and draws, need more "
            f"memory than is allowed; {limit}, or choose another --output"
        )


def _raise_limit(config: SweepConfig, n_bytes: int) -> str:
    enough = math.ceil(1000 * n_bytes / GIB) / 1000
    return f"raise --state_limit_gb from {config.state_limit_gb:g} to {enough:g}"
