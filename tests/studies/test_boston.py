"""The study of Boston housing in small: orders and minima, not digits; and what is missing."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from studies import boston, study
from tests.helpers.launch import TEST_DATA, run_group

needs_beckers = pytest.mark.skipif(
    not (TEST_DATA / "beckers").is_dir(), reason=f"no beckers in {TEST_DATA}; set BPRUNE_TEST_DATA"
)


@needs_beckers
@pytest.mark.slow
def test_its_claims_hold_in_small(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "studies.boston"]
    done = run_group([*program, "--quick", f"--output={tmp_path}"])
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "boston.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["fraction", "theory", "bmr", "snr", "signal_plus_noise"]
    fraction, theory, *measured = np.array(rows, float).T
    assert len({column[0] for column in (theory, *measured)}) == 1  # all begin unpruned
    bmr, snr, _ = measured
    among = (fraction > 0.295) & (fraction < 0.805)
    assert among.sum() > 5 and (bmr < snr)[among].all()
    assert 0.5 < fraction[bmr.argmin()] < 0.97 and 0.5 < fraction[theory.argmin()] < 0.97
    assert [path.name for path in tmp_path.iterdir()] == ["boston.csv"]


def test_a_claim_that_fails_ends_it_with_1_and_missing_data_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--quick", f"--output={tmp_path}"]
    for holds, status in ((True, 0), (False, 1)):
        claims = [study.Claim("first", True), study.Claim("second", holds)]
        found = study.Outcome(claims)
        assert study.main("boston", "", lambda _, found=found: found, flags) == status
        assert ("does not hold" in capsys.readouterr().out) is not holds
    monkeypatch.setattr(boston, "DATA", tmp_path)
    assert study.main("boston", "", boston.run, flags) == 2
    assert "boston.csv: is not there; set BPRUNE_TEST_DATA" in capsys.readouterr().err


def test_the_least_and_the_difference_are_those_of_the_curves() -> None:
    value = {name: np.array([[5.0, 2.0, 4.0], [7.0, 4.0, 3.0]]) for name in boston.CRITERIA}
    value["theory"] = np.array([[5.0, 1.0, 0.0], [7.0, 3.0, 0.0]])
    se = {name: np.array([[0.0, 0.3, 0.3], [0.0, 0.4, 0.4]]) for name in value}
    ours = boston.Energies(np.array([0.0, 0.5, 0.9]), value, se, np.array([1.0, 1.0]))
    assert ours.least("bmr") == 0.5 and ours.least("theory") == 0.9
    away, error = ours.difference
    assert away.tolist() == [0.0, 1.0, 3.5] and ours.near(0.6) == 1
    assert error.tolist() == pytest.approx([0, 0.25, 0.25])  # of a mean of two
