"""The zoo as Keras models without arguments: ``--model bprune_hpc.models:digits_resnet18``.

What belongs here: a model's input, its size and the number of examples that its KL divergence is
divided by. What does not: layers (``models_layers``), TF1 graphs (``models``).

Each function gives an uncompiled model from images in [0, 1] to logits of ten classes, whose
``losses`` are the KL divergences in nats per training example. Their weights are new: load some.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from . import models_layers
from .models_layers import Flipout

_DIGITS, _N_DIGITS = (8, 8, 1), 1438
_CIFAR10, _N_CIFAR10 = (32, 32, 3), 50_000
_N_CLASSES = 10
_DIGITS_WIDTH, _CIFAR10_WIDTH = 8, 64


def digits_dense() -> Any:
    """64-64-32-10, for the digits as vectors."""
    return _model((64,), lambda x: _chain(models_layers.dense(
        _N_CLASSES, Flipout(_N_DIGITS), (64, 32)), x))  # fmt: skip


def digits_conv_flipout() -> Any:
    """The network of BPrune's authors, for 8 x 8 digits."""
    return _model(_DIGITS, lambda x: _chain(models_layers.conv_flipout(
        _N_CLASSES, Flipout(_N_DIGITS)), x))  # fmt: skip


def digits_vgg() -> Any:
    """VGG-style, 8 filters in the first stage, for 8 x 8 digits."""
    return _vgg(_DIGITS, _N_DIGITS, _DIGITS_WIDTH)


def digits_resnet18() -> Any:
    """ResNet-18 with 8 filters in the first stage, for 8 x 8 digits."""
    return _resnet18(_DIGITS, _N_DIGITS, _DIGITS_WIDTH)


def cifar10_vgg() -> Any:
    """VGG-style, 64 filters in the first stage, for CIFAR-10."""
    return _vgg(_CIFAR10, _N_CIFAR10, _CIFAR10_WIDTH)


def cifar10_resnet18() -> Any:
    """ResNet-18 with 64 filters in the first stage, for CIFAR-10."""
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
    with warnings.catch_warnings():
        # TFP's layers call Keras by names that Keras calls deprecated.
        warnings.filterwarnings("ignore", message=".*add_variable.* is deprecated")
        return keras.Model(inputs, logits(inputs))
