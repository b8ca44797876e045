"""A small zoo of Bayesian networks: builders into the current TF1 graph, and Keras models.

What belongs here: a network as a training run needs it (logits, divergence, posterior, moving
statistics), and as ``--model bprune_hpc.models:digits_resnet18`` takes it: uncompiled models
without arguments, from images in [0, 1] to logits of ten classes. What does not: layers
(``models.layers``), data, the loss as a whole, training. The KL divergence of each Flipout layer is
divided by the number of examples in the *whole* training set (never a rank's share).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError
from ..tensorflow_import import import_tensorflow
from . import layers as models_layers
from .layers import UNTRANSFORMED_SCALE, Flipout, drawn_scale, keras, mask_of, variable_of

MODELS = ("dense", "conv_flipout", "resnet18", "vgg", "vgg16")
_SEQUENCES = {"vgg": models_layers.vgg, "vgg16": models_layers.vgg16}


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
    loc_variables : dict of str to float32 variable
    drawn_scales : dict of str to float32 tensor
        The scales again, as the logits depend on them, before they are multiplied by the mask.
    masks : dict of str to float32 variable
        1 where a weight stays, 0 where it is pruned; empty where nothing can be.
    layers : sequence
        All layers, in order.
    is_training : bool tensor or None
        To be fed True in a training step, which then uses the batch's statistics; False by
        default. None where no layer asks for it.
    updates : tuple of operation
        Move the statistics of batch normalization; to be run with each training step.
    """

    logits: Any
    kl: Any
    locs: dict[str, Any]
    scales: dict[str, Any]
    untransformed_scales: dict[str, Any]
    loc_variables: dict[str, Any]
    drawn_scales: dict[str, Any]
    layers: Sequence[Any]
    masks: dict[str, Any]
    is_training: Any = None
    updates: tuple[Any, ...] = ()


def build(
    name: str,
    inputs: Any,
    n_classes: int,
    n_train: int,
    *,
    example_shape: tuple[int, ...],
    hidden: Sequence[int] = (64, 32),
    width: int = 16,
    prior_scale: float = 1.0,
    posterior_scale_init: float = 0.05,
    is_masked: bool = False,
) -> Network:
    """Build a network of the zoo by its name into the current TF1 graph.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`; see the function of that name in ``models.layers``.
    inputs : float32 tensor, shape (n, n_values)
    n_classes, n_train : int
        Classes; examples in the whole training set.
    example_shape : tuple of int
        Shape of one example in the data set, from which a convolution takes its image.
    hidden : sequence of int
        Units of the hidden layers of ``dense``; empty for a linear classifier.
    width : int
        Filters in the first stage of ``resnet18``, ``vgg`` and ``vgg16``.
    prior_scale : float
        Standard deviation of the weights' Gaussian prior.
    posterior_scale_init : float
        Standard deviation of the posterior before training, about.
    is_masked : bool
        Whether weights can be pruned while it is trained.

    Raises
    ------
    ConfigError
        If no network has this name.
    DataError
        If a convolution is asked for and the examples are not images.
    """
    if name not in MODELS:
        raise ConfigError(f"no model is called '{name}'; choose {' or '.join(MODELS)}")
    is_deep = name == "resnet18" or name in _SEQUENCES
    flipout = Flipout(n_train, prior_scale, posterior_scale_init, is_deep, is_masked)
    if name == "dense":
        return _sequential(models_layers.dense(n_classes, flipout, hidden), inputs)
    reshape = keras().layers.Reshape(image_shape(example_shape))
    if name == "conv_flipout":
        return _sequential([reshape, *models_layers.conv_flipout(n_classes, flipout)], inputs)
    if name in _SEQUENCES:
        return _sequential([reshape, *_SEQUENCES[name](n_classes, flipout, width)], inputs)
    v1 = import_tensorflow().compat.v1
    is_training = v1.placeholder_with_default(False, (), name="is_training")
    with _quiet():
        images = reshape(inputs)
        logits, layers = models_layers.resnet18(images, n_classes, flipout, width, is_training)
    return _network(layers, logits, is_training)


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
    raise DataError(
        f"one example has shape {example_shape}, which is not an image; pass --model=dense"
    )


def _sequential(layers: Sequence[Any], inputs: Any) -> Network:
    model = keras().Sequential(layers)
    with _quiet():
        logits = model(inputs)
    return _network(layers, logits)


