"""Small Bayesian Keras models that end in every way in which people let them end.

Each is a function, as a user's ``--model MODULE:FUNCTION`` names it. TensorFlow is imported inside
the functions: collecting tests loads none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

N_FEATURES = 4


def _layers() -> tuple[Any, Any, Any]:
    """Keras's layers, TFP's layers, TFP's distributions."""
    import tensorflow_probability as tfp
    import tf_keras

    return tf_keras.layers, tfp.layers, tfp.distributions


def _ended(n_outputs: int, *last: Any, activation: str | None = None) -> Any:
    import tf_keras

    layers, bayes, _ = _layers()
    hidden = bayes.DenseFlipout(8, activation="relu")
    head = bayes.DenseReparameterization(n_outputs, activation=activation)
    return tf_keras.Sequential([layers.Input((N_FEATURES,)), hidden, head, *last])


def _then(function: Callable[[Any], Any]) -> Any:
    return _layers()[0].Lambda(function)


def _distributed(make: Callable[[Any], Any]) -> Any:
    return _layers()[1].DistributionLambda(make)


def softmax() -> Any:
    return _ended(3, activation="softmax")


def softmax_clipped() -> Any:
    import tensorflow as tf

    clip = _then(lambda p: tf.clip_by_value(p, 1e-7, 1 - 1e-7))
    return _ended(3, clip, activation="softmax")


def softmax_in_half_precision() -> Any:
    import tensorflow as tf

    cast = _then(lambda p: tf.cast(tf.cast(p, tf.float16), tf.float32))
    return _ended(3, cast, activation="softmax")


def softmax_shaped() -> Any:
    return _ended(3, _layers()[0].Reshape((1, 3)), activation="softmax")


def softmax_regrouped() -> Any:
    """Probabilities of pairs of classes, whose rows are not those of the softmax."""
    import tensorflow as tf

    pairs = _then(lambda p: tf.reduce_sum(tf.reshape(p, (-1, 3, 2)), axis=2))
    return _ended(6, pairs, activation="softmax")


def log_softmax() -> Any:
    return _ended(3, activation="log_softmax")


def logits() -> Any:
    return _ended(3)


def categorical_of_probabilities() -> Any:
    """A softmax, and of its probabilities, as of logits, another one: a slip, but what it gives."""
    categorical = _distributed(lambda p: _layers()[2].Categorical(logits=p))
    return _ended(3, categorical, activation="softmax")


def sigmoid() -> Any:
    return _ended(1, activation="sigmoid")


def sigmoid_clipped() -> Any:
    import tensorflow as tf

    clip = _then(lambda p: tf.clip_by_value(p, 1e-6, 1 - 1e-6))
    return _ended(1, clip, activation="sigmoid")


def sigmoid_without_axis() -> Any:
    return _ended(1, _then(lambda p: p[:, 0]), activation="sigmoid")


def sigmoid_shaped() -> Any:
    return _ended(1, _layers()[0].Reshape(()), activation="sigmoid")


def one_logit() -> Any:
    return _ended(1)


def bernoulli() -> Any:
    return _ended(1, _distributed(lambda t: _layers()[2].Bernoulli(logits=t)))


def bernoulli_of_a_probability() -> Any:
    probable = _distributed(lambda p: _layers()[2].Bernoulli(probs=p))
    return _ended(1, probable, activation="sigmoid")


def independent_bernoulli() -> Any:
    return _ended(1, _layers()[1].IndependentBernoulli(1))


def two_sided() -> Any:
    """A sigmoid and what it leaves: two probabilities."""
    import tensorflow as tf

    return _ended(1, _then(lambda p: tf.concat([1 - p, p], axis=1)), activation="sigmoid")


def several_sigmoids() -> Any:
    return _ended(3, activation="sigmoid")


def several_bernoullis() -> Any:
    return _ended(3, _layers()[1].IndependentBernoulli(3))


def sequence() -> Any:
    return _ended(6, _layers()[0].Reshape((2, 3)))


def log_normal() -> Any:
    return _ended(1, _distributed(lambda t: _layers()[2].LogNormal(t, 1.0)))


def correlated_normal() -> Any:
    tril = _layers()[1].MultivariateNormalTriL
    return _ended(tril.params_size(2), tril(2))


def independent_normal() -> Any:
    return _ended(4, _layers()[1].IndependentNormal(2))


def diagonal_normal() -> Any:
    import tensorflow as tf

    def make(t: Any) -> Any:
        return _layers()[2].MultivariateNormalDiag(t[:, :2], 0.3 + tf.nn.softplus(t[:, 2:]))

    return _ended(4, _distributed(make))


def means_and_scales() -> Any:
    """Two means, and as many standard deviations behind them."""
    import tensorflow as tf

    def positive(t: Any) -> Any:
        return tf.concat([t[:, :2], 0.3 + tf.nn.softplus(t[:, 2:])], axis=1)

    return _ended(4, _then(positive))


def two_means() -> Any:
    return _ended(2)


def normals(name: str, output: Any) -> Any:
    """Mean and standard deviation that one call gives of two targets, as one tensor (n, 4)."""
    import tensorflow as tf

    if name == "two_means":
        return tf.concat([output, 0.6 * tf.ones_like(output)], axis=1)
    if name == "means_and_scales":
        return output
    return tf.concat([output.mean(), output.stddev()], axis=1)


_SOFTMAX_OF = ("logits", "log_softmax")
_BINARY_LOGITS = ("one_logit",)


def tensor_of(name: str, output: Any) -> Any:
    """What a model gives, where that is a distribution the probabilities in it."""
    if name == "categorical_of_probabilities":
        return output.probs_parameter()
    return output.mean() if "bernoulli" in name else output


def class_probabilities(name: str, output: Any) -> np.ndarray:
    """What one call of a model says of the classes, shape (n_examples, n_classes)."""
    found = np.float64(output).reshape(len(output), -1)
    if name in _SOFTMAX_OF:
        found = np.exp(found - found.max(axis=1, keepdims=True))
    if name in _BINARY_LOGITS:
        found = 1 / (1 + np.exp(-found))
    if found.shape[1] == 1:
        found = np.concatenate([1 - found, found], axis=1)
    return found / found.sum(axis=1, keepdims=True)


def randomise(model: Any, generator: np.random.Generator) -> None:
    """Weights far enough from their start that a mistake shows."""
    for variable in model.variables:
        is_scale = "scale" in variable.name
        centre, spread = (-2.0, 0.3) if is_scale else (0.0, 0.8)
        variable.assign(generator.normal(centre, spread, variable.shape))
