"""Long trials of what must not be lost: kills, damage, races, stops, readers, faults, cost.

    make chaos                              # all of them, 20 to 30 minutes; prints a table
    python tests/chaos.py kills --number 20

Jobs are of the fake network (``fake_case``), but for the cost. A trial that goes wrong is told and
counted; the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import find_mpirun, launch_environment
from test_sweep import all_bits

from bprune_hpc import results
from bprune_hpc.errors import ResultsError

JOB = str(Path(__file__).with_name("chaos_job.py"))
FLAGS = ["--model_dir=fake", "--thresholds=0,0.5,1", "--num_monte_carlo=240", "--batch_size=15"]
Bits = dict[str, tuple[object, ...]]
Row = tuple[str, int, int, str]
"""What was tried, how many times, how many went wrong, and remarks."""


class Job:
    """A sweep on some ranks, in a session of its own; only its own processes are ever ended."""

    def __init__(
        self,
        output: Path,
        n_ranks: int,
        *flags: str,
        before: Callable[[], None] | None = None,
        **wishes: Any,
    ) -> None:
        self.pids = Path(tempfile.mkdtemp(dir=output.parent.parent))
        self.pids.chmod(0o777)
        wishes |= {"pids": str(self.pids)}
        command = [sys.executable, JOB, json.dumps(wishes), *FLAGS, f"--output={output}", *flags]
        if n_ranks > 1:
            command = [str(find_mpirun()), "-n", str(n_ranks), *command]
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self.said, start_new_session=True,
            env=launch_environment(), preexec_fn=before,
        )  # fmt: skip

    def ranks(self) -> list[int]:
        """Process numbers of the ranks that have begun."""
        texts = [path.read_text() for path in sorted(self.pids.iterdir())]
        return [int(text) for text in texts if text]

    def wait(self, timeout: float = 120.0) -> int:
        """Wait for the launcher and for every rank; the exit status."""
        status = self.process.wait(timeout)
        end = time.monotonic() + 30
        while any(_is_alive(pid) for pid in self.ranks()) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in self.ranks():  # orphans of a launcher that was killed
            if _is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        return status

    def errors(self) -> list[str]:
        """Lines of standard error that are one."""
        self.said.seek(0)
        lines = [line.strip() for line in self.said]
        return [line for line in lines if "error: " in line] or lines[-8:]


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0] not in "ZX"
    return False


def whole_bits(directory: Path, *flags: str) -> Bits:
    """Bits of a sweep that nothing has happened to."""
    path = directory / "whole" / "s.h5"
    path.parent.mkdir(exist_ok=True)
    assert Job(path, 1, *flags, round_s=1e9).wait() == 0
    return all_bits(path)


def kills(directory: Path, number: int) -> list[Row]:
    """Kill jobs at random moments, and go on on another number of ranks."""
    whole, chance = whole_bits(directory), random.Random(1)
    tried, wrong, lost = Counter[str](), Counter[str](), []
    path, log = directory / "kills" / "s.h5", directory / "log"
    path.parent.mkdir()
    while tried.total() < number:
        n_ranks = chance.randint(1, 4)
        kind = chance.choice(["kill a rank", "kill the launcher", "SIGTERM", "SIGUSR1", "deadline"])
        moment = chance.uniform(0.0, 4.5)
        limit = [f"--time_limit_min={(moment + 0.5) / 60}", "--stop_margin_s=0.5"]
        flags = limit if kind == "deadline" else []
        job = Job(path, n_ranks, *flags, round_s=0.2, delay_s=0.002, log=str(log))
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.process.wait(moment)
        is_killed = job.process.poll() is None or kind == "deadline"
        ranks = job.ranks()
        if is_killed:
            tried[kind] += 1
            if kind == "deadline":
                pass  # it stops by itself
            elif kind == "kill a rank" and ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(ranks), signal.SIGKILL)
            else:
                number_of = {"SIGTERM": signal.SIGTERM, "SIGUSR1": signal.SIGUSR1}
                job.process.send_signal(number_of.get(kind, signal.SIGKILL))
        job.wait()
        problem = _problem_after(path, log, lost)
        is_complete = path.exists() and results.read(path).attrs["status"] == "complete"
        if not problem and is_complete and all_bits(path) != whole:
            problem = "bits differ"
        if not problem and not is_killed and not is_complete:
            problem = f"ended by itself: {job.errors()}"
        if problem:
            wrong[kind] += 1
            print(f"{kind} after {moment:.2f} s on {n_ranks} ranks: {problem}", flush=True)
        if is_complete or problem:
            shutil.rmtree(path.parent)
            path.parent.mkdir()
            log.unlink(missing_ok=True)
    while not path.exists() or results.read(path).attrs["status"] != "complete":
        if Job(path, 2, round_s=0.2).wait() != 0:
            wrong["SIGTERM"] += 1
            break
    if path.exists() and all_bits(path) != whole:
        wrong["SIGTERM"] += 1
    most = f"most units lost: {max(lost, default=0)}" if lost else ""
    return [(kind, tried[kind], wrong[kind], most) for kind in sorted(tried)]


def _problem_after(path: Path, log: Path, lost: list[int]) -> str:
    """What is wrong with a file after a kill: not whole, or less than was written."""
    if path.exists():
        try:
            results.read(path)
        except ResultsError as error:
            return str(error)
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    written = [line[2][0][1] for line in lines if line[0] == "written"]
    done = [line[2][0][1] for line in lines if line[0] == "done"]
    there = 0
    if path.exists():
        with results.open_results(path) as file:
            there = int(file["state/0/position"][1])
    if written and there < written[-1]:
        return f"{written[-1]} units were written, {there} are there"
    if done:
        lost.append(max(done[-1] - there, 0))
    log.unlink(missing_ok=True)
    return ""


def damage(directory: Path, number: int) -> list[Row]:
    """Damage a results file before a resume."""
    whole = whole_bits(directory)
    path, chance = directory / "damage" / "s.h5", random.Random(2)
    path.parent.mkdir()
    assert Job(path, 1, "--num_monte_carlo=60", round_s=1e9).wait() == 0
    good = path.read_bytes()
    outcomes, wrong = Counter[str](), 0
    program = "import sys, json, fake_case; fake_case.install(); from bprune_hpc import sweep\n" \
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
    return [("damage before a resume", number, wrong, remarks)]


def _server(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parent, env=launch_environment(),
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


def races(directory: Path, number: int) -> list[Row]:
    """Start two jobs at once on one output."""
    short = "--num_monte_carlo=60"
    whole = whole_bits(directory, short)
    wrong = 0
    for trial in range(number):
        path = directory / f"race{trial}" / "s.h5"
        path.parent.mkdir()
        sizes = [2, 1] if trial % 5 == 0 else [1, 1]
        jobs = [Job(path, size, short, round_s=0.3, delay_s=0.002) for size in sizes]
        statuses = [job.wait() for job in jobs]
        refusals = [line for job in jobs for line in job.errors()]
        is_right = (
            sorted(statuses) == [0, 2]
            and len(refusals) == 1
            and "is being written by process " in refusals[0]
            and all_bits(path) == whole
            and {entry.name for entry in path.parent.iterdir()} <= {"s.h5", "s.h5.bak"}
        )
        if not is_right:
            wrong += 1
            print(f"race {trial}: {statuses} {refusals}", flush=True)
    return [("two jobs at once", number, wrong, "one wrote, one was refused, each time")]


def stops(directory: Path, number: int) -> list[Row]:
    """Stop a rank for 20 s and let it go on."""
    whole, wrong = whole_bits(directory), 0
    for trial in range(number):
        path = directory / f"stop{trial}" / "s.h5"
        path.parent.mkdir()
        job = Job(path, 3, round_s=0.2, delay_s=0.004)
        while len(job.ranks()) < 3:
            time.sleep(0.05)
        time.sleep(1.5)
        pid = job.ranks()[trial % 3]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(20)
        is_waiting = job.process.poll() is None
        os.kill(pid, signal.SIGCONT)
        if job.wait() != 0 or not is_waiting or all_bits(path) != whole:
            wrong += 1
    return [("a rank stopped for 20 s", number, wrong, "same bits")]


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
        if job.wait() != 0:
            wrong += 1
    return [("reads while it is written", n_reads, wrong, f"{len(versions)} states seen")]


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
        wrong, remark = 0, ""
        for n_ranks in (1, 2):
            place = directory / f"{trial.__name__}{n_ranks}"
            place.mkdir()
            place.chmod(0o777)
            try:
                remark = trial(place, n_ranks, whole)
            except (AssertionError, OSError) as error:
                wrong += 1
                print(f"{name} on {n_ranks} ranks: {error!r}", flush=True)
        rows.append((name, 2, wrong, remark))
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
    while not path.exists():
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
    while not path.exists():
        time.sleep(0.02)
    shutil.rmtree(path.parent)
    remark = _expect_refusal(job, path, None, 1)
    assert not path.parent.exists()
    return remark


def cost(directory: Path, number: int) -> list[Row]:
    """What rounds and writing take of a run of two minutes on 2 ranks, of the real network."""
    rows = []
    for trial in range(number):
        path = directory / f"cost{trial}.h5"
        flags = ["--model_dir=embedded:digits_fc", f"--output={path}"]
        command = [str(find_mpirun()), "-n", "2", sys.executable, "-m", "bprune_hpc.sweep", *flags]
        n_draws = 2000
        start = time.monotonic()
        subprocess.run(
            [*command, f"--num_monte_carlo={n_draws}", "--overwrite"], check=True,
            env=launch_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - start
        evaluating = float(results.read(path).run.evaluate_seconds.max())
        n_draws = 2 * round(n_draws * (120 - seconds + evaluating) / evaluating / 2)
        start = time.monotonic()
        subprocess.run(
            [*command, f"--num_monte_carlo={n_draws}", "--overwrite"], check=True,
            env=launch_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - start
        run = results.read(path).run
        share = float(run.write_seconds[0]) / seconds
        remark = (
            f"{seconds:.0f} s, {int(run.n_writes)} writes: {100 * share:.2f} % between rounds "
            f"(+ {100 * float(run.reduce_seconds[0]) / seconds:.2f} % sums brought together)"
        )
        total = share + float(run.reduce_seconds[0]) / seconds
        rows.append(("cost of rounds and writing below 3 %", 1, int(total >= 0.03), remark))
    return rows


TRIALS: dict[str, tuple[Callable[[Path, int], list[Row]], int]] = {
    "kills": (kills, 100),
    "damage": (damage, 500),
    "races": (races, 50),
    "stops": (stops, 3),
    "readers": (readers, 3),
    "faults": (faults, 1),
    "cost": (cost, 1),
}


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
            found = trial(Path(directory), arguments.number or number)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        rows += found
    print(f"\n{'tried':<42}{'times':>6}{'wrong':>6}  remarks")
    for what, tried, wrong, remark in rows:
        print(f"{what:<42}{tried:>6}{wrong:>6}  {remark}")
    print(f"{'in all':<42}{sum(r[1] for r in rows):>6}{sum(r[2] for r in rows):>6}")
    return int(any(row[2] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
