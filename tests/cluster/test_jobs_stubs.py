"""Bodies of the Cobalt and PBS scripts, run to the end: by stand-ins for the sites' commands that
check how they are called, on real MPI ranks. That a site's queues take them, this does not show.

Unless said otherwise what runs on the ranks stands in for a sweep, too (``tests/stand_in``).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.batch_stubs import Queue
from tests.helpers.launch import LIMIT_S, ROOT, find_mpirun, launch_environment, run_group

pytestmark = pytest.mark.mpi

MakeQueue = Callable[..., Queue]
SWEEPS = {"cobalt_theta.sh": "cobalt", "pbs_polaris.sh": "pbs", "pbs.sh": "pbs"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose path has a blank, as far as the job scripts look."""
    directory = tmp_path / "a checkout"
    shutil.copytree(ROOT / "jobs", directory / "jobs")
    return directory


@pytest.fixture
def make_queue(tmp_path: Path) -> MakeQueue:
    def make(scheduler: str, package: Path = ROOT / "tests" / "stand_in") -> Queue:
        mpirun = find_mpirun()
        assert mpirun
        environment = {**launch_environment(), "PYTHONPATH": str(package)}
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment["PATH"]]
        )
        return Queue(tmp_path / "queue", scheduler, mpirun, **environment)

    return make


def arguments(checkout: Path, *lines: str) -> Path:
    path = checkout / "My arguments.txt"
    path.write_text("\n".join(lines))
    return path


def submit(queue: Queue, script: str, checkout: Path, **settings: str) -> str:
    if queue.scheduler == "cobalt":
        options = ["--env", ":".join(f"{name}={value}" for name, value in settings.items())]
    else:
        options = ["-v", ",".join(f"{name}={value}" for name, value in settings.items())]
    return queue.submit(checkout / "jobs" / script, *options, cwd=checkout)


