from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.posterior.draws import standard_normal


def test_a_draw_is_a_function_of_its_arguments_alone() -> None:
    first = standard_normal(7, "dense/kernel", 3, (4, 5))
    standard_normal(1, "other", 0, (10,))
    again = standard_normal(7, "dense/kernel", 3, (4, 5))
    assert first.dtype == np.float32 and first.shape == (4, 5)
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("other", [(8, "a", 0), (7, "b", 0), (7, "a", 1), (2**64 - 1, "a", 0)])
def test_different_draws_are_independent(other: tuple[int, str, int]) -> None:
    n = 100_000
    one = standard_normal(7, "a", 0, (n,)).astype(float)
    two = standard_normal(*other, (n,)).astype(float)
    assert abs(np.mean(one * two)) < 5 / np.sqrt(n)


def test_moments_are_those_of_a_standard_normal() -> None:
    n = 1_000_000
    z = standard_normal(0, "kernel", 12, (n,)).astype(float)
    # Variances of the first four moments of a standard normal are 1, 2, 15 and 96.
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - expected) < 5 * np.sqrt(variance / n)
    assert (np.abs(z) > 4.5).any() and np.abs(z).max() < 7


def test_streams_of_neighbouring_units_do_not_overlap() -> None:
    long = standard_normal(0, "kernel", 0, (200_000,))
    start = standard_normal(0, "kernel", 1, (8,))
    windows = np.lib.stride_tricks.sliding_window_view(long, 8)
    assert not (windows == start).all(axis=1).any()
