from __future__ import annotations

from collections import Counter

import pytest

from bprune_hpc.posterior.draws import MEAN, N_GROUPS, Draw, group_of, group_sizes, replicates_of
from bprune_hpc.runner.work_split import (
    assign,
    doubling,
    even_number,
    example_blocks,
    make_plan,
    split,
)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5, 7, 64, 500])
@pytest.mark.parametrize(("n_replicates", "n_thresholds"), [(1, 1), (5, 8), (100, 1), (33, 21)])
def test_every_cell_is_done_once_whatever_the_ranks(
    n_ranks: int, n_replicates: int, n_thresholds: int
) -> None:
    partitions = split([MEAN, *range(n_replicates)], [3] * n_thresholds, n_ranks)
    assert len(partitions) == n_ranks
    done = Counter(
        (replicate, t) for partition in partitions for replicate, ts in partition for t in ts
    )
    cells = {
        (replicate, t) for replicate in (MEAN, *range(n_replicates)) for t in range(n_thresholds)
    }
    assert done == Counter(cells)
    sizes = [sum(len(ts) for _, ts in partition) for partition in partitions]
    assert sizes == [len(partition) for partition in partitions]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("n_ranks", [2, 5, 21])
def test_of_few_units_each_rank_has_some_thresholds(n_ranks: int) -> None:
    """What is done once for a threshold is then done by as few ranks as can be."""
    costs = list(range(21, 0, -1))
    partitions = split([MEAN, 0], costs, n_ranks)
    seen = [
        {index for _, thresholds in partition for index in thresholds} for partition in partitions
    ]
    assert sum(len(thresholds) for thresholds in seen) <= 21 + n_ranks - 1
    work = [
        sum(costs[at] for _, thresholds in partition for at in thresholds)
        for partition in partitions
    ]
    assert work == [partition.cost for partition in partitions]
    assert max(work) - min(work) <= 2 * max(costs)
    in_order = [min(thresholds) for thresholds in seen if thresholds]
    assert in_order == sorted(in_order)


def test_groups_are_not_shared_for_the_sake_of_thresholds() -> None:
    assert [len(partition.groups) for partition in split(range(2), [1] * 4, 2)] == [1, 1]
    assert [len(partition.groups) for partition in split([MEAN, 0, 1], [1] * 4, 3)] == [1, 1, 1]


def test_evenness_is_what_ranks_do_while_the_slowest_works() -> None:
    assert assign(range(1, 3), [5, 3], 2).evenness == 1
    assert assign(range(1, 2), [1] * 5, 3).evenness == pytest.approx(5 / 6)  # 2, 2 and 1
    assert assign(range(1, 2), [3, 1], 1).evenness == 1
    assert assign(range(1, 2), [1], 4).evenness == 1 / 4


@pytest.mark.parametrize("n_replicates", [1, 13])
def test_a_share_visits_a_unit_once(n_replicates: int) -> None:
    for partition in split([MEAN, *range(n_replicates)], [1] * 8, 5):
        replicates = [replicate for replicate, _ in partition]
        assert len(replicates) == len(set(replicates))
        assert all(len(thresholds) for _, thresholds in partition)


def test_groups_do_not_depend_on_the_number_of_draws() -> None:
    assert [group_of(replicate) for replicate in (0, 19, 20, 41)] == [0, 19, 0, 1]
    assert group_sizes(3) == [1, 1, 1]
    assert group_sizes(25) == [2] * 5 + [1] * 15
    assert len(group_sizes(1000)) == N_GROUPS and sum(group_sizes(1000)) == 1000


def test_a_rank_of_many_adds_to_few_groups() -> None:
    partitions = split(range(3200), [7] * 21, 64)
    assert max(len(partition.groups) for partition in partitions) <= 3


def test_pairs_take_both_signs() -> None:
    assert replicates_of(4, "antithetic") == [
        (Draw(0, 1, 0), Draw(1, -1, 0)),
        (Draw(2, 1, 1), Draw(3, -1, 1)),
    ]
    assert replicates_of(3, "none") == [(Draw(k, 1, k),) for k in range(3)]
    with pytest.raises(ValueError, match="2 at a time"):
        replicates_of(3, "antithetic")


@pytest.mark.parametrize("n_examples", [1, 9, 10, 11, 95])
@pytest.mark.parametrize("limit", [1, 1000, 2999, 1e9])
def test_blocks_are_whole_batches_within_the_limit(n_examples: int, limit: float) -> None:
    blocks = example_blocks(n_examples, 10, 50, limit)
    assert [i for block in blocks for i in block] == list(range(n_examples))
    for block in blocks:
        assert block.start % 10 == 0
        assert len(block) * 50 <= max(limit, 10 * 50)


