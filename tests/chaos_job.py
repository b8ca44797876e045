"""A sweep of the fake network that can be told where to die; started by the tests and by chaos.py.

mpirun -n 2 python tests/chaos_job.py '{"round_s": 0.2, "die": ["rename", 2, 0]}' FLAGS...
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_case

from bprune_hpc import gathering, output, publishing, results, sweep
from bprune_hpc.comm import launcher

POINTS: dict[str, tuple[object, str]] = {
    "lock": (output, "hold"),
    "read": (output.resume, "read"),
    "draw": (fake_case.Network, "__call__"),
    "reduce": (gathering, "reduce_groups"),
    "image": (results, "_image"),
    "write": (publishing.os, "fsync"),
    "backup": (publishing, "_back_up"),
    "backup rename": (publishing.os, "link"),
    "rename": (Path, "replace"),
    "after rename": (publishing, "_sync_directory"),
    "table": (output.report, "show_table"),
}
"""Where something can be told to happen: the functions that are called there."""


def at(point: str, number: int, what: Callable[[], None]) -> None:
    """Let something happen just before the so-many-th call of a function."""
    owner, name = POINTS[point]
    whole, calls = getattr(owner, name), []

    def then(*given: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            what()
        return whole(*given, **more)

    setattr(owner, name, then)


def tell(log: str) -> None:
    """Append to a file what has been done and what has been written, by units of draws."""

    def line(kind: str, book: gathering.Book) -> None:
        positions = [ledger.position for ledger in book.ledgers]
        with open(log, "a") as file:
            file.write(json.dumps([kind, time.time(), positions]) + "\n")

    def telling(kind: str, owner: type, name: str, book_of: Callable[..., gathering.Book]) -> None:
        whole = getattr(owner, name)

        def then(*given: Any, **more: Any) -> Any:
            found = whole(*given, **more)
            line(kind, book_of(*given))
            return found

        setattr(owner, name, then)

    telling("done", gathering.Book, "done", lambda book, *rest: book)
    telling("written", output.Output, "write", lambda output, book: book)


def main() -> int:
    """Set up what was asked for, and run the sweep."""
    wishes, flags = json.loads(sys.argv[1]), sys.argv[2:]
    rank = (launcher() or ("", 1, 0))[2]
    if "pids" in wishes:
        Path(wishes["pids"], str(rank)).write_text(str(os.getpid()))
    fake_case.install(
        round_s=wishes.get("round_s", 0.2),
        write_share=wishes.get("write_share", float("inf")),
        delay_s=wishes.get("delay_s", 0.0),
    )
    if "log" in wishes:
        tell(wishes["log"])
    if "die" in wishes:
        point, number, on_rank = wishes["die"]
        if rank == on_rank:
            at(point, number, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if "remove" in wishes:
        point, number, directory = wishes["remove"]
        at(point, number, lambda: shutil.rmtree(directory))
    return sweep.main(flags)


if __name__ == "__main__":
    sys.exit(main())
