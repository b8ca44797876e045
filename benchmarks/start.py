"""Start-up: from launch to the first draw on two ranks, and the digits on 64 ranks."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from .processes import ROOT, python
from .record import Measured
from .timing import Settings

_ARGUMENTS = f"@{ROOT / 'configs' / 'ArgFilePrune.txt'}"


def run(settings: Settings) -> Measured:
    """Measure in processes of their own, in turns."""
    with tempfile.TemporaryDirectory() as directory:
        # Each sweep from the beginning, not where the one before it has ended.
        output = (f"--output={Path(directory) / 'sweep.h5'}", "--overwrite")
        quick = settings.choose(["--num_monte_carlo=4", "--thresholds=0,1"], [])
        imports, draws = [], []
        for _ in range(settings.choose(1, 5)):
            imports.append(python("-c", "import tensorflow").seconds)
            draws.append(_first_draw([_ARGUMENTS, *output, "--num_monte_carlo=2"]))
        n_ranks = settings.choose(2, 64)
        many = python(
            "-m", "bprune_hpc.sweep", _ARGUMENTS, *output, *quick, n_ranks=n_ranks,
            watch_s=settings.choose(0.2, 2),
        )  # fmt: skip
    seconds = median(one["seconds"] for one in draws)
    # Minutes and GiB are no ratios, but what is asked for.
    ratios = {
        "first_draw_over_import_tensorflow": seconds / median(imports),
        "digits_64_ranks_minutes": many.seconds / 60,
        "digits_64_ranks_gib": many.memory_gib,
    }
    absolute = {
        "import_tensorflow_seconds": imports,
        "first_draw_seconds": [one["seconds"] for one in draws],
        "ranks_with_tensorflow_at_first_draw": max(one["with_tensorflow"] for one in draws),
        "digits_ranks": n_ranks,
        "digits_seconds": many.seconds,
        "digits_gib": many.memory_gib,
    }
    return Measured(ratios, absolute)


def _first_draw(arguments: list[str]) -> Any:
    return python(
        "-m", "benchmarks.first_draw_program", str(time.time()), *arguments, n_ranks=2
    ).said
