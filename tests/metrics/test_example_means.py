"""Means over examples: any shape of a quantity, any blocks, and back from what a file keeps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bprune_hpc.metrics.definitions import Definition
from bprune_hpc.metrics.example_means import ExampleMeans
from bprune_hpc.metrics.half_samples import half_samples

N_GROUPS, N_THRESHOLDS, N_EXAMPLES, BATCH = 4, 3, 23, 5
SIZES = [2, 2, 2, 1]
KINDS = ("loss", "square", "fixed", "step", "kept")
DEFINITIONS = {
    "loss": Definition("loss", "", is_corrected=True),
    "rms": Definition("rms", "", quantity="square", is_root=True),
    "fixed": Definition("fixed", "", has_draws=False),
    "of_the_set": Definition("of_the_set", "", is_of_set=True),
    "loss_change": Definition("loss_change", "", difference_of="loss"),
    "step": Definition("step", "", is_discrete=True),
    "kept": Definition("kept", "", is_discrete=True),
}

Groups = list[dict[str, np.ndarray]]


def quantities(shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], Groups, Groups]:
    generator = np.random.default_rng(0)
    shape = (N_THRESHOLDS, N_EXAMPLES, *shape)
    whole = {name: generator.normal(1, 0.1, shape) for name in KINDS}
    without = [
        {name: whole[name] + generator.normal(0, 0.1, shape) for name in ("loss", "square")}
        for _ in range(N_GROUPS)
    ]
    halves = [
        {name: whole[name] + generator.normal(0, 0.1, shape) for name in ("step", "kept")}
        for _ in half_samples(N_GROUPS)
    ]
    return whole, without, halves


def means(
    whole: dict[str, np.ndarray], without: Groups, halves: Groups, starts: tuple[int, ...] = (0,)
) -> ExampleMeans:
    out = ExampleMeans(BATCH, scores=("kept",))
    for start, stop in zip(starts, (*starts[1:], N_EXAMPLES), strict=True):
        of_block = {name: values[:, start:stop] for name, values in whole.items()}
        parts = (
            ({k: v[:, start:stop] for k, v in part.items()} for part in of_draws)
            for of_draws in (without, halves)
        )
        out.add(of_block, *parts)
    return out


@pytest.mark.parametrize("shape", [(), (2,)])
def test_each_entry_has_both_errors(shape: tuple[int, ...]) -> None:
    whole, without, halves = quantities(shape)
    estimates = means(whole, without, halves).estimates(DEFINITIONS)
    assert set(estimates) == {"loss", "rms", "fixed", "step", "kept"}
    metric = estimates["rms"].metric(SIZES, DEFINITIONS["rms"])
    value = np.sqrt(whole["square"].mean(axis=1))
    left = np.array([np.sqrt(group["square"].mean(axis=1)) for group in without])
    h = (sum(SIZES) / np.array(SIZES)).reshape(-1, *[1] * value.ndim)
    corrected = N_GROUPS * value - ((1 - 1 / h) * left).sum(axis=0)
    variance = ((h * value - (h - 1) * left - corrected) ** 2 / (h - 1)).sum(axis=0) / N_GROUPS
    np.testing.assert_allclose(metric.value, value)
    np.testing.assert_allclose(metric.se, np.sqrt(variance))
    slope = (0.5 / value)[:, None]
    np.testing.assert_allclose(metric.se_data, stats.sem(whole["square"] * slope, axis=1))
    fixed = estimates["fixed"].metric(SIZES, DEFINITIONS["fixed"])
    assert (fixed.se == 0).all() and fixed.value.shape == (N_THRESHOLDS, *shape)
    w = half_samples(N_GROUPS) @ SIZES / sum(SIZES)
    for name in ("step", "kept"):
        away = np.array([half[name].mean(axis=1) for half in halves]) - whole[name].mean(axis=1)
        variance = np.moveaxis(away**2, 0, -1) @ (w / (1 - w)) / len(w)
        found = estimates[name].metric(SIZES, DEFINITIONS[name])
        np.testing.assert_allclose(found.se, np.sqrt(variance))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_blocks_and_columns_change_no_bit(shape: tuple[int, ...]) -> None:
    whole, without, halves = quantities(shape)
    one = means(whole, without, halves)
    blocks = means(whole, without, halves, (0, 10, 15))
    resumed = ExampleMeans(BATCH, scores=("kept",))
    columns = blocks.columns()
    assert all(len(column) == N_THRESHOLDS for column in columns.values())
    resumed.add_columns(columns)
    for other in (blocks, resumed):
        assert other.score("kept").tobytes() == one.score("kept").tobytes()
        for name, estimate in one.estimates(DEFINITIONS).items():
            again = other.estimates(DEFINITIONS)[name]
            assert again.value.tobytes() == estimate.value.tobytes(), name
            if estimate.of_draws is not None:
                assert again.of_draws is not None
                assert again.of_draws.tobytes() == estimate.of_draws.tobytes(), name


def test_one_group_of_draws_has_no_error_and_what_needs_no_draws_none_to_tell() -> None:
    whole, _, _ = quantities(())
    estimates = means(whole, [], []).estimates(DEFINITIONS)
    for name in ("loss", "step", "kept"):
        assert np.isnan(estimates[name].metric([2], DEFINITIONS[name]).se).all()
    assert (estimates["fixed"].metric([2], DEFINITIONS["fixed"]).se == 0).all()
