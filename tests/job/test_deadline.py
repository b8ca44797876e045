from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.job import deadline
from bprune_hpc.job.deadline import Deadline

NOW, STARTED = 1.8e9, 1.8e9 - 100
EVERYTHING = {
    "BPRUNE_END_TIME": "1800000600",
    "SLURM_JOB_END_TIME": "1800000700",
    "COBALT_ENDTIME": "1800000800",
    "SLURM_JOB_ID": "12",
}


def find(
    environ: dict[str, str], time_limit_min: float | None = None, answer: str | None = None
) -> Deadline | None:
    return deadline.find(time_limit_min, STARTED, environ, lambda: NOW, lambda job: answer)


def test_the_first_source_that_tells_is_used() -> None:
    environ = dict(EVERYTHING)
    assert find(environ, 5.0) == Deadline(STARTED + 300, "--time_limit_min")
    for name, end in list(EVERYTHING.items())[:3]:
        assert find(environ) == Deadline(float(end), name)
        del environ[name]
    assert find(environ, answer="1:30\n") == Deadline(NOW + 90, "squeue")
    assert find(environ, answer="UNLIMITED\n") is None
    assert find(environ, answer=None) is None
    assert find({}, answer="1:30\n") is None


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, "9_3"),
    ],
)
def test_the_job_that_squeue_is_asked_for(environ: dict[str, str], job: str) -> None:
    asked = []
    deadline.find(None, STARTED, environ, lambda: NOW, asked.append)
    assert asked == [job]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ("0:07", 7.0),
        ("59:59\n", 3599.0),
        ("  1:00:00   \n", 3600.0),
        ("2-03:04:05", 2 * 86400 + 3 * 3600 + 4 * 60 + 5.0),
        ("1:00:00\n30:00\n", 1800.0),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_time_left_is_read(answer: str, seconds: float | None) -> None:
    assert deadline.seconds_left(answer) == seconds


@pytest.mark.parametrize("text", ["soon", "60", "12:30", "nan", "-5", "inf"])
def test_an_end_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^BPRUNE_END_TIME: '{text}' is not a time; give"):
        find({**EVERYTHING, "BPRUNE_END_TIME": text})


def test_an_end_that_is_over_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^BPRUNE_END_TIME: 1799999990 was 10 s ago; unset"):
        find({"BPRUNE_END_TIME": "1799999990"})


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_time_is_refused(minutes: float) -> None:
    with pytest.raises(ConfigError, match="--time_limit_min: .* is not a time"):
        find({}, minutes)


def test_a_schedulers_nonsense_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"SLURM_JOB_END_TIME": "Unknown", "COBALT_ENDTIME": "1800000800"}
    with caplog.at_level(logging.WARNING):
        assert find(environ) == Deadline(1800000800.0, "COBALT_ENDTIME")
    assert "SLURM_JOB_END_TIME: 'Unknown' is not a time" in caplog.text


def test_the_margin_is_given_or_measured() -> None:
    assert deadline.margin(None, 70.0, 2.5) == 102.5
    assert deadline.margin(12.0, 70.0, 2.5) == 12.0
    assert deadline.margin(0.0, 70.0, 2.5) == 0.0


def test_near_is_no_more_than_the_margin() -> None:
    end = Deadline(NOW + 100, "squeue")
    assert not end.is_near(99.9, NOW)
    assert end.is_near(100.0, NOW)
    assert end.is_near(5.0, NOW + 200)
    assert end.describe(NOW + 70) == "in 0.5 min (squeue)"


def squeue(directory: Path, text: str) -> None:
    command = directory / "squeue"
    command.write_text(f"#!/bin/sh\n{text}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("script", "expected", "warning"),
    [
        ('echo "$*" | grep -q -- "--jobs=7" && echo 1:00', "1:00\n", ""),
        ("echo slurm_load_jobs error: Invalid job id >&2; exit 1", None, "Invalid job id"),
        ("exit 1", None, "status 1"),
        ("exec sleep 3600", None, "TimeoutExpired"),
    ],
)
def test_squeue_is_asked_and_not_waited_for(
    script: str, expected: str | None, warning: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    squeue(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    limit_s = 1.0 if "sleep" in script else 600.0
    with caplog.at_level(logging.WARNING):
        assert deadline.time_left_from_squeue("7", timeout_s=limit_s) == expected
    assert warning in caplog.text and bool(warning) == bool(caplog.text)


def test_without_squeue_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert deadline.time_left_from_squeue("7") is None
    assert "set BPRUNE_END_TIME" in caplog.text
