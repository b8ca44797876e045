"""Long trials of what must not be lost: kills, damage, races, stops, readers, faults, cost.

    make chaos                              # all of them, about 20 minutes; prints a table
    python -m tests.robustness.chaos kills --number 20

Jobs are of the fake network (``fake_problem``), but for the cost. A trial that goes wrong is told
and counted; the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.helpers.running_jobs import Row
from tests.robustness.chaos_faults import faults
from tests.robustness.chaos_kills import kills
from tests.robustness.chaos_trials import cost, damage, races, readers, stops

TRIALS: dict[str, tuple[Callable[[Path, int], list[Row]], int]] = {
    "kills": (kills, 100),
    "damage": (damage, 500),
    "races": (races, 50),
    "stops": (stops, 3),
    "readers": (readers, 3),
    "faults": (faults, 1),
    "cost": (cost, 1),
}
"""Each with how often it is done."""


def table(rows: Sequence[Row]) -> str:
    """What was tried and what came of it."""
    lines = [f"{'':<40}{'tried':>7}{'right':>7}{'wrong':>7}{'most rounds lost':>18}  notes"]
    for row in [*rows, Row("in all", sum(r.tried for r in rows), sum(r.wrong for r in rows), "")]:
        lost = "" if row.most_lost is None else str(row.most_lost)
        right = row.tried - row.wrong
        lines.append(
            f"{row.kind:<40}{row.tried:>7}{right:>7}{row.wrong:>7}{lost:>18}  {row.notes}".rstrip()
        )
    return "\n".join(lines)


def main() -> int:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", nargs="*", choices=[[], *TRIALS], metavar="TRIAL", default=[])
    parser.add_argument("--number", type=int)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.trials or TRIALS:
        trial, number = TRIALS[name]
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="chaos") as directory:
            Path(directory).chmod(0o777)
            try:
                found = trial(Path(directory), arguments.number or number)
            except Exception as error:  # the others are tried all the same
                traceback.print_exc()
                found = [Row(f"{name}: broke off", 1, 1, f"{type(error).__name__}: {error}"[:200])]
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        rows += found
    print(f"\n{table(rows)}")
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
