"""Telling other examples from the test set: against scikit-learn, and whole sweeps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from bprune_hpc import data, results, sweep
from bprune_hpc.metrics.definitions import OUT_OF_DISTRIBUTION
from bprune_hpc.metrics.half_samples import half_samples
from bprune_hpc.metrics.ood import ood_metrics
from tests.helpers.bits import all_bits
from tests.helpers.launch import MpiRun

ORACLES = {"auroc": roc_auc_score, "aupr": average_precision_score}
SCORES = {"entropy": "predictive_entropy", "mutual_information": "mutual_information"}


def scores(
    generator: np.random.Generator, n_replicates: int, n_examples: int, shift: float
) -> dict[str, np.ndarray]:
    return {
        name: generator.normal(shift, 1, (n_replicates, 2, n_examples)).round(1)  # with ties
        for name in SCORES.values()
    }


def test_areas_and_errors_against_loops() -> None:
    generator = np.random.default_rng(0)
    sizes, n, m = [2, 2, 1], 120, 7
    halves = half_samples(3)
    test, other = (scores(generator, 1 + len(halves), *of) for of in ((n, 0.0), (m, 1.0)))
    found = ood_metrics(test, other, sizes)
    assert len(found) == 8 and list(found) == list(OUT_OF_DISTRIBUTION)
    for area, short in itertools.product(ORACLES, SCORES):
        name = f"{area}_ood_{short}"
        inside, outside = test[SCORES[short]], other[SCORES[short]]

        def oracle(r: int, t: int, rows: np.ndarray, columns: np.ndarray) -> float:
            both = np.concatenate([inside[r, t, rows], outside[r, t, columns]])  # noqa: B023
            return ORACLES[area](np.repeat([0, 1], [len(rows), len(columns)]), both)  # noqa: B023

        i, j = np.arange(n), np.arange(m)
        value = np.array([oracle(0, t, i, j) for t in range(2)])
        np.testing.assert_allclose(found[name].value, value, rtol=1e-12)
        change = found[f"{name}_change"]
        assert change.value[0] == change.se[0] == change.se_data[0] == 0
        assert change.value[1] == pytest.approx(value[1] - value[0])
        # The jackknife's variance with unequal groups, written out.
        for difference, metric in ((False, found[name]), (True, change)):

            def at(r: int, rows: np.ndarray, columns: np.ndarray) -> float:
                first = oracle(r, 0, rows, columns) if difference else 0.0  # noqa: B023
                return oracle(r, 1, rows, columns) - first

            def variance(whole: float, without: list[float], counts: np.ndarray) -> float:
                h = counts.sum() / counts
                pseudo = h * whole - (h - 1) * np.array(without)
                mean = len(h) * whole - ((1 - 1 / h) * np.array(without)).sum()
                return float(((pseudo - mean) ** 2 / (h - 1)).mean())

            whole = at(0, i, j)
            w = halves @ sizes / sum(sizes)
            away = np.array([at(1 + r, i, j) for r in range(len(halves))]) - whole
            se = (w / (1 - w) * away**2).mean()
            of_test = [at(0, i[i % 50 != g], j) for g in range(50)]
            of_other = [at(0, i, j[j != g]) for g in range(m)]
            counts = np.bincount(i % 50)
            se_data = variance(whole, of_test, counts) + variance(whole, of_other, np.ones(m))
            assert metric.se[1] == pytest.approx(np.sqrt(se))
            assert metric.se_data[1] == pytest.approx(np.sqrt(se_data))


def test_errors_of_both_sets_cover_the_area_of_large_ones() -> None:
    generator = np.random.default_rng(1)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    n_repeats, held = 300, 0
    quantile = stats.t.ppf(0.975, 49)
    for _ in range(n_repeats):
        test = {name: generator.normal(0, 1, (3, 1, 100)) for name in SCORES.values()}
        other = {name: generator.normal(1, 1, (3, 1, 60)) for name in SCORES.values()}
        metric = ood_metrics(test, other, [1, 1])["auroc_ood_entropy"]
        held += abs(metric.value[0] - truth) <= quantile * metric.se_data[0]
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / n_repeats) < held / n_repeats


def test_one_other_example_has_no_error_of_the_data() -> None:
    generator = np.random.default_rng(2)
    metric = ood_metrics(scores(generator, 3, 9, 0), scores(generator, 3, 1, 0), [1, 1])
    assert np.isfinite(metric["auroc_ood_entropy"].value).all()
    assert np.isnan(metric["auroc_ood_entropy"].se_data).all()
    low, high = metric["auroc_ood_entropy"].low, metric["auroc_ood_entropy"].high
    assert low is not None and high is not None
    assert ((low >= 0) & (low < high) & (high <= 1)).all()  # wide, but there is one


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A sweep of the digits, to be told from digits whose pixels were shuffled."""
    generator = np.random.default_rng(0)
    x = data.load("digits", None, "test").x[:130]
    shuffled = generator.permuted(x.reshape(len(x), -1), axis=1)
    path = tmp_path_factory.mktemp("ood") / "shuffled.npz"
    # Labels that the network has no class for: they do not matter.
    np.savez(path, x_test=shuffled, y_test=np.full(len(x), 77))
    return [
        "--model_dir=embedded:digits_fc", "--draw_noise=shared", "--thresholds=0,0.5,3",
        "--num_monte_carlo=110", "--batch_size=100", "--target_se=auroc_ood_entropy=0.005",
        f"--ood_path={path}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def swept(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("swept") / "sweep.h5"
    assert sweep.main([*flags, f"--output={path}"]) == 0
    return path


def test_the_file_has_their_scores_and_how_well_they_tell(swept: Path) -> None:
    found = results.read(swept)
    assert found.ood.predictive_entropy.dims == ("threshold", "ood_example")
    assert found.ood.sizes["ood_example"] == 130
    assert sum(name.endswith("shuffled.npz") for name in json.loads(found.attrs["sha256"])) == 1
    assert found.metrics.attrs["target_reached"] == 1 and found.attrs["n_draws"] == 100
    assert found.metrics.auroc_ood_entropy_se.max() <= 0.005
    is_other = np.repeat([0, 1], [359, 130])
    for short, score in SCORES.items():
        for t in range(3):
            both = np.concatenate([found.examples[score][t], found.ood[score][t]])
            for area, oracle in ORACLES.items():
                # Scores in the file are float32: a tie may come or go.
                value = float(found.metrics[f"{area}_ood_{short}"][t])
                assert value == pytest.approx(oracle(is_other, both), abs=1e-3)
    assert found.metrics.auroc_ood_entropy[0] > 0.9
    with h5py.File(swept) as file:
        assert "discrete" in file["metrics/auroc_ood_entropy_change"].attrs
        assert list(file["ood"]) == [
            "expected_entropy", "mutual_information", "ood_example", "predictive_entropy",
            "probability_variance", "threshold",
        ]  # fmt: skip


def test_bits_depend_neither_on_the_other_set_nor_on_blocks(
    flags: list[str], swept: Path, tmp_path: Path
) -> None:
    n_draws = results.read(swept).attrs["n_draws"]
    plain = [*flags[:3], f"--num_monte_carlo={n_draws}", flags[4]]
    assert sweep.main([*plain, f"--output={tmp_path / 'plain.h5'}"]) == 0
    blocks = [*plain, flags[6], "--state_limit_gb=1e-6"]
    assert sweep.main([*blocks, f"--output={tmp_path / 'blocks.h5'}"]) == 0
    whole = all_bits(swept)
    assert all_bits(tmp_path / "blocks.h5") == whole
    without = all_bits(tmp_path / "plain.h5")
    del without["attributes"]  # the hashes
    assert {name: whole[name] for name in without} == without


@pytest.mark.parametrize("shape", [(4, 63), (4, 9, 8), (4, 64, 1, 1, 2)])
def test_examples_of_another_shape_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...]
) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros(shape, np.float32), y=np.zeros(4, int))
    flags = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=2"]
    flags += [f"--ood_path={tmp_path / 'bad.npz'}", f"--output={tmp_path / 's.h5'}"]
    assert sweep.main(flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "bad.npz: one example of the data has shape" in error and "takes (64)" in error
    assert error.endswith("give examples of the test set's shape")
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", [2, 3, 7])
def test_the_same_bits_and_the_same_end_on_any_number_of_ranks(
    flags: list[str], swept: Path, mpirun: MpiRun, tmp_path: Path, n_ranks: int
) -> None:
    path = tmp_path / "ranks.h5"
    done = mpirun(n_ranks, ["-m", "bprune_hpc.sweep", *flags, f"--output={path}"])
    assert done.returncode == 0, done.stderr
    assert all_bits(path) == all_bits(swept)
