from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.posterior import Posterior, snr
from bprune_hpc.pruning import cut_at_fraction, cut_at_threshold, cuts, prune


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
    cut = cut_at_threshold(posterior, threshold)
    pruned = prune(posterior, cut)
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


def test_a_weight_exactly_at_the_threshold_is_pruned() -> None:
    one = np.ones(3, np.float32)
    posterior = Posterior({"a": np.array([1, 2, 3], np.float32)}, {"a": one})
    assert cut_at_threshold(posterior, 2.0).kept["a"].tolist() == [False, False, True]


def test_threshold_zero_prunes_nothing_not_even_zeros() -> None:
    zero = np.zeros(3, np.float32)
    posterior = Posterior({"a": zero}, {"a": zero})
    assert cut_at_threshold(posterior, 0).pruned_fraction == 0
    assert cut_at_threshold(posterior, 1e-300).pruned_fraction == 1


@pytest.mark.parametrize("fraction", [0, 0.1, 1 / 3, 0.5, 0.95])
def test_fractions_are_exact_even_when_all_are_equal(fraction: float) -> None:
    posterior = make_posterior()
    ones = {name: np.ones_like(loc) for name, loc in posterior.loc.items()}
    for table in (posterior, Posterior(ones, ones)):
        cut = cut_at_fraction(table, fraction)
        assert table.n_weights - cut.n_active == round(fraction * table.n_weights)
        assert cut.requested_fraction == fraction


def test_of_equals_the_first_go() -> None:
    ones = np.ones(40, np.float32)
    cut = cut_at_fraction(Posterior({"a": ones}, {"a": ones}), 0.3)
    assert cut.kept["a"].tolist() == [False] * 12 + [True] * 28


def test_fractions_prune_the_lowest_snr() -> None:
    posterior = make_posterior()
    cut = cut_at_fraction(posterior, 0.4)
    ratios = posterior.snr()
    pruned = np.concatenate([ratios[k][~cut.kept[k]] for k in posterior.names])
    kept = np.concatenate([ratios[k][cut.kept[k]] for k in posterior.names])
    assert pruned.max() <= kept.min()
    assert cut.threshold == pruned.max()
    same = cut_at_threshold(posterior, cut.threshold)
    assert all((same.kept[k] == cut.kept[k]).all() for k in posterior.names)


def test_layers_are_counted_one_by_one() -> None:
    posterior = make_posterior()
    cut = cut_at_threshold(posterior, 1.0)
    total = sum(cut.pruned_fraction_of(k) * posterior.loc[k].size for k in posterior.names)
    assert total == pytest.approx(cut.pruned_fraction * posterior.n_weights)


def test_a_grid_is_cut_in_its_order() -> None:
    found = cuts(make_posterior(), "threshold", (0, 0.5, 1))
    assert [cut.threshold for cut in found] == [0, 0.5, 1]
    assert np.isnan([cut.requested_fraction for cut in found]).all()
    with pytest.raises(ValueError, match="not finite"):
        cut_at_threshold(make_posterior(), np.nan)
    with pytest.raises(ValueError, match="not in"):
        cut_at_fraction(make_posterior(), 1.0)
