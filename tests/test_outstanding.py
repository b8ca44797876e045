"""Which ranks have what rank 0 lacks: after any rounds, and never much more than a round needs."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from bprune_hpc.outstanding import Outstanding, most_groups_held
from bprune_hpc.plan import MEAN, N_GROUPS, round_of


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8, 64])
def test_all_that_was_added_to_is_brought_together_by_those_who_did(n_ranks: int) -> None:
    chance, outstanding = random.Random(n_ranks), Outstanding(n_ranks)
    expected: dict[int, set[int]] = defaultdict(set)
    at = 0
    for _ in range(6):
        of_round = round_of(range(at, at + chance.randint(1, 90)), [3, 2, 1], n_ranks)
        at = of_round.units.stop
        outstanding.add(of_round)
        for rank, share in enumerate(of_round.shares):
            for unit, _thresholds in share:
                expected[MEAN if unit == MEAN else unit % N_GROUPS].add(rank)
    participants = outstanding.participants
    assert {group: set(ranks) for group, ranks in participants.items()} == expected
    assert all(list(ranks) == sorted(set(ranks)) for ranks in participants.values())
    assert bool(outstanding) == (n_ranks > 1)
    outstanding.clear()
    assert not outstanding and outstanding.participants == {}


def test_what_rank_0_has_itself_is_not_outstanding() -> None:
    outstanding = Outstanding(3)
    of_round = round_of(range(1, 2), [1], 3)
    assert [len(share) for share in of_round.shares].count(1) == 1
    alone = [rank for rank, share in enumerate(of_round.shares) if len(share)] == [0]
    outstanding.add(of_round)
    assert bool(outstanding) != alone


@pytest.mark.parametrize("n_ranks", [2, 3, 8, 64])
def test_a_rank_never_holds_much_more_than_a_round_asks_for(n_ranks: int) -> None:
    chance, n_kept = random.Random(n_ranks), 0
    for _ in range(200):
        outstanding, at = Outstanding(n_ranks), 0
        for _ in range(8):
            of_round = round_of(range(at, at + chance.randint(1, 200)), [5, 2, 1], n_ranks)
            at = of_round.units.stop
            n_kept += bool(outstanding) and outstanding.has_room(of_round)
            if not outstanding.has_room(of_round):
                outstanding.clear()
                assert outstanding.has_room(of_round)
            outstanding.add(of_round)
            held = [
                sum(rank in ranks for ranks in outstanding.participants.values())
                for rank in range(1, n_ranks)
            ]
            of_one = max(len(share.groups) for share in of_round.shares[1:])
            assert max(held) <= most_groups_held(of_round) <= 1.25 * of_one + 3
            assert most_groups_held(of_round) <= N_GROUPS + 1
    assert n_kept > 200


@pytest.mark.parametrize("n_ranks", [2, 5, 64])
def test_rounds_as_long_as_each_other_are_brought_together_once(n_ranks: int) -> None:
    outstanding, at = Outstanding(n_ranks), 0
    for number in (600, 640, 600, 655, 601, 677):
        of_round = round_of(range(at, at + number), [7] * 21, n_ranks)
        at = of_round.units.stop
        assert outstanding.has_room(of_round)
        outstanding.add(of_round)


def test_two_ranks_bring_nothing_together_for_the_first_rounds() -> None:
    outstanding, at = Outstanding(2), 0
    for number in (1, 48, 151):  # of which the first tells the pace
        of_round = round_of(range(at, at + number), [7] * 21, 2)
        at = of_round.units.stop
        assert outstanding.has_room(of_round)
        outstanding.add(of_round)
