"""Lifting: TFP layers against themselves, and every graph that has to be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.errors import GraphError
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.graph.lifting import Lifted, lift
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.small_graphs import Saved, save

N_RUNS = 2000
Weights = dict[str, Any]


def _layers() -> Any:
    import_tensorflow()
    import tensorflow_probability as tfp

    return tfp.layers


def _normals(*layers: Any) -> list[Any]:
    posteriors = []
    for layer in layers:
        posteriors += [layer.kernel_posterior, layer.bias_posterior]
    return [p.distribution for p in posteriors if hasattr(p.distribution, "scale")]


def _dense_net(kind: str) -> Callable[[Any], tuple[Any, list[Any]]]:
    def build(x: Any) -> tuple[Any, list[Any]]:
        make, normal = getattr(_layers(), kind), _layers().default_mean_field_normal_fn()
        first = make(5, activation="relu", bias_posterior_fn=normal, name="first")
        second = make(3, name="second")
        return second(first(x)), _normals(first, second)

    return build


def _conv_net(kind: str) -> Callable[[Any], tuple[Any, list[Any]]]:
    def build(x: Any) -> tuple[Any, list[Any]]:
        keras = import_tensorflow().keras.layers
        conv = getattr(_layers(), kind)(3, 3, activation="relu", name="first")
        hidden = keras.Flatten()(conv(x))
        return keras.Dense(3, name="second")(hidden), _normals(conv)

    return build


def _keras_net(x: Any) -> tuple[Any, list[Any]]:
    keras = import_tensorflow().keras.layers
    first, head = keras.Dense(5, name="first"), _layers().DenseFlipout(3, name="second")
    hidden = keras.Dropout(0.5)(keras.BatchNormalization(name="norm")(first(x)))
    return head(hidden), _normals(head)


def _dense(x: np.ndarray, weights: Weights, layer: str) -> np.ndarray:
    kernel = "kernel_posterior_loc" if f"{layer}/kernel_posterior_loc" in weights else "kernel"
    return x @ weights[f"{layer}/{kernel}"] + weights[f"{layer}/{kernel.replace('kernel', 'bias')}"]


def _dense_by_hand(x: np.ndarray, weights: Weights) -> np.ndarray:
    return _dense(np.maximum(_dense(x, weights, "first"), 0), weights, "second")


def _conv_by_hand(x: np.ndarray, weights: Weights) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, (1, 3, 3, 1)).squeeze((4, 7))
    hidden = np.einsum("nhwcij,ijco->nhwo", windows, weights["first/kernel_posterior_loc"])
    hidden = np.maximum(hidden + weights["first/bias_posterior_loc"], 0)
    return _dense(hidden.reshape(len(x), -1), weights, "second")


def _keras_by_hand(x: np.ndarray, weights: Weights) -> np.ndarray:
    hidden = _dense(x, weights, "first") - weights["norm/moving_mean"]
    hidden = hidden / np.sqrt(weights["norm/moving_variance"] + 1e-3)
    hidden = hidden * weights["norm/gamma"] + weights["norm/beta"]
    return _dense(hidden, weights, "second")


NETS: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "DenseFlipout": (_dense_net("DenseFlipout"), (4,), _dense_by_hand),
    "DenseReparameterization": (_dense_net("DenseReparameterization"), (4,), _dense_by_hand),
    "DenseLocalReparameterization": (
        _dense_net("DenseLocalReparameterization"),
        (4,),
        _dense_by_hand,
    ),
    "Convolution2DFlipout": (_conv_net("Convolution2DFlipout"), (5, 5, 2), _conv_by_hand),
    "Convolution2DReparameterization": (
        _conv_net("Convolution2DReparameterization"),
        (5, 5, 2),
        _conv_by_hand,
    ),
    "keras_batch_norm_dropout": (_keras_net, (4,), _keras_by_hand),
}


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A saved net, the case read back from it, and its forward pass by hand."""
    build, shape, by_hand = NETS[request.param]
    saved = save(tmp_path_factory.mktemp("net"), build, shape, n_runs=N_RUNS)
    return saved, read_case(saved.directory), by_hand


def test_posterior_is_the_layers_own(net: tuple[Saved, Case, Any]) -> None:
    saved, case, _ = net
    assert case.posterior.names == tuple(
        name for name in saved.variables if name in case.posterior.names
    )
    assert len(case.posterior.names) == len(saved.locs)
    for name, loc, scale in zip(case.posterior.names, saved.locs, saved.scales, strict=True):
        np.testing.assert_array_equal(case.posterior.loc[name], loc)
        np.testing.assert_array_equal(case.posterior.loc[name], saved.variables[name])
        np.testing.assert_allclose(case.posterior.scale[name], scale, rtol=3e-7)


