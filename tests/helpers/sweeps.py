"""Small sweeps of each kind, run in this process to their end or a part of the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bprune_hpc import sweep
from bprune_hpc.mpi.comm import Comm, SerialComm, run
from bprune_hpc.runner.timing import Timing

KINDS = {
    "classes": ["--model_dir=fake"],
    "other examples": ["--model_dir=fake", "--ood_dataset=digits"],
    "regression": ["--model_dir=fake:regression"],
    "blocks": ["--model_dir=fake", "--state_limit_gb=0.0001"],
    "blocks and other examples": [
        "--model_dir=fake", "--ood_dataset=digits", "--state_limit_gb=0.0002",
    ],
    "blocks of a regression": ["--model_dir=fake:regression", "--state_limit_gb=0.0002"],
    "training data": [
        "--model_dir=fake", "--ood_dataset=digits", "--elbo_dataset=digits", "--prior_scale=0.7",
    ],
    "blocks and training data": [
        "--model_dir=fake:regression", "--elbo_dataset=diabetes", "--prior_scale=0.7",
        "--state_limit_gb=0.0002",
    ],
    "single draws": ["--model_dir=fake", "--pairing=none"],
    "noise by example": [
        "--model_dir=fake", "--ood_dataset=digits", "--state_limit_gb=0.0002",
        "--draw_noise=per_example",
    ],
    "noise by block": [
        "--model_dir=fake:regression", "--state_limit_gb=0.0002", "--noise_block=15",
    ],
}  # fmt: skip
FLAGS = ["--thresholds=0,0.5,1", "--num_monte_carlo=28", "--batch_size=10"]


def start(
    output: Path, *flags: str, n_supersteps: int | None = None, ask: Callable | None = None
) -> int:
    """Run a sweep, to its end or for so many supersteps of work; the exit status."""
    asked = []

    def after_some(timing: Timing) -> str | None:
        asked.append(timing)
        return "test" if n_supersteps is not None and len(asked) > n_supersteps else None

    def main(comm: Comm) -> int:
        assert isinstance(comm, SerialComm)
        return sweep.sweep(comm, [*flags, f"--output={output}"], ask or after_some)

    return run(main)
