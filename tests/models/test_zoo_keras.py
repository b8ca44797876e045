"""The zoo's Keras models, as files of weights and as SavedModels that the sweep's reader opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.models import zoo as models_zoo
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import reference_networks

# By hand: mean-field tensors, and the deterministic ones beside them.
COUNTS = {
    "digits_dense": (3, 3),
    "digits_conv_flipout": (1, 3),
    "digits_vgg": (8, 8),
    "digits_resnet18": (21, 81),
}
BY_HAND = {"digits_vgg": reference_networks.vgg, "digits_resnet18": reference_networks.resnet18}


class Original:
    """A model with random values, and its own forward pass with every standard normal zero."""

    def __init__(self, name: str) -> None:
        tf = import_tensorflow()
        self.name = f"bprune_hpc.models:{name}"
        self.model = keras_tracing.build_model(self.name)
        rng = np.random.default_rng(7)
        for variable in self.model.variables:
            if "moving" in variable.name or "bias" in variable.name or "beta" in variable.name:
                value = rng.normal(0, 0.3, variable.shape)
                is_variance = "moving_variance" in variable.name
                variable.assign(np.exp(value) if is_variance else value)
        self.values = {v.name.removesuffix(":0"): v.numpy() for v in self.model.variables}
        self.x = rng.uniform(size=(5, *self.model.inputs[0].shape[1:])).astype(np.float32)

        def zeros(shape: Any, dtype: Any, **_: Any) -> Any:
            return tf.zeros(shape, dtype)

        with mock.patch("tensorflow_probability.python.internal.samplers.normal", zeros):
            self.logits = self.model(self.x, training=False).numpy()

    def check(self, case: Case) -> None:
        posteriors = {
            layer.name: layer.kernel_posterior.distribution
            for layer in self.model.layers
            if hasattr(layer, "kernel_posterior")
        }
        assert len(case.posterior.loc) == len(posteriors)
        for name, loc in case.posterior.loc.items():
            (layer,) = [layer for layer in posteriors if f"/{layer}/kernel" in f"/{name}"]
            np.testing.assert_array_equal(loc, posteriors[layer].mean().numpy())
            np.testing.assert_array_equal(
                case.posterior.scale[name], posteriors[layer].stddev().numpy()
            )
        with GraphNetwork(case.graph, case.fixed) as network:
            logits = network(self.x, case.posterior.loc)
        np.testing.assert_allclose(logits, self.logits, atol=1e-6 * np.abs(self.logits).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_weights_and_saved_model_open(name: str, tmp_path: Path) -> None:
    original = Original(name)
    weights = tmp_path / "model.weights.h5"
    original.model.save_weights(weights)
    case = read_case(weights, model=original.name)
    original.check(case)
    assert (len(case.posterior.loc), len(case.fixed)) == COUNTS[name]
    original.model.save(tmp_path / "saved")
    original.check(read_case(tmp_path / "saved"))
    by_hand = BY_HAND.get(name)
    if by_hand:
        expected = by_hand(original.x, original.values)
        np.testing.assert_allclose(
            original.logits, expected, atol=2e-6 * np.abs(expected).max(), rtol=0
        )


@pytest.mark.slow
def test_resnet18_for_cifar10_has_the_size_of_the_reference() -> None:
    import_tensorflow()
    model = models_zoo.cifar10_resnet18()
    sizes = {v.name: int(np.prod(v.shape)) for v in model.trainable_variables}
    # 64 filters, 32 x 32 x 3 images, no biases before normalizations: the number that is told of
    # ResNet-18 for CIFAR-10. Here each weight has a scale besides.
    assert sum(n for name, n in sizes.items() if "scale" not in name) == 11_173_962
    assert model.output_shape == (None, 10)
    assert model.get_layer("mean").input_shape == (None, 4, 4, 512)
