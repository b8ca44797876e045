"""Networks as users have them, the whole way, against their own stochastic calls."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import sweep
from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.errors import ConfigError, GraphError
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models
from tests.helpers.stochastic_calls import own_outputs, softmax, worst_deviation

pytestmark = pytest.mark.filterwarnings("ignore")

N_DRAWS = 200


def _randomise(variables: Any, rng: np.random.Generator, assign: Any) -> None:
    for variable in variables:
        is_scale = "scale" in variable.name
        value = rng.normal(-1.5 if is_scale else 0, 0.3 if is_scale else 0.8, variable.shape)
        assign(variable, value.astype(np.float32))


def _sweep(tmp_path: Path, x: np.ndarray, y: np.ndarray, *flags: str) -> tuple[int, Any]:
    """Exit status; and probabilities (or means) of each example, where it is 0."""
    np.savez(tmp_path / "data.npz", x_test=x, y_test=y)
    output = tmp_path / "out.h5"
    output.unlink(missing_ok=True)
    status = sweep.main(
        [f"--data_path={tmp_path}/data.npz", "--thresholds=0", f"--num_monte_carlo={N_DRAWS}",
         f"--output={output}", *flags]
    )  # fmt: skip
    if status:
        return status, None
    with h5py.File(output) as file:
        examples = file["examples"]
        name = "mean_probability" if "mean_probability" in examples else "predictive_mean"
        return status, examples[name][0]


# Graphs for a certain number of examples.


def _save_fixed_batch(directory: Path, n_outputs: int, is_input_open: bool) -> Any:
    """A graph for 6 examples, and what it gives 20 by its own calls."""
    tensorflow = import_tensorflow()
    import tensorflow_probability as tfp

    tf1, rng = tensorflow.compat.v1, np.random.default_rng(4)
    x = rng.normal(size=(20, 4)).astype(np.float32)
    whole = np.concatenate([x, x[:4]])
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        size = None if is_input_open else 6
        images = tf1.placeholder(tensorflow.float32, (size, 4), name="x")
        hidden = tfp.layers.DenseLocalReparameterization(5, activation="relu")(images)
        hidden = tensorflow.reshape(hidden, (6, 5))
        out = tensorflow.identity(
            tfp.layers.DenseLocalReparameterization(n_outputs)(hidden), name="out"
        )
        tensorflow.fill((6, 1), 0.4, name="scale")
        tensorflow.nn.softmax(out)
        session.run(tf1.global_variables_initializer())
        _randomise(tf1.global_variables(), rng, lambda v, value: v.load(value, session))

        def call() -> np.ndarray:
            parts = [session.run(out, {images: whole[i : i + 6]}) for i in range(0, 24, 6)]
            return np.concatenate(parts)[:20]

        own = own_outputs(call)
        tf1.train.Saver().save(session, str(directory / "model.ckpt"))
    return x, own


@pytest.mark.parametrize("is_input_open", [False, True])
def test_classifier_for_a_fixed_number_of_examples(tmp_path: Path, is_input_open: bool) -> None:
    x, own = _save_fixed_batch(tmp_path, 3, is_input_open)
    y = np.arange(20) % 3
    found = []
    for batch_size in (1000, 6, 7, 2):
        flags = (f"--model_dir={tmp_path}", f"--batch_size={batch_size}")
        found.append(_sweep(tmp_path, x, y, *flags)[1])
    assert all(np.array_equal(found[0], other) for other in found)
    assert worst_deviation(found[0], N_DRAWS, softmax(own)) < 1
    net = bprune_hpc.load(tmp_path)
    np.testing.assert_array_equal(net.predict(x, N_DRAWS).mean_probability, found[0])
    np.testing.assert_array_equal(net.predict(x[:3], N_DRAWS).mean_probability, found[0][:3])
    assert net.logits(x[:7]).shape == (7, 3)


def test_regression_for_a_fixed_number_of_examples(tmp_path: Path) -> None:
    x, own = _save_fixed_batch(tmp_path, 1, False)
    flags = (f"--model_dir={tmp_path}", "--loc_op=out", "--scale_op=scale")
    status, found = _sweep(tmp_path, x, own.mean(axis=0)[:, 0], *flags)
    assert status == 0 and worst_deviation(found, N_DRAWS, own) < 1


# Several draws in one call.


def test_a_model_that_averages_passes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "tests.helpers.small_models:mean_of_calls"
    keras_tracing.build_model(name).save_weights(tmp_path / "net.weights.h5")
    flags = (f"--model_dir={tmp_path}", f"--model={name}")
    status, _ = _sweep(tmp_path, np.zeros((3, 4), np.float32), np.arange(3), *flags)
    said = capsys.readouterr().err
    assert status == 2 and "is drawn anew each time that it is used" in said
    assert "leave averages over passes to the sweep" in said


# SavedModels that end in a distribution.


def _variational(n_inputs: int, n_outputs: int, make: Any) -> Any:
    """The regression of TFP's tutorial."""
    tensorflow = import_tensorflow()
    import tensorflow_probability as tfp
    import tf_keras

    tfd = tfp.distributions

    def posterior(n_kernel: int, n_bias: int, dtype: Any = None) -> Any:
        n = n_kernel + n_bias

        def normal(t: Any) -> Any:
            scale = 1e-5 + tensorflow.nn.softplus(-1.0 + t[..., n:])
            return tfd.Independent(tfd.Normal(t[..., :n], scale), 1)

        variable = tfp.layers.VariableLayer(2 * n, dtype=dtype)
        return tf_keras.Sequential([variable, tfp.layers.DistributionLambda(normal)])

    def prior(n_kernel: int, n_bias: int, dtype: Any = None) -> Any:
        n = n_kernel + n_bias

        def normal(t: Any) -> Any:
            return tfd.Independent(tfd.Normal(t, 1.0), 1)

        variable = tfp.layers.VariableLayer(n, dtype=dtype)
        return tf_keras.Sequential([variable, tfp.layers.DistributionLambda(normal)])

    layer = tfp.layers.DenseVariational
    return tf_keras.Sequential(
        [
            tf_keras.layers.Input((n_inputs,)),
            layer(6, posterior, prior, activation="relu"),
            layer(n_outputs, posterior, prior),
            tfp.layers.DistributionLambda(make),
        ]
    )


