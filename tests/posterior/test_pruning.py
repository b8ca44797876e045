from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.posterior.criteria import CRITERIA, scores
from bprune_hpc.posterior.mean_field import Posterior, snr
from bprune_hpc.posterior.pruning import (
    PRUNED_SCALE,
    PruningMask,
    PruningRule,
    labels_of,
    mask_at_fraction,
    mask_at_threshold,
    pruning_masks,
)


def make_posterior(seed: int = 0) -> Posterior:
    generator = np.random.default_rng(seed)
    shapes = {"a": (7, 5), "b": (5,), "c": (5, 3)}
    loc = {k: generator.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    scale = {k: generator.uniform(0.1, 2, s).astype(np.float32) for k, s in shapes.items()}
    return Posterior(loc, scale)


def test_snr_of_single_weights() -> None:
    loc = np.array([0, 0, 1, -3, 1e-30], np.float32)
    scale = np.array([0, 1, 0, 1.5, 1e-30], np.float32)
    assert snr(loc, scale).tolist() == [0, 0, np.inf, 2, 1]


@pytest.mark.parametrize(("loc", "scale"), [(np.nan, 1), (1, np.nan), (np.inf, 1), (1, -1)])
def test_snr_refuses_what_is_no_posterior(loc: float, scale: float) -> None:
    with pytest.raises(ValueError, match="must"):
        snr(np.array([loc], np.float32), np.array([scale], np.float32))


def test_a_table_must_match() -> None:
    a = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="loc has"):
        Posterior({"a": a}, {"b": a})
    with pytest.raises(ValueError, match="a: loc"):
        Posterior({"a": a}, {"a": np.zeros(3, np.float32)})


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 3.0])
def test_at_or_below_the_threshold_is_exactly_zero_and_the_rest_untouched(
    threshold: float,
) -> None:
    posterior = make_posterior()
    cut = mask_at_threshold(posterior, threshold)
    pruned = cut.apply(posterior)
    n_active = 0
    for name in posterior.names:
        for index in np.ndindex(posterior.loc[name].shape):
            loc, scale = float(posterior.loc[name][index]), float(posterior.scale[name][index])
            left = (float(pruned.loc[name][index]), float(pruned.scale[name][index]))
            if abs(loc) / scale <= threshold:
                assert left == (0.0, 0.0)
            else:
                assert left == (loc, scale)
                n_active += 1
    assert cut.n_active == n_active
    assert cut.pruned_fraction == (posterior.n_weights - n_active) / posterior.n_weights


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_posterior_of_any_precision_stays_so(kind: type[np.floating]) -> None:
    kept = np.array([[True], [False], [True]])
    values = np.array([[0.1], [0.2], [-0.0]], kind)
    cut = replace(
        mask_at_threshold(Posterior({"a": values}, {"a": values * 0}), 0), kept={"a": kept}
    )
    pruned = cut.apply(Posterior({"a": values}, {"a": values**2}))
    assert pruned.loc["a"].dtype == pruned.scale["a"].dtype == kind
    assert pruned.loc["a"].tolist() == [[values[0, 0]], [0], [0]]
    assert pruned.scale["a"].tolist() == [[values[0, 0] ** 2], [0], [0]]


def test_a_weight_exactly_at_the_threshold_is_pruned() -> None:
    one = np.ones(3, np.float32)
    posterior = Posterior({"a": np.array([1, 2, 3], np.float32)}, {"a": one})
    assert mask_at_threshold(posterior, 2.0).kept["a"].tolist() == [False, False, True]


