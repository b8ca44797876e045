"""What memory is measured, and that that of a sweep does not grow with the number of draws."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.launch import run_group

PROGRAM = """
import sys
from bprune_hpc import sweep
from bprune_hpc.job import memory
status = sweep.main(sys.argv[1:])
sys.stderr.write(f"peak {memory.peak_mib()}\\n")
sys.exit(status)
"""
ALLOCATION = """
from bprune_hpc.job import memory
before = memory.peak_mib()
held = bytearray(b"x") * (300 * 2**20)
del held
print(before, memory.peak_mib(), memory.resident_mib())
print(memory.forget_peak() and memory.peak_mib())
"""


def peak_mib(n_draws: int, output: Path) -> float:
    flags = [
        "--model_dir=embedded:digits_fc", f"--output={output}",
        f"--num_monte_carlo={n_draws}",
    ]  # fmt: skip
    done = run_group([sys.executable, "-c", PROGRAM, *flags])
    assert done.returncode == 0, done.stderr
    return float(done.stderr.rpartition("peak ")[2])


@pytest.mark.slow
def test_the_peak_at_1000_draws_is_within_5_percent_of_that_at_50(tmp_path: Path) -> None:
    few, many = (peak_mib(n, tmp_path / f"{n}.h5") for n in (50, 1000))
    print(f"{few:.1f} MiB, {many:.1f} MiB")
    assert many < 1.05 * few


def test_the_peak_is_of_the_process_itself_and_stays() -> None:
    ballast = bytearray(b"x") * (400 * 2**20)  # a child inherits the peak of ru_maxrss
    done = run_group([sys.executable, "-c", ALLOCATION])
    assert len(ballast) > 0 and done.returncode == 0, done.stderr
    *numbers, afterwards = done.stdout.split()
    before, peak, now = map(float, numbers)
    assert before < 300
    assert peak - before == pytest.approx(300, abs=10)
    assert now < before + 50
    if afterwards != "False":  # this system can forget
        assert float(afterwards) < before + 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_what_arrays_give_back_is_kept_for_the_next() -> None:
    program = (
        "import resource; import numpy as np; from bprune_hpc.job import memory\n"
        "memory.keep_freed()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(200): np.ones(2**18)\n"  # of 2 MiB
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )

    def n_faults(**environment: str) -> int:
        done = run_group([sys.executable, "-c", program], **environment)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    n_pages = 2**21 // os.sysconf("SC_PAGE_SIZE")
    assert n_faults() < 10 * n_pages
    # It stays as the user has set it.
    assert n_faults(MALLOC_MMAP_THRESHOLD_="4096") >= 190 * n_pages


def test_age_is_that_of_the_process() -> None:
    begin = time.monotonic()
    program = "from bprune_hpc.job.environment import age_s; print(age_s())"
    done = run_group([sys.executable, "-c", program])
    assert 0 < float(done.stdout) <= time.monotonic() - begin + 0.02  # two ticks
