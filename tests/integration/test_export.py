"""The network of a threshold taken home: the command, and users' own scripts that go on from it."""

from __future__ import annotations

import json
import resource
import runpy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.stats import binomtest

import bprune_hpc
from bprune_hpc import data, export, sweep
from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.errors import GraphError
from bprune_hpc.files.checksum import header
from bprune_hpc.formats import checkpoint, size_and_speed
from bprune_hpc.results.file import SCHEMA, open_results
from bprune_hpc.results.threshold import read_threshold
from bprune_hpc.runner.batch_dependence import made_up_examples
from tests.helpers.launch import THETA_DIR, needs_theta

pytestmark = pytest.mark.filterwarnings("ignore")

Said = pytest.CaptureFixture[str]
THRESHOLDS = "0,0.5,1,3"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the digits' case, and a results file of it with a choice."""
    directory = tmp_path_factory.mktemp("export")
    embedded = Path(bprune_hpc.__file__).parent / "embedded" / "digits_fc"
    shutil.copytree(embedded, directory / "case")
    digits = data.load("digits", split="test")
    np.savez(directory / "digits.npz", x_test=digits.x, y_test=digits.y)
    status = sweep.main(
        [f"--model_dir={directory}/case", f"--data_path={directory}/digits.npz",
         f"--thresholds={THRESHOLDS}", "--num_monte_carlo=40", "--max_accuracy_drop=0.02",
         f"--output={directory}/sweep.h5"]
    )  # fmt: skip
    assert status == 0
    return directory


def _export(home: Path, *flags: str) -> int:
    return export.main([str(home / "sweep.h5"), *flags])


def _card(directory: Path) -> Any:
    return json.loads((directory / "model_card.json").read_text())


def test_the_choice_with_its_numbers(home: Path, tmp_path: Path, capsys: Said) -> None:
    to, data_path = tmp_path / "out", f"--data_path={home}/digits.npz"
    assert _export(home, f"--to={to}", "--formats=checkpoint", data_path) == 0
    assert {path.name for path in to.iterdir()} == {
        "checkpoint",
        "model_card.json",
        "model_card.md",
    }
    card = _card(to)
    with open_results(home / "sweep.h5") as file:
        index = int(file["choice"].attrs["index"])
        expected = file["metrics/accuracy"][index], file["metrics/accuracy_se"][index]
        nll = file["metrics/nll"][index]
        n_active = int(file["sparsity/n_active"][index])
        at_mean = file["metrics/accuracy_mean_weights"][index]
    assert index > 0 and card["provenance"]["results"]["index"] == index
    swept = card["swept"]["accuracy"]
    assert (swept["value"], swept["se"]) == pytest.approx(expected)
    assert "accuracy_drop" in card["swept"] and card["n_active"] == n_active
    measured = card["measured"]
    assert measured["posterior, 40 draws"]["nll"]["value"] == pytest.approx(nll, abs=1e-9)
    assert measured["mean network"]["accuracy"]["value"] == pytest.approx(at_mean)
    assert len(measured) == 3
    share = measured["mean network"]["accuracy"]
    wilson = binomtest(round(359 * share["value"]), 359).proportion_ci(method="wilson")
    assert (share["low"], share["high"]) == pytest.approx((wilson.low, wilson.high), rel=1e-6)
    said = capsys.readouterr().out
    assert "mean network" in said and f"{n_active:,} of 6,464 weights are left" in said
    text = (to / "model_card.md").read_text()
    assert "accuracy_drop" in text and "ensemble of 8" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--at=threshold=0.7"], "has no threshold 0.7; it has threshold 0, 0.5, 1, 3"),
        (["--at=fraction=0.5"], "has no fraction 0.5; it has threshold"),
        (["--at=index=4"], "has indices 0 to 3, not 4"),
        (["--at=best"], "'best' is none of choice, index=K, threshold=X or fraction=F"),
        (["--formats=checkpoint,onion"], "'onion' is none of checkpoint"),
        (["--seed=3"], "--seed: is said by"),
        (["--model_dir=nowhere"], "nowhere: no such directory"),
    ],
)
def test_refused_in_one_line(
    home: Path, tmp_path: Path, capsys: Said, flags: list[str], said: str
) -> None:
    assert _export(home, "--at=index=1", f"--to={tmp_path}/out", *flags) == 2
    found = capsys.readouterr().err.strip().splitlines()
    assert found[-1].startswith("error: ") and said in found[-1]
    assert not list(tmp_path.iterdir())


