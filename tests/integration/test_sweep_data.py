"""Sweeps on data as people have them: the network's own stochastic calls are right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import sweep
from bprune_hpc.errors import DataError
from bprune_hpc.results.resume import read as read_state
from tests.helpers import input_models

N, DRAWS = 120, 100
RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (N, 6, 6, 3), np.uint8)
TOKENS = RNG.integers(0, 30, (N, 7), np.uint8)
SECONDS = 1.6e9 + 2 * RNG.normal(size=(N, 4))
FIRST = np.moveaxis(IMAGES, -1, 1)


def own_calls(model: Any, x: Any, n_calls: int = DRAWS) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels drawn from a network's own prediction, its probabilities, the NLL."""
    import tensorflow as tf

    call = tf.function(lambda: tf.nn.softmax(model(tf.constant(x), training=False)))
    mean = np.mean([call().numpy() for _ in range(n_calls)], axis=0).astype(np.float64)
    mean /= mean.sum(axis=1, keepdims=True)
    y = np.array([RNG.choice(len(p), p=p) for p in mean])
    return y, mean, float(-np.log(mean[np.arange(N), y]).mean())


def run(flags: list[str], output: Path) -> int:
    more = ["--thresholds=0,0.5", f"--num_monte_carlo={DRAWS}", f"--output={output}"]
    return sweep.main([*flags, *more])


@pytest.mark.parametrize(
    ("name", "stored", "taken", "flags", "said"),
    [
        ("plain", IMAGES, IMAGES / 255, [], "uint8 divided by 255"),
        ("rescaling", IMAGES, IMAGES / 1.0, [], "uint8 as stored"),
        ("tokens", TOKENS, TOKENS.astype(int), [], "uint8 as stored"),
        ("float64", SECONDS, SECONDS, [], "float64 as stored"),
        ("convolution", FIRST.reshape(N, -1), IMAGES / 255, ["--layout=channels_first"],
         "uint8 divided by 255"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (
            ("rescaling", IMAGES / 1.0, IMAGES / 1.0, [], "float64 as stored"),
            ("normalization_of_bytes", IMAGES, IMAGES / 1.0, [], "uint8 as stored"),
            ("plain", IMAGES, IMAGES / 100, ["--input_scale=1/100"], "uint8 divided by 100"),
            ("plain", IMAGES.astype(int), IMAGES * 0.01, ["--input_scale=0.01"],
             "int64 multiplied by 0.01"),
            ("tokens", TOKENS.astype(int), TOKENS.astype(int), [], "int64 as stored"),
            ("tokens_as_floats", TOKENS, TOKENS / 1.0, [], "uint8 as stored"),
            ("convolution", FIRST, IMAGES / 255, ["--layout=channels_first"],
             "uint8 divided by 255"),
            ("convolution", IMAGES.reshape(N, -1), IMAGES / 255, ["--layout=channels_last"],
             "uint8 divided by 255"),
            ("flat_rows", FIRST, IMAGES.reshape(N, -1) / 255, ["--layout=channels_first"],
             "uint8 divided by 255"),
        )),
    ],
)  # fmt: skip
def test_the_numbers_are_the_networks_own(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    stored: np.ndarray,
    taken: np.ndarray,
    flags: list[str],
    said: str,
) -> None:
    model, case = input_models.saved(name, tmp_path)
    taken = taken.astype(model.inputs[0].dtype.as_numpy_dtype)
    y, mean, right = own_calls(model, taken)
    np.savez(tmp_path / "d.npz", x_test=stored, y_test=y)
    output = tmp_path / "s.h5"
    assert run([*case, *flags, f"--data_path={tmp_path / 'd.npz'}"], output) == 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "test set: input" in text]
    assert f"INFO: test set: input {said}, " in line
    with h5py.File(output) as file:
        nll, se = (file[f"metrics/{key}"][0] for key in ("nll", "nll_se"))
        assert file.attrs["input"] == said
        found = file["examples/mean_probability"][0]
    # Both are means over as many draws; those here come in pairs, which only makes them better.
    assert abs(nll - right) < 8 * se + 0.01
    spread = np.sqrt(mean * (1 - mean) / DRAWS)  # the most that a mean of probabilities varies by
    assert (np.abs(found - mean) < 8 * spread + 1e-3).all()
    scale = next((f.partition("=")[2] for f in flags if "scale" in f), "auto")
    layout = next((f.partition("=")[2] for f in flags if "layout" in f), None)
    net = bprune_hpc.load(case[0].partition("=")[2], model=case[1].partition("=")[2])
    same = net.predict(stored, n_draws=DRAWS, input_scale=scale, layout=layout, batch_size=1000)
    np.testing.assert_allclose(same.mean_probability, found, rtol=1e-5, atol=1e-7)


