"""The SavedModel: its signatures, in a process that has TensorFlow alone, and of each task."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import data
from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.formats import size_and_speed
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.launch import run_group

pytestmark = pytest.mark.filterwarnings("ignore")

N_DRAWS = 2000
NETWORKS = (
    "small_models:conv2d_flipout", "small_models:dense_variational", "small_models:normal",
    "heads:one_logit", "heads:sigmoid_clipped", "heads:softmax_clipped",
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_run_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long formats take is measured, and not looked at here."""
    monkeypatch.setattr(size_and_speed, "_SECONDS", 0.0)


ALONE = """
import sys
import numpy as np
import tensorflow as tf

x = tf.constant(np.load("x.npy"))
net = tf.saved_model.load("out/savedmodel").signatures
seed, n_draws = tf.constant(7, tf.int64), tf.constant(20)
found = {
    **net["mean"](x=x),
    **{f"drawn {key}": value for key, value in net["sample"](x=x, seed=seed).items()},
    **net["predict"](x=x, seed=seed, n_draws=n_draws),
}
assert "bprune_hpc" not in sys.modules and "tensorflow_probability" not in sys.modules
np.savez("found.npz", **found)
"""


def test_tensorflow_alone_opens_it(tmp_path: Path) -> None:
    net = bprune_hpc.load("embedded:digits_fc").prune(fraction=0.9)
    x = data.load("digits", split="test").x[:20].reshape(20, 64)
    net.save(tmp_path / "out", formats=["savedmodel"], x=x)
    np.save(tmp_path / "x.npy", x)
    done = run_group([sys.executable, "-c", ALONE], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    logits = net.logits(x)
    np.testing.assert_allclose(found["logits"], logits, rtol=0, atol=1e-6 * np.abs(logits).max())
    # The same bits in another process.
    tensorflow = import_tensorflow()
    loaded = tensorflow.saved_model.load(str(tmp_path / "out" / "savedmodel"))
    seed = tensorflow.constant(7, tensorflow.int64)
    drawn = loaded.sample(x, seed)["logits"].numpy()
    np.testing.assert_array_equal(found["drawn logits"], drawn)
    assert np.abs(drawn - logits).max() > 0.1
    for name, value in loaded.predict(x, seed, tensorflow.constant(20)).items():
        np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    """Networks with random values, half of their weights pruned, and some examples."""
    found = {}
    for name in NETWORKS:
        model = keras_tracing.build_model(f"tests.helpers.{name}")
        rng = np.random.default_rng(3)
        for variable in model.variables:
            value = rng.normal(0, 0.5, variable.shape)
            variable.assign(value - 1.5 if "scale" in variable.name else value)
        x = rng.normal(size=(5, *model.inputs[0].shape[1:])).astype(np.float32)
        task = "regression" if name == "small_models:normal" else "classification"
        found[name] = bprune_hpc.load(model, task=task).prune(fraction=0.5), x
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_what_it_predicts(nets: dict[str, Any], tmp_path: Path, name: str) -> None:
    tensorflow = import_tensorflow()
    net, x = nets[name]
    net.save(tmp_path, formats=["savedmodel"], x=x)
    loaded = tensorflow.saved_model.load(str(tmp_path / "savedmodel"))
    seed = tensorflow.constant(1, tensorflow.int64)
    one = {k: v.numpy() for k, v in loaded.predict(x, seed, tensorflow.constant(1)).items()}
    drawn = {k: v.numpy() for k, v in loaded.sample(x, seed).items()}
    many = loaded.predict(x, seed, tensorflow.constant(N_DRAWS))
    ours = net.predict(x, n_draws=N_DRAWS, seed=5)
    is_normal = name == "small_models:normal"
    # Five Monte Carlo errors of numbers in [0, 1]; a regression's have a spread of about 1.
    allowed = 5 * 2**0.5 * (1.5 if is_normal else 0.5) / N_DRAWS**0.5
    for key, value in many.items():
        expected = getattr(ours, key)
        assert value.numpy().shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=0, atol=allowed, err_msg=key)
    if is_normal:
        np.testing.assert_allclose(one["predictive_mean"], drawn["predictive_mean"], rtol=1e-6)
        np.testing.assert_allclose(one["predictive_sd"], drawn["scale"], rtol=1e-6)
        assert not one["epistemic_variance"].any()
        return
    probability = drawn["probabilities"].astype(np.float64)
    np.testing.assert_allclose(one["mean_probability"], probability, rtol=0, atol=1e-6)
    entropy = -(probability * np.log(probability)).sum(axis=1)
    np.testing.assert_allclose(one["predictive_entropy"], entropy, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one["mutual_information"], 0, atol=1e-12)
    assert (many["mutual_information"].numpy() > 1e-3).all()


def test_a_graph_for_a_certain_number_of_examples(tmp_path: Path) -> None:
    import tensorflow_probability as tfp

    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        images = tf1.placeholder(tensorflow.float32, (6, 4), name="x")
        tensorflow.nn.softmax(tfp.layers.DenseReparameterization(3)(images))
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    net = bprune_hpc.load(tmp_path).prune(fraction=0.5)
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    net.save(tmp_path / "out", formats=["savedmodel"], x=x)
    loaded = tensorflow.saved_model.load(str(tmp_path / "out" / "savedmodel"))
    found = loaded.mean(x[:6])["logits"].numpy()
    np.testing.assert_allclose(found, net.logits(x[:6]), rtol=0, atol=1e-6)
