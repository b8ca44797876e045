"""Scores against closed forms, numerical integrals and loops; the meaning of each threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from bprune_hpc.posterior.criteria import (
    CRITERIA,
    bmr,
    kl,
    log_alpha,
    magnitude,
    scores,
    signal_plus_noise,
    uniform,
)
from bprune_hpc.posterior.mean_field import Posterior, snr

INF = math.inf
PRIOR = 1.5


def one(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def make_posterior(seed: int = 0) -> Posterior:
    generator = np.random.default_rng(seed)
    shapes = {"a/kernel": (7, 5), "a/bias": (5,), "b/kernel": (3, 2, 4)}
    loc = {k: generator.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    scale = {k: generator.uniform(0.1, 2, s).astype(np.float32) for k, s in shapes.items()}
    return Posterior(loc, scale)


def test_closed_forms() -> None:
    loc, scale = np.array([2, -3, 0], np.float32), np.array([0.5, 1.5, 4], np.float32)
    assert signal_plus_noise(loc, scale).tolist() == [2.5, 4.5, 4]
    assert magnitude(loc, scale).tolist() == [2, 3, 0]
    assert log_alpha(loc, scale).tolist() == [-2 * math.log(4), -2 * math.log(2), INF]
    assert kl(loc, scale, 4.0)[2] == 0
    assert kl(loc, scale, 0.5)[0] == pytest.approx(8)  # equal scales: (loc / scale)² / 2
    assert bmr(loc, scale, 0.5)[0] == pytest.approx(8)
    assert bmr(loc, scale, 4.0)[2] == 0
    assert bmr(loc, scale, 8.0)[2] == pytest.approx(-math.log(2))


@pytest.mark.parametrize("name", CRITERIA)
def test_weights_that_are_certain_or_zero_are_well_defined(name: str) -> None:
    tiny = float(np.finfo(np.float32).smallest_subnormal)
    huge = float(np.finfo(np.float32).max)
    pairs = [(0, 0), (0, 1), (1, 0), (-1, 0), (huge, tiny), (tiny, huge), (0, tiny), (huge, huge)]
    loc, scale = np.array(pairs, np.float32).T
    found = scores(name, Posterior({"w": loc}, {"w": scale}), prior_scale=PRIOR)["w"]
    assert found.dtype == np.float64 and not np.isnan(found).any()
    zero, _, certain, negative, *_ = found
    expected = {
        "snr": (0, INF),
        "signal_plus_noise": (0, 1),
        "magnitude": (0, 1),
        "log_alpha": (INF, -INF),
        "kl": (0, INF),
        "bmr": (0, INF),
    }
    if name != "random":
        assert (zero, certain, negative) == (*expected[name], expected[name][1])


@pytest.mark.parametrize("name", CRITERIA)
def test_what_is_no_posterior_is_refused(name: str) -> None:
    if name == "random":
        return
    for loc, scale in ((np.nan, 1), (1, np.nan), (np.inf, 1), (1, -1)):
        with pytest.raises(ValueError, match="must"):
            scores(name, Posterior({"w": one(loc)}, {"w": one(scale)}), prior_scale=1.0)


@pytest.mark.parametrize("prior", [0.5, 1.5])
@pytest.mark.parametrize(("loc", "scale"), [(0, 0.4), (0.7, 0.4), (-2, 1.5), (0.3, 2.5), (1, 0.02)])
def test_kl_is_the_integral(loc: float, scale: float, prior: float) -> None:
    q, p = stats.norm(loc, scale), stats.norm(0, prior)
    value, _ = integrate.quad(
        lambda w: q.pdf(w) * (q.logpdf(w) - p.logpdf(w)), loc - 12 * scale, loc + 12 * scale,
        points=[loc], epsabs=1e-12, limit=200,
    )  # fmt: skip
    found = kl(np.array([loc], np.float64), np.array([scale], np.float64), prior)[0]
    assert found == pytest.approx(value, rel=1e-9, abs=1e-10)


def test_kl_keeps_its_digits_near_the_prior_and_far_from_it() -> None:
    prior = 1.0
    for delta in (1e-7, 1e-4, 1e-2):
        # To third order: ((1 + d)² - 1 - 2 ln(1 + d)) / 2 = d² - d³/3 + d⁴/4 ...
        series = delta**2 - delta**3 / 3 + delta**4 / 4 - delta**5 / 5
        found = kl(np.zeros(1), np.array([1 + delta]), prior)[0]
        assert found == pytest.approx(series, rel=3e-9)
    assert kl(one(0), one(1e-20), prior)[0] == pytest.approx(20 * math.log(10) - 0.5, rel=1e-6)
    edge = np.sqrt([0.5 - 1e-12, 0.5, 0.5 + 1e-12, 1.5 - 1e-12, 1.5 + 1e-12])
    direct = (edge**2 - 1 - 2 * np.log(edge)) / 2
    np.testing.assert_allclose(kl(np.zeros(5), edge, prior), direct, rtol=1e-13)


@pytest.mark.parametrize("true_weight", [0.0, 0.05, 0.4])
def test_bmr_is_the_log_evidence_that_fixing_the_weight_at_zero_costs(true_weight: float) -> None:
    """One weight, y = w x + noise: the posterior is exact, both evidences are integrated."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=40)
    noise = 0.8
    y = true_weight * x + noise * generator.normal(size=40)
    precision = 1 / PRIOR**2 + (x @ x) / noise**2
    loc, scale = (x @ y) / noise**2 / precision, precision**-0.5

    def log_likelihood(weight: float) -> float:
        return float(stats.norm(weight * x, noise).logpdf(y).sum())

    peak = log_likelihood(loc)
    evidence, _ = integrate.quad(
        lambda w: math.exp(log_likelihood(w) - peak) * stats.norm(0, PRIOR).pdf(w),
        loc - 12 * scale, loc + 12 * scale, points=[loc], epsabs=1e-13,
    )  # fmt: skip
    lost = math.log(evidence) + peak - log_likelihood(0)
    found = bmr(np.array([loc]), np.array([scale]), PRIOR)[0]
    assert found == pytest.approx(lost, abs=1e-8)
    assert (found <= 0) == ((loc / scale) ** 2 <= 2 * math.log(PRIOR / scale))