def test_a_signature_that_takes_bytes(tmp_path: Path) -> None:
    import tensorflow as tf

    model, _ = input_models.saved("rescaling", tmp_path)

    class Serving(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 3], tf.uint8, name="image")])
        def serve(self, image: Any) -> dict[str, Any]:
            return {"logits": self.model(tf.cast(image, tf.float32), training=False)}

    served = Serving()
    tf.saved_model.save(served, str(tmp_path / "net"), signatures=served.serve)
    y, _, right = own_calls(model, IMAGES.astype(np.float32))
    flags = [f"--model_dir={tmp_path / 'net'}"]
    np.savez(tmp_path / "d.npz", x=IMAGES, y=y)
    assert run([*flags, f"--data_path={tmp_path / 'd.npz'}"], tmp_path / "s.h5") == 0
    with h5py.File(tmp_path / "s.h5") as file:
        assert abs(file["metrics/nll"][0] - right) < 8 * file["metrics/nll_se"][0] + 0.01
    np.savez(tmp_path / "d.npz", x=IMAGES / 255, y=y)
    assert run([*flags, f"--data_path={tmp_path / 'd.npz'}"], tmp_path / "t.h5") == 2


def write(kind: str, place: Path, x: np.ndarray, y: np.ndarray, **more: np.ndarray) -> str:
    path = place / f"d.{kind}"
    if kind == "npz":
        np.savez(path, x_test=x, y_test=y, **more)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            for key, value in {"x_test": x, "y_test": y, **more}.items():
                file[key] = value
    elif kind == "csv":
        np.savetxt(path, np.c_[x.reshape(len(x), -1), y], delimiter=",", fmt="%.9g")
    else:
        path.mkdir()
        np.save(path / "x_test.npy", x)
        np.save(path / "y_test.npy", y)
    return str(path)


def test_all_formats_give_the_same_bits(tmp_path: Path) -> None:
    x = np.asarray(RNG.normal(size=(N, 12)), np.float32)
    _, case = input_models.saved("batch_normalization_of_rows", tmp_path)
    y, found = RNG.integers(0, 3, N), []
    for kind in ("npz", "h5", "csv", "npy"):
        path, output = write(kind, tmp_path, x, y), tmp_path / f"{kind}.h5s"
        assert run([*case, f"--data_path={path}"], output) == 0
        with h5py.File(output) as file:
            found.append({name: file["metrics"][name][()].tobytes() for name in file["metrics"]})
    assert all(one == found[0] for one in found)


def test_what_defines_the_numbers_joins_the_identity_and_old_files_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, case = input_models.saved("plain", tmp_path)
    path = write("npz", tmp_path, IMAGES, RNG.integers(0, 3, N), others=IMAGES[::-1])
    flags, output = [*case, f"--data_path={path}"], tmp_path / "s.h5"
    assert run(flags, output) == 0
    saved = read_state(str(output), with_sums=False)
    assert saved is not None
    # As files have been that were written before there were such choices.
    names = {"layout", "input_scale", "x_key", "y_key", "target_columns", "first_label"}
    assert not names & saved.identity.keys()
    assert run([*flags, "--input_scale=auto"], output) == 0
    for more, finding in (
        (["--input_scale=none"], "--input_scale at its default, now none"),
        (["--input_scale=1/128"], "--input_scale at its default, now 1/128"),
        (["--x_key=others"], "--x_key at its default, now others"),
    ):
        capsys.readouterr()
        assert run([*flags, *more], output) == 2
        assert finding in capsys.readouterr().err
    assert run([*flags, "--input_scale=none", "--y_key=y_test"], tmp_path / "t.h5") == 0
    with h5py.File(tmp_path / "t.h5") as file:
        identity = json.loads(file["state"].attrs["identity"])
        assert (identity["input_scale"], identity["y_key"]) == ("none", "y_test")
        assert json.loads(file.attrs["config"])["input_scale"] == "none"


def test_names_of_classes_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, case = input_models.saved("batch_normalization_of_rows", tmp_path)
    x, y = RNG.normal(size=(N, 12)), RNG.integers(0, 3, N)
    path = write("npz", tmp_path, x, np.array(["star", "quasar", "galaxy"])[y])
    assert run([*case, f"--data_path={path}"], tmp_path / "s.h5") == 0
    assert "classes 0 'galaxy', 1 'quasar', 2 'star'" in capsys.readouterr().err
    with h5py.File(tmp_path / "s.h5") as file:
        assert list(file["class"].attrs["names"]) == ["galaxy", "quasar", "star"]
        np.testing.assert_array_equal(file["examples/label"][()], 2 - y)


