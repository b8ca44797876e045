from __future__ import annotations

import pytest

from bprune_hpc.job.deadline import SPARE_S, Deadline
from bprune_hpc.job.signals import StopSignals
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner.loop import StopVote
from bprune_hpc.runner.scheduler import Superstep, last_unit, superstep_of
from bprune_hpc.runner.state import SweepState
from bprune_hpc.runner.timing import FIRST_ROUND_S, ROUND_S, SUPERSTEP_S, WRITE_SHARE, Timing


@pytest.mark.parametrize("besides_s", [0.0, 0.5])
@pytest.mark.parametrize(("write_s", "cell_s"), [(0.1, 0.01), (3.0, 0.2), (20.0, 40.0)])
def test_rounds_grow_to_a_minute_and_writing_stays_below_its_share(
    write_s: float, cell_s: float, besides_s: float
) -> None:
    """A day's clock, without the day: work takes what it takes, and a fifth more at first."""
    pace, rounds, worked, now = Timing(), [], 0.0, 0.0
    while now < 86400:
        wanted = pace.n_cells()
        n_cells = max(int(wanted or 0) // 100, 1)
        computing_s = n_cells * cell_s * (1.2 if now < 1 else 1.0)
        seconds = computing_s + besides_s
        pace.worked(seconds, computing_s, n_cells * 100)
        worked, now = worked + seconds, now + seconds
        if pace.is_due:
            rounds.append(worked)
            pace.wrote(write_s)
            worked, now = 0.0, now + write_s
    assert rounds[0] >= min(0.5 * FIRST_ROUND_S, cell_s)
    assert rounds[0] <= max(1.5 * FIRST_ROUND_S, 1.2 * cell_s + besides_s)
    long = max(ROUND_S, write_s / WRITE_SHARE)
    most = long + 2 * cell_s + 2 * besides_s
    assert all(0.5 * long <= seconds <= most for seconds in rounds[1:])
    assert len(rounds) * write_s < 1.1 * WRITE_SHARE * 86400
    assert pace.slowest_round_s == pytest.approx(max(rounds))
    assert pace.slowest_write_s == write_s


@pytest.mark.parametrize("besides_s", [0.1, 0.6, 3.0])
def test_signals_are_looked_at_often_where_that_costs_little(besides_s: float) -> None:
    pace, supersteps = Timing(), []
    pace.worked(0.1 + besides_s, 0.1, 10)
    pace.wrote(0.1)
    while not pace.is_due:
        n_cells = pace.n_cells()
        assert n_cells
        supersteps.append(n_cells * 0.01)
        pace.worked(supersteps[-1] + besides_s, supersteps[-1], n_cells)
    assert max(supersteps) <= max(SUPERSTEP_S, besides_s / WRITE_SHARE) + 1e-6
    assert len(supersteps) <= max(1, 1.0001 * WRITE_SHARE * ROUND_S / besides_s)
    assert sum(supersteps) >= 0.8 * ROUND_S


def test_nothing_new_is_never_due() -> None:
    pace = Timing()
    assert not pace.is_due and pace.n_cells() is None
    pace.worked(1000.0, 1000.0, 10)
    assert pace.is_due and pace.n_cells() == 0
    pace.wrote(1.0)
    assert not pace.is_due


def test_sums_that_come_together_count_as_writing() -> None:
    pace = Timing()
    pace.worked(40.0, 40.0, 100)
    pace.reduced(2.0)
    assert pace.unsaved_s == pace.slowest_round_s == 42.0
    pace.wrote(1.0)
    assert pace.round_s == 3.0 / WRITE_SHARE > ROUND_S
    pace.room_s = 10.0  # of which they need 2 once more
    assert pace.n_cells() == pytest.approx((10.0 - 2.0) / 0.4)


def test_sums_for_which_there_is_no_room_make_stretches_longer() -> None:
    pace = Timing()
    pace.wrote(0.1)
    for _ in range(3):
        pace.worked(1.0, 1.0, 100)
    pace.reduced(1.2, is_forced=True)
    assert SUPERSTEP_S < pace.superstep_s == pytest.approx((1.2 / 3) / WRITE_SHARE)
    pace.reduced(0.4)
    pace.wrote(0.1)
    assert pace.superstep_s > SUPERSTEP_S  # until a round has gone without
    assert pace.round_s == pytest.approx(1.7 / WRITE_SHARE)  # all of them, and the write
    pace.worked(1.0, 1.0, 100)
    pace.reduced(0.4)
    pace.wrote(0.1)
    assert pace.superstep_s == SUPERSTEP_S


def test_what_is_prepared_once_is_work_and_makes_no_stretch_longer() -> None:
    pace = Timing()
    pace.worked(10.0 + 4.0 + 0.1, 10.0, 10, preparing_s=4.0)
    assert pace.unsaved_s == pace.slowest_round_s == pytest.approx(14.1)
    hidden = Timing()  # other ranks were at work as long
    hidden.worked(10.0, 10.0, 10, preparing_s=4.0)
    pace.wrote(0.1)
    hidden.wrote(0.1)
    assert pace.superstep_s == SUPERSTEP_S
    assert pace.n_cells() == hidden.n_cells()
    assert hidden.slowest_round_s == 10.0


def test_messages_do_not_make_the_next_stretch_short() -> None:
    pace = Timing()
    pace.worked(0.2 + 0.5, 0.2, 4)
    assert pace.n_cells() == pytest.approx((FIRST_ROUND_S - 0.7) / (0.2 / 4))
    pace.room_s = 1.5  # and they still fit before the job ends
    assert pace.n_cells() == pytest.approx((1.5 - 0.5) / (0.2 / 4))


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
    assert last_unit([*sweep_states, SweepState((1,), *behind)], (25, 50, 60)) == last


def test_a_small_rest_is_taken_along() -> None:
    sweep_state = SweepState((0, 2, 5), 0, 7)
    assert superstep_of(sweep_state, 100, 10, 1, None) == Superstep((0, 2, 5), 0, range(7, 8))
    assert superstep_of(sweep_state, 100, 10, 1, 3 * 10 * 40.0).units == range(7, 47)
    assert superstep_of(sweep_state, 50, 10, 1, 3 * 10 * 40.0).units == range(7, 50)
    assert superstep_of(sweep_state, 20, 10, 4, 3 * 10 * 40.0).units == range(7, 20)


def test_the_first_write_is_not_put_off_by_what_it_takes() -> None:
    pace = Timing(foretold_s=300.0)
    assert pace.round_s == FIRST_ROUND_S < ROUND_S
    pace.worked(FIRST_ROUND_S, FIRST_ROUND_S, 100)
    assert pace.is_due


def test_a_write_is_expected_to_be_as_far_off_as_the_largest_was() -> None:
    pace = Timing(foretold_s=4.0)
    assert pace.next_write_s == 4.0
    pace.wrote(6.0, 4.0)
    pace.foretold_s = 10.0
    assert pace.next_write_s == pytest.approx(15.0)
    pace.wrote(30.0, 10.0)
    pace.wrote(8.0, 5.0)  # of fewer sums, which tells less
    assert pace.next_write_s == pytest.approx(30.0)
    pace.foretold_s = 12.0
    assert pace.next_write_s == pytest.approx(36.0)
    pace.foretold_s = 1.0
    assert pace.next_write_s == pace.slowest_write_s == 30.0


def test_what_is_drawn_leaves_room_to_write_it() -> None:
    pace = Timing(growth_s=0.3, most_growth_s=40.0)
    pace.worked(1.0, 1.0, 10)  # 0.1 s a cell, and 0.3 s to write it as long as its group is new
    pace.room_s = 4.0
    assert pace.n_cells() == pytest.approx(10.0)
    pace.most_growth_s = 1.0  # after which there is no group more
    assert pace.n_cells() == pytest.approx(30.0)
    pace.room_s = -5.0
    assert pace.n_cells() == 0


@pytest.mark.parametrize("error", [0.3, 1.0])
@pytest.mark.parametrize("group_s", [0.02, 2.0, 30.0])
@pytest.mark.parametrize("limit_s", [40.0, 100.0, 700.0])
def test_no_write_ends_after_the_job(limit_s: float, group_s: float, error: float) -> None:
    """A job by the clock: units of one second, writes of up to 20 groups, foretold or less."""
    n_groups, n_units, now, unsaved = 20, 400, 0.0, 0
    clock = [1000.0]
    vote = StopVote(SerialComm(), Deadline(1000.0 + limit_s, "-"), None, StopSignals(),
                    lambda: clock[0])  # fmt: skip

    def of_write(n_units: int) -> float:
        return group_s * (3 + min(n_units, n_groups))

    pace, done = Timing(growth_s=group_s / 100), 0
    while True:
        pace.foretold_s = of_write(done + 1)
        pace.most_growth_s = of_write(n_groups) - pace.foretold_s
        clock[0] = 1000.0 + now
        is_over = vote(pace) is not None or done == n_units
        if pace.is_due or (is_over and unsaved):
            now += error * of_write(done)
            pace.wrote(error * of_write(done), of_write(done))
            unsaved = 0
        elif not is_over:
            n = min(max(int((pace.n_cells() or 0) / 100), 1), n_units - done)
            pace.worked(float(n), float(n), 100 * n)
            now, done, unsaved = now + n, done + n, unsaved + n
        if is_over:
            break
    assert now <= limit_s - 20
    assert done or of_write(1) + SPARE_S > limit_s
