"""Whole sweeps with ``--device=gpu``: refused where there is none, and run on stand-ins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import pytest

from bprune_hpc import results, tensorflow_import
from tests.helpers import logical_devices
from tests.helpers.bits import DIGITS, all_bits
from tests.helpers.launch import MpiRun
from tests.helpers.sweeps import start

FLAGS = [*DIGITS, "--thresholds=0,0.5,3", "--num_monte_carlo=12", "--batch_size=100"]
PROGRAM = "tests.programs.device_program"


@pytest.fixture(scope="module")
def on_processors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processors") / "sweep.h5"
    assert start(path, *FLAGS, "--evaluator=graph") == 0
    return path


def devices_of(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """As ``/run`` and the environment have them."""
    with h5py.File(path) as file:
        environment = json.loads(file["state"].attrs["environment"])
        names = [name.decode() for name in file["run/device"][()]]
    return names, {name: environment[name] for name in ("device", "driver") if name in environment}


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_the_bits_are_those_of_any_number_of_ranks(
    mpirun: MpiRun, tmp_path: Path, on_processors: Path, n_ranks: int
) -> None:
    path = tmp_path / "sweep.h5"
    ended = mpirun(n_ranks, ["-m", PROGRAM, "3", *FLAGS, "--device=gpu", f"--output={path}"])
    assert ended.returncode == 0, ended.stderr
    name = "stand-in, compute capability: 1.0"
    assert f"the network runs on {n_ranks} x {name}, one GPU a rank" in ended.stderr
    # Logical devices are processors: of a real GPU the last bits would be others.
    assert all_bits(path) == all_bits(on_processors)
    names, facts = devices_of(path)
    assert names == [name] * n_ranks and facts["device"] == [name]
    assert devices_of(on_processors) == (["cpu"], {})


@pytest.mark.parametrize(
    ("n_ranks", "command", "message"),
    [
        (2, ["-m", "bprune_hpc.sweep"], "TensorFlow sees no GPU"),
        (3, ["-m", PROGRAM, "2"], "3 ranks on .*, which has 2 GPUs for them; start one rank a GPU"),
        (2, ["-m", PROGRAM, "1"], "ranks 0 and 1 on .* have the same GPU"),
    ],
)
def test_ranks_that_outnumber_gpus_are_refused_in_one_line(
    mpirun: MpiRun, tmp_path: Path, n_ranks: int, command: list[str], message: str
) -> None:
    path = tmp_path / "sweep.h5"
    ended = mpirun(n_ranks, [*command, *FLAGS, "--device=gpu", f"--output={path}"])
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 2 and len(lines) == 1, ended.stderr
    assert re.search(message, lines[0])
    assert not path.exists()


def test_a_file_of_processors_goes_on_on_a_gpu_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.h5"
    monkeypatch.setattr(tensorflow_import, "_uses_gpus", [])
    assert start(path, *FLAGS, "--evaluator=graph") == 0
    assert "mixed_environment" not in results.read(path).attrs
    logical_devices.install(set_attribute=monkeypatch.setattr)
    more = [*FLAGS[:-2], "--num_monte_carlo=14", FLAGS[-1]]
    assert start(path, *more, "--device=gpu") == 0
    mixed = results.read(path).attrs["mixed_environment"]
    assert "device cpu, stand-in, compute capability: 1.0" in mixed and "driver none, " in mixed


def test_of_another_evaluator_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.h5"
    assert start(path, *FLAGS) == 0
    logical_devices.install(set_attribute=monkeypatch.setattr)
    assert start(path, *FLAGS, "--device=gpu") == 2
    assert "evaluator chain, now graph" in capsys.readouterr().err
