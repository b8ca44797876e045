from __future__ import annotations

from collections import Counter

import pytest

from bprune_hpc.plan import (
    MEAN,
    N_GROUPS,
    Draw,
    doubling,
    example_blocks,
    group_of,
    group_sizes,
    make_plan,
    split,
    units_of,
)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5, 7, 64, 500])
@pytest.mark.parametrize(("n_units", "n_thresholds"), [(1, 1), (5, 8), (100, 1), (33, 21)])
def test_every_cell_is_done_once_whatever_the_ranks(
    n_ranks: int, n_units: int, n_thresholds: int
) -> None:
    shares = split([MEAN, *range(n_units)], n_thresholds, n_ranks)
    assert len(shares) == n_ranks
    done = Counter((unit, t) for share in shares for unit, ts in share for t in ts)
    cells = {(unit, t) for unit in (MEAN, *range(n_units)) for t in range(n_thresholds)}
    assert done == Counter(cells)
    sizes = [sum(len(ts) for _, ts in share) for share in shares]
    assert sizes == [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_a_share_visits_a_unit_once() -> None:
    for share in split([MEAN, *range(13)], 8, 5):
        units = [unit for unit, _ in share]
        assert len(units) == len(set(units))
        assert all(len(thresholds) for _, thresholds in share)


def test_groups_do_not_depend_on_the_number_of_draws() -> None:
    assert [group_of(unit) for unit in (0, 19, 20, 41)] == [0, 19, 0, 1]
    assert group_sizes(3) == [1, 1, 1]
    assert group_sizes(25) == [2] * 5 + [1] * 15
    assert len(group_sizes(1000)) == N_GROUPS and sum(group_sizes(1000)) == 1000


def test_a_rank_of_many_adds_to_few_groups() -> None:
    shares = split(range(3200), 21, 64)
    assert max(len(share.groups) for share in shares) <= 3


def test_participants_are_those_whose_share_touches_the_group() -> None:
    plan = make_plan(
        n_draws=20, pairing="antithetic", n_thresholds=3, n_examples=10, bytes_per_cell=8,
        n_ranks=4, batch_size=4, limit_bytes=1e9,
    )  # fmt: skip
    (stage,) = plan.stages
    for group in (MEAN, *range(len(plan.group_sizes))):
        ranks = [
            rank
            for rank, share in enumerate(stage.shares)
            if any(group_of(unit) == group for unit, _ in share)
        ]
        assert stage.participants(group) == tuple(ranks)
    assert plan.n_draws == 20 and plan.n_thresholds == 3


def test_pairs_take_both_signs() -> None:
    assert units_of(4, "antithetic") == [
        (Draw(0, 1, 0), Draw(1, -1, 0)),
        (Draw(2, 1, 1), Draw(3, -1, 1)),
    ]
    assert units_of(3, "none") == [(Draw(k, 1, k),) for k in range(3)]
    with pytest.raises(ValueError, match="2 at a time"):
        units_of(3, "antithetic")


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
        n_ranks=1, batch_size=1, limit_bytes=7 * 21 * 3 * 10,
    )  # fmt: skip
    assert [len(block) for block in plan.blocks] == [10] * 5


def test_batches_are_never_larger_than_the_data() -> None:
    plan = make_plan(
        n_draws=2, pairing="none", n_thresholds=1, n_examples=7, bytes_per_cell=8,
        n_ranks=1, batch_size=500, limit_bytes=1e9,
    )  # fmt: skip
    assert plan.batch_size == 7


def test_stages_double() -> None:
    assert doubling(50, 1000) == [50, 100, 200, 400, 800, 1000]
    assert doubling(50, 400) == [50, 100, 200, 400]
    assert doubling(50, 50) == [50] and doubling(50, 8) == [8]


@pytest.mark.parametrize("n_ranks", [1, 2, 7, 64])
@pytest.mark.parametrize("pairing", ["antithetic", "none"])
def test_stages_do_every_cell_once_and_begin_with_the_mean(n_ranks: int, pairing: str) -> None:
    sizes = {"n_thresholds": 3, "n_examples": 7, "bytes_per_cell": 8, "n_ranks": n_ranks}
    plan = make_plan(
        n_draws=120, pairing=pairing, batch_size=7, limit_bytes=1e9,
        stage_ends=doubling(50, 120), **sizes,
    )  # fmt: skip
    n_units = 60 if pairing == "antithetic" else 120
    ends = [25, 50, 60] if pairing == "antithetic" else [50, 100, 120]
    assert [stage.units.stop for stage in plan.stages] == ends
    done: Counter[tuple[int, int]] = Counter()
    for index, stage in enumerate(plan.stages):
        cells = [(unit, t) for share in stage.shares for unit, ts in share for t in ts]
        assert {unit for unit, _ in cells} == {*stage.units, *([MEAN] if index == 0 else [])}
        done.update(cells)
    assert done == Counter((unit, t) for unit in (MEAN, *range(n_units)) for t in range(3))
    assert sum(plan.n_cells(rank) for rank in range(n_ranks)) == done.total()
    half = plan.until(2)
    assert half.n_draws == 100 and half.stages == plan.stages[:2]
    whole = make_plan(n_draws=100, pairing=pairing, batch_size=7, limit_bytes=1e9, **sizes)
    assert (half.units, half.group_sizes) == (whole.units, whole.group_sizes)
