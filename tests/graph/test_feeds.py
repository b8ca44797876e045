"""Placeholders beside the input: fed, refused, and the dropout that they turn off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import inspect, sweep
from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.errors import ConfigError, GraphError
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.graph.lifting import lift
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models

pytestmark = pytest.mark.filterwarnings("ignore")

X = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4)


def _save(directory: Path, build: Callable[[Any, Any, Any], Any], feed: Any) -> np.ndarray:
    """Save a graph of ``build(tf1, x, kernel)``; what it gives at the mean under ``feed``."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tensorflow.float32, (None, 4), name="x")
        loc, raw = tf1.get_variable("w", (4, 3)), tf1.get_variable("raw", (4, 3))
        kernel = loc + tensorflow.exp(raw) * tensorflow.random.normal((4, 3), name="noise")
        logits = tensorflow.identity(build(tf1, x, kernel), name="logits")
        tensorflow.nn.softmax(logits)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, str(directory / "model.ckpt"))
        return np.asarray(session.run(logits, {x: X, kernel: session.run(loc), **feed}))


def _keep_prob(tf1: Any, x: Any, kernel: Any) -> Any:
    return tf1.nn.dropout(tf1.nn.relu(x @ kernel), tf1.placeholder("float32", name="keep_prob"))


def _keep_prob_of_old_times(tf1: Any, x: Any, kernel: Any) -> Any:
    """As TensorFlow wrote it before 1.13."""
    keep = tf1.placeholder("float32", name="keep_prob")
    hidden = x @ kernel
    mask = tf1.floor(keep + tf1.random_uniform(tf1.shape(hidden)))
    return tf1.div(hidden, keep) * mask


def _rate(tf1: Any, x: Any, kernel: Any) -> Any:
    rate = tf1.placeholder_with_default(0.5, (), name="rate")
    return import_tensorflow().nn.dropout(x @ kernel, rate)


def _training(tf1: Any, x: Any, kernel: Any) -> Any:
    training = tf1.placeholder("bool", (), name="training")
    hidden = tf1.layers.batch_normalization(x, training=training)
    return tf1.layers.dropout(hidden @ kernel, 0.5, training=training)


def _power(tf1: Any, x: Any, kernel: Any) -> Any:
    each = tf1.placeholder("int32", (3,), name="power")
    return (x @ kernel) ** tf1.cast(each, "float32")


CASES: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "keep_prob": (_keep_prob, {"keep_prob": "1"}, {"keep_prob:0": 1.0}),
    "keep_prob of old times": (_keep_prob_of_old_times, {"keep_prob": "1.0"}, {"keep_prob:0": 1.0}),
    "rate": (_rate, {"rate:0": "0"}, {"rate:0": 0.0}),
    "training": (_training, {"training": "False"}, {"training:0": False}),
    "power": (_power, {"power": "2"}, {"power:0": [2, 2, 2]}),
}


@pytest.mark.parametrize("which", CASES)
def test_fed_placeholders(tmp_path: Path, which: str) -> None:
    build, feed, fed = CASES[which]
    expected = _save(tmp_path, build, fed)
    case = read_case(tmp_path, feed=feed)
    with GraphNetwork(case.graph, case.fixed) as network:
        np.testing.assert_allclose(network(X, case.posterior.loc), expected, atol=1e-6)
    with pytest.raises(GraphError, match=r"--feed NAME=VALUE"):
        read_case(tmp_path)


def test_fed_input_of_a_signature(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tensorflow.float32, (None, 4), name="x")
        loc, raw = tf1.get_variable("w", (4, 3)), tf1.get_variable("raw", (4, 3))
        kernel = loc + tensorflow.exp(raw) * tensorflow.random.normal((4, 3))
        logits = _keep_prob(tf1, x, kernel)
        session.run(tf1.global_variables_initializer())
        inputs = {"x": x, "keep": session.graph.get_tensor_by_name("keep_prob:0")}
        tf1.saved_model.simple_save(session, str(tmp_path / "net"), inputs, {"y": logits})
        expected = np.maximum(X @ session.run(loc), 0)
    with pytest.raises(GraphError, match=r"has 2 inputs \(keep, x\); .*--feed NAME=VALUE"):
        read_case(tmp_path / "net")
    for name in ("keep_prob", "keep_prob:0"):
        case = read_case(tmp_path / "net", feed={name: "1"})
        with GraphNetwork(case.graph, case.fixed) as network:
            np.testing.assert_allclose(network(X, case.posterior.loc), expected, atol=1e-6)


def test_only_what_can_be_fed_is_offered() -> None:
    with pytest.raises(GraphError, match=r"not a placeholder; there are 'x' \(Placeholder\)$"):
        bprune_hpc.load(small_models.dense_flipout(), feed={"rate": "0"})


