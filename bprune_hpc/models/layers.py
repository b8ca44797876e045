"""The architectures of the zoo, as layers: the same ones for a TF1 graph and for a Keras model.

What belongs here: layers, their priors, posteriors and initial values, and how they are joined.
What does not: placeholders, training (``models``), models without arguments (``models.zoo``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..tensorflow_import import import_probability, import_tensorflow

THETA_FILTERS = 64
THETA_KERNEL = 5
_VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each stage
_RESNET_STAGES = 4
_RESNET_BLOCKS = 2
# On images below this, a part of each 3 x 3 filter would only ever meet padding.
_SMALLEST_IMAGE = 4
# Keras's 0.99 would take hundreds of steps to follow, longer than many a training here.
_NORM_MOMENTUM = 0.9
UNTRANSFORMED_SCALE = "kernel_posterior_untransformed_scale"
MASK = "kernel_posterior_mask"
_SMALLEST_SCALE = 2.0**-23  # as TFP's layers have it: the rounding error of float32


@dataclass(frozen=True)
class Flipout:
    """Makes Flipout layers with one prior, one initial posterior and one share of the KL.

    Attributes
    ----------
    n_train : int
        Examples in the whole training set, by which each layer's KL divergence is divided.
    prior_scale : float
        Standard deviation of the weights' Gaussian prior.
    posterior_scale_init : float
        Standard deviation of the posterior before training, about.
    is_deep : bool
        Whether means start with a variance of 2 over the number of inputs (K. He et al.,
        "Delving deep into rectifiers", ICCV 2015) instead of a standard deviation of 0.1.
    is_masked : bool
        Whether each weight has a number beside it, 1 or 0, that its standard deviation is
        multiplied by. One with a standard deviation of 0 costs no divergence.
    """

    n_train: int
    prior_scale: float = 1.0
    posterior_scale_init: float = 0.05
    is_deep: bool = False
    is_masked: bool = False

    def dense(self, units: int, **arguments: Any) -> Any:
        """A DenseFlipout layer."""
        layer = import_probability().layers.DenseFlipout
        return layer(units, **{**self._arguments(), **arguments})

    def conv(self, filters: int, size: int, **arguments: Any) -> Any:
        """A Convolution2DFlipout layer with SAME padding."""
        layer = import_probability().layers.Convolution2DFlipout
        return layer(
            filters, kernel_size=size, padding="SAME", **{**self._arguments(), **arguments}
        )

    def _arguments(self) -> dict[str, Any]:
        # A SavedModel takes copies of what these functions close over: numbers alone.
        prior_scale, n_train = self.prior_scale, self.n_train

        def prior(dtype: Any, shape: Sequence[int], *_: Any) -> Any:
            tf, tfd = import_tensorflow(), import_probability().distributions
            normal = tfd.Normal(tf.zeros(shape, dtype), tf.cast(prior_scale, dtype))
            return tfd.Independent(normal, reinterpreted_batch_ndims=len(shape))

        def kl_per_example(posterior: Any, prior: Any, _: Any) -> Any:
            return import_probability().distributions.kl_divergence(posterior, prior) / n_train

        def kl_of_kept(posterior: Any, prior: Any, _: Any) -> Any:
            tf, tfd = import_tensorflow(), import_probability().distributions
            normal, of_prior = posterior.distribution, prior.distribution
            is_kept = normal.scale > 0  # the prior has no divergence from itself
            kept = tfd.Normal(
                tf.where(is_kept, normal.loc, of_prior.loc),
                tf.where(is_kept, normal.scale, of_prior.scale),
            )
            whole = tfd.Independent(kept, posterior.reinterpreted_batch_ndims)
            return tfd.kl_divergence(whole, prior) / n_train

        # TF1 initializers follow the graph's seed; Keras's own draw one from Python's global state.
        initial = import_tensorflow().compat.v1.initializers
        softplus_inverse = math.log(math.expm1(self.posterior_scale_init))
        loc = initial.variance_scaling(2.0) if self.is_deep else initial.random_normal(stddev=0.1)
        mean_field = import_probability().layers.default_mean_field_normal_fn
        kernel = mean_field(
            loc_initializer=loc,
            untransformed_scale_initializer=initial.random_normal(
                mean=softplus_inverse, stddev=0.1
            ),
        )
        return {
            "kernel_prior_fn": prior,
            "kernel_posterior_fn": _masked(kernel) if self.is_masked else kernel,
            "bias_posterior_fn": mean_field(
                is_singular=True,
                loc_initializer=initial.zeros()
                if self.is_deep
                else initial.random_normal(stddev=0.1),
            ),
            "kernel_divergence_fn": kl_of_kept if self.is_masked else kl_per_example,
        }


def _masked(posterior_of: Callable[..., Any]) -> Callable[..., Any]:
    """A mean-field posterior with standard deviations times a variable of ones and zeros."""

    def make(dtype: Any, shape: Any, name: str, trainable: bool, add_variable_fn: Any) -> Any:
        tfd, initial = (
            import_probability().distributions,
            import_tensorflow().compat.v1.initializers,
        )
        posterior = posterior_of(dtype, shape, name, trainable, add_variable_fn)
        mask = add_variable_fn(
            name=f"{name}_mask", shape=shape, initializer=initial.ones(), dtype=dtype,
            trainable=False,
        )  # fmt: skip
        normal = posterior.distribution
        return tfd.Independent(
            tfd.Normal(normal.loc, mask * normal.scale),
            reinterpreted_batch_ndims=posterior.reinterpreted_batch_ndims,
        )

    return make


def dense(n_classes: int, flipout: Flipout, hidden: Sequence[int]) -> list[Any]:
    """Fully connected Flipout layers with ReLU between them."""
    relu = keras().activations.relu
    layers = [flipout.dense(width, activation=relu) for width in hidden]
    return [*layers, flipout.dense(n_classes)]


def conv_flipout(n_classes: int, flipout: Flipout) -> list[Any]:
    """One Flipout convolution and a deterministic head: the network BPrune's authors ran on Theta.

    64 filters 5 x 5 (SAME, ReLU), 2 x 2 max-pool (SAME), flatten, Dense to the classes.
    """
    layers = keras().layers
    return [
        flipout.conv(THETA_FILTERS, THETA_KERNEL, activation=keras().activations.relu),
        layers.MaxPooling2D(pool_size=2, strides=2, padding="SAME"),
        layers.Flatten(),
        layers.Dense(
            n_classes,
            kernel_initializer=import_tensorflow().compat.v1.initializers.glorot_uniform(),
        ),
    ]


def vgg(n_classes: int, flipout: Flipout, width: int) -> list[Any]:
    """A VGG-style net: three stages of conv, conv, pool; two dense layers; all of them Flipout.

    Filters are 3 x 3; there are ``width`` of them in the first stage and twice as many from stage
    to stage. The hidden dense layer has ``4 * width`` units.

    References
    ----------
    K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image
    recognition", ICLR 2015.
    """
    return _vgg(n_classes, flipout, [(2, width * 2**stage) for stage in range(3)], 4 * width)


def vgg16(n_classes: int, flipout: Flipout, width: int) -> list[Any]:
    """VGG-16's thirteen convolutions, and two dense layers; all of them Flipout.

    Filters are 3 x 3; there are ``width`` of them in the first stage (64 make the VGG-16 of the
    reference), and twice as many from stage to stage up to ``8 * width``. The hidden dense layer
    has ``8 * width`` units, as is usual for images of 32 x 32.

    References
    ----------
    K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image
    recognition", ICLR 2015.
    """
    stages = [
        (n_convolutions, width * min(2**stage, 8))
        for stage, n_convolutions in enumerate(_VGG16_CONVOLUTIONS)
    ]
    return _vgg(n_classes, flipout, stages, 8 * width)


def _vgg(
    n_classes: int, flipout: Flipout, stages: Sequence[tuple[int, int]], n_hidden: int
) -> list[Any]:
    """Stages of some convolutions with so many filters, each with a pooling; two dense layers."""
    layers, relu = keras().layers, keras().activations.relu
    made: list[Any] = []
    for stage, (n_convolutions, filters) in enumerate(stages, 1):
        for conv in range(1, n_convolutions + 1):
            name = f"stage{stage}_conv{conv}"
            made.append(flipout.conv(filters, 3, activation=relu, name=name))
        made.append(layers.MaxPooling2D(2, padding="SAME", name=f"stage{stage}_pool"))
    made.append(layers.Flatten(name="flatten"))
    made.append(flipout.dense(n_hidden, activation=relu, name="hidden"))
    return [*made, flipout.dense(n_classes, name="head")]


def resnet18(
    images: Any, n_classes: int, flipout: Flipout, width: int, is_training: Any = None
) -> tuple[Any, list[Any]]:
    """ResNet-18 for small images, with batch normalization; every product is a Flipout layer.

    A 3 x 3 stem without pooling, four stages of two basic blocks, mean over the image, one dense
    layer. ``width`` filters in the first stage, twice as many from stage to stage (64 make the
    ResNet-18 of the reference). From the second stage on height and width are halved, as long as
    they are above 4.

    Parameters
    ----------
    images : float32 tensor, shape (n, height, width, channels)
        Of a TF1 graph, or a Keras input.
    is_training : bool tensor, optional
        Whether batch statistics are used and the moving ones updated; without, Keras decides.

    Returns
    -------
    logits : float32 tensor, shape (n, n_classes)
    layers : list

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", CVPR 2016.
    """
    layers, made = keras().layers, []

    def apply(layer: Any, x: Any, **arguments: Any) -> Any:
        made.append(layer)
        return layer(x, **arguments)

    def conv_norm(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
        # The normalization's own offset makes a bias redundant.
        conv = flipout.conv(
            filters, size, strides=stride, bias_posterior_fn=None, name=f"{name}_conv"
        )
        norm = layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{name}_norm")
        return apply(norm, apply(conv, x), training=is_training)

    def relu(x: Any, name: str) -> Any:
        return apply(layers.ReLU(name=f"{name}_relu"), x)

    x = relu(conv_norm(images, width, 3, 1, "stem"), "stem")
    n_filters = width
    for stage in range(_RESNET_STAGES):
        for block in range(_RESNET_BLOCKS):
            name = f"stage{stage + 1}_block{block + 1}"
            is_first = stage > 0 and block == 0
            filters = width * 2**stage
            stride = 2 if is_first and min(x.shape[1:3]) > _SMALLEST_IMAGE else 1
            inner = relu(conv_norm(x, filters, 3, stride, f"{name}_1"), f"{name}_1")
            inner = conv_norm(inner, filters, 3, 1, f"{name}_2")
            if stride != 1 or filters != n_filters:
                x = conv_norm(x, filters, 1, stride, f"{name}_shortcut")
            x = relu(apply(layers.Add(name=f"{name}_add"), [inner, x]), f"{name}_2")
            n_filters = filters
    x = apply(layers.GlobalAveragePooling2D(name="mean"), x)
    return apply(flipout.dense(n_classes, name="head"), x), made


def local_dense(layers: Sequence[Any], inputs: Any) -> tuple[Any, dict[str, Any]]:
    """Units of fully connected layers drawn in place of their weights.

    Given its inputs a unit is a Gaussian; one is drawn for each example, which takes as many
    numbers as there are units, and not as there are weights.

    Parameters
    ----------
    layers : sequence
        What :func:`dense` has made, called once: their variables are used.
    inputs : float32 tensor, shape (n, n_values)

    Returns
    -------
    logits : float32 tensor, shape (n, n_classes)
    scales : dict of str to float32 tensor
        Standard deviations that are used, by the layer's name.

    References
    ----------
    D. P. Kingma et al., "Variational dropout and the local reparameterization trick", NIPS 2015.
    """
    tf, scales, units = import_tensorflow(), {}, inputs
    for layer in layers:
        loc, raw, bias = (
            variable_of(layer, f"{name}:0")
            for name in ("kernel_posterior_loc", UNTRANSFORMED_SCALE, "bias_posterior_loc")
        )
        scale = scales[layer.name] = scale_of(raw)
        mask = mask_of(layer)
        if mask is not None:
            scale = mask * scale
        mean = tf.nn.bias_add(tf.matmul(units, loc), bias)
        # The root has no derivative at 0, where all inputs of a unit are 0.
        variance = _SMALLEST_SCALE**2 + tf.matmul(tf.square(units), tf.square(scale))
        noise = tf.random.normal(tf.shape(mean))
        units = layer.activation(mean + tf.sqrt(variance) * noise)
    return units, scales


def scale_of(raw: Any) -> Any:
    """Standard deviations of the variables below them, as TFP's layers make them."""
    return _SMALLEST_SCALE + import_tensorflow().nn.softplus(raw)


def variable_of(layer: Any, ending: str) -> Any:
    """The variable of a layer whose name ends so."""
    (variable,) = (one for one in layer.trainable_variables if one.name.endswith(ending))
    return variable


def mask_of(layer: Any) -> Any | None:
    """The variable of a layer that says which weights stay; None where all do."""
    found = [one for one in layer.non_trainable_variables if one.name.endswith(f"{MASK}:0")]
    return found[0] if found else None


def drawn_scale(layer: Any) -> Any:
    """The standard deviations that a Flipout layer's draw is made of, before any mask."""
    (softplus,) = (
        op for op in ancestors(layer.kernel_posterior_affine_tensor) if op.type == "Softplus"
    )
    (plus_epsilon,) = softplus.outputs[0].consumers()
    return plus_epsilon.outputs[0]


def ancestors(output: Any) -> list[Any]:
    """Operations that a tensor depends on, in the order of the graph."""
    found, left = {output.op}, [output.op]
    while left:
        op = left.pop()
        new = {tensor.op for tensor in op.inputs} - found
        found |= new
        left += new
    return [op for op in output.graph.get_operations() if op in found]


def keras() -> Any:
    """The Keras that TFP's layers belong to."""
    import_tensorflow()
    import tf_keras

    return tf_keras