@pytest.mark.parametrize("script", SWEEPS)
def test_a_sweep_that_needs_more_than_one_job_goes_on_to_its_end(
    script: str, checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue(SWEEPS[script])
    argument_file = arguments(checkout, "--num_monte_carlo=40", "--at_most=15")
    output = checkout / "some results" / "sweep.h5"
    settings = {"ARG_FILE": str(argument_file), "OUTPUT": str(output), "MODEL_DIR": "a case"}
    if script == "pbs.sh":
        settings |= {"WALLTIME": "02:00:30", "MPIRUN_FLAGS": "--bind-to none"}
    submit(queue, script, checkout, **settings)
    jobs = queue.run()
    assert output.read_text() == "complete 40/40 draws\n", jobs[-1]["log"]
    resubmitted = 0 if queue.scheduler == "cobalt" else 3
    assert [job["status"] for job in jobs] == [resubmitted, resubmitted, 0]
    for number, job in enumerate(jobs, 1):
        assert f"job {number} of at most 20 for {output}" in job["log"]
        assert "  --model_dir=a case\n" in job["log"]
        told = re.search(r"(\d) ranks, 1 threads, (\d+) s left", job["log"])
        assert told, job["log"]
        assert int(told[1]) == (4 if script == "pbs.sh" else 2)
        ends_in = {"cobalt_theta.sh": 3600, "pbs_polaris.sh": 3570, "pbs.sh": 7200}[script]
        assert ends_in - 10 <= int(told[2]) <= ends_in
    assert [job["after"] for job in jobs] == ["", jobs[0]["id"], jobs[1]["id"]]


@pytest.mark.parametrize("script", SWEEPS)
@pytest.mark.parametrize("given", ["-x.h5", "~/x.h5"])
def test_names_that_begin_with_a_dash_or_the_home_directory(
    script: str, given: str, checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue(SWEEPS[script])
    home = queue.directory  # as the queue tells its jobs
    (home / "checkout").symlink_to(checkout)
    (home / "venv" / "bin").mkdir(parents=True)
    (home / "venv" / "bin" / "activate").write_text("echo environment of the user >&2")
    (checkout / "-my.txt").write_text("--num_monte_carlo=2")
    settings = {"BPRUNE_HOME": "~/checkout", "VENV": "~/venv", "ARG_FILE": "-my.txt"}
    settings |= {"OUTPUT": given, "MODEL_DIR": "~/a case"}
    if script == "pbs.sh":
        settings["MPIRUN_FLAGS"] = "--bind-to none"
    submit(queue, script, checkout, **settings)
    (job,) = queue.run()
    assert job["status"] == 0, job["log"]
    output = home / given[2:] if given.startswith("~") else checkout / given
    assert output.read_text() == "complete 2/2 draws\n"
    assert "environment of the user\n" in job["log"]
    assert f"  --model_dir={home}/a case\n" in job["log"]


@pytest.mark.parametrize("script", ["slurm.sh", "slurm_array.sh"])
@pytest.mark.parametrize("name", ["-x", "~/x", "!x"])
def test_names_that_begin_so_in_the_slurm_scripts(
    script: str, name: str, checkout: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    place = home / "x" if name.startswith("~") else checkout / name
    (place / "case").mkdir(parents=True)
    (place / "case" / "model.ckpt-7.index").touch()
    (place / "my.txt").write_text("--num_monte_carlo=2")
    commands = {
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "squeue": "echo 2099-01-01T00:00:00",
    }
    (tmp_path / "bin").mkdir()
    for command, body in commands.items():
        (tmp_path / "bin" / command).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / command).chmod(0o755)
    path = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        "PATH": os.pathsep.join(path), "PYTHONPATH": str(ROOT / "tests" / "stand_in"),
        "HOME": str(home), "SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": str(checkout),
        "SLURM_JOB_NUM_NODES": "1", "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "1",
        "ARG_FILE": f"{name}/my.txt",
    }  # fmt: skip
    if script == "slurm.sh":
        output = place / "s.h5"
        environment["OUTPUT"] = f"{name}/s.h5"
    else:
        output = place / "case.model.ckpt-7.h5"
        environment |= {"CASES": name, "RESULTS": name}
    done = run_group(
        ["bash", str(checkout / "jobs" / script)], timeout=LIMIT_S, cwd=checkout, **environment
    )
    assert done.returncode == 0, done.stderr
    assert output.read_text() == "complete 2/2 draws\n"
    if script == "slurm_array.sh":
        assert f"  --model_dir={place / 'case'}\n" in done.stdout


@pytest.mark.parametrize(
    ("lines", "settings", "said", "n_jobs"),
    [
        (["--num_monte_carlo=9", "--at_most=0"], {}, "added nothing (3 before, 3 now)", 1),
        (["--num_monte_carlo=9", "--at_most=1"], {"MAX_JOBS": "2"}, "MAX_JOBS=2 jobs have run", 2),
    ],
)
def test_what_leads_nowhere_is_not_submitted_for_ever(
    lines: list[str], settings: dict[str, str], said: str, n_jobs: int, checkout: Path,
    make_queue: MakeQueue,
) -> None:  # fmt: skip
    queue, output = make_queue("cobalt"), checkout / "sweep.h5"
    output.write_text("partial 3/9 draws\n")
    settings |= {"ARG_FILE": str(arguments(checkout, *lines)), "OUTPUT": str(output)}
    submit(queue, "cobalt_theta.sh", checkout, **settings)
    jobs = queue.run()
    assert len(jobs) == n_jobs
    assert jobs[-1]["status"] == 3 and said in jobs[-1]["log"]


@pytest.mark.parametrize(
    ("said", "launcher", "status"),
    [
        ("complete", 0, 0),
        ("complete (2 thresholds failed)", 4, 4),
        ("complete (2 thresholds failed)", 0, 4),  # launchers lose the status of a run
        ("complete (2 thresholds failed)", 1, 4),
        ("partial 3/9 cells", 3, 3),
    ],
)
def test_what_is_complete_with_failures_is_not_submitted_again(
    said: str, launcher: int, status: int, tmp_path: Path
) -> None:
    program = f"""
        . {ROOT}/jobs/common.sh
        state_of_results() {{ [[ -e {tmp_path}/ran ]] && echo "{said}"; }}
        resubmit() {{ touch {tmp_path}/resubmitted; }}
        OUTPUT={tmp_path}/s.h5 ARG_FILE=a.txt MAX_JOBS=9 THREADS=1
        sweep bash -c 'touch {tmp_path}/ran; exit {launcher}'
    """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "resubmitted").exists() == said.startswith("partial")