def test_the_limit_is_on_all_groups_and_the_mean_together() -> None:
    plan = make_plan(
        n_draws=100, pairing="antithetic", n_thresholds=3, n_examples=50, bytes_per_cell=7,
        batch_size=1, limit_bytes=7 * 21 * 3 * 10,
    )  # fmt: skip
    assert [len(block) for block in plan.blocks] == [10] * 5


def test_batches_are_never_larger_than_the_data() -> None:
    plan = make_plan(
        n_draws=2, pairing="none", n_thresholds=1, n_examples=7, bytes_per_cell=8,
        batch_size=500, limit_bytes=1e9,
    )  # fmt: skip
    assert plan.batch_size == 7


def test_stages_double() -> None:
    assert doubling(50, 1000) == [50, 100, 200, 400, 800, 1000]
    assert doubling(50, 400) == [50, 100, 200, 400]
    assert doubling(50, 50) == [50] and doubling(50, 8) == [8]


@pytest.mark.parametrize("pairing", ["antithetic", "none"])
def test_stages_end_where_whole_units_do(pairing: str) -> None:
    sizes = {"n_thresholds": 3, "n_examples": 7, "bytes_per_cell": 8, "batch_size": 7}
    plan = make_plan(
        n_draws=120, pairing=pairing, limit_bytes=1e9, stage_ends=doubling(50, 120), **sizes
    )
    assert plan.n_draws == 120 and plan.n_thresholds == 3
    ends = (25, 50, 60) if pairing == "antithetic" else (50, 100, 120)
    assert plan.stage_ends == ends
    half = plan.until(ends[1])
    whole = make_plan(n_draws=100, pairing=pairing, limit_bytes=1e9, **sizes)
    assert half == whole


@pytest.mark.parametrize("n_ranks", [1, 2, 7, 64])
def test_rounds_do_every_cell_once_and_begin_with_the_mean(n_ranks: int) -> None:
    done: Counter[tuple[int, int]] = Counter()
    for replicates in (range(1), range(1, 20), range(20, 61)):
        assignment = assign(replicates, [1, 1, 1], n_ranks)
        assert len(assignment.partitions) == n_ranks
        done.update(
            (replicate, t)
            for partition in assignment.partitions
            for replicate, ts in partition
            for t in ts
        )
    assert done == Counter((replicate, t) for replicate in (MEAN, *range(61)) for t in range(3))


@pytest.mark.parametrize(
    ("wanted", "n_thresholds", "n_ranks", "number"),
    [
        (0.0, 8, 1, 1),
        (5.7, 8, 1, 5),
        (0.0, 8, 64, 8),
        (20.0, 8, 64, 16),  # 128 cells: two a rank
        (3.0, 5, 64, 13),  # 65 cells: the least that serve all
        (40.0, 5, 64, 40),
        (70.0, 5, 64, 64),
    ],
)
def test_numbers_that_leave_few_ranks_idle(
    wanted: float, n_thresholds: int, n_ranks: int, number: int
) -> None:
    assert even_number(wanted, n_thresholds, n_ranks) == number


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (0.0, 1),
        (5.0, 4),
        (47.9, 46),
        (48.0, 48),
        (71.9, 48),
        (72.0, 72),
        (150.0, 144),
        (190.0, 190),
    ],
)
def test_ranks_draw_as_many_units_together_as_they_can(wanted: float, number: int) -> None:
    assert even_number(wanted, n_thresholds=21, n_ranks=2, n_together=24) == number


@pytest.mark.parametrize("n_ranks", [1, 2, 7, 64, 200])
def test_ranks_share_the_work_and_not_the_cells(n_ranks: int) -> None:
    costs = [100, 60, 31, 17, 9, 4, 2, 1]
    partitions = split([MEAN, *range(20)], costs, n_ranks)
    cells = [
        (replicate, index)
        for partition in partitions
        for replicate, rows in partition
        for index in rows
    ]
    assert sorted(cells) == [
        (replicate, index) for replicate in [MEAN, *range(20)] for index in range(8)
    ]
    work = [
        sum(costs[index] for _, rows in partition for index in rows) for partition in partitions
    ]
    assert work == [partition.cost for partition in partitions]
    assert max(abs(each - 21 * sum(costs) / n_ranks) for each in work) <= max(costs)
