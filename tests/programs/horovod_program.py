"""Writes what Horovod training scripts leave behind, and opens it where Horovod cannot be imported.

``horovod_program.py write DIR`` runs on every rank; ``horovod_program.py open DIR`` on its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models


def write(directory: Path) -> None:
    """A Saver case, a checkpoint and a SavedModel; rank 0 writes."""
    import_tensorflow()
    import horovod.tensorflow as hvd

    hvd.init()
    _graph_mode(directory / "tf1", hvd)
    _eager_mode(directory, hvd)


def _graph_mode(directory: Path, hvd: Any) -> None:
    """Local gradient aggregation, broadcasts, and an allreduce inside a function."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default():
        images = tf1.placeholder(tensorflow.float32, (None, 4), name="images")
        labels = tf1.placeholder(tensorflow.int32, (None,), name="labels")
        with tf1.variable_scope("net"):
            loc = tf1.get_variable("kernel_posterior_loc", (4, 3), use_resource=True)
            raw = tf1.get_variable("kernel_posterior_raw", (4, 3), use_resource=True)
        scale = tensorflow.nn.softplus(raw)
        logits = images @ (loc + scale * tensorflow.random.normal((4, 3)))
        loss = tensorflow.reduce_mean(
            tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )

        @tensorflow.function(autograph=False)
        def averaged(value: Any) -> Any:
            return hvd.allreduce(value, name="metric")

        metric = averaged(loss)
        optimizer = hvd.DistributedOptimizer(
            tf1.train.AdamOptimizer(), backward_passes_per_step=2, average_aggregated_gradients=True
        )
        step = optimizer.minimize(loss, global_step=tf1.train.get_or_create_global_step())
        broadcast = hvd.broadcast_global_variables(0)
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            session.run(tf1.local_variables_initializer())
            session.run(broadcast)
            rng = np.random.default_rng(hvd.rank())
            feed = {images: rng.normal(size=(8, 4)), labels: rng.integers(0, 3, 8)}
            for _ in range(2):
                session.run([step, metric], feed)
            if hvd.rank() == 0:
                tf1.train.Saver().save(session, str(directory / "model.ckpt"), global_step=2)
                np.savez(directory / "loc.npz", loc=session.run(loc))


def _eager_mode(directory: Path, hvd: Any) -> None:
    """Training in a function: model, optimizer and step in one checkpoint; a SavedModel too."""
    tensorflow = import_tensorflow()
    import tf_keras

    model = small_models.dense_flipout()
    optimizer = tf_keras.optimizers.legacy.Adam(0.01)
    step = tensorflow.Variable(0, dtype=tensorflow.int64)

    @tensorflow.function(
        input_signature=[
            tensorflow.TensorSpec((None, 4), tensorflow.float32, name="x"),
            tensorflow.TensorSpec((None,), tensorflow.int32, name="y"),
        ],
        autograph=False,
    )
    def train_step(x: Any, y: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            loss = tensorflow.reduce_mean(
                tensorflow.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
            )
        tape = hvd.DistributedGradientTape(tape)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return hvd.allreduce(loss)

    rng = np.random.default_rng(hvd.rank())
    for _ in range(2):
        train_step(rng.normal(size=(8, 4)).astype("f4"), rng.integers(0, 3, 8).astype("i4"))
        step.assign_add(1)
    hvd.broadcast_variables(model.variables, root_rank=0)
    hvd.broadcast_variables(optimizer.variables(), root_rank=0)
    if hvd.rank() == 0:
        checkpoint = tensorflow.train.Checkpoint(bnn=model, optimizer=optimizer, step=step)
        checkpoint.save(str(directory / "tf2" / "ckpt"))
        serve = tensorflow.function(lambda x: model(x, training=False)).get_concrete_function(
            tensorflow.TensorSpec((None, 4), tensorflow.float32)
        )
        saved = tensorflow.Module()
        saved.model, saved.optimizer, saved.train_step = model, optimizer, train_step
        signatures = {"serving_default": serve, "train": train_step}
        tensorflow.saved_model.save(saved, str(directory / "saved_model"), signatures)
        np.savez(directory / "weights.npz", **{v.name: v.numpy() for v in model.variables})


def open_all(directory: Path) -> None:
    """Open all three without Horovod; one line of JSON."""
    sys.modules["horovod"] = None  # type: ignore[assignment]
    from bprune_hpc.checkpoints.case import read_case

    found = {}
    for name, options in (
        ("tf1", {}),
        ("tf2", {"model": "tests.helpers.small_models:dense_flipout"}),
        ("saved_model", {}),
    ):
        case = read_case(directory / name, **options)
        found[name] = {
            "step": case.source.step,
            "loc": {key: value.tolist() for key, value in case.posterior.loc.items()},
            "horovod": {op: n for op, n in case.source.dropped_ops.items() if "Horovod" in op},
            "stripped": sorted(case.source.stripped),
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    {"write": write, "open": open_all}[sys.argv[1]](Path(sys.argv[2]))
