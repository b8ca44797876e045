"""Small Bayesian Keras models, one a function, as a user's ``--model MODULE:FUNCTION`` names them.

TensorFlow is imported inside the functions: collecting tests loads none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _layers() -> tuple[Any, Any, Any]:
    """Keras, its layers, TFP's layers."""
    import tensorflow_probability as tfp
    import tf_keras

    return tf_keras, tf_keras.layers, tfp.layers


def _scaled_by(transform: Callable[[Any], Any]) -> Callable[..., Any]:
    """A mean-field posterior whose scale is ``transform`` of its variable."""
    import tensorflow_probability as tfp

    tfd = tfp.distributions

    def make(dtype: Any, shape: Any, name: str, trainable: bool, add_variable_fn: Any) -> Any:
        loc = add_variable_fn(f"{name}_loc", shape, dtype=dtype, trainable=trainable)
        raw = add_variable_fn(f"{name}_raw_scale", shape, dtype=dtype, trainable=trainable)
        scale = tfp.util.DeferredTensor(raw, transform)
        return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=len(shape))

    return make


def _sequential(shape: tuple[int, ...], *layers: Any) -> Any:
    keras, of_keras, _ = _layers()
    return keras.Sequential([of_keras.Input(shape), *layers])


def _dense(kind: str) -> Any:
    _, _, tfp_layers = _layers()
    make, normal = getattr(tfp_layers, kind), tfp_layers.default_mean_field_normal_fn
    return _sequential(
        (4,), make(5, activation="relu", bias_posterior_fn=normal(), name="first"), make(3)
    )


def dense_flipout() -> Any:
    return _dense("DenseFlipout")


def dense_reparameterization() -> Any:
    return _dense("DenseReparameterization")


def dense_local_reparameterization() -> Any:
    return _dense("DenseLocalReparameterization")


def _conv(kind: str, shape: tuple[int, ...]) -> Any:
    _, of_keras, tfp_layers = _layers()
    make, normal = getattr(tfp_layers, kind), tfp_layers.default_mean_field_normal_fn
    conv = make(3, 2, padding="same", activation="elu", bias_posterior_fn=normal())
    rank = len(shape) - 1
    pool = getattr(of_keras, f"MaxPooling{rank}D")(2)
    return _sequential(shape, conv, pool, of_keras.Flatten(), of_keras.Dense(3))


def conv1d_flipout() -> Any:
    return _conv("Convolution1DFlipout", (6, 2))


def conv2d_flipout() -> Any:
    return _conv("Convolution2DFlipout", (4, 4, 2))


def conv3d_flipout() -> Any:
    return _conv("Convolution3DFlipout", (4, 2, 2, 1))


def conv1d_reparameterization() -> Any:
    return _conv("Convolution1DReparameterization", (6, 2))


def conv2d_reparameterization() -> Any:
    return _conv("Convolution2DReparameterization", (4, 4, 2))


def conv3d_reparameterization() -> Any:
    return _conv("Convolution3DReparameterization", (4, 2, 2, 1))


def dense_variational() -> Any:
    _, of_keras, _ = _layers()
    return _sequential((4,), variational(5, activation="relu", name="first"), of_keras.Dense(3))


