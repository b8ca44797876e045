"""Sums against rational arithmetic and against scipy; exactness whatever the order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import special, stats

from bprune_hpc import compiled
from bprune_hpc.accumulators.classification import (
    MAX_DRAWS,
    MAX_NLL,
    DrawSums,
    GroupSums,
    Predictions,
    bytes_per_cell,
    mean_prediction,
)
from tests.helpers.exact_sums import add_up


def random_logits(n_draws: int, n: int, c: int, spread: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (n_draws, n, c)).astype(np.float32)


def added(logits: np.ndarray, label: np.ndarray, order: np.ndarray | None = None) -> GroupSums:
    sums = GroupSums(1, logits.shape[1], logits.shape[2])
    for k in range(len(logits)) if order is None else order:
        add_up(sums, 0, slice(0, logits.shape[1]), logits[k].T[None], label)
    return sums


@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_a_prediction_against_scipy(spread: float) -> None:
    logits = random_logits(1, 50, 7, spread)[0]
    label = np.arange(50) % 7
    prediction = Predictions.from_logits(logits.T[None], label)
    expected = special.softmax(logits.astype(float), axis=1)
    np.testing.assert_allclose(prediction.probability[0].T, expected, rtol=1e-13)
    np.testing.assert_allclose(
        prediction.entropy[0], stats.entropy(expected, axis=1), rtol=1e-9, atol=1e-15
    )
    nll = -special.log_softmax(logits.astype(float), axis=1)[np.arange(50), label]
    np.testing.assert_allclose(prediction.nll[0], np.minimum(nll, MAX_NLL), rtol=1e-12, atol=1e-15)
    assert (prediction.correct[0] == (expected.argmax(axis=1) == label)).all()


@pytest.mark.usefixtures("instructions")
def test_means_are_those_of_the_draws() -> None:
    logits, label = random_logits(40, 30, 5, 4.0), np.arange(30) % 5
    mean = mean_prediction(added(logits, label).packed, 40, label)
    probability = special.softmax(logits.astype(float), axis=2)
    np.testing.assert_allclose(mean.probability[0], probability.mean(axis=0), atol=1e-14)
    true = probability[:, np.arange(30), label].mean(axis=0)
    np.testing.assert_allclose(mean.true_probability[0], true, rtol=1e-13)
    entropy = stats.entropy(probability, axis=2).mean(axis=0)
    np.testing.assert_allclose(mean.expected_entropy[0], entropy, atol=1e-13)
    correct = (logits.argmax(axis=2) == label).mean(axis=0)
    np.testing.assert_allclose(mean.single_draw_accuracy[0], correct, rtol=1e-15)


@pytest.mark.usefixtures("instructions")
def test_the_order_of_adding_and_the_grouping_do_not_matter() -> None:
    logits, label = random_logits(60, 9, 4, 8.0), np.arange(9) % 4
    straight = added(logits, label).packed
    shuffled = added(logits, label, np.random.default_rng(1).permutation(60)).packed
    halves = added(logits[:17], label).packed + added(logits[17:], label).packed
    assert straight.tobytes() == shuffled.tobytes() == halves.tobytes()


@pytest.mark.usefixtures("instructions")
def test_the_true_class_is_right_down_to_the_smallest_float32() -> None:
    gaps = np.array([0.1, 20, 50, 80, 87.3, 100, 103.2], np.float32)
    logits = np.stack([np.zeros_like(gaps), -gaps], axis=1)[None]
    label = np.ones(len(gaps), np.int64)
    mean = mean_prediction(added(logits, label).packed, 1, label)
    nll = -np.log(mean.true_probability[0])
    expected = np.log1p(np.exp(gaps.astype(float))) - 0.0
    # The last tail has a step of 2**-150: relative to exp(-gap) that is the error left.
    step = np.exp(gaps.astype(float)) * 2.0**-150
    assert (np.abs(nll - expected) <= 2 * step + 1e-14 * expected).all()
    assert np.exp(-103.2) < 2.0**-148  # below all normal float32 numbers and most others


def test_sums_of_the_true_class_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.VARIABLE, compiled.NONE)  # as Predictions, to the last bit
    logits, label = random_logits(25, 4, 3, 30.0), np.array([0, 1, 2, 0])
    sums = added(logits, label)
    for example in range(4):
        exact = Fraction(0)
        for k in range(25):
            p = Predictions.from_logits(logits[k].T[None], label).probability[
                0, label[example], example
            ]
            exact += Fraction(round(Fraction(float(p)) * 2**150), 2**150)
        parts = [sums.probability[0, example, label[example]], *sums.tail[0, example]]
        found = sum(Fraction(int(part), 2 ** (50 * (i + 1))) for i, part in enumerate(parts))
        assert found == exact


def test_certain_and_impossible() -> None:
    logits = np.array([[0, -1e4], [0, -1e4]], np.float32)
    prediction = Predictions.from_logits(logits.T[None], np.array([0, 1]))
    assert prediction.probability.tolist() == [[[1, 1], [0, 0]]]
    assert prediction.nll.tolist() == [[0, MAX_NLL]]
    assert prediction.entropy.tolist() == [[0, 0]]
    assert prediction.correct.tolist() == [[True, False]]


def test_one_class_only() -> None:
    prediction = Predictions.from_logits(np.array([[3.0]], np.float32).T[None], np.array([0]))
    assert prediction.probability.tolist() == [[[1]]] and prediction.entropy.tolist() == [[0]]


def test_a_tie_goes_to_the_first_class() -> None:
    prediction = Predictions.from_logits(np.zeros((2, 3), np.float32).T[None], np.array([0, 1]))
    assert prediction.correct.tolist() == [[True, False]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (7, 23), (10, 1000)])
def test_a_draw_has_the_same_bits_whatever_is_predicted_beside_it(shape: tuple[int, int]) -> None:
    n_classes, n_examples = shape
    logits = random_logits(6, n_examples, n_classes, 5.0).transpose(0, 2, 1)
    label = np.arange(n_examples) % n_classes
    together = Predictions.from_logits(logits, label)
    for draw in range(6):
        alone = Predictions.from_logits(logits[draw : draw + 1], label)
        assert together.packed[draw].tobytes() == alone.packed.tobytes()
        assert together.nll_in_units[draw].tobytes() == alone.nll_in_units.tobytes()


@pytest.mark.parametrize("n_draws", [1, 2, 3, 7])
def test_a_sum_of_draws_is_that_of_their_integers(n_draws: int) -> None:
    logits = random_logits(9, 40, 6, 6.0).transpose(0, 2, 1)
    prediction = Predictions.from_logits(logits, np.arange(40) % 6)
    some = slice(1, 1 + n_draws)
    expected = [
        [sum(map(int, cell)) for cell in row.T] for row in prediction.packed[some].swapaxes(0, 1)
    ]
    assert prediction.summed(some).tolist() == expected


@pytest.mark.usefixtures("instructions")
def test_cleared_sums_are_as_new_ones() -> None:
    logits, label = random_logits(6, 40, 5, 2.0), np.arange(40) % 5
    sums = added(logits, label)
    sums.clear()
    assert sums.buffer.tobytes() == GroupSums(1, 40, 5).buffer.tobytes()


def test_the_grid_is_rounded_to_the_nearest() -> None:
    logits = random_logits(5, 40, 6, 6.0).transpose(0, 2, 1)
    label = np.arange(40) % 6
    prediction = Predictions.from_logits(logits, label)

    def rounded(values: np.ndarray, bits: int) -> list[int]:
        return [round(Fraction(float(value)) * 2**bits) for value in values.ravel()]

    packed = prediction.packed
    assert packed[:, :6].ravel().tolist() == rounded(prediction.probability, 50)
    assert packed[:, -2].ravel().tolist() == rounded(prediction.entropy, 46)
    assert (packed[:, -1] == prediction.correct).all()
    squares = np.array(
        [[sum(Fraction(float(p)) ** 2 for p in column) for column in one.T]
         for one in prediction.probability]
    )  # fmt: skip
    assert np.abs(packed[:, -3] - squares * 2**50).max() <= 1
    assert prediction.nll_in_units.ravel().tolist() == rounded(prediction.nll, 30)


def test_the_largest_number_of_draws_does_not_overflow() -> None:
    per_group = MAX_DRAWS // 20
    certain = Predictions.from_logits(np.array([[0, -1e4]], np.float32).T[None], np.array([0]))
    uniform = Predictions.from_logits(np.zeros((1, 60_000), np.float32).T[None], np.array([0]))
    for prediction in (certain, uniform):
        packed = prediction.packed
        assert int(packed.max()) * per_group < 2**63
        assert (packed >= 0).all()


@pytest.mark.usefixtures("instructions")
def test_sums_of_single_draws() -> None:
    logits, label = random_logits(6, 40, 5, 2.0), np.arange(40) % 5
    draws = DrawSums.zeros(2, 6)
    for k in range(6):
        for rows in (slice(0, 25), slice(25, 40)):
            one, n = logits[k, rows].T[None], rows.stop - rows.start
            sums = add_up(GroupSums(1, n, 5), 0, slice(0, n), one, label[rows])
            draws.add_sums(1, [k], sums)
    log_p = special.log_softmax(logits.astype(float), axis=2)[:, np.arange(40), label]
    np.testing.assert_allclose(draws.nll(40)[1], -log_p.mean(axis=1), atol=1e-9)
    assert (draws.accuracy(40)[1] == (logits.argmax(axis=2) == label).mean(axis=1)).all()
    assert (draws.packed[:, 0] == 0).all()


def test_size_is_as_announced() -> None:
    assert GroupSums(3, 7, 10).packed.nbytes == 3 * 7 * bytes_per_cell(10)