def _network(layers: Sequence[Any], logits: Any, is_training: Any = None) -> Network:
    tf = import_tensorflow()
    flipout = [layer for layer in layers if hasattr(layer, "kernel_posterior")]
    normals = {layer.name: layer.kernel_posterior.distribution for layer in flipout}
    losses = [loss for layer in layers for loss in layer.losses]
    return Network(
        logits=logits,
        kl=tf.add_n(losses, name="kl_divergence"),
        locs={name: tf.convert_to_tensor(normal.loc) for name, normal in normals.items()},
        scales={name: tf.convert_to_tensor(normal.scale) for name, normal in normals.items()},
        untransformed_scales={
            layer.name: variable_of(layer, f"{UNTRANSFORMED_SCALE}:0") for layer in flipout
        },
        loc_variables={
            layer.name: variable_of(layer, "kernel_posterior_loc:0") for layer in flipout
        },
        drawn_scales={layer.name: drawn_scale(layer) for layer in flipout},
        layers=layers,
        masks={layer.name: mask for layer in flipout if (mask := mask_of(layer)) is not None},
        is_training=is_training,
        updates=tuple(update for layer in layers for update in layer.updates),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without tf_keras's calls of TensorFlow by names that are deprecated."""
    tensorflow = logging.getLogger("tensorflow")
    level = tensorflow.level
    tensorflow.setLevel(logging.ERROR)
    try:
        yield
    finally:
        tensorflow.setLevel(level)


_DIGITS, _N_DIGITS = (8, 8, 1), 1438
_CIFAR10, _N_CIFAR10 = (32, 32, 3), 50_000
_N_CLASSES = 10
_DIGITS_WIDTH, _CIFAR10_WIDTH = 8, 64


def digits_dense() -> Any:
    """64-64-32-10, for the digits as vectors.

    Returns
    -------
    tf_keras.Model
    """
    return _model((64,), lambda x: _chain(models_layers.dense(
        _N_CLASSES, Flipout(_N_DIGITS), (64, 32)), x))  # fmt: skip


def digits_conv_flipout() -> Any:
    """The network of BPrune's authors, for 8 x 8 digits.

    Returns
    -------
    tf_keras.Model
    """
    return _model(_DIGITS, lambda x: _chain(models_layers.conv_flipout(
        _N_CLASSES, Flipout(_N_DIGITS)), x))  # fmt: skip


def digits_vgg() -> Any:
    """VGG-style, 8 filters in the first stage, for 8 x 8 digits.

    Returns
    -------
    tf_keras.Model
    """
    return _vgg(_DIGITS, _N_DIGITS, _DIGITS_WIDTH)


def digits_resnet18() -> Any:
    """ResNet-18 with 8 filters in the first stage, for 8 x 8 digits.

    Returns
    -------
    tf_keras.Model
    """
    return _resnet18(_DIGITS, _N_DIGITS, _DIGITS_WIDTH)


def cifar10_vgg() -> Any:
    """VGG-style, 64 filters in the first stage, for CIFAR-10.

    Returns
    -------
    tf_keras.Model
    """
    return _vgg(_CIFAR10, _N_CIFAR10, _CIFAR10_WIDTH)


def cifar10_resnet18() -> Any:
    """ResNet-18 with 64 filters in the first stage, for CIFAR-10.

    Returns
    -------
    tf_keras.Model
    """
    return _resnet18(_CIFAR10, _N_CIFAR10, _CIFAR10_WIDTH)


def _vgg(shape: tuple[int, ...], n_train: int, width: int) -> Any:
    flipout = Flipout(n_train, is_deep=True)
    return _model(shape, lambda x: _chain(models_layers.vgg(_N_CLASSES, flipout, width), x))


def _resnet18(shape: tuple[int, ...], n_train: int, width: int) -> Any:
    flipout = Flipout(n_train, is_deep=True)
    return _model(shape, lambda x: models_layers.resnet18(x, _N_CLASSES, flipout, width)[0])


def _chain(layers: list[Any], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def _model(shape: tuple[int, ...], logits: Callable[[Any], Any]) -> Any:
    keras = models_layers.keras()
    inputs = keras.Input(shape, name="images")
    return keras.Model(inputs, logits(inputs))
