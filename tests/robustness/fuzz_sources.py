"""Small networks of every kind of source, saved once, to be damaged again and again.

    python -m tests.robustness.fuzz_sources DIRECTORY [THETA]

The same bytes every time, whichever sources there are: else a case would not be one. Runs
TensorFlow, so it belongs in a process of its own: what is forked later must not have.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KERAS_MODELS = {
    "weights.h5": "dense_flipout",
    "h5": "dense_reparameterization",
    "keras": "residual",
}
SOURCES = {
    "keras h5": ("keras",),
    "keras keras": ("keras",),
    "keras weights.h5": ("keras",),
    "saved_model": ("saved_model", "data", "index"),
    "tf1 digits": ("text", "data", "index", "meta"),
    "tf1 small": ("text", "data", "index", "meta"),
    "tf1 theta": ("text", "data", "index", "meta"),
    "tf1 v1": ("text", "v1", "meta"),
    "tf2_checkpoint": ("text", "data", "index"),
}
"""All sources there can be, and the roles of their files."""

_SEED = 5


def make_all(directory: Path, theta: Path | None) -> None:
    """One directory for each source below ``directory``; without ``theta``, all but that one."""
    import tf_keras

    from bprune_hpc.tensorflow_import import import_tensorflow
    from tests.helpers import small_models
    from tests.helpers.small_graphs import save

    digits = ROOT / "bprune_hpc" / "embedded" / "digits_fc"
    for name, place in {"tf1 digits": digits, "tf1 theta": theta}.items():
        if place is not None:
            target = directory / name
            target.mkdir()
            for path in place.iterdir():
                if path.name.startswith(("model", "checkpoint", "Ops")):
                    shutil.copyfile(path, target / path.name)
    for name, version in {"tf1 small": 2, "tf1 v1": 1}.items():
        target = directory / name
        target.mkdir()
        tf_keras.utils.set_random_seed(_SEED)
        save(target, _three_layers, (6, 6, 1), saver_version=version)
        (target / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    tensorflow = import_tensorflow()
    tf_keras.utils.set_random_seed(_SEED)
    model = small_models.dense_local_reparameterization()
    (directory / "tf2_checkpoint").mkdir()
    tensorflow.train.Checkpoint(model=model, step=tensorflow.Variable(3)).save(
        str(directory / "tf2_checkpoint" / "ckpt")
    )
    tf_keras.backend.clear_session()
    for suffix, function in KERAS_MODELS.items():
        tf_keras.utils.set_random_seed(_SEED)
        model = getattr(small_models, function)()
        target = directory / f"keras {suffix}"
        target.mkdir()
        path = target / f"net.{suffix}"
        model.save(path) if suffix == "keras" else model.save_weights(path)
    _make_the_same(directory / "keras keras" / "net.keras")
    tf_keras.utils.set_random_seed(_SEED)
    model = small_models.residual()
    spec = tensorflow.TensorSpec((None, 4, 4, 2), tensorflow.float32, name="x")
    call = tensorflow.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    tensorflow.saved_model.save(model, str(directory / "saved_model"), signatures=call)
    shutil.rmtree(directory / "saved_model" / "assets", ignore_errors=True)


def _make_the_same(path: Path) -> None:
    """Write an archive anew without the time it was saved at and what was where in memory."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name.endswith(".json"):
                content = re.sub(rb'("date_saved": )"[^"]*"', rb'\1""', content)
                content = re.sub(rb'("shared_object_id": )\d+', rb"\g<1>1", content)
            archive.writestr(zipfile.ZipInfo(name), content)


def model_of(name: str) -> str | None:
    """``--model`` of a source."""
    if name == "tf2_checkpoint":
        return "tests.helpers.small_models:dense_local_reparameterization"
    kind, _, suffix = name.partition(" ")
    return f"tests.helpers.small_models:{KERAS_MODELS[suffix]}" if kind == "keras" else None


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


if __name__ == "__main__":
    make_all(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
