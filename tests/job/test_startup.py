"""What commands say, and that they end, where they cannot even begin."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.helpers.launch import LIMIT_S, ROOT

MIB = 2**20


@pytest.mark.parametrize(
    ("command", "limit_mib"),
    [
        ("report none.h5", 50),  # not enough for NumPy
        ("report none.h5", 95),
        ("inspect --status none.h5", 50),
        ("train", 50),
        ("sweep --model_dir=embedded:digits_fc", 50),
        ("sweep --model_dir=embedded:digits_fc", 400),  # not enough for TensorFlow
        ("inspect embedded:digits_fc", 400),
    ],
)
def test_too_little_memory_is_one_line(command: str, limit_mib: int) -> None:
    name, *arguments = command.split()
    limit = limit_mib * MIB
    done = subprocess.run(
        [sys.executable, "-m", f"bprune_hpc.{name}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: out of memory or of threads (")
    assert "start fewer ranks on a host, or raise the limits" in error


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ImportError('libx.so: cannot open shared object file', name='x')", "ImportError: libx"),
        ("OSError(24, 'Too many open files', 'a.npz')", "a.npz: Too many open files; check"),
        ('RuntimeError("can\'t start new thread")', "out of memory or of threads (RuntimeError"),
    ],
)
def test_what_a_user_can_cause_at_an_import_is_one_line(raised: str, said: str) -> None:
    done = at_import(raised)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "raised",
    ["ZeroDivisionError('planted')", "ImportError('planted', name='bprune_hpc.nothing')"],
)
def test_a_bug_at_an_import_keeps_its_traceback(raised: str) -> None:
    done = at_import(raised)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "planted" in done.stderr


def at_import(raised: str) -> subprocess.CompletedProcess[str]:
    program = f"from bprune_hpc.job import startup; startup.begin(saves=True); raise {raised}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