def _learnt_scale(t: Any) -> Any:
    import tensorflow_probability as tfp

    scale = 1e-3 + import_tensorflow().nn.softplus(0.05 * t[..., 1:])
    return tfp.distributions.Normal(loc=t[..., :1], scale=scale)


def _known_scale(t: Any) -> Any:
    import tensorflow_probability as tfp

    return tfp.distributions.Normal(loc=t, scale=1)


@pytest.mark.parametrize(("make", "n_outputs"), [(_learnt_scale, 2), (_known_scale, 1)])
@pytest.mark.parametrize("how", ["keras", "tensorflow"])
def test_saved_model_that_ends_in_a_normal(
    tmp_path: Path, make: Any, n_outputs: int, how: str
) -> None:
    tensorflow, rng = import_tensorflow(), np.random.default_rng(6)
    model = _variational(4, n_outputs, make)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    x = rng.normal(size=(12, 4)).astype(np.float32)
    run = tensorflow.function(lambda: (model(x).mean(), model(x).stddev()))
    own = own_outputs(lambda: np.stack([np.broadcast_to(part, (12, 1)) for part in run()]))
    if how == "keras":
        model.save(tmp_path / "net")
    else:
        tensorflow.saved_model.save(model, str(tmp_path / "net"))
    case = read_case(tmp_path / "net")
    assert set(case.graph.output_tensors) == {"loc", "scale"}
    assert len(case.posterior.names) == 2
    net = bprune_hpc.load(tmp_path / "net")
    found = net.predict(x, N_DRAWS)
    assert worst_deviation(found.predictive_mean, N_DRAWS, own[:, 0]) < 1
    assert worst_deviation(found.aleatoric_variance, N_DRAWS, own[:, 1] ** 2) < 1
    status, _ = _sweep(tmp_path, x, own[:, 0].mean(axis=0)[:, 0], f"--model_dir={tmp_path}/net")
    assert status == 0


def test_local_noise_of_a_last_layer_is_no_sample(tmp_path: Path) -> None:
    """It looks like one: a mean, and a deviation times standard normals."""
    tensorflow = import_tensorflow()
    import tensorflow_probability as tfp
    import tf_keras

    layer = tfp.layers.DenseLocalReparameterization(3, bias_posterior_fn=None)
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), layer])
    tensorflow.saved_model.save(model, str(tmp_path))
    case = read_case(tmp_path)
    assert set(case.graph.output_tensors) == {"logits"}
    assert [loc.shape for loc in case.posterior.loc.values()] == [(4, 3)]