def test_threshold_zero_prunes_nothing_not_even_a_mean_of_zero() -> None:
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    posterior = Posterior({"a": zero}, {"a": one})
    assert mask_at_threshold(posterior, 0).pruned_fraction == 0
    assert mask_at_threshold(posterior, 1e-300).pruned_fraction == 1


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_weights_that_are_zero_already_count_as_pruned(granularity: str) -> None:
    loc = np.array([[0, 0], [2, 0]], np.float32)
    scale = np.array([[0, 1], [1, 0]], np.float32)
    posterior, rule = Posterior({"a": loc}, {"a": scale}), PruningRule(granularity=granularity)
    kept = mask_at_threshold(posterior, 0, rule).kept["a"]
    np.testing.assert_array_equal(kept, [[False, True], [True, False]])
    left = mask_at_threshold(posterior, 0, replace(rule, pruned_scale=0.5))
    assert left.pruned_fraction == 0  # nothing is made of them but what they are


@pytest.mark.parametrize("fraction", [0, 0.1, 1 / 3, 0.5, 0.95])
def test_fractions_are_exact_even_when_all_are_equal(fraction: float) -> None:
    posterior = make_posterior()
    ones = {name: np.ones_like(loc) for name, loc in posterior.loc.items()}
    for table in (posterior, Posterior(ones, ones)):
        cut = mask_at_fraction(table, fraction)
        assert table.n_weights - cut.n_active == round(fraction * table.n_weights)
        assert cut.requested_fraction == fraction


def test_of_equals_the_first_go() -> None:
    ones = np.ones(40, np.float32)
    cut = mask_at_fraction(Posterior({"a": ones}, {"a": ones}), 0.3)
    assert cut.kept["a"].tolist() == [False] * 12 + [True] * 28


def test_fractions_prune_the_lowest_snr() -> None:
    posterior = make_posterior()
    cut = mask_at_fraction(posterior, 0.4)
    ratios = posterior.snr()
    pruned = np.concatenate([ratios[k][~cut.kept[k]] for k in posterior.names])
    kept = np.concatenate([ratios[k][cut.kept[k]] for k in posterior.names])
    assert pruned.max() <= kept.min()
    assert cut.threshold == pruned.max()
    same = mask_at_threshold(posterior, cut.threshold)
    assert all((same.kept[k] == cut.kept[k]).all() for k in posterior.names)


def test_layers_are_counted_one_by_one() -> None:
    posterior = make_posterior()
    cut = mask_at_threshold(posterior, 1.0)
    total = sum(cut.pruned_fraction_of(k) * posterior.loc[k].size for k in posterior.names)
    assert total == pytest.approx(cut.pruned_fraction * posterior.n_weights)


def test_a_grid_is_cut_in_its_order() -> None:
    found = pruning_masks(make_posterior(), "threshold", (0, 0.5, 1))
    assert [cut.threshold for cut in found] == [0, 0.5, 1]
    assert np.isnan([cut.requested_fraction for cut in found]).all()
    with pytest.raises(ValueError, match="not finite"):
        mask_at_threshold(make_posterior(), np.nan)
    with pytest.raises(ValueError, match="not in"):
        mask_at_fraction(make_posterior(), 1.0)


def rule_of(name: str, scope: str = "global") -> PruningRule:
    return PruningRule(
        name, scope=scope, prior_scale=1.5 if CRITERIA[name].needs_prior else None, seed=3
    )


def score_table(posterior: Posterior, name: str) -> list[tuple[str, tuple[int, ...], float]]:
    """(tensor, position, score) of every weight, one by one; low scores go first."""
    found = scores(name, posterior, prior_scale=1.5, seed=3)
    sign = -1 if CRITERIA[name].keeps == "below" else 1
    return [
        (tensor, index, sign * float(found[tensor][index]))
        for tensor in posterior.names
        for index in np.ndindex(found[tensor].shape)
    ]


