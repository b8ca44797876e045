"""A whole 21-point sweep from the shell, by BPrune's procedure and by ours, launches included.

BPrune runs one process a threshold, whose cost does not depend on it: one is measured and counted
21 times. Where its draws are too slow to be made in full, the first ones are, and the rest follow
from a straight line, since each adds an operation to the graph and so makes the next one slower.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bprune_hpc.results.file import open_results

from . import overpruned
from .bprune_case import DATA_NAME, save
from .processes import python
from .record import Measured
from .timing import Settings

THRESHOLDS = "0:2:21"
N_THRESHOLDS = 21
OUTPUT_NAME = "sweep.h5"
_THRESHOLD = 0.5  # of the process that is measured


def run(settings: Settings) -> Measured:
    """Measure both at two numbers of examples, in turns."""
    n_draws = settings.choose(4, 200)  # the sweep's default
    # Name, examples, draws that BPrune makes, repeats.
    cases = settings.choose(
        [("64", 32, 3, 1), ("10000", 64, 3, 1)],
        [("64", 64, 100, 3), ("10000", 10_000, 20, 1)],
    )
    ratios, absolute = {}, {"n_draws": n_draws, "n_thresholds": N_THRESHOLDS}
    with tempfile.TemporaryDirectory() as directory:
        for name, n_examples, n_made, n_repeats in cases:
            case = Path(directory) / name
            save(case, *overpruned.problem(n_examples))
            theirs, ours = [], []
            for _ in range(n_repeats):
                theirs.append(_theirs(case, n_examples, n_made))
                ours.append(_ours(case, n_draws))
                stages = _stages(case)
            sweeps = [N_THRESHOLDS * _whole(one, n_draws) for one in theirs]
            ratios[f"sweep_over_ours_{name}"] = median(sweeps) / median(ours)
            draws = np.median([one["draw_s"] for one in theirs], axis=0)
            absolute[f"n_examples_{name}"] = {
                "n_examples": n_examples,
                "bprune_sweep_seconds": median(sweeps),
                "bprune_launch_seconds": median(one["launch_s"] for one in theirs),
                "bprune_draw_ms": [round(1e3 * float(one), 2) for one in draws],
                "bprune_draws_made": n_made,
                "ours_sweep_seconds": median(ours),
                "ours_stage_seconds": stages,
                "repeats": n_repeats,
            }
    return Measured(ratios, absolute)


def _theirs(case: Path, n_examples: int, n_draws: int) -> dict[str, Any]:
    arguments = (case, str(n_examples), str(_THRESHOLD), str(n_draws), str(time.time()))
    said: dict[str, Any] = python("-m", "benchmarks.bprune_process", *arguments).said
    return said


def _whole(one: dict[str, Any], n_draws: int) -> float:
    """Seconds of a process that makes all draws."""
    first, *others = one["draw_s"]
    slope, level = np.polyfit(np.arange(1, len(others) + 1), others, 1)
    missing = np.arange(len(others) + 1, n_draws)
    rest = sum(others) + float((level + max(slope, 0) * missing).sum())
    return float(one["launch_s"] + first + rest + one["after_s"])


def _stages(case: Path) -> dict[str, float]:
    """Where the time of our last sweep went, as its file says."""
    with open_results(case / OUTPUT_NAME) as file:
        run = file["run"]
        return {name: float(run[name][0]) for name in run if name.endswith("_seconds")}


def _ours(case: Path, n_draws: int) -> float:
    return python(
        "-m", "bprune_hpc.sweep", f"--model_dir={case}", f"--data_path={case / DATA_NAME}",
        f"--thresholds={THRESHOLDS}", f"--num_monte_carlo={n_draws}", "--overwrite",
        f"--output={case / OUTPUT_NAME}",
    ).seconds  # fmt: skip
