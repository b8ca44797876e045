"""A sample of the random networks that ``python -m tests.robustness.random_networks`` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness import random_networks

N_NETWORKS = 12
SEEDS = tuple(range(N_NETWORKS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_predictions_are_those_of_the_networks_own_calls(tmp_path: Path, seed: int) -> None:
    one = random_networks.recipe(seed)
    assert random_networks.check(one, tmp_path) <= 1, str(one)


def test_every_part_is_met_and_recipes_stay_what_they_are() -> None:
    many = [random_networks.recipe(seed) for seed in range(600)]
    assert many[:5] == [random_networks.recipe(seed) for seed in range(5)]
    assert {one.input for one in many} == set(random_networks.INPUTS)
    assert {one.stem for one in many} == set(random_networks.STEMS)
    assert {kind for one in many for kind in one.bayesian} == set(random_networks.BAYESIAN)
    assert {(one.head, one.format) for one in many} == {
        (head, kind) for head in random_networks.HEADS for kind in random_networks.FORMATS
    }
