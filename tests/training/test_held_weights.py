"""Pruned weights in trainings of one's own: tf_keras, and a TF1 graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import hold
from tests.helpers.small_models import dense_flipout

N_TRAIN = 40


def layers() -> list[Any]:
    return [flipout(8, activation="relu", name="one"), flipout(3, name="two")]


def flipout(units: int, **arguments: Any) -> Any:
    import tensorflow_probability as tfp

    return tfp.layers.DenseFlipout(
        units,
        kernel_divergence_fn=lambda q, p, _: tfp.distributions.kl_divergence(q, p) / N_TRAIN,
        **arguments,
    )


def model_of(made: list[Any]) -> Any:
    import_tensorflow()
    import tf_keras

    return tf_keras.Sequential([tf_keras.Input((5,)), *made])


def masks_of(names: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.random(shape) < 0.4 for name, shape in names.items()}


MASKS = masks_of({"one/kernel_posterior_loc": (5, 8), "two/kernel_posterior_loc": (8, 3)})
X = np.random.default_rng(0).normal(size=(N_TRAIN, 5)).astype(np.float32)
Y = np.arange(N_TRAIN) % 3


def assert_held(values: dict[str, np.ndarray], n_slots: int) -> None:
    """Of each tensor: means and the optimizer's averages are 0, and softplus gives nothing."""
    for name, kept in MASKS.items():
        layer = name.partition("/")[0]
        mine = {n: v for n, v in values.items() if f"{layer}/kernel" in n and v.shape == kept.shape}
        assert len(mine) == 2 + 2 * n_slots
        for of_one, value in mine.items():
            is_scale = of_one == f"{layer}/kernel_posterior_untransformed_scale"
            np.testing.assert_array_equal(value[~kept], -200 if is_scale else 0, err_msg=of_one)
            assert value[kept].all()


@pytest.mark.parametrize(("optimizer", "n_slots"), [("adam", 2), ("momentum", 1)])
def test_a_keras_model(optimizer, n_slots, tmp_path):
    model = model_of(layers())
    import tf_keras

    losses = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    chosen = tf_keras.optimizers.SGD(0.01, momentum=0.9) if optimizer == "momentum" else "adam"
    model.compile(chosen, losses)
    model.fit(X, Y, verbose=0)
    np.savez(tmp_path / "mask.npz", **MASKS)
    held = hold(tmp_path / "mask.npz", model)
    model.compile(chosen, losses)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[held])
    every = {v.name.partition(":")[0]: v.numpy() for v in
             (*model.trainable_variables, *model.optimizer.variables)}  # fmt: skip
    assert_held(every, n_slots)
    model(X)
    expected = 0.0
    for layer in model.layers:
        kept = MASKS[f"{layer.name}/kernel_posterior_loc"]
        normal = layer.kernel_posterior.distribution
        m, s = np.float64(normal.mean())[kept], np.float64(normal.stddev())[kept]
        expected += (-np.log(s) + (s**2 + m**2 - 1) / 2).sum() / N_TRAIN
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_averages_of_another_layer_whose_name_ends_alike_are_left_alone():
    import_tensorflow()
    made = [flipout(8, name="first"), flipout(8, name="one"), flipout(8, name="someone")]
    model = model_of(made)
    masks = masks_of({"one/kernel_posterior_loc": (8, 8)})
    model.compile("adam", "mse")
    model.fit(X, np.ones((N_TRAIN, 8)), verbose=0, callbacks=[hold(masks, model)])
    gone, n_found = ~masks["one/kernel_posterior_loc"], {"one": 0, "someone": 0}
    for slot in model.optimizer.variables:
        for layer in n_found:
            if f"/{layer}/" in slot.name and slot.shape == (8, 8):
                assert slot.numpy()[gone].any() == (layer == "someone"), slot.name
                n_found[layer] += 1
    assert n_found == {"one": 4, "someone": 4}


def test_a_graph_of_tf1():
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        made = layers()
        held = hold(MASKS, made)
        x = v1.placeholder(tf.float32, (None, 5))
        logits = made[1](made[0](x))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits))
        optimizer = v1.train.AdamOptimizer(0.01)
        step = optimizer.minimize(loss + sum(sum(one.losses) for one in made))
        put_back = held.operation(optimizer)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            session.run(put_back)
            for _ in range(5):
                session.run(step, {x: X})
                session.run(put_back)
            every = {v.op.name: session.run(v) for v in v1.global_variables()}
    assert_held(every, 2)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"other": np.ones(3, bool)}, "has 'other', and the model has first/"),
        ({"first/kernel_posterior_loc": np.ones(3, bool)}, r"has shape \(3,\), in the model"),
    ],
)
def test_a_mask_of_another_model_is_refused(masks, message):
    model = dense_flipout()
    model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match=message):
        model.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0, callbacks=[hold(masks, model)])