def variational(width: int, **more: Any) -> Any:
    """TFP's DenseVariational, with the posterior of its tutorial."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    keras, _, tfp_layers = _layers()
    tfd = tfp.distributions

    def normal(t: Any, n: int) -> Any:
        return tfd.Independent(tfd.Normal(t[..., :n], 1e-5 + tf.nn.softplus(t[..., n:])), 1)

    def posterior(n_kernel: int, n_bias: int, dtype: Any = None) -> Any:
        n = n_kernel + n_bias
        variable = tfp_layers.VariableLayer(2 * n, dtype=dtype)
        return keras.Sequential([variable, tfp_layers.DistributionLambda(lambda t: normal(t, n))])

    def prior(n_kernel: int, n_bias: int, dtype: Any = None) -> Any:
        n = n_kernel + n_bias
        return lambda _: tfd.Independent(tfd.Normal(tf.zeros(n, dtype), 1.0), 1)

    return tfp_layers.DenseVariational(width, posterior, prior, **more)


def _parametrised(transform: Callable[[Any], Any]) -> Any:
    _, _, tfp_layers = _layers()
    made = _scaled_by(transform)
    first = tfp_layers.DenseFlipout(5, activation="tanh", kernel_posterior_fn=made)
    second = tfp_layers.DenseReparameterization(3, kernel_posterior_fn=made, bias_posterior_fn=made)
    return _sequential((4,), first, second)


def scale_is_exp() -> Any:
    import tensorflow as tf

    return _parametrised(tf.exp)


def scale_is_softplus_without_eps() -> Any:
    import tensorflow as tf

    return _parametrised(tf.nn.softplus)


def scale_is_plain() -> Any:
    import tensorflow as tf

    return _parametrised(tf.identity)


def scale_is_a_part_of_it() -> Any:
    return _parametrised(lambda variable: 0.05 * variable)


def residual() -> Any:
    """Deterministic layers of every common kind around Bayesian ones; names nested and repeated."""
    keras, of_keras, tfp_layers = _layers()
    images = of_keras.Input((4, 4, 2))
    hidden = of_keras.Conv2D(3, 3, padding="same", name="stem")(images)
    hidden = of_keras.BatchNormalization()(hidden)
    for number in range(2):
        block = keras.Sequential(
            [
                tfp_layers.Convolution2DFlipout(3, 3, padding="same"),
                of_keras.BatchNormalization(),
                of_keras.ReLU(),
            ],
            name=f"block_{number}",
        )
        hidden = of_keras.Add()([hidden, block(hidden)])
        hidden = of_keras.Dropout(0.4)(hidden)
    hidden = of_keras.AveragePooling2D()(hidden)
    hidden = of_keras.Reshape((12,))(hidden)
    hidden = of_keras.Dense(4, activation="sigmoid")(hidden)
    return keras.Model(images, tfp_layers.DenseFlipout(3)(hidden))


def shared() -> Any:
    """One draw of a kernel used twice, in a model class of the user's own."""
    import tensorflow as tf

    keras, of_keras, tfp_layers = _layers()

    class Twice(of_keras.Layer):
        def build(self, _: Any) -> None:
            make, name = tfp_layers.default_mean_field_normal_fn(), "kernel_posterior"
            self.kernel_posterior = make(tf.float32, (4, 4), name, True, self.add_weight)

        def call(self, inputs: Any) -> Any:
            kernel = self.kernel_posterior.sample()
            return tf.tanh(inputs @ kernel) @ kernel

    class Tied(keras.Model):
        input_shape = (4,)

        def __init__(self) -> None:
            super().__init__()
            self.layer = Twice()
            self.head = tfp_layers.DenseReparameterization(3)

        def call(self, inputs: Any) -> Any:
            return self.head(self.layer(inputs))

    return Tied()


def mean_of_calls() -> Any:
    """A model that averages passes inside, each with noise of its own."""
    import tensorflow as tf

    keras, of_keras, tfp_layers = _layers()
    layer, inputs = tfp_layers.DenseFlipout(3), of_keras.Input((4,))
    return keras.Model(inputs, tf.reduce_mean([layer(inputs) for _ in range(3)], axis=0))


def own_layer() -> Any:
    """A layer that makes a constant of its weight once that has its value."""
    keras, of_keras, _ = _layers()

    class Shifted(of_keras.Layer):
        def build(self, shape: Any) -> None:
            self.raw = self.add_weight(name="raw", shape=shape[-1:], trainable=False)
            self.finalize_state()

        def finalize_state(self) -> None:
            # Of an array without elements it would be 0, and nobody the wiser.
            self.shift = keras.backend.constant((self.raw.numpy() ** 2).sum())

        def call(self, inputs: Any) -> Any:
            return inputs - self.shift

    return Shifted(name="shifted")


def adapted() -> Any:
    """Normalization that was adapted: what its call uses is computed from its weights."""
    _, of_keras, tfp_layers = _layers()
    return _sequential(
        (4,), of_keras.Normalization(), tfp_layers.DenseFlipout(5), tfp_layers.DenseFlipout(3)
    )


def own_state() -> Any:
    """The same of a layer of the user's own."""
    _, _, tfp_layers = _layers()
    return _sequential((4,), own_layer(), tfp_layers.DenseFlipout(5), tfp_layers.DenseFlipout(3))


def half_precision() -> Any:
    """A layer in half precision, whose variables Keras wraps."""
    _, of_keras, tfp_layers = _layers()
    half = of_keras.Dense(6, dtype="mixed_float16")
    return _sequential(
        (4,), half, of_keras.Activation("tanh", dtype="float32"), tfp_layers.DenseFlipout(3)
    )


