"""The noise of training steps: what is fed, and that it depends on seed, rank and step alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bprune_hpc.models.layers import ancestors
from bprune_hpc.models.zoo import MODELS
from bprune_hpc.training import noise as noise_module
from bprune_hpc.training.noise import Noise
from tests.helpers.steps import Steps

KINDS = [pytest.param([f"--model={name}"], marks=pytest.mark.slow) if name == "resnet18" else
         [f"--model={name}"] for name in MODELS] + [["--estimator=local"]]  # fmt: skip
RANDOM = ("Random", "Normal", "Multinomial", "Gamma", "Poisson")


def copies(noise: Noise, n_examples: int = 7) -> list[np.ndarray]:
    return [array.copy() for array in noise.next(n_examples)]


@pytest.fixture(scope="module")
def dense():
    steps = Steps()
    yield steps.training
    steps.close()


@pytest.mark.parametrize("flags", KINDS)
def test_nothing_random_is_left_to_the_graph(flags):
    steps = Steps(*flags)
    training = steps.training
    for output in (training.nll, training.network.logits):
        noise = Noise(output, 1)
        fed = {tensor.name for tensor in noise.fed}
        needed, left = set(), [output]
        while left:
            tensor = left.pop()
            if tensor.name not in fed and tensor.op not in needed:
                needed.add(tensor.op)
                left += tensor.op.inputs
        random = [op.name for op in needed if any(kind in op.type for kind in RANDOM)
                  and "Initializer" not in op.name and "BatchNorm" not in op.type]  # fmt: skip
        assert random == [] and fed
    n_layers = len(training.network.locs)
    is_local = "--estimator=local" in flags
    assert len(Noise(training.nll, 1).fed) == (n_layers if is_local else 3 * n_layers)
    feed = steps.feed(1.0)
    losses = [steps.session.run(training.nll, feed) for _ in range(2)]
    assert losses[0] == losses[1] != steps.session.run(training.nll, steps.feed(1.0))
    steps.close()


def test_values_are_a_function_of_seed_rank_and_run(dense):
    going = Noise(dense.nll, seed=3, rank=1)
    before = [copies(going) for _ in range(3)]
    again = Noise(dense.nll, seed=3, rank=1, n_runs=2)
    for mine, theirs in zip(copies(again), before[2], strict=True):
        assert mine.tobytes() == theirs.tobytes()
    assert again.n_runs == going.n_runs == 3
    others = [Noise(dense.nll, 4, 1, 2), Noise(dense.nll, 3, 2, 2), Noise(dense.nll, 3, 1, 1),
              Noise(dense.nll, 3, 2, 1), Noise(dense.nll, 2**40, 1, 2)]  # fmt: skip
    for other in others:
        for mine, theirs in zip(copies(other), before[2], strict=True):
            assert not np.array_equal(mine, theirs)


def test_normals_do_not_depend_on_the_examples_and_signs_are_by_example(dense):
    few, many = (copies(Noise(dense.nll, 1), n) for n in (2, 9))
    for one, other, tensor in zip(few, many, Noise(dense.nll, 1).fed, strict=True):
        is_sign = tensor.op.type == "Cast"
        assert (len(one), len(other)) == ((2, 9) if is_sign else (1, 1))
        assert is_sign or one.tobytes() == other.tobytes()


def test_arrays_lie_as_tensorflow_wants_them(dense):
    for n_examples in (3, 8):
        for array in Noise(dense.nll, 1).next(n_examples):
            assert array.ctypes.data % 64 == 0 and array.flags.c_contiguous
            assert array.dtype == np.float32


def test_moments_and_correlations(dense):
    noise = Noise(dense.nll, 1)
    runs = [copies(noise, 50) for _ in range(200)]
    n_normals = sum(tensor.op.type != "Cast" for tensor in noise.fed)
    normals = np.array([np.concatenate([a.ravel() for a in run[:n_normals]]) for run in runs])
    signs = np.array([np.concatenate([a.ravel() for a in run[n_normals:]]) for run in runs])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    n = normals.size
    moments = [(normals.mean(), 0, 1), (normals.var(), 1, 2), ((normals**4).mean(), 3, 96),
               ((normals[:, 1:] * normals[:, :-1]).mean(), 0, 1),
               ((normals[1:] * normals[:-1]).mean(), 0, 1)]  # fmt: skip
    for value, expected, variance in moments:
        assert abs(value - expected) < 4.5 * np.sqrt(variance / n)
    products = [signs[:, 1:] * signs[:, :-1], signs[:, 8:] * signs[:, :-8], signs[1:] * signs[:-1]]
    for value in (signs, *products):
        assert abs(value.mean()) < 4.5 / np.sqrt(signs.size)


def test_normals_are_distributed_as_such():
    values = np.empty(2_000_000 + 2 * 16, np.float32)  # not a whole number of blocks
    noise_module.standard_normal(np.random.SFC64(5), values)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    tail = np.abs(values) > 4
    expected = len(values) * 2 * stats.norm.sf(4)
    assert abs(tail.sum() - expected) < 4.5 * np.sqrt(expected)
    # Cosine and sine of one radius: the two are independent, their squares too.
    half = noise_module._BLOCK // 2
    one, two = np.float64(values[:half]), np.float64(values[half : 2 * half])
    for a, b in ((one, two), (one**2, two**2), (one**2, two), (one**3, two)):
        z = np.corrcoef(a, b)[0, 1] * np.sqrt(half)
        assert abs(z) < 4.5


def test_normals_of_the_rarest_bits_are_finite():
    class Bits:
        def random_raw(self, n: int) -> np.ndarray:
            return np.resize(np.array([0, -1, 1, 2**31 - 1, -(2**31)], np.int32), 2 * n).view("u8")

    values = np.empty(64, np.float32)
    noise_module.standard_normal(Bits(), values)
    assert np.isfinite(values).all() and 6.7 < np.abs(values).max() < 6.8


def test_the_operations_before_a_tensor(dense):
    names = [op.name for op in ancestors(dense.nll)]
    assert dense.nll.op.name in names and "Placeholder" in names and "Placeholder_1" in names
    assert "learning_rate" not in names
