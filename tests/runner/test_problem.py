"""Which data a network is tested on: named, described in the log, and doubted where need be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import data, report, sweep
from bprune_hpc.data import loading as data_loading
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.tasks import Classification, Regression
from bprune_hpc.sources import HOME
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models

DIGITS = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=2", "--thresholds=0,1"]


@pytest.mark.parametrize("flags", [[], ["--ood_dataset=auto", "--dataset=digits"], ["--inference"]])
def test_only_networks_of_the_package_have_data_that_are_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    import_tensorflow()
    weights = tmp_path / "net.weights.h5"
    small_models.dense_flipout().save_weights(str(weights))
    case = [f"--model_dir={weights}", "--model=tests.helpers.small_models:dense_flipout"]
    assert sweep.main([*case, *flags, f"--output={tmp_path / 's.h5'}"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    flag = "--ood_path" if "--dataset=digits" in flags else "--data_path"
    assert error.startswith(f"error: {flag} is missing: name the ")
    assert not (tmp_path / "s.h5").exists()


def test_every_sweep_says_what_its_data_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8), np.uint8)
    images[0, 0, :2] = 0, 255
    label = np.arange(40) % 10
    np.savez(tmp_path / "d.npz", x_test=images, y_test=label)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"], file["y"] = images.astype(np.float64), label
    mean = images.mean()
    for flags, expected in (
        ([],
         "the embedded digits: 359 examples of 8 x 8, uint8 divided by 16: 0 to 1, mean 0.3031; "
         "labels 0 to 9, of each 27, 21, 34, 52, 34, 28, 31, 43, 47, 42"),
        ([f"--data_path={tmp_path / 'd.npz'}"],
         f"{tmp_path / 'd.npz'}: 40 examples of 8 x 8, uint8 divided by 255: 0 to 1, mean "
         f"{mean / 255:.4g}; labels 0 to 9, of each 4, 4, 4, 4, 4, 4, 4, 4, 4, 4"),
        ([f"--data_path={tmp_path / 'd.h5'}"],
         f"{tmp_path / 'd.h5'}: 40 examples of 8 x 8, float64 as stored: 0 to 255, mean "
         f"{mean:.4g}"),
    ):  # fmt: skip
        assert sweep.main([*DIGITS, *flags, "--overwrite", f"--output={tmp_path / 's.h5'}"]) == 0
        lines = capsys.readouterr().err.splitlines()
        (said,) = [line for line in lines if re.search("INFO: test set: .* examples of ", line)]
        assert said.partition("test set: ")[2].startswith(expected)


def test_targets_and_many_classes_in_one_line() -> None:
    found = data_loading.describe(data.load("diabetes", task="regression"), None)
    assert found.startswith("the embedded diabetes: 88 examples of 10, float32 standardised")
    assert "; targets " in found and "standard deviation" in found
    many = data.DataSet(np.zeros((60, 2), "f"), np.arange(60) % 30, "npz", {}, "float32 as stored")
    assert data_loading.describe(many, "m.npz").endswith("; 30 labels 0 to 29, 2 to 2 of each")


def test_a_network_that_is_no_better_than_a_guess_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = data.load("digits")
    np.savez(tmp_path / "wrong.npz", x=digits.x, y=(digits.y + 1) % 10)
    np.savez(tmp_path / "right.npz", x=digits.x, y=digits.y)
    for name in ("right", "wrong"):
        output = tmp_path / f"{name}.h5"
        flags = [f"--data_path={tmp_path / name}.npz", f"--output={output}"]
        assert sweep.main([*DIGITS, *flags]) == 0
        said = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
        assert len(said) == (name == "wrong")
        assert report.main([str(output)]) == 0
        assert said == [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert said[0].startswith("warning: the unpruned network is right in 0 of the examples, no")
    assert "by always naming class " in said[0] and "scaled and labelled as then?" in said[0]


def test_a_test_set_of_one_class_tells_nothing() -> None:
    metric = Metric(np.array([1.0]), np.zeros(1), np.zeros(1))
    assert not Classification(3).doubt(np.array([2, 2]), {"accuracy": metric})


@pytest.mark.parametrize(("value", "is_doubted"), [(0.5, True), (0.51, False), (np.nan, False)])
def test_what_a_classifier_has_to_beat(value: float, is_doubted: bool) -> None:
    metric = Metric(np.array([value]), np.zeros(1), np.zeros(1))
    found = Classification(3).doubt(np.array([0, 2, 2, 1]), {"accuracy": metric})
    assert bool(found) == is_doubted


@pytest.mark.parametrize(("value", "is_doubted"), [(2.0, True), (1.9, False), (np.nan, False)])
def test_what_a_regression_has_to_beat(value: float, is_doubted: bool) -> None:
    metric = Metric(np.array([value]), np.zeros(1), np.zeros(1))
    found = Regression(1.0).doubt(np.array([1.0, 5.0]), {"rmse": metric})
    assert bool(found) == is_doubted


@pytest.mark.parametrize("name", ["model.ckpt-4400.index", "model.ckpt-4400.meta", "ood.h5.bak"])
def test_what_is_read_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    case = tmp_path / "case"
    shutil.copytree(HOME / "embedded/digits_fc", case)
    with h5py.File(tmp_path / "ood.h5.bak", "w") as file:
        file["x"], file["y"] = np.ones((3, 8, 8)), np.zeros(3, int)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (path,) = tmp_path.rglob(name)
    flags = [f"--output={path.with_name(name.removesuffix('.bak'))}", "--dataset=digits"]
    flags += [f"--ood_path={tmp_path / 'ood.h5.bak'}", "--ood_dataset=hdf5"]
    assert sweep.main([f"--model_dir={case}", *DIGITS[1:], *flags, "--overwrite"]) == 2
    assert f"--output: {path} is one of the files that are read" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