def adapted_inside() -> Any:
    """The same in a model in a model, and a layer of the user's own that does so."""
    keras, of_keras, tfp_layers = _layers()
    inner = keras.Sequential([of_keras.Normalization(), own_layer()], name="inner")
    images = of_keras.Input((4,))
    hidden = keras.Sequential([inner, tfp_layers.DenseReparameterization(5)], name="outer")(images)
    return keras.Model(images, tfp_layers.DenseFlipout(3)(hidden))


def categorical_of(logits: Any) -> Any:
    import tensorflow_probability as tfp

    return tfp.distributions.Categorical(logits=logits)


def categorical() -> Any:
    _, _, tfp_layers = _layers()
    last = tfp_layers.DistributionLambda(categorical_of)
    return _sequential((4,), tfp_layers.DenseFlipout(3), last)


def one_hot_categorical() -> Any:
    _, _, tfp_layers = _layers()
    return _sequential((4,), tfp_layers.DenseFlipout(3), tfp_layers.OneHotCategorical(3))


def normal() -> Any:
    _, _, tfp_layers = _layers()
    return _sequential((4,), tfp_layers.DenseFlipout(6), tfp_layers.IndependentNormal((3,)))


def normal_of_one() -> Any:
    """A regression whose noise depends on the example."""
    _, _, tfp_layers = _layers()
    return _sequential((4,), tfp_layers.DenseReparameterization(2), tfp_layers.IndependentNormal(1))


def mean_of_one() -> Any:
    """A regression that gives a mean alone."""
    _, _, tfp_layers = _layers()
    return _sequential((4,), tfp_layers.DenseFlipout(1))


def softmax() -> Any:
    """A classifier that ends in its probabilities."""
    _, _, tfp_layers = _layers()
    return _sequential((4,), tfp_layers.DenseReparameterization(3, activation="softmax"))


def normal_prior(loc: float, scale: float) -> Callable[..., Any]:
    """A fixed prior for TFP's layers."""

    # A SavedModel takes copies of what these functions close over: numbers alone.
    def make(dtype: Any, shape: Any, *_: Any) -> Any:
        import tensorflow as tf
        import tensorflow_probability as tfp

        normal = tfp.distributions.Normal(tf.fill(shape, tf.constant(loc, dtype)), scale)
        return tfp.distributions.Independent(normal, reinterpreted_batch_ndims=len(shape))

    return make


def _thousandth(q: Any, p: Any, _: Any) -> Any:
    import tensorflow_probability as tfp

    return tfp.distributions.kl_divergence(q, p) / 1000


def known_priors() -> Any:
    """Kernels and biases whose priors differ; every divergence is in closed form."""
    _, _, tfp_layers = _layers()
    normal_fn = tfp_layers.default_mean_field_normal_fn
    first = tfp_layers.DenseFlipout(
        5,
        kernel_prior_fn=normal_prior(0.0, 0.3),
        kernel_divergence_fn=_thousandth,
        bias_posterior_fn=normal_fn(),
        bias_prior_fn=normal_prior(-0.25, 2.0),
        name="first",
    )
    last = tfp_layers.DenseReparameterization(
        3, kernel_prior_fn=normal_prior(1.5, 0.123456), name="last"
    )
    return _sequential((4,), first, last)


def unknown_priors() -> Any:
    """A bias without a prior, a prior that is trained, one that is no Normal."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    _, _, tfp_layers = _layers()
    normal_fn = tfp_layers.default_mean_field_normal_fn

    def laplace(dtype: Any, shape: Any, *_: Any) -> Any:
        zeros = tf.zeros(shape, dtype)
        return tfp.distributions.Independent(tfp.distributions.Laplace(zeros, 1.0), len(shape))

    def from_a_draw(q: Any, p: Any, weights: Any) -> Any:
        return q.log_prob(weights) - p.log_prob(weights)

    return _sequential(
        (4,),
        tfp_layers.DenseFlipout(5, bias_posterior_fn=normal_fn(), name="first"),
        tfp_layers.DenseFlipout(4, kernel_prior_fn=normal_fn(), name="trained"),
        tfp_layers.DenseReparameterization(
            3, kernel_prior_fn=laplace, kernel_divergence_fn=from_a_draw, name="laplace"
        ),
    )
