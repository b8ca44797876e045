"""Small regressions, trained by the command `train` in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from bprune_hpc import train
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import config as train_config

SHORT = ("--dataset=diabetes", "--epochs=30", "--batch_size=50", "--learning_rate=0.02",
         "--n_draws_eval=5", "--posterior_scale_init=0.2")  # fmt: skip


def trained(directory: Path, *flags: str) -> Path:
    """A case directory, trained in this process without Horovod."""
    import_tensorflow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_start_tensorflow", lambda config: None)
        config = train_config.parse([*SHORT, *flags, f"--model_dir={directory}"], "train")
        train.train(config, SerialComm())
    return directory
