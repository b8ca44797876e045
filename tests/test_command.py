"""The one command: what it lists, what it hands on, and completion in a shell."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import __version__
from bprune_hpc.__main__ import COMMANDS, completion, main
from bprune_hpc.results.file import SCHEMA, Contents, Variable, write
from tests.helpers.launch import LIMIT_S, ROOT, MpiRun, run_group

NAMES = ("accuracy", "accuracy_single_draw", "accuracy_mean_weights", "nll", "predictive_entropy",
         "expected_entropy", "mutual_information")  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A results file of two thresholds."""
    numbers = {
        name + suffix: Variable(("threshold",), np.array([0.5, 0.25]))
        for name in NAMES
        for suffix in ("", "_se", "_se_data")
    }
    groups = {
        "metrics": numbers,
        "sparsity": {"pruned_fraction": Variable(("threshold",), np.array([0, 0.5]))},
    }
    labels = {"threshold": Variable(("threshold",), np.array([0, 1.0]))}
    attrs = {"schema": SCHEMA, "status": "complete"}
    write(tmp_path / "sweep.h5", Contents(attrs, labels, groups))
    return tmp_path / "sweep.h5"


def test_help_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        for name, does in COMMANDS.items():
            assert f"  {name} " in said and does in said
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bprune_hpc {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help(name: str) -> None:
    module = importlib.import_module(f"bprune_hpc.{name}")
    assert callable(module.main)
    said = module.parser().format_help()
    assert said.startswith(f"usage: {module.parser().prog} ") and name in module.parser().prog


def test_what_is_no_command_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["swep", "@X"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'swep'; did you mean sweep?\n"
    # Of the ranks of a launcher the first one speaks.
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert main(["swep"]) == 2 and main(["--help"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_results_file_is_read_without_tensorflow(file: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_group([sys.executable, "-X", "importtime", "-m", *arguments])

    report, status = (
        run("bprune_hpc", "report", str(file)),
        run("bprune_hpc", "inspect", "--status", str(file)),
    )
    assert report.returncode == status.returncode == 0, report.stderr + status.stderr
    assert report.stdout == run("bprune_hpc.report", str(file)).stdout
    assert "50.00 %" in report.stdout and status.stdout == "complete\n"
    for done in (report, status):
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert {"h5py", "bprune_hpc.streams"} <= loaded
        assert not {"tensorflow", "tf_keras", "tensorflow_probability"} & loaded
        assert not any(name.startswith("tensorflow.") for name in loaded)


def test_exit_statuses_are_those_of_the_commands(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bprune_hpc", "report", str(tmp_path / "none.h5")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path}/none.h5: ")


def test_ranks_without_graphs_need_no_tensorflow(
    mpirun: MpiRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide = "import os, sys\nif os.environ.get('OMPI_COMM_WORLD_RANK') != '0':\n"
    (tmp_path / "sitecustomize.py").write_text(f"{hide}    sys.modules['tensorflow'] = None\n")
    program = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); import sitecustomize\n"
    program += "import importlib; importlib.reload(sitecustomize)\n"
    program += "runpy.run_module('bprune_hpc', run_name='__main__', alter_sys=True)"
    arguments = ["--model_dir=embedded:digits_fc", "--thresholds=0,1", "--num_monte_carlo=40"]
    output = f"--output={tmp_path / 'sweep.h5'}"
    done = mpirun(2, ["-c", program, str(tmp_path), "sweep", *arguments, output])
    assert done.returncode == 0, done.stderr
    assert "0.98" in done.stdout


def test_a_shell_completes_commands_and_flags(tmp_path: Path) -> None:
    shtab = pytest.importorskip("shtab")
    script = tmp_path / "bprune.bash"
    script.write_text(shtab.complete(completion(), shell="bash"))

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        program = (
            f". {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); "
            "_shtab_bprune bprune; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert set(completed("bprune", "")) >= set(COMMANDS)
    assert completed("bprune", "sw") == ["sweep"]
    assert completed("bprune", "sweep", "--crit") == ["--criterion"]
    assert "bmr" in completed("bprune", "sweep", "--criterion", "")
    assert completed("bprune", "report", "--pl") == ["--plot"]