def test_a_case_that_is_gone_or_changed(home: Path, tmp_path: Path, capsys: Said) -> None:
    other = tmp_path / "other"
    to = f"--to={tmp_path}/out"
    net = bprune_hpc.load(home / "case").prune(snr=0.5)
    net.save(other, formats=["checkpoint"])
    flags = ("--at=index=1", f"--model_dir={other}/checkpoint", to)
    assert _export(home, *flags) == 2
    said = capsys.readouterr().err
    assert "was made with checkpoint sha256" in said and "is not what was swept; sweep it" in said
    (home / "case").rename(home / "moved")
    try:
        assert _export(home, "--at=index=1", to) == 2
        assert "no such directory" in capsys.readouterr().err
        flags = ("--at=index=1", f"--model_dir={home}/moved", to, "--formats=checkpoint")
        assert _export(home, *flags) == 0
    finally:
        (home / "moved").rename(home / "case")


def test_flags_of_the_sweep_are_told_from_those_of_the_command(home: Path) -> None:
    swept = read_threshold(str(home / "sweep.h5"), "index=1")
    for said, more in (
        ("weights but no graph; pass --model=FILE:FUNCTION", ""),
        ("several placeholders; pass one as --input_op", f" (flags of the sweep that made {home}"),
    ):
        with pytest.raises(GraphError) as caught, swept.asks({"--model"}):
            raise GraphError(said)
        assert str(caught.value).removesuffix("/sweep.h5)") == said + more


