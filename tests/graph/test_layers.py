"""Every layer family from every kind of source, against the model that was saved.

The oracle is the original model itself, run by TensorFlow Probability: its posteriors' own means
and deviations, its call with every standard normal replaced by zero, its average over many calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any
from unittest import mock

import numpy as np
import pytest

from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models

N_EXAMPLES = 3
N_DRAWS = 200

FAMILIES = (
    "dense_flipout",
    "dense_reparameterization",
    "dense_local_reparameterization",
    "dense_variational",
    "conv1d_flipout",
    "conv2d_flipout",
    "conv3d_flipout",
    "conv1d_reparameterization",
    "conv2d_reparameterization",
    "conv3d_reparameterization",
    "scale_is_exp",
    "scale_is_softplus_without_eps",
    "scale_is_plain",
    "residual",
    "shared",
    "adapted",
    "adapted_inside",
    "own_state",
    "half_precision",
    "categorical",
    "one_hot_categorical",
    "normal",
    "softmax",
)
# Keras makes its classes over for TensorFlow 1, and back when it builds the next model: last.
SOURCES = ("weights.h5", "h5", "keras", "tf_weights", "tf2_checkpoint", "saved_model", "tf1")
# Files of Keras differ in how they lay out what is nested, called twice or not a plain tensor; to
# read a flat one again in every format would show nothing new.
IN_EVERY_FORMAT = {
    "dense_flipout", "dense_variational", "residual", "shared", "categorical", "adapted",
    "adapted_inside", "own_state", "half_precision",
}  # fmt: skip
# TFP's DenseVariational has no get_config: Keras cannot write the whole of a model with it. The
# layer of own_state reads its weight, which a graph of TensorFlow 1 cannot.
IMPOSSIBLE = {("dense_variational", "keras"), ("adapted_inside", "tf1"), ("own_state", "tf1")}
PAIRS = [
    (family, source)
    for family, source in itertools.product(FAMILIES, SOURCES)
    if (family in IN_EVERY_FORMAT or source not in ("h5", "keras", "tf_weights"))
    and (family, source) not in IMPOSSIBLE
]

# As strict as 4 standard errors for one comparison, over all of them together (Bonferroni).
N_COMPARISONS = len(PAIRS) * N_EXAMPLES * 3
ALLOWED = -NormalDist().inv_cdf(NormalDist().cdf(-4) / N_COMPARISONS)


@dataclass
class Original:
    """A model with random values, and what it says of itself."""

    name: str
    model: Any
    x: np.ndarray
    values: list[np.ndarray]
    loc: dict[str, np.ndarray]
    scale: dict[str, np.ndarray]
    names_in_tf1: dict[str, str]  # by the name in Keras
    output_at_mean: np.ndarray
    predictions: np.ndarray  # (n_draws, n_examples, 3)


def _softmax(outputs: np.ndarray) -> np.ndarray:
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _parameters(output: Any) -> Any:
    """Logits or mean, as the distribution's own methods give them."""
    if hasattr(output, "tensor_distribution"):
        return output.logits if hasattr(output, "logits") else output.mean()
    return output


