"""A training, ours or that of ``fit``, whose epochs are timed.

    mpirun -n 2 python -m benchmarks.training_program '{"network": "dense", "by": "mpi", ...}'

Ours is the command's own, on as many ranks as are started, with data from a file. ``fit`` is that
of tf_keras on so many threads, with the layers of TensorFlow Probability that are in our networks
too. Prints JSON on rank 0: images a second, of all ranks together; medians over epochs, without the
first two. Of ours also how many numbers are trained, and a digest of them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bprune_hpc.models import zoo
from bprune_hpc.models.layers import Flipout, dense, keras, resnet18
from bprune_hpc.mpi.comm import Comm
from bprune_hpc.mpi.comm import run as run_on_ranks
from bprune_hpc.tensorflow_import import import_tensorflow, limit_threads
from bprune_hpc.training import config as settings
from bprune_hpc.training import report

N_CLASSES = 10
_NOT_COUNTED = 2
HIDDEN = (400, 400)


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes
    ----------
    network : {"dense", "resnet18"}
        784-400-400-10 for images of 28 x 28; or ResNet-18 for those of 8 x 8.
    by : {"mpi", "horovod", "fit"}
    batch_size : int
        Of each rank, or of ``fit``.
    n_threads : int
        Of ``fit``; ours have one a rank.
    estimator : str
        Of ours.
    width : int
        Of ResNet-18.
    """

    network: str
    by: str
    n_images: int
    n_epochs: int
    batch_size: int = 64
    n_threads: int = 1
    estimator: str = "flipout"
    width: int = 8

    @property
    def shape(self) -> tuple[int, int]:
        """Of an image."""
        return (28, 28) if self.network == "dense" else (8, 8)

    def images(self) -> tuple[Any, Any]:
        """Images in [0, 1] and their classes; nothing to learn, as no time depends on it."""
        rng = np.random.default_rng(0)
        x = rng.random((self.n_images, *self.shape), dtype=np.float32)
        return x, rng.integers(0, N_CLASSES, self.n_images)


class Clock:
    """Time at the end of each epoch, and the processor's time of this process."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def note(self) -> None:
        """An epoch has ended."""
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())

    def says(self, n_images: int, n_ranks: int) -> dict[str, float]:
        """Images a second, and a second of a processor's time."""
        wall, processor = (
            median(np.diff(times[_NOT_COUNTED - 1 :])) for times in (self.wall, self.processor)
        )
        return {
            "images_per_s": n_images / float(wall),
            "images_per_processor_s": n_images / n_ranks / float(processor),
        }


def ours(case: Case, comm: Comm) -> int:
    """Train by the command."""
    from bprune_hpc import train

    clock = Clock()

    def progress(n_epochs: int) -> Callable[..., None]:
        return lambda *numbers: clock.note()

    report.progress = progress
    with tempfile.TemporaryDirectory() as place:
        if comm.is_root:
            x, y = case.images()
            np.savez(Path(place) / "data.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
        flags = [
            "--dataset=npz", f"--data_path={place}/data.npz", f"--model_dir={place}/case",
            f"--model={case.network}", f"--hidden={','.join(map(str, HIDDEN))}",
            f"--width={case.width}", f"--epochs={case.n_epochs}", f"--batch_size={case.batch_size}",
            f"--estimator={case.estimator}", "--learning_rate=0.0001", "--n_draws_eval=1",
        ]  # fmt: skip
        if comm.size > 1:
            flags.append(f"--allreduce={case.by}")
        # The files are those of rank 0, which alone reads and writes them.
        config = comm.from_root(lambda: settings.parse(flags, "train"))
        status, _ = train.train(config, comm)
        if comm.is_root:
            per_step = case.batch_size * comm.size
            n_images = case.n_images // per_step * per_step
            found = {**clock.says(n_images, comm.size), **_trained(Path(place) / "case")}
            sys.stdout.write(json.dumps(found) + "\n")
    return status


def _trained(directory: Path) -> dict[str, Any]:
    """How many numbers a training has given their values, and a digest of these."""
    tf = import_tensorflow()
    reader = tf.train.load_checkpoint(str(directory))
    shapes = reader.get_variable_to_shape_map()
    names = sorted(name for name in shapes if f"{name}/Adam" in shapes)
    arrays = [reader.get_tensor(name) for name in names]
    digest = hashlib.sha256(b"".join(one.tobytes() for one in arrays)).hexdigest()
    return {"n_trained": sum(one.size for one in arrays), "sha256": digest}


def fit(case: Case) -> None:
    """Train by ``fit``."""
    limit_threads(case.n_threads, case.n_threads)
    tf = import_tensorflow()
    flipout = Flipout(case.n_images, is_deep=case.network == "resnet18")
    inputs = keras().Input((*case.shape, 1))
    if case.network == "dense":
        outputs = keras().layers.Flatten()(inputs)
        for layer in dense(N_CLASSES, flipout, HIDDEN):
            outputs = layer(outputs)
    else:
        outputs = resnet18(inputs, N_CLASSES, flipout, case.width)[0]
    model = keras().Model(inputs, outputs)
    model.compile(
        keras().optimizers.Adam(0.0001),
        keras().losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = case.images()
    n_images = case.n_images // case.batch_size * case.batch_size
    data = tf.data.Dataset.from_tensor_slices((x[..., None], y)).shuffle(case.n_images)
    data = data.batch(case.batch_size, drop_remainder=True).prefetch(1)
    clock = Clock()

    class Ends(keras().callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, *_: Any) -> None:
            clock.note()

    model.fit(data, epochs=case.n_epochs, verbose=0, callbacks=[Ends()])
    sys.stdout.write(json.dumps(clock.says(n_images, 1)) + "\n")


def main() -> int:
    """Run the case that is the one argument."""
    case = Case(**json.loads(sys.argv[1]))
    assert case.network in zoo.MODELS
    warnings.filterwarnings("ignore", category=UserWarning)
    if case.by == "fit":
        fit(case)
        return 0
    return run_on_ranks(lambda comm: ours(case, comm))


if __name__ == "__main__":
    sys.exit(main())