def test_other_examples_need_no_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, case = input_models.saved("plain", tmp_path)
    path = write("npz", tmp_path, IMAGES, RNG.integers(0, 3, N))
    flags = [*case, f"--data_path={path}"]
    np.save(tmp_path / "other.npy", IMAGES[::-1])
    np.savez(tmp_path / "other.npz", images=IMAGES[::-1] / 255)
    assert run([*flags, f"--ood_path={tmp_path / 'other.npy'}"], tmp_path / "s.h5") == 0
    assert "tell them apart" not in capsys.readouterr().err
    assert run([*flags, f"--ood_path={tmp_path / 'other.npz'}"], tmp_path / "t.h5") == 0
    assert "tell them apart" not in capsys.readouterr().err.replace("\n", " ")
    with h5py.File(tmp_path / "s.h5") as one, h5py.File(tmp_path / "t.h5") as other:
        np.testing.assert_allclose(
            one["ood/predictive_entropy"], other["ood/predictive_entropy"], atol=1e-4
        )
    np.save(tmp_path / "other.npy", IMAGES[::-1].astype(np.int64))
    assert run([*flags, f"--ood_path={tmp_path / 'other.npy'}"], tmp_path / "u.h5") == 0
    said = capsys.readouterr().err
    with h5py.File(tmp_path / "u.h5") as file:
        assert (file.attrs["input"], file.attrs["ood_input"]) == (
            "uint8 divided by 255", "int64 as stored",
        )  # fmt: skip
    assert "other.npy: int64 as stored, up to 255, but the test set is uint8 divided by" in said


@pytest.mark.parametrize(
    ("model", "x", "flags", "finding"),
    [
        ("plain", IMAGES.reshape(N, -1), [], "a flat row of 108, the network takes .6, 6, 3.*"
         "Pass --layout=channels_last or --layout=channels_first"),
        ("plain", FIRST, [], "pass --layout=channels_first"),
        ("tokens", IMAGES[:, 0, 0], [], "has shape .3., the network takes .7."),
        ("tokens", TOKENS + 0.5, [], "5 in example 0; the network takes int32"),
        ("tokens", TOKENS, ["--input_scale=1/30"], "--input_scale: the network takes int32"),
        ("plain", IMAGES, ["--input_scale=255x"], "'255x' is neither auto, none nor a positive"),
        ("plain", IMAGES, ["--x_key=images"], "no 'images' in the arrays x_test, y_test"),
        ("plain", IMAGES, ["--target_columns=3"], "--target_columns: is of csv, not of npz"),
        ("plain", IMAGES, ["--target_columns=,"], "names no column"),
        ("plain", IMAGES, ["--first_label=1"], "label -1 of example"),
        ("two_inputs", IMAGES, [], "takes 2 inputs .left, right.; return a model of one input"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    x: np.ndarray,
    flags: list[str],
    finding: str,
) -> None:
    _, case = input_models.saved(model, tmp_path)
    path = write("npz", tmp_path, x, np.arange(N) % 3)
    assert run([*case, f"--data_path={path}", *flags], tmp_path / "s.h5") == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error: " in text]
    assert re.search(finding, line)
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize(
    ("flags", "finding"),
    [
        (["--data_path={}/a.npz"], "a.npz: no such file"),
        (["--data_path={}/here.dat"], "here.dat: the name does not tell which data set this is"),
        (["--data_path={}/here.npz", "--ood_path={}/b.h5"], "b.h5: no such file"),
        (["--dataset=csv"], "data set 'csv' is a file; give its path"),
    ],
)
def test_paths_are_checked_before_the_network_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], finding: str
) -> None:
    for name in ("here.dat", "here.npz"):
        (tmp_path / name).touch()
    asked = [flag.format(tmp_path) for flag in flags]
    assert run([f"--model_dir={tmp_path / 'no_network'}", *asked], tmp_path / "s.h5") == 2
    assert finding in capsys.readouterr().err


def test_the_library_takes_arrays_of_any_real_type(tmp_path: Path) -> None:
    _, case = input_models.saved("plain", tmp_path)
    net = bprune_hpc.load(case[0].partition("=")[2], model=case[1].partition("=")[2])
    x = IMAGES[:20] % 2
    logits = net.logits(x.astype(np.float32))
    for dtype in ("bool", "int8", "int64", "float16", "float64"):
        np.testing.assert_array_equal(net.logits(x.astype(dtype)), logits)
    np.testing.assert_allclose(net.logits(x), net.logits(x / 255), rtol=1e-5)
    np.testing.assert_array_equal(net.logits(x, input_scale="none"), logits)
    np.testing.assert_array_equal(net.logits(x, input_scale=1), logits)
    np.testing.assert_array_equal(
        net.logits(np.moveaxis(x, -1, 1).astype(bool), layout="channels_first"), logits
    )
    with pytest.raises(DataError, match="x: one example .*; pass layout=channels_first"):
        net.logits(np.moveaxis(x, -1, 1))
    named = net.predict(x, n_draws=4, y=np.array(["a", "b", "c"])[np.arange(20) % 3])
    numbered = net.predict(x, n_draws=4, y=np.arange(20) % 3)
    np.testing.assert_array_equal(named.log_probability, numbered.log_probability)
    with pytest.raises(DataError, match="labels are 2 names"):
        net.predict(x, n_draws=4, y=np.array(["a", "b"])[np.arange(20) % 2])