def test_an_interrupted_script_submits_nothing(tmp_path: Path) -> None:
    program = f"""
        . {ROOT}/jobs/common.sh
        state_of_results() {{ [[ -e {tmp_path}/ran ]] && echo "partial 3/9 cells"; }}
        resubmit() {{ touch {tmp_path}/resubmitted; }}
        OUTPUT={tmp_path}/s.h5 ARG_FILE=a.txt MAX_JOBS=9 THREADS=1
        sweep bash -c 'touch {tmp_path}/ran; kill -INT $PPID; exec sleep 20'
    """
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=LIMIT_S,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "launcher's status 138" in done.stderr  # SIGUSR1 was passed on
    assert "interrupted: no other job is submitted" in done.stderr
    assert not (tmp_path / "resubmitted").exists()


def test_a_signal_that_comes_while_the_launcher_is_started_is_passed_on() -> None:
    program = f"""
        . {ROOT}/jobs/common.sh
        set -T
        trap '[[ $BASH_COMMAND != launched=* ]] || kill -USR1 $$' DEBUG
        run sleep 20
        trap - DEBUG
        echo "$asked_to_stop $status"
    """
    done = run_group(["bash", "-c", program])
    # A signal that nobody waits for ends `sleep`.
    assert done.stdout == f"USR1 {128 + signal.SIGUSR1}\n", done.stderr


