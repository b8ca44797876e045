"""A small zoo of Bayesian networks, as functions that build them into the current TF1 graph.

What belongs here: layers, their priors and posteriors, and the divergence between the two. What
does not: data, the loss as a whole, training. The KL divergence of each Flipout layer is divided
by the number of examples in the *whole* training set (never a rank's shard), so that it adds to a
mean negative log-likelihood per example.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError, DataError
from .tensorflow_import import import_tensorflow

THETA_FILTERS = 64
THETA_KERNEL = 5


@dataclass(frozen=True)
class Network:
    """A network in the graph.

    Attributes
    ----------
    logits : float32 tensor, shape (n, n_classes)
        Under one draw of the weights (with Flipout's signs, one pseudo-draw an example).
    kl : float32 tensor, shape ()
        Sum of the layers' KL divergences, nats per training example.
    locs, scales : dict of str to float32 tensor
        Posterior mean and standard deviation of each layer's kernel, by the layer's name.
    untransformed_scales : dict of str to float32 variable
        The variable under each scale, which is its softplus.
    """

    logits: Any
    kl: Any
    locs: dict[str, Any]
    scales: dict[str, Any]
    untransformed_scales: dict[str, Any]


def dense(
    inputs: Any,
    n_classes: int,
    n_train: int,
    *,
    hidden: Sequence[int] = (64, 32),
    prior_scale: float = 1.0,
    posterior_scale_init: float = 0.05,
) -> Network:
    """Fully connected Flipout layers with ReLU between them.

    Parameters
    ----------
    inputs : float32 tensor, shape (n, n_values)
    n_classes, n_train : int
        Classes; examples in the whole training set.
    hidden : sequence of int
        Units of the hidden layers; empty for a linear classifier.
    prior_scale : float
        Standard deviation of the weights' Gaussian prior.
    posterior_scale_init : float
        Standard deviation of the posterior before training, about.
    """
    tf_keras, tfp = _keras(), _probability()
    flipout = _flipout_arguments(n_train, prior_scale, posterior_scale_init)
    layers = [
        tfp.layers.DenseFlipout(width, activation=tf_keras.activations.relu, **flipout)
        for width in hidden
    ]
    layers.append(tfp.layers.DenseFlipout(n_classes, **flipout))
    return _network(layers, inputs)


def conv_flipout(
    inputs: Any,
    n_classes: int,
    n_train: int,
    *,
    image_shape: tuple[int, int, int],
    prior_scale: float = 1.0,
    posterior_scale_init: float = 0.05,
) -> Network:
    """One Flipout convolution and a deterministic head: the network BPrune's authors ran on Theta.

    64 filters 5 x 5 (SAME, ReLU), 2 x 2 max-pool (SAME), flatten, Dense to the classes.

    Parameters
    ----------
    inputs : float32 tensor, shape (n, height * width * channels)
    n_classes, n_train, prior_scale, posterior_scale_init
        See :func:`dense`.
    image_shape : tuple of int
        (height, width, channels).
    """
    tf_keras, tfp = _keras(), _probability()
    layers = [
        tf_keras.layers.Reshape(image_shape),
        tfp.layers.Convolution2DFlipout(
            THETA_FILTERS,
            kernel_size=THETA_KERNEL,
            padding="SAME",
            activation=tf_keras.activations.relu,
            **_flipout_arguments(n_train, prior_scale, posterior_scale_init),
        ),
        tf_keras.layers.MaxPooling2D(pool_size=2, strides=2, padding="SAME"),
        tf_keras.layers.Flatten(),
        tf_keras.layers.Dense(
            n_classes,
            kernel_initializer=import_tensorflow().compat.v1.initializers.glorot_uniform(),
        ),
    ]
    return _network(layers, inputs)


def build(
    name: str,
    inputs: Any,
    n_classes: int,
    n_train: int,
    *,
    example_shape: tuple[int, ...],
    hidden: Sequence[int],
    prior_scale: float,
    posterior_scale_init: float,
) -> Network:
    """Build a network of the zoo by its name; see :func:`dense` and :func:`conv_flipout`.

    Parameters
    ----------
    example_shape : tuple of int
        Shape of one example in the data set, from which a convolution takes its image.

    Raises
    ------
    ConfigError
        If no network has this name.
    DataError
        If a convolution is asked for and the examples are not images.
    """
    scales = {"prior_scale": prior_scale, "posterior_scale_init": posterior_scale_init}
    if name == "dense":
        return dense(inputs, n_classes, n_train, hidden=hidden, **scales)
    if name == "conv_flipout":
        shape = image_shape(example_shape)
        return conv_flipout(inputs, n_classes, n_train, image_shape=shape, **scales)
    raise ConfigError(f"no model is called '{name}'; choose dense or conv_flipout")


def image_shape(example_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of one example: a vector of square length is a grey image.

    Raises
    ------
    DataError
        If the shape is no image's.
    """
    if len(example_shape) == 3:
        height, width, channels = example_shape
        return height, width, channels
    if len(example_shape) == 2:
        height, width = example_shape
        return height, width, 1
    if len(example_shape) == 1 and math.isqrt(example_shape[0]) ** 2 == example_shape[0]:
        side = math.isqrt(example_shape[0])
        return side, side, 1
    raise DataError(f"one example has shape {example_shape}, which is no image; pass --model=dense")


def _network(layers: Sequence[Any], inputs: Any) -> Network:
    tf = import_tensorflow()
    model = _keras().Sequential(layers)
    with warnings.catch_warnings():
        # TFP's layers call Keras by names that Keras calls deprecated.
        warnings.filterwarnings("ignore", message=".*add_variable.* is deprecated")
        logits = model(inputs)
    flipout = [layer for layer in layers if hasattr(layer, "kernel_posterior")]
    normals = {layer.name: layer.kernel_posterior.distribution for layer in flipout}
    return Network(
        logits=logits,
        kl=tf.add_n(model.losses, name="kl_divergence"),
        locs={name: tf.convert_to_tensor(normal.loc) for name, normal in normals.items()},
        scales={name: tf.convert_to_tensor(normal.scale) for name, normal in normals.items()},
        untransformed_scales={
            layer.name: variable
            for layer in flipout
            for variable in layer.trainable_variables
            if variable.name.endswith("kernel_posterior_untransformed_scale:0")
        },
    )


def _flipout_arguments(
    n_train: int, prior_scale: float, posterior_scale_init: float
) -> dict[str, Any]:
    tf, tfp = import_tensorflow(), _probability()
    softplus_inverse = math.log(math.expm1(posterior_scale_init))

    def prior(dtype: Any, shape: Sequence[int], *_: Any) -> Any:
        normal = tfp.distributions.Normal(tf.zeros(shape, dtype), tf.cast(prior_scale, dtype))
        return tfp.distributions.Independent(normal, reinterpreted_batch_ndims=len(shape))

    def kl_per_example(posterior: Any, prior: Any, _: Any) -> Any:
        return tfp.distributions.kl_divergence(posterior, prior) / n_train

    # TF1 initializers follow the graph's seed; Keras's own draw one from Python's global state.
    normal: Callable[..., Any] = tf.compat.v1.initializers.random_normal
    mean_field = tfp.layers.default_mean_field_normal_fn
    return {
        "kernel_prior_fn": prior,
        "kernel_posterior_fn": mean_field(
            loc_initializer=normal(stddev=0.1),
            untransformed_scale_initializer=normal(mean=softplus_inverse, stddev=0.1),
        ),
        "bias_posterior_fn": mean_field(is_singular=True, loc_initializer=normal(stddev=0.1)),
        "kernel_divergence_fn": kl_per_example,
    }


def _keras() -> Any:
    import_tensorflow()
    import tf_keras

    return tf_keras


def _probability() -> Any:
    import_tensorflow()
    import tensorflow_probability

    return tensorflow_probability
