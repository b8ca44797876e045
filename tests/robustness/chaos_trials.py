"""Trials of damage, races, stopped ranks, readers, and of what rounds cost."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bprune_hpc import results
from bprune_hpc.accumulators.classification import MAX_DRAWS
from tests.helpers.bits import all_bits
from tests.helpers.launch import ROOT, find_mpirun, launch_environment
from tests.helpers.running_jobs import FLAGS, HangError, Job, Row, whole_bits


def damage(directory: Path, number: int) -> list[Row]:
    """Damage a results file before a resume."""
    whole = whole_bits(directory)
    path, chance = directory / "damage" / "s.h5", random.Random(2)
    path.parent.mkdir()
    assert Job(path, 1, "--num_monte_carlo=60", round_s=1e9).wait() == 0
    good = path.read_bytes()
    outcomes, wrong = Counter[str](), 0
    program = "import sys, json; from tests.helpers import fake_problem; fake_problem.install()\n" \
        "from bprune_hpc import sweep\n" \
        "for line in sys.stdin:\n" \
        "    print('status', sweep.main(json.loads(line)), flush=True)\n"  # fmt: skip
    process = _server(program)
    for trial in range(number):
        damaged = bytearray(good)
        kind = chance.choice(["bits", "bits of the digest", "cut off", "zeros", "longer"])
        if kind.startswith("bits"):
            end = 512 if kind != "bits" else len(damaged)
            for _ in range(chance.choice([1, 1, 3, 100])):
                damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
        elif kind == "cut off":
            del damaged[chance.randrange(len(damaged)) :]
        elif kind == "zeros":
            start = chance.randrange(len(damaged) - 4096)
            damaged[start : start + 4096] = bytes(4096)
        else:
            damaged += bytes(chance.randrange(1, 9999))
        path.write_bytes(damaged)
        is_changed = bytes(damaged) != good
        status = _ask(process, json.dumps([*FLAGS, f"--output={path}"]))
        if status is None:
            outcomes["crashed"] += 1
            wrong += 1
            process = _server(program)
        elif status == 2 and path.read_bytes() == bytes(damaged):
            outcomes["refused"] += 1
        elif status == 0 and not is_changed and all_bits(path) == whole:
            outcomes["harmless"] += 1
        else:
            wrong += 1
            print(f"damage {trial} ({kind}): status {status}", flush=True)
    process.kill()
    process.wait()
    remarks = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
    return [Row("damage before a resume", number, wrong, remarks)]


def _server(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=launch_environment(),
    )  # fmt: skip


def _ask(process: subprocess.Popen[str], line: str) -> int | None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()
    for answer in process.stdout:
        if answer.startswith("status "):
            return int(answer.split()[1])
    return None


def _status(job: Job) -> int | str:
    try:
        return job.wait()
    except HangError as error:
        return str(error)


def races(directory: Path, number: int) -> list[Row]:
    """Start two jobs at once on one output."""
    short = "--num_monte_carlo=60"
    whole = whole_bits(directory, short)
    wrong = 0
    for trial in range(number):
        path = directory / f"race{trial}" / "s.h5"
        path.parent.mkdir()
        sizes = [2, 1] if trial % 5 == 0 else [1, 1]
        meet = str(directory / f"meeting{trial}")
        jobs = [
            Job(path, size, short, round_s=0.3, delay_s=0.002, meet=[meet, 2]) for size in sizes
        ]
        statuses = [_status(job) for job in jobs]
        refusals = [line for job in jobs for line in job.errors() if "error: " in line]
        is_right = (
            set(statuses) == {0, 2}
            and len(refusals) == 1
            and "is being written by process " in refusals[0]
            and all_bits(path) == whole
            and {entry.name for entry in path.parent.iterdir()} <= {"s.h5", "s.h5.bak"}
        )
        if not is_right:
            wrong += 1
            print(f"race {trial}: {statuses} {refusals}", flush=True)
    return [Row("two jobs at once", number, wrong, "right: one wrote, the other named it")]


def stops(directory: Path, number: int) -> list[Row]:
    """Stop a rank for 20 s and let it go on."""
    whole, wrong = whole_bits(directory), 0
    for trial in range(number):
        path = directory / f"stop{trial}" / "s.h5"
        path.parent.mkdir()
        job = Job(path, 3, round_s=0.2, delay_s=0.004)
        while not job.is_ready and job.process.poll() is None:
            time.sleep(0.05)
        time.sleep(1.5)
        rank = job.ranks()[trial % 3]
        rank.send(signal.SIGSTOP)
        time.sleep(20)
        is_waiting = job.process.poll() is None
        rank.send(signal.SIGCONT)
        if _status(job) != 0 or not is_waiting or all_bits(path) != whole:
            wrong += 1
            print(f"stop {trial}: waited: {is_waiting}, {job.errors()}", flush=True)
    return [Row("a rank stopped for 20 s", number, wrong, "right: same bits")]


def readers(directory: Path, number: int) -> list[Row]:
    """Read the file every 50 ms while a job writes it."""
    import h5py

    path = directory / "readers" / "s.h5"
    path.parent.mkdir()
    n_reads, wrong, versions = 0, 0, set()
    for _ in range(number):
        path.unlink(missing_ok=True)
        job = Job(path, 2, "--num_monte_carlo=600", round_s=0.1, delay_s=0.002)
        while job.process.poll() is None:
            time.sleep(0.05)
            if not path.exists():
                continue
            n_reads += 1
            try:
                with h5py.File(path) as file:  # as others do
                    n_draws = int(file.attrs["n_draws"])
                    versions.add(n_draws)
                    assert file["draws/nll"].shape[1] == n_draws == file["draw"].size
                    assert n_draws == 2 * file["state/0/position"][1]
                    correct = file["draws/accuracy"][()].mean(axis=1)
                    of_metrics = file["metrics/accuracy_single_draw"][()]
                    assert abs(correct - of_metrics).max() < 1e-12
                if n_reads % 10 == 0:  # half a second, of every group
                    found = results.read(path)
                    n_draws = int(found.attrs["n_draws"])
                    assert len(found.draws.draw) == n_draws == len(found.groups[""].pair)
            except Exception as error:
                wrong += 1
                print(f"reader: {type(error).__name__}: {error}", flush=True)
        if _status(job) != 0:
            wrong += 1
            print(f"written while it was read: {job.errors()}", flush=True)
    return [Row("reads, each 50 ms", n_reads, wrong, f"{len(versions)} states of the file seen")]


def cost(directory: Path, number: int) -> list[Row]:
    """What rounds and writing take of a run of two minutes on 2 ranks, of the real network."""
    rows = []
    for trial in range(number):
        path = directory / f"cost{trial}.h5"
        n_draws = 400
        seconds, run = _timed(path, n_draws)
        evaluating = float(run.evaluate_seconds.max())
        n_draws = 2 * round(n_draws * (120 - seconds + evaluating) / evaluating / 2)
        seconds, run = _timed(path, min(n_draws, MAX_DRAWS))
        n_writes = int(run.n_writes)
        # The last write cannot tell of itself.
        writing = float(run.write_seconds[0]) / seconds * n_writes / max(n_writes - 1, 1)
        reducing = float(run.reduce_seconds[0]) / seconds
        notes = (
            f"{seconds:.0f} s, {n_writes} writes: {100 * writing:.2f} % between rounds, "
            f"{100 * reducing:.2f} % bringing sums together"
        )
        is_wrong = writing + reducing >= 0.03 or seconds < 60
        rows.append(Row("rounds and writing cost < 3 %", 1, int(is_wrong), notes))
    return rows


def _timed(path: Path, n_draws: int) -> tuple[float, Any]:
    """Seconds that a sweep takes, and what its file says of the run."""
    command = [
        str(find_mpirun()), "-n", "2", sys.executable, "-m", "bprune_hpc.sweep",
        "--model_dir=embedded:digits_fc", "--evaluator=graph", f"--output={path}", "--overwrite",
        f"--num_monte_carlo={n_draws}",
    ]  # fmt: skip
    start = time.monotonic()
    subprocess.run(
        command, check=True, env=launch_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.monotonic() - start, results.read(path).run
