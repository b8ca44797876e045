"""A regression is learned, written, and swept: the whole way on the diabetes data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from bprune_hpc import results, sweep
from bprune_hpc.data.loading import load
from bprune_hpc.errors import ConfigError, DataError
from bprune_hpc.training import config as train_config
from tests.helpers.launch import ROOT
from tests.helpers.regressions import trained


def test_the_diabetes_are_scikit_learns() -> None:
    theirs = load_diabetes(scaled=False)
    train, test = load("diabetes", None, "train", task="regression"), load(task="regression")
    held_out = np.arange(442) % 5 == 4
    assert (train.name, test.name) == ("diabetes", "diabetes")
    assert (len(train.y), len(test.y)) == ((~held_out).sum(), held_out.sum()) == (354, 88)
    for mine, rows in ((train, ~held_out), (test, held_out)):
        x = (theirs.data - theirs.data[~held_out].mean(0)) / theirs.data[~held_out].std(0)
        y = theirs.target
        y = (y - y[~held_out].mean()) / y[~held_out].std()
        np.testing.assert_allclose(mine.x, x[rows], atol=2e-5)
        np.testing.assert_allclose(mine.y, y[rows], atol=1e-12)
        assert mine.x.dtype == np.float32 and mine.y.dtype == np.float64


def test_the_task_follows_from_the_data() -> None:
    def task(*flags: str) -> str:
        return train_config.parse(flags, "train").task

    assert task("--dataset=diabetes") == "regression"
    assert task("--dataset=digits") == task() == "classification"
    assert task("--noise_scale=0.5") == task("--task=regression") == "regression"
    for value in ("0", "-1", "nan", "inf", "x"):
        with pytest.raises(ConfigError, match="--noise_scale"):
            task("--task=regression", f"--noise_scale={value}")
    with pytest.raises(ConfigError, match="--noise_scale=0.5: must be left out of a classif"):
        task("--task=classification", "--noise_scale=0.5")


def test_numbers_are_no_classes_in_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((9, 4)), y=np.linspace(0, 1, 9))
    with pytest.raises(DataError, match="or pass --task=regression"):
        load("auto", str(tmp_path / "d.npz"))


@pytest.mark.slow
def test_from_training_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--epochs=200", "--batch_size=32", "--learning_rate=0.005", "--n_draws_eval=100"]
    config = (ROOT / "configs" / "train_diabetes.txt").read_text().splitlines()
    shipped = [line for line in config if line.startswith("--") and "model_dir" not in line]
    assert set(flags) <= set(shipped)
    case = trained(tmp_path / "case", *shipped)
    report = json.loads((case / "train.json").read_text())
    # What a linear model of the same 354 patients does to the 88 others, 0.74 of their deviation.
    train, test = load("diabetes", None, "train", task="regression"), load(task="regression")
    residual = LinearRegression().fit(train.x, train.y).predict(test.x) - test.y
    linear = np.sqrt((residual**2).mean())
    assert report["rmse_averaged"] < 1.05 * linear
    assert 0.6 < report["noise_scale"] < 0.8
    path = tmp_path / "sweep.h5"
    arguments = [f"--model_dir={case}", "--dataset=diabetes", "--thresholds=0,0.5,1,2,5"]
    assert sweep.main([*arguments, f"--output={path}"]) == 0
    assert "sharpness" in capsys.readouterr().out
    found = results.read(path)
    metrics, pruned = found.metrics, found.sparsity.pruned_fraction.values
    at_start, error = metrics.rmse.values[0], metrics.rmse_se.values[0]
    # The trainer's 100 Flipout draws are an estimate of the same thing.
    assert abs(at_start - report["rmse_averaged"]) < 0.02 and error < 0.01
    assert (np.diff(pruned) >= 0).all() and pruned[2] > 0.7
    assert abs(metrics.rmse_change.values[2]) < 0.05 < metrics.rmse_change.values[-1]
    assert (metrics.coverage_90.values > 0.75).all()
