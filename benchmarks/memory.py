"""Peak resident memory: against draws, thresholds and ranks, and of a large output.

Measured on ranks without TensorFlow, where nothing large hides what grows; and, against draws, of
the command as users run it too, of which the worse of both counts. All are started by the launcher,
also when there is one rank.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bprune_hpc.results.file import open_results

from .processes import python
from .ranks import on_ranks
from .record import Measured
from .timing import Settings


def run(settings: Settings) -> Measured:
    """Measure peak memory in processes of their own."""
    absolute: dict[str, Any] = {}
    few, some, many = numbers = settings.choose((10, 20, 40), (50, 200, 1000))
    with tempfile.TemporaryDirectory() as directory:
        of_sweeps = [
            _of_sweep(Path(directory) / "sweep.h5", n_draws, settings) for n_draws in (few, many)
        ]
    base = {"network": "overpruned", "n_examples": settings.choose(50, 200), "thresholds": "0,1,2"}
    of_ranks = {n_draws: _peak(1, {**base, "n_draws": n_draws}) for n_draws in numbers}
    absolute["draws"] = {
        "digits_sweep_mib": dict(zip((few, many), of_sweeps, strict=True)),
        "dense_network_without_tensorflow_mib": of_ranks,
    }
    of_digits, of_dense = of_sweeps[1] / of_sweeps[0], of_ranks[many] / of_ranks[few]
    ratios = {
        "peak_1000_draws_over_50": max(of_digits, of_dense),
        "peak_1000_draws_over_50_digits_sweep": of_digits,
        "peak_1000_draws_over_50_dense_network": of_dense,
        # Noise and weights of some draws are held at once: of all up to some number, no more.
        "peak_1000_draws_over_200_dense_network": of_ranks[many] / of_ranks[some],
    }

    base = {**base, "n_examples": settings.choose(50, 10_000), "n_draws": 4}
    grids = settings.choose(["0:2:3", "0:2:6"], ["0:2:5", "0:2:11", "0:2:21"])
    absolute["thresholds_mib"] = {grid: _peak(1, {**base, "thresholds": grid}) for grid in grids}
    numbers = settings.choose([1, 2], [1, 2, 4])
    case = {**base, "thresholds": "0:2:11", "n_draws": 40}
    absolute["ranks_most_mib"] = {n: _peak(n, case) for n in numbers}
    ratios["peak_of_most_ranks_over_one"] = (
        absolute["ranks_most_mib"][numbers[-1]] / absolute["ranks_most_mib"][1]
    )

    n_examples, n_classes, n_thresholds = settings.choose((500, 50, 5), (50_000, 1_000, 20))
    large = {
        "network": "tiny",
        "sizes": (8, 4, n_classes),
        "n_examples": n_examples,
        "n_draws": 2,
        "thresholds": f"0:2:{n_thresholds}",
    }
    found = on_ranks(2, large)
    # A peak of the whole job's limit in GiB, not a ratio, but what is asked for.
    ratios["large_output_gib"] = max(found["peak_memory_mib"]) / 1024
    absolute["large_output"] = {**large, "n_ranks": 2, **found}
    return Measured(ratios, absolute)


def _peak(n_ranks: int, case: dict[str, Any]) -> float:
    return float(max(on_ranks(n_ranks, case)["peak_memory_mib"]))


def _of_sweep(output: Path, n_draws: int, settings: Settings) -> float:
    python(
        "-m", "bprune_hpc.sweep", "--model_dir=embedded:digits_fc", f"--output={output}",
        f"--num_monte_carlo={n_draws}",
        "--overwrite",
        *settings.choose(["--thresholds=0,1"], []), n_ranks=1,
    )  # fmt: skip
    with open_results(output) as file:
        return float(max(file["run/peak_memory_mib"][()]))