def test_a_threshold_that_failed(home: Path, tmp_path: Path, capsys: Said) -> None:
    whole = (home / "sweep.h5").read_bytes()
    with h5py.File(home / "sweep.h5") as file:
        start = file.userblock_size
    image = tmp_path / "image.h5"
    image.write_bytes(whole[start:])
    with h5py.File(image, "r+") as file:
        del file["failure"]
        failure = ["", "", "draw 17, a/MatMul", ""]
        file.create_dataset("failure", data=failure, dtype=h5py.string_dtype())
    changed = image.read_bytes()
    path = tmp_path / "failed.h5"
    path.write_bytes(header(changed, SCHEMA) + changed)
    assert export.main([str(path), "--at=index=2", f"--to={tmp_path}/out"]) == 2
    assert "threshold 2 failed: draw 17, a/MatMul" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_whole_or_not_at_all(
    home: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out"
    flags = ("--at=index=1", f"--to={to}", "--formats=checkpoint")
    with monkeypatch.context() as patch:
        rewrite = checkpoint.rewrite
        patch.setattr(
            checkpoint, "rewrite", lambda *of, **flags: rewrite(*of[:2], {}, of[3], **flags)
        )
        assert _export(home, *flags) == 1
    assert "the mean of pruned weights of" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert _export(home, *flags) == 0
    before = (to / "model_card.json").read_bytes()
    capsys.readouterr()
    assert _export(home, "--at=index=2", *flags[1:]) == 2
    assert "has an export already; pass --overwrite" in capsys.readouterr().err
    assert (to / "model_card.json").read_bytes() == before
    assert _export(home, "--at=index=2", *flags[1:], "--overwrite") == 0
    assert (to / "model_card.json").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").touch()
    assert _export(home, "--at=index=1", f"--to={foreign}", "--overwrite") == 2
    assert "is there, and no export" in capsys.readouterr().err and any(foreign.iterdir())


@pytest.mark.parametrize("names", ["checkpoint", "bundle", "savedmodel"])
def test_a_full_disk(names: str, home: Path, tmp_path: Path, capsys: Said) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        status = _export(home, "--at=index=1", f"--to={tmp_path / 'out'}", f"--formats={names}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    said = capsys.readouterr().err
    assert status == 1 and "cannot be written (File too large)" in said, said
    assert said.strip().count("Traceback") == 0 and not list(tmp_path.iterdir())


def test_without_a_results_file(home: Path, tmp_path: Path, capsys: Said) -> None:
    case, to = f"--model_dir={home}/case", f"--to={tmp_path}/out"
    flags = ["--granularity=neuron", "--formats=checkpoint"]
    assert export.main([case, to, "--prune_fractions=0.5", *flags]) == 0
    masks = np.load(tmp_path / "out" / "checkpoint" / "mask.npz")
    net = bprune_hpc.load(home / "case").prune(fraction=0.5, granularity="neuron")
    for name, loc in net.posterior.loc.items():
        np.testing.assert_array_equal(masks[name], loc != 0)
    for more, said in (
        ([], "--threshold is missing"),
        (["--thresholds=0,1"], "--thresholds: an export is of one threshold, not of 2"),
        (["--prune_fractions=0,0.5"], "--prune_fractions: an export is of one"),
        (["--threshold=much"], "--threshold: 'much' is neither numbers"),
        (["--at=choice", "--threshold=1"], "--at: is of a results file"),
        (["--threshold=1", "--pruned_weights=bprune"], "leaves pruned weights as noise"),
    ):
        assert export.main([case, f"--to={tmp_path}/no", *more]) == 2
        assert said in capsys.readouterr().err


def test_of_a_sweep_by_fractions(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "fractions.h5"
    flags = ["--prune_fractions=0,0.25,0.5", "--criterion=random", "--scope=layer", "--seed=9"]
    data_path = f"--data_path={home}/digits.npz"
    case = f"--model_dir={home}/case"
    sweep.main([case, data_path, *flags, "--num_monte_carlo=4", f"--output={path}"])
    flags = ["--at=fraction=0.25", f"--to={tmp_path}/out", "--formats=checkpoint"]
    assert export.main([str(path), *flags]) == 0
    masks = np.load(tmp_path / "out" / "checkpoint" / "mask.npz")
    rule = bprune_hpc.results.read(path).pruning(1)
    net = bprune_hpc.load(home / "case").prune(**rule)
    for name, loc in net.posterior.loc.items():
        np.testing.assert_array_equal(masks[name], loc != 0)


def test_a_sweep_of_it_gives_the_same_numbers(home: Path, tmp_path: Path) -> None:
    assert _export(home, "--at=index=2", f"--to={tmp_path}/out", "--formats=checkpoint") == 0
    status = sweep.main(
        [f"--model_dir={tmp_path}/out/checkpoint", f"--data_path={home}/digits.npz",
         "--thresholds=0", "--num_monte_carlo=40", f"--output={tmp_path}/again.h5"]
    )  # fmt: skip
    assert status == 0
    with open_results(home / "sweep.h5") as before, open_results(tmp_path / "again.h5") as after:
        for name in ("nll", "brier", "predictive_entropy", "expected_entropy", "ece", "accuracy"):
            old, new = before[f"metrics/{name}"][2], after[f"metrics/{name}"][0]
            # 1.2e-7 is left of scales, which is what float32 resolves.
            assert new == pytest.approx(old, abs=2e-6), name


TF1_SCRIPT = """
import sys

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tf1 = tf.compat.v1


def main(directory, data, n_steps, mask=None):
    digits = np.load(data)
    x, y = digits["x"].astype(np.float32), digits["y"]
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.set_random_seed(1)
        images = tf1.placeholder(tf.float32, (None, 64), name="images")
        labels = tf1.placeholder(tf.int64, (None,), name="labels")
        hidden = tfp.layers.DenseFlipout(24, activation="relu", name="one")
        last = tfp.layers.DenseFlipout(10, name="two")
        logits = last(hidden(images))
        nll = tf1.losses.sparse_softmax_cross_entropy(labels, logits)
        loss = nll + (hidden.losses[0] + last.losses[0]) / len(x)
        train = tf1.train.AdamOptimizer(0.02).minimize(loss)
        saver, newest = tf1.train.Saver(), tf1.train.latest_checkpoint(directory)
        session.run(tf1.global_variables_initializer())
        if newest:
            saver.restore(session, newest)
        hold = []
        for name, kept in (np.load(mask) if mask else {}).items():
            for variable in tf1.trainable_variables():
                scale = name.replace("loc", "untransformed_scale")
                if variable.op.name in (name, scale):
                    value = session.run(variable)
                    hold.append(variable.assign(tf.where(kept, variable, value)))
        found = {"before": evaluate(session, logits, images, x, y)}
        rng = np.random.default_rng(0)
        for _ in range(n_steps):
            rows = rng.integers(0, len(x), 200)
            _, value = session.run([train, loss], {images: x[rows], labels: y[rows]})
            session.run(hold)
        found |= {"loss": value, "after": evaluate(session, logits, images, x, y)}
        found["zeros"] = sum(
            np.count_nonzero(session.run(v) == 0)
            for v in tf1.trainable_variables() if v.op.name.endswith("kernel_posterior_loc")
        )
        saver.save(session, directory + "/model.ckpt", global_step=n_steps)
        return found


def evaluate(session, logits, images, x, y):
    softmax = tf.nn.softmax(logits)
    mean = np.mean([session.run(softmax, {images: x}) for _ in range(50)], axis=0)
    return np.mean(mean.argmax(axis=1) == y)
"""


KERAS_SCRIPT = """
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras


def build():
    kl = lambda q, p, _: tfp.distributions.kl_divergence(q, p) / 1438
    layers = [
        tfp.layers.DenseFlipout(n, activation=a, kernel_divergence_fn=kl)
        for n, a in ((24, "relu"), (10, None))
    ]
    return tf_keras.Sequential([tf_keras.layers.Input((64,)), *layers])


def main(directory, data, n_steps, mask=None):
    digits = np.load(data)
    x, y = digits["x"].astype(np.float32), digits["y"]
    model, path = build(), directory + "/net.weights.h5"
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(0.02), loss)
    model.train_on_batch(x[:1], y[:1])
    if tf.io.gfile.exists(path):
        model.load_weights(path)
    kept = list(np.load(mask).values()) if mask else []
    held = [
        (variable, variable.numpy(), mask)
        for layer, mask in zip(model.layers, kept)
        for variable in layer.trainable_variables[:2]
    ]
    found = {"before": evaluate(model, x, y)}
    rng = np.random.default_rng(0)
    for _ in range(n_steps):
        rows = rng.integers(0, len(x), 200)
        found["loss"] = model.train_on_batch(x[rows], y[rows])
        for variable, value, stays in held:
            variable.assign(tf.where(stays, variable, value))
    found["after"] = evaluate(model, x, y)
    found["zeros"] = sum(
        np.count_nonzero(layer.kernel_posterior.mean() == 0) for layer in model.layers
    )
    model.save_weights(path)
    return found


def evaluate(model, x, y):
    run = tf.function(lambda: tf.nn.softmax(model(x)))
    mean = np.mean([run() for _ in range(50)], axis=0)
    return np.mean(mean.argmax(axis=1) == y)
"""


@pytest.mark.parametrize(
    ("script", "file"),
    [
        pytest.param(TF1_SCRIPT, "", id="tf1"),
        pytest.param(KERAS_SCRIPT, "net.weights.h5", id="keras", marks=pytest.mark.slow),
    ],
)
def test_a_users_script_goes_on(tmp_path: Path, script: str, file: str) -> None:
    (tmp_path / "script.py").write_text(script)
    digits = data.load("digits", split="train")
    x, y = digits.x.reshape(len(digits.x), -1), digits.y
    np.savez(tmp_path / "digits.npz", x=x, y=y)
    run: Callable[..., dict[str, Any]]
    run = runpy.run_path(str(tmp_path / "script.py"))["main"]
    (tmp_path / "trained").mkdir()
    trained = run(str(tmp_path / "trained"), str(tmp_path / "digits.npz"), 200)
    model = f"{tmp_path}/script.py:build" if file else None
    net = bprune_hpc.load(tmp_path / "trained" / file, model=model).prune(fraction=0.8)
    net.save(tmp_path / "pruned", formats=["checkpoint"])
    n_pruned = net.n_weights - net.n_active
    ours = net.predict(x, n_draws=400)
    accuracy = np.mean(ours.predicted_class == y)
    assert trained["after"] > 0.9 > 0.1 + trained["before"]

    home = tmp_path / "pruned" / "checkpoint"
    again = run(str(home), str(tmp_path / "digits.npz"), 20, str(home / "mask.npz"))
    # Of 1,438 examples the draws move a few that lie between two classes.
    assert abs(again["before"] - accuracy) < 0.01
    assert np.isfinite(again["loss"]) and again["zeros"] == n_pruned
    assert again["after"] > again["before"] - 0.02
    # What was trained on is a network like any other, and the mask is still in it.
    later = bprune_hpc.load(home / file, model=model)
    moved = [later.posterior.loc[n] != loc for n, loc in net.posterior.loc.items()]
    assert sum(map(np.count_nonzero, moved)) == net.n_active


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("theta", marks=needs_theta),
        "tests.helpers.small_models:conv2d_flipout",
        "bprune_hpc.models:digits_resnet18",
    ],
)
def test_networks_of_other_kinds(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_and_speed, "_SECONDS", 0.0)
    case, model = THETA_DIR, None
    if name != "theta":
        case, model = tmp_path / "net.weights.h5", name
        keras_tracing.build_model(name).save_weights(case)
    net = bprune_hpc.load(case, model=model).prune(fraction=0.7)
    card = net.save(tmp_path / "out", formats=["checkpoint", "savedmodel"])
    assert card["formats"]["savedmodel"]["difference"]["mean"] < 1e-6
    place = tmp_path / "out" / card["formats"]["checkpoint"]["file"]
    again = bprune_hpc.load(place, model=model)
    x = made_up_examples(again._network.lifted)
    np.testing.assert_array_equal(again.logits(x), net.logits(x))
