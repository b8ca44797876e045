"""Small networks of every kind of source, saved once, to be damaged again and again.

    make_all(directory, theta)

Runs TensorFlow, so it belongs in a process of its own: what is forked later must not have.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERAS_MODELS = {
    "weights.h5": "dense_flipout",
    "h5": "dense_reparameterization",
    "keras": "residual",
}


def make_all(directory: Path, theta: Path | None) -> None:
    """One directory for each source below ``directory``."""
    import small_models
    import tf_keras
    from small_graphs import save

    from bprune_hpc.tensorflow_import import import_tensorflow

    digits = ROOT / "bprune_hpc" / "embedded" / "digits_fc"
    for name, place in {"tf1 digits": digits, "tf1 theta": theta}.items():
        if place is not None:
            target = directory / name
            target.mkdir()
            for path in place.iterdir():
                if path.name.startswith(("model", "checkpoint", "Ops")):
                    shutil.copyfile(path, target / path.name)
    (directory / "tf1 small").mkdir()
    save(directory / "tf1 small", _three_layers, (6, 6, 1))
    (directory / "tf1 v1").mkdir()
    save(directory / "tf1 v1", _three_layers, (6, 6, 1), saver_version=1)
    tensorflow = import_tensorflow()
    model = small_models.dense_local_reparameterization()
    (directory / "tf2_checkpoint").mkdir()
    tensorflow.train.Checkpoint(model=model, step=tensorflow.Variable(3)).save(
        str(directory / "tf2_checkpoint" / "ckpt")
    )
    tf_keras.backend.clear_session()
    for suffix, function in KERAS_MODELS.items():
        model = getattr(small_models, function)()
        target = directory / f"keras {suffix}"
        target.mkdir()
        path = target / f"net.{suffix}"
        model.save(path) if suffix == "keras" else model.save_weights(path)
    model = small_models.residual()
    spec = tensorflow.TensorSpec((None, 4, 4, 2), tensorflow.float32, name="x")
    call = tensorflow.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    tensorflow.saved_model.save(model, str(directory / "saved_model"), signatures=call)
    shutil.rmtree(directory / "saved_model" / "assets", ignore_errors=True)


def model_of(name: str) -> str | None:
    """``--model`` of a source."""
    if name == "tf2_checkpoint":
        return "small_models:dense_local_reparameterization"
    kind, _, suffix = name.partition(" ")
    return f"small_models:{KERAS_MODELS[suffix]}" if kind == "keras" else None


def _three_layers(images: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf
    import tensorflow_probability as tfp

    normal = tfp.layers.default_mean_field_normal_fn
    conv = tfp.layers.Convolution2DReparameterization(3, 3, bias_posterior_fn=normal())
    dense = tfp.layers.DenseLocalReparameterization(5, activation="relu")
    head = tfp.layers.DenseFlipout(3)
    hidden = tf.nn.max_pool2d(tf.nn.relu(conv(images)), 2, 2, "SAME")
    logits = head(dense(tf.reshape(hidden, (-1, 12))))
    layers = [conv.kernel_posterior, dense.kernel_posterior, head.kernel_posterior]
    return logits, [layer.distribution for layer in layers]
