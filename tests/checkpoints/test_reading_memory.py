"""Reading a checkpoint costs its own size in memory and little more, each tensor read once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.helpers.launch import ROOT, run_group

WIDE = 4096
MODEL = "tests.checkpoints.test_reading_memory:wide_model"
# Written in this order: Keras makes its classes over for TensorFlow 1. :func:`write` knows more.
KINDS = ("weights.h5", "keras", "tf1")

# Writes networks of 270 MB, or reads one after a small one of the same kind, which loads code.
PROGRAM = """
import gc, sys
from pathlib import Path
from tests.checkpoints import test_reading_memory as test

def status(key):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))
    return int(line.split()[1])

task, place, *kinds = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
if task == "write":
    for kind in kinds:
        (place / kind).mkdir()
        test.write(kind, place / kind / "small", 8)
        test.write(kind, place / kind / "wide", test.WIDE)
else:
    (kind,) = kinds
    place = place / kind
    test.read(kind, place / "small", 8)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    test.read(kind, place / "wide", test.WIDE)
    print(status("VmHWM") - before)
"""


def _layers(width: int) -> list[Any]:
    import tensorflow_probability as tfp

    of = tfp.layers
    return [
        of.DenseFlipout(width, activation="relu"),
        of.DenseReparameterization(width, activation="relu"),
        of.DenseLocalReparameterization(10),
    ]


def small_model() -> Any:
    import tf_keras

    return tf_keras.Sequential([tf_keras.layers.Input((8,)), *_layers(8)])


def wide_model() -> Any:
    import tf_keras

    return tf_keras.Sequential([tf_keras.layers.Input((WIDE,)), *_layers(WIDE)])


def write(kind: str, place: Path, width: int) -> None:
    """Save a network of that width, with the values that TFP starts from."""
    from bprune_hpc.tensorflow_import import import_tensorflow

    tensorflow = import_tensorflow()
    place.mkdir()
    if kind == "tf1":
        tf1 = tensorflow.compat.v1
        with tensorflow.Graph().as_default(), tf1.Session() as session:
            hidden = tf1.placeholder(tensorflow.float32, (None, width))
            for layer in _layers(width):
                hidden = layer(hidden)
            tensorflow.nn.softmax(hidden)
            session.run(tf1.global_variables_initializer())
            tf1.train.Saver().save(session, str(place / "model.ckpt"))
        return
    model = small_model() if width == 8 else wide_model()
    if kind == "saved_model":
        spec = tensorflow.TensorSpec((None, width), tensorflow.float32)
        call = tensorflow.function(lambda x: model(x, training=False)).get_concrete_function(spec)
        tensorflow.saved_model.save(model, str(place), signatures=call)
    elif kind == "tf2_checkpoint":
        tensorflow.train.Checkpoint(model=model).save(str(place / "ckpt"))
    else:
        path = place / f"net.{kind}"
        model.save(path) if kind == "keras" else model.save_weights(path)


def read(kind: str, place: Path, width: int) -> Any:
    """Open it as rank 0 does; tensors of a checkpoint that are read twice are an error."""
    from bprune_hpc.checkpoints import keras_weights
    from bprune_hpc.checkpoints.case import read_case
    from bprune_hpc.checkpoints.saver import CheckpointReader

    seen: list[str] = []
    plain, plain_keras = CheckpointReader.read, keras_weights.read

    def counted(self: Any, names: Any) -> Any:
        seen.extend(names)
        return plain(self, names)

    def counted_keras(data_set: Any, dtype: str) -> Any:
        seen.append(data_set.name)
        return plain_keras(data_set, dtype)

    needs_model = kind not in ("tf1", "saved_model")
    model = (MODEL if width == WIDE else MODEL.replace("wide", "small")) if needs_model else None
    with (
        mock.patch.object(CheckpointReader, "read", counted),
        mock.patch.object(keras_weights, "read", counted_keras),
    ):
        case = read_case(place, model=model)
    assert seen and len(seen) == len(set(seen)), f"read twice: {seen}"
    assert case.posterior.n_weights == 2 * width**2 + 10 * width
    return case


def _run(*arguments: str) -> str:
    program = [sys.executable, "-c", PROGRAM, *arguments]
    done = run_group(program, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Networks of every kind; removed afterwards, since they are large."""
    place = tmp_path_factory.mktemp("written")
    _run("write", str(place), *KINDS)
    yield place
    shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_peak_of_memory(written: Path, kind: str) -> None:
    """1.3 times the size of what is stored, over what TensorFlow and its code take."""
    peak = int(_run("read", str(written), kind)) * 1024
    wide = written / kind / "wide"
    size = sum(path.stat().st_size for path in wide.rglob("*") if path.is_file())
    assert size > 4 * 2 * 2 * WIDE**2
    assert peak <= 1.3 * size, f"{peak / size:.2f} times the {size >> 20} MiB of the checkpoint"
