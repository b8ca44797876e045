"""Whole sweeps that choose a threshold, and that draw until an error is reached."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import report, results, sweep

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
    assert choice.startswith("choice: SNR <= 0.5, 83.45 % pruned: NLL rise -0.0")
    assert "At SNR <= 3 it is 0.2" in choice
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