@pytest.mark.parametrize(
    ("build", "feed", "message"),
    [
        (_keep_prob, {"keep_prob": "0.5"}, r"random operations .*\(RandomUniform\); .*--feed"),
        (_rate, {"rate": "1e-7"}, r"random operations .*\(RandomUniform\)"),
        (_keep_prob, {"keep_prob": "1e99"}, "'keep_prob' takes a float32, and '1e99' is none"),
        (_keep_prob, {"keep_prob": "nan"}, "'keep_prob' takes a float32, and 'nan' is none"),
        (_training, {"training": "yes"}, "--feed: 'training' takes a bool, and 'yes' is none"),
        (
            _training,
            {"learning": "0"},
            r"'learning' is not a placeholder; there are .*'training' \(",
        ),
        (_power, {"power": "2.5"}, "--feed: 'power' takes a int32, and '2.5' is none"),
        (_power, {"x": "1"}, "--feed: 'x' takes arrays of any size, and one number is given"),
    ],
)
def test_refused_feeds(
    tmp_path: Path, build: Callable[..., Any], feed: dict[str, str], message: str
) -> None:
    _save(tmp_path, build, {"keep_prob:0": 1.0} if build is _keep_prob else
          {"training:0": False} if build is _training else
          {"power:0": [1, 1, 1]} if build is _power else {})  # fmt: skip
    with pytest.raises(GraphError, match=f"^model.ckpt.meta: .*{message}") as caught:
        read_case(tmp_path, feed=feed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_noise_that_matters_is_never_taken_for_idle(scale: float) -> None:
    """Uniform noise from 0 to ``scale``, rounded down and compared: only where it is the same."""
    tensorflow = import_tensorflow()
    for threshold in (-0.1, 0.0, 0.1, 0.5, 0.9, 1.0, 1.1):
        for compare in ("greater_equal", "greater", "less", "less_equal", "floor"):
            with tensorflow.Graph().as_default() as graph:
                x = tensorflow.compat.v1.placeholder(tensorflow.float32, (None, 4), name="x")
                w = tensorflow.compat.v1.get_variable("w", (4, 3))
                kernel = w + tensorflow.exp(w) * tensorflow.random.normal((4, 3))
                noise = tensorflow.random.uniform((3,), 0.0, scale)
                if compare == "floor":
                    mask = tensorflow.floor(noise + threshold)
                else:
                    mask = tensorflow.cast(
                        getattr(tensorflow, compare)(noise, threshold), tensorflow.float32
                    )
                tensorflow.identity((x @ kernel) * mask, name="logits")
            with tensorflow.compat.v1.Session(graph=graph) as session:
                # What noise can be at its ends, and in between.
                ends = np.float32([0, 0.3, 0.6, 1 - 2**-23])[:, None] * np.float32(scale)
                seen = [session.run(mask, {noise: np.repeat(end, 3)}) for end in ends]
            is_idle = all((one == seen[0]).all() for one in seen)
            values = {"w": np.ones((4, 3), np.float32)}

            def read(names: Any, values: Any = values) -> Any:
                return {name: values[name] for name in names}

            definition = graph.as_graph_def()
            try:
                lifted = lift(definition, read, input_op="x", logits_op="logits")
            except GraphError as error:
                assert "RandomUniform" in str(error)
                assert not is_idle, (compare, threshold)
                continue
            assert is_idle, (compare, threshold, scale)
            with GraphNetwork(lifted.graph, lifted.fixed) as network:
                outputs = network(X, lifted.posterior.loc)
            np.testing.assert_allclose(outputs, X @ values["w"] * seen[0], atol=1e-6)


def _sweep(tmp_path: Path, *flags: str) -> int:
    arguments = [f"--model_dir={tmp_path}", f"--data_path={tmp_path}/data.npz", "--thresholds=0",
                 "--num_monte_carlo=4", f"--output={tmp_path}/out.h5", *flags]  # fmt: skip
    return sweep.main(arguments)


def test_what_is_fed_is_stored_and_defines_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(tmp_path, _keep_prob, {"keep_prob:0": 1.0})
    np.savez(tmp_path / "data.npz", x_test=X, y_test=np.arange(3))
    assert _sweep(tmp_path) == 2
    assert _sweep(tmp_path, "--feed", "keep_prob") == 2
    assert _sweep(tmp_path, "--feed=keep_prob=0.5", "--feed=keep_prob=1.0") == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert json.loads(file.attrs["config"])["feed"] == {"keep_prob": "1.0"}
        identity = json.loads(file["state"].attrs["identity"])
    assert identity["feed"] == "keep_prob=1.0"
    assert _sweep(tmp_path, "--feed=keep_prob=1") == 2
    assert "feed keep_prob=1.0, now keep_prob=1" in capsys.readouterr().err
    assert inspect.inspect([str(tmp_path), "--feed=keep_prob=1"]) == 0
    bprune_hpc.load(tmp_path, feed={"keep_prob": 1})
    with pytest.raises(ConfigError, match="--feed: '=1' is not NAME=VALUE"):
        inspect.inspect([str(tmp_path), "--feed==1"])
