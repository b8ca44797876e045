"""What the numbers were made with and how long it took: the ``/run`` group of the results.

All of it is outside the promise of equal bits: it differs from run to run by nature.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import compiled, sources
from ..mpi.comm import Comm, launcher
from . import memory
from .device import PROCESSORS, UsedDevice

BIT_VARIABLES = frozenset(
    {
        "BLIS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS",
        "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES",
        "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "TF_DISABLE_MKL", "TF_ENABLE_ONEDNN_OPTS",
        "TF_XLA_FLAGS", "XLA_FLAGS",
        "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TF_CUDNN_USE_AUTOTUNE",
        "TF_CUDNN_USE_FRONTEND", "TF_USE_CUBLASLT",
    }
)  # fmt: skip
"""Environment variables by which libraries count their threads or choose their code: with another
value, the last bits may be others."""
SPEED_VARIABLES = frozenset(
    {
        "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_DYNAMIC", "OMP_DYNAMIC",
        "OMP_PLACES", "OMP_PROC_BIND", "OMP_THREAD_LIMIT", "OMP_WAIT_POLICY",
    }
)  # fmt: skip
"""Those by which threads are placed and wait: they make work faster or slower, and no more."""

_PACKAGES = ("bprune_hpc", "tensorflow", "numpy", "scipy", "h5py", "mpi4py")


@dataclass
class Stopwatch:
    """Seconds that this rank spent in each part of its work."""

    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        """Seconds by its clock."""
        return time.perf_counter()

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the time spent in the body to a part."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - start


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed; our own code, instructions."""
    found = {
        "python": platform.python_version(),
        "instructions": compiled.instructions(),
        "bprune_hpc sources": f"sha256 {sources.package_sha256()[:16]}",
    }
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


def variables(
    names: Collection[str] = BIT_VARIABLES | SPEED_VARIABLES,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Those of some environment variables that are set; no other one is recorded anywhere."""
    return {name: environ[name] for name in sorted(names) if name in environ}


def waiting_share(seconds: Mapping[str, float]) -> float:
    """Share of a rank's work that went into waiting for others, sending sums, and writing."""
    working = seconds.get("evaluate", 0.0)
    waiting = seconds.get("reduce", 0.0) + seconds.get("write", 0.0)
    return waiting / (working + waiting) if waiting else 0.0


def describe_run(
    comm: Comm, watch: Stopwatch, n_intra: int, n_inter: int, used: UsedDevice = PROCESSORS
) -> dict[str, Any]:
    """All of ``/run``: facts of the job, and lists with one entry a rank; every rank calls this.

    Parameters
    ----------
    used : UsedDevice
        What this rank's evaluator runs on.

    Returns
    -------
    dict
        The same keys on every rank; lists are whole on rank 0 only.
    """
    mine = {
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        **used.facts,
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
        "thread_variables": json.dumps(variables()),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