def test_a_launcher_that_is_called_wrongly_is_seen(checkout: Path, make_queue: MakeQueue) -> None:
    queue = make_queue("pbs")
    settings = {"ARG_FILE": "none.txt", "THREADS": "4", "RANKS_PER_NODE": "32"}
    submit(queue, "pbs_polaris.sh", checkout, **settings)
    (job,) = queue.run()
    assert job["status"] == 1
    assert "32 ranks a node x depth 4 > 64 hardware threads" in job["log"]


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_sweep_comes_after_training_that_went_well(
    scheduler: str, fails: bool, checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue(scheduler)
    train = checkout / "train.txt"
    train.write_text("--fail" if fails else "")
    submitted = subprocess.run(
        [checkout / "jobs" / "pipeline.sh", scheduler], cwd=checkout, text=True, timeout=LIMIT_S,
        capture_output=True,
        env={**queue.environment, "TRAIN_ARG_FILE": str(train), "MODEL_DIR": "a network",
             "ARG_FILE": str(arguments(checkout, "--num_monte_carlo=2"))},
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    jobs = queue.run()
    assert submitted.stdout == f"training: job {jobs[0]['id']}; sweep: job {jobs[1]['id']}\n"
    if fails:
        assert [job["status"] for job in jobs] == [1, None]
        assert "a network: no training that can go on" in jobs[0]["log"]
        return
    assert [job["status"] for job in jobs] == [0, 0], jobs
    assert (checkout / "a network" / "train.json").read_text() == "2 ranks\n"
    assert "  --model_dir=a network\n" in jobs[1]["log"]
    assert (checkout / "a network.h5").read_text() == "complete 2/2 draws\n"


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs"])
def test_names_that_begin_so_in_a_pipeline(
    scheduler: str, checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue(scheduler)
    home = queue.directory
    (home / "checkout").symlink_to(checkout)
    (checkout / "-train.txt").write_text("")
    (checkout / "-sweep.txt").write_text("--num_monte_carlo=2")
    submitted = subprocess.run(
        [checkout / "jobs" / "pipeline.sh", scheduler], cwd=checkout, text=True, timeout=LIMIT_S,
        capture_output=True,
        env={**queue.environment, "HOME": str(home), "BPRUNE_HOME": "~/checkout",
             "TRAIN_ARG_FILE": "-train.txt", "ARG_FILE": "-sweep.txt", "MODEL_DIR": "~/net",
             "OUTPUT": "-x.h5"},
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    jobs = queue.run()
    assert [job["status"] for job in jobs] == [0, 0], jobs
    assert (home / "net" / "train.json").read_text() == "2 ranks\n"
    assert (checkout / "-x.h5").read_text() == "complete 2/2 draws\n"


@pytest.mark.parametrize("script", ["cobalt_theta_train.sh", "pbs_polaris_train.sh"])
def test_a_training_that_needs_more_than_one_job_goes_on_to_its_end(
    script: str, checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue(script.partition("_")[0])
    settings = {"TRAIN_ARG_FILE": str(arguments(checkout, "--at_most=15")), "MODEL_DIR": "a net"}
    submit(queue, script, checkout, **settings)
    jobs = queue.run()
    assert (checkout / "a net" / "train.json").read_text() == "2 ranks\n"
    resubmitted = 0 if queue.scheduler == "cobalt" else 3
    assert [job["status"] for job in jobs] == [resubmitted, resubmitted, 0]
    assert [job["after"] for job in jobs] == ["", jobs[0]["id"], jobs[1]["id"]]
    for number, job in enumerate(jobs, 1):
        assert f"job {number} of at most 20 for a net" in job["log"]
    assert "a net: partial 30/40 steps" in jobs[1]["log"]


@pytest.mark.parametrize(
    ("said", "launcher", "pipeline", "status"),
    [
        ("complete", 0, "", 0),
        ("complete", 2, "", 2),  # as on another number of ranks
        ("complete (2 thresholds failed)", 4, "", 4),
        ("complete (2 thresholds failed)", 0, "", 4),  # launchers lose the status of a run
        ("complete (2 thresholds failed)", 2, "", 2),
        ("complete (2 thresholds failed)", 4, "slurm", 0),  # a sweep of the network is to follow
        ("partial 3/9 steps", 3, "", 3),
        ("partial 3/9 steps", 0, "", 3),
        ("", 0, "", 1),
        ("", 2, "", 2),
    ],
)
def test_what_a_training_ends_with_decides(
    said: str, launcher: int, pipeline: str, status: int, tmp_path: Path
) -> None:
    program = f"""
        PIPELINE={pipeline}
        . {ROOT}/jobs/common.sh
        state_of_training() {{ [[ -e {tmp_path}/ran ]] && echo "{said}" || true; }}
        resubmit() {{ touch {tmp_path}/resubmitted; }}
        MODEL_DIR={tmp_path}/net TRAIN_ARG_FILE=a.txt MAX_JOBS=9 THREADS=1
        train bash -c 'touch {tmp_path}/ran; exit {launcher}'
    """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "resubmitted").exists() == said.startswith("partial")


def test_a_training_that_adds_nothing_is_not_submitted_for_ever(
    checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue("pbs")
    (checkout / "a net.training").write_text("5")
    settings = {"TRAIN_ARG_FILE": str(arguments(checkout, "--at_most=0")), "MODEL_DIR": "a net"}
    submit(queue, "pbs_polaris_train.sh", checkout, **settings)
    (job,) = queue.run()
    assert job["status"] == 3 and "added nothing (5 before, 5 now)" in job["log"]


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs"])
def test_the_sweep_comes_after_the_last_job_of_a_training(
    scheduler: str, checkout: Path, make_queue: MakeQueue
) -> None:
    queue = make_queue(scheduler)
    train = checkout / "train.txt"
    train.write_text("--at_most=25")
    submitted = subprocess.run(
        [checkout / "jobs" / "pipeline.sh", scheduler], cwd=checkout, text=True, timeout=LIMIT_S,
        capture_output=True,
        env={**queue.environment, "TRAIN_ARG_FILE": str(train), "MODEL_DIR": "a network",
             "MAX_JOBS": "7", "ARG_FILE": str(arguments(checkout, "--num_monte_carlo=2"))},
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    first, waited, second, sweep = queue.run()
    # The sweep that was put down with the first job is not started; one after the second is.
    assert [job["status"] for job in (first, waited, second, sweep)] == [3, None, 0, 0], first
    assert (waited["after"], sweep["after"]) == (first["id"], second["id"])
    assert "job 2 of at most 7 for a network (partial 25/40 steps)" in second["log"]
    assert "job 1 of at most 7 for a network.h5 (not begun)" in sweep["log"]
    assert "1 threads" in sweep["log"]  # and not those of the training's job
    assert (checkout / "a network.h5").read_text() == "complete 2/2 draws\n"
