"""A regression's metrics against numbers worked out from all draws at once, by scipy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from bprune_hpc.accumulators.regression import MAX_LOG2
from bprune_hpc.metrics.definitions import LEVELS, REGRESSION
from bprune_hpc.metrics.half_samples import half_samples
from bprune_hpc.runner.work_split import Plan
from tests.helpers.regression_case import Normals, plan_of, random_normals

N_THRESHOLDS, N_EXAMPLES, N_DRAWS = 3, 43, 100


def folded(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Mean of |N(error, scale²)|, written with scipy's density and distribution function."""
    ratio = error / scale
    return 2 * scale * stats.norm.pdf(ratio) + error * (1 - 2 * stats.norm.cdf(-ratio))


def oracle(case: Normals, units: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of some units of two pairs each."""
    size = len(case.plan.replicates[0])
    draws = (np.asarray(units)[:, None] * size + np.arange(size)).ravel()
    loc, scale, target = case.loc[draws], case.scale[draws], case.target
    mean = loc.mean(axis=0)
    density = special.logsumexp(stats.norm.logpdf(target, loc, scale), axis=0) - np.log(len(draws))
    pit = stats.norm.cdf(target, loc, scale).mean(axis=0)
    between = []
    for unit in units:
        quads = case.plan.replicates[unit]
        between += [
            folded(case.loc[a.index] - case.loc[b.index],
                   np.sqrt(case.scale[a.index] ** 2 + case.scale[b.index] ** 2))
            for k, a in enumerate(quads) for b in quads[:k] if a.noise != b.noise
        ]  # fmt: skip
    crps = folded(loc - target, scale).mean(axis=0) - np.mean(between, axis=0) / 2
    epistemic, aleatoric = loc.var(axis=0), (scale**2).mean(axis=0)
    found = {
        "rmse": np.sqrt(((mean - target) ** 2).mean(axis=1)),
        "rmse_single_draw": np.sqrt(((loc - target) ** 2).mean(axis=(0, 2))),
        "mae": np.abs(mean - target).mean(axis=1),
        "nll": -density.mean(axis=1),
        "crps": crps.mean(axis=1),
        **{
            f"coverage_{level}": ((pit > 0.5 - level / 200) & (pit < 0.5 + level / 200)).mean(1)
            for level in LEVELS
        },
        "sharpness": np.sqrt(epistemic + aleatoric).mean(axis=1),
        "epistemic_variance": epistemic.mean(axis=1),
        "aleatoric_variance": aleatoric.mean(axis=1),
    }
    for name in [*found]:
        difference = "nll_rise" if name == "nll" else f"{name}_change"
        found[difference] = found[name] - found[name][0]
    return found


CORRECTED = {"rmse", "mae", "nll", "sharpness", "epistemic_variance"}


def is_corrected(name: str) -> bool:
    return name.removesuffix("_change").removesuffix("_rise") in CORRECTED


def make(n_draws: int = N_DRAWS, pairing: str = "antithetic", seed: int = 0) -> Normals:
    plan = plan_of(n_draws, N_THRESHOLDS, N_EXAMPLES, pairing)
    return random_normals(plan, N_THRESHOLDS, N_EXAMPLES, seed)


@pytest.fixture(scope="module")
def case() -> Normals:
    return make()


@pytest.mark.parametrize(("n_draws", "pairing"), [(100, "antithetic"), (8, "none"), (4, "none")])
def test_values_are_those_of_all_draws_at_once(n_draws: int, pairing: str) -> None:
    case = make(n_draws, pairing)
    metrics = case.statistics().metrics()
    expected = oracle(case, np.arange(len(case.plan.replicates)))
    assert metrics.keys() - {"rmse_mean_weights", "rmse_mean_weights_change"} == expected.keys()
    for name, value in expected.items():
        if not is_corrected(name):
            np.testing.assert_allclose(metrics[name].value, value, atol=1e-12, err_msg=name)


def test_errors_are_the_jackknifes_and_of_steps_those_of_halves(
    case: Normals,
) -> None:
    n_units = len(case.plan.replicates)
    group = np.arange(n_units) % 20
    whole = oracle(case, np.arange(n_units))
    left_out = [oracle(case, np.flatnonzero(group != g)) for g in range(20)]
    h = n_units / np.bincount(group)
    metrics = case.statistics().metrics()
    halves = [oracle(case, np.flatnonzero(half[group])) for half in half_samples(20)]
    share = [half[group].mean() for half in half_samples(20)]
    for name, estimate in whole.items():
        if REGRESSION[name].has_halves:
            squares = [
                w / (1 - w) * (half[name] - estimate) ** 2
                for w, half in zip(share, halves, strict=True)
            ]
            se = np.sqrt(np.mean(squares, axis=0))
            np.testing.assert_allclose(metrics[name].se, se, atol=1e-12, err_msg=name)
            continue
        corrected = 20 * estimate - sum((1 - 1 / h[g]) * left_out[g][name] for g in range(20))
        variance = sum(
            (h[g] * estimate - (h[g] - 1) * left_out[g][name] - corrected) ** 2 / (h[g] - 1)
            for g in range(20)
        ) / 20  # fmt: skip
        if is_corrected(name):  # the correction counts as uncertain by its own size
            variance = variance + (corrected - estimate) ** 2
        np.testing.assert_allclose(
            metrics[name].se, np.sqrt(variance), rtol=1e-6, atol=1e-10, err_msg=name
        )
        if is_corrected(name):
            np.testing.assert_allclose(metrics[name].value, corrected, rtol=1e-8, atol=1e-12)


def test_data_errors_are_those_of_means_and_of_roots_of_means(case: Normals) -> None:
    error = case.loc.mean(axis=0) - case.target
    metrics = case.statistics().metrics()
    np.testing.assert_allclose(metrics["mae"].se_data, stats.sem(np.abs(error), axis=1))
    rmse = np.sqrt((error**2).mean(axis=1))[:, None]
    # By the delta method; the difference is that of examples in pairs.
    np.testing.assert_allclose(metrics["rmse"].se_data, stats.sem(error**2 / (2 * rmse), axis=1))
    paired = error**2 / (2 * rmse) - (error**2 / (2 * rmse))[0]
    np.testing.assert_allclose(metrics["rmse_change"].se_data, stats.sem(paired, axis=1))
    assert metrics["rmse_change"].se_data[0] == metrics["rmse_change"].value[0] == 0


def test_the_mean_network_has_no_monte_carlo_error(case: Normals) -> None:
    metric = case.statistics().metrics()["rmse_mean_weights"]
    expected = np.sqrt(((case.at_mean - case.target) ** 2).mean(axis=1))
    np.testing.assert_allclose(metric.value, expected)
    assert (metric.se == 0).all() and (metric.se_data > 0).all()


def exact_crps(loc: np.ndarray, scale: np.ndarray, target: float) -> float:
    """Integral over z of (F(z) - 1{z >= target})² for a mixture of Normals."""
    ends = [(loc - 12 * scale).min(), *np.sort([target]), (loc + 12 * scale).max()]
    ends = sorted({*ends, *np.linspace(ends[0], ends[-1], 9)})

    def squared(z: float) -> float:
        return float((stats.norm.cdf(z, loc, scale).mean() - (z >= target)) ** 2)

    return sum(integrate.quad(squared, low, high, epsabs=1e-11)[0] for low, high in pairwise(ends))


def test_crps_is_unbiased_whatever_the_number_of_draws() -> None:
    # The mean over many sweeps of two pairs each is the score of the mixture of all draws.
    generator = np.random.default_rng(5)
    plan, target = plan_of(4, 1, 2), np.array([0.3, -2.0])
    width, found = 1.5, []
    for _ in range(4000):
        noise = generator.normal(size=2)
        loc = np.array([d.sign * width * noise[d.noise] for d in plan.replicates[0]])
        loc = np.repeat(loc[:, None, None], 2, axis=2)
        case = Normals(plan, target, np.zeros((1, 2)), loc, np.full(loc.shape, 0.5))
        found.append(case.statistics().per_example("crps")[0])
    # The mixture of all draws is N(0, 1.5² + 0.5²), whose score scipy can integrate.
    deviation = np.hypot(width, 0.5)
    truth = [exact_crps(np.zeros(1), np.array([deviation]), y) for y in target]
    error = stats.sem(found, axis=0)
    assert (np.abs(np.mean(found, axis=0) - truth) < 4 * error).all()
    # Comparing the two of a pair would be seen: they lie further apart than two draws.
    apart = np.mean(folded(2 * width * np.abs(generator.normal(size=4000)), np.sqrt(0.5)))
    honest = 2 * deviation / np.sqrt(np.pi)
    assert (apart - honest) / 2 > 20 * error.max()


def test_crps_of_many_draws_is_the_integral_of_the_mixture() -> None:
    plan = plan_of(2000, 1, 5)
    case = random_normals(plan, 1, 5, seed=3)
    metric = case.statistics().metrics()["crps"]
    chosen = slice(0, None, 10)
    truth = [
        exact_crps(case.loc[chosen, 0, n], case.scale[chosen, 0, n], case.target[n])
        for n in range(5)
    ]
    # The mixture of every tenth draw is itself an estimate, with about three times the error.
    assert abs(metric.value[0] - np.mean(truth)) < 4 * np.sqrt(11) * metric.se[0]


def test_densities_far_below_float64s_smallest() -> None:
    plan = plan_of(80, 1, 3)
    case = random_normals(plan, 1, 3)
    case.scale[:] = 1e-4 * np.linspace(1, 2, 80)[:, None, None]
    case.loc[0, 0, 0] = case.target[0]  # one draw alone is right of the first example
    metrics = case.statistics().metrics()
    log = special.logsumexp(stats.norm.logpdf(case.target, case.loc, case.scale), axis=0)
    expected = -(log - np.log(80))
    statistics = case.statistics()
    np.testing.assert_allclose(statistics.per_example("nll"), expected, rtol=1e-12)
    assert (expected[0, 1:] > 1e3).all() and np.isfinite(metrics["nll"].se).all()
    # Without the group of the one draw that is right, the rest has to be as exact.
    units = np.arange(1, 20)
    left = oracle(case, units)["nll"]
    n_left = oracle(case, np.arange(20))["nll"]
    assert left[0] - n_left[0] > 100
    every = [oracle(case, np.delete(np.arange(20), g))["nll"][0] for g in range(20)]
    spread = np.sqrt(19 / 20 * np.sum((np.array(every) - np.mean(every)) ** 2))
    correction = 19 * (n_left[0] - np.mean(every))
    assert metrics["nll"].se[0] == pytest.approx(np.hypot(spread, correction), rel=1e-9)


def test_what_is_out_of_all_range_counts_as_the_least() -> None:
    case = random_normals(plan_of(4, 1, 2), 1, 2)
    case.loc[:] = 3e38
    case.scale[:] = 1e-38
    nll = case.statistics().per_example("nll")
    np.testing.assert_allclose(nll, MAX_LOG2 * np.log(2))
    assert np.isfinite(case.statistics().metrics()["rmse"].value).all()


def test_median_and_intervals_are_those_of_the_mixture(case: Normals) -> None:
    statistics = case.statistics()
    pit = statistics.per_example("pit")
    for t, n in ((0, 0), (1, 5), (2, 40)):
        loc, scale = case.loc[:, t, n], case.scale[:, t, n]

        def below(z: float, loc: np.ndarray = loc, scale: np.ndarray = scale) -> float:
            return float(stats.norm.cdf(z, loc, scale).mean())

        low, high = (optimize.brentq(lambda z, q=q: below(z) - q, -30, 30) for q in (0.05, 0.95))
        inside = statistics.per_example("inside_90")[t, n]
        assert inside == (low <= case.target[n] <= high)
        assert pit[t, n] == pytest.approx(below(case.target[n]))


def bits(metrics: dict) -> dict[str, bytes]:
    return {
        name: metric.value.tobytes() + metric.se.tobytes() + metric.se_data.tobytes()
        for name, metric in metrics.items()
    }


def test_blocks_of_examples_change_no_bit(case: Normals) -> None:
    blocks = [range(0, 10), range(10, 40), range(40, N_EXAMPLES)]
    assert bits(case.statistics(blocks).metrics()) == bits(case.statistics().metrics())


@pytest.mark.parametrize("n_ranks", [2, 3, 7])
def test_shuffled_work_on_any_number_of_ranks_changes_no_bit(case: Normals, n_ranks: int) -> None:
    whole = case.sums(slice(None))
    order = np.random.default_rng(n_ranks).permutation(len(case.plan.replicates))
    parts = [case.sums(slice(None), units) for units in np.array_split(order, n_ranks)]
    for group in range(len(case.plan.group_sizes)):
        together, *others = [part[group].sums for part in parts]
        for one in others:
            together.add_sums(slice(None), *one.arrays)
        reference = whole[group].sums
        assert together.top.tobytes() == reference.top.tobytes()
        assert together.bins.tobytes() == reference.bins.tobytes()


def test_one_unit_has_no_error() -> None:
    metrics = make(4).statistics().metrics()
    assert np.isnan(metrics["crps"].se).all() and np.isfinite(metrics["crps"].value).all()
    assert np.isfinite(metrics["rmse"].value).all() and np.isnan(metrics["rmse"].se).all()


def test_one_example_and_perfect_predictions() -> None:
    plan: Plan = plan_of(8, 1, 1)
    same = np.full((8, 1, 1), 2.0)
    case = Normals(plan, np.array([2.0]), np.array([[2.0]]), same, np.full((8, 1, 1), 0.5))
    metrics = case.statistics().metrics()
    assert metrics["rmse"].value == 0 and metrics["rmse"].se == 0
    assert np.isnan(metrics["rmse"].se_data)
    assert metrics["epistemic_variance"].value == 0 and metrics["coverage_50"].value == 1
    assert metrics["nll"].value == pytest.approx(-stats.norm.logpdf(0, scale=0.5))
    assert metrics["crps"].value == pytest.approx(exact_crps(np.zeros(1), np.array([0.5]), 0.0))


# Several targets


def test_several_targets_are_each_as_if_alone_and_together_their_average() -> None:
    plan = plan_of(40, N_THRESHOLDS, N_EXAMPLES)
    cases = [random_normals(plan, N_THRESHOLDS, N_EXAMPLES, seed) for seed in (0, 1, 2)]
    both = Normals(
        plan, *(np.stack([getattr(case, of) for case in cases], axis=-1)
                for of in ("target", "at_mean", "loc", "scale"))
    )  # fmt: skip
    together = both.statistics()
    blocks = both.statistics([range(0, 20), range(20, N_EXAMPLES)])
    metrics, by_target = together.metrics(), together.metrics_by_target()
    assert metrics.keys() == by_target.keys()
    alone = [case.statistics().metrics() for case in cases]
    for name, metric in by_target.items():
        of_blocks = blocks.metrics_by_target()[name]
        for of in ("value", "se", "se_data"):
            expected = np.stack([getattr(one[name], of) for one in alone], axis=-1)
            found = getattr(metric, of)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14, err_msg=name)
            np.testing.assert_array_equal(getattr(of_blocks, of), found)
    draws = np.arange(plan.n_draws)
    log = stats.norm.logpdf(both.target, both.loc[draws], both.scale[draws])
    joint = np.log(plan.n_draws) - special.logsumexp(log.sum(axis=-1), axis=0)
    np.testing.assert_allclose(together.per_example("nll"), joint, rtol=1e-9)
    square = ((both.loc.mean(axis=0) - both.target) ** 2).mean(axis=-1)
    np.testing.assert_allclose(together.per_example("squared_error"), square, rtol=1e-9)
    pooled = np.sqrt(square.mean(axis=1))
    np.testing.assert_allclose(
        metrics["rmse"].se_data, stats.sem(square / (2 * pooled[:, None]), axis=1)
    )
    for name in ("crps", "coverage_90", "aleatoric_variance"):
        np.testing.assert_allclose(metrics[name].value, by_target[name].value.mean(axis=-1))