def pruned_of(cut: PruningMask) -> set[tuple[str, tuple[int, ...]]]:
    return {
        (name, index)
        for name, mask in cut.kept.items()
        for index in np.ndindex(mask.shape)
        if not mask[index]
    }


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_prunes_up_to_its_threshold(name: str) -> None:
    posterior = make_posterior()
    table = score_table(posterior, name)
    sign = -1 if CRITERIA[name].keeps == "below" else 1
    for value in sorted(score for _, _, score in table)[3::11]:
        cut = mask_at_threshold(posterior, sign * value, rule_of(name))
        assert pruned_of(cut) == {(tensor, at) for tensor, at, score in table if score <= value}
        assert cut.layer_threshold == dict.fromkeys(posterior.names, sign * value)
    unpruned = mask_at_threshold(posterior, CRITERIA[name].unpruned, rule_of(name))
    assert unpruned.pruned_fraction == 0 and unpruned.threshold == CRITERIA[name].unpruned


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_fractions_against_a_sorted_list(name: str, ties: bool, scope: str) -> None:
    posterior = make_posterior()
    if ties:
        ones = {k: np.round(loc).astype(np.float32) for k, loc in posterior.loc.items()}
        posterior = Posterior(ones, {k: np.ones_like(loc) for k, loc in ones.items()})
    table = score_table(posterior, name)
    fractions = (0, 0.05, 1 / 3, 0.5, 0.97)
    found = pruning_masks(posterior, "fraction", fractions, rule_of(name, scope))
    sign = -1 if CRITERIA[name].keeps == "below" else 1
    for fraction, cut in zip(fractions, found, strict=True):
        pools = [set(posterior.names)] if scope == "global" else [{n} for n in posterior.names]
        expected, last = set(), {}
        for pool in pools:
            # Python's sort keeps equal scores in the order of tensors and positions.
            order = sorted((row for row in table if row[0] in pool), key=lambda row: row[2])
            gone = order[: round(fraction * len(order))]
            expected |= {(tensor, at) for tensor, at, _ in gone}
            limit = sign * gone[-1][2] if gone else CRITERIA[name].unpruned
            last |= dict.fromkeys(pool, limit)
        assert pruned_of(cut) == expected
        assert cut.layer_threshold == last
        assert cut.threshold == sign * max(sign * limit for limit in last.values())
        assert cut.requested_fraction == fraction


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_what_is_zero_already_is_the_first_of_a_fraction(name: str, scope: str) -> None:
    posterior = make_posterior()
    before = mask_at_fraction(posterior, 0.4, PruningRule("random", seed=9))
    posterior, was_zero = before.apply(posterior), pruned_of(before)
    table = [row for row in score_table(posterior, name) if row[:2] not in was_zero]
    fractions = (0, 0.2, 0.5, 0.7, 0.97)
    found = pruning_masks(posterior, "fraction", fractions, rule_of(name, scope))
    sign = -1 if CRITERIA[name].keeps == "below" else 1
    for fraction, cut in zip(fractions, found, strict=True):
        pools = [set(posterior.names)] if scope == "global" else [{n} for n in posterior.names]
        expected = set(was_zero)
        for pool in pools:
            n_zero = sum(tensor in pool for tensor, _ in was_zero)
            order = sorted((row for row in table if row[0] in pool), key=lambda row: row[2])
            more = order[: max(round(fraction * (len(order) + n_zero)) - n_zero, 0)]
            expected |= {(tensor, at) for tensor, at, _ in more}
            limit = sign * more[-1][2] if more else CRITERIA[name].unpruned
            assert {cut.layer_threshold[tensor] for tensor in pool} == {limit}
        assert pruned_of(cut) == expected


def test_neurons_that_are_zero_already_are_the_first_of_a_fraction() -> None:
    posterior = unit_posterior()
    for table in (posterior.loc, posterior.scale):
        table["d/kernel"][:, 3] = 0
    # Evidence lost, of the others: -1.8, -2.3, -0.1 in d; -0.3, 10.2 in e.
    rule = PruningRule("bmr", granularity="neuron", prior_scale=10)
    found = pruning_masks(posterior, "fraction", [0, 1 / 6, 0.5], rule)
    of_d = [cut.kept["d/bias"].tolist() for cut in found]
    assert of_d == [[True] * 4, [True, True, True, False], [False, False, True, False]]
    assert all(cut.kept["e/kernel"].all() for cut in found)


