"""Small Bayesian Keras models that differ in what they take, one a function.

As a user's ``--model MODULE:FUNCTION`` names them; TensorFlow is imported inside the functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MEANS_OF_BYTES, TIMES = [120.0, 110.0, 100.0], [1.6e9] * 4


def _sequential(shape: tuple[int, ...], *before: Any, dtype: str = "float32", **more: Any) -> Any:
    import tensorflow_probability as tfp
    import tf_keras

    layers = tf_keras.layers
    taken = more.get("taken", dtype)
    dense = tfp.layers.DenseFlipout(3, dtype=dtype, name="last")
    return tf_keras.Sequential(
        [layers.Input(shape, dtype=taken), *before, layers.Flatten(dtype=dtype), dense]
    )


def _layers() -> Any:
    import tf_keras

    return tf_keras.layers


def plain() -> Any:
    return _sequential((6, 6, 3))


def convolution() -> Any:
    return _sequential((6, 6, 3), _layers().Conv2D(4, 3))


def one_channel() -> Any:
    return _sequential((6, 6, 1), _layers().Conv2D(4, 3))


def flat_rows() -> Any:
    return _sequential((108,), _layers().Reshape((6, 6, 3)), _layers().Conv2D(4, 3))


def rescaling() -> Any:
    return _sequential((6, 6, 3), _layers().Rescaling(1 / 255))


def rescaling_behind_padding() -> Any:
    layers = _layers()
    return _sequential((6, 6, 3), layers.ZeroPadding2D(1), layers.Rescaling(1 / 127.5, offset=-1))


def division() -> Any:
    return _sequential((6, 6, 3), _layers().Lambda(lambda x: x / 255.0))


def clipped_bytes() -> Any:
    import tensorflow as tf

    return _sequential(
        (6, 6, 3), _layers().Lambda(lambda x: tf.clip_by_value(x, 0.0, 255.0) / 255.0)
    )


def thresholded_bytes() -> Any:
    import tensorflow as tf

    return _sequential((6, 6, 3), _layers().Lambda(lambda x: tf.cast(x > 127, tf.float32)))


def clipped_scaled() -> Any:
    import tensorflow as tf

    return _sequential((6, 6, 3), _layers().Lambda(lambda x: tf.clip_by_value(x, 0.0, 1.0)))


def normalization_of_bytes() -> Any:
    return _sequential(
        (6, 6, 3), _layers().Normalization(mean=MEANS_OF_BYTES, variance=[3000.0] * 3)
    )


def preprocess_input() -> Any:
    """What Keras' VGG and ResNet do first: channels turned round, and means taken off."""
    import tf_keras

    of_images = tf_keras.applications.imagenet_utils.preprocess_input
    return _sequential((6, 6, 3), _layers().Lambda(lambda x: of_images(x, mode="caffe")))


def normalization_of_scaled() -> Any:
    return _sequential(
        (6, 6, 3), _layers().Normalization(mean=[0.5, 0.45, 0.4], variance=[0.05] * 3)
    )


def batch_normalization() -> Any:
    return _sequential((6, 6, 3), _layers().BatchNormalization())


def batch_normalization_of_rows() -> Any:
    return _sequential((12,), _layers().BatchNormalization())


def tokens() -> Any:
    return _sequential((7,), _layers().Embedding(30, 5), taken="int32")


def tokens_as_floats() -> Any:
    return _sequential((7,), _layers().Embedding(30, 5))


def float64() -> Any:
    normalization = _layers().Normalization(mean=TIMES, variance=[4.0] * 4, dtype="float64")
    return _sequential((4,), normalization, dtype="float64")


def two_inputs() -> Any:
    import tensorflow_probability as tfp
    import tf_keras

    left, right = (tf_keras.layers.Input((4,), name=name) for name in ("left", "right"))
    both = tf_keras.layers.Concatenate()([left, right])
    return tf_keras.Model([left, right], tfp.layers.DenseFlipout(3)(both))


def saved(name: str, place: Path, seed: int = 0, moving: float = 1.0) -> tuple[Any, list[str]]:
    """A model of this module with weights that differ, and the flags that name its file.

    Parameters
    ----------
    moving : float
        Size of the statistics of batch normalization.
    """
    model, rng = globals()[name](), np.random.default_rng(seed)
    for variable in model.variables:
        if not variable.dtype.is_floating or variable.name[:4] == "mean":
            continue
        if "moving" in variable.name:
            variable.assign(moving * rng.uniform(0.1, 1, variable.shape))
        elif "normalization" not in variable.name or "batch" in variable.name:
            size = 0.02 if "scale" in variable.name else 0.8
            centre = -2.0 if "scale" in variable.name else 0.0
            variable.assign(rng.normal(centre, size, variable.shape))
    weights = place / f"{name}.weights.h5"
    model.save_weights(str(weights))
    return model, [f"--model_dir={weights}", f"--model=tests.helpers.input_models:{name}"]
