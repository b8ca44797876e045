"""A sweep that could begin: all that is decided before the first draw, in one bundle.

A sweep and its estimate are prepared in the same way, so that one refuses what the other does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..blas import limit_threads
from ..config import targets
from ..config.sweep_config import SweepConfig
from ..evaluators.draw_noise import DRAW_NOISES
from ..evaluators.interface import Evaluator
from ..job import device
from ..job.device import PROCESSORS, UsedDevice
from ..job.provenance import Environment, Identity, environment_of
from ..mpi.comm import Comm
from ..posterior.draws import draws_per_replicate, in_whole_replicates
from ..posterior.mean_field import Prior
from ..posterior.model_reduction import ClosedForm, closed_form
from ..posterior.pruning import PruningMask, pruning_masks, tensors_of_units
from . import problem
from .datasets import EvaluationSet, Examples, Layout, check_memory, lay_out
from .evaluation import costs_of
from .network import Network
from .work_split import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedSweep:
    """What a sweep works on and with, the same on every rank.

    Attributes
    ----------
    config : SweepConfig
        What was asked for, together with what a results file has.
    network : Network
    datasets : sequence of EvaluationSet
        The test set first, training data last.
    masks : sequence of PruningMask
        Of every threshold of the grid.
    evaluator : Evaluator
        This rank's.
    costs : sequence of int
        Work of a draw at each threshold; see :func:`bprune_hpc.runner.work_split.split`.
    identity : Identity
        What defines the numbers.
    environment : Environment
        Where they are made; whole on rank 0 only.
    used_device : UsedDevice
        What this rank's evaluator runs on.
    """

    config: SweepConfig
    network: Network
    datasets: Sequence[EvaluationSet]
    masks: Sequence[PruningMask]
    evaluator: Evaluator
    costs: Sequence[int]
    identity: Identity
    environment: Environment
    used_device: UsedDevice = PROCESSORS

    @property
    def plan(self) -> Plan:
        """Of the test set; replicates and stages are those of every set."""
        return self.datasets[0].plan

    @cached_property
    def passes(self) -> list[list[tuple[int, range]]]:
        """Blocks of examples, by the index of their set, whose sums are held at the same time."""
        sets = enumerate(self.datasets)
        blocks = [(index, block) for index, dataset in sets for block in dataset.plan.blocks]
        is_one_pass = len(blocks) == len(self.datasets)
        return [blocks] if is_one_pass else [[block] for block in blocks]

    def kept(self, n_passes: int) -> list[tuple[int, range]]:
        """Blocks of a pass that have sums of each example: the first ones, in the same order."""
        return [
            (index, block)
            for index, block in self.passes[n_passes]
            if self.datasets[index].keeps_examples
        ]

    @cached_property
    def closed_form(self) -> ClosedForm:
        """What is known of the free energy at every threshold of the grid without a draw."""
        names, scale = self.network.posterior.names, self.config.prior_scale
        known = self.network.prior if scale is None else dict.fromkeys(names, Prior(0.0, scale))
        assert known is not None
        return closed_form(self.network.posterior, self.masks, known)


@dataclass(frozen=True)
class Joined:
    """What is asked for, together with what a results file has.

    Attributes
    ----------
    layout : Layout or None
        Blocks of examples that the file was begun with.
    """

    config: SweepConfig
    identity: Identity
    layout: Layout | None


Join = Callable[[SweepConfig, Network, Sequence[Examples], int], Joined]
"""Asked on rank 0, with draws in whole replicates, and how many draws a replicate has."""


def prepare(config: SweepConfig, comm: Comm, join: Join) -> PreparedSweep:
    """Read, join and lay out what a sweep does, or refuse it; every rank calls this.

    What can be refused is looked at on rank 0 first, so that it is reported once.

    Raises
    ------
    InputError
        If something that is named cannot be read, or does not fit the rest.
    """
    limit_threads(config.num_intra)
    used = device.take(config.device, comm)
    network, examples = problem.load(config, comm, used.device)
    size = draws_per_replicate(config.pairing, network.task.noises_per_replicate)
    asked = comm.from_root(lambda: _in_whole_parts(config, network, size))
    joined = comm.from_root(lambda: join(asked, network, examples, size))
    config = joined.config
    comm.from_root(lambda: tensors_of_units(network.posterior, config.granularity))
    rule = config.rule(network.prior)
    masks = pruning_masks(network.posterior, config.grid_kind, config.grid, rule)
    datasets = lay_out(config, network.task, examples, len(masks), joined.layout)
    comm.from_root(lambda: check_memory(config, network.task, datasets))
    evaluator = network.make_evaluator(config.num_intra, config.num_inter, used.device)
    costs = [1] * len(masks)  # which count where work is split
    if config.plan or comm.size > 1:
        costs = comm.from_root(lambda: costs_of(evaluator, network.posterior, masks))
    return PreparedSweep(
        config=config,
        network=network,
        datasets=datasets,
        masks=masks,
        evaluator=evaluator,
        costs=costs,
        identity=joined.identity,
        environment=environment_of(comm, config.num_intra, config.num_inter, used.environment),
        used_device=used,
    )


def _in_whole_parts(config: SweepConfig, network: Network, size: int) -> SweepConfig:
    """Draws rounded up to what the task takes together, batches to parts of blocks of noise.

    Raises
    ------
    ConfigError
        If what is to be reached is not of this task, or not with so few draws; if there are no
        such batches.
    """
    noise = network.noise(config.seed)
    block = f" of {noise.block} examples" if noise.block else ""
    logger.info(
        "noise of a draw (--draw_noise): %s%s, %s", noise.kind, block, DRAW_NOISES[noise.kind]
    )
    n_draws, task = in_whole_replicates(config.n_draws, size), network.task.name
    targets.check_task(
        config.target, config.limit, config.choose, config.choice, task, n_draws // size, size
    )
    if n_draws != config.n_draws:
        logger.info("draws come %d at a time: --num_monte_carlo rounded up to %d", size, n_draws)
    return replace(config, n_draws=n_draws, batch_size=noise.batch_size(config.batch_size))
