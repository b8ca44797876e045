"""The two numbers of a threshold: its index in the grid, and its position in a state."""

from __future__ import annotations

import pickle

from bprune_hpc.runner.state import SweepState, ThresholdIndices, merged, with_rest

GRID = (0.0, 0.1, 0.5, 1.0, 3.0)


def test_a_threshold_is_found_by_either_of_its_numbers() -> None:
    some = ThresholdIndices.find([0.1, 1.0, 3.0], GRID)
    assert some == (1, 3, 4) and some.of(GRID) == [0.1, 1.0, 3.0]
    assert some.by_index({0: "a", 2: "b"}) == {1: "a", 4: "b"}
    assert some.by_position({1: "a", 4: "b"}) == {0: "a", 2: "b"}


def test_ranks_get_them_as_they_are() -> None:
    some = pickle.loads(pickle.dumps(ThresholdIndices((1, 3))))
    assert isinstance(some, ThresholdIndices) and some == (1, 3)


def test_states_are_of_all_thresholds_and_merge_in_the_order_of_the_grid() -> None:
    begun = SweepState((1, 3), 0, 0)
    states = with_rest([begun], len(GRID))
    assert states[0] is begun and [one.thresholds for one in states] == [(1, 3), (0, 2, 4)]
    assert merged(states).thresholds == (0, 1, 2, 3, 4)
    assert with_rest(states, len(GRID)) == states
