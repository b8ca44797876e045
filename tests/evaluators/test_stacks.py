"""Noises are divided evenly, into whole groups of those that are made together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bprune_hpc.evaluators.interface import Noise, stacks_of
from bprune_hpc.posterior.draws import Draw
from tests.helpers.reference_chains import AT_MEAN


def noises_of(n: int, mean_at: int | None) -> list[Noise]:
    values = {"w": np.zeros(1, np.float32)}
    noises = [Noise(k, (Draw(2 * k, 1, k), Draw(2 * k + 1, -1, k)), values) for k in range(n)]
    if mean_at is not None:
        noises.insert(mean_at, AT_MEAN)
    return noises


@pytest.mark.parametrize("mean_at", [None, 0, 3])
@pytest.mark.parametrize("n", range(1, 27))
def test_stacks_are_even_and_as_few_as_can_be(n: int, mean_at: int | None) -> None:
    noises = noises_of(n, mean_at)
    for most in range(1, 9):
        stacks = stacks_of(noises, most)
        assert [k for stack in stacks for k in range(stack.start, stack.stop)] == list(
            range(len(noises))
        )
        sizes = [sum(noise.values is not None for noise in noises[stack]) for stack in stacks]
        assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
        assert len(stacks) == -(-n // most)


@pytest.mark.parametrize("group", [1, 2, 5, 6])
def test_a_group_is_never_in_two_stacks(group: int) -> None:
    for n in range(1, 40):
        noises = noises_of(n, n // 2)
        groups = stacks_of(noises, group)
        for most in range(25):
            stacks = stacks_of(noises, most, group)
            assert (stacks[0].start, stacks[-1].stop) == (0, len(noises))
            assert all(one.stop == other.start for one, other in pairwise(stacks))
            assert {stack.start for stack in stacks} <= {of_group.start for of_group in groups}
            n_groups = [
                sum(stack.start <= of_group.start < stack.stop for of_group in groups)
                for stack in stacks
            ]
            assert min(n_groups) >= 1 and max(n_groups) <= max(1, most // group)
            if max(n_groups) > 1:
                assert all(stack.stop - stack.start <= most + 1 for stack in stacks)  # the mean


def test_the_mean_alone_is_one_stack_and_nothing_is_none() -> None:
    assert stacks_of([AT_MEAN], 1) == [slice(0, 1)]
    assert stacks_of([], 3) == []
