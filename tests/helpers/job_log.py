"""What a job of ``chaos_job.py`` says of its work, and what of it a kill has cost.

Lines are lists: ``begun`` replicate, ``done`` replicates seconds, ``written`` replicates,
``struck`` time. A replicate is a pair of draws, at every threshold; they are numbered from the
first of the sweep.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bprune_hpc import results

Lines = Sequence[Sequence[Any]]


def read(log: Path) -> Lines:
    """The lines; none where nothing was said."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def position(path: Path) -> int:
    """Units of draws that a results file holds, read with all checks; 0 where there is none."""
    if not path.exists():
        return 0
    with results.open_results(path) as file:
        return int(file["state/0/position"][1])


def units_lost(lines: Lines, there: int) -> int:
    """Units that were done and are not in the file."""
    return max([0, *(line[1] - there for line in lines if line[0] == "done")])


def rounds_lost(lines: Lines, there: int, round_s: float) -> int:
    """Rounds of which work is not in the file.

    A round is a row of supersteps that goes on until they have taken as long as a round is to take:
    then the file is due. What was begun and not done counts too. So one round is lost by a kill at
    any time before the write that follows it, and two if that write was left out.

    Parameters
    ----------
    there : int
        Replicates that the file holds after the kill.
    """
    rounds, is_open, worked_s = 0, False, 0.0
    for what, replicates, *more in lines:
        if what == "begun" and replicates >= there and not is_open:
            rounds, is_open, worked_s = rounds + 1, True, 0.0
        elif what == "done" and replicates > there:
            worked_s += more[0]
            is_open = worked_s < round_s
    return rounds


def mishaps(lines: Lines, before: int, there: int) -> list[str]:
    """What a job has done that it should not: work done twice or left out, or a file that is old.

    Parameters
    ----------
    before, there : int
        Replicates that the file held when the job began, and holds now.
    """
    found, done = [], before
    for what, replicates, *_ in lines:
        if what == "begun" and replicates != done:
            found.append(f"unit {replicates} was begun when those before {done} were done")
        if what == "done":
            done = replicates
    written = [before, *(line[1] for line in lines if line[0] == "written")]
    if there < written[-1]:
        found.append(f"{written[-1]} units were written, {there} are there")
    if any(later < earlier for earlier, later in pairwise(written)):
        found.append(f"an older state was written: {written}")
    return found
