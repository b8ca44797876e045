"""Means over examples: any shape of a quantity, any blocks, and back from what a file keeps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bprune_hpc.metrics.definitions import Definition
from bprune_hpc.metrics.example_means import ExampleMeans

N_GROUPS, N_THRESHOLDS, N_EXAMPLES, BATCH = 4, 3, 23, 5
SIZES = [2, 2, 2, 1]
DEFINITIONS = {
    "loss": Definition("loss", "", is_corrected=True),
    "rms": Definition("rms", "", quantity="square", is_root=True),
    "fixed": Definition("fixed", "", has_draws=False),
    "of_the_set": Definition("of_the_set", "", is_of_set=True),
    "loss_change": Definition("loss_change", "", difference_of="loss"),
}

Groups = list[dict[str, np.ndarray]]


def quantities(shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], Groups]:
    generator = np.random.default_rng(0)
    shape = (N_THRESHOLDS, N_EXAMPLES, *shape)
    whole = {name: generator.normal(1, 0.1, shape) for name in ("loss", "square", "fixed")}
    without = [
        {name: whole[name] + generator.normal(0, 0.1, shape) for name in ("loss", "square")}
        for _ in range(N_GROUPS)
    ]
    return whole, without


def means(
    whole: dict[str, np.ndarray], without: Groups, starts: tuple[int, ...] = (0,)
) -> ExampleMeans:
    out = ExampleMeans(BATCH, scores=("loss",))
    for start, stop in zip(starts, (*starts[1:], N_EXAMPLES), strict=True):
        of_groups = ({k: v[:, start:stop] for k, v in group.items()} for group in without)
        out.add({name: values[:, start:stop] for name, values in whole.items()}, of_groups)
    return out


@pytest.mark.parametrize("shape", [(), (2,)])
def test_each_entry_has_both_errors(shape: tuple[int, ...]) -> None:
    whole, without = quantities(shape)
    estimates = means(whole, without).estimates(DEFINITIONS)
    assert set(estimates) == {"loss", "rms", "fixed"}
    metric = estimates["rms"].metric(SIZES, is_corrected=False)
    value = np.sqrt(whole["square"].mean(axis=1))
    left = np.array([np.sqrt(group["square"].mean(axis=1)) for group in without])
    h = (sum(SIZES) / np.array(SIZES)).reshape(-1, *[1] * value.ndim)
    corrected = N_GROUPS * value - ((1 - 1 / h) * left).sum(axis=0)
    variance = ((h * value - (h - 1) * left - corrected) ** 2 / (h - 1)).sum(axis=0) / N_GROUPS
    np.testing.assert_allclose(metric.value, value)
    np.testing.assert_allclose(metric.se, np.sqrt(variance))
    slope = (0.5 / value)[:, None]
    np.testing.assert_allclose(metric.se_data, stats.sem(whole["square"] * slope, axis=1))
    fixed = estimates["fixed"].metric(SIZES, is_corrected=False)
    assert (fixed.se == 0).all() and fixed.value.shape == (N_THRESHOLDS, *shape)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_blocks_and_columns_change_no_bit(shape: tuple[int, ...]) -> None:
    whole, without = quantities(shape)
    one = means(whole, without)
    blocks = means(whole, without, (0, 10, 15))
    resumed = ExampleMeans(BATCH, scores=("loss",))
    columns = blocks.columns()
    assert all(len(column) == N_THRESHOLDS for column in columns.values())
    resumed.add_columns(columns)
    for other in (blocks, resumed):
        assert other.score("loss").tobytes() == one.score("loss").tobytes()
        for name, estimate in one.estimates(DEFINITIONS).items():
            again = other.estimates(DEFINITIONS)[name]
            assert again.value.tobytes() == estimate.value.tobytes(), name
            if estimate.without_draws is not None:
                assert again.without_draws is not None
                assert again.without_draws.tobytes() == estimate.without_draws.tobytes(), name


def test_one_group_of_draws_has_no_error_and_what_needs_no_draws_none_to_tell() -> None:
    whole, _ = quantities(())
    estimates = means(whole, []).estimates(DEFINITIONS)
    assert np.isnan(estimates["loss"].metric([2], is_corrected=True).se).all()
    assert (estimates["fixed"].metric([2], is_corrected=False).se == 0).all()
