"""Programs in processes of their own: alone or as ranks, under a time limit, their memory watched.

What belongs here: starting and watching. What does not: the programs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT_S = 600
# Ranks may outnumber cores: let them share, and do not spin while waiting. One thread each.
_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
}


@dataclass(frozen=True)
class Finished:
    """A program that has ended well.

    Attributes
    ----------
    seconds : float
        From launch to end.
    output : str
        What it wrote to standard output.
    memory_gib : float
        The most that it and its children held at a time (proportional set size), where watched.
    """

    seconds: float
    output: str
    memory_gib: float

    @property
    def said(self) -> Any:
        """The last line of the output, which is JSON."""
        return json.loads(self.output.strip().splitlines()[-1])


def python(
    *arguments: str | Path, n_ranks: int = 0, watch_s: float = 0, limit_s: float = TIME_LIMIT_S
) -> Finished:
    """Run Python in a process of its own, or as ranks.

    Parameters
    ----------
    n_ranks : int
        0: without a launcher.
    watch_s : float
        Seconds between looks at its memory; 0: none.
    limit_s : float

    Raises
    ------
    RuntimeError
        If it fails, or takes longer.
    """
    launcher = [mpirun(), "-n", str(n_ranks)] if n_ranks else []
    command = [*launcher, sys.executable, *map(str, arguments)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**_ENVIRONMENT, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        most = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, watch_s, most), daemon=True)
        if watch_s:
            watcher.start()
        try:
            status = process.wait(limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - start
        for file in (out, err):
            file.seek(0)
        if status:
            raise RuntimeError(f"{' '.join(command)}: status {status}\n{err.read()[-4000:]}")
        return Finished(seconds, out.read(), most[0])


def mpirun() -> str:
    """The launcher beside this Python, else the one on PATH."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise RuntimeError("no mpirun beside this Python or on PATH")
    return found


def _watch(process: subprocess.Popen[bytes], every_s: float, most: list[float]) -> None:
    while process.poll() is None:
        most[0] = max(most[0], sum(map(_pss_gib, _family(process.pid))))
        time.sleep(every_s)


def _family(ancestor: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            # The name, in parentheses, may hold blanks.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    family = [ancestor]
    for member in family:
        family += children.get(member, [])
    return family


def _pss_gib(process: int) -> float:
    """Resident memory, that which is shared counted in equal parts."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 2**20
    return 0.0
