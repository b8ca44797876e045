"""Stand-ins for what the sites' machines have: aprun, PALS' mpiexec, qsub, and the queue behind it.

A launcher checks its line by ``batch_rules`` and starts that command on real MPI ranks, though no
more than a few. ``qsub`` puts a job down; :class:`Queue` runs what has been put down, each
once the jobs that it depends on have ended, with the variables that its scheduler would set.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster import batch_rules
from tests.cluster.batch_rules import RuleError
from tests.helpers.launch import LIMIT_S, ROOT

MAX_RANKS = 2

# A launcher's stand-in finds this module, and leaves nothing to what it launches.
_RUN = (
    f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
    "runpy.run_module('tests.cluster.batch_stubs', run_name='__main__', alter_sys=True)"
)


class Queue:
    """Jobs of one scheduler, ``cobalt`` or ``pbs``, below a directory of its own."""

    def __init__(self, directory: Path, scheduler: str, mpirun: str, **environment: str) -> None:
        self.directory, self.scheduler = directory, scheduler
        self.bin = directory / "bin"
        self.bin.mkdir(parents=True)
        for name in ("qsub", "aprun" if scheduler == "cobalt" else "mpiexec"):
            wrapper = self.bin / name
            line = [sys.executable, "-c", _RUN, name]
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(line)} "$@"\n')
            wrapper.chmod(0o755)
        self.environment = {
            **environment,
            "PATH": os.pathsep.join([str(self.bin), environment["PATH"]]),
            "STUB_DIRECTORY": str(directory),
            "STUB_SCHEDULER": scheduler,
            "STUB_MPIRUN": mpirun,
        }

    def submit(self, script: Path, *options: str, cwd: Path, **environment: str) -> str:
        """Put a job down from a login shell with these variables; returns its number."""
        done = subprocess.run(
            ["qsub", *options, str(script)],
            cwd=cwd, env={**self.environment, **environment}, capture_output=True, text=True,
            timeout=LIMIT_S,
        )  # fmt: skip
        if done.returncode:
            raise RuleError(done.stderr)
        return done.stdout.strip()

    def run(self, limit_s: float = LIMIT_S, at_most: int = 10) -> list[dict[str, Any]]:
        """Run all jobs that are put down, and those that they put down; returns them in order."""
        ended: dict[str, dict[str, Any]] = {}
        while True:
            waiting = [path for path in _jobs(self.directory) if path.stem not in ended]
            if not waiting:
                return list(ended.values())
            if len(ended) == at_most:
                raise RuleError(f"more than {at_most} jobs")
            job = json.loads(waiting[0].read_text())
            before = ended.get(job["after"])
            if job["after"] and before is None:
                raise RuleError(f"depends on job {job['after']}, which is none")
            if before is not None and job["only_ok"] and before["status"] != 0:
                job.update(status=None, log="")  # held for ever
            else:
                self._run(job, limit_s)
            ended[job["id"]] = job

    def _run(self, job: dict[str, Any], limit_s: float) -> None:
        # A scheduler starts from a clean environment.
        environment = {**self.environment, **job["environment"], "HOME": str(self.directory)}
        now = int(time.time())
        if self.scheduler == "cobalt":
            environment |= {
                "COBALT_JOBID": job["id"], "COBALT_JOBSIZE": str(job["n_nodes"]),
                "COBALT_STARTTIME": str(now), "COBALT_ENDTIME": str(now + job["seconds"]),
            }  # fmt: skip
        else:
            nodes = self.directory / f"{job['id']}.nodes"
            names = [f"x{i}" for i in range(job["n_nodes"])]
            if job["ranks_per_node"] > 1:  # for a real mpirun, on this machine
                names = [os.uname().nodename]
            nodes.write_text("".join(f"{name}\n" * job["ranks_per_node"] for name in names))
            environment |= {
                "PBS_JOBID": job["id"], "PBS_O_WORKDIR": job["cwd"], "PBS_NODEFILE": str(nodes),
                "PBS_JOBNAME": job["name"], "PBS_ENVIRONMENT": "PBS_BATCH",
            }  # fmt: skip
        # Not by its first line: `bash -l` would read this machine's profile.
        process = subprocess.Popen(
            ["bash", job["script"]], cwd=job["cwd"] if self.scheduler == "cobalt" else "/",
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            job["log"] = process.communicate(timeout=limit_s)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                job["log"] = process.communicate(timeout=LIMIT_S)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                job["log"] = process.communicate()[0]
        job["status"] = process.returncode


def _jobs(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.job"), key=lambda path: int(path.stem.split(".")[0]))


def qsub(words: list[str]) -> str:
    """Put a job down; returns its number."""
    directory, scheduler = Path(os.environ["STUB_DIRECTORY"]), os.environ["STUB_SCHEDULER"]
    number = len(_jobs(directory)) + 1
    job: dict[str, Any] = {"after": "", "only_ok": False, "environment": {}, "cwd": os.getcwd()}
    while words and words[0].startswith("-"):
        option, value, words = words[0], words[1], words[2:]
        if scheduler == "cobalt" and option == "--dependencies":
            job.update(after=value, only_ok=True)
        elif scheduler == "cobalt" and option == "--env":
            for item in re.split(r":(?=\w+=)", value):
                name, equals, text = item.partition("=")
                if not equals:
                    raise RuleError(f"--env {item}: is not NAME=VALUE")
                job["environment"][name] = text
        elif scheduler == "pbs" and option == "-v":
            for item in value.split(","):
                name, equals, text = item.partition("=")
                job["environment"][name] = text if equals else os.environ[name]
        elif scheduler == "pbs" and option == "-W":
            kind, _, job["after"] = value.removeprefix("depend=").partition(":")
            if kind not in ("afterok", "afterany"):
                raise RuleError(f"-W {value}: no such dependency")
            job["only_ok"] = kind == "afterok"
        else:
            raise RuleError(f"{option} is not known here")
    (script,) = words
    path = Path(script).resolve()
    if scheduler == "cobalt":  # runs it in its place
        job["id"] = str(number)
        asked = batch_rules.check_cobalt(path.read_text(), os.access(path, os.X_OK))
    else:
        job["id"] = f"{number}.stub"
        text = path.read_text()
        asked = batch_rules.check_pbs(text, "polaris" if "system=polaris" in text else None)
        path = directory / f"{number}.SC"
        path.write_text(text)
    job.update(
        script=str(path), n_nodes=asked.n_nodes, seconds=asked.seconds, name=asked.name,
        ranks_per_node=asked.ranks_per_node,
    )  # fmt: skip
    (directory / f"{job['id']}.job").write_text(json.dumps(job))
    return job["id"]


def launch(name: str, words: list[str]) -> None:
    """Check a launcher's line and become the mpirun that starts the command."""
    if name == "aprun":
        asked = batch_rules.check_aprun(words, int(os.environ["COBALT_JOBSIZE"]))
    else:
        nodes = Path(os.environ["PBS_NODEFILE"]).read_text().split()
        asked = batch_rules.check_pals(words, len(nodes))
    n_threads = asked.environment.get("OMP_NUM_THREADS")
    if n_threads != str(asked.depth):
        raise RuleError(f"OMP_NUM_THREADS={n_threads} with depth {asked.depth}")
    os.environ.update(asked.environment)
    # By these Open MPI would know a scheduler, and ask it for nodes.
    for variable in ("COBALT_JOBID", "PBS_JOBID", "PBS_ENVIRONMENT"):
        os.environ.pop(variable, None)
    n_ranks = min(asked.n_ranks, MAX_RANKS)
    sys.stderr.write(f"{name}: {asked.n_ranks} ranks asked for, {n_ranks} started\n")
    sys.stderr.flush()
    mpirun = os.environ["STUB_MPIRUN"]
    os.execv(mpirun, [mpirun, "-n", str(n_ranks), *asked.command])


if __name__ == "__main__":
    try:
        if sys.argv[1] == "qsub":
            sys.stdout.write(f"{qsub(sys.argv[2:])}\n")
        else:
            launch(sys.argv[1], sys.argv[2:])
    except RuleError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
