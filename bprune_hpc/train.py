"""Train a mean-field Bayesian network with Flipout on one or many Horovod ranks.

    mpirun -n 2 python -m bprune_hpc.train @configs/train_digits.txt

What belongs here: the training run, from flags to a directory with a TF1 checkpoint, its meta
graph and the text files BPrune's users keep beside it. What does not: networks (``models``), the
graph (``train_graph``), schedules and shares (``train_config``), pruning.

Every rank takes its own examples of each step and its own Flipout noise; gradients are averaged.
The same seed and the same number of ranks give the same bits. Batch normalization sees a rank's
own examples, and each rank keeps moving statistics of its own: rank 0's are evaluated and saved.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import comm as ranks
from . import graph_info, train_graph, train_report
from .data import DataSet, check_labels, load
from .data_values import Split
from .environment import versions
from .errors import BpruneError, ConfigError, LaunchError
from .models import image_shape
from .tensorflow_import import import_tensorflow, open_session
from .train_config import (
    TrainConfig,
    epoch_batches,
    kl_factor,
    learning_rate,
    parse,
    steps_per_epoch,
)

PROG = "python -m bprune_hpc.train"
CHECKPOINT = "model.ckpt"

logger = logging.getLogger(__name__)
Comm = ranks.Comm


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on all ranks; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)

    def command(comm: Comm) -> int:
        train(comm.from_root(lambda: parse(arguments, PROG)), comm)
        return 0

    return ranks.run(command)


def train(config: TrainConfig, comm: Comm) -> dict[str, Any]:
    """Train, evaluate on rank 0, and write the case directory.

    Parameters
    ----------
    config : TrainConfig
    comm : SerialComm or MPIComm
        All of its ranks call this.

    Returns
    -------
    dict
        On rank 0 what ``train.json`` holds; elsewhere empty.

    Raises
    ------
    EndedByRoot
        If the run cannot start as asked for (rank 0 has a ConfigError or DataError); nothing
        was written then.
    BpruneError
        If the loss is no longer finite.
    """
    loaded: dict[str, DataSet] = {}  # on rank 0, which alone reads files
    n_steps, n_outputs = comm.from_root(lambda: _prepare(config, comm.size, loaded))
    on_root: dict[str, NDArray[Any]] | None = None
    if comm.is_root:
        on_root = {"x": loaded["train"].x, "y": loaded["train"].y}
    arrays = comm.bcast_arrays(on_root)
    x, y = arrays["x"], arrays["y"]
    horovod = _start_tensorflow(comm)
    training = train_graph.build(config, x.shape[1:], n_outputs, len(y), comm.rank, horovod)

    with open_session(training.graph, config.num_intra, config.num_inter) as session:
        session.run(training.init)
        if training.broadcast is not None:
            session.run(training.broadcast)
        started = time.monotonic()
        show = train_report.progress(config.epochs) if comm.is_root else train_report.silent
        for epoch in range(config.epochs):
            nll, kl = _one_epoch(config, comm, training, session, x, y, epoch)
            # One rank's broken gradient breaks all, so rank 0 sees it and says it once: in the
            # losses of the epoch or, if it was the last step's, in what that step left behind.
            if comm.is_root and not math.isfinite(nll + kl + session.run(training.network.kl)):
                raise BpruneError(
                    f"{config.model_dir}: the loss is not finite in epoch {epoch + 1}; "
                    "lower --learning_rate"
                )
            show(epoch + 1, nll, kl)
            due = config.save_every and (epoch + 1) % config.save_every == 0
            if comm.is_root and (due or epoch + 1 == config.epochs):
                prefix = str(Path(config.model_dir) / CHECKPOINT)
                training.saver.save(session, prefix, global_step=(epoch + 1) * n_steps)
        if not comm.is_root:
            return {}
        seconds = time.monotonic() - started
        test = loaded["test"]
        x_test = test.x.reshape(len(test.x), -1)
        measured = train_graph.evaluate(config, training, session, x_test, test.y)
    report = {
        "config": asdict(config),
        "n_ranks": comm.size,
        "n_steps": config.epochs * n_steps,
        "train_time_s": round(seconds, 1),
        "data": {
            "name": test.name,
            "n_train": len(y),
            "n_test": len(test.y),
            "sha256": loaded["train"].sha256 | test.sha256,
            "held_out": not _same_examples(loaded["train"], test),
        },
        **measured,
        "versions": versions(train_report.PACKAGES),
    }
    graph_info.write(config.model_dir, training.graph)
    train_report.write_json(Path(config.model_dir) / "train.json", report)
    train_report.log_result(report)
    return report


def _prepare(config: TrainConfig, n_ranks: int, loaded: dict[str, DataSet]) -> tuple[int, int]:
    """Find out, before anything is written or waited for, whether the run can start."""
    halves: tuple[Split, Split] = ("train", "test")
    for split in halves:
        loaded[split] = load(
            config.dataset,
            config.data_path,
            split,
            subtract_pixel_mean=config.subtract_pixel_mean,
            task=config.task,
        )
    n_outputs = 1
    if config.task == "classification":
        n_outputs = int(loaded["train"].y.max()) + 1
        for half in loaded.values():
            check_labels(half.y, n_outputs)
    if loaded["train"].x.shape[1:] != loaded["test"].x.shape[1:]:
        shapes = loaded["train"].x.shape[1:], loaded["test"].x.shape[1:]
        raise ConfigError(
            f"{config.data_path}: one training example has shape {shapes[0]}, one test example "
            f"{shapes[1]}; save both halves alike"
        )
    if config.model != "dense":
        image_shape(loaded["train"].x.shape[1:])
    n_steps = steps_per_epoch(len(loaded["train"].y), config.batch_size, n_ranks)
    _make_directory(config)
    return n_steps, n_outputs


def _start_tensorflow(comm: Comm) -> Any:
    """Set up this process; returns Horovod over all ranks, or None for one process without it."""
    # Fused buffers are made of what is ready at that moment: sums over three or more ranks would
    # then depend on timing.
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    tf = import_tensorflow()
    tf.config.experimental.enable_op_determinism()
    reason = ""
    try:
        import horovod.tensorflow as horovod
    except (ImportError, tf.errors.NotFoundError) as error:  # the second: for another TensorFlow
        horovod, reason = None, str(error).splitlines()[0]

    def check() -> None:
        if horovod is None and comm.size > 1:
            raise LaunchError(
                f"Horovod cannot be imported ({reason}), so {comm.size} processes cannot train "
                "together; install it (tools/install_horovod.sh) or start one process"
            )
        if horovod is None:
            logger.info("Horovod is not installed: training on this one process")

    comm.from_root(check)
    if horovod is None:
        return None
    horovod.init()
    n_joined = horovod.size()

    def check_size() -> None:
        if n_joined != comm.size:
            raise LaunchError(
                f"Horovod joins {n_joined} of {comm.size} processes; build it with the MPI that "
                "mpi4py loads (tools/install_horovod.sh)"
            )

    comm.from_root(check_size)
    return horovod


def _one_epoch(
    config: TrainConfig,
    comm: Comm,
    training: train_graph.Training,
    session: Any,
    x: NDArray[np.float32],
    y: NDArray[Any],
    epoch: int,
) -> tuple[float, float]:
    """Run this rank's steps; returns its mean negative log-likelihood and KL, nats an example."""
    batches = epoch_batches(len(y), config.batch_size, comm.size, comm.rank, config.seed, epoch)
    losses = np.empty((len(batches), 2))
    for i, batch in enumerate(batches):
        done = epoch + i / len(batches)
        feed = {
            training.inputs: x[batch].reshape(len(batch), -1),
            training.labels: y[batch],
            training.learning_rate: learning_rate(config, comm.size, done),
            training.kl_factor: kl_factor(config, done),
        }
        if training.network.is_training is not None:
            feed[training.network.is_training] = True
        losses[i] = session.run((training.step, training.nll, training.network.kl), feed)[1:]
    nll, kl = losses.mean(axis=0)
    return float(nll), float(kl)


def _make_directory(config: TrainConfig) -> None:
    directory = Path(config.model_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--model_dir={directory}: cannot be made ({error.strerror}); choose another"
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"--model_dir={directory}: cannot be written to; choose another")
    if (directory / "checkpoint").exists() and not config.overwrite:
        raise ConfigError(
            f"--model_dir={directory}: already holds a checkpoint; choose another directory or "
            "pass --overwrite"
        )


def _same_examples(one: DataSet, other: DataSet) -> bool:
    return one.x.shape == other.x.shape and np.array_equal(one.x, other.x)


if __name__ == "__main__":
    sys.exit(main())
