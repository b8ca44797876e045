"""Lifted graphs are described as graphs of layers, or the operation is named that is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators.selection import choose_evaluator
from bprune_hpc.graph.layer_graph import (
    EXAMPLES,
    Activation,
    Add,
    Bias,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Transpose,
    UnknownOperation,
)
from bprune_hpc.graph.layer_search import find_layers
from bprune_hpc.graph.nodes import parse_graph, parse_tensor
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.lifted_graphs import lifted

SHAPES = {
    "k0": (3, 3, 2, 4), "b0": (4,), "k1": (3, 3, 4, 4), "k2": (16, 3),
    "scale": (4,), "offset": (4,), "mean": (4,), "variance": (4,),
}  # fmt: skip
NUMBERS = {"scale": 3.0, "offset": 1.0, "mean": 2.0, "variance": 0.75}
FIXED = {name: np.full(SHAPES[name], value, np.float32) for name, value in NUMBERS.items()}


def normalized(tf: Any, x: Any, w: Mapping[str, Any], is_training: bool = False) -> Any:
    scale, offset, mean, variance = (w[name] for name in ("scale", "offset", "mean", "variance"))
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=0.25,
        is_training=is_training,
    ).y  # fmt: skip


def residual(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    """Two branches that share their beginning, and meet again."""
    x = tf.nn.bias_add(tf.nn.conv2d(tf.reshape(x, (-1, 4, 4, 2)), w["k0"], 1, "SAME"), w["b0"])
    inner = tf.nn.conv2d(tf.nn.relu(normalized(tf, x, w)), w["k1"], 1, "SAME")
    x = tf.nn.avg_pool2d(tf.identity(inner + x), 2, 2, "VALID")
    return tf.reshape(x, (tf.shape(x)[0], -1)) @ w["k2"]


def test_a_network_with_branches_is_found() -> None:
    graph = lifted(residual, (32,), {"k0", "k1", "k2"}, list(SHAPES), SHAPES, FIXED)
    layers = graph.layers
    assert isinstance(layers, LayerGraph)
    first = Convolution("k0", (3, 3), (4, 4, 2), borders=((1, 1), (1, 1)))
    second = Convolution("k1", (3, 3), (4, 4, 4), borders=((1, 1), (1, 1)))
    where = {node.operation: at for at, node in enumerate(layers.nodes)}
    (scale,) = (one for one in where if isinstance(one, Scale))
    (shift,) = (one for one in where if isinstance(one, Bias) and one != Bias("b0"))
    np.testing.assert_array_equal(layers.constants[scale.name], np.full(4, 3))
    np.testing.assert_array_equal(layers.constants[shift.name], np.full(4, 1 - 2 * 3))
    expected = {
        Reshape((4, 4, 2)): None,
        first: Reshape((4, 4, 2)),
        Bias("b0"): first,
        scale: Bias("b0"),
        shift: scale,
        Activation("Relu"): shift,
        second: Activation("Relu"),
        Pooling("AvgPool", (2, 2), (2, 2)): Add(),
        Reshape((16,), 4): Pooling("AvgPool", (2, 2), (2, 2)),
        Dense("k2"): Reshape((16,), 4),
    }
    for operation, taken in expected.items():
        inputs = (EXAMPLES if taken is None else where[taken],)
        assert layers.nodes[where[operation]] == LayerNode(operation, inputs)
    assert layers.nodes[where[Add()]].inputs == (where[second], where[Bias("b0")])
    assert len(layers.nodes) == len(expected) + 1
    assert layers.nodes[-1].operation == Dense("k2")
    assert all(number < at for at, node in enumerate(layers.nodes) for number in node.inputs)
    assert layers.chain() is None and choose_evaluator("auto", graph) == "layers"


def test_a_tensor_may_be_added_to_itself() -> None:
    def doubled(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        x = x @ w["d"]
        return x + x

    graph = lifted(doubled, (2,), {"d"}, ["d"], {"d": (2, 3)})
    assert graph.layers == LayerGraph(
        (LayerNode(Dense("d"), (-1,)), LayerNode(Add(), (0, 0))), (2,)
    )


@pytest.mark.parametrize(
    ("build", "name", "operation"),
    [
        (lambda tf, x, w: tf.nn.softmax(x @ w["d"], name="s") @ w["e"], "s", "Softmax"),
        (lambda tf, x, w: tf.cos(x @ w["d"], name="c") @ w["e"], "c", "Cos"),
        (lambda tf, x, w: tf.add(x @ w["d"], x[:, :1], name="wide") @ w["e"], "wide", "AddV2"),
        (lambda tf, x, w: tf.nn.relu(x, name="r") @ tf.exp(w["d"], name="exp"), "matmul", "MatMul"),
    ],
)
def test_what_is_no_operation_of_layers_is_named(build: Any, name: str, operation: str) -> None:
    shapes = {"d": (5, 3), "e": (3, 2)}
    graph = lifted(build, (5,), {"d", "e"}, ["d", "e"], shapes)
    assert isinstance(graph.layers, UnknownOperation)
    assert graph.layers.operation == operation and graph.layers.name.startswith(name)
    found = f"this network has '{graph.layers.name}' \\({operation}\\); leave the flag out"
    with pytest.raises(ConfigError, match=found):
        choose_evaluator("channels", graph)


@pytest.mark.parametrize("what", ["training", "is_training", "epsilon"])
def test_a_normalization_whose_numbers_are_not_written_down_is_none(what: str) -> None:
    """Without the attributes their defaults count: a normalization in training."""
    tensorflow = import_tensorflow()
    placeholder = tensorflow.compat.v1.placeholder
    with tensorflow.Graph().as_default() as graph:
        x = placeholder(tensorflow.float32, (None, 4, 4, 4), name="x")
        weights = {
            name: placeholder(tensorflow.float32, SHAPES[name], name=name)
            for name in ("scale", "offset", "mean", "variance")
        }
        output = normalized(tensorflow, x, weights, what == "training")
        graph_def = graph.as_graph_def()
    (node,) = (node for node in graph_def.node if node.op == "FusedBatchNormV3")

    def found() -> Any:
        return find_layers(
            graph_def, parse_graph(graph_def), parse_tensor("x:0"), parse_tensor(output.name),
            {name: name for name in weights}, FIXED,
        )  # fmt: skip

    if what != "training":
        assert isinstance(found(), LayerGraph)
        del node.attr[what]
    assert found() == UnknownOperation(node.name, node.op)


X_SHAPE = (6, 5, 2)
KERNEL = {"k": (3, 3, 2, 4), "d": (3, 3, 2, 1), "g": (2,), "v": (2,)}


def operations_of(build: Any, shape: tuple[int, ...] = X_SHAPE, **fixed: Any) -> list[Any]:
    """What a hand-written graph is found to be; what is not fixed has a posterior."""
    used = list(KERNEL)
    graph = lifted(build, shape, set(used) - set(fixed), used, KERNEL, fixed)
    assert isinstance(graph.layers, LayerGraph), graph.layers
    return [node.operation for node in graph.layers.nodes]


def test_zeros_before_a_convolution_are_its_own() -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        padded = tf.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)))
        return tf.nn.conv2d(padded, w["k"], 2, "VALID")

    assert operations_of(build) == [Convolution("k", (3, 3), X_SHAPE, (2, 2), ((1, 2), (0, 3)))]


def test_zeros_before_a_pooling_are_not() -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        padded = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return tf.concat(
            [tf.nn.max_pool2d(padded, 3, 1, "VALID"), tf.nn.conv2d(padded, w["k"], 1, "VALID")], -1
        )

    borders = ((1, 1), (1, 1))
    assert operations_of(build) == [
        Padding(borders), Pooling("MaxPool", (3, 3), (1, 1)),
        Convolution("k", (3, 3), X_SHAPE, borders=borders), Concatenation(),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["attribute", "moved pixels", "depthwise"])
def test_dilations(kind: str) -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        if kind == "attribute":
            return tf.nn.conv2d(x, w["k"], 1, "SAME", dilations=2)
        if kind == "depthwise":
            return tf.nn.depthwise_conv2d(x, w["d"], (1, 1, 1, 1), "SAME", dilations=(2, 2))
        moved = tf.space_to_batch(x, (2, 2), ((2, 2), (2, 3)))
        return tf.batch_to_space(tf.nn.conv2d(moved, w["k"], 1, "VALID"), (2, 2), ((0, 0), (0, 1)))

    kernel, groups = ("d", 2) if kind == "depthwise" else ("k", 1)
    borders = ((2, 2), (2, 2))
    expected = Convolution(kernel, (3, 3), X_SHAPE, (1, 1), borders, (2, 2), groups)
    assert operations_of(build) == [expected]


@pytest.mark.parametrize("axes", [(1, 2), (-2, -3), (1,), (2,)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_means_of_axes_are_poolings(axes: tuple[int, ...], keepdims: bool) -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        return tf.reduce_mean(x, axes, keepdims=keepdims)

    window = 5 if axes == (2,) else 1
    window_of = {(1,): (6, 1), (2,): (1, window)}.get(axes, (6, 5))
    pooling, *rest = operations_of(build)
    assert pooling == Pooling("AvgPool", window_of, (1, 1))
    shape = {(1,): (1, 5, 2), (2,): (6, 1, 2)}.get(axes, (1, 1, 2))
    if not keepdims:
        shape = {(1,): (1, 5, 2), (2,): (1, 6, 2)}.get(axes, (2,))
    assert [one.shape for one in rest] == ([] if keepdims or axes == (1,) else [shape])


def test_a_sequence_is_an_image_of_one_row() -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        x = tf.nn.max_pool1d(tf.nn.relu(x), 2, 2, "SAME")
        # Keras puts the axis of one place last.
        return tf.squeeze(tf.nn.avg_pool2d(tf.expand_dims(x, 2), (3, 1), (1, 1), "VALID"), 2)

    assert operations_of(build, (7, 2)) == [
        Activation("Relu"), Pooling("MaxPool", (1, 2), (1, 2), ((0, 0), (0, 1))),
        Pooling("AvgPool", (1, 3), (1, 1)),
    ]  # fmt: skip


def test_a_row_made_a_column_stays_one_where_it_is_needed() -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        column = tf.nn.max_pool2d(tf.expand_dims(x, 2), (3, 1), (2, 1), "SAME")
        return tf.nn.conv2d(column, w["k"], 1, "SAME")

    assert operations_of(build, (7, 2)) == [
        Pooling("MaxPool", (1, 3), (1, 2), ((0, 0), (1, 1))), Reshape((4, 1, 2), 4),
        Convolution("k", (3, 3), (4, 1, 2), borders=((1, 1), (1, 1))),
    ]  # fmt: skip


def test_arithmetic_of_fixed_weights_is_worked_out() -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        return tf.nn.batch_normalization(x, w["g"], tf.exp(w["v"]), 1.0, w["g"], 0.5)

    values = {"g": np.array([1.0, -2.0], np.float32), "v": np.array([0.0, 3.0], np.float32)}
    graph = lifted(build, X_SHAPE, {"k", "d"}, list(KERNEL), KERNEL, values)
    assert isinstance(graph.layers, LayerGraph)
    scale, shift = (node.operation for node in graph.layers.nodes)
    assert isinstance(scale, Scale) and isinstance(shift, Bias)
    factor = values["g"] / np.sqrt(np.exp(values["v"]) + 0.5)
    np.testing.assert_allclose(graph.layers.constants[scale.name], factor, rtol=1e-6)
    np.testing.assert_allclose(
        graph.layers.constants[shift.name], 1 - values["g"] * factor, rtol=1e-6
    )


def test_a_gain_with_a_posterior_stays_one() -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        ones = tf.ones(2)
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=w["g"], offset=w["v"], mean=ones, variance=ones, epsilon=0.5,
            is_training=False,
        ).y  # fmt: skip

    *_, gain, offset = operations_of(build)
    assert (gain, offset) == (Scale("g"), Bias("v"))


@pytest.mark.parametrize("name", ["swish", "gelu", "gelu_tanh", "leaky_relu", "selu"])
def test_activations_of_several_operations(name: str) -> None:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        if name.startswith("gelu"):
            return tf.nn.gelu(x, approximate=name == "gelu_tanh")
        return getattr(tf.nn, name)(x)

    expected = {"leaky_relu": Activation("LeakyRelu", 0.20000000298023224)}
    titled = Activation("".join(word.title() for word in name.split("_")))
    assert operations_of(build) == [expected.get(name, titled)]


def test_examples_of_any_number_of_axes_are_as_the_first_kernel_takes_them() -> None:
    tensorflow = import_tensorflow()
    with tensorflow.Graph().as_default() as graph:
        x = tensorflow.compat.v1.placeholder(tensorflow.float32, None, name="x")
        kernel = tensorflow.compat.v1.placeholder(tensorflow.float32, (5, 3), name="k")
        product = tensorflow.raw_ops.MatMul(a=x, b=kernel)
        output = tensorflow.nn.bias_add(product, [1.0, 2.0, 3.0])
        graph_def = graph.as_graph_def()
    found = find_layers(
        graph_def, parse_graph(graph_def), ("x", 0), parse_tensor(output.name), {"k": "k"}, {}
    )
    assert isinstance(found, LayerGraph) and found.input_shape == (5,)
    assert found.nodes[0].operation == Dense("k") and len(found.nodes) == 2


def test_channels_that_come_first() -> None:
    """Axes change their order where images come in and where they are made flat alone."""

    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        options = {"data_format": "NCHW"}
        x = tf.nn.conv2d(x, w["k"], (2, 1), [[0, 0], [0, 0], [1, 2], [0, 3]], **options)
        x = tf.nn.relu(tf.nn.bias_add(x, tf.constant([1.0, 2.0, 3.0, 4.0]), **options))
        x = tf.nn.max_pool2d(x * tf.ones((4, 1, 1)) + x, (2, 3), (2, 3), "SAME", **options)
        return tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))

    first, last = Transpose((2, 0, 1)), Transpose((1, 2, 0))
    found = operations_of(build, (2, 6, 5))
    bias, scale = (one for one in found if isinstance(one, Bias | Scale))
    assert found == [
        last, Convolution("k", (3, 3), (6, 5, 2), (2, 1), ((1, 2), (0, 3))), bias,
        Activation("Relu"), scale, Add(),
        Pooling("MaxPool", (2, 3), (2, 3), ((0, 0), (0, 0))), first, Reshape((16,), 8),
    ]  # fmt: skip
