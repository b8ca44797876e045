"""The user's own format: what was exported, opened by TensorFlow and Keras themselves."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.keras_weights import open_hdf5
from bprune_hpc.errors import ConfigError
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_graphs, small_models

pytestmark = pytest.mark.filterwarnings("ignore")

MODEL = "tests.helpers.small_models:dense_flipout"
EPS = 1.1920930e-07
"""What TFP adds to a softplus: the least that its scale can be."""


@pytest.fixture(scope="module")
def trained() -> Any:
    """A model whose optimizer has slots that go by the variables' names."""
    return _trained("legacy.Adam")


@pytest.fixture(scope="module")
def trained_anew() -> Any:
    """The same with an optimizer that numbers its slots."""
    return _trained("Adam")


def _trained(optimizer: str) -> Any:
    model = keras_tracing.build_model(MODEL)
    _fit(model, optimizer)
    return model


def _fit(model: Any, optimizer: str) -> None:
    import tf_keras

    if optimizer:
        model.compile(attrgetter(optimizer)(tf_keras.optimizers)(), "mse")
    model.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)


def _posterior_of(model: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of each mean-field tensor, as TFP's own distributions have them."""
    found = {}
    for layer in model.layers:
        for kind in ("kernel_posterior", "bias_posterior"):
            normal = getattr(getattr(layer, kind, None), "distribution", None)
            if hasattr(normal, "scale"):
                name = normal.loc.name.partition(":")[0]
                found[name] = normal.mean().numpy(), normal.stddev().numpy()
    return found


def _check(found: Any, expected: Any, masks: Any) -> None:
    """Kept weights to the bit; of the others no mean, and the least scale that there is."""
    assert set(found) == set(expected) == set(masks.files)
    n_pruned = 0
    for name, (loc, scale) in found.items():
        kept = masks[name]
        np.testing.assert_array_equal(loc[kept], expected[name][0][kept])
        np.testing.assert_array_equal(scale[kept], expected[name][1][kept])
        assert not loc[~kept].any()
        np.testing.assert_allclose(scale[~kept], EPS, rtol=1e-6, atol=0)
        n_pruned += np.count_nonzero(~kept)
    assert n_pruned == 24  # 60 % of 40


def _exported(directory: Path, case: Path, model: str | None, keep_slots: bool = False) -> Any:
    net = bprune_hpc.load(case, model=model).prune(fraction=0.6)
    card = net.save(directory / "out", formats=["checkpoint"], keep_slots=keep_slots)
    found = card["formats"]["checkpoint"]
    assert found["difference"]["mean"] == 0 and 0 < found["difference"]["draws"] < 1e-5
    assert found["scale_left_of_pruned"] == np.float32(EPS)
    return np.load(directory / "out" / "checkpoint" / "mask.npz")


@pytest.mark.parametrize("keep_slots", [True, False])
@pytest.mark.parametrize("suffix", ["weights.h5", "h5", "keras"])
def test_keras_files(tmp_path: Path, trained_anew: Any, suffix: str, keep_slots: bool) -> None:
    trained = trained_anew
    path = tmp_path / f"net.{suffix}"
    trained.save_weights(path) if suffix == "weights.h5" else trained.save(path)
    masks = _exported(tmp_path, path, MODEL, keep_slots)
    new = tmp_path / "out" / "checkpoint" / path.name
    model = small_models.dense_flipout()
    model.load_weights(new)
    # Keras numbers what is built again; the order of the tensors is the same.
    found = dict(zip(_posterior_of(trained), _posterior_of(model).values(), strict=True))
    _check(found, _posterior_of(trained), masks)
    before, after = _slots(path), _slots(new)
    assert len(before) > 6 and after.keys() == (before.keys() if keep_slots else set())
    for name, value in after.items():
        expected = before[name]
        of_tensors = [one for one in masks.files if one.removesuffix("loc") in name]
        if of_tensors:  # the other files number slots, and do not say whose they are
            assert suffix == "h5"
            expected = np.where(masks[of_tensors[0]], expected, 0)
        np.testing.assert_array_equal(value, expected, err_msg=name)
    _fit(model, "Adam")
    _fit(model, "")
    model.load_weights(new)  # with the optimizer's state, where the file has it
    _fit(model, "")
    is_read = keep_slots and suffix != "h5"
    assert model.optimizer.iterations.numpy() == (2 if is_read else 3)


def _slots(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def note(name: str, item: Any) -> None:
        if getattr(item, "shape", ()):
            found[name] = item[()]

    with open_hdf5(path) as file:
        for group in {"optimizer", "optimizer_weights"} & file.keys():
            file[group].visititems(note)
    return found


@pytest.mark.parametrize("kind", ["trained", "trained_anew"])
def test_tf2_checkpoint(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    trained = request.getfixturevalue(kind)
    tensorflow = import_tensorflow()
    step = tensorflow.Variable(17, dtype=tensorflow.int64)
    optimizer = trained.optimizer
    saved = tensorflow.train.Checkpoint(net=trained, optimizer=optimizer, step=step)
    saved.save(str(tmp_path / "ckpt"))
    masks = _exported(tmp_path, tmp_path, MODEL)
    model, again = small_models.dense_flipout(), tensorflow.Variable(0, dtype=tensorflow.int64)
    restored = tensorflow.train.Checkpoint(net=model, step=again)
    newest = tensorflow.train.latest_checkpoint(str(tmp_path / "out" / "checkpoint"))
    restored.restore(newest).assert_existing_objects_matched()
    assert again.numpy() == 17
    found = dict(zip(_posterior_of(trained), _posterior_of(model).values(), strict=True))
    _check(found, _posterior_of(trained), masks)
    before, after = (
        {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        for reader in map(tensorflow.train.load_checkpoint, (str(tmp_path), newest))
    )
    assert before.keys() == after.keys()
    by_name = {"trained": "OPTIMIZER_SLOT", "trained_anew": "optimizer/_variables"}[kind]
    slots = [name for name in before if by_name in name and before[name].shape]
    assert len(slots) > 6
    n_begun = 0
    for name in slots:
        is_same = before[name] == after[name]
        assert not after[name][~is_same].any()
        n_begun += np.count_nonzero(~is_same)
    assert 80 <= n_begun <= 4 * 24  # some were zero


def test_a_saved_model_stays_one(tmp_path: Path, trained: Any) -> None:
    tensorflow = import_tensorflow()
    tensorflow.saved_model.save(trained, str(tmp_path / "net"))
    masks = _exported(tmp_path, tmp_path / "net", None)
    loaded = tensorflow.saved_model.load(str(tmp_path / "out" / "checkpoint"))
    values = {variable.name.partition(":")[0]: variable.numpy() for variable in loaded.variables}
    for name, (loc, _) in _posterior_of(trained).items():
        np.testing.assert_array_equal(values[name], np.where(masks[name], loc, 0))
    assert loaded(np.ones((2, 4), np.float32)).shape == (2, 3)


def _two_layers(images: Any) -> tuple[Any, list[Any]]:
    import tensorflow_probability as tfp

    first = tfp.layers.DenseFlipout(5, activation="relu", name="first")
    second = tfp.layers.DenseFlipout(4, name="second")
    logits = second(first(images))
    return logits, [layer.kernel_posterior.distribution for layer in (first, second)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_saver_restores_it(tmp_path: Path, version: int) -> None:
    saved = small_graphs.save(tmp_path, _two_layers, saver_version=version)
    (tmp_path / "notes.txt").write_text("of the user\n")
    masks = _exported(tmp_path, tmp_path, None)
    home = tmp_path / "out" / "checkpoint"
    assert (home / "notes.txt").read_text() == "of the user\n"
    assert (home / "model.ckpt-7.meta").read_bytes() == (
        tmp_path / "model.ckpt-7.meta"
    ).read_bytes()
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        saver = tf1.train.import_meta_graph(str(home / "model.ckpt-7.meta"))
        saver.restore(session, tf1.train.latest_checkpoint(str(home)))
        values = {v.op.name: session.run(v) for v in tf1.global_variables()}
    names = [name for name in values if name.endswith("kernel_posterior_loc")]
    expected = dict(zip(names, zip(saved.locs, saved.scales, strict=True), strict=True))
    found = {
        name: (
            values[name],
            np.logaddexp(0, values[name.replace("loc", "untransformed_scale")].astype(float)) + EPS,
        )
        for name in names
    }
    for name in names:
        found[name] = (found[name][0], np.where(masks[name], expected[name][1], found[name][1]))
    _check(found, expected, masks)
    untouched = set(values) - set(names) - {n.replace("loc", "untransformed_scale") for n in names}
    assert untouched and all(np.array_equal(values[n], saved.variables[n]) for n in untouched)


@pytest.mark.parametrize("keep_slots", [True, False])
@pytest.mark.parametrize("optimizer", ["AdamOptimizer", "AdagradOptimizer"])
def test_slots_of_a_saver(tmp_path: Path, optimizer: str, keep_slots: bool) -> None:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    rng = np.random.default_rng(0)
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        images = tf1.placeholder(tensorflow.float32, (None, 4), name="images")
        logits, _ = _two_layers(images)
        tensorflow.nn.softmax(logits)
        average = tensorflow.train.ExponentialMovingAverage(0.5)
        trained = getattr(tf1.train, optimizer)(0.01).minimize(tensorflow.reduce_sum(logits**2))
        with tensorflow.control_dependencies([trained]):
            step = average.apply(tf1.trainable_variables())
        session.run(tf1.global_variables_initializer())
        begun = {v.op.name: session.run(v) for v in tf1.global_variables()}
        for _ in range(3):
            session.run(step, {images: rng.normal(size=(8, 4))})
        before = {v.op.name: session.run(v) for v in tf1.global_variables()}
        tf1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=7)
    masks = _exported(tmp_path, tmp_path, None, keep_slots)
    home = str(tmp_path / "out" / "checkpoint")
    reader = tensorflow.train.load_checkpoint(home)
    after = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    assert after.keys() == before.keys()
    named = optimizer.removesuffix("Optimizer")
    slots = [name for name in before if f"/{named}" in name or name.endswith("_power")]
    assert len(slots) == {"Adam": 2 * 6 + 2, "Adagrad": 6}[named]
    for name in slots:
        kept = np.bool_(keep_slots)
        tensor = name.rpartition("/")[0].replace("untransformed_scale", "loc")
        if keep_slots and tensor in masks.files:
            kept = masks[tensor]
        np.testing.assert_array_equal(after[name], np.where(kept, before[name], begun[name]))
        assert not np.array_equal(before[name], begun[name])
    averages = [name for name in before if name.endswith("ExponentialMovingAverage")]
    assert len(averages) == 6  # no optimizer's
    assert all(np.array_equal(after[name], before[name]) for name in averages)


def test_a_saver_restores_slices(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tensorflow.float32, (None, 4), name="images")
        three, two = tf1.fixed_size_partitioner(3), tf1.fixed_size_partitioner(2, axis=1)
        loc = tf1.get_variable("w", (4, 3), partitioner=three, use_resource=False)
        raw = tf1.get_variable("w_raw", (4, 3), partitioner=two, use_resource=True)
        loc, raw = tensorflow.convert_to_tensor(loc), tensorflow.convert_to_tensor(raw)
        noise = tensorflow.random.normal((4, 3))
        tensorflow.nn.softmax(x @ (loc + tensorflow.nn.softplus(raw) * noise))
        session.run(tf1.global_variables_initializer())
        before = session.run([loc, raw])
        tf1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=7)
    bprune_hpc.load(tmp_path).prune(fraction=0.5).save(tmp_path / "out", ["checkpoint"])
    home = tmp_path / "out" / "checkpoint"
    kept = np.load(home / "mask.npz")["w"]
    with tensorflow.Graph().as_default() as graph, tf1.Session() as session:
        tf1.train.import_meta_graph(str(home / "model.ckpt-7.meta")).restore(
            session, str(home / "model.ckpt-7")
        )
        after = session.run([graph.get_tensor_by_name(one.name) for one in (loc, raw)])
    assert np.count_nonzero(kept) == 6
    np.testing.assert_array_equal(after[0], np.where(kept, before[0], 0))
    np.testing.assert_array_equal(after[1][kept], before[1][kept])
    assert (after[1][~kept] < -70).all()  # a softplus of less than 1e-30


def _one_scale() -> Callable[..., Any]:
    """A mean-field posterior of one scale for the whole layer."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    tfd = tfp.distributions

    def make(dtype: Any, shape: Any, name: str, trainable: bool, add_variable_fn: Any) -> Any:
        loc = add_variable_fn(f"{name}_loc", shape, dtype=dtype, trainable=trainable)
        raw = add_variable_fn(f"{name}_raw_scale", (1,), dtype=dtype, trainable=trainable)
        scale = tfp.util.DeferredTensor(
            raw, lambda v: tf.nn.softplus(v) * tf.ones(shape), shape=shape
        )
        return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=len(shape))

    return make


def _k_tied() -> Callable[..., Any]:
    """Scales of rank 2 (Swiatkowski et al. 2020)."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    tfd = tfp.distributions

    def make(dtype: Any, shape: Any, name: str, trainable: bool, add_variable_fn: Any) -> Any:
        loc = add_variable_fn(f"{name}_loc", shape, dtype=dtype, trainable=trainable)
        left = add_variable_fn(f"{name}_u", (shape[0], 2), dtype=dtype, trainable=trainable)
        right = add_variable_fn(f"{name}_v", (shape[1], 2), dtype=dtype, trainable=trainable)
        scale = tfp.util.DeferredTensor(
            left, lambda u: tf.abs(u) @ tf.transpose(tf.abs(right)), shape=shape
        )
        return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=len(shape))

    return make


@pytest.mark.parametrize("make", [_one_scale, _k_tied])
def test_shared_scales_are_refused_by_name(tmp_path: Path, make: Callable[..., Any]) -> None:
    import tensorflow_probability as tfp
    import tf_keras

    def build() -> Any:
        layer = tfp.layers.DenseReparameterization(3, kernel_posterior_fn=make())
        return tf_keras.Sequential([tf_keras.layers.Input((4,)), layer])

    keras_tracing.build_model(build).save_weights(tmp_path / "net.weights.h5")
    net = bprune_hpc.load(tmp_path / "net.weights.h5", model=build).prune(fraction=0.5)
    with pytest.raises(ConfigError, match="formats=checkpoint.*kernel_posterior_loc.*scale"):
        net.save(tmp_path / "out", formats=["checkpoint"])
    assert not (tmp_path / "out").exists()
    net.save(tmp_path / "out", formats=["savedmodel"])


def test_a_model_in_memory(tmp_path: Path, trained: Any) -> None:
    net = bprune_hpc.load(trained).prune(fraction=0.6)
    net.save(tmp_path / "out", formats=["checkpoint"])
    home = tmp_path / "out" / "checkpoint"
    before = _posterior_of(trained)  # the model itself stays as it was
    assert all((loc != 0).all() for loc, _ in before.values())
    model = small_models.dense_flipout()
    model.load_weights(home / f"{trained.name}.weights.h5")
    found = dict(zip(before, _posterior_of(model).values(), strict=True))
    _check(found, before, np.load(home / "mask.npz"))