def test_the_order_of_log_alpha_is_that_of_snr() -> None:
    generator = np.random.default_rng(1)
    loc = generator.normal(size=5000).astype(np.float32)
    scale = np.exp(generator.normal(size=5000)).astype(np.float32)
    ratio, alpha = snr(loc, scale), log_alpha(loc, scale)
    assert (np.argsort(ratio) == np.argsort(-alpha)).all()
    # Molchanov et al. prune where log alpha is above 3: SNR below exp(-3 / 2) = 0.223.
    assert ((alpha >= 3) == (ratio <= math.exp(-1.5))).all()


def test_scaling_weights_and_prior_together_changes_no_dimensionless_score() -> None:
    loc, scale = np.array([0.5, -2, 0]), np.array([1, 0.25, 2])
    for function in (snr, log_alpha):
        assert (function(4 * loc, 4 * scale) == function(loc, scale)).all()
    for with_prior in (kl, bmr):
        np.testing.assert_allclose(with_prior(4 * loc, 4 * scale, 8), with_prior(loc, scale, 2))
    for sign in (kl(-loc, scale, 2), kl(loc, scale, 2)):
        assert (sign == kl(loc, scale, 2)).all()


def test_random_scores_depend_on_seed_and_name_alone() -> None:
    found = uniform(0, "a", (20000,))
    assert (found == uniform(0, "a", (20000,))).all()
    assert (found.reshape(100, 200) == uniform(0, "a", (100, 200))).all()
    assert ((found >= 0) & (found < 1)).all()
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    for other in (uniform(1, "a", (20000,)), uniform(0, "b", (20000,))):
        assert abs(np.corrcoef(found, other)[0, 1]) < 4 / math.sqrt(20000)
    posterior = make_posterior()
    flat = {name: np.zeros_like(loc) for name, loc in posterior.loc.items()}
    one_way, other_way = scores("random", posterior), scores("random", Posterior(flat, flat))
    assert all((one_way[name] == other_way[name]).all() for name in posterior.names)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_unit_is_scored_as_the_documents_say(name: str) -> None:
    posterior = make_posterior()
    found = scores(name, posterior, prior_scale=PRIOR)["b/kernel"]
    loc, scale = posterior.loc["b/kernel"], posterior.scale["b/kernel"]
    of_units = CRITERIA[name].of_units(found)
    assert of_units.shape == (4,)
    for unit in range(4):
        of_weights = [float(found[i, j, unit]) for i in range(3) for j in range(2)]
        ratios = [
            float(loc[i, j, unit]) / float(scale[i, j, unit]) for i in range(3) for j in range(2)
        ]
        expected = {
            "log_alpha": -math.log(math.fsum(r * r for r in ratios) / 6),
            "kl": math.fsum(of_weights) / 6,
            "bmr": math.fsum(of_weights) / 6,
            "random": of_weights[0],
        }.get(name, math.sqrt(math.fsum(s * s for s in of_weights) / 6))
        assert of_units[unit] == pytest.approx(expected)


@pytest.mark.parametrize("name", CRITERIA)
def test_units_with_zero_or_certain_weights_are_well_defined(name: str) -> None:
    loc = np.array([[0, 0, 1], [0, 1, 2]], np.float32)
    scale = np.array([[0, 0, 0], [0, 1, 1]], np.float32)
    found = scores(name, Posterior({"w": loc}, {"w": scale}), prior_scale=PRIOR)["w"]
    of_units = CRITERIA[name].of_units(found)
    assert not np.isnan(of_units).any()
    if name in ("snr", "kl", "bmr"):
        assert of_units[0] == 0 and np.isfinite(of_units[1]) and of_units[2] == INF
    if name == "log_alpha":
        assert of_units[0] == INF and np.isfinite(of_units[1]) and of_units[2] == -INF


def test_a_criterion_says_what_it_needs() -> None:
    for name, criterion in CRITERIA.items():
        if criterion.needs_prior:
            with pytest.raises(ValueError, match="needs prior_scale"):
                scores(name, make_posterior())
            for prior in (0.0, -1.0, np.nan, np.inf):
                with pytest.raises(ValueError, match="not a positive"):
                    scores(name, make_posterior(), prior_scale=prior)
        # The threshold that prunes nothing lies on the pruned side of every possible score.
        assert criterion.unpruned == {True: INF, False: -INF}[criterion.keeps == "below"] or (
            criterion.unpruned == 0 and not criterion.signed
        )
