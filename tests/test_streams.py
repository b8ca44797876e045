"""Standard streams that are closed, full, or read by nobody, around whole commands.

Whatever happens to them, a sweep's file and its status are those of one that could say everything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bprune_hpc.mpi import watchdog
from tests.helpers.bits import all_bits
from tests.helpers.launch import ROOT, find_mpirun, run_group

JOB = str(ROOT / "tests/robustness/chaos_job.py")
FLAGS = ["--model_dir=fake", "--thresholds=0,0.5,1", "--num_monte_carlo=20", "--batch_size=15"]
Bits = dict[str, tuple[object, ...]]

# What the shell does to a command's streams; the first to be read is standard error, if it can be.
ENDS = {
    "output closed": ">&-",
    "output full": ">/dev/full",
    "error closed": "2>&-",
    "error full": "2>/dev/full",
    "both closed": ">&- 2>&-",
    "both full": ">/dev/full 2>/dev/full",
    "all closed": "<&- >&- 2>&-",
}
WARNING = "WARNING: standard output: cannot be written"


def shell(
    line: str, command: list[str], cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command by a line of the shell in which it is ``"$@"``."""
    return run_group(["bash", "-c", line, "bash", *command], 60, cwd, **environment)


def sweep_to(path: Path, *flags: str, **wishes: object) -> list[str]:
    return [sys.executable, JOB, json.dumps(wishes), *FLAGS, f"--output={path}", *flags]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that could say everything."""
    path = tmp_path_factory.mktemp("whole") / "s.h5"
    done = run_group(sweep_to(path), 60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SNR <=")
    return path


@pytest.mark.parametrize("end", ENDS)
def test_a_sweep_is_the_same_whatever_its_streams_are(
    tmp_path: Path, whole: Path, end: str
) -> None:
    path = tmp_path / "s.h5"
    done = shell(f'"$@" {ENDS[end]}', sweep_to(path))
    assert done.returncode == 0, done.stderr
    assert all_bits(path) == all_bits(whole)
    assert {file.name for file in tmp_path.iterdir()} == {"s.h5"}
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if end.startswith("output"):
        assert done.stderr.count(WARNING) == 1
        assert f"python -m bprune_hpc.report {path} prints them" in done.stderr
    elif end.startswith("error"):
        assert done.stdout.startswith("SNR <=") and done.stdout.endswith(f"results: {path}\n")


@pytest.mark.parametrize("reader", ["head -n 1", "true"])
@pytest.mark.parametrize("streams", ["", "2>&1"])
def test_a_reader_that_leaves_does_not_end_a_sweep(
    tmp_path: Path, whole: Path, reader: str, streams: str
) -> None:
    path = tmp_path / "s.h5"
    done = shell(f'"$@" {streams} | {reader}; exit ${{PIPESTATUS[0]}}', sweep_to(path))
    assert done.returncode == 0, done.stderr
    assert all_bits(path) == all_bits(whole)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    # `true` has left long before there is a table; `head` may leave after all of it is in the pipe.
    least = 1 if reader == "true" and not streams else 0
    assert least <= done.stderr.count(WARNING) <= (0 if streams else 1)


@pytest.mark.parametrize("end", ["output full", "both closed"])
def test_a_sweep_that_stops_early_says_so_by_its_status(
    tmp_path: Path, whole: Path, end: str
) -> None:
    path = tmp_path / "s.h5"
    stop = sweep_to(path, round_s=0.0, strike=["draw", 20, 0, None, "SIGUSR1"])
    assert shell(f'"$@" {ENDS[end]}', stop).returncode == 3
    status = [sys.executable, "-m", "bprune_hpc.inspect", "--status", str(path)]
    assert shell(f'"$@" {ENDS[end]}', status).returncode == 3
    assert shell(f'"$@" {ENDS[end]}', sweep_to(path)).returncode == 0
    assert all_bits(path) == all_bits(whole)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("of", "end"),
    [
        ("ranks", "output full"),
        ("ranks", "error closed"),
        ("ranks", "all closed"),
        ("ranks", "both full"),
        # With both closed Open MPI's launcher does not always start anything at all.
        ("launcher", "output closed"),
        ("launcher", "error closed"),
        ("launcher", "both full"),
    ],
)
def test_a_sweep_on_ranks_is_the_same_whatever_its_streams_are(
    tmp_path: Path, whole: Path, end: str, of: str
) -> None:
    path = tmp_path / "s.h5"
    launch = [str(find_mpirun()), "-n", "2"]
    if of == "ranks":
        rank = ["bash", "-c", f'exec "$@" {ENDS[end]}', "bash", *sweep_to(path)]
        done = run_group([*launch, *rank], 60)
    else:
        done = shell(f'"$@" {ENDS[end]}', [*launch, *sweep_to(path)])
    assert done.returncode == 0, done.stderr
    assert all_bits(path) == all_bits(whole)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "closed", "full"),
    [
        (["report", "FILE"], 0, 1),
        (["inspect", "--status", "FILE"], 0, 0),
        (["inspect", "embedded:digits_fc"], 0, 1),
        (["report", "--help"], 0, 0),
    ],
)
def test_a_command_that_only_prints(
    whole: Path, arguments: list[str], closed: int, full: int
) -> None:
    name, *rest = [str(whole) if argument == "FILE" else argument for argument in arguments]
    command = [sys.executable, "-m", f"bprune_hpc.{name}", *rest]
    lines = {ENDS["output closed"]: closed, ENDS["output full"]: full, ENDS["all closed"]: closed,
             ENDS["error closed"]: 0, "| true; exit ${PIPESTATUS[0]}": 0}  # fmt: skip
    for line, status in lines.items():
        done = shell(f'"$@" {line}', command)
        assert done.returncode == status, (line, done.stderr)
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
        if status:
            assert done.stderr == (
                "error: standard output: cannot be written (No space left on device): the "
                f"{'table is not whole' if name == 'report' else 'tensors are not all told'}\n"
            )


def test_no_file_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from bprune_hpc import streams\n"
        "streams.keep(); kept = sys.stdout; streams.keep(); assert sys.stdout is kept\n"
        "file = open(sys.argv[1], 'w'); number = file.fileno()\n"
        "os.write(1, b'from C'); print('said'); sys.stderr.write('said')\n"
        "child = [sys.executable, '-c', \"import os, sys; os.write(1, b'x'); print('child')\"]\n"
        "status = subprocess.run(child).returncode\n"
        "file.write(f'{number > 2} {status}'); file.close()\n"
    )
    path = tmp_path / "file"
    command = [sys.executable, "-c", program, str(path)]
    assert shell(f'"$@" {ENDS["all closed"]}', command).returncode == 0
    assert path.read_text() == "True 0"


def test_a_pipe_that_does_not_wait_loses_nothing() -> None:
    program = (
        "import sys; from bprune_hpc import streams; streams.keep()\n"
        "for i in range(30000): streams.show(f'line {i}')\n"
        "streams.check_shown('all')\n"
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writing)
        time.sleep(0.5)
        with open(reading) as file:
            assert file.read().splitlines() == [f"line {i}" for i in range(30000)]
        assert process.stderr and process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("end", ["error closed", "error full", "both closed"])
def test_what_quiets_a_library_needs_no_standard_error(end: str) -> None:
    program = (
        "import os; from bprune_hpc.tensorflow_import import quiet_file_descriptor_2 as quiet\n"
        "with quiet(): os.write(2, b'chatter')\n"
        "try:\n    with quiet(): os.write(2, b'chatter'); raise KeyError('mine')\n"
        "except KeyError: raise SystemExit(7)\n"
    )
    assert shell(f'"$@" {ENDS[end]}', [sys.executable, "-c", program]).returncode == 7


@pytest.mark.parametrize("end", ["error closed", "error full"])
def test_an_alarm_that_cannot_be_heard_ends_its_process_all_the_same(end: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as waiting:
        arguments = ["0.1", str(waiting.pid), "", "MPI_Init", "message"]
        line = f'sleep 5 | "$@" {ENDS[end]}'
        with subprocess.Popen(
            ["bash", "-c", line, "bash", sys.executable, "-I", "-S", watchdog.__file__, *arguments]
        ) as started:
            try:
                assert waiting.wait(4) == -signal.SIGKILL
            finally:
                waiting.kill()
                started.kill()


def test_a_sign_that_an_encoding_lacks_is_replaced(whole: Path) -> None:
    command = [sys.executable, "-m", "bprune_hpc.report", str(whole)]
    done = shell('"$@"', command, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "+-" in done.stdout and "±" not in done.stdout
