"""Kinds of sources: how each is told from the others, named in records, and refused."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.config import sweep_config
from bprune_hpc.errors import BpruneError, CheckpointError, ConfigError, GraphError
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.runner import problem
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.launch import ROOT, run_group

pytestmark = pytest.mark.filterwarnings("ignore")

DENSE = "tests.helpers.small_models:dense_flipout"
NAMES = (
    "first/kernel_posterior_loc",
    "first/bias_posterior_loc",
    "dense_flipout/kernel_posterior_loc",
)


@pytest.fixture
def dense() -> Any:
    """A model that weights can be saved from."""
    return keras_tracing.build_model(DENSE)


def _said(error: type[BpruneError], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_record_of_a_weights_file(tmp_path: Path, dense: Any) -> None:
    dense.compile("adam", "mse")
    dense.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
    dense.save(tmp_path / "model.keras")
    case = read_case(tmp_path / "model.keras", model=DENSE)
    assert case.posterior.names == NAMES
    assert set(case.fixed) == {"dense_flipout/bias_posterior_loc"}
    assert case.scale_variables[NAMES[1]] == ("first/bias_posterior_untransformed_scale",)
    source = case.source
    assert (source.kind, source.path) == ("keras", str(tmp_path / "model.keras"))
    assert source.tf_version.endswith(" (Keras)") and source.step is None
    assert list(source.sha256) == ["model.keras"]
    # The optimizer's tensors are listed with their shapes.
    assert len(source.stripped) >= 14
    assert all(name.startswith("optimizer/") for name in source.stripped)
    assert ((4, 5), "float32") in source.stripped.values()


def test_record_of_an_object_based_checkpoint(tmp_path: Path, dense: Any) -> None:
    tensorflow = import_tensorflow()
    import tf_keras

    optimizer = tf_keras.optimizers.legacy.Adam()
    dense.compile(optimizer, "mse")
    dense.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
    step = tensorflow.Variable(250, dtype=tensorflow.int64)
    holder = tensorflow.Module()
    holder.inner = dense
    # The name of the attribute is the script's own, and the model may lie deeper.
    saved = tensorflow.train.Checkpoint(state=holder, optimizer=optimizer, step=step)
    saved.save(str(tmp_path / "ckpt"))
    case = read_case(tmp_path, model=DENSE)
    assert case.posterior.names == NAMES
    np.testing.assert_array_equal(case.posterior.loc[NAMES[0]], dense.variables[0].numpy())
    assert (case.source.kind, case.source.step) == ("tf2_checkpoint", 250)
    assert "step" in case.source.stripped and "optimizer/iter" in case.source.stripped
    assert not set(case.source.stripped) & set(NAMES)
    assert set(case.source.sha256) == {"ckpt-1.index", "ckpt-1.data-00000-of-00001"}


def test_several_objects_that_fit(tmp_path: Path, dense: Any) -> None:
    tensorflow = import_tensorflow()
    other = keras_tracing.build_model(DENSE)
    tensorflow.train.Checkpoint(ema=other, net=dense).save(str(tmp_path / "a" / "ckpt"))
    said = _said(CheckpointError, lambda: read_case(tmp_path / "a", model=DENSE))
    assert "several objects fit the model" in said and "ema, net" in said
    tensorflow.train.Checkpoint(ema=other, model=dense).save(str(tmp_path / "b" / "ckpt"))
    case = read_case(tmp_path / "b", model=DENSE)
    np.testing.assert_array_equal(case.posterior.loc[NAMES[0]], dense.variables[0].numpy())


def test_checkpoint_of_another_model(tmp_path: Path, dense: Any) -> None:
    tensorflow = import_tensorflow()
    tensorflow.train.Checkpoint(net=dense).save(str(tmp_path / "ckpt"))
    dense.save_weights(tmp_path / "a.weights.h5")
    dense.save_weights(tmp_path / "b.h5")
    other = "tests.helpers.small_models:conv2d_flipout"
    assert "holds no object that fits the model" in _said(
        CheckpointError, lambda: read_case(tmp_path, model=other)
    )
    for name in ("a.weights.h5", "b.h5"):
        said = _said(CheckpointError, lambda name=name: read_case(tmp_path / name, model=other))
        assert f"{name}: does not fit the model of {other}: " in said


@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5", "a.keras", "ckpt"])
def test_damaged_and_missing_files(tmp_path: Path, name: str, dense: Any) -> None:
    if name == "ckpt":
        import_tensorflow().train.Checkpoint(net=dense).save(str(tmp_path / name))
        path = tmp_path / "ckpt-1.index"
    else:
        path = tmp_path / name
        (dense.save if name.endswith("keras") else dense.save_weights)(path)
    missing = _said(CheckpointError, lambda: read_case(tmp_path, "b.h5", model=DENSE))
    assert "b.h5: no such file" in missing
    without_model = _said(ConfigError, lambda: read_case(tmp_path))
    assert "pass --model=MODULE:FUNCTION" in without_model
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"x" * len(content)):
        path.write_bytes(damaged)
        _said(CheckpointError, lambda: read_case(tmp_path, model=DENSE))


def test_several_weights_files_are_listed(tmp_path: Path, dense: Any) -> None:
    dense.save_weights(tmp_path / "a.weights.h5")
    dense.save_weights(tmp_path / "b.weights.h5")
    said = _said(CheckpointError, lambda: read_case(tmp_path, model=DENSE))
    assert "a.weights.h5, b.weights.h5; pass one as --model_ckpt" in said
    case = read_case(tmp_path, "b.weights.h5", model=DENSE)
    assert list(case.source.sha256) == ["b.weights.h5"]


def _no_model() -> Any:
    return 3


def _keras_3() -> Any:
    keras = type("Model", (), {"__module__": "keras.src.models.model"})
    return keras()


def _raises() -> Any:
    raise ValueError("no\nluck")


def _unbuilt() -> Any:
    import tf_keras

    return tf_keras.Sequential([tf_keras.layers.Dense(3)])


def _mixture() -> Any:
    import tensorflow_probability as tfp
    import tf_keras

    def mixture(t: Any) -> Any:
        return tfp.distributions.Poisson(log_rate=t)

    of_keras = tf_keras.layers
    return tf_keras.Sequential(
        [of_keras.Input((4,)), of_keras.Dense(3), tfp.layers.DistributionLambda(mixture)]
    )


def _two_inputs() -> Any:
    import tf_keras

    one, two = tf_keras.Input((4,)), tf_keras.Input((4,))
    return tf_keras.Model([one, two], tf_keras.layers.Add()([one, two]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_model, "returns a int; return a tf_keras model"),
        (_keras_3, "returns a Keras 3 model; TensorFlow Probability needs tf_keras"),
        (_raises, r"failed: ValueError: no luck; it has to return a model"),
        (_unbuilt, "returns a model of unknown input shape; start it with an Input layer"),
        (_mixture, r"ends in a Poisson .*; end the model in a Categorical, OneHotCategorical"),
        (_two_inputs, r"takes 2 inputs \(input_1, input_2\); return a model of one input"),
    ],
)
def test_models_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any], message: str
) -> None:
    module = types.ModuleType("my_net")
    module.build = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_net", module)
    with pytest.raises(ConfigError, match=f"^--model: my_net:build.*{message}") as caught:
        keras_tracing.trace("my_net:build", keras_tracing.build_model("my_net:build"))
    assert "\n" not in str(caught.value)


def test_names_of_models_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = "from tests.helpers.small_models import dense_flipout as build\n"
    (tmp_path / "net_in_cwd.py").write_text(program)
    assert keras_tracing.build_model("net_in_cwd:build").built
    for name, message in (
        ("net_in_cwd", "is not MODULE:FUNCTION"),
        ("no_such_net:build", "no_such_net cannot be imported: ModuleNotFoundError"),
        ("net_in_cwd:make", "net_in_cwd has no function 'make'"),
    ):
        assert message in _said(ConfigError, lambda name=name: keras_tracing.build_model(name))
    del sys.modules["net_in_cwd"]
    sys.path.remove(os.getcwd())


def test_input_shape_beside_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_net")
    module.build = _unbuilt  # type: ignore[attr-defined]
    monkeypatch.setattr(_unbuilt, "input_shape", (4,), raising=False)
    monkeypatch.setitem(sys.modules, "my_net", module)
    assert keras_tracing.build_model("my_net:build").variables[0].shape == (4, 3)


# SavedModels.


def _module(tensorflow: Any) -> Any:
    """A module whose variables have one name, and a training step beside the call."""

    class Net(tensorflow.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = tensorflow.Variable(tensorflow.random.normal((4, 3)), name="w")
            self.raw = tensorflow.Variable(tensorflow.random.normal((4, 3)), name="w")
            self.unused = tensorflow.Variable(3.0, name="unused")

        @tensorflow.function(autograph=False)
        def __call__(self, x: Any) -> Any:
            noise = tensorflow.random.normal((4, 3))
            return x @ (self.loc + tensorflow.exp(self.raw) * noise)

    return Net()


def _check_module(case: Case, net: Any) -> None:
    (name,) = case.posterior.names
    np.testing.assert_array_equal(case.posterior.loc[name], net.loc.numpy())
    np.testing.assert_allclose(case.posterior.scale[name], np.exp(net.raw.numpy()), rtol=3e-7)
    x = np.ones((2, 4), np.float32)
    with GraphNetwork(case.graph, case.fixed) as network:
        logits = network(x, case.posterior.loc)
    np.testing.assert_allclose(logits, x @ net.loc.numpy(), atol=1e-6)


def test_saved_module_with_names_that_repeat(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()
    net = _module(tensorflow)
    spec = tensorflow.TensorSpec((None, 4), tensorflow.float32, name="x")
    tensorflow.saved_model.save(net, str(tmp_path), net.__call__.get_concrete_function(spec))
    case = read_case(tmp_path)
    _check_module(case, net)
    assert case.source.kind == "saved_model" and case.source.tf_version == tensorflow.__version__
    assert case.source.stripped == {"unused": ((), "float32")}
    assert set(case.source.sha256) == {
        "saved_model.pb",
        "variables.index",
        "variables.data-00000-of-00001",
    }
    _check_module(read_case(tmp_path / "saved_model.pb"), net)


def _simple_save(directory: Path, build: Callable[[Any], Any], more: Any = ()) -> None:
    """What TensorFlow 1 scripts wrote; ``more`` are outputs that ``build`` notes."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tensorflow.float32, (None, 4), name="images")
        logits = build(x)
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(directory), {"x": x}, {"y": logits, **dict(more)})


