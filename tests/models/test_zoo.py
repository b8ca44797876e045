"""The zoo against closed forms and loops written out: mean, spread, divergence, convolution."""

from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError, DataError
from bprune_hpc.models import zoo as models_zoo
from bprune_hpc.tensorflow_import import import_tensorflow, open_session
from tests.helpers import reference_networks

N_TRAIN = 50
N_CLASSES = 3


def relu(x):
    return np.maximum(x, 0.0)


class Built:
    """A network in a graph and a session of its own, and its variables as arrays."""

    def __init__(self, name, example_shape, **settings):
        tf = import_tensorflow()
        self.n_values = int(np.prod(example_shape))
        with tf.Graph().as_default() as graph:
            tf.compat.v1.set_random_seed(3)
            self.inputs = tf.compat.v1.placeholder(tf.float32, (None, self.n_values))
            settings = {"hidden": (), "prior_scale": 0.7, "posterior_scale_init": 0.3, **settings}
            self.network = models_zoo.build(
                name, self.inputs, N_CLASSES, N_TRAIN, example_shape=example_shape, **settings
            )
            init = tf.compat.v1.global_variables_initializer()
            self.variables = tf.compat.v1.trainable_variables()
            self.everything = tf.compat.v1.global_variables()
        self.session = open_session(graph)
        self.session.run(init)

    def values(self):
        names = [variable.name.split("/", 1)[1][:-2] for variable in self.variables]
        return dict(zip(names, self.session.run(self.variables), strict=True))

    def logits(self, x):
        return self.session.run(self.network.logits, {self.inputs: x})

    def without_noise(self):
        variables = self.network.untransformed_scales.values()
        self.assign(variables, [np.full(v.shape, -200.0) for v in variables])

    def assign(self, variables, values):
        initializers = [variable.initializer for variable in variables]
        feeds = zip((op.inputs[1] for op in initializers), values, strict=True)
        self.session.run(initializers, dict(feeds))


@pytest.fixture(scope="module")
def linear():
    built = Built("dense", (6,))
    yield built
    built.session.close()


def test_scales_start_where_they_were_asked_to(linear):
    scale = np.log1p(np.exp(linear.values()["dense_flipout/kernel_posterior_untransformed_scale"]))
    found = linear.session.run(linear.network.scales)
    np.testing.assert_allclose(found["dense_flipout"], scale, rtol=1e-5)
    assert abs(np.median(scale) / 0.3 - 1) < 0.15


def test_kl_is_the_closed_form_over_the_training_set(linear):
    loc, scale = (
        np.float64(linear.session.run(table)["dense_flipout"])
        for table in (linear.network.locs, linear.network.scales)
    )
    prior = 0.7
    nats = np.log(prior / scale) + (scale**2 + loc**2) / (2 * prior**2) - 0.5
    found = linear.session.run(linear.network.kl)
    np.testing.assert_allclose(found, nats.sum() / N_TRAIN, rtol=1e-5)


def test_draws_of_a_linear_layer_have_the_posteriors_mean_and_variance(linear):
    loc, scale = (
        np.float64(linear.session.run(table)["dense_flipout"])
        for table in (linear.network.locs, linear.network.scales)
    )
    bias = linear.values()["dense_flipout/bias_posterior_loc"]
    x = np.random.default_rng(1).uniform(size=(1, 6)).astype(np.float32)
    n = 3000
    draws = np.array([linear.logits(x)[0] for _ in range(n)], np.float64)
    variance = (np.float64(x) ** 2 @ scale**2)[0]
    z_mean = (draws.mean(axis=0) - (x @ loc + bias)[0]) / np.sqrt(variance / n)
    z_variance = (draws.var(axis=0, ddof=1) / variance - 1) / np.sqrt(2 / (n - 1))
    assert (np.abs(z_mean) < 4).all() and (np.abs(z_variance) < 4).all()


def test_hidden_layers_at_the_mean():
    built = Built("dense", (2, 3), hidden=(5, 4))
    built.without_noise()
    values = built.values()
    assert list(values)[:3] == [
        f"dense_flipout/{name}"
        for name in (
            "kernel_posterior_loc", "kernel_posterior_untransformed_scale", "bias_posterior_loc"
        )
    ]  # fmt: skip
    x = np.random.default_rng(2).uniform(size=(4, 6)).astype(np.float32)
    layers = ("dense_flipout", "dense_flipout_1", "dense_flipout_2")
    hidden = x.astype(np.float64)
    for name in layers:
        kernel, bias = values[f"{name}/kernel_posterior_loc"], values[f"{name}/bias_posterior_loc"]
        hidden = (hidden if name == layers[0] else relu(hidden)) @ kernel + bias
    np.testing.assert_allclose(built.logits(x), hidden, atol=2e-5)
    built.session.close()


