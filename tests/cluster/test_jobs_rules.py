"""Directives and launcher lines of the job scripts against the documented rules."""

from __future__ import annotations

import re

import pytest

from tests.cluster import batch_rules
from tests.cluster.batch_rules import RuleError
from tests.helpers.launch import ROOT

JOBS = ROOT / "jobs"
COBALT = ("cobalt_theta.sh", "cobalt_theta_train.sh")
PBS = {"pbs.sh": None, "pbs_polaris.sh": "polaris", "pbs_polaris_train.sh": "polaris"}


@pytest.mark.parametrize("name", COBALT)
def test_cobalt_directives_are_sound(name: str) -> None:
    script = JOBS / name
    job = batch_rules.check_cobalt(script.read_text(), bool(script.stat().st_mode & 0o100))
    assert (job.n_nodes, job.seconds, job.queue) == (8, 3600, "debug-cache-quad")


@pytest.mark.parametrize("name", PBS)
def test_pbs_directives_are_sound(name: str) -> None:
    text = (JOBS / name).read_text()
    job = batch_rules.check_pbs(text, PBS[name])
    assert job.n_nodes == (2 if PBS[name] else 1)
    told = re.search(r"^WALLTIME=\$\{WALLTIME:-(\d+):(\d+):(\d+)\}", text, re.MULTILINE)
    assert told, "the script does not know its time"
    hours, minutes, seconds = map(int, told.groups())
    assert 3600 * hours + 60 * minutes + seconds == job.seconds


MISTAKES = [
    # In Cobalt's directives: what is replaced, by what, and what is said.
    ("cobalt", "#COBALT -t 60", "# an hour\n#COBALT -t 60", "directives ended at line 3"),
    ("cobalt", "#COBALT -t 60", "\n#COBALT -t 60", "directives ended at line 3"),
    ("cobalt", "#COBALT -t 60", "#COBALT -t 60 # an hour", "no quotes, comments"),
    ("cobalt", "#COBALT -A MyProject", "#COBALT -A $PROJECT", "no quotes, comments"),
    ("cobalt", "#COBALT -A MyProject", "#COBALT -A 'My Project'", "no quotes, comments"),
    ("cobalt", "#COBALT -A MyProject\n", "", "-A PROJECT is required"),
    ("cobalt", "#COBALT -t 60\n", "", "-t TIME is required"),
    ("cobalt", "#COBALT --attrs", "#COBALT --attrs x=1\n#COBALT --attrs", "--attrs is given twice"),
    ("cobalt", ":filesystems=home,theta-fs0", "", "no filesystems="),
    ("cobalt", "#COBALT -n 8", "#COBALT -n 16", "at most 8 nodes"),
    ("cobalt", "#COBALT -t 60", "#COBALT -t 1:30:00", "at most 8 nodes for 1 h"),
    ("cobalt", "-q debug-cache-quad", "-q default", "at least 128 nodes"),
    ("cobalt", "-n 8\n#COBALT -t 60\n#COBALT -q debug-cache-quad", "-n 128\n#COBALT -t 300",
     "30 min to 3 h"),
    ("cobalt", "#COBALT -t 60", "#COBALT -t an hour", "no such|minutes or|for the command"),
    ("cobalt", "#COBALT -n 8", "#COBALT --nodes 8", "--nodes is not documented"),
    ("cobalt", "#COBALT -n 8", "#COBALT -n 8 jobs.sh", "taken for the command"),
    ("cobalt", "#!/bin/bash", "", "no #! line"),
    # In those of PBS on Polaris.
    ("polaris", "#PBS -l filesystems=home:eagle\n", "", "filesystems is required"),
    ("polaris", "home:eagle", "home:theta-fs0", "home and eagle"),
    ("polaris", "#PBS -l walltime=01:00:00\n", "", "walltime is required"),
    ("polaris", "#PBS -l walltime=01:00:00", "#PBS -l walltime=60", "is not HH:MM:SS"),
    ("polaris", "#PBS -A MyProject\n", "", "-A PROJECT is required"),
    ("polaris", "select=2:", "select=3:", "debug: 1 to 2 nodes"),
    ("polaris", "#PBS -q debug", "#PBS -q default", "-q default: one of"),
    ("polaris", "#PBS -q debug", "#PBS -q debug # for now", "one option and its value"),
    ("polaris", "#PBS -k doe", "#PBS -k oe", "-k doe is enforced"),
    ("polaris", "set -euo pipefail", "set -eu\n#PBS -m e", "after the first command"),
    ("polaris", "#PBS -r y", "#PBS --requeue", "one option and its value"),
    ("polaris", "#PBS -r y", "#PBS -z y", "-z is not documented"),
    ("polaris", "#PBS -r y", "#PBS -l nodes=2", "-l nodes is not documented"),
    ("polaris", "-l walltime=01:00:00", "-l walltime=01:30:00", "5 min to 1 h"),
    ("polaris", "-N bprune", "-N bprune*", "letters, digits"),
    ("generic", "mpiprocs=4", "mpiprocs=8", "mpiprocs=8 on ncpus=4"),
    ("generic", "select=1:", "select=some:", "select: some is no number"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "right", "wrong", "said"), MISTAKES)
def test_a_mistake_in_directives_is_found(rules: str, right: str, wrong: str, said: str) -> None:
    script = {"cobalt": "cobalt_theta.sh", "polaris": "pbs_polaris.sh", "generic": "pbs.sh"}[rules]
    text = (JOBS / script).read_text()
    assert right in text
    text = text.replace(right, wrong, 1)
    with pytest.raises(RuleError, match=said):
        if rules == "cobalt":
            batch_rules.check_cobalt(text)
        else:
            batch_rules.check_pbs(text, "polaris" if rules == "polaris" else None)


def test_a_script_without_its_x_bit_is_found() -> None:
    with pytest.raises(RuleError, match="x bit"):
        batch_rules.check_cobalt((JOBS / COBALT[0]).read_text(), is_executable=False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-n 512 -N 64 -d 2 -j 1 -cc depth x", "64 ranks a node x depth 2 > 64"),
        ("-n 512 -N 64 -d 1 -j 3 x", "-j 3"),
        ("-n 600 -N 64 -d 1 x", "600 ranks, 64 a node, on 8 nodes"),
        ("-n 8 -N 1 --map-by slot x", "--map-by is not documented"),
        ("-n 8 -N 1 -cc cores x", "-cc cores"),
        ("-n 8 -N 1 -e OMP_NUM_THREADS x", "is not NAME=VALUE"),
        ("-n 8 -n 8 x", "-n is given twice"),
        ("-n 8 -N 1", "no command"),
        ("-n eight x", "eight is no number"),
    ],
)
def test_a_mistake_in_a_line_of_aprun_is_found(line: str, said: str) -> None:
    with pytest.raises(RuleError, match=re.escape(said)):
        batch_rules.check_aprun(line.split(), 8)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-n 64 --ppn 32 --depth=4 --cpu-bind depth x", "32 ranks a node x depth 4 > 64"),
        ("-n 96 --ppn 32 x", "96 ranks, 32 a node, on 2 nodes"),
        ("-n 64 --ppn 32 --bind-to core x", "--bind-to is not documented"),
        ("-n 64 --ppn 32 --cpu-bind cores x", "--cpu-bind cores"),
        ("--ppn 32 x", "-n is required"),
    ],
)
def test_a_mistake_in_a_line_of_pals_is_found(line: str, said: str) -> None:
    with pytest.raises(RuleError, match=re.escape(said)):
        batch_rules.check_pals(line.split(), 2)
