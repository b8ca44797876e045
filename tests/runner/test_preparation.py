"""What is decided before the first draw: the same for a sweep and for its estimate."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bprune_hpc import sweep
from bprune_hpc.config import sweep_config
from bprune_hpc.config.sweep_config import SweepConfig
from bprune_hpc.graph import flops
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner import problem as problems
from bprune_hpc.runner.datasets import OUT_OF_DISTRIBUTION, Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.runner.preparation import Joined, PreparedSweep, prepare
from tests.helpers import fake_problem
from tests.helpers.sweeps import FLAGS, KINDS, start


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_problem.install(monkeypatch.setattr)


def as_asked(
    config: SweepConfig, network: Network, examples: Sequence[Examples], draws_per_replicate: int
) -> Joined:
    return Joined(config, {}, None)


def prepared(*flags: str) -> PreparedSweep:
    return prepare(sweep_config.parse(["--output=x.h5", *flags]), SerialComm(), as_asked)


@pytest.mark.parametrize(
    ("flags", "n_draws", "size"),
    [
        (["--model_dir=fake", "--num_monte_carlo=7"], 8, 2),
        (["--model_dir=fake", "--num_monte_carlo=7", "--pairing=none"], 7, 1),
        (["--model_dir=fake:regression", "--num_monte_carlo=6"], 8, 4),
        (["--model_dir=fake:regression", "--num_monte_carlo=7", "--pairing=none"], 8, 2),
    ],
)
def test_draws_are_rounded_up_to_whole_units_once_and_said(
    caplog: pytest.LogCaptureFixture, flags: list[str], n_draws: int, size: int
) -> None:
    with caplog.at_level(logging.INFO):
        found = prepared(*flags)
    assert found.config.n_draws == found.plan.n_draws == n_draws
    assert found.plan.draws_per_replicate == size
    text = f"draws come {size} at a time: --num_monte_carlo rounded up to {n_draws}"
    assert caplog.text.count("rounded up") == (0 if size == 1 else 1) == caplog.text.count(text)


def test_what_a_file_has_is_joined_before_anything_is_laid_out() -> None:
    told = []

    def of_file(
        config: SweepConfig,
        network: Network,
        examples: Sequence[Examples],
        draws_per_replicate: int,
    ) -> Joined:
        told.append((config.n_draws, [len(one) for one in examples], draws_per_replicate))
        joined = dataclasses.replace(config, grid=(0.0, 0.5, 1.0), n_draws=12)
        return Joined(joined, {"seed": 3}, [[(0, 30), (30, 45)], [(0, 20)]])

    flags = ["--model_dir=fake", "--ood_dataset=digits", "--thresholds=0,1", "--num_monte_carlo=7"]
    asked = sweep_config.parse([*flags, "--batch_size=10", "--output=x.h5"])
    found = prepare(asked, SerialComm(), of_file)
    assert told == [(8, [45, 20], 2)]
    assert [mask.threshold for mask in found.masks] == [0, 0.5, 1] and found.plan.n_draws == 12
    assert found.identity == {"seed": 3}
    assert found.passes == [[(0, range(30))], [(0, range(30, 45))], [(1, range(20))]]


@pytest.mark.parametrize(
    "flags",
    [
        ["--model_dir=fake", "--target_se=rmse=0.1"],
        ["--model_dir=fake:regression", "--max_accuracy_drop=0.1"],
        ["--model_dir=fake:regression", "--max_nll_rise=0.1", "--num_monte_carlo=4"],
        ["--model_dir=fake", "--granularity=filter"],
        ["--model_dir=fake", "--target_se=nll=0.1", "--state_limit_gb=1e-6", "--batch_size=10"],
    ],
)
def test_a_plan_refuses_what_its_sweep_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    errors = []
    for more in ([], ["--plan"]):
        assert start(tmp_path / "s.h5", "--thresholds=0,1", *flags, *more) == 2
        lines = capsys.readouterr().err.splitlines()
        errors.append([line for line in lines if line.startswith("error: ")])
    assert len(errors[0]) == 1 and errors[0] == errors[1]


def test_a_plan_says_how_draws_are_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flops, "multiplications", lambda *_: 1)  # there is no graph
    flags = ["--model_dir=fake:regression", "--num_monte_carlo=6", "--plan"]
    assert sweep.main([*flags, f"--output={tmp_path / 's.h5'}"]) == 0
    assert "rounded up to 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "n_supersteps"),
    [("other examples", None), ("other examples", 1), ("blocks and other examples", None)],
)
def test_examples_without_labels_have_the_sums_of_class_0_and_show_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, n_supersteps: int | None
) -> None:
    """So that states of files that were begun when these had labels 0 are gone on from."""
    (other,) = (one for one in prepared(*KINDS[kind]).datasets if one.label is None)
    assert other.name == OUT_OF_DISTRIBUTION
    load, files = problems.load, []

    def labelled(number: int | None) -> Callable[..., problems.Problem]:
        def read(*arguments: Any) -> problems.Problem:
            network, (test, other) = load(*arguments)
            label = None if number is None else np.full(len(other), number)
            return network, [test, dataclasses.replace(other, label=label)]

        return read

    for number in (None, 0, 3):
        path = tmp_path / str(number)
        fake_problem.install(monkeypatch.setattr, replicate_by_replicate=n_supersteps is not None)
        monkeypatch.setattr(problems, "load", labelled(number))
        start(path, *KINDS[kind], *FLAGS, n_supersteps=n_supersteps)
        files.append(arrays_of(path))
    without, of_class_0, of_class_3 = files
    assert without == of_class_0
    differ = {name for name, array in without.items() if of_class_3[name] != array}
    assert differ and all(name.startswith("state/") for name in differ)


def arrays_of(path: Path) -> dict[str, bytes]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()})
                if isinstance(item, h5py.Dataset) and item.dtype != object and "run/" not in name
                else None
            )
        )
    return found
