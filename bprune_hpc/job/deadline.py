"""When this job ends, who said so, and whether it is time to stop.

Read once, on rank 0. What belongs here: decisions over given clocks and environments. What does
not: signals (``job.signals``), the vote of the ranks (``mpi.comm``), what is done before stopping.
"""

from __future__ import annotations

import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from .signals import with_default_signals

logger = logging.getLogger(__name__)

SPARE_S = 30.0
"""Seconds of the measured margin for what is not measured: ending MPI, a slow file system."""

# Set by schedulers, in seconds since 1970.
_SCHEDULER_VARIABLES = ("SLURM_JOB_END_TIME", "COBALT_ENDTIME")
_SQUEUE_TIMEOUT_S = 20.0
_TIME_LEFT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")


@dataclass(frozen=True)
class Deadline:
    """End of the job.

    Attributes
    ----------
    end : float
        Seconds since 1970.
    source : str
        Who said so: a flag, a variable, or ``squeue``.
    """

    end: float
    source: str

    def left_s(self, now: float) -> float:
        """Seconds from ``now`` (since 1970) to the end."""
        return self.end - now

    def is_near(self, margin_s: float, now: float) -> bool:
        """Whether no more than the margin is left."""
        return self.left_s(now) <= margin_s

    def describe(self, now: float) -> str:
        """When and by whom, for the log: ``in 119.5 min (squeue)``."""
        return f"in {self.left_s(now) / 60:.1f} min ({self.source})"


def find(
    time_limit_min: float | None,
    started: float,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], float] = time.time,
    ask_squeue: Callable[[str], str | None] | None = None,
) -> Deadline | None:
    """End of this job from the first source that tells.

    The order: ``--time_limit_min``, ``BPRUNE_END_TIME``, ``SLURM_JOB_END_TIME``,
    ``COBALT_ENDTIME``, and inside a Slurm job the time that ``squeue`` says is left.

    Parameters
    ----------
    time_limit_min : float or None
        Minutes from ``started`` on; ``None`` if not given.
    started : float
        When this process started, in seconds since 1970.
    now : callable
        Clock, in seconds since 1970.
    ask_squeue : callable, optional
        Gives the time left of a job, as ``squeue -O TimeLeft`` prints it, or ``None``.

    Returns
    -------
    Deadline or None
        ``None`` where nobody sets a limit.

    Raises
    ------
    ConfigError
        If what the user gave is not a time, or is over. What a scheduler's variable holds is not
        the user's fault: it is logged and the next source asked.
    """
    if time_limit_min is not None:
        if not (math.isfinite(time_limit_min) and time_limit_min > 0):
            raise ConfigError(
                f"--time_limit_min: {time_limit_min:g} is not a time; give minutes above 0"
            )
        return Deadline(started + 60 * time_limit_min, "--time_limit_min")
    given = environ.get("BPRUNE_END_TIME", "").strip()
    if given:
        return Deadline(_users_end_time(given, now()), "BPRUNE_END_TIME")
    for name in _SCHEDULER_VARIABLES:
        text = environ.get(name, "").strip()
        if text and (end := _epoch_seconds(text)) is None:
            logger.warning("%s: %r is not a time in seconds since 1970; ignored", name, text)
        elif text and end is not None:
            return Deadline(end, name)
    job = _slurm_job(environ)
    if job is None:
        return None
    answer = (ask_squeue or time_left_from_squeue)(job)
    left = None if answer is None else seconds_left(answer)
    return None if left is None else Deadline(now() + left, "squeue")


def margin(given_s: float | None, slowest_round_s: float, write_s: float) -> float:
    """Seconds before the end at which to stop: as given, or as measured.

    Parameters
    ----------
    given_s : float or None
        ``--stop_margin_s``.
    slowest_round_s, write_s : float
        Longest round so far, and what the next write of the results may take, in seconds.

    Returns
    -------
    float
        If not given, what one more round and its write take, and half a minute.
    """
    return slowest_round_s + write_s + SPARE_S if given_s is None else given_s


def seconds_left(answer: str) -> float | None:
    """Seconds from what ``squeue -O TimeLeft`` prints.

    ``D-HH:MM:SS``, ``HH:MM:SS`` or ``MM:SS``; several lines (an array's jobs share their
    first one's number) give the shortest; ``UNLIMITED``, ``INVALID`` and ``NOT_SET`` give ``None``.
    """
    found = []
    for line in answer.split():
        match = _TIME_LEFT.fullmatch(line)
        if match:
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            found.append(86400.0 * days + 3600 * hours + 60 * minutes + seconds)
    return min(found, default=None)


def time_left_from_squeue(job: str, timeout_s: float = _SQUEUE_TIMEOUT_S) -> str | None:
    """What ``squeue`` says is left of a job; ``None``, and a warning, if it does not answer."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--Format=TimeLeft:32"]
    try:
        done = subprocess.run(
            with_default_signals(command), capture_output=True, text=True, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = f"{type(error).__name__}"
    else:
        if done.returncode == 0:
            return done.stdout
        problem = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    logger.warning("squeue does not say when this job ends (%s); set BPRUNE_END_TIME", problem)
    return None


def _slurm_job(environ: Mapping[str, str]) -> str | None:
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environ.get("SLURM_JOB_ID") or None


def _epoch_seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # Minutes or a duration given by mistake are far from any time of this century.
    return value if math.isfinite(value) and value > 1e9 else None


def _users_end_time(text: str, now: float) -> float:
    end = _epoch_seconds(text)
    if end is None:
        raise ConfigError(
            f"BPRUNE_END_TIME: {text!r} is not a time; give seconds since 1970, "
            "as in $(( $(date +%s) + 3600 ))"
        )
    if end <= now:
        raise ConfigError(
            f"BPRUNE_END_TIME: {text} was {now - end:.0f} s ago; unset it, or set it anew in "
            "this job's script"
        )
    return end