def test_logits_at_the_mean(net: tuple[Saved, Case, Any]) -> None:
    saved, case, by_hand = net
    expected = by_hand(saved.x, saved.variables)
    with GraphNetwork(case.graph, case.fixed) as network:
        logits = network(saved.x, case.posterior.loc)
    np.testing.assert_allclose(logits, expected, atol=1e-6 * np.abs(expected).max())


def test_predictive_mean_is_that_of_the_original(net: tuple[Saved, Case, Any]) -> None:
    saved, case, _ = net
    rng = np.random.default_rng(1)
    lifted = []
    with GraphNetwork(case.graph, case.fixed) as network:
        for _ in range(N_RUNS):
            weights = {
                name: (loc + case.posterior.scale[name] * rng.normal(size=loc.shape)).astype("f4")
                for name, loc in case.posterior.loc.items()
            }
            logits = network(saved.x, weights)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            lifted.append(powers / powers.sum(axis=1, keepdims=True))
    difference = np.mean(lifted, axis=0) - saved.predictions.mean(axis=0)
    variance = np.var(lifted, axis=0) + saved.predictions.var(axis=0)
    assert np.all(np.abs(difference) < 4.5 * np.sqrt(variance / N_RUNS))
    # With the noise off, the test above would fail: the noise is large enough to matter.
    assert np.sqrt(variance).max() > 0.1