@pytest.mark.parametrize("name", CRITERIA)
def test_cuts_are_nested(name: str) -> None:
    found = pruning_masks(make_posterior(), "fraction", np.arange(10) / 10, rule_of(name))
    for less, more in pairwise(found):
        assert pruned_of(less) < pruned_of(more)


def test_snr_and_log_alpha_prune_the_same_weights() -> None:
    posterior = make_posterior()
    for fraction in (0.1, 0.5, 0.9):
        one = mask_at_fraction(posterior, fraction, PruningRule("snr"))
        other = mask_at_fraction(posterior, fraction, PruningRule("log_alpha"))
        assert pruned_of(one) == pruned_of(other)
        assert other.threshold == pytest.approx(-2 * math.log(one.threshold))


def test_bmr_at_zero_is_the_rule_of_savage_and_dickey() -> None:
    posterior, prior = make_posterior(), 1.5
    cut = mask_at_threshold(posterior, 0, PruningRule("bmr", prior_scale=prior))
    assert 0 < cut.pruned_fraction < 1
    for name in posterior.names:
        scale = posterior.scale[name].astype(float)
        expected = snr(posterior.loc[name], posterior.scale[name]) ** 2 <= 2 * np.log(prior / scale)
        assert (cut.kept[name] == ~expected).all()


def unit_posterior() -> Posterior:
    """Two dense layers, one with a bias, and a convolution; unit scales, so that SNR is |loc|."""
    loc = {
        "d/kernel": np.array([[1, 0, 3, 4], [1, 0, 0, 3]]),
        "d/bias": np.array([9, 9, 9, 9]),
        "e/kernel": np.array([[2, 5], [2, 5], [2, 5], [2, 5]]),
        "other/bias": np.array([0, 0, 0, 0]),
        "c/kernel": np.arange(12).reshape(1, 2, 2, 3),
    }
    table = {name: array.astype(np.float32) for name, array in loc.items()}
    return Posterior(table, {name: np.ones_like(array) for name, array in table.items()})


def test_neurons_are_pruned_whole_with_their_bias() -> None:
    # Root mean squares: 1, 0, 2.12, 3.54 in d; 2, 5 in e.
    cut = mask_at_threshold(unit_posterior(), 2.0, PruningRule(granularity="neuron"))
    stays = [False, False, True, True]
    assert cut.kept["d/kernel"].tolist() == [stays, stays]
    assert cut.kept["d/bias"].tolist() == stays
    assert cut.kept["e/kernel"].tolist() == [[False, True]] * 4
    assert cut.kept["other/bias"].all() and cut.kept["c/kernel"].all()
    assert math.isnan(cut.layer_threshold["c/kernel"]) and cut.layer_threshold["d/bias"] == 2
    assert cut.n_active == 4 + 2 + 4 + 4 + 12
    left = cut.apply(unit_posterior())
    assert left.loc["d/kernel"].tolist() == [[0, 0, 3, 4], [0, 0, 0, 3]]
    assert left.scale["d/bias"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("fraction", "scope", "d", "e"),
    [
        (0, "global", [1, 1, 1, 1], [1, 1]),
        (0.5, "global", [0, 0, 1, 1], [0, 1]),
        (2 / 3, "global", [0, 0, 0, 1], [0, 1]),
        (0.5, "layer", [0, 0, 1, 1], [0, 1]),
        (0.25, "layer", [1, 0, 1, 1], [1, 1]),
    ],
)
def test_fractions_of_neurons_count_neurons(
    fraction: float, scope: str, d: list[int], e: list[int]
) -> None:
    cut = mask_at_fraction(
        unit_posterior(), fraction, PruningRule(granularity="neuron", scope=scope)
    )
    assert cut.kept["d/bias"].tolist() == d and cut.kept["d/kernel"].tolist() == [d, d]
    assert cut.kept["e/kernel"].tolist() == [e] * 4


