"""Trials of full disks, directories that vanish or are closed, permissions taken away."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.helpers.bits import all_bits
from tests.helpers.running_jobs import Bits, HangError, Job, Row, whole_bits


def faults(directory: Path, number: int) -> list[Row]:
    """Full disk, read-only directory, a path that vanishes, a permission taken away."""
    whole = whole_bits(directory)
    rows = []
    for name, trial in (
        ("file-size limit", _size_limit),
        ("full tmpfs", _full_tmpfs),
        ("directory made read-only while it runs", _read_only),
        ("read-only directory at the start", _read_only_at_start),
        ("directory removed while it runs", _removed),
    ):
        if trial is _full_tmpfs and os.geteuid() != 0:
            rows.append(Row(name, 0, 0, "not tried: only root can mount"))
            continue
        wrong, remark = 0, ""
        for n_ranks in (1, 2):
            place = directory / f"{trial.__name__}{n_ranks}"
            place.mkdir()
            place.chmod(0o777)
            try:
                remark = trial(place, n_ranks, whole)
            except (AssertionError, HangError, OSError) as error:
                wrong += 1
                print(f"{name} on {n_ranks} ranks: {error!r}", flush=True)
        rows.append(Row(name, 2, wrong, remark))
    return rows


def _expect_refusal(job: Job, path: Path, before: bytes | None, status: int) -> str:
    found = job.wait()
    errors = job.errors()
    assert found == status, (found, errors)
    assert len(errors) == 1 and "cannot be written (" in errors[0], errors
    if before is not None:
        assert path.read_bytes() == before, "the old file was changed"
        assert not list(path.parent.glob(".*.part")), "left over"
    return errors[0].rpartition("(")[2].partition(")")[0]


def _begun(path: Path, *flags: str) -> bytes:
    assert Job(path, 1, "--num_monte_carlo=20", round_s=1e9).wait() == 0
    return path.read_bytes()


def _goes_on(path: Path, whole: Bits) -> None:
    assert Job(path, 2, round_s=1e9).wait() == 0
    assert all_bits(path) == whole, "bits differ"


def _size_limit(place: Path, n_ranks: int, whole: Bits) -> str:
    path = place / "s.h5"
    before = _begun(path)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 100, len(before) - 100))

    remark = _expect_refusal(Job(path, n_ranks, before=limit), path, before, 1)
    _goes_on(path, whole)
    return remark


def _full_tmpfs(place: Path, n_ranks: int, whole: Bits) -> str:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", place], check=True)
    try:
        path = place / "there" / "s.h5"
        path.parent.mkdir()
        before = _begun(path)
        filler = place / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
        with filler.open("r+b") as file:  # room for the lock and some of the file
            file.truncate(filler.stat().st_size - 65536)
        remark = _expect_refusal(Job(path, n_ranks), path, before, 1)
        shutil.copytree(path.parent, place.with_suffix(".mended"))
    finally:
        subprocess.run(["umount", place], check=True)
    _goes_on(place.with_suffix(".mended") / "s.h5", whole)
    return remark


def _as_stopped_by_permissions() -> None:
    """Let root, whom no permission stops, be stopped by those of a file's owner."""
    if os.geteuid() != 0:
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: gone after the next exec
        if prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError(ctypes.get_errno(), "prctl")


def _read_only(place: Path, n_ranks: int, whole: Bits) -> str:
    path = place / "there" / "s.h5"
    path.parent.mkdir()
    job = Job(
        path,
        n_ranks,
        before=_as_stopped_by_permissions,
        round_s=0.3,
        delay_s=0.004,
    )
    while not path.exists() and job.process.poll() is None:
        time.sleep(0.02)
    path.parent.chmod(0o555)
    before = path.read_bytes()
    remark = _expect_refusal(job, path, before, 1)
    path.parent.chmod(0o755)
    _goes_on(path, whole)
    return remark


def _read_only_at_start(place: Path, n_ranks: int, whole: Bits) -> str:
    path = place / "there" / "s.h5"
    path.parent.mkdir()
    before = _begun(path)
    path.parent.chmod(0o555)
    return _expect_refusal(
        Job(path, n_ranks, before=_as_stopped_by_permissions),
        path,
        before,
        2,
    )


def _removed(place: Path, n_ranks: int, whole: Bits) -> str:
    path = place / "there" / "s.h5"
    job = Job(path, n_ranks, round_s=0.3, delay_s=0.004)
    while not path.exists() and job.process.poll() is None:
        time.sleep(0.02)
    shutil.rmtree(path.parent)
    remark = _expect_refusal(job, path, None, 1)
    assert not path.parent.exists()
    return remark
