"""Sums over ranks: every part arrives once, by few messages, and nobody waits in a circle."""

from __future__ import annotations

from collections import Counter, deque
from itertools import pairwise

import numpy as np
import pytest

from bprune_hpc.mpi.reduction_tree import messages, n_steps, pieces
from bprune_hpc.runner.reduction import PendingReductions
from bprune_hpc.runner.work_split import assign

MEMBERS = [(0,), (5,), (0, 1), (3, 4), (0, 1, 2), (2, 3, 5, 9, 10), tuple(range(64)), (0, 63)]


@pytest.mark.parametrize("members", MEMBERS)
def test_every_part_arrives_once(members: tuple[int, ...]) -> None:
    has = {rank: Counter([rank]) for rank in members}
    has.setdefault(0, Counter())
    gone = set()
    for sender, receiver in messages(members):
        assert sender not in gone and receiver not in gone
        has[receiver] += has[sender]
        gone.add(sender)
    assert has[0] == Counter(members)
    assert gone == set(members) - {0}


@pytest.mark.parametrize("members", MEMBERS)
def test_no_rank_receives_more_than_a_tree_needs(members: tuple[int, ...]) -> None:
    received = Counter(receiver for _, receiver in messages(members))
    depth = (len(members) - 1).bit_length()
    assert max(received.values(), default=0) <= max(depth, 1)
    assert 0 in members or received[0] == 1


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ([], 0),
        ([(0,)], 0),
        ([(0, 1)], 1),
        ([(1, 2, 3)], 3),  # two among themselves, and one to rank 0
        ([(1,), (2,), (3,)], 3),
        ([(1, 2), (3, 4), (5, 6)], 4),  # they bring theirs together at the same time
        ([(0, 1, 2, 3), (3, 4)], 3),
    ],
)
def test_sums_of_others_come_together_at_the_same_time(
    sums: list[tuple[int, ...]], expected: int
) -> None:
    assert n_steps(sums) == expected


def test_nobody_has_no_message() -> None:
    assert list(messages(())) == []


@pytest.mark.parametrize("n_ranks", [2, 3, 7, 64])
@pytest.mark.parametrize("n_units", [1, 4, 50])
def test_no_rank_waits_in_a_circle(n_ranks: int, n_units: int) -> None:
    """Ranks that send without a buffer: a message passes when both ends have come to it."""
    pending = PendingReductions(n_ranks)
    pending.add(assign(range(n_units), [3, 2, 1], n_ranks))
    waiting: dict[int, deque[tuple[int, int, int]]] = {rank: deque() for rank in range(n_ranks)}
    for group, members in pending.participants.items():
        for ends in messages(members):
            for rank in ends:
                waiting[rank].append((group, *ends))
    while any(waiting.values()):
        heads = Counter(queue[0] for queue in waiting.values() if queue)
        passed = [message for message, n_ends in heads.items() if n_ends == 2]
        assert passed, waiting
        for message in passed:
            for rank in message[1:]:
                waiting[rank].popleft()


class Numbers:
    is_empty = False

    def __init__(self, n_sums: int, *shape: int) -> None:
        self.arrays = (np.zeros(n_sums, np.int64), np.zeros((n_sums, *shape), np.int64))

    def add(self, at: slice, arrays: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(("n_sums", "width"), [(0, 3), (1, 3), (10**6, 3), (3, 10**6)])
def test_pieces_make_up_the_whole(n_sums: int, width: int) -> None:
    found = list(pieces(Numbers(n_sums, width)))
    ends = [0, *(piece.stop for piece in found)]
    assert [piece.start for piece in found] == ends[:-1] and ends[-1] == n_sums
    sizes = [piece.stop - piece.start for piece in found]
    assert all(one >= other for one, other in pairwise(sizes)) and 0 not in sizes
    assert all(size == 1 or 8 * (1 + width) * size <= 4 * 2**20 for size in sizes)
