"""What the numbers were made with and how long it took: the ``/run`` group of the results.

All of it is outside the promise of equal bits: it differs from run to run by nature.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from . import memory
from .comm import Comm, launcher

_PACKAGES = ("bprune_hpc", "tensorflow", "numpy", "scipy", "h5py", "mpi4py")


@dataclass
class Stopwatch:
    """Seconds that this rank spent in each part of its work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the time spent in the body to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """Name of the processor type, on which the last bits may depend."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def age_s() -> float:
    """Seconds since this process was started, or its launcher; 0 where the system does not tell."""
    process = os.getpid() if launcher() is None else os.getppid()
    try:
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        now = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return max(now - ticks / os.sysconf("SC_CLK_TCK"), 0.0)


def thread_variables() -> dict[str, str]:
    """Environment variables that set thread counts or change what is computed."""
    prefixes = ("OMP_", "OPENBLAS_", "MKL_", "KMP_", "TF_")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def waiting_share(seconds: Mapping[str, float]) -> float:
    """Share of a rank's work that went into waiting for others, sending sums, and writing."""
    working = seconds.get("evaluate", 0.0)
    waiting = seconds.get("reduce", 0.0) + seconds.get("write", 0.0)
    return waiting / (working + waiting) if waiting else 0.0


def describe_run(comm: Comm, watch: Stopwatch, n_intra: int, n_inter: int) -> dict[str, Any]:
    """All of ``/run``: facts of the job, and lists with one entry a rank; every rank calls this.

    Returns
    -------
    dict
        The same keys on every rank; lists are whole on rank 0 only.
    """
    mine = {
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        "peak_memory_mib": memory.peak_mib(),
        **{f"{part}_seconds": seconds for part, seconds in watch.seconds.items()},
        "waiting_share": waiting_share(watch.seconds),
    }
    everyone = comm.gather(mine) or [mine]
    started = launcher()
    return {
        **{name: [entry[name] for entry in everyone] for name in mine},
        "n_ranks": comm.size,
        "n_intra": n_intra,
        "n_inter": n_inter,
        "launcher": started[0] if started else "none",
        "mpi_library": comm.library,
        "versions": json.dumps(versions(), sort_keys=True),
        "thread_variables": json.dumps(thread_variables(), sort_keys=True),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
