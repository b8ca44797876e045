"""Which ranks have what rank 0 lacks: after any rounds, and never much more than a round needs."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from bprune_hpc.posterior.draws import MEAN, N_GROUPS
from bprune_hpc.runner.reduction import PendingReductions, most_groups_held
from bprune_hpc.runner.work_split import assign


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8, 64])
def test_all_that_others_added_to_is_brought_together_by_those_who_did(n_ranks: int) -> None:
    chance, pending = random.Random(n_ranks), PendingReductions(n_ranks)
    expected: dict[int, set[int]] = defaultdict(set)
    at = 0
    for _ in range(6):
        stop = at + chance.randint(1, 90)
        assignment, at = assign(range(at, stop), [3, 2, 1], n_ranks), stop
        pending.add(assignment)
        for rank, partition in enumerate(assignment.partitions):
            for replicate, _thresholds in partition:
                expected[MEAN if replicate == MEAN else replicate % N_GROUPS].add(rank)
    participants = pending.participants
    of_others = {group: ranks for group, ranks in expected.items() if ranks != {0}}
    assert {group: set(ranks) for group, ranks in participants.items()} == of_others
    assert all(list(ranks) == sorted(set(ranks)) for ranks in participants.values())
    assert bool(pending) == (n_ranks > 1)
    pending.clear()
    assert not pending and pending.participants == {}


def test_what_rank_0_alone_has_is_not_outstanding_and_leaves_no_trace() -> None:
    pending = PendingReductions(2)
    alone = assign(range(1, 2), [10], 2)
    assert [len(partition) for partition in alone.partitions] == [1, 0]
    pending.add(alone)
    assert not pending and pending.participants == {}
    pending.add(assign(range(2, 4), [10], 2))  # perhaps of the next pass
    assert pending and pending.participants == {3: (1,)}


@pytest.mark.parametrize("n_replicates", [20, 100, 1000])
@pytest.mark.parametrize("n_ranks", [2, 3, 8, 21, 42, 64])
def test_a_rank_never_holds_more_than_is_said(n_ranks: int, n_replicates: int) -> None:
    chance, costs = random.Random(n_ranks), [5] * 21
    most, n_kept = most_groups_held(n_replicates, 21, n_ranks), 0
    assert most <= N_GROUPS + 1
    for _ in range(30):
        pending, at = PendingReductions(n_ranks, most), 0
        while at < n_replicates:
            stop = min(at + chance.randint(1, chance.choice([3, 30, 300])), n_replicates)
            assignment = assign(range(at, stop), costs, n_ranks)
            at = stop
            n_kept += bool(pending) and pending.has_room(assignment)
            if not pending.has_room(assignment):
                pending.clear()
            assert pending.has_room(assignment)
            pending.add(assignment)
            ranks = [rank for ranks in pending.participants.values() for rank in ranks]
            assert max(ranks.count(rank) for rank in range(1, n_ranks)) <= most
    assert n_kept > 30 or n_replicates == 20


@pytest.mark.parametrize("n_ranks", [2, 5, 64])
def test_rounds_as_long_as_each_other_are_brought_together_once(n_ranks: int) -> None:
    pending, at = PendingReductions(n_ranks, most_groups_held(3773, 21, n_ranks)), 0
    for number in (600, 640, 600, 655, 601, 677):
        assignment, at = assign(range(at, at + number), [7] * 21, n_ranks), at + number
        assert pending.has_room(assignment)
        pending.add(assignment)


def test_two_ranks_bring_nothing_together_for_the_first_rounds() -> None:
    pending, at = PendingReductions(2, most_groups_held(200, 21, 2)), 0
    for number in (1, 48, 151):  # of which the first tells the pace
        assignment, at = assign(range(at, at + number), [7] * 21, 2), at + number
        assert pending.has_room(assignment)
        pending.add(assignment)
