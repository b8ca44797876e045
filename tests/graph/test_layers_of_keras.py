"""What Keras and TFP make of common layers is known as layers, whichever operations they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators.compiled_graph import is_known
from bprune_hpc.evaluators.graph import GraphEvaluator, GraphNetwork
from bprune_hpc.evaluators.reference import ReferenceNetwork
from bprune_hpc.evaluators.selection import choose_evaluator
from bprune_hpc.graph.layer_graph import LayerGraph, UnknownOperation
from bprune_hpc.runner.output_probe import some_outputs
from bprune_hpc.tensorflow_import import import_tensorflow

Build = Callable[[Any, Any, Any], Any]


def images(layers: Any, of: Any, x: Any) -> Any:
    x = layers.BatchNormalization()(layers.Rescaling(1 / 2, offset=-1)(x))
    x = of.Convolution2DFlipout(4, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="elu")(x)
    x = layers.MaxPooling2D(2, 1, padding="same")(layers.ZeroPadding2D(1)(x))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    return layers.GlobalAveragePooling2D()(layers.LeakyReLU(0.2)(layers.Dropout(0.5)(x)))


def branches(layers: Any, of: Any, x: Any) -> Any:
    left = of.Convolution2DReparameterization(4, 3, padding="same", activation="tanh")(x)
    right = layers.Conv2D(4, 5, padding="same", dilation_rate=2, activation="swish")(x)
    both = layers.Concatenate()([left, right, layers.Add()([left, right, right])])
    gate = layers.Conv2D(12, 1, groups=2, activation="sigmoid")(both)
    x = layers.ReLU(6)(layers.Multiply()([both, gate]))
    return layers.Flatten()(layers.AveragePooling2D((2, 3), padding="same")(x))


def sequence(layers: Any, of: Any, x: Any) -> Any:
    x = of.Convolution1DFlipout(5, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling1D(2, padding="same")(layers.Dense(6, activation="relu")(x))
    x = of.DenseReparameterization(4)(x)
    x = layers.BatchNormalization()(layers.Conv1D(4, 2, dilation_rate=2, activation="selu")(x))
    x = layers.concatenate([layers.AveragePooling1D(2, 1)(x), layers.MaxPooling1D(2, 1)(x)])
    return layers.GlobalMaxPooling1D()(layers.Activation("gelu")(x))


def pooled_sequence(layers: Any, of: Any, x: Any) -> Any:
    for n_filters in (4, 5):
        x = of.Convolution1DFlipout(n_filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling1D(2)(layers.BatchNormalization()(x))
    return layers.GlobalAveragePooling1D()(x)


def vector(layers: Any, of: Any, x: Any) -> Any:
    hidden = of.DenseFlipout(8, activation="softplus")(layers.Normalization(mean=1, variance=4)(x))
    hidden = layers.BatchNormalization()(of.DenseReparameterization(6)(hidden))
    return layers.Activation("softsign")(hidden)


@pytest.mark.parametrize(
    ("build", "shape"), [(images, (9, 8, 3)), (branches, (6, 5, 2)), (sequence, (12, 3)),
                         (pooled_sequence, (13, 2)), (vector, (7,))],
)  # fmt: skip
def test_common_layers_are_known(build: Build, shape: tuple[int, ...]) -> None:
    import_tensorflow()
    import tensorflow_probability as tfp
    import tf_keras

    inputs = tf_keras.layers.Input(shape)
    hidden = build(tf_keras.layers, tfp.layers, inputs)
    model = tf_keras.Model(inputs, tfp.layers.DenseFlipout(3)(hidden))
    rng = np.random.default_rng(4)
    for variable in model.variables:  # moving averages too
        value = np.abs(rng.normal(size=variable.shape)) + 0.1
        variable.assign(value if "variance" in variable.name else value - 0.5)
    network = bprune_hpc.load(model)
    lifted = network._network.lifted
    layers = lifted.layers
    assert isinstance(layers, LayerGraph), layers
    assert is_known(layers) == (build in (pooled_sequence, vector))  # by the compiled module
    if not is_known(layers):
        with pytest.raises(ConfigError, match=r"has (Convolution|Concatenation|Padding|Reshape)\("):
            choose_evaluator("layers", lifted)
    x = rng.normal(size=(5, *shape)).astype(np.float32)
    found = some_outputs(ReferenceNetwork(layers, network.fixed), network.posterior, x)
    with GraphNetwork(lifted, network.fixed) as plain:
        expected = some_outputs(GraphEvaluator(plain), network.posterior, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_what_is_not_known_is_named() -> None:
    import_tensorflow()
    import tensorflow_probability as tfp
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((4, 4, 2)),
            layers.UpSampling2D(2),
            layers.Flatten(),
            tfp.layers.DenseFlipout(2),
        ]
    )
    found = bprune_hpc.load(model)._network.lifted.layers
    assert isinstance(found, UnknownOperation) and found.operation == "ResizeNearestNeighbor"
