"""Small TF1-style graphs with TFP layers, trained to nothing in particular, saved by a Saver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc.tensorflow_import import import_tensorflow

N_EXAMPLES = 4


@dataclass
class Saved:
    """A saved graph and what it says of itself: its own posterior, its own predictions."""

    directory: Path
    x: np.ndarray
    variables: dict[str, np.ndarray]
    locs: list[np.ndarray]
    scales: list[np.ndarray]
    predictions: np.ndarray  # (n_runs, n_examples, n_classes)


def save(
    directory: Path,
    build: Callable[[Any], tuple[Any, list[Any]]],
    input_shape: tuple[int, ...] = (4,),
    n_runs: int = 0,
    saver_version: int = 2,
) -> Saved:
    """Build logits from a placeholder, give every variable a random value, run and save.

    ``build`` takes the placeholder and returns logits and the Normals of the mean-field tensors.
    """
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    rng = np.random.default_rng(8)
    x = rng.normal(size=(N_EXAMPLES, *input_shape)).astype(np.float32)
    with tensorflow.Graph().as_default():
        tensorflow.random.set_seed(5)
        images = tf1.placeholder(tensorflow.float32, (None, *input_shape), name="images")
        labels = tf1.placeholder(tensorflow.int32, (None,), name="labels")
        logits, normals = build(images)
        tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        probabilities = tensorflow.nn.softmax(logits)
        variables = tf1.global_variables()
        with tf1.Session() as session:
            for variable in variables:
                value = rng.normal(0, 0.7, variable.shape.as_list())
                if "untransformed_scale" in variable.name:
                    value = value - 0.5
                if "moving_variance" in variable.name:
                    value = np.exp(value)
                feed = {variable.initializer.inputs[1]: value.astype(np.float32)}
                session.run(variable.initializer, feed)
            run = session.make_callable(probabilities, feed_list=[images])
            predictions = np.array([run(x) for _ in range(n_runs)])
            saver = tf1.train.Saver(write_version=saver_version)
            saver.save(session, str(directory / "model.ckpt"), global_step=7)
            return Saved(
                directory=directory,
                x=x,
                variables={variable.op.name: session.run(variable) for variable in variables},
                locs=[session.run(tensorflow.convert_to_tensor(n.loc)) for n in normals],
                scales=[session.run(tensorflow.convert_to_tensor(n.scale)) for n in normals],
                predictions=predictions,
            )
