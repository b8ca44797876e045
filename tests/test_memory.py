"""Memory of a sweep does not grow with the number of draws."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import run_group

PROGRAM = """
import resource, sys
from bprune_hpc import sweep
status = sweep.main(sys.argv[1:])
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\\n")
sys.exit(status)
"""


def peak_kib(n_draws: int, output: Path) -> int:
    flags = [
        "--model_dir=embedded:digits_fc", f"--output={output}",
        f"--num_monte_carlo={n_draws}",
    ]  # fmt: skip
    done = run_group([sys.executable, "-c", PROGRAM, *flags])
    assert done.returncode == 0, done.stderr
    return int(done.stderr.rpartition("peak ")[2])


@pytest.mark.slow
def test_the_peak_at_1000_draws_is_within_5_percent_of_that_at_50(tmp_path: Path) -> None:
    few, many = (peak_kib(n, tmp_path / f"{n}.h5") for n in (50, 1000))
    print(f"{few} KiB, {many} KiB")
    assert many < 1.05 * few
