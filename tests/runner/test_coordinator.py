"""What the ranks are told to do, by a loop whose worker does nothing but remember."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.estimate.cost_model import SimulatedWatch
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner import loop
from bprune_hpc.runner.coordinator import Coordinator
from bprune_hpc.runner.reduction import most_groups_held
from bprune_hpc.runner.scheduler import Reduce, Superstep, WorkResult
from bprune_hpc.runner.state import SumsOf, SweepState
from bprune_hpc.runner.work_split import assign
from bprune_hpc.runner.write_cost import WriteCost
from tests.helpers import fake_problem

N_THRESHOLDS = 3


@dataclass
class Ranks:
    """All ranks: which groups each holds, and which of them rank 0 was told of."""

    n_ranks: int
    watch: SimulatedWatch
    replicate_s: float
    held: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    most_held: int = 0
    steps: list[Superstep | Reduce] = field(default_factory=list)

    def work(self, superstep: Superstep, sums_of: SumsOf) -> WorkResult:
        self.steps.append(superstep)
        partitions = assign(superstep.replicates, [1] * N_THRESHOLDS, self.n_ranks).partitions
        for rank, partition in enumerate(partitions):
            self.held[rank] |= partition.groups
        others = [len(groups) for rank, groups in self.held.items() if rank]
        self.most_held = max([self.most_held, *others])
        seconds = self.replicate_s * len(superstep.replicates)
        self.watch.spend(seconds)
        return WorkResult(computing_s=seconds)

    def reduce(self, step: Reduce, sums_of: SumsOf) -> None:
        self.steps.append(step)
        for rank in range(1, self.n_ranks):
            told = {group for group, ranks in step.participants.items() if rank in ranks}
            assert told == self.held.pop(rank, set())
        self.watch.spend(0.1)


def coordinated(
    n_ranks: int, n_draws: int, replicate_s: float, write_s: float, *flags: str
) -> tuple[Ranks, list[int]]:
    """A whole sweep on so many ranks; and how many replicates there were at each write."""
    asked = sweep_config.parse(
        ["--model_dir=fake", "--thresholds=0,0.5,1", f"--num_monte_carlo={n_draws}", *flags]
    )
    prepared = fake_problem.prepared(asked)
    ranks, written = Ranks(n_ranks, SimulatedWatch(), replicate_s), []

    def publish(coordinator: Coordinator) -> None:
        assert not ranks.held.keys() - {0}, "sums that rank 0 has not got"
        written.append(coordinator.sweep_states[0].n_replicates)
        ranks.watch.spend(write_s)

    coordinator = Coordinator(
        prepared, [SweepState(tuple(range(N_THRESHOLDS)))], n_ranks, ranks.watch,
        publish, WriteCost(0.0, 0.0), lambda _: {},
    )  # fmt: skip
    assert loop.run(SerialComm(), ranks, coordinator, ranks.watch, lambda _: None) is None
    assert coordinator.is_complete and not ranks.held.keys() - {0}
    return ranks, written


@pytest.mark.parametrize("write_s", [0.0, 20.0])
@pytest.mark.parametrize("replicate_s", [0.02, 1.0, 3.0, 14.0])
@pytest.mark.parametrize("n_ranks", [2, 3, 8, 16, 64])
def test_no_rank_holds_more_than_is_planned_for(
    n_ranks: int, replicate_s: float, write_s: float
) -> None:
    ranks, written = coordinated(n_ranks, 3000, replicate_s, write_s)
    assert ranks.most_held <= most_groups_held(1500, N_THRESHOLDS, n_ranks)
    assert written == sorted(written)
    done = [
        replicate
        for step in ranks.steps
        if isinstance(step, Superstep)
        for replicate in step.replicates
    ]
    assert done == list(range(1500))


def test_sums_stay_with_ranks_until_a_write_or_until_there_is_no_room() -> None:
    ranks, written = coordinated(2, 1200, 1.0, 0.1)
    reductions = [step for step in ranks.steps if isinstance(step, Reduce)]
    assert len(reductions) <= len(written) + 1 and not any(one.is_forced for one in reductions)
    # Rounds of a thousand seconds, in supersteps of a few replicates: of other groups each.
    crowded, _ = coordinated(8, 4000, 3.0, 20.0)
    assert any(step.is_forced for step in crowded.steps if isinstance(step, Reduce))


def test_what_a_pass_needs_comes_together_before_it_ends() -> None:
    ranks, _ = coordinated(2, 40, 1.0, 0.1, "--batch_size=10", "--state_limit_gb=1e-9")
    of_passes: defaultdict[int, list[type]] = defaultdict(list)
    for step in ranks.steps:
        of_passes[step.n_passes].append(type(step))
    assert len(of_passes) == 5
    assert all(steps[-1] is Reduce for steps in of_passes.values())
