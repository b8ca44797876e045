"""Against sums over examples one by one, and against calibration known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from bprune_hpc.metrics import row_chunks
from bprune_hpc.metrics.calibration import equal_mass_edges, equal_width_edges, reliability


def example(seed: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.1, 1, n)
    return confidence, generator.random(n) < confidence**2


@pytest.mark.parametrize("n_bins", [1, 7, 15])
@pytest.mark.parametrize("is_mass", [False, True])
def test_against_a_loop(n_bins: int, is_mass: bool) -> None:
    confidence, correct = example(0)
    edges = equal_mass_edges(confidence, n_bins) if is_mass else equal_width_edges(n_bins)
    found = reliability(confidence, correct, edges)
    total = 0.0
    for b in range(n_bins):
        inside = [
            i
            for i, c in enumerate(confidence)
            if edges[b] < c <= edges[b + 1] or (b == 0 and c == 0)
        ]
        assert found.count[b] == len(inside)
        if inside:
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            assert found.accuracy[b] == pytest.approx(correct[inside].mean())
            assert found.confidence[b] == pytest.approx(confidence[inside].mean())
            total += gap * len(inside) / len(confidence)
    assert found.error == pytest.approx(total)


def test_against_scikit_learn() -> None:
    confidence, correct = example(1)
    found = reliability(confidence, correct, equal_width_edges(10))
    true, mean = calibration_curve(correct, confidence, n_bins=10)
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], true)
    np.testing.assert_allclose(found.confidence[filled], mean)


def test_equal_mass_bins_hold_equal_numbers() -> None:
    confidence, correct = example(4, n=450)
    found = reliability(confidence, correct, equal_mass_edges(confidence, 15))
    assert found.count.sum() == 450 and found.count.max() - found.count.min() <= 2


@pytest.mark.parametrize("edges", [equal_width_edges(), equal_mass_edges(np.ones(10))])
def test_certainty_and_ties(edges: np.ndarray) -> None:
    found = reliability(np.ones(10), np.arange(10) < 7, edges)
    assert found.count.sum() == 10 and found.count.max() == 10
    assert found.error == pytest.approx(0.3)
    assert np.isnan(found.accuracy[found.count == 0]).all()


def test_perfect_and_hopeless() -> None:
    edges = equal_width_edges()
    assert reliability(np.ones(5), np.ones(5, bool), edges).error == 0
    assert reliability(np.ones(5), np.zeros(5, bool), edges).error == 1
    assert reliability(np.zeros(1), np.zeros(1, bool), edges).count[0] == 1


@pytest.mark.parametrize("at_once", [1, 3000, 2**20])
def test_many_rows_are_bit_for_bit_what_each_is_alone(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(row_chunks, "_NUMBERS", at_once)
    rng = np.random.default_rng(6)
    confidence = rng.uniform(0.2, 1, (2, 3, 211))
    confidence[0, 1] = confidence[0, 1].round(1)
    confidence[1, 2] = 1.0
    correct = rng.random(confidence.shape) < confidence
    of_mass = equal_mass_edges(confidence)
    for edges in (equal_width_edges(), of_mass):
        together = reliability(confidence, correct, edges)
        for at in np.ndindex(2, 3):
            own = edges if edges.ndim == 1 else edges[at]
            one = reliability(confidence[at], correct[at], own)
            for name in ("count", "confidence", "accuracy", "error"):
                np.testing.assert_array_equal(getattr(together, name)[at], getattr(one, name))


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_edges_of_equal_mass_are_quantiles(n_bins: int) -> None:
    rng = np.random.default_rng(7)
    for n_examples in range(1, 200):
        confidence = rng.random((2, n_examples))
        wanted = np.arange(1, n_bins) / n_bins
        inner = np.quantile(confidence, wanted, axis=1, method="lower").T
        assert (equal_mass_edges(confidence, n_bins)[:, 1:-1] == inner).all()


def test_the_bias_lies_between_its_bounds() -> None:
    """Of calibrated, and of overconfident, predictions, in many test sets."""
    rng = np.random.default_rng(8)
    for power in (1.0, 1.5):
        confidence = rng.uniform(0.3, 1, (2000, 150))
        correct = rng.random(confidence.shape) < confidence**power
        found = reliability(confidence, correct, equal_width_edges())
        many = rng.uniform(0.3, 1, (1, 10**6))
        truth = reliability(many, rng.random(many.shape) < many**power, equal_width_edges()).error
        least, most = found.bias
        bias = found.error.mean() - truth[0]
        if power == 1:  # calibrated: the most that it can be
            assert bias == pytest.approx(most.mean(), rel=0.05)
            assert 0.02 < least.mean() < bias
        else:
            assert bias == pytest.approx(least.mean(), rel=0.2)
            assert bias < most.mean()
        # Signs of gaps that are not seen make the sum of their sizes more certain, not less.
        assert found.error.std() < np.sqrt((found.error_of_examples**2).mean())


def test_the_squared_l2_error_is_without_bias_and_its_error_right() -> None:
    """Against a loop after Kumar, Liang and Ma's definition, and over many test sets."""
    rng = np.random.default_rng(9)
    for power in (1.0, 2.0):
        confidence = rng.uniform(0.3, 1, (3000, 150))
        correct = rng.random(confidence.shape) < confidence**power
        found = reliability(confidence, correct, equal_mass_edges(confidence))
        loop, edges = 0.0, equal_mass_edges(confidence[0])
        for b in range(15):
            inside = (confidence[0] > edges[b]) & (confidence[0] <= edges[b + 1])
            y, c = correct[0, inside], confidence[0, inside]
            loop += inside.mean() * ((c.mean() - y.mean()) ** 2 - y.var(ddof=1) / len(y))
        assert found.squared_l2[0] == pytest.approx(loop)
        many = rng.uniform(0.3, 1, 10**6)
        exact = reliability(many, rng.random(10**6) < many**power, equal_mass_edges(many))
        spread = found.squared_l2.std()
        assert abs(found.squared_l2.mean() - exact.squared_l2) < 4 * spread / np.sqrt(3000)
        plain = (found.count * (found.accuracy - found.confidence) ** 2).sum(axis=1) / 150
        assert plain.mean() - exact.squared_l2 > 40 * spread / np.sqrt(3000)
        assert 1 < np.sqrt((found.error_of_squared_l2**2).mean()) / spread < 1.5


def test_a_single_bin_and_a_single_example_have_errors() -> None:
    found = reliability(np.array([0.9]), np.array([True]), equal_width_edges())
    assert 0 < found.error_of_examples < 0.5 and found.squared_l2 == 0
    least, most = found.bias
    assert 0 < least <= most < 0.5