def _partitioned(x: Any) -> Any:
    """Reference variables in three slices, and a resource variable in two along the other axis."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    three = tf1.fixed_size_partitioner(3)
    loc = tf1.get_variable("w", (4, 3), partitioner=three, use_resource=False)
    two = tf1.fixed_size_partitioner(2, axis=1)
    raw = tf1.get_variable("w_raw", (4, 3), partitioner=two, use_resource=True)
    loc, raw = tensorflow.convert_to_tensor(loc), tensorflow.convert_to_tensor(raw)
    return x @ (loc + tensorflow.nn.softplus(raw) * tensorflow.random.normal((4, 3)))


@pytest.mark.parametrize("kind", ["saved_model", "tf1"])
def test_partitioned_variables(tmp_path: Path, kind: str) -> None:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    prefix = tmp_path / "model.ckpt-7"
    if kind == "saved_model":
        _simple_save(tmp_path / "case", _partitioned)
        prefix = tmp_path / "case" / "variables" / "variables"
    else:
        with tensorflow.Graph().as_default(), tf1.Session() as session:
            tensorflow.nn.softmax(_partitioned(tf1.placeholder(tensorflow.float32, (None, 4))))
            session.run(tf1.global_variables_initializer())
            tf1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=7)
    case = read_case(tmp_path / "case" if kind == "saved_model" else tmp_path)
    stored = tensorflow.train.load_checkpoint(str(prefix))
    assert case.posterior.names == ("w",) and case.source.kind == kind
    assert case.source.stripped == {} and case.scale_variables == {"w": ("w_raw",)}
    np.testing.assert_array_equal(case.posterior.loc["w"], stored.get_tensor("w"))
    expected = np.log1p(np.exp(stored.get_tensor("w_raw").astype(np.float64)))
    np.testing.assert_allclose(case.posterior.scale["w"], expected, rtol=3e-7)
    x = np.eye(4, dtype=np.float32)
    with GraphNetwork(case.graph, case.fixed) as network:
        np.testing.assert_allclose(network(x, case.posterior.loc), case.posterior.loc["w"])


def test_saver_with_names_of_its_own(tmp_path: Path) -> None:
    """Moving averages in place of the variables, as ``variables_to_restore`` has them."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tensorflow.float32, (None, 4))
        loc, raw = tf1.get_variable("w", (4, 3)), tf1.get_variable("raw", (4, 3))
        noise = tensorflow.random.normal((4, 3))
        tensorflow.nn.softmax(x @ (loc + tensorflow.exp(raw) * noise))
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver({"w/ExponentialMovingAverage": loc, "raw": raw})
        saver.save(session, str(tmp_path / "model.ckpt"))
        expected = session.run(loc)
    case = read_case(tmp_path)
    np.testing.assert_array_equal(case.posterior.loc["w/ExponentialMovingAverage"], expected)