def test_convolution_at_the_mean_written_out():
    built = Built("conv_flipout", (5, 4))
    built.without_noise()
    values = built.values()
    kernel = np.float64(values["conv2d_flipout/kernel_posterior_loc"])
    assert kernel.shape == (5, 5, 1, 64)
    image = np.random.default_rng(3).uniform(size=(5, 4))
    padded = np.pad(image, 2)
    features = np.array([[
        np.tensordot(padded[i : i + 5, j : j + 5], kernel[:, :, 0], 2) for j in range(4)
    ] for i in range(5)])  # fmt: skip
    features = relu(features + values["conv2d_flipout/bias_posterior_loc"])
    # 2 x 2 maxima; SAME leaves the fifth row a window of its own.
    pooled = np.array([[
        features[i : i + 2, j : j + 2].max(axis=(0, 1)) for j in (0, 2)
    ] for i in (0, 2, 4)])  # fmt: skip
    logits = pooled.ravel() @ values["dense/kernel"] + values["dense/bias"]
    x = image.reshape(1, -1).astype(np.float32)
    np.testing.assert_allclose(built.logits(x)[0], logits, atol=2e-5)
    assert list(built.network.scales) == ["conv2d_flipout"]  # the head has no posterior
    built.session.close()


def test_shapes_of_images():
    assert models_zoo.image_shape((8, 8)) == (8, 8, 1)
    assert models_zoo.image_shape((32, 30, 3)) == (32, 30, 3)
    assert models_zoo.image_shape((784,)) == (28, 28, 1)
    with pytest.raises(DataError, match=r"\(10,\), which is not an image"):
        models_zoo.image_shape((10,))


def test_an_unknown_name():
    with pytest.raises(ConfigError, match="no model is called 'lenet'; choose dense or conv"):
        Built("lenet", (4,))


@pytest.mark.parametrize(
    ("name", "n_convolutions"), [("vgg", (2, 2, 2)), ("vgg16", (2, 2, 3, 3, 3))]
)
def test_vgg_at_the_mean_written_out(name, n_convolutions):
    built = Built(name, (6, 5, 2), width=3)
    built.without_noise()
    values = {name.removeprefix("sequential/"): value for name, value in built.values().items()}
    x = np.random.default_rng(3).uniform(size=(3, 6, 5, 2))
    expected = reference_networks.vgg(x, values, n_convolutions)
    logits = built.logits(x.reshape(3, -1).astype(np.float32))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert len(built.network.scales) == sum(n_convolutions) + 2 and built.network.updates == ()
    n_filters = [
        built.network.scales[f"stage{stage}_conv1"].shape[-1] // 3
        for stage in range(1, len(n_convolutions) + 1)
    ]
    assert n_filters == [1, 2, 4, 8, 8][: len(n_convolutions)]
    built.session.close()


@pytest.fixture(scope="module")
def residual():
    built = Built("resnet18", (8, 8), width=2, posterior_scale_init=0.05)
    yield built
    built.session.close()


def statistics(built):
    names = [v.name for v in built.everything if "moving" in v.name]
    variables = [v for v in built.everything if "moving" in v.name]
    return dict(zip(names, built.session.run(variables), strict=True))


def test_moving_statistics_follow_the_batch_in_training_alone(residual):
    network, session = residual.network, residual.session
    assert len(network.updates) == 2 * 20
    x = np.random.default_rng(5).uniform(size=(6, 64)).astype(np.float32)
    before = statistics(residual)
    session.run(network.updates, {residual.inputs: x})
    for name, value in statistics(residual).items():
        np.testing.assert_array_equal(value, before[name])
    branches = session.graph.get_operation_by_name("stem_norm/cond")
    (conv,) = (tensor for tensor in branches.inputs if tensor.shape.rank == 4)
    assert conv.shape.as_list() == [None, 8, 8, 2]
    feed = {residual.inputs: x, network.is_training: True}
    seen, _ = session.run((conv, network.updates), feed)
    seen = seen.astype(np.float64)
    after = statistics(residual)
    np.testing.assert_allclose(
        after["stem_norm/moving_mean:0"], 0.1 * seen.mean(axis=(0, 1, 2)), atol=1e-6
    )
    # The batch's variance without bias, over 6 x 8 x 8 values.
    variance = seen.var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(
        after["stem_norm/moving_variance:0"], 0.9 + 0.1 * variance, rtol=1e-5
    )
    assert all((after[name] != before[name]).any() for name in after)


def test_resnet18_at_the_mean_written_out(residual):
    rng = np.random.default_rng(6)
    norms = [variable for variable in residual.everything if "_norm/" in variable.name]
    residual.assign(norms, [np.exp(rng.normal(0, 0.3, v.shape)) for v in norms])
    residual.without_noise()
    names = [variable.name.removesuffix(":0") for variable in residual.everything]
    values = dict(zip(names, residual.session.run(residual.everything), strict=True))
    x = rng.uniform(size=(4, 8, 8, 1))
    expected = reference_networks.resnet18(x, values)
    logits = residual.logits(x.reshape(4, 64).astype(np.float32))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert len(residual.network.scales) == 21
    kl = residual.session.run(residual.network.kl)
    assert np.isfinite(kl) and kl > 0
