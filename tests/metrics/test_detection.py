"""Against scikit-learn, and against counting pairs and orders one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bprune_hpc.metrics import row_chunks
from bprune_hpc.metrics.detection import (
    area_under_risk_coverage,
    areas,
    auroc,
    average_precision,
    risk_at_coverage,
)


def example(seed: int, n: int = 60, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positive = generator.random(n) < 0.3
    score = generator.normal(size=n) + positive
    if levels:
        score = np.round(score * levels) / levels
    return score, positive


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed: int, levels: int | None) -> None:
    score, positive = example(seed, levels=levels)
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    expected = average_precision_score(positive, score)
    assert average_precision(score, positive) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_subsets_are_what_they_are_alone(levels: int | None) -> None:
    score, positive = example(7, levels=levels)
    keep = np.random.default_rng(1).random((9, 60)) < 0.7
    for function in (auroc, average_precision, area_under_risk_coverage):
        alone = [function(score[k], positive[k]) for k in keep]
        np.testing.assert_allclose(function(score, positive, keep), alone, rtol=1e-12)


def test_auroc_counts_pairs() -> None:
    score, positive = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    pairs = [(s, t) for s in score[positive] for t in score[~positive]]
    wins = sum((s > t) + (s == t) / 2 for s, t in pairs) / len(pairs)
    assert auroc(score, positive) == wins


def test_one_kind_only_tells_nothing() -> None:
    score = np.arange(4.0)
    assert np.isnan(auroc(score, np.ones(4, bool))) and np.isnan(auroc(score, np.zeros(4, bool)))
    assert np.isnan(average_precision(score, np.zeros(4, bool)))
    assert average_precision(score, np.ones(4, bool)) == 1
    assert auroc(np.zeros(4), np.arange(4) < 2) == 0.5
    assert np.isnan(area_under_risk_coverage(score, score > 1, np.zeros((1, 4), bool)))[0]


def test_risk_is_the_mean_over_every_order_of_equals() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    wrong = np.array([False, True, False, True, True])
    areas, curves = [], []
    for middle in itertools.permutations([1, 2, 3]):
        order = [0, *middle, 4]
        risk = np.cumsum(wrong[order]) / np.arange(1, 6)
        areas.append(risk.mean())
        curves.append(risk)
    assert area_under_risk_coverage(confidence, wrong) == pytest.approx(np.mean(areas))
    np.testing.assert_allclose(risk_at_coverage(confidence, wrong, 5), np.mean(curves, axis=0))


def test_risk_at_full_coverage_is_the_error_rate() -> None:
    confidence, wrong = example(3, n=47)
    assert risk_at_coverage(confidence, wrong)[-1] == pytest.approx(wrong.mean())
    assert area_under_risk_coverage(confidence, np.zeros(47, bool)) == 0
    assert area_under_risk_coverage(confidence, np.ones(47, bool)) == pytest.approx(1)
    assert risk_at_coverage(np.zeros(1), np.ones(1, bool)).tolist() == [1.0] * 100


def alone(score: np.ndarray, positive: np.ndarray, confidence: bool) -> list[float]:
    """AUROC and average precision, or the area under risk and coverage, of one row of examples."""
    levels = np.unique(score)[::-1]
    ups = np.array([np.count_nonzero(positive & (score == level)) for level in levels])
    counts = np.array([np.count_nonzero(score == level) for level in levels])
    true, called = np.cumsum(ups), np.cumsum(counts)
    if confidence:
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, len(score) + 1))])
        rate, before = ups / counts, called - counts
        rise = harmonic[called] - harmonic[before]
        return [(((true - ups) - before * rate) * rise + rate * counts).sum() / len(score)]
    downs = counts - ups
    wins = (ups * (2 * (downs.sum() - np.cumsum(downs)) + downs)).sum()
    return [wins / (2.0 * ups.sum() * downs.sum()), (ups * (true / called)).sum() / ups.sum()]


@pytest.mark.parametrize("at_once", [1, 700, 2**20])
def test_many_rows_are_bit_for_bit_what_each_is_alone(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(row_chunks, "_NUMBERS", at_once)
    rng = np.random.default_rng(5)
    n_examples = 203
    score = rng.random((3, 4, n_examples))
    score[:, 1] = score[:, 1].round(1)  # ties in some rows, and not as many in each
    score[1, 2] = score[1, 2].round(2)
    score[2, 3] = 0.5
    positive = rng.random(score.shape) < 0.3
    roc, precision = areas(score, positive)
    risk = area_under_risk_coverage(score, positive)
    for at in np.ndindex(3, 4):
        assert [roc[at], precision[at]] == alone(score[at], positive[at], False)
        assert [risk[at]] == alone(score[at], positive[at], True)
    keep = np.arange(n_examples) % 50 != np.arange(50)[:, None]
    for function in (auroc, average_precision, area_under_risk_coverage):
        together = function(score[0], positive[0], keep)
        assert together.shape == (50, 4)
        for row in range(4):
            assert (together[:, row] == function(score[0, row], positive[0, row], keep)).all()
