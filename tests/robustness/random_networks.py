"""Random networks, saved in every format, against their own stochastic calls.

    python -m tests.robustness.random_networks -n 300

A number decides a network: its input, fixed and Bayesian layers, head and format. What the library
predicts from what was saved has to be what many calls of the model itself average to, within Monte
Carlo error; it may not be refused either.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bprune_hpc
from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.errors import BpruneError
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models
from tests.helpers.stochastic_calls import own_outputs, worst_deviation

N_EXAMPLES, N_CALLS, N_DRAWS, N_CLASSES = 5, 150, 200, 3

INPUTS = ("vector", "image", "sequence", "tokens", "far from zero")
STEMS = ("none", "dense", "normalized", "adapted", "nested", "residual", "dropout", "own layer")
BAYESIAN = (
    "DenseFlipout", "DenseReparameterization", "DenseLocalReparameterization", "DenseVariational",
    "exp scale", "uncertain bias", "convolution",
)  # fmt: skip
HEADS = ("logits", "softmax", "Categorical", "OneHotCategorical", "IndependentNormal", "Normal",
         "mean")  # fmt: skip
# Keras makes its classes over for TensorFlow 1, and back when it builds the next model.
FORMATS = ("weights.h5", "h5", "keras", "tf_weights", "tf2_checkpoint", "saved_model", "memory",
           "tf1")  # fmt: skip
NOISE_SCALE = 0.5


@dataclass(frozen=True)
class Recipe:
    """What a random network is made of."""

    seed: int
    input: str
    stem: str
    bayesian: tuple[str, ...]
    head: str
    format: str

    def __str__(self) -> str:
        return (
            f"{self.seed}: {self.input}, {self.stem}, {' and '.join(self.bayesian)}, {self.head}, "
            f"{self.format}"
        )

    @property
    def is_regression(self) -> bool:
        """Whether the head is of one number."""
        return self.head in ("IndependentNormal", "Normal", "mean")


def recipe(seed: int) -> Recipe:
    """The network of a number."""
    rng = np.random.default_rng([17, seed])

    def pick(choices: tuple[str, ...]) -> str:
        return choices[rng.integers(len(choices))]

    kind, stem, head, format_ = pick(INPUTS), pick(STEMS), pick(HEADS), pick(FORMATS)
    bayesian = tuple(pick(BAYESIAN) for _ in range(rng.integers(1, 3)))
    if "DenseVariational" in bayesian and format_ == "keras":
        format_ = "h5"  # TFP's layer has no get_config
    if stem == "own layer" and format_ == "tf1":
        stem = "adapted"  # it reads its weight, which a graph of TensorFlow 1 cannot
    return Recipe(seed, kind, stem, bayesian, head, format_)


def examples(one: Recipe) -> np.ndarray:
    """Some examples for a network."""
    rng = np.random.default_rng([18, one.seed])
    shape: tuple[int, ...] = {"image": (6, 6, 2), "sequence": (5, 3), "tokens": (5,)}.get(
        one.input, (4,)
    )
    if one.input == "tokens":
        return rng.integers(0, 7, (N_EXAMPLES, *shape)).astype(np.int32)
    x = rng.normal(size=(N_EXAMPLES, *shape))
    return (50 + 5 * x if one.input == "far from zero" else x).astype(np.float32)


def build(one: Recipe) -> Any:
    """The model, with the values that it starts from."""
    import_tensorflow()
    import tf_keras

    layers = tf_keras.layers
    x = examples(one)
    inputs = layers.Input(x.shape[1:], dtype=x.dtype.name)
    hidden = inputs
    if one.input == "tokens":
        hidden = layers.Embedding(7, 4)(hidden)
    if one.input == "far from zero":
        hidden = layers.Normalization()(hidden)
    hidden = _stem(one.stem, hidden)
    for kind in one.bayesian:
        hidden = _bayesian(kind, hidden, 5)
        hidden = layers.Activation("tanh")(hidden)
    return tf_keras.Model(inputs, _head(one, _flat(hidden)))


def _stem(kind: str, hidden: Any) -> Any:
    import tf_keras

    layers = tf_keras.layers
    if kind == "dense":
        return layers.Dense(6, activation="elu")(hidden)
    if kind == "normalized":
        return layers.LayerNormalization()(layers.BatchNormalization()(hidden))
    if kind == "adapted":
        return layers.Normalization()(hidden)
    if kind == "nested":
        inner = tf_keras.Sequential([layers.Normalization(), layers.Dense(4)], name="inner")
        return tf_keras.Sequential([inner, layers.BatchNormalization()], name="outer")(hidden)
    if kind == "residual":
        return layers.Add()([hidden, layers.Dense(hidden.shape[-1], activation="relu")(hidden)])
    if kind == "dropout":
        return layers.GaussianNoise(0.3)(layers.Dropout(0.4)(hidden))
    return small_models.own_layer()(hidden) if kind == "own layer" else hidden


def _flat(hidden: Any) -> Any:
    import tf_keras

    return hidden if len(hidden.shape) == 2 else tf_keras.layers.Flatten()(hidden)


def _bayesian(kind: str, hidden: Any, width: int) -> Any:
    import tensorflow_probability as tfp

    of = tfp.layers
    if kind == "convolution" and len(hidden.shape) > 2:
        make = of.Convolution2DFlipout if len(hidden.shape) == 4 else of.Convolution1DFlipout
        return make(3, 2, padding="same")(hidden)
    if kind == "DenseReparameterization":
        # At several places, too: one draw serves them all in the network itself.
        return of.DenseReparameterization(width)(hidden)
    hidden = _flat(hidden)
    if kind == "DenseVariational":
        return small_models.variational(width)(hidden)
    if kind == "exp scale":
        return of.DenseReparameterization(width, kernel_posterior_fn=_exp_scale)(hidden)
    if kind == "uncertain bias":
        fn = of.default_mean_field_normal_fn()
        return of.DenseFlipout(width, bias_posterior_fn=fn)(hidden)
    return getattr(of, kind if kind.startswith("Dense") else "DenseFlipout")(width)(hidden)


# Keras copies what a layer's functions close over, which modules cannot be.


def _exp_scale(dtype: Any, shape: Any, name: str, trainable: bool, add_variable_fn: Any) -> Any:
    import tensorflow as tf
    import tensorflow_probability as tfp

    tfd = tfp.distributions
    loc = add_variable_fn(f"{name}_loc", shape, dtype=dtype, trainable=trainable)
    raw = add_variable_fn(f"{name}_raw_scale", shape, dtype=dtype, trainable=trainable)
    scale = tfp.util.DeferredTensor(raw, tf.exp)
    return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=len(shape))


def _normal_of(t: Any) -> Any:
    import tensorflow as tf
    import tensorflow_probability as tfp

    return tfp.distributions.Normal(t[..., :1], 1e-3 + tf.nn.softplus(0.5 * t[..., 1:]))


def _head(one: Recipe, hidden: Any) -> Any:
    import tensorflow_probability as tfp

    of = tfp.layers
    if one.head in ("logits", "softmax"):
        activation = None if one.head == "logits" else "softmax"
        return of.DenseReparameterization(N_CLASSES, activation=activation)(hidden)
    n_outputs = {"mean": 1, "IndependentNormal": 2, "Normal": 2}.get(one.head, N_CLASSES)
    outputs = of.DenseFlipout(n_outputs)(hidden)
    if one.head == "Categorical":
        return of.DistributionLambda(small_models.categorical_of)(outputs)
    if one.head == "OneHotCategorical":
        return of.OneHotCategorical(N_CLASSES)(outputs)
    if one.head == "IndependentNormal":
        return of.IndependentNormal(1)(outputs)
    if one.head == "Normal":
        return of.DistributionLambda(_normal_of)(outputs)
    return outputs


def randomise(model: Any, rng: np.random.Generator) -> None:
    """Values far enough from their start that every mistake shows."""
    for variable in model.variables:
        if variable.dtype.is_integer:
            continue
        size = 1.2 / np.sqrt(max(1, int(np.prod(variable.shape[:-1]))))
        value = rng.normal(0, max(0.2, size), variable.shape)
        if "scale" in variable.name and "posterior" in variable.name:
            value = rng.normal(-1.5, 0.3, variable.shape)
        if "variance" in variable.name:
            value = np.exp(rng.normal(0, 0.4, variable.shape))
        if variable.name.startswith(("normalization/", "outer/inner/normalization")):
            value = 3 * value
        variable.assign(value)
    for layer in model._flatten_layers():
        layer.finalize_state()


def parameters(one: Recipe, output: Any) -> Any:
    """What one call gives: probabilities; or mean and deviation, along a first axis."""
    tensorflow = import_tensorflow()
    if one.is_regression:
        has_noise = one.head != "mean"
        mean = output.mean() if has_noise else output
        deviation = output.stddev() if has_noise else NOISE_SCALE * tensorflow.ones_like(mean)
        return tensorflow.stack([mean, deviation])
    if hasattr(output, "tensor_distribution"):
        return tensorflow.nn.softmax(output.logits)
    return output if one.head == "softmax" else tensorflow.nn.softmax(output)


def saved(one: Recipe, model: Any, place: Path) -> tuple[Any, dict[str, Any]]:
    """What to load, and with which arguments."""
    tensorflow = import_tensorflow()
    more = {"noise_scale": NOISE_SCALE} if one.head == "mean" else {}
    with_model = {**more, "model": functools.partial(build, one)}
    if one.format in ("weights.h5", "h5", "keras"):
        path = place / f"net.{one.format}"
        (model.save if one.format == "keras" else model.save_weights)(str(path))
        return path, with_model
    if one.format == "tf_weights":
        model.save_weights(str(place / "net"), save_format="tf")
        return place, with_model
    if one.format == "tf2_checkpoint":
        tensorflow.train.Checkpoint(net=model).save(str(place / "ckpt"))
        return place, with_model
    if one.format == "saved_model":
        model.save(str(place / "net"), save_format="tf")
        return place / "net", more
    if one.format == "memory":
        return model, more
    return place, more | _save_tf1(one, [v.numpy() for v in model.variables], place)


def _save_tf1(one: Recipe, values: list[np.ndarray], place: Path) -> dict[str, str]:
    tensorflow = import_tensorflow()
    tf1, x = tensorflow.compat.v1, examples(one)
    with tensorflow.Graph().as_default(), tf1.Session() as session, keras_tracing.fresh_names():
        images = tf1.placeholder(x.dtype.name, (None, *x.shape[1:]), name="images")
        model = build(one)
        output = model(images, training=False)
        for variable, value in zip(model.variables, values, strict=True):
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        ends = {}
        if one.head in ("IndependentNormal", "Normal"):
            mean, deviation = output.mean(), output.stddev()
            ends = {"loc_op": mean.op.name, "scale_op": deviation.op.name}
        elif hasattr(output, "tensor_distribution"):
            output.log_prob(output.sample())
        elif one.head == "logits":
            tensorflow.nn.softmax(output)
        else:
            ends = {"logits_op": output.op.name}
        tf1.train.Saver().save(session, str(place / "model.ckpt"))
    return {**ends, "input_op": "images"}


def check(one: Recipe, place: Path) -> float:
    """Largest deviation in units of what is allowed; at most 1 if all is well."""
    tensorflow = import_tensorflow()
    tensorflow.keras.utils.set_random_seed(one.seed)
    x = examples(one)
    with keras_tracing.fresh_names():
        model = build(one)
    randomise(model, np.random.default_rng([19, one.seed]))
    run: Callable[[], Any] = tensorflow.function(
        lambda: parameters(one, model(x, training=False)), autograph=False
    )
    own = own_outputs(run, N_CALLS)
    assert own.std(axis=0).max() > 0.02, "too little noise to tell anything"
    source, arguments = saved(one, model, place)
    found = bprune_hpc.load(source, **arguments).predict(x, N_DRAWS, seed=one.seed)
    if not one.is_regression:
        return worst_deviation(found.mean_probability, N_DRAWS, own)
    variance = own[:, 1] ** 2
    return max(
        worst_deviation(found.predictive_mean, N_DRAWS, own[:, 0]),
        worst_deviation(found.aleatoric_variance, N_DRAWS, variance),
    )


def main() -> int:
    """Entry point; the exit status is 1 where a network is wrong or refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=300, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    for seed in range(arguments.first, arguments.first + arguments.n):
        one = recipe(seed)
        with tempfile.TemporaryDirectory() as place:
            try:
                deviation = check(one, Path(place))
                outcome = "right" if deviation <= 1 else "wrong"
                said = f"{deviation:.2f} of what is allowed"
            except BpruneError as error:
                outcome, said = "refused", str(error)
        outcomes[outcome] += 1
        if outcome != "right":
            print(f"{outcome}: {one}: {said}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    return int(outcomes["right"] < arguments.n)


if __name__ == "__main__":
    sys.exit(main())
