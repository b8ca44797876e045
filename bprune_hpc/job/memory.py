"""Memory of this process: how much is resident, as the kernel counts it, and how it is given back.

``ru_maxrss`` is not that: a process inherits it from the one that started it, so that whatever a
large program launches seems at least as large.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from pathlib import Path

_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
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


def available_gib() -> float | None:
    """Memory of this host that is free or can be freed, GiB; None where it is not told."""
    found = _field("MemAvailable", _MEMINFO)
    return None if found is None else found / 1024


def _field(name: str, file: Path = _STATUS) -> float | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
