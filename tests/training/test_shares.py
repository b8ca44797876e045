"""Steps of ranks that share the weights: against Adam written out, and steps of one rank alone.

Ranks are threads here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from bprune_hpc.alignment import aligned
from bprune_hpc.mpi.exchange import slices_of
from bprune_hpc.training import graph
from bprune_hpc.training.pruning import prune
from bprune_hpc.training.shares import SharedSteps
from tests.helpers.launch import LIMIT_S
from tests.helpers.steps import N_TRAIN, Steps, random_masks

Array = np.ndarray
RATE, FACTOR = np.float32(0.01), np.float32(0.7)


class Meeting:
    """What ranks that are threads do together; the interface of one of them."""

    def __init__(self, rank: int, arrays: list, barrier: threading.Barrier) -> None:
        self.rank, self.size, self.is_root = rank, len(arrays), rank == 0
        self.arrays, self.barrier = arrays, barrier

    def show(self, array: Array) -> list[Array]:
        self.arrays[self.rank] = array
        self.barrier.wait(LIMIT_S)
        return self.arrays

    def exchange(self, bounds: Sequence[Sequence[int]]) -> Meeting:
        self.bounds = bounds
        self.summand, self.values = (aligned(bounds[-1][-1]) for _ in range(2))
        return self

    def add_up(self) -> list[Array]:
        total = np.sum(self.show(self.summand), axis=0, dtype=np.float32)
        self.barrier.wait(LIMIT_S)
        return [total[at] for at in slices_of(self.bounds, self.rank)]

    def publish(self) -> None:
        for part in self.bounds:
            self.gather_shares(self.values, part)

    def gather_shares(self, array: Array, bounds: Sequence[int]) -> None:
        at = [slice(start, stop) for start, stop in pairwise(bounds)]
        parts = [one[part].copy() for one, part in zip(self.show(array), at, strict=True)]
        self.barrier.wait(LIMIT_S)
        array[bounds[0] : bounds[-1]] = np.concatenate(parts)
        self.barrier.wait(LIMIT_S)


class Ranks:
    """Trainings that are ranks of one, which begin alike."""

    def __init__(self, steps: Sequence[Steps]) -> None:
        self.steps, n = steps, len(steps)
        start = graph.state_of(steps[0].training, steps[0].session)
        for one in steps[1:]:
            graph.set_state(one.training, one.session, start)
        arrays, barrier = [None] * n, threading.Barrier(n)
        self.pool = ThreadPoolExecutor(n)
        self.shared = self.on_all(
            lambda rank: SharedSteps(
                steps[rank].training, steps[rank].session, steps[rank].config, N_TRAIN,
                steps[rank].noise, Meeting(rank, arrays, barrier),
            )
        )  # fmt: skip

    def on_all(self, do: Callable) -> list:
        return list(self.pool.map(do, range(len(self.steps))))

    def step(self) -> None:
        self.on_all(lambda rank: self.shared[rank](
            self.steps[rank].x, self.steps[rank].y, RATE, FACTOR
        ))  # fmt: skip

    def state(self) -> dict[str, Array]:
        """Of rank 0, which has all."""
        self.on_all(lambda rank: self.shared[rank].put_back())
        return graph.state_of(self.steps[0].training, self.steps[0].session)

    def close(self) -> None:
        for one in self.shared:
            one.close()
        self.pool.shutdown()


@pytest.fixture
def make() -> Iterator[Callable[..., Ranks]]:
    made: list = []

    def ranks(*flags: str, n: int = 2, alike: bool = False, masks: float | None = None) -> Ranks:
        seeds = [0] * n if alike else range(n)
        steps = [Steps(*flags, rank=seed, n_ranks=n, is_masked=masks is not None) for seed in seeds]
        if masks is not None:
            prune(steps[0].training, steps[0].session, random_masks(steps[0].training, masks))
        made.extend([Ranks(steps), *steps])
        return made[-n - 1]

    yield ranks
    for one in made:
        one.close()


@pytest.mark.parametrize("n", [2, 3])
def test_pruned_weights_are_exactly_zero_after_every_step_on_every_rank(make, n):
    ranks = make(n=n, masks=0.4)
    masks = random_masks(ranks.steps[0].training, 0.4)
    for _ in range(50):
        ranks.step()
        state = ranks.state()
        for layer, loc in ranks.steps[0].training.network.loc_variables.items():
            kept = masks[loc.op.name]
            raw = ranks.steps[0].training.network.untransformed_scales[layer].op.name
            assert not state[loc.name][~kept].any() and state[loc.name][kept].all()
            for slot in ("Adam:0", "Adam_1:0"):
                assert not state[f"{loc.op.name}/{slot}"][~kept].any()
                assert not state[f"{raw}/{slot}"][~kept].any()
    first, *others = (shared._exchange.values for shared in ranks.shared)
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("n", [2, 3])
def test_ranks_take_adams_step_with_the_mean_of_their_gradients(make, n):
    ranks = make(n=n)
    start = graph.state_of(ranks.steps[0].training, ranks.steps[0].session)
    gradients = [
        one.session.run(one.training.gradients, one.feed(FACTOR)) for one in ranks.steps
    ]  # of the whole loss, by the graph of one rank alone
    for one in ranks.steps:
        one.noise.n_runs = 0
    ranks.step()
    after = ranks.state()
    assert after.keys() == start.keys() and after["global_step:0"] == 1
    # Adam (Kingma and Ba 2015), algorithm 1, from moments of 0.
    variables = ranks.steps[0].training.graph.get_collection("trainable_variables")
    for variable, *shares in zip(variables, *gradients, strict=True):
        g, name = np.sum(np.float64(shares), axis=0), variable.name
        rate = 0.01 * np.sqrt(1 - 0.999) / (1 - 0.9)
        expected = start[name] - rate * 0.1 * g / (np.sqrt(0.001 * g**2) + 1e-8)
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-7, err_msg=name)
        for slot, moment in (("Adam", 0.1 * g), ("Adam_1", 0.001 * g**2)):
            atol = 1e-5 * np.abs(moment).max()
            of_slot = after[name.replace(":0", f"/{slot}:0")]
            np.testing.assert_allclose(of_slot, moment, rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    ("n_steps", "flags"),
    [
        (3, ["--model=dense"]),
        (3, ["--model=conv_flipout", "--prior_scale=0.7"]),
        # Gradients that are rounding alone, before normalizations, become steps of Adam.
        pytest.param(1, ["--model=resnet18"], marks=pytest.mark.slow),
        (3, ["--task=regression"]),  # whose noise is learned
        (3, ["--task=regression", "--estimator=local", "--noise_scale=0.5"]),
    ],
)
def test_ranks_that_are_alike_take_the_steps_of_one_alone(make, n_steps, flags):
    ranks = make(*flags, alike=True)
    alone = Steps(*flags)
    start = graph.state_of(ranks.steps[0].training, ranks.steps[0].session)
    graph.set_state(alone.training, alone.session, start)
    step = graph.step_of(alone.training, alone.session, alone.noise)
    for _ in range(n_steps):
        step(alone.x, alone.y, RATE, FACTOR)
        ranks.step()
    expected, found = graph.state_of(alone.training, alone.session), ranks.state()
    alone.close()
    of_gradients = [name for name in expected if "/Adam" in name or "moving" in name]
    for name in expected if n_steps > 1 else of_gradients:
        value = expected[name]
        atol = 1e-4 * RATE + 1e-5 * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=atol, err_msg=name)
    values = [one._exchange.values.tobytes() for one in ranks.shared]
    assert len(set(values)) == 1


def test_what_is_put_back_is_gone_on_from_with_the_same_bits(make):
    whole, parts = make(n=3), make(n=3)
    first = graph.state_of(whole.steps[0].training, whole.steps[0].session)
    for one in parts.steps:
        graph.set_state(one.training, one.session, first)
    parts.close()
    parts = Ranks(parts.steps)
    for _ in range(2):
        whole.step()
        parts.step()
    parts.state()
    parts.close()
    parts = Ranks(parts.steps)
    whole.step()
    parts.step()
    expected, found = whole.state(), parts.state()
    parts.close()
    for name, value in expected.items():
        assert value.tobytes() == found[name].tobytes(), name