# Handing over a network.


PROGRAM = """
from tests.helpers.small_models import _layers


def build():
    keras, of_keras, tfp_layers = _layers()

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = tfp_layers.DenseFlipout(6, activation="tanh")
            self.head = tfp_layers.DenseFlipout(3)

        def call(self, inputs):
            return self.head(self.hidden(inputs))

    return Own()
"""


def _own_model(directory: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """A model of a class of the user's own that does not say what it takes, in a file."""
    # A module of this name is loaded already, and another one.
    (directory / "inspect.py").write_text(PROGRAM)
    scope: dict[str, Any] = {}
    exec(PROGRAM, scope)
    rng = np.random.default_rng(7)
    x = rng.normal(size=(12, 4)).astype(np.float32)
    with keras_tracing.fresh_names():
        model = scope["build"]()
        model(x)
    _randomise(model.variables, rng, lambda v, value: v.assign(value))
    run = import_tensorflow().function(lambda: model(x))
    return model, x, softmax(own_outputs(run))


@pytest.mark.parametrize("kind", ["net.weights.h5", "net.h5", "ckpt/net"])
def test_model_in_a_file_that_is_built_as_the_data_are(tmp_path: Path, kind: str) -> None:
    model, x, own = _own_model(tmp_path)
    (tmp_path / "ckpt").mkdir()
    model.save_weights(tmp_path / kind)
    place = tmp_path / kind if kind.endswith("h5") else tmp_path / "ckpt"
    flags = (f"--model_dir={place}", f"--model={tmp_path}/inspect.py:build")
    status, found = _sweep(tmp_path, x, np.arange(12) % 3, *flags)
    assert status == 0 and worst_deviation(found, N_DRAWS, own) < 1
    import inspect

    assert inspect.__file__ != str(tmp_path / "inspect.py")
    net = bprune_hpc.load(place, model=f"{tmp_path}/inspect.py:build", input_shape=(4,))
    np.testing.assert_array_equal(net.predict(x, N_DRAWS).mean_probability, found)
    with pytest.raises(ConfigError, match="returns a model of unknown input shape"):
        bprune_hpc.load(place, model=f"{tmp_path}/inspect.py:build")


def test_files_of_models_that_are_wrong(tmp_path: Path) -> None:
    keras_tracing.build_model("tests.helpers.small_models:dense_flipout").save_weights(
        tmp_path / "net.weights.h5"
    )
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    (tmp_path / "empty.py").write_text("")
    for name, message in (
        ("absent.py:build", "absent.py: no such file; check the path"),
        ("broken.py:build", "broken.py cannot be imported: ModuleNotFoundError"),
        ("empty.py:build", "empty.py has no function 'build'"),
        ("empty.py", "is not MODULE:FUNCTION or FILE.py:FUNCTION"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            read_case(tmp_path, model=f"{tmp_path}/{name}")
        assert "\n" not in str(caught.value) and str(caught.value).startswith("--model: ")


def test_model_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, x, own = _own_model(tmp_path)
    net = bprune_hpc.load(model)
    found = net.predict(x, N_DRAWS).mean_probability
    assert worst_deviation(found, N_DRAWS, own) < 1
    model.save_weights(tmp_path / "net.weights.h5")
    # What is trained on afterwards is another network.
    for variable in model.variables:
        variable.assign(variable + 1.0)
    np.testing.assert_array_equal(net.predict(x, N_DRAWS).mean_probability, found)

    def build() -> Any:
        return type(model)()

    from_file = bprune_hpc.load(tmp_path / "net.weights.h5", model=build, input_shape=(4,))
    np.testing.assert_array_equal(from_file.predict(x, N_DRAWS).mean_probability, found)
    with caplog.at_level(logging.ERROR), pytest.raises(ConfigError, match="is not built"):
        bprune_hpc.load(type(model)())
    with pytest.raises(ConfigError, match="return a tf_keras model"):
        bprune_hpc.load(3)


def test_model_in_memory_that_cannot_be_lifted() -> None:
    with pytest.raises(GraphError, match="is drawn anew each time"):
        bprune_hpc.load(small_models.mean_of_calls())