def test_filters_are_pruned_whole_and_nothing_else() -> None:
    # Filters hold 0 3 6 9, 1 4 7 10, 2 5 8 11: root mean squares 5.6, 6.4, 7.3.
    cut = mask_at_threshold(unit_posterior(), 6, PruningRule(granularity="filter"))
    assert (cut.kept["c/kernel"] == np.array([False, True, True])).all()
    assert all(cut.kept[name].all() for name in cut.kept if name != "c/kernel")
    assert cut.n_active == unit_posterior().n_weights - 4
    assert [cut.pruned_fraction_of(n) for n in ("c/kernel", "d/kernel")] == [1 - 8 / 12, 0]


@pytest.mark.parametrize(
    ("granularity", "name", "missing"),
    [("filter", "d/kernel", "convolution kernel"), ("neuron", "c/kernel", "dense kernel")],
)
def test_a_network_without_such_units(granularity: str, name: str, missing: str) -> None:
    posterior = unit_posterior()
    alone = Posterior({name: posterior.loc[name]}, {name: posterior.scale[name]})
    with pytest.raises(
        ConfigError, match=f"--granularity={granularity}: .* no mean-field {missing}"
    ):
        mask_at_threshold(alone, 1.0, PruningRule(granularity=granularity))


def test_a_bias_that_could_belong_to_two_kernels_is_left_alone() -> None:
    ones = {
        name: np.ones(shape, np.float32)
        for name, shape in {"kernel": (3, 4), "recurrent": (4, 4), "bias": (4,)}.items()
    }
    cut = mask_at_threshold(Posterior(ones, ones), 1.0, PruningRule(granularity="neuron"))
    assert not cut.kept["kernel"].any() and not cut.kept["recurrent"].any()
    assert cut.kept["bias"].all()


def test_bprunes_pruned_weights_are_noise() -> None:
    posterior = make_posterior()
    cut = mask_at_threshold(posterior, 1.0, PruningRule(pruned_scale=PRUNED_SCALE["bprune"]))
    left = cut.apply(posterior)
    softplus_of_zero = np.float32(np.logaddexp(0, 0))
    for name, kept in cut.kept.items():
        assert (left.loc[name][~kept] == 0).all()
        assert (left.scale[name][~kept] == softplus_of_zero).all()
        assert (left.scale[name][kept] == posterior.scale[name][kept]).all()
    assert all(array.dtype == np.float32 for array in (*left.loc.values(), *left.scale.values()))


@pytest.mark.parametrize(
    ("name", "threshold"), [("kl", -1), ("bmr", np.nan), ("bmr", np.inf), ("log_alpha", -np.inf)]
)
def test_thresholds_that_no_criterion_takes(name: str, threshold: float) -> None:
    with pytest.raises(ValueError, match="is not finite"):
        mask_at_threshold(make_posterior(), threshold, rule_of(name))


def test_labels_tell_different_points_apart() -> None:
    assert labels_of([0.0, 0.1, 1 / 3, np.inf], is_share=False) == ["0", "0.1", "0.3333", "none"]
    assert labels_of([0.12345, 0.12346], is_share=False) == ["0.12345", "0.12346"]
    assert labels_of([1.0, 1 + 2**-52], is_share=False) == ["1", "1.0000000000000002"]
    assert labels_of([0.5, 0.500001], is_share=True) == ["50 %", "50.0001 %"]


def test_headings_say_on_which_side_of_a_threshold_weights_are_pruned() -> None:
    headings = {name: PruningRule(criterion=name).heading("threshold") for name in CRITERIA}
    assert headings["snr"] == "SNR <=" and headings["log_alpha"] == "log alpha >="
    assert PruningRule(criterion="log_alpha").heading("fraction") == "highest log alpha"
