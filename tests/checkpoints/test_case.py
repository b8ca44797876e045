"""Case directories: the network trained on Theta, BPrune's text files, and damaged weights."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc.checkpoints import saver
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.errors import CheckpointError, GraphError
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.launch import THETA_DIR as THETA
from tests.helpers.launch import needs_theta
from tests.helpers.small_graphs import save

KERNEL = "sequential/conv2d_flipout/kernel_posterior_loc"
SCALE = "sequential/conv2d_flipout/kernel_posterior_untransformed_scale"
BIAS = "sequential/conv2d_flipout/bias_posterior_loc"


@pytest.fixture(scope="module")
def theta() -> Case:
    """The case itself, read once."""
    return read_case(THETA)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The 64 test images, as rows of 784 in [0, 1]."""
    with np.load(THETA / "mnist64.npz") as archive:
        pixels = archive["x_test"].reshape(64, 784).astype(np.float32)
    return pixels / 255 if pixels.max() > 1 else pixels


def _by_hand(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The network of Theta, written out from its description and its stored variables."""
    tensorflow = import_tensorflow()
    names = [BIAS, "sequential/dense/kernel", "sequential/dense/bias"]
    reader = tensorflow.train.load_checkpoint(str(THETA / "model.ckpt-250"))
    conv_bias, dense_kernel, dense_bias = (reader.get_tensor(name) for name in names)
    hidden = tensorflow.nn.conv2d(x.reshape(-1, 28, 28, 1), kernel, 1, "SAME") + conv_bias
    hidden = tensorflow.nn.max_pool2d(tensorflow.nn.relu(hidden), 2, 2, "SAME")
    return np.asarray(tensorflow.reshape(hidden, (len(x), -1)) @ dense_kernel + dense_bias)


@needs_theta
def test_theta_names_and_shapes(theta: Case) -> None:
    assert theta.posterior.names == (KERNEL,)
    assert theta.posterior.loc[KERNEL].shape == (5, 5, 1, 64)
    assert {name: value.shape for name, value in theta.fixed.items()} == {
        BIAS: (64,),
        "sequential/dense/bias": (10,),
        "sequential/dense/kernel": (12544, 10),
    }
    assert theta.graph.input_tensor == "Placeholder:0"
    assert (theta.graph.input_shape, theta.graph.input_dtype) == ((None, 784), "float32")
    assert theta.graph.output_tensor == "sequential/dense/BiasAdd:0"
    assert theta.graph.output_shape == (None, 10)
    assert set(theta.graph.loc_tensors) == {KERNEL}


@needs_theta
def test_theta_scale(theta: Case) -> None:
    stored = saver.read_variables(THETA / "model.ckpt-250", [KERNEL, SCALE])
    np.testing.assert_array_equal(theta.posterior.loc[KERNEL], stored[KERNEL])
    exact = np.finfo(np.float32).eps + np.log1p(np.exp(stored[SCALE].astype(np.float64)))
    assert theta.posterior.scale[KERNEL].dtype == np.float32
    # TensorFlow's float32 softplus is right to a few units in the last place (6e-8 each).
    np.testing.assert_allclose(theta.posterior.scale[KERNEL], exact, rtol=2.5e-7)


@needs_theta
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_theta_logits(theta: Case, images: np.ndarray, noise: float) -> None:
    loc, scale = theta.posterior.loc[KERNEL], theta.posterior.scale[KERNEL]
    draws = np.random.default_rng(3).normal(size=loc.shape)
    kernel = (loc + noise * scale * draws).astype(np.float32)
    with GraphNetwork(theta.graph, theta.fixed) as network:
        logits = network(images, {KERNEL: kernel})
    expected = _by_hand(images, kernel)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@needs_theta
def test_theta_source(theta: Case) -> None:
    source = theta.source
    assert (source.kind, source.step, source.tf_version) == ("tf1", 250, "1.14.0")
    horovod = {op: n for op, n in source.dropped_ops.items() if op.startswith("Horovod")}
    assert horovod == {"HorovodAllreduce": 5, "HorovodBroadcast": 18}
    assert source.dropped_ops["ResourceApplyAdam"] == 5
    assert len(source.stripped) == 13
    assert source.stripped["sequential/dense/kernel/Adam_1"] == ((12544, 10), "float32")
    assert source.stripped["global_step"] == ((), "int64")
    assert set(source.sha256) == {
        f"model.ckpt-250.{suffix}" for suffix in ("meta", "index", "data-00000-of-00001")
    }


@needs_theta
def test_theta_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "bprune_hpc.checkpoints.case"):
        read_case(THETA)
    for line in (
        f"mean-field: {KERNEL} (5, 5, 1, 64)",
        "fixed, never pruned: sequential/dense/kernel (12544, 10)",
        "other variables: 5 Adam, 5 Adam_1, 1 beta1_power",
        "18 HorovodBroadcast",
    ):
        assert line in caplog.text


def test_a_network_is_logged_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bprune_hpc.checkpoints.case"):
        found = read_case("embedded:digits_fc", with_prior=True)
    n_ops = sum(found.source.dropped_ops.values())
    said = [one.getMessage() for one in caplog.records if one.name == "bprune_hpc.checkpoints.case"]
    assert said == [
        "network: 6464 weights have a posterior (3 tensors), 106 are fixed and never pruned (3 "
        f"tensors); the output does not depend on 21 other variables and {n_ops} operations "
        "(inspect names them all)",
        "prior: N(0, 1²) (3 tensors)",
    ]


@needs_theta
@pytest.mark.parametrize("is_in_parent", [False, True])
def test_ops_name_file(tmp_path: Path, is_in_parent: bool) -> None:
    directory = tmp_path / "case"
    shutil.copytree(THETA, directory)
    meta = saver.read_meta_graph(directory / "model.ckpt-250")
    listing = (tmp_path if is_in_parent else directory) / "Ops_name_BNN.txt"
    listing.write_text("\n".join(node.name for node in meta.graph_def.node) + "\n")
    case = read_case(directory)
    assert case.graph.input_tensor == "Placeholder:0"
    assert case.graph.output_tensor == "sequential/dense/BiasAdd:0"
    assert "Ops_name_BNN.txt" in case.source.sha256


@needs_theta
def test_ops_name_file_of_another_network(tmp_path: Path) -> None:
    directory = tmp_path / "case"
    shutil.copytree(THETA, directory)
    (tmp_path / "Ops_name_BNN.txt").write_text("images\nlabels\nnet/log_prob/mul\n")
    with pytest.raises(GraphError, match=r"no operation 'net/log_prob/mul'.*as --logits_op"):
        read_case(directory)
    case = read_case(directory, input_op="Placeholder", logits_op="sequential/dense/BiasAdd")
    assert case.posterior.names == (KERNEL,)


@needs_theta
def test_flipped_bits_of_the_meta_graph_never_end_in_a_traceback(tmp_path: Path) -> None:
    directory = tmp_path / "case"
    shutil.copytree(THETA, directory)
    meta = directory / "model.ckpt-250.meta"
    meta.chmod(0o644)
    content = meta.read_bytes()
    forward = content.find(b"sequential/reshape"), content.find(b"label_dist/log_prob/Neg")
    rng = np.random.default_rng(4)
    n_refused = 0
    for position in rng.integers(*forward, size=30):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        meta.write_bytes(damaged)
        try:
            read_case(directory)
        except (GraphError, CheckpointError) as error:
            n_refused += 1
            assert "\n" not in str(error)
    assert 5 < n_refused < 30  # a graph has no checksum: some flips cannot be seen


def _reparameterized(x: Any) -> tuple[Any, list[Any]]:
    """One dense layer whose scale is a variable as it is, so that it can be anything."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    loc, scale = tf1.get_variable("w", (4, 3)), tf1.get_variable("scale", (4, 3))
    bias = tf1.get_variable("bias", (3,))
    return x @ (loc + tensorflow.abs(scale) * tensorflow.random.normal((4, 3))) + bias, []


def _signed(x: Any) -> tuple[Any, list[Any]]:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    loc, scale = tf1.get_variable("w", (4, 3)), tf1.get_variable("scale", (4, 3))
    return x @ (loc + scale * tensorflow.random.normal((4, 3))), []


def _overwrite(directory: Path, name: str, value: float) -> None:
    """Replace the first two numbers of a stored variable, in a checkpoint that is whole."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    prefix = directory / "model.ckpt-7"
    stored = saver.read_variables(prefix, list(saver.CheckpointReader(prefix).types))
    stored[name].flat[:2] = value
    meta = prefix.with_name("model.ckpt-7.meta").read_bytes()
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        for key, array in stored.items():
            tf1.get_variable(key, initializer=array)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, str(directory / "model.ckpt"), global_step=7)
    prefix.with_name("model.ckpt-7.meta").write_bytes(meta)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("w", np.nan, "NaN in weights: 2 of 12 numbers are not finite in the loc of 'w'"),
        ("scale", np.nan, "NaN in weights: 2 of 12 numbers are not finite in the scale of 'w'"),
        ("scale", np.inf, "infinities in weights: 2 of 12 .* in the scale of 'w'"),
        ("bias", np.nan, "NaN in weights: 2 of 3 numbers are not finite in the weights of 'bias'"),
    ],
)
def test_weights_that_are_not_finite(tmp_path: Path, name: str, value: float, message: str) -> None:
    save(tmp_path, _reparameterized)
    read_case(tmp_path)
    _overwrite(tmp_path, name, value)
    with pytest.raises(CheckpointError, match=f"model.ckpt-7: {message}"):
        read_case(tmp_path)


def test_negative_scale(tmp_path: Path) -> None:
    saved = save(tmp_path, _signed)
    n_negative = np.count_nonzero(saved.variables["scale"] < 0)
    assert n_negative > 0
    with pytest.raises(CheckpointError, match=f"{n_negative} of 12 scales of 'w' are negative"):
        read_case(tmp_path)


def test_graph_of_another_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, _reparameterized)
    meta = (tmp_path / "model.ckpt-7.meta").read_bytes()
    save(tmp_path, _signed)
    (tmp_path / "model.ckpt-7.meta").write_bytes(meta)
    with pytest.raises(CheckpointError, match=r"model.ckpt-7: lacks 'bias', which the graph reads"):
        read_case(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_both_checkpoint_formats(tmp_path: Path, version: int) -> None:
    saved = save(tmp_path, _reparameterized, saver_version=version)
    case = read_case(tmp_path)
    np.testing.assert_array_equal(case.posterior.loc["w"], saved.variables["w"])
    np.testing.assert_array_equal(case.posterior.scale["w"], np.abs(saved.variables["scale"]))
    assert set(case.fixed) == {"bias"} and case.source.step == 7


def test_layer_names_only_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, _reparameterized)
    (tmp_path / "LayerNames.txt").write_text("w:0\nscale:0\nbias:0\n")
    read_case(tmp_path)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    (tmp_path / "LayerNames.txt").write_text("w:0\nother/kernel:0\n")
    assert read_case(tmp_path).posterior.names == ("w",)
    assert "names 1 variables that the graph lacks (other/kernel...)" in caplog.text
