from __future__ import annotations

import pytest

from bprune_hpc.job.deadline import SPARE_S, Deadline
from bprune_hpc.job.signals import StopSignals
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner.loop import StopVote
from bprune_hpc.runner.scheduler import Superstep, stops, superstep_of
from bprune_hpc.runner.state import SweepState
from bprune_hpc.runner.timing import FIRST_ROUND_S, ROUND_S, SUPERSTEP_S, WRITE_SHARE, Timing


@pytest.mark.parametrize("besides_s", [0.0, 0.5])
@pytest.mark.parametrize(("write_s", "item_s"), [(0.1, 0.01), (3.0, 0.2), (20.0, 40.0)])
def test_rounds_grow_to_a_minute_and_writing_stays_below_its_share(
    write_s: float, item_s: float, besides_s: float
) -> None:
    """A day's clock, without the day: work takes what it takes, and a fifth more at first."""
    timing, rounds, worked, now = Timing(), [], 0.0, 0.0
    while now < 86400:
        wanted = timing.n_items()
        n_items = max(int(wanted or 0) // 100, 1)
        computing_s = n_items * item_s * (1.2 if now < 1 else 1.0)
        seconds = computing_s + besides_s
        timing.worked(seconds, computing_s, n_items * 100)
        worked, now = worked + seconds, now + seconds
        if timing.is_due:
            rounds.append(worked)
            timing.wrote(write_s)
            worked, now = 0.0, now + write_s
    assert rounds[0] >= min(0.5 * FIRST_ROUND_S, item_s)
    assert rounds[0] <= max(1.5 * FIRST_ROUND_S, 1.2 * item_s + besides_s)
    long = max(ROUND_S, write_s / WRITE_SHARE)
    most = long + 2 * item_s + 2 * besides_s
    assert all(0.5 * long <= seconds <= most for seconds in rounds[1:])
    assert len(rounds) * write_s < 1.1 * WRITE_SHARE * 86400
    assert timing.slowest_round_s == pytest.approx(max(rounds))
    assert timing.slowest_write_s == write_s


@pytest.mark.parametrize("besides_s", [0.1, 0.6, 3.0])
def test_signals_are_looked_at_often_where_that_costs_little(besides_s: float) -> None:
    timing, supersteps = Timing(), []
    timing.worked(0.1 + besides_s, 0.1, 10)
    timing.wrote(0.1)
    while not timing.is_due:
        n_items = timing.n_items()
        assert n_items
        supersteps.append(n_items * 0.01)
        timing.worked(supersteps[-1] + besides_s, supersteps[-1], n_items)
    assert max(supersteps) <= max(SUPERSTEP_S, besides_s / WRITE_SHARE) + 1e-6
    assert len(supersteps) <= max(1, 1.0001 * WRITE_SHARE * ROUND_S / besides_s)
    assert sum(supersteps) >= 0.8 * ROUND_S


def test_nothing_new_is_never_due() -> None:
    timing = Timing()
    assert not timing.is_due and timing.n_items() is None
    timing.worked(1000.0, 1000.0, 10)
    assert timing.is_due and timing.n_items() == 0
    timing.wrote(1.0)
    assert not timing.is_due


def test_sums_that_come_together_count_as_writing() -> None:
    timing = Timing()
    timing.worked(40.0, 40.0, 100)
    timing.reduced(2.0)
    assert timing.unsaved_s == timing.slowest_round_s == 42.0
    timing.wrote(1.0)
    assert timing.round_s == 3.0 / WRITE_SHARE > ROUND_S
    timing.room_s = 10.0  # of which they need 2 once more
    assert timing.n_items() == pytest.approx((10.0 - 2.0) / 0.4)


def test_a_reduction_for_lack_of_room_makes_the_next_superstep_long_enough_for_it() -> None:
    timing = Timing()
    timing.wrote(0.1)
    timing.worked(1.0, 1.0, 100)
    timing.reduced(0.8, is_forced=True)
    assert SUPERSTEP_S < timing.superstep_s == pytest.approx(0.8 / WRITE_SHARE)
    timing.worked(1.0, 1.0, 100)
    assert timing.superstep_s == SUPERSTEP_S
    timing.reduced(0.6)
    assert timing.superstep_s == SUPERSTEP_S
    timing.wrote(0.1)
    assert timing.round_s == pytest.approx(1.5 / WRITE_SHARE)  # both of them, and the write


def test_messages_do_not_make_the_next_superstep_short() -> None:
    timing = Timing()
    timing.worked(0.2 + 0.5, 0.2, 4)
    assert timing.n_items() == pytest.approx((FIRST_ROUND_S - 0.7) / (0.2 / 4))
    timing.room_s = 1.5  # and they still fit before the job ends
    assert timing.n_items() == pytest.approx((1.5 - 0.5) / (0.2 / 4))


@pytest.mark.parametrize(
    ("behind", "ahead", "last"),
    [
        ((0, 0), None, 25),
        ((0, 25), None, 50),
        ((0, 30), None, 50),
        ((0, 10), (0, 12), 12),
        ((0, 10), (0, 60), 60),  # no test of an error on the way: the others are further
        ((0, 10), (1, 5), 25),
        ((1, 2), (1, 5), 5),
    ],
)
def test_work_ends_where_something_waits(
    behind: tuple[int, int], ahead: tuple[int, int] | None, last: int
) -> None:
    sweep_states = [SweepState((0,), *ahead)] if ahead else []
    behind_state = SweepState((1,), *behind)
    found = stops([*sweep_states, behind_state], (25, 50, 60))
    assert superstep_of(behind_state, found, 1, 1, 1000.0).replicates.stop == last


def test_a_small_rest_is_taken_along() -> None:
    sweep_state = SweepState((0, 2, 5), 0, 7)
    assert superstep_of(sweep_state, (100,), 10, 1, None) == Superstep((0, 2, 5), 0, range(7, 8))
    assert superstep_of(sweep_state, (100,), 10, 1, 3 * 10 * 40.0).replicates == range(7, 47)
    assert superstep_of(sweep_state, (50,), 10, 1, 3 * 10 * 40.0).replicates == range(7, 50)
    assert superstep_of(sweep_state, (20,), 10, 4, 3 * 10 * 40.0).replicates == range(7, 20)


@pytest.mark.parametrize(
    ("foretold_s", "round_s"), [(0.1, FIRST_ROUND_S), (4.0, 40.0), (300.0, ROUND_S)]
)
def test_the_first_write_is_put_off_by_a_minute_at_most(foretold_s: float, round_s: float) -> None:
    timing = Timing(foretold_s=foretold_s)
    assert timing.round_s == pytest.approx(round_s)
    half_s = 0.45 * round_s
    timing.worked(half_s, half_s, 100)
    assert not timing.is_due
    timing.worked(round_s - half_s, round_s - half_s, 100)
    assert timing.is_due
    timing.wrote(foretold_s)
    assert timing.round_s == max(ROUND_S, foretold_s / WRITE_SHARE)


def test_a_write_is_expected_to_be_as_far_off_as_the_largest_was() -> None:
    timing = Timing(foretold_s=4.0)
    assert timing.next_write_s == 4.0
    timing.wrote(6.0, 4.0)
    timing.foretold_s = 10.0
    assert timing.next_write_s == pytest.approx(15.0)
    timing.wrote(30.0, 10.0)
    timing.wrote(8.0, 5.0)  # of fewer sums, which tells less
    assert timing.next_write_s == pytest.approx(30.0)
    timing.foretold_s = 12.0
    assert timing.next_write_s == pytest.approx(36.0)
    timing.foretold_s = 1.0
    assert timing.next_write_s == timing.slowest_write_s == 30.0


def test_what_is_drawn_leaves_room_to_write_it() -> None:
    timing = Timing(growth_s=0.3, most_growth_s=40.0)
    timing.worked(1.0, 1.0, 10)  # 0.1 s a cell, and 0.3 s to write it as long as its group is new
    timing.room_s = 4.0
    assert timing.n_items() == pytest.approx(10.0)
    timing.most_growth_s = 1.0  # after which there is no group more
    assert timing.n_items() == pytest.approx(30.0)
    timing.room_s = -5.0
    assert timing.n_items() == 0


@pytest.mark.parametrize("error", [0.3, 1.0])
@pytest.mark.parametrize("group_s", [0.02, 2.0, 30.0])
@pytest.mark.parametrize("limit_s", [40.0, 100.0, 700.0])
def test_no_write_ends_after_the_job(limit_s: float, group_s: float, error: float) -> None:
    """A job by the clock: replicates of one second, writes of up to 20 groups, foretold or less."""
    n_groups, n_replicates, now, unsaved = 20, 400, 0.0, 0
    clock = [1000.0]
    vote = StopVote(SerialComm(), Deadline(1000.0 + limit_s, "-"), None, StopSignals(),
                    lambda: clock[0])  # fmt: skip

    def of_write(n_replicates: int) -> float:
        return group_s * (3 + min(n_replicates, n_groups))

    timing, done = Timing(growth_s=group_s / 100), 0
    while True:
        timing.foretold_s = of_write(done + 1)
        timing.most_growth_s = of_write(n_groups) - timing.foretold_s
        clock[0] = 1000.0 + now
        is_over = vote(timing) is not None or done == n_replicates
        if timing.is_due or (is_over and unsaved):
            now += error * of_write(done)
            timing.wrote(error * of_write(done), of_write(done))
            unsaved = 0
        elif not is_over:
            n = min(max(int((timing.n_items() or 0) / 100), 1), n_replicates - done)
            timing.worked(float(n), float(n), 100 * n)
            now, done, unsaved = now + n, done + n, unsaved + n
        if is_over:
            break
    assert now <= limit_s - 20
    assert done or of_write(1) + SPARE_S > limit_s
