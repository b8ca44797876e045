"""Whole sweeps that choose a threshold, and that draw until an error is reached."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import report, results, sweep
from tests.helpers.bits import all_bits

DIGITS = ["--model_dir=embedded:digits_fc", "--dataset=digits", "--thresholds=0,0.5,3"]


def run(*argv: str | Path) -> int:
    return sweep.main([str(argument) for argument in argv])


def test_the_choice_is_printed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.h5"
    flags = ["--num_monte_carlo=12", "--max_nll_rise=0.05"]
    assert run(*DIGITS, *flags, f"--output={path}") == 0
    table, choice, where = capsys.readouterr().out.rsplit("\n", 3)[:3]
    assert where == f"results: {path}" and "SNR <=" in table
    assert choice.startswith("choice: SNR <= 0.5, 83.45 % pruned: NLL rise below 0.05 at 95 % ")
    assert "confidence (estimated: -0.0" in choice
    assert "At SNR <= 3 it is estimated at 0.2" in choice
    found = results.read(path).choice
    assert found.attrs["rule"] == "nll_rise" and found.attrs["limit"] == 0.05
    assert found.attrs["confidence"] == 0.95 and found.attrs["index"] == 1
    assert found.attrs["text"] == choice
    assert found.is_below.values.tolist() == [1, 1, 0]
    metrics = results.read(path).metrics
    combined = np.hypot(metrics.nll_rise_se, metrics.nll_rise_se_data)
    student = (found.upper_bound - metrics.nll_rise)[1:] / combined[1:]
    assert (student > 1.645).all() and (student < 2.02).all()  # t of 5 degrees or more
    assert report.main([str(path)]) == 0
    assert choice in capsys.readouterr().out


def test_without_a_limit_nothing_is_chosen(tmp_path: Path) -> None:
    assert run(*DIGITS, "--num_monte_carlo=2", f"--output={tmp_path / 's.h5'}") == 0
    with h5py.File(tmp_path / "s.h5") as file:
        assert "choice" not in file


TARGET = [*DIGITS, "--batch_size=100", "--target_se=nll=0.005", "--num_monte_carlo=210"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that drew until an error was reached, before the most draws it was allowed."""
    path = tmp_path_factory.mktemp("target") / "stopped.h5"
    assert run(*TARGET, f"--output={path}") == 0
    return path


def test_it_stops_where_the_error_is_reached_with_the_bits_of_so_many_draws(
    stopped: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plain.h5"
    found = results.read(stopped)
    n_draws = int(found.attrs["n_draws"])
    assert n_draws in (100, 200) and len(found.draws.draw) == n_draws
    assert found.metrics.attrs["target_metric"] == "nll"
    assert found.metrics.attrs["target_reached"] == 1
    assert found.metrics.nll_se.max() <= 0.005
    assert '"target": {"metric": "nll", "se": 0.005}' in found.attrs["config"]
    assert run(*TARGET[:-2], f"--num_monte_carlo={n_draws}", f"--output={path}") == 0
    assert all_bits(stopped) == all_bits(path)
    # Half the draws were not enough.
    half = [*TARGET[:-2], f"--num_monte_carlo={n_draws // 2}", "--overwrite"]
    assert run(*half, f"--output={path}") == 0
    assert results.read(path).metrics.nll_se.max() > 0.005


def test_a_target_out_of_reach_ends_at_the_most_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.h5"
    flags = ["--target_se=nll=1e-6", "--num_monte_carlo=60"]
    assert run(*DIGITS, *flags, f"--output={path}") == 0
    assert "target: not reached with 60 draws: nll_se is at most 0.0" in capsys.readouterr().out
    found = results.read(path)
    assert found.attrs["n_draws"] == 60 and found.metrics.attrs["target_reached"] == 0


def test_a_target_with_sums_that_do_not_fit_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.h5"
    assert run(*TARGET, "--state_limit_gb=0.001", f"--output={path}") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "--target_se: needs the sums of all examples at once; raise --state_limit_gb" in error
    enough = error.rpartition(" ")[2]
    assert 0.001 < float(enough) < 0.01 and not path.exists()
    flags = [f"--state_limit_gb={enough}", "--num_monte_carlo=50"]
    assert run(*TARGET, *flags, f"--output={path}") == 0