def test_signatures_that_do_not_say_enough(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()

    def build(x: Any) -> Any:
        more["z"] = tensorflow.identity(x, name="copy")
        return tensorflow.identity(_partitioned(x), name="scores")

    more: dict[str, Any] = {}
    _simple_save(tmp_path, build, more)
    said = _said(GraphError, lambda: read_case(tmp_path))
    assert "several outputs: y (scores:0), z (copy:0); pass one as --logits_op" in said
    assert read_case(tmp_path, logits_op="scores").posterior.names == ("w",)


def test_damaged_saved_model(tmp_path: Path) -> None:
    _simple_save(tmp_path / "net", _partitioned)
    (tmp_path / "net" / "variables" / "variables.index").unlink()
    said = _said(CheckpointError, lambda: read_case(tmp_path / "net"))
    assert "variables/variables.index is missing; copy the whole directory" in said
    for damage in (b"", b"\x08\x96garbage"):
        (tmp_path / "net" / "saved_model.pb").write_bytes(damage)
        assert "saved_model.pb: " in _said(CheckpointError, lambda: read_case(tmp_path / "net"))


@pytest.mark.parametrize("op", ["PyFunc", "ReadFile"])
def test_saved_model_that_would_run_code(tmp_path: Path, op: str) -> None:
    tensorflow = import_tensorflow()
    marker = tmp_path / "ran"

    def touch(value: Any) -> Any:
        marker.touch()
        return value

    def build(x: Any) -> Any:
        logits = _partitioned(x)
        if op == "PyFunc":
            return tensorflow.compat.v1.py_func(touch, [logits], tensorflow.float32, name="code")
        content = tensorflow.io.read_file(tensorflow.constant("/etc/hostname"), name="code")
        return logits + tensorflow.cast(tensorflow.strings.length(content), tensorflow.float32)

    _simple_save(tmp_path / "case", build)
    said = _said(GraphError, lambda: read_case(tmp_path / "case"))
    assert f"run code, touch files or keep state: 'code' ({op})" in said
    assert not marker.exists()


def test_lambda_layers_of_a_file_are_not_run(tmp_path: Path) -> None:
    """The file describes a model whose Lambda writes a file; only its weights are taken."""
    import tf_keras

    model = keras_tracing.build_model(DENSE)
    marker = tmp_path / "ran"
    trap = f"__import__('pathlib').Path({str(marker)!r}).touch() or t"
    code = eval(f"lambda t: {trap}")
    of_keras = tf_keras.layers
    layers = [of_keras.Input((4,)), *model.layers, of_keras.Lambda(code)]
    for name in ("trap.h5", "trap.keras"):
        tf_keras.Sequential(layers).save(tmp_path / name)
        marker.unlink(missing_ok=True)
        try:
            read_case(tmp_path / name, model=DENSE)
        except CheckpointError as error:
            assert "does not fit the model" in str(error)
        assert not marker.exists()


# The whole way.


def test_a_sweep_refuses_what_is_no_classifier_in_one_line(tmp_path: Path) -> None:
    name = "tests.helpers.small_models:normal"
    keras_tracing.build_model(name).save_weights(tmp_path / "net.weights.h5")
    asked = [f"--model_dir={tmp_path}", f"--model={name}", "--dataset=digits"]
    asked += ["--task=classification"]
    said = _said(GraphError, lambda: problem.read(sweep_config.parse(asked)))
    assert "gives a Normal distribution, with the mean at" in said and "--logits_op" in said


def test_loc_and_scale_go_together(tmp_path: Path) -> None:
    _simple_save(tmp_path, _partitioned)
    said = _said(GraphError, lambda: read_case(tmp_path, loc_op="a"))
    assert "--loc_op and --scale_op go together" in said


def test_a_normal_keeps_its_scale(tmp_path: Path) -> None:
    name = "tests.helpers.small_models:normal"
    model = keras_tracing.build_model(name)
    model.save_weights(tmp_path / "net.weights.h5")
    graph = read_case(tmp_path, model=name).graph
    assert set(graph.output_tensors) == {"loc", "scale"}
    assert graph.output_tensor == graph.output_tensors["loc"]
    tensorflow = import_tensorflow()
    definition = tensorflow.compat.v1.GraphDef.FromString(graph.graph_def)
    assert graph.output_tensors["scale"].partition(":")[0] in {n.name for n in definition.node}


@pytest.mark.slow
@pytest.mark.horovod
def test_what_horovod_wrote_opens_without_it(tmp_path: Path, mpirun: Any) -> None:
    program = str(ROOT / "tests/programs/horovod_program.py")
    (tmp_path / "tf1").mkdir()
    done = mpirun(2, [program, "write", tmp_path])
    assert done.returncode == 0, done.stderr
    source = run_group([sys.executable, program, "open", str(tmp_path)])
    assert source.returncode == 0, source.stderr
    found = json.loads(source.stdout)
    assert set(found) == {"tf1", "tf2", "saved_model"}
    assert found["tf1"]["horovod"]["HorovodAllreduce"] >= 3  # one of them inside a function
    assert found["tf1"]["horovod"]["HorovodBroadcast"] >= 3
    assert found["saved_model"]["horovod"]["HorovodAllreduce"] >= 2
    assert (found["tf1"]["step"], found["tf2"]["step"]) == (2, 2)
    with np.load(tmp_path / "tf1" / "loc.npz") as kept:
        loc = np.float32(found["tf1"]["loc"]["net/kernel_posterior_loc"])
        np.testing.assert_array_equal(loc, kept["loc"])
    with np.load(tmp_path / "weights.npz") as kept:
        for kind in ("tf2", "saved_model"):
            for name, loc in found[kind]["loc"].items():
                np.testing.assert_array_equal(np.float32(loc), kept[f"{name}:0"])
