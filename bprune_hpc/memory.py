"""Resident memory of this process, as the kernel counts it.

``ru_maxrss`` is not that: a process inherits it from the one that started it, so that whatever a
large program launches seems at least as large.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


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


def _field(name: str) -> float | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