def _posteriors(model: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean and deviation of every mean-field tensor, by the name of the mean's variable."""
    loc, scale = {}, {}
    for layer in model.submodules:
        for kind in ("kernel_posterior", "bias_posterior"):
            posterior = getattr(layer, kind, None)
            normal = getattr(posterior, "distribution", None)
            if normal is not None and hasattr(normal, "scale"):
                name = normal.loc.name.partition(":")[0]
                loc[name], scale[name] = normal.mean().numpy(), normal.stddev().numpy()
        if type(layer).__name__ == "DenseVariational":
            normal = layer._posterior(np.zeros((1, 4), np.float32)).tensor_distribution
            (flat,) = (v for v in layer.variables if "posterior" in v.name)
            name = f"{flat.name.partition(':')[0]}/strided_slice"
            loc[name], scale[name] = normal.mean().numpy(), normal.stddev().numpy()
    return loc, scale


def _original(name: str) -> Original:
    tensorflow = import_tensorflow()
    model = keras_tracing.build_model(f"tests.helpers.small_models:{name}")
    rng = np.random.default_rng(3)
    for variable in model.variables:
        if variable.dtype.is_integer:
            continue
        value = rng.normal(0, 0.7, variable.shape)
        if "scale" in variable.name:
            value = value - 0.7
        if "variance" in variable.name or (name == "scale_is_plain" and "raw" in variable.name):
            value = np.exp(value)
        variable.assign(value)
    for layer in model.submodules:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    shape = model.inputs[0].shape[1:] if model.inputs else type(model).input_shape
    x = rng.normal(size=(N_EXAMPLES, *shape)).astype(np.float32)
    loc, scale = _posteriors(model)

    def zeros(shape: Any, dtype: Any, **_: Any) -> Any:
        return tensorflow.zeros(shape, dtype)

    with mock.patch("tensorflow_probability.python.internal.samplers.normal", zeros):
        at_mean = _parameters(model(x, training=False)).numpy()
    tensorflow.random.set_seed(11)
    run = tensorflow.function(lambda: _parameters(model(x, training=False)), autograph=False)
    outputs = np.array([run().numpy() for _ in range(N_DRAWS)])
    is_probability = name == "softmax"
    return Original(
        name=name,
        model=model,
        x=x,
        values=[variable.numpy() for variable in model.variables],
        loc=loc,
        scale=scale,
        names_in_tf1={},
        output_at_mean=at_mean,
        predictions=outputs if is_probability else _softmax(outputs),
    )


def _save_tf1(original: Original, directory: Path) -> dict[str, str]:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session, keras_tracing.fresh_names():
        images = tf1.placeholder(tensorflow.float32, (None, *original.x.shape[1:]), name="images")
        model = getattr(small_models, original.name)()
        output = model(images, training=False)
        if hasattr(output, "tensor_distribution"):
            output.log_prob(output.sample())
        elif original.name != "softmax":
            tensorflow.nn.softmax(output)
        # Keras has made the network once already, for a placeholder of its own.
        ends = {"logits_op": output.op.name} if original.name == "softmax" else {}
        if original.name == "normal":
            inner = output.tensor_distribution.distribution
            tensorflow.identity(inner.loc, name="loc")
            tensorflow.identity(inner.scale, name="scale")
            ends = {"loc_op": "loc", "scale_op": "scale"}
        for variable, value in zip(model.variables, original.values, strict=True):
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        pairs = zip(original.model.variables, model.variables, strict=True)
        original.names_in_tf1 = {
            keras.name.partition(":")[0]: variable.op.name for keras, variable in pairs
        }
        tf1.train.Saver().save(session, str(directory / "model.ckpt"), global_step=7)
    return ends


def _save_weights(suffix: str) -> Callable[[Original, Path], dict[str, str]]:
    def save(original: Original, directory: Path) -> dict[str, str]:
        path = directory / f"model.{suffix}"
        if suffix == "keras":
            original.model.save(path)
        else:
            original.model.save_weights(str(path))
        return {"model": f"tests.helpers.small_models:{original.name}"}

    return save


def _save_tf_weights(original: Original, directory: Path) -> dict[str, str]:
    original.model.save_weights(str(directory / "net"), save_format="tf")
    return {"model": f"tests.helpers.small_models:{original.name}"}


def _save_tf2_checkpoint(original: Original, directory: Path) -> dict[str, str]:
    tensorflow = import_tensorflow()
    step = tensorflow.Variable(17, dtype=tensorflow.int64)
    checkpoint = tensorflow.train.Checkpoint(net=original.model, step=step)
    checkpoint.save(str(directory / "ckpt"))
    return {"model": f"tests.helpers.small_models:{original.name}"}


def _save_saved_model(original: Original, directory: Path) -> dict[str, str]:
    import_tensorflow().saved_model.save(original.model, str(directory))
    return {}


SAVE: dict[str, Callable[[Original, Path], dict[str, str]]] = {
    "tf1": _save_tf1,
    "weights.h5": _save_weights("weights.h5"),
    "h5": _save_weights("h5"),
    "keras": _save_weights("keras"),
    "tf_weights": _save_tf_weights,
    "tf2_checkpoint": _save_tf2_checkpoint,
    "saved_model": _save_saved_model,
}
KINDS = {"weights.h5": "keras", "h5": "keras", "tf_weights": "tf2_checkpoint"}


@pytest.fixture(scope="module")
def originals() -> dict[str, Original]:
    """Models that were made already, by name."""
    return {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "source"), PAIRS)
def test_matrix(originals: dict[str, Original], tmp_path: Path, family: str, source: str) -> None:
    if family not in originals:
        originals.clear()
        originals[family] = _original(family)
    original = originals[family]
    options = SAVE[source](original, tmp_path)
    case = read_case(tmp_path, **options)
    assert case.source.kind == KINDS.get(source, source)
    _check_posterior(case, original)
    with GraphNetwork(case.graph, case.fixed) as network:
        at_mean = network(original.x, case.posterior.loc)
        _check_at_mean(at_mean, original)
        _check_predictions(network, case, original)


def _check_posterior(case: Case, original: Original) -> None:
    renamed = original.names_in_tf1 if case.source.kind == "tf1" else {}
    assert set(case.posterior.names) == {renamed.get(name, name) for name in original.loc}
    for name, loc in original.loc.items():
        found = renamed.get(name, name)
        np.testing.assert_array_equal(case.posterior.loc[found], loc)
        np.testing.assert_array_equal(case.posterior.scale[found], original.scale[name])


def _check_at_mean(outputs: np.ndarray, original: Original) -> None:
    expected = original.output_at_mean
    if original.name == "softmax":
        outputs = _softmax(outputs)
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def _check_predictions(network: GraphNetwork, case: Case, original: Original) -> None:
    rng = np.random.default_rng(5)
    found = np.empty_like(original.predictions)
    for draw in range(N_DRAWS):
        weights = {
            name: loc + case.posterior.scale[name] * rng.standard_normal(loc.shape, np.float32)
            for name, loc in case.posterior.loc.items()
        }
        found[draw] = _softmax(network(original.x, weights))
    difference = found.mean(axis=0) - original.predictions.mean(axis=0)
    variance = found.var(axis=0, ddof=1) + original.predictions.var(axis=0, ddof=1)
    assert np.all(np.abs(difference) <= ALLOWED * np.sqrt(variance / N_DRAWS))
    # Without noise the comparison would fail: there is enough of it to matter.
    assert found.std(axis=0).max() > 0.03
