"""Bayesian networks to train, and as Keras models: ``--model bprune_hpc.models:digits_resnet18``.

May import: ``tensorflow_import``, ``errors``. Begin with ``zoo``.
"""

from .zoo import (
    MODELS,
    Network,
    build,
    cifar10_resnet18,
    cifar10_vgg,
    digits_conv_flipout,
    digits_dense,
    digits_resnet18,
    digits_vgg,
    image_shape,
)

__all__ = [
    "MODELS",
    "Network",
    "build",
    "cifar10_resnet18",
    "cifar10_vgg",
    "digits_conv_flipout",
    "digits_dense",
    "digits_resnet18",
    "digits_vgg",
    "image_shape",
]
