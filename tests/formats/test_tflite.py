"""TFLite files in the LiteRT interpreter, and a network that structured pruning makes smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import data
from bprune_hpc.errors import ExportError
from bprune_hpc.formats import tflite
from bprune_hpc.formats.onnx_graph import import_onnx
from bprune_hpc.formats.packing import pack
from bprune_hpc.formats.reference import Reference, compare, tolerance_of
from bprune_hpc.formats.tensorflow_layers import apply
from bprune_hpc.graph.layer_graph import (
    ACTIVATIONS,
    EXAMPLES,
    Activation,
    Bias,
    Concatenation,
    Dense,
    LayerGraph,
    LayerNode,
    Scale,
)
from bprune_hpc.graph.layer_ops import run
from bprune_hpc.models import digits_conv_flipout
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.exports import random_export

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_of_layers(seed: int) -> None:
    """In TensorFlow's operations, against the graph that they were found in."""
    network = random_export(seed)
    packed = pack(network, only_mean=True)
    with Reference(network) as reference:
        x, expected = reference.x, reference.mean_outputs
    if packed.inputs is not None:
        x = x.reshape(len(x), -1)[:, packed.inputs]
    x = x.reshape(-1, *packed.layers.input_shape)
    found = apply(import_tensorflow(), packed.layers, packed.at_mean, x).numpy()
    compare(found.reshape(expected.shape), expected, "layers", tolerance_of(network))


@pytest.mark.parametrize("functions", [ACTIVATIONS - {"Gelu"}, {"Gelu"}])
def test_activations(functions: set[str], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    nodes = [LayerNode(Activation(one, 0.3), (EXAMPLES,)) for one in sorted(functions)]
    graph = LayerGraph((*nodes, LayerNode(Concatenation(), tuple(range(len(nodes))))), (7,))
    converted = tflite.convert(lambda x: apply(import_tensorflow(), graph, {}, x), [7], np.float32)
    (tmp_path / "model.tflite").write_bytes(converted)
    x = np.linspace(-7, 7, 42, dtype=np.float32).reshape(6, 7)
    found = tflite.opened(tmp_path / "model.tflite")(x)
    np.testing.assert_allclose(found, run(graph, {}, x), rtol=1e-5, atol=1e-6)


def test_means_are_taken_off_before_differences_are_multiplied(tmp_path: Path) -> None:
    """What never changes is zero, whatever it is divided by."""
    pytest.importorskip("ai_edge_litert.interpreter")
    rng = np.random.default_rng(0)
    graph = LayerGraph.of_chain((5,), Bias("mean"), Scale("factor"), Dense("k"), Bias("b"))
    weights = {"mean": [0, -2023, -0.1, 1, -255], "factor": [1, 1e7, 1e7, 2, 1e7]}
    weights = {name: np.array(value, np.float32) for name, value in weights.items()}
    weights["k"] = rng.normal(size=(5, 6)).astype(np.float32)
    weights["b"] = rng.normal(size=6).astype(np.float32)
    converted = tflite.convert(
        lambda x: apply(import_tensorflow(), graph, weights, x), [5], np.float32
    )
    (tmp_path / "model.tflite").write_bytes(converted)
    x = np.tile(-weights["mean"], (20, 1))
    x[:, [0, 3]] = rng.normal(size=(20, 2))
    expected = ((x.astype(float) + weights["mean"]) * weights["factor"]) @ weights["k"] + weights[
        "b"
    ]
    found = tflite.opened(tmp_path / "model.tflite")(x)
    np.testing.assert_allclose(found, expected, 0, 1e-6 * np.abs(expected).max())


def test_what_the_converter_cannot_take_is_named() -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    with pytest.raises(ExportError, match=r"tflite: .*tf\.Erfinv.*bundle.*"):
        tflite.convert(import_tensorflow().math.erfinv, [4], np.float32)


def test_filters_that_are_pruned_are_gone_from_every_format(tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    pytest.importorskip("onnxruntime")
    net = bprune_hpc.load(digits_conv_flipout(), output_kind="logits")
    examples = data.load("digits")
    x = examples.x[:20].reshape(-1, 8, 8, 1)
    pruned = net.prune(fraction=0.5, granularity="filter")
    card = pruned.save(tmp_path / "export", ["bundle", "onnx", "tflite"], x=x)
    kernel = next(name for name in net.posterior.names if "conv" in name)
    n_filters = net.posterior.loc[kernel].shape[-1]
    model = import_onnx().load(tmp_path / "export" / "model.onnx")
    first = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    sizes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    sizes |= {one.values.name: tuple(one.dims) for one in model.graph.sparse_initializer}
    assert sizes[first][0] == n_filters // 2
    found = card["size_and_speed"]
    assert found["multiplications"]["dense"] < 0.6 * found["multiplications"]["before"]
    for name in ("onnx", "tflite"):
        sizes_of_files = found["formats"][name]["bytes"]
        assert sizes_of_files["after"] < 0.75 * sizes_of_files["before"]
    runner = interpreter.Interpreter(model_path=str(tmp_path / "export" / "model.tflite"))
    (given,), (shown,) = runner.get_input_details(), runner.get_output_details()
    runner.resize_tensor_input(given["index"], x.shape)
    runner.allocate_tensors()
    runner.set_tensor(given["index"], x)
    runner.invoke()
    logits = pruned.logits(x)
    np.testing.assert_allclose(
        runner.get_tensor(shown["index"]), logits, rtol=0, atol=1e-5 * np.abs(logits).max()
    )


def test_a_sparse_file_that_the_interpreter_gets_wrong_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    network = random_export(4)
    wrong = tmp_path / "model_sparse.tflite"
    with Reference(network) as reference, pytest.MonkeyPatch.context() as patch:
        expected = reference.mean_outputs
        numbers = {"model.tflite": expected, "model_sparse.tflite": 1.01 * expected}
        patch.setattr(tflite, "opened", lambda file: lambda x: numbers[file.name])
        wrong.write_bytes(b"")
        found = tflite.Tflite().check(network, tmp_path, reference)
        assert found == {"files": ["model.tflite"], "difference": {"dense": 0.0}}
        assert not wrong.exists()
        numbers["model.tflite"] = 1.01 * expected
        with pytest.raises(ExportError, match="dense"):
            tflite.Tflite().check(network, tmp_path, reference)
