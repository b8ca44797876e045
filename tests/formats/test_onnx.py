"""ONNX files: each operation against the plain one, and what a user of onnxruntime gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import data
from bprune_hpc.errors import ConfigError
from bprune_hpc.formats import onnx
from bprune_hpc.formats.bundle import opened as opened_bundle
from bprune_hpc.formats.onnx_graph import GraphBuilder, add_layers, import_onnx
from bprune_hpc.formats.reference import Reference
from bprune_hpc.graph.layer_graph import ACTIVATIONS, Activation, LayerGraph
from bprune_hpc.graph.layer_ops import run
from bprune_hpc.posterior.draws import standard_normal
from tests.helpers.exports import random_export

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("function", sorted(ACTIVATIONS))
def test_activations(function: str, tmp_path: Path) -> None:
    graph = LayerGraph.of_chain((7,), Activation(function, 0.3))
    builder, values = GraphBuilder(), import_onnx().helper.make_tensor_value_info
    given = values(builder.name("x"), import_onnx().TensorProto.FLOAT, ["n", 7])
    outputs = add_layers(builder, graph, [(7,)], lambda name, ordered: name, "x")
    shown = values(outputs, import_onnx().TensorProto.FLOAT, ["n", 7])
    file = tmp_path / "model.onnx"
    file.write_bytes(builder.model([given], [shown], "g", "").SerializeToString())
    x = np.linspace(-7, 7, 42, dtype=np.float32).reshape(6, 7)
    (found,) = onnx.opened(file)({"x": x})
    np.testing.assert_allclose(found, run(graph, {}, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_of_layers(seed: int, tmp_path: Path) -> None:
    """Against the graph in TensorFlow: at the mean, in draws, and in an ensemble of these."""
    network = random_export(seed)
    onnx.Onnx().write(network, tmp_path)
    with Reference(network) as reference:
        onnx.Onnx().check(network, tmp_path, reference)


def test_weights_are_sparse_where_that_is_smaller() -> None:
    builder, weights = GraphBuilder(), np.zeros((6, 6), np.float32)
    weights.flat[:12] = 1
    builder.weights(weights, "sparse")
    weights.flat[:13] = 1
    builder.weights(weights, "dense")
    builder.weights(weights, "again")
    assert [one.values.name for one in builder.sparse] == ["sparse"]
    assert [one.name for one in builder.initializers] == ["dense"]


def test_a_user_runs_the_digits(tmp_path: Path) -> None:
    """The mean, noise that the user draws, and members of the ensemble."""
    x = data.load("digits").x[:20].reshape(-1, 64)
    net = bprune_hpc.load("embedded:digits_fc").prune(snr=1)
    directory = tmp_path / "export"
    net.save(directory, ["bundle", "onnx"], x=x, seed=5)
    session = runtime.InferenceSession(directory / "model.onnx")
    (mean,) = session.run(["outputs"], {"x": x})
    logits = net.logits(x)
    largest = np.abs(logits).max()
    np.testing.assert_allclose(mean, logits, rtol=0, atol=1e-6 * largest)
    assert (directory / "model.onnx").stat().st_size < 4 * 6464 / 3

    session = runtime.InferenceSession(directory / "model_sample.onnx")
    with opened_bundle(directory / "bundle") as predict:
        tensors = predict.load().tensors
    noise = {
        f"noise/{name}": standard_normal(5, name, 0, tensor.full_shape).ravel()[tensor.full_places]
        for name, tensor in tensors.items()
        if tensor.scale is not None
    }
    assert {one.name for one in session.get_inputs()} == {"x", *noise}
    (drawn,) = session.run(None, {"x": x, **noise})
    members, average = runtime.InferenceSession(directory / "model_ensemble.onnx").run(
        ["members", "mean_probability"], {"x": x}
    )
    largest = np.abs(members).max()
    np.testing.assert_allclose(members[0], drawn, rtol=0, atol=1e-6 * largest)
    expected = net.predict(x, onnx.N_MEMBERS, 5, draw_noise="shared").mean_probability
    np.testing.assert_allclose(average, expected, rtol=0, atol=1e-6)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("no onnxruntime", name="onnxruntime")

    monkeypatch.setattr(onnx, "_import_runtime", missing)
    net = bprune_hpc.load("embedded:digits_fc")
    with pytest.raises(ConfigError, match=r"onnxruntime is missing; .*bprune_hpc\[export\]"):
        net.save(tmp_path / "export", ["onnx"])
    assert not (tmp_path / "export").exists()
