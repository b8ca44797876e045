"""What memory is measured, and that that of a sweep does not grow with the number of draws."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import pytest

from bprune_hpc.job import memory
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


GIB = 2**30


def tree(root: Path, groups: str, **files: object) -> Path:
    """A made-up host with 10 GiB free; files of ``/sys/fs/cgroup`` with dots for slashes."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {10 * 2**20} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def limited(place: str, limit: object, used: object, stat: str = "anon 5") -> dict[str, object]:
    """Files of a control group of version 2."""
    at = f"{place}__" if place else ""
    return {f"{at}memory_DOT_max": limit, f"{at}memory_DOT_current": used,
            f"{at}memory_DOT_stat": stat}  # fmt: skip


def limited_1(place: str, limit: int, used: int, stat: str = "rss 5") -> dict[str, object]:
    """Files of a control group of version 1."""
    at = f"memory__{place}__" if place else "memory__"
    return {f"{at}memory_DOT_limit_in_bytes": limit, f"{at}memory_DOT_usage_in_bytes": used,
            f"{at}memory_DOT_stat": stat}  # fmt: skip


UNLIMITED = 2**63 - 4096
JOB = "left to this job or container"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, (10, "free on this host")),
        ("0::/job\n", limited("job", "max", 3 * GIB), (10, "free on this host")),
        ("0::/job\n", limited("job", 20 * GIB, GIB), (10, "free on this host")),
        # As in a container: its own group is at the top.
        ("0::/\n", limited("", 3 * GIB, GIB), (2, JOB)),
        # Pages of files can be freed, whatever else the list has.
        ("0::/\n", limited("", 3 * GIB, 2 * GIB,
         f"inactive_anon 7\nfile 9\ninactive_file {GIB}\nactive_file {GIB // 2}"), (2.5, JOB)),
        # As in Slurm: the limit is that of the step, or of the job above it.
        ("0::/slurm/job/step/task\n",
         limited("slurm__job", 4 * GIB, GIB) | limited("slurm__job__step", "max", GIB)
         | limited("slurm__job__step__task", "max", 0), (3, JOB)),
        ("0::/job/step\n", limited("job", 4 * GIB, GIB) | limited("job__step", 2 * GIB, GIB // 2),
         (1.5, JOB)),
        ("0::/\n", limited("", GIB, 2 * GIB), (0, JOB)),
        ("9:cpu,cpuacct:/a\n4:memory:/slurm/job\n1:name=systemd:/a\n0::/a\n",
         limited_1("", UNLIMITED, 9 * GIB) | limited_1("slurm", 8 * GIB, GIB)
         | limited_1("slurm__job", 2 * GIB, 2 * GIB,
                     f"inactive_file 3\ntotal_inactive_file {GIB // 4}\n"
                     f"total_active_file {GIB // 4}"), (0.5, JOB)),
        # A container that sees the host's path, and its own group at the top.
        ("4:memory:/docker/0123\n", limited_1("", 3 * GIB, GIB), (2, JOB)),
        ("4:memory:/../..\n", limited_1("", 3 * GIB, GIB), (2, JOB)),
    ],
)  # fmt: skip
def test_what_is_available_is_the_least_of_all_limits(
    tmp_path: Path, groups: str, files: dict[str, object], expected: tuple[float, str]
) -> None:
    assert memory.available(tree(tmp_path, groups, **files)) == expected


def test_where_nothing_is_told_there_is_no_limit(tmp_path: Path) -> None:
    assert memory.available(tmp_path) is None


@pytest.mark.parametrize(("limit", "flag"), [("RLIMIT_AS", "-v"), ("RLIMIT_DATA", "-d")])
def test_what_is_left_of_a_limit_can_be_had_and_no_more(limit: str, flag: str) -> None:
    program = (
        "import mmap, resource\n"
        "from bprune_hpc.job import memory\n"
        f"resource.setrlimit(resource.{limit}, (2**30, 2**30))\n"
        "found = memory.available()\n"
        f"assert found.of == 'left of ulimit {flag}', found\n"
        "def take(gib): mmap.mmap(-1, int(gib * 2**30), mmap.MAP_PRIVATE).close()\n"
        "take(found.gib - 0.02)\n"
        "try:\n"
        "    take(found.gib + 0.02)\n"
        "except OSError:\n"
        "    print('refused')\n"
    )
    done = run_group([sys.executable, "-c", program])
    assert done.stdout == "refused\n", done.stderr


def test_age_is_that_of_the_process() -> None:
    begin = time.monotonic()
    program = "from bprune_hpc.job.environment import age_s; print(age_s())"
    done = run_group([sys.executable, "-c", program])
    assert 0 < float(done.stdout) <= time.monotonic() - begin + 0.02  # two ticks
