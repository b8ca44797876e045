"""Which examples share the noise of a draw: what a sweep's file says, refuses and gains by it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import data, results, sweep
from bprune_hpc.errors import ConfigError
from tests.helpers import fake_problem
from tests.helpers.bits import DIGITS, all_bits
from tests.helpers.sweeps import FLAGS, start

FAKE = ["--model_dir=fake", *FLAGS]
BY_EXAMPLE, BY_BLOCK = "--draw_noise=per_example", "--noise_block=15"


@pytest.mark.parametrize(
    ("before", "now", "finding", "way"),
    [
        ([], [BY_EXAMPLE], "--draw_noise shared, now per_example", "--draw_noise=shared to go on"),
        ([BY_EXAMPLE], [], "--draw_noise per_example, now shared", "--draw_noise=per_example to"),
        ([BY_BLOCK], [BY_EXAMPLE], "per_block of 15, now per_example",
         "--draw_noise=per_block --noise_block=15 to go on"),
        ([BY_BLOCK], ["--noise_block=20"], "per_block of 15, now per_block of 20", "=15 to go on"),
    ],
)  # fmt: skip
def test_a_file_with_other_noise_is_refused_with_the_flag_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    before: list[str], now: list[str], finding: str, way: str,
) -> None:  # fmt: skip
    fake_problem.install(monkeypatch.setattr)
    path = tmp_path / "s.h5"
    assert start(path, *FAKE, *before) == 0
    assert start(path, *FAKE, *now) == 2
    said = capsys.readouterr().err
    assert finding in said and way in said
    with h5py.File(path) as file:
        identity = json.loads(file["state"].attrs["identity"])
    assert ("draw_noise" in identity) == bool(before)  # older files have none: theirs is shared
    assert start(path, *FAKE, *before) == 0


def test_the_file_says_what_a_draw_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_problem.install(monkeypatch.setattr)
    for flags, kind, what in (
        ([], "shared", "one network, the same for all examples"),
        ([BY_BLOCK], "per_block", "each block of noise_block examples"),
        ([BY_EXAMPLE], "per_example", "noise of its own for each example"),
    ):
        path = tmp_path / f"{kind}.h5"
        assert start(path, *FAKE, *flags) == 0
        found = results.read(path)
        assert found.attrs["draw_noise"] == kind and what in found.draws.attrs["draw"]
        assert found.attrs.get("noise_block") == (15 if kind == "per_block" else None)


def test_a_claim_is_about_what_the_draws_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_problem.install(monkeypatch.setattr)
    limit = "--max_accuracy_drop=0.3"
    assert start(tmp_path / "a.h5", *FAKE, limit) == 0
    assert results.read(tmp_path / "a.h5").choice.attrs["about"] == "this ensemble of 28 networks"
    assert start(tmp_path / "b.h5", *FAKE, limit, BY_EXAMPLE) == 0
    choice = results.read(tmp_path / "b.h5").choice
    about = "averages over 28 draws, with noise of its own for each example"
    assert choice.attrs["mode"] == "exact" and choice.attrs["about"] == about
    assert f"accuracy drop of {about}" in choice.attrs["text"]
    assert start(tmp_path / "c.h5", *FAKE, limit, BY_BLOCK) == 0
    choice = results.read(tmp_path / "c.h5").choice
    assert choice.attrs["mode"] == "asymptotic" and "hang together" in choice.attrs["text"]
    capsys.readouterr()
    assert start(tmp_path / "d.h5", *FAKE, limit, BY_BLOCK, "--choice=exact") == 2
    assert "--choice: an exact choice" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--draw_noise=shared", BY_BLOCK], ["--noise_block=0"]])
def test_flags_that_do_not_fit_are_one_line(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main([*FAKE, *flags]) == 2
    assert "--noise_block" in capsys.readouterr().err


def test_the_library_gives_the_sweeps_bits_and_parts_of_them(tmp_path: Path) -> None:
    net, x = bprune_hpc.load("embedded:digits_fc"), data.load("digits", split="test").x
    for flags, asked in (
        (["--draw_noise=shared"], {"draw_noise": "shared"}),
        (["--draw_noise=per_block", "--noise_block=100"], {"noise_block": 100}),
        ([], {}),
        ([BY_EXAMPLE], {"draw_noise": "per_example"}),
    ):
        path = tmp_path / "s.h5"
        grid = ["--thresholds=0", "--num_monte_carlo=10", "--batch_size=100", "--overwrite"]
        assert sweep.main([*DIGITS, *grid, *flags, f"--output={path}"]) == 0
        whole = results.read(path).examples.mean_probability.values[0]
        found = net.predict(x, n_draws=10, batch_size=100, **asked)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.mean_probability, whole)
        if "draw_noise" in asked and asked["draw_noise"] == "shared":
            continue
        part = net.predict(
            x[150:220], n_draws=10, batch_size=100, first_example=150, **asked  # type: ignore[arg-type]
        )  # fmt: skip
        np.testing.assert_allclose(part.mean_probability, whole[150:220], atol=2e-6)
        other = net.predict(x[150:220], n_draws=10, batch_size=100, **asked)  # type: ignore[arg-type]
        assert np.abs(other.mean_probability - whole[150:220]).max() > 1e-3


def test_arguments_of_the_library_are_checked() -> None:
    net, x = bprune_hpc.load("embedded:digits_fc"), np.zeros((3, 64), np.float32)
    for wrong, name in (
        ({"draw_noise": "own"}, "draw_noise"),
        ({"noise_block": 0}, "noise_block"),
        ({"noise_block": 9, "draw_noise": "shared"}, "noise_block"),
        ({"first_example": -1}, "first_example"),
        ({"first_example": 2**32 - 2}, "first_example"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}"):
            net.predict(x, n_draws=2, **wrong)  # type: ignore[arg-type]


def test_examples_of_the_other_set_have_noise_of_their_own(tmp_path: Path) -> None:
    """The test set once more, as if it were out of distribution."""
    x, path = data.load("digits", split="test").x, tmp_path / "s.h5"
    np.savez(tmp_path / "same.npz", x=x)
    flags = [*DIGITS, "--thresholds=0", "--num_monte_carlo=10", f"--ood_path={tmp_path}/same.npz"]
    assert sweep.main([*flags, "--draw_noise=shared", f"--output={path}"]) == 0
    found = results.read(path)
    same = found.ood.predictive_entropy.values, found.examples.predictive_entropy.values
    np.testing.assert_array_equal(*same)
    assert sweep.main([*flags, "--overwrite", f"--output={path}"]) == 0
    found = results.read(path)
    other = found.ood.predictive_entropy.values - found.examples.predictive_entropy.values
    assert np.median(np.abs(other)) > 1e-3


def test_blocks_of_examples_change_no_bit_of_noise_of_their_own(tmp_path: Path) -> None:
    flags = [*DIGITS, "--thresholds=0,1", "--num_monte_carlo=6", "--batch_size=50"]
    for noise in (BY_EXAMPLE, "--noise_block=150"):
        whole, blocks = tmp_path / "whole.h5", tmp_path / "blocks.h5"
        for path, limit in ((whole, "1"), (blocks, "1e-6")):
            more = [noise, f"--state_limit_gb={limit}", "--overwrite", f"--output={path}"]
            assert sweep.main([*flags, *more]) == 0
        assert all_bits(blocks) == all_bits(whole)


LEAST = {
    (0, "nll"): 15, (0, "predictive_entropy"): 20, (0, "mutual_information"): 20,
    (1, "nll_rise"): 10,
}  # fmt: skip
"""By threshold and metric: variance with shared noise over that with each example's own."""


@pytest.mark.slow
def test_noise_of_their_own_is_worth_many_draws(tmp_path: Path) -> None:
    """All 1,797 digits; measured with 30 sweeps: 57, 139, 102 and 84."""
    parts = [data.load("digits", split=split) for split in ("train", "test")]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in "xy"}
    np.savez(tmp_path / "all.npz", **columns)
    found: dict[str, list] = {"shared": [], "per_example": []}
    for kind, values in found.items():
        for seed in range(14):
            path = tmp_path / f"{kind}.h5"
            flags = ["--model_dir=embedded:digits_fc", f"--data_path={tmp_path / 'all.npz'}",
                     "--thresholds=0,1", "--num_monte_carlo=40", f"--seed={seed}"]  # fmt: skip
            more = [f"--draw_noise={kind}", "--overwrite", f"--output={path}"]
            assert sweep.main([*flags, *more]) == 0
            metrics = results.read(path).metrics
            values.append([float(metrics[name].sel(threshold=t)) for t, name in LEAST])
    variance = {kind: np.var(values, axis=0, ddof=1) for kind, values in found.items()}
    assert (variance["shared"] / variance["per_example"] > list(LEAST.values())).all()