def test_dense_variational_feeds_slices_of_one_variable(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()
    import tensorflow_probability as tfp

    tfd, layers = tfp.distributions, _layers()

    def independent(t: Any, n: int) -> Any:
        scale = 1e-5 + tensorflow.nn.softplus(t[..., n:])
        return tfd.Independent(tfd.Normal(t[..., :n], scale), 1)

    def posterior(n_kernel: int, n_bias: int, dtype: Any = None) -> Any:
        n = n_kernel + n_bias
        return tensorflow.keras.Sequential(
            [
                layers.VariableLayer(2 * n, dtype=dtype),
                layers.DistributionLambda(lambda t: independent(t, n)),
            ]
        )

    def build(x: Any) -> tuple[Any, list[Any]]:
        return layers.DenseVariational(3, posterior, posterior, name="head")(x), []

    saved = save(tmp_path, build)
    case = read_case(tmp_path)
    (name,) = case.posterior.names
    flat = next(v for key, v in saved.variables.items() if key.startswith("head/posterior"))
    assert name.startswith("head/posterior") and name not in saved.variables
    np.testing.assert_array_equal(case.posterior.loc[name], flat[:15])
    np.testing.assert_allclose(
        case.posterior.scale[name], 1e-5 + np.log1p(np.exp(flat[15:])), rtol=1e-6
    )
    with GraphNetwork(case.graph, case.fixed) as network:
        logits = network(saved.x, case.posterior.loc)
    expected = saved.x @ flat[:12].reshape(4, 3) + flat[12:15]
    np.testing.assert_allclose(logits, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "kind", ["DenseFlipout", "DenseReparameterization", "DenseLocalReparameterization"]
)
def test_layer_called_twice_is_refused(tmp_path: Path, kind: str) -> None:
    """Each call has noise of its own, and a draw of a sweep is one set of weights."""

    def build(x: Any) -> tuple[Any, list[Any]]:
        layer = getattr(_layers(), kind)(4, name="twice")
        return layer(layer(x)), _normals(layer)

    save(tmp_path, build)
    message = r"'twice/kernel_posterior_loc' is drawn anew each time that it is used \(see 'twice"
    with pytest.raises(GraphError, match=message):
        read_case(tmp_path)


def test_convolution_with_local_reparameterization(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()

    def build(x: Any) -> tuple[Any, list[Any]]:
        loc = tensorflow.compat.v1.get_variable("first/kernel_posterior_loc", (3, 3, 2, 3))
        raw = tensorflow.compat.v1.get_variable("first/untransformed_scale", (3, 3, 2, 3))
        bias = tensorflow.compat.v1.get_variable("first/bias_posterior_loc", (3,))
        variance = tensorflow.exp(raw)
        mean = tensorflow.nn.conv2d(x, loc, 1, "VALID")
        deviation = tensorflow.sqrt(tensorflow.nn.conv2d(x * x, variance, 1, "VALID"))
        noise = tensorflow.random.normal(tensorflow.shape(mean))
        hidden = tensorflow.nn.relu(mean + deviation * noise + bias)
        dense = import_tensorflow().keras.layers.Dense(3, name="second")
        return dense(tensorflow.keras.layers.Flatten()(hidden)), []

    saved = save(tmp_path, build, (5, 5, 2))
    case = read_case(tmp_path)
    assert case.posterior.names == ("first/kernel_posterior_loc",)
    (scale,) = case.posterior.scale.values()
    expected_scale = np.exp(saved.variables["first/untransformed_scale"] / 2)
    np.testing.assert_allclose(scale, expected_scale, rtol=5e-7)
    assert "convolution with local reparameterization" in case.graph.notes[0]
    expected = _conv_by_hand(saved.x, saved.variables)
    with GraphNetwork(case.graph, case.fixed) as network:
        logits = network(saved.x, case.posterior.loc)
    np.testing.assert_allclose(logits, expected, atol=1e-6 * np.abs(expected).max())


# From here on: graphs written out by hand, with the mean field `w` (4, 3) and its scale.

VALUES: Weights = {
    "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "rho": np.linspace(0.2, 0.5, 12, dtype=np.float32).reshape(4, 3),
    "rho2": np.linspace(0.1, 0.5, 12, dtype=np.float32).reshape(4, 3),
    "v": np.linspace(1, -2, 12, dtype=np.float32).reshape(4, 3),
    "b": np.linspace(0, 1, 3, dtype=np.float32),
}
X = np.linspace(-1, 2, 20, dtype=np.float32).reshape(5, 4)


class _Tools:
    """What the small graphs below are made of."""

    def __init__(self) -> None:
        self.tf = import_tensorflow()
        self.x = self.tf.compat.v1.placeholder(self.tf.float32, (None, 4), name="x")

    def variable(self, name: str, **kind: Any) -> Any:
        return self.tf.compat.v1.get_variable(name, VALUES[name].shape, **kind)

    def normal(self, *shape: int) -> Any:
        return self.tf.random.normal(shape or (4, 3), name="noise")

    def sampled(self, **kind: Any) -> Any:
        scale = self.tf.exp(self.variable("rho", **kind))
        return self.tf.add(self.variable("w", **kind), scale * self.normal(), name="sampled")


def _lift(
    build: Callable[[_Tools], Any], change: Callable[[Any], None] | None = None, **options: Any
) -> Lifted:
    tensorflow = import_tensorflow()
    with tensorflow.Graph().as_default() as graph:
        tensorflow.identity(build(_Tools()), name="logits")
        graph_def = graph.as_graph_def()
    if change is not None:
        change(graph_def)
    given = {"input_op": "x", "logits_op": "logits", "label": "net.meta", **options}
    return lift(graph_def, lambda names: {name: VALUES[name] for name in names}, **given)


def _logits(lifted: Lifted) -> np.ndarray:
    with GraphNetwork(lifted.graph, lifted.fixed) as network:
        return network(X, lifted.posterior.loc)


@pytest.mark.parametrize("use_resource", [True, False])
def test_resource_and_reference_variables(use_resource: bool) -> None:
    lifted = _lift(
        lambda t: (
            t.x @ t.sampled(use_resource=use_resource) + t.variable("b", use_resource=use_resource)
        )
    )
    assert lifted.posterior.names == ("w",) and set(lifted.fixed) == {"b"}
    assert lifted.used_variables == ("b", "rho", "w")
    np.testing.assert_allclose(lifted.posterior.scale["w"], np.exp(VALUES["rho"]), rtol=3e-7)
    np.testing.assert_allclose(_logits(lifted), X @ VALUES["w"] + VALUES["b"], atol=1e-6)


def test_graph_carries_no_weights() -> None:
    lifted = _lift(lambda t: t.x @ t.sampled())
    assert VALUES["w"].tobytes() not in lifted.graph.graph_def
    assert lifted.graph.input_shape == (None, 4) and lifted.graph.output_shape == (None, 3)


def test_scale_includes_constant_factors() -> None:
    lifted = _lift(
        lambda t: t.x @ (t.variable("w") - 3.0 * (t.normal() * t.tf.exp(t.variable("rho"))))
    )
    expected = 3 * np.exp(VALUES["rho"])
    np.testing.assert_allclose(np.abs(lifted.posterior.scale["w"]), expected, rtol=3e-7)


def test_stateless_noise() -> None:
    def build(t: _Tools) -> Any:
        noise = t.tf.random.stateless_normal((4, 3), seed=(1, 2))
        return t.x @ (t.variable("w") + t.variable("rho") * noise)

    np.testing.assert_array_equal(_lift(build).posterior.scale["w"], VALUES["rho"])


def test_flipout_by_hand() -> None:
    lifted = _lift(_flipped)
    np.testing.assert_array_equal(lifted.posterior.scale["w"], VALUES["rho"])
    assert not lifted.graph.notes


@pytest.mark.parametrize("kind", ["Flipout", "LocalReparameterization"])
def test_noise_of_each_place_is_said(kind: str) -> None:
    import_tensorflow()
    import tensorflow_probability as tfp
    import tf_keras

    layer = getattr(tfp.layers, f"Dense{kind}")(3)
    of_keras = tf_keras.layers
    model = tf_keras.Sequential([of_keras.Input((5, 4)), layer, of_keras.GlobalMaxPooling1D()])
    (note,) = bprune_hpc.load(model)._network.lifted.notes
    words = {"LocalReparameterization": "local reparameterization"}.get(kind, kind)
    assert f": dense layer at several places with {words}; a draw of one kernel" in note


def test_other_reads_of_the_mean_stay_fixed() -> None:
    """A decoder that uses the encoder's mean without noise keeps the mean."""

    def build(t: _Tools) -> Any:
        w = t.variable("w")
        sampled = w + t.variable("rho") * t.normal()
        return (t.x @ sampled) @ t.tf.transpose(w)

    lifted = _lift(build)
    with GraphNetwork(lifted.graph, lifted.fixed) as network:
        logits = network(X, {"w": 2 * VALUES["w"]})
    np.testing.assert_allclose(logits, X @ (2 * VALUES["w"]) @ VALUES["w"].T, atol=1e-5)


def test_nested_functions_are_inlined() -> None:
    def build(t: _Tools) -> Any:
        w, rho = t.variable("w", use_resource=True), t.variable("rho", use_resource=True)

        @t.tf.function(autograph=False)
        def sample() -> tuple[Any, Any]:
            return t.tf.constant(1.0), w + rho * t.tf.random.normal((4, 3))

        @t.tf.function(autograph=False)
        def call(x: Any) -> Any:
            one, weight = sample()
            parts = t.tf.split(x @ weight, 3, axis=1)
            return one * t.tf.concat([parts[0], parts[2], parts[1]], axis=1)

        return call(t.x)

    lifted = _lift(build)
    np.testing.assert_allclose(_logits(lifted), (X @ VALUES["w"])[:, [0, 2, 1]], atol=1e-6)
    assert lifted.dropped_ops["StatefulPartitionedCall"] == 2


@pytest.mark.parametrize("training", [False, True])
def test_conditionals_of_tensorflow_1(training: bool) -> None:
    """Dropout between Switch and Merge: off by its default, or left and refused."""

    def build(t: _Tools) -> Any:
        phase = t.tf.compat.v1.placeholder_with_default(training, (), name="phase")
        switch = t.tf.raw_ops.Switch(data=t.x @ t.sampled(), pred=phase)
        dropped = t.tf.nn.dropout(switch.output_true, 0.5)
        kept = t.tf.identity(switch.output_false) * 2.0
        return t.tf.raw_ops.Merge(inputs=[kept, dropped]).output

    if training:
        with pytest.raises(GraphError, match=r"random operations .*dropout/.*\(RandomUniform\)"):
            _lift(build)
    else:
        np.testing.assert_allclose(_logits(_lift(build)), 2 * X @ VALUES["w"], atol=1e-6)


def test_embedding_lookup_in_a_variable() -> None:
    def build(t: _Tools) -> Any:
        rows = t.tf.cast(t.x[:, 0] > 0, t.tf.int32)
        table = t.variable("v", use_resource=True)
        return t.x @ t.sampled() + t.tf.nn.embedding_lookup(table, rows)

    expected = X @ VALUES["w"] + VALUES["v"][(X[:, 0] > 0).astype(int)]
    np.testing.assert_allclose(_logits(_lift(build)), expected, atol=1e-6)


def test_input_in_the_middle_of_the_graph() -> None:
    lifted = _lift(lambda t: t.tf.nn.relu(t.x, name="front") @ t.sampled(), input_op="front")
    np.testing.assert_allclose(_logits(lifted), X @ VALUES["w"], atol=1e-6)


def test_one_draw_in_two_places_is_one() -> None:
    def build(t: _Tools) -> Any:
        w, noise = t.variable("w"), t.variable("rho") * t.normal()
        return t.x @ (w + noise) + 2.0 * t.tf.nn.relu(t.x) @ (w + noise)

    lifted = _lift(build)
    assert lifted.posterior.names == ("w",)
    expected = (X + 2 * np.maximum(X, 0)) @ VALUES["w"]
    np.testing.assert_allclose(_logits(lifted), expected, atol=1e-6)


def _not_a_posterior(t: _Tools) -> Any:
    return t.x @ t.variable("w")


def _no_scale(t: _Tools) -> Any:
    return t.x @ (t.variable("w") + 0.1 * t.normal())


def _dropout(t: _Tools) -> Any:
    return t.tf.nn.dropout(t.x @ t.sampled(), 0.5)


def _truncated(t: _Tools) -> Any:
    return t.x @ (t.variable("w") + t.variable("rho") * t.tf.random.truncated_normal((4, 3)))


def _noisy_activations(t: _Tools) -> Any:
    hidden = t.x @ t.variable("w")
    noise = t.tf.random.normal(t.tf.shape(hidden), name="noise")
    return t.tf.nn.relu(hidden + t.variable("b") * noise)


def _constant_noise_on_activations(t: _Tools) -> Any:
    hidden = t.x @ t.variable("w")
    return t.tf.nn.relu(hidden + 0.1 * t.tf.random.normal(t.tf.shape(hidden), name="noise"))


def _shared_noise(t: _Tools) -> Any:
    return t.x @ (t.variable("w") + t.variable("rho") * t.normal(1, 3))


def _two_scales(t: _Tools) -> Any:
    w = t.variable("w")
    one = w + t.variable("rho") * t.normal()
    return t.x @ one + t.x @ (w + t.variable("rho2") * t.normal())


def _several_samples(t: _Tools) -> Any:
    samples = t.variable("w") + t.variable("rho") * t.normal(50, 4, 3)
    return t.x @ t.tf.reduce_mean(samples, axis=0)


def _several_samples_of_tfp(t: _Tools) -> Any:
    import tensorflow_probability as tfp

    posterior = tfp.distributions.Normal(t.variable("w"), t.tf.exp(t.variable("rho")))
    return t.tf.reduce_mean(t.x @ posterior.sample(50, name="noise"), axis=0)


def _correlated(t: _Tools) -> Any:
    noise = t.normal()
    one = t.variable("w") + t.variable("rho") * noise
    return t.x @ one + t.x @ (t.variable("v") + t.variable("rho2") * noise)


def _log_normal(t: _Tools) -> Any:
    return t.x @ (t.variable("w") + t.variable("rho") * t.tf.exp(t.normal()))


def _cubed_noise(t: _Tools) -> Any:
    return t.x @ (t.variable("w") + t.variable("rho") * t.normal() ** 3)


def _multiplied(t: _Tools) -> Any:
    return t.x @ (t.variable("w") * t.normal())


def _flipped(t: _Tools, data: Any = None, after: Callable[[Any], Any] = lambda noise: noise) -> Any:
    """Flipout by hand: what multiplies the noise, and what happens to it behind."""
    w, sign = t.variable("w"), t.tf.sign(t.tf.random.uniform(t.tf.shape(t.x), -1, 1))
    data = sign * t.x if data is None else data
    return t.x @ w + after(data @ (t.variable("rho") * t.normal()))


def _random_scale(t: _Tools) -> Any:
    scale = t.variable("rho") * t.tf.random.uniform((4, 3))
    return t.x @ (t.variable("w") + scale * t.normal())


def _python(t: _Tools) -> Any:
    hidden = t.x @ t.sampled()
    return t.tf.compat.v1.py_func(lambda a: a, [hidden], t.tf.float32, name="code")


def _stateless_python(t: _Tools) -> Any:
    hidden = t.x @ t.sampled()
    return t.tf.compat.v1.py_func(lambda a: a, [hidden], t.tf.float32, False, name="code")


def _file(t: _Tools) -> Any:
    content = t.tf.io.decode_raw(t.tf.io.read_file("weights.bin", name="disk"), t.tf.float32)
    return t.x @ t.sampled() + content


def _printing(t: _Tools) -> Any:
    return t.tf.compat.v1.Print(t.x @ t.sampled(), [t.x], name="shout")


def _second_placeholder(t: _Tools) -> Any:
    rate = t.tf.compat.v1.placeholder(t.tf.float32, (), name="rate")
    return t.x @ t.sampled() * rate


def _no_path(t: _Tools) -> Any:
    return t.tf.ones((2, 4)) @ t.sampled()


def _branch_on_data(t: _Tools) -> Any:
    switch = t.tf.raw_ops.Switch(data=t.x @ t.sampled(), pred=t.x[0, 0] > 0)
    merged = [t.tf.identity(switch.output_true) * 2.0, t.tf.identity(switch.output_false)]
    return t.tf.raw_ops.Merge(inputs=merged).output


def _branch_of_tensorflow_2(t: _Tools) -> Any:
    """On what examples seldom are: no few of them show it."""
    product, is_usual = t.x @ t.sampled(), t.tf.reduce_all(t.x < 1e6)
    return t.tf.cond(is_usual, lambda: product, lambda: 2.0 * product)


def _loop_with_noise(t: _Tools) -> Any:
    start = t.x @ t.sampled()

    def body(i: Any, h: Any) -> Any:
        return i + 1, h + t.tf.random.uniform(t.tf.shape(h))

    return t.tf.while_loop(lambda i, h: i < t.tf.shape(t.x)[0], body, (0, start))[1]


REFUSED = {
    "no posterior": (_not_a_posterior, "net.meta: no mean-field posterior: .*found nothing random"),
    "no scale": (_no_scale, "'noise/RandomStandardNormal', added at .*no scale that depends on a"),
    "dropout": (_dropout, r"not a posterior's noise: 'dropout/.*\(RandomUniform\); .*dropout off"),
    "truncated": (_truncated, r"no mean-field posterior: .*only '.*\(TruncatedNormal\)"),
    "activations": (_noisy_activations, "noise of activations"),
    "constant activations": (_constant_noise_on_activations, "noise of activations"),
    "shared noise": (_shared_noise, "noise '.*' is shared between weights; not mean-field"),
    "two scales": (_two_scales, "'w' is perturbed with two different scales"),
    "several samples": (_several_samples, "makes 50 samples of 'w' in one call; take one"),
    "several samples of TFP": (_several_samples_of_tfp, "makes 50 samples of 'w' in one call"),
    "correlated": (_correlated, "noise '.*' perturbs both 'w' and 'v'; not mean-field"),
    "log-normal": (_log_normal, "has a mean of its own"),
    "cubed": (_cubed_noise, "does not grow in proportion"),
    "multiplied": (_multiplied, "noise '.*' reaches the output without being added to a mean"),
    "tempered Flipout": (
        lambda t: _flipped(t, after=lambda noise: 0.5 * noise),
        r"added at .* by '.*' \(Mul\); its",
    ),
    "bent Flipout": (
        lambda t: _flipped(t, after=t.tf.tanh),
        r"more than turned in its sign .* \(Tanh\)",
    ),
    "Flipout of other data": (
        lambda t: _flipped(t, t.tf.nn.l2_normalize(t.x)),
        "by something else than the weights",
    ),
    "random scale": (_random_scale, "the scale of noise '.*' is random itself"),
    "python": (_python, r"run code, touch files or keep state: 'code' \(PyFunc\)"),
    "stateless python": (_stateless_python, r"'code' \(PyFuncStateless\)"),
    "file": (_file, r"'disk' \(ReadFile\)"),
    "print": (_printing, r"'shout' \(Print\)"),
    "placeholder": (_second_placeholder, r"placeholders besides the input: 'rate' \(Placeholder\)"),
    "no path": (
        _no_path,
        "no path from input 'x:0' to output 'logits:0'; pass others as --input_op",
    ),
    "branch": (_branch_on_data, "control flow that depends on data: .*Merge"),
    "branch of TensorFlow 2": (_branch_of_tensorflow_2, "control flow that depends on data: .*If"),
    "loop": (_loop_with_noise, r"random operations in loops or conditionals: .*\(RandomUniform\)"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_refusals(which: str) -> None:
    build, message = REFUSED[which]
    with pytest.raises(GraphError, match=message) as caught:
        _lift(build)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("net.meta: ")


@pytest.mark.parametrize("op", ["HorovodAllreduce", "OpOfAnotherYear"])
def test_unknown_operation_in_the_data_path(op: str) -> None:
    def change(graph_def: Any) -> None:
        next(node for node in graph_def.node if node.name == "reduced").op = op

    with pytest.raises(GraphError, match=rf"does not know or cannot run here: 'reduced' \({op}\)"):
        _lift(lambda t: t.tf.nn.relu(t.x @ t.sampled(), name="reduced"), change)


def test_cycle() -> None:
    def change(graph_def: Any) -> None:
        next(node for node in graph_def.node if node.name == "first").input[0] = "second"

    with pytest.raises(GraphError, match=r"net.meta: .* data flows in a cycle"):
        _lift(lambda t: t.tf.abs(t.tf.abs(t.x @ t.sampled(), name="first"), name="second"), change)


def test_input_that_the_graph_lacks() -> None:
    def change(graph_def: Any) -> None:
        next(node for node in graph_def.node if node.name == "logits").input[0] = "gone"

    for name in ("x:one", "x:"):
        with pytest.raises(GraphError, match=r"^net.meta: "):
            _lift(lambda t: t.x @ t.sampled(), logits_op=f"no{name}")
    with pytest.raises(GraphError, match=r"'logits' takes data from 'gone', which the graph lacks"):
        _lift(lambda t: t.x @ t.sampled(), change)


def test_functions_that_cannot_be_inlined() -> None:
    def build(t: _Tools) -> Any:
        return t.tf.function(lambda x: x * 2.0)(t.x) @ t.sampled()

    def lose(graph_def: Any) -> None:
        del graph_def.library.function[:]

    def recurse(graph_def: Any) -> None:
        call = next(node for node in graph_def.node if node.op == "PartitionedCall")
        body = graph_def.library.function[0].node_def
        inner = next(node for node in body if node.op == "Mul")
        del inner.input[1:]
        inner.op, inner.attr["f"].func.name = "PartitionedCall", call.attr["f"].func.name

    def overfill(graph_def: Any) -> None:
        call = next(node for node in graph_def.node if node.op == "PartitionedCall")
        call.input.append("x")

    def forget(graph_def: Any) -> None:
        call = next(node for node in graph_def.node if node.op == "PartitionedCall")
        del call.attr["f"]

    def branch(graph_def: Any) -> None:
        call = next(node for node in graph_def.node if node.op == "PartitionedCall")
        yes = graph_def.node.add(name="yes", op="Const")
        yes.attr["dtype"].type = yes.attr["value"].tensor.dtype = 10
        yes.attr["value"].tensor.bool_val.append(True)
        call.op, call.input[0] = "If", "yes"

    def starve(graph_def: Any) -> None:
        call = next(node for node in graph_def.node if node.op == "PartitionedCall")
        call.op = "If"
        del call.input[:]

    def rename(graph_def: Any) -> None:
        body = graph_def.library.function[0].node_def
        next(inner for inner in body if inner.op == "Mul").name = "gone"

    with pytest.raises(GraphError, match=r"net.meta: .* takes data from '.*', which it lacks"):
        _lift(build, rename)
    with pytest.raises(GraphError, match=r"net.meta: .* which the graph's library lacks"):
        _lift(build, lose)
    with pytest.raises(GraphError, match=r"net.meta: .* with 2 arguments instead of 1"):
        _lift(build, overfill)
    with pytest.raises(GraphError, match=r"net.meta: '.*' \(PartitionedCall\) lacks 'f'"):
        _lift(build, forget)
    with pytest.raises(GraphError, match=r"net.meta: '.*' \(If\) lacks 'then_branch'"):
        _lift(build, branch)
    with pytest.raises(GraphError, match=r"net.meta: '.*' \(If\) has no inputs"):
        _lift(build, starve)
    with pytest.raises(GraphError, match=r"net.meta: functions nested more than 50 deep"):
        _lift(build, recurse)


def _filled(t: _Tools, length: Any) -> Any:
    return t.tf.raw_ops.Fill(dims=t.tf.reshape(length, (1,)), value=1)


def _in_range(t: _Tools, length: Any) -> Any:
    return t.tf.raw_ops.Range(start=0, limit=length * 1, delta=1)


def _tiled(t: _Tools, length: Any) -> Any:
    return t.tf.raw_ops.Tile(input=[1], multiples=t.tf.reshape(length, (1,)))


def _of_others(t: _Tools, length: Any) -> Any:
    return t.tf.raw_ops.OnesLike(x=_filled(t, length)) * t.tf.constant([3])


@pytest.mark.parametrize("make", [_filled, _in_range, _tiled, _of_others])
def test_shapes_of_more_axes_than_any_tensor(make: Callable[[_Tools, Any], Any]) -> None:
    """Refused before TensorFlow makes a shape of them, which can take any memory."""

    def build(t: _Tools) -> Any:
        shape = make(t, t.tf.constant(3, name="length"))
        return t.x @ t.sampled() + t.tf.reduce_sum(t.tf.zeros(shape, name="more"))

    def change(graph_def: Any) -> None:
        length = next(node for node in graph_def.node if node.name == "length")
        length.attr["value"].tensor.int_val[0] = 2**24

    assert _lift(build).posterior.names == ("w",)
    with pytest.raises(GraphError, match=r"^net.meta: '.*' takes a shape of 16777216 axes from "):
        _lift(build, change)


@pytest.mark.parametrize("where", ["attribute", "constant", "function"])
def test_declared_shapes_of_more_axes_than_any_tensor(where: str) -> None:
    def build(t: _Tools) -> Any:
        total = t.tf.while_loop(
            lambda i: i < 3, lambda i: i + t.tf.constant(1, name="step"), [0], name="loop"
        )[0]
        return t.x @ t.sampled() + t.tf.cast(total, t.tf.float32)

    def change(graph_def: Any) -> None:
        if where == "attribute":
            shape = next(n for n in graph_def.node if n.name == "x").attr["shape"].shape
        elif where == "constant":
            constant = next(n for n in graph_def.node if n.op == "Const")
            shape = constant.attr["value"].tensor.tensor_shape
        else:
            bodies = (n for f in graph_def.library.function for n in f.node_def)
            shape = next(n for n in bodies if n.op == "Const").attr["value"].tensor.tensor_shape
        for _ in range(255):
            shape.dim.add(size=1)

    assert _lift(build).posterior.names == ("w",)
    with pytest.raises(
        GraphError, match=r"^net.meta: '.*' \(.*\) has a shape of 25[5-9] axes, and no"
    ):
        _lift(build, change)


def test_assignment_between_input_and_output() -> None:
    def build(t: _Tools) -> Any:
        b = t.variable("b", use_resource=True)
        moved = t.tf.raw_ops.VariableShape(input=b.handle)
        return t.x @ t.sampled() + t.tf.cast(moved, t.tf.float32)

    with pytest.raises(GraphError, match="takes the variable 'b' other than by reading it"):
        _lift(build)


# Finding the input and the logits.


def _classified(t: _Tools) -> Any:
    logits = t.tf.nn.bias_add(t.x @ t.sampled(), t.variable("b"), name="scores")
    labels = t.tf.compat.v1.placeholder(t.tf.int32, (None,), name="labels")
    ones = t.tf.ones_like(labels[:, None], t.tf.float32)
    t.tf.nn.sparse_softmax_cross_entropy_with_logits(labels, t.tf.multiply(logits, ones))
    return logits


def test_input_and_logits_are_found() -> None:
    graph = _lift(_classified, input_op=None, logits_op=None).graph
    assert (graph.input_tensor, graph.output_tensor) == ("x:0", "scores:0")


def test_softmax_inside_the_network_is_not_the_output() -> None:
    def build(t: _Tools) -> Any:
        attended = t.x * t.tf.nn.softmax(t.x)
        return t.tf.nn.softmax(t.tf.matmul(attended, t.sampled(), name="scores"))

    assert _lift(build, input_op=None, logits_op=None).graph.output_tensor == "scores:0"


def test_logits_flattened_for_the_loss() -> None:
    def build(t: _Tools) -> Any:
        logits = t.tf.matmul(t.x, t.sampled(), name="scores")
        t.tf.nn.softmax(t.tf.reshape(logits, (-1, 3)))
        return t.tf.nn.softmax(logits)

    assert _lift(build, input_op=None, logits_op=None).graph.output_tensor == "scores:0"


def test_several_logits_are_listed() -> None:
    def build(t: _Tools) -> Any:
        t.tf.nn.softmax(t.tf.matmul(t.x, t.sampled(), name="one"))
        return t.tf.nn.softmax(t.tf.matmul(t.x, t.variable("v"), name="two"))

    with pytest.raises(GraphError, match="could be the logits: one, two; pass one as --logits_op"):
        _lift(build, logits_op=None)
    assert _lift(build, logits_op="one").graph.output_tensor == "one:0"


def test_several_inputs_are_listed() -> None:
    def build(t: _Tools) -> Any:
        return (t.x + t.tf.compat.v1.placeholder(t.tf.float32, (), name="more")) @ t.sampled()

    with pytest.raises(GraphError, match=r"be the input: .*more.*; pass one as --input_op"):
        _lift(build, input_op=None)


def test_no_softmax() -> None:
    with pytest.raises(GraphError, match=r"no softmax .*; pass --logits_op=NAME, or --loc"):
        _lift(lambda t: t.x @ t.sampled(), logits_op=None)


def test_no_placeholder_names_what_could_be_fed() -> None:
    def build(t: _Tools) -> Any:
        default = t.tf.zeros((2, 4))
        images = t.tf.compat.v1.placeholder_with_default(default, (None, 4), name="images")
        return images @ t.sampled()

    with pytest.raises(GraphError, match=r"'images' \(PlaceholderWithDefault\); pass --input_op"):
        _lift(build, input_op=None)
    np.testing.assert_allclose(_logits(_lift(build, input_op="images")), X @ VALUES["w"], atol=1e-6)


def test_misspelt_operation_gets_close_names() -> None:
    with pytest.raises(GraphError, match=r"no operation 'logit'; close: 'logits'.*--logits_op"):
        _lift(lambda t: t.x @ t.sampled(), logits_op="logit")
