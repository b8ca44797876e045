"""Noises are divided evenly, into whole groups of those that are made together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bprune_hpc.evaluators.interface import Noise, noise_batches_of
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
        noise_batches = noise_batches_of(noises, most)
        assert [
            k for noise_batch in noise_batches for k in range(noise_batch.start, noise_batch.stop)
        ] == list(range(len(noises)))
        sizes = [
            sum(noise.values is not None for noise in noises[noise_batch])
            for noise_batch in noise_batches
        ]
        assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
        assert len(noise_batches) == -(-n // most)


@pytest.mark.parametrize("group", [1, 2, 5, 6])
def test_a_group_is_never_in_two_stacks(group: int) -> None:
    for n in range(1, 40):
        noises = noises_of(n, n // 2)
        groups = noise_batches_of(noises, group)
        for most in range(25):
            noise_batches = noise_batches_of(noises, most, group)
            assert (noise_batches[0].start, noise_batches[-1].stop) == (0, len(noises))
            assert all(one.stop == other.start for one, other in pairwise(noise_batches))
            assert {noise_batch.start for noise_batch in noise_batches} <= {
                of_group.start for of_group in groups
            }
            n_groups = [
                sum(noise_batch.start <= of_group.start < noise_batch.stop for of_group in groups)
                for noise_batch in noise_batches
            ]
            assert min(n_groups) >= 1 and max(n_groups) <= max(1, most // group)
            if max(n_groups) > 1:
                assert all(
                    noise_batch.stop - noise_batch.start <= most + 1
                    for noise_batch in noise_batches
                )  # the mean


def test_the_mean_alone_is_one_stack_and_nothing_is_none() -> None:
    assert noise_batches_of([AT_MEAN], 1) == [slice(0, 1)]
    assert noise_batches_of([], 3) == []
