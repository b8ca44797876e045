"""Files of older versions: read, shown, and gone on from or refused, as the documents say.

``sweep_of_a290343.h5.gz`` was written by that commit, of 27 November 2026, without its compiled
module. It sweeps the digits network on the first 8 held-out digits, as ``digits8.npz``:

    python -m bprune_hpc.sweep --model_dir=embedded:digits_fc --data_path=digits8.npz
        --num_monte_carlo=4 --thresholds=0,1 --output=sweep_of_a290343.h5
"""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import data, inspect, report, results, sweep
from bprune_hpc.results.threshold import read_threshold

OLD = Path(__file__).parent / "sweep_of_a290343.h5.gz"
FLAGS = ["--model_dir=embedded:digits_fc", "--data_path=digits8.npz", "--thresholds=0,1"]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the file, beside its test set."""
    monkeypatch.chdir(tmp_path)
    digits = data.load("digits")
    np.savez("digits8.npz", x_test=digits.x[:8].reshape(8, 64), y_test=digits.labels[:8])
    path = Path("sweep.h5")
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    return path


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of numbers along the thresholds, by h5py alone."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fi" and item.shape[:1] == (2,):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_it_is_read_whole(old: Path) -> None:
    found, n_read = results.read(old), 0
    for name, array in arrays_of(old).items():
        if name.startswith("state/") or "/" not in name:
            continue
        np.testing.assert_array_equal(found[name].values, array)
        n_read += 1
    assert n_read > 30
    assert found.attrs["status"] == "complete" and found.attrs["n_draws"] == 4


def test_it_is_shown_without_intervals(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(old)]) == 0
    lines = capsys.readouterr().out.splitlines()
    with h5py.File(old) as file:
        assert "accuracy_low" not in file["metrics"]
        shown = file["metrics/nll"][()], 100 * file["sparsity/pruned_fraction"][()]
    for nll, pruned in zip(*shown, strict=True):
        assert any(f"{pruned:.2f} %" in line and f"{nll:.3f} ± " in line for line in lines)
    assert inspect.main(["--status", str(old)]) == 0
    assert capsys.readouterr().out == "complete\n"


def test_its_thresholds_can_be_taken(old: Path) -> None:
    swept = read_threshold(str(old), "threshold=1")
    assert (swept.index, swept.n_draws, swept.draw_noise) == (1, 4, ("shared", 0))
    with h5py.File(old) as file:
        assert swept.metrics["nll"][0] == file["metrics/nll"][1]
    assert swept.config.model_dir == "embedded:digits_fc"


def test_draws_are_added_to_it(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = [*FLAGS, "--draw_noise=shared"]
    before = old.read_bytes()
    assert sweep.main([*shared, "--num_monte_carlo=4", f"--output={old}"]) == 0
    assert old.read_bytes() == before
    assert sweep.main([*shared, "--num_monte_carlo=12", f"--output={old}"]) == 0
    assert sweep.main([*shared, "--num_monte_carlo=12", "--output=anew.h5"]) == 0
    found, anew = arrays_of(old), arrays_of(Path("anew.h5"))
    assert found.keys() == anew.keys() and "metrics/nll_low" in found
    for name, array in anew.items():
        if not name.startswith("state/"):  # last bits may differ, and the file says so
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-7, err_msg=name)
    assert "bprune_hpc sources" in str(results.read(old).attrs["mixed_environment"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "pass --draw_noise=shared to go on"),  # which is not the default any more
        (["--draw_noise=shared", "--seed=1"], "was made with seed 0, now 1"),
    ],
)
def test_it_is_refused_where_numbers_would_change(
    old: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    before = old.read_bytes()
    assert sweep.main([*FLAGS, "--num_monte_carlo=4", *flags, f"--output={old}"]) == 2
    assert said in capsys.readouterr().err
    assert old.read_bytes() == before
