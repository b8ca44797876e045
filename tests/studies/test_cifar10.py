"""The study of CIFAR-10 on a few made-up images in the same files; and without any."""

from __future__ import annotations

import csv
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc.data import cifar10 as batches
from studies import cifar10, study
from tests.helpers.launch import run_group


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with batches of 40 images, whose classes differ in large squares of colour."""
    place = tmp_path_factory.mktemp("data")
    (place / batches.DIRECTORY).mkdir()
    generator = np.random.default_rng(0)
    of_class = generator.integers(40, 216, (10, 3, 4, 4))
    for name in (*batches.TRAIN_FILES, batches.TEST_FILE):
        y = np.arange(40) % 10
        x = np.kron(of_class[y], np.ones((1, 1, 8, 8))) + generator.normal(0, 20, (40, 3, 32, 32))
        values = x.clip(0, 255).astype(np.uint8).reshape(40, -1)
        batch = {b"data": values, b"labels": y.tolist()}
        (place / batches.DIRECTORY / name).write_bytes(pickle.dumps(batch))
    return place


@pytest.mark.slow
def test_it_runs_where_the_batches_are(data: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "studies.cifar10"]
    flags = ["--quick", f"--output={tmp_path}"]
    done = run_group([*program, *flags], BPRUNE_TEST_DATA=str(data))
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "cifar10.csv").open() as file:
        rows = {(row["network"], row["fraction"]): row for row in csv.DictReader(file)}
    assert len(rows) == len(cifar10.NETWORKS) * len(cifar10.FRACTIONS)
    for name in cifar10.NETWORKS:
        assert float(rows[name, "0"]["nll"]) < float(rows[name, "0.95"]["nll"])
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10.csv"]


def test_its_page_says_that_it_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "DATA", tmp_path / "none")
    assert study.main("cifar10", "", cifar10.run, [f"--output={tmp_path}"]) == 2
    assert "has no test_batch; set BPRUNE_TEST_DATA" in capsys.readouterr().err
    page = (tmp_path / "cifar10.md").read_text()
    assert "**Not run.**" in page and "holds" not in page
    committed = study.PAGES / "cifar10.md"
    assert committed.read_text() == page


def test_a_page_of_numbers_says_what_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / batches.TEST_FILE).touch()
    monkeypatch.setattr(study, "DATA", tmp_path / "batches")

    def network(*_: object) -> dict[float, cifar10.Point]:
        return {
            one: cifar10.Point((0.9 - 0.05 * one, 0.001, 0.003), (0.3 + one, 0.001, 0.01))
            for one in cifar10.FRACTIONS
        }

    monkeypatch.setattr(cifar10, "_network", network)
    assert study.main("cifar10", "", cifar10.run, [f"--output={tmp_path}"]) == 0
    page = (tmp_path / "cifar10.md").read_text()
    assert "**Not run.**" not in page and (tmp_path / "cifar10.png").is_file()
    assert (
        "- holds: 80 % pruned cost one of them no more than 7.0 points of accuracy: VGG-16 4.0"
        in page
    )
    assert "| ResNet-18 | 80 % | 86.00 ± 0.10 ± 0.30 | 1.1000 ± 0.0010 ± 0.0100 |" in page
