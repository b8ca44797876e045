"""How this job was started, in one line, and what is wrong with that, before the work begins.

What belongs here: what each rank sees of its host, and what that says when put together. What does
not: starting or refusing ranks (``mpi.comm``), what is stored with results (``job.environment``).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import compiled
from ..mpi.comm import Comm
from ..mpi.launchers import launcher
from .deadline import Deadline
from .environment import versions

logger = logging.getLogger(__name__)

# Instructions that TensorFlow, Eigen and BLAS choose their code by.
_FEATURES = ("sse", "avx", "fma", "f16c", "bmi", "amx", "asimd", "sve")

_OPEN_MPI = ("mpirun", "mpiexec", "prterun")


@dataclass(frozen=True)
class Place:
    """What one rank sees.

    Attributes
    ----------
    cores : frozenset of int
        Those that it may run on.
    cpu_features : frozenset of str
        Names of instruction sets that change which code is used.
    versions : mapping of str to str
        Of Python and the packages that compute.
    """

    host: str
    cores: frozenset[int]
    cpu_features: frozenset[str]
    versions: Mapping[str, str]


def look() -> Place:
    """This rank's place."""
    return Place(
        socket.gethostname(), frozenset(os.sched_getaffinity(0)), cpu_features(), versions()
    )


def cpu_features(cpuinfo: str | None = None) -> frozenset[str]:
    """Instruction sets of this processor, from ``/proc/cpuinfo`` or its text; empty if unknown."""
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text()
        except OSError:
            return frozenset()
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(word for word in value.split() if word.startswith(_FEATURES))
    return frozenset()


def report(comm: Comm, n_threads: int, deadline: Deadline | None) -> None:
    """Log the line and the warnings, on rank 0; every rank calls this.

    Parameters
    ----------
    n_threads : int
        Threads of a rank.
    deadline : Deadline or None
        Read on rank 0.
    """
    places = comm.gather(look())
    if places is None:
        return
    started = launcher()
    ends = "no time limit" if deadline is None else f"ends {deadline.describe(time.time())}"
    logger.info(
        "%s, MPI: %s, launcher: %s, %s",
        summary(places, n_threads), comm.library, started[0] if started else "none", ends,
    )  # fmt: skip
    if compiled.missing:
        logger.info(
            "the compiled module is missing; networks take longer (docs/clusters.md): %s",
            compiled.missing,
        )
    if started is not None and started[0] == "Open MPI mpirun" and _has_terminal():
        logger.info("%s", how_to_stop(os.getppid()))
    for line in (*crowding(places, n_threads), *disagreements(places)):
        logger.warning("%s", line)


def how_to_stop(parent: int, proc: str = "/proc") -> str:
    """What to do instead of Ctrl-C, at which the launcher of Open MPI gives ranks no time.

    Parameters
    ----------
    parent : int
        Process that has started this rank: the launcher, on its own host.
    """
    try:
        is_launcher = Path(proc, str(parent), "comm").read_text().strip() in _OPEN_MPI
    except OSError:
        is_launcher = False
    to = f"kill -USR1 {parent}" if is_launcher else "SIGUSR1 to mpirun"
    return (
        f"to stop and keep all results: {to}; on Ctrl-C mpirun kills all ranks at once, and the "
        "same command repeats what was not written yet"
    )


def _has_terminal() -> bool:
    """Whether there is a terminal on which Ctrl-C can be pressed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def summary(places: Sequence[Place], n_threads: int) -> str:
    """Ranks, hosts, threads and cores: ``4 ranks on 2 hosts, 1 thread each, 2 x 16 cores seen``."""
    hosts = _cores_of_hosts(places)
    sizes = Counter(len(cores) for cores in hosts.values())
    seen = " + ".join(f"{n} x {size}" if n > 1 else f"{size}" for size, n in sizes.items())
    return (
        f"{_count(len(places), 'rank')} on {_count(len(hosts), 'host')}, "
        f"{_count(n_threads, 'thread')} each, {seen} cores seen"
    )


def crowding(places: Sequence[Place], n_threads: int) -> list[str]:
    """Hosts whose ranks are in one another's way, as warnings."""
    ranks = Counter(place.host for place in places)
    pinned, crowded = [], []
    for host, cores in _cores_of_hosts(places).items():
        if ranks[host] > 1 and len(cores) == 1:
            pinned.append(f"{host} ({ranks[host]} on core {min(cores)})")
        elif ranks[host] * n_threads > len(cores):
            crowded.append(f"{host} ({ranks[host]} x {n_threads} on {len(cores)})")
    warnings = []
    if pinned:
        warnings.append(
            f"all ranks share one core: {_some(pinned)}; look at the launcher's binding, such as "
            "--bind-to none or --cpu-bind=none"
        )
    if crowded:
        warnings.append(
            f"more threads than cores, ranks x threads: {_some(crowded)}; start fewer ranks or set "
            "--num_intra"
        )
    return warnings


def disagreements(places: Sequence[Place]) -> list[str]:
    """What differs between hosts and may change the last bits of results, as warnings."""
    warnings = []
    names = sorted({name for place in places for name in place.versions})
    for name in names:
        found = _hosts_by(places, [place.versions.get(name, "none") for place in places])
        if len(found) > 1:
            warnings.append(f"hosts disagree on {name}: {_listed(found)}")
    everywhere = frozenset.intersection(*(place.cpu_features for place in places))
    own = [" ".join(sorted(place.cpu_features - everywhere)) or "less" for place in places]
    found = _hosts_by(places, own)
    if len(found) > 1:
        warnings.append(f"hosts disagree on CPU features: {_listed(found)}")
    return [f"{line}; the last bits of results may differ from other jobs'" for line in warnings]


def _cores_of_hosts(places: Sequence[Place]) -> dict[str, frozenset[int]]:
    hosts: dict[str, frozenset[int]] = {}
    for place in places:
        hosts[place.host] = hosts.get(place.host, frozenset()) | place.cores
    return hosts


def _hosts_by(places: Sequence[Place], values: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for place, value in zip(places, values, strict=True):
        hosts = found.setdefault(value, [])
        if place.host not in hosts:
            hosts.append(place.host)
    return found


def _listed(found: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} on {_some(hosts)}" for value, hosts in found.items())


def _some(items: Sequence[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
