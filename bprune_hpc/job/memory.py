"""Memory of this process: what is resident, what it can still have, and how it is given back.

``ru_maxrss`` is not that: a process inherits it from the one that started it, so that whatever a
large program launches seems at least as large.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_STATUS = Path("/proc/self/status")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES, _OWN_PAGES_BYTES = 64 * 2**20, 32 * 2**20


def keep_freed() -> None:
    """Let glibc keep what arrays give back, up to 64 MiB, for the next ones.

    Else it may give each array of more than 128 KiB back to the system, and take fresh pages for
    the next: touching them can cost more than computing on them. It learns otherwise once
    something large was freed, which happens on ranks that import TensorFlow and not on others.
    Nothing is changed where the user has set the allocator, or it is another.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)


def peak_mib() -> float:
    """Largest resident size of this process so far, MiB; see :func:`forget_peak`."""
    found = _field("VmHWM")
    if found is not None:
        return found
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return used / 1024 / (1024 if sys.platform == "darwin" else 1)


def resident_mib() -> float:
    """Resident size of this process now, MiB; at most the peak where the system does not tell."""
    found = _field("VmRSS")
    return peak_mib() if found is None else found


def forget_peak() -> bool:
    """Let the peak be that of what comes, not of what was; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


class Available(NamedTuple):
    """Memory that this process can still have.

    Attributes
    ----------
    gib : float
        How much, GiB.
    of : str
        Whose limit comes first, in words.
    """

    gib: float
    of: str


def available(root: Path = Path("/")) -> Available | None:
    """Memory that this process can still have; None where nothing tells.

    The least of three: what is free on this host, or can be freed; what is left to its control
    groups, of either version, by which containers and schedulers set limits; and what is left of
    ``ulimit -v`` and ``ulimit -d``.

    Parameters
    ----------
    root : Path
        Where ``/proc`` and ``/sys`` are.
    """
    free = _field("MemAvailable", root / "proc/meminfo")
    found = [] if free is None else [Available(free / 1024, "free on this host")]
    found += [Available(gib, "left to this job or container") for gib in _left_in_groups(root)]
    found += [Available(gib, f"left of {limit}") for limit, gib in _left_of_limits()]
    return min(found, default=None)


def _left_in_groups(root: Path) -> Iterator[float]:
    """What is left of each limit of the control groups that this process is in, GiB."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        number, kinds, path = line.split(":", 2)
        if number == "0":
            top, limit, used, prefix = mounted, "memory.max", "memory.current", ""
        elif "memory" in kinds.split(","):
            top, prefix = mounted / "memory", "total_"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the path may be the host's; what is mounted at the top is its own then.
        group = top / path.strip("/")
        for place in (group, *group.parents):
            if not place.is_relative_to(top):
                break
            try:
                n_bytes = int((place / limit).read_text()) - int((place / used).read_text())
                stat = (place / "memory.stat").read_text()
            except (OSError, ValueError):  # no such group; or no limit, which is "max"
                continue
            # Pages of files can be freed.
            of_files = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
            yield max(0, n_bytes + sum(map(int, of_files))) / 2**30


def _left_of_limits() -> Iterator[tuple[str, float]]:
    """What is left of the limits of this process, GiB, and how a shell calls them."""
    for name, kind, used in (
        ("ulimit -v", resource.RLIMIT_AS, "VmSize"),
        ("ulimit -d", resource.RLIMIT_DATA, "VmData"),
    ):
        n_bytes, _ = resource.getrlimit(kind)
        used_mib = _field(used)
        if n_bytes != resource.RLIM_INFINITY and used_mib is not None:
            yield name, max(0.0, n_bytes / 2**30 - used_mib / 1024)


def _field(name: str, file: Path = _STATUS) -> float | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
