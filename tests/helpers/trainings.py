"""Small trainings and what their checkpoints hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import config as train_config

SMALL = ("--dataset=digits", "--hidden=12", "--epochs=4", "--batch_size=50", "--n_draws_eval=5",
         "--learning_rate=0.02")  # fmt: skip
needs_horovod = [pytest.mark.mpi, pytest.mark.horovod]


def config(*flags: str) -> train_config.TrainConfig:
    return train_config.parse(flags, "train")


def variables(case_dir: Path) -> dict[str, np.ndarray]:
    tf = import_tensorflow()
    reader = tf.train.load_checkpoint(str(case_dir))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.tobytes() == other[name].tobytes(), name
