"""Lines for launchers and schedulers, read as these read them."""

from __future__ import annotations

import re
import shlex

import pytest

from bprune_hpc.estimate import submission
from bprune_hpc.estimate.submission import Lines, Request
from tests.cluster import batch_rules
from tests.helpers.launch import ROOT

POLARIS, THETA = submission.machines()
HOUR = 3600
SIZES = [(1, 1, 300), (4, 2, HOUR), (64, 1, 1500), (100, 1, 5 * HOUR), (300, 3, 30 * HOUR),
         (5000, 1, 2 * HOUR)]  # fmt: skip


def request(n_ranks: int, n_threads: int, seconds: int, n_cores: int = 16) -> Request:
    return Request(("@my case.txt",), "results/a b.h5", n_ranks, n_threads, seconds, n_cores)


def words_of(lines: Lines) -> tuple[dict[str, str], list[str]]:
    """Variables before a command, and its words."""
    words = shlex.split(lines.command)
    variables = {}
    while "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    return variables, words


def edited(script: str, lines: Lines) -> str:
    """A script of ``jobs/`` with the directives that it is said to need, each in its old place."""
    text = (ROOT / "jobs" / script).read_text()
    for directive in lines.directives:
        what = re.match(r"#\w+ (-l \w+=|-\w+ )", directive)
        assert what, directive
        pattern = rf"^{directive.split()[0]} {what[1]}.*$"
        text, n_found = re.subn(pattern, directive, text, count=1, flags=re.MULTILINE)
        assert n_found == 1, f"{script} has no {directive}"
    return text


def settings(script: str) -> set[str]:
    """Variables that a script takes."""
    return set(re.findall(r"^(\w+)=\$\{\1:-", (ROOT / "jobs" / script).read_text(), re.MULTILINE))


def test_time_is_asked_for_in_steps_and_with_room() -> None:
    assert submission.time_to_ask_for(10, 31) == 300
    assert submission.time_to_ask_for(3600, 100) == 4800  # 4500 + 100 + 120, in steps of 5 min
    for seconds in (1.0, 59.0, 3500.0, 86400.0):
        assert submission.time_to_ask_for(seconds, 95) >= 1.25 * seconds + 95
    assert submission.clock(90061) == "25:01:01"


@pytest.mark.parametrize(
    ("n_ranks", "n_threads", "n_cores", "placed"),
    [(1, 1, 16, (1, 1)), (64, 1, 16, (4, 16)), (17, 1, 16, (2, 9)), (8, 4, 16, (2, 4)),
     (3, 32, 16, (3, 1))],
)  # fmt: skip
def test_ranks_are_spread_evenly_over_the_fewest_nodes(
    n_ranks: int, n_threads: int, n_cores: int, placed: tuple[int, int]
) -> None:
    assert request(n_ranks, n_threads, 300).placed(n_cores) == placed


@pytest.mark.parametrize("size", SIZES)
def test_slurm(size: tuple[int, int, int]) -> None:
    variables, words = words_of(submission.slurm(request(*size)))
    assert variables == {"ARG_FILE": "my case.txt", "OUTPUT": "results/a b.h5"}
    assert set(variables) <= settings("slurm.sh")
    assert (words[0], words[-1]) == ("sbatch", "jobs/slurm.sh")
    flags = dict(word.removeprefix("--").split("=") for word in words[1:-1])
    n_nodes, per_node = int(flags["nodes"]), int(flags["ntasks-per-node"])
    assert size[0] <= n_nodes * per_node < size[0] + n_nodes
    assert per_node * int(flags["cpus-per-task"]) <= 16
    hours, minutes, seconds = map(int, flags["time"].split(":"))
    assert 3600 * hours + 60 * minutes + seconds == size[2]
    # What the line says is what the script says by itself, so that it wins.
    told = re.findall(r"^#SBATCH --([\w-]+)=", (ROOT / "jobs/slurm.sh").read_text(), re.MULTILINE)
    assert set(flags) <= set(told)


def test_launchers_by_hand() -> None:
    sweep = ["python", "-m", "bprune_hpc.sweep", "@my case.txt"]
    _, words = words_of(submission.mpirun(request(64, 2, 300)))
    assert words == ["mpirun", "-n", "64", "--map-by", "slot:PE=2", "--bind-to", "core", *sweep]
    _, words = words_of(submission.srun(request(64, 2, 300)))
    assert words[0] == "srun" and words[-4:] == sweep
    assert {"--ntasks=64", "--cpus-per-task=2"} <= set(words)


def qsub_variables(words: list[str], flag: str, separator: str) -> dict[str, str]:
    assert words[:2] == ["qsub", flag]
    return dict(item.split("=", 1) for item in words[2].split(separator))


@pytest.mark.parametrize("size", SIZES)
def test_pbs(size: tuple[int, int, int]) -> None:
    lines = submission.pbs(request(*size))
    job = batch_rules.check_pbs(edited("pbs.sh", lines))
    assert size[0] <= job.n_nodes * job.ranks_per_node < size[0] + job.n_nodes
    assert job.seconds == size[2]
    _, words = words_of(lines)
    variables = qsub_variables(words, "-v", ",")
    assert variables["ARG_FILE"] == "my case.txt" and words[3:] == ["jobs/pbs.sh"]
    assert variables["WALLTIME"] == submission.clock(job.seconds)
    assert set(variables) <= settings("pbs.sh")


@pytest.mark.parametrize("size", SIZES)
def test_pbs_on_polaris(size: tuple[int, int, int]) -> None:
    lines = submission.on_machine(request(*size), POLARIS)
    job = batch_rules.check_pbs(edited("pbs_polaris.sh", lines), "polaris")
    _, words = words_of(lines)
    variables = qsub_variables(words, "-v", ",")
    per_node, depth = int(variables["RANKS_PER_NODE"]), int(variables["THREADS"])
    launched = job.n_nodes * per_node
    line = f"-n {launched} --ppn {per_node} --depth={depth} --cpu-bind depth x"
    batch_rules.check_pals(line.split(), job.n_nodes)
    assert size[0] <= launched < size[0] + job.n_nodes
    assert per_node * depth <= 32
    assert job.seconds == min(size[2], 24 * HOUR if job.queue == "prod" else size[2])
    assert variables["WALLTIME"] == submission.clock(job.seconds)
    assert set(variables) <= settings("pbs_polaris.sh")


@pytest.mark.parametrize("size", SIZES)
def test_cobalt(size: tuple[int, int, int]) -> None:
    lines = submission.on_machine(request(*size), THETA)
    job = batch_rules.check_cobalt(edited("cobalt_theta.sh", lines))
    _, words = words_of(lines)
    variables = qsub_variables(words, "--env", ":")
    per_node, depth = int(variables["RANKS_PER_NODE"]), int(variables["THREADS"])
    launched = job.n_nodes * per_node
    line = f"-n {launched} -N {per_node} -d {depth} -j 1 -cc depth x"
    batch_rules.check_aprun(line.split(), job.n_nodes)
    assert size[0] <= launched < size[0] + job.n_nodes
    assert set(variables) <= settings("cobalt_theta.sh")


def test_arguments_that_stand_in_no_file_are_to_be_put_into_one() -> None:
    scattered = Request(("@a.txt", "--seed=3"), "s.h5", 2, 1, 300, 16)
    assert scattered.argument_file is None
    assert words_of(submission.slurm(scattered))[0]["ARG_FILE"] == submission.NO_FILE
    assert words_of(submission.mpirun(scattered))[1][-2:] == ["@a.txt", "--seed=3"]
