"""Sweeps that are stopped and gone on with: the bits of one that never was; or refused."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import results, sources, sweep
from bprune_hpc.config.sweep_config import SweepConfig
from bprune_hpc.job import provenance
from bprune_hpc.report import main as main_report
from bprune_hpc.results import identity
from bprune_hpc.runner import preparation
from bprune_hpc.runner.state import SweepState, merged
from tests.helpers import fake_problem
from tests.helpers.bits import all_bits
from tests.helpers.sweeps import FLAGS, KINDS, start


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_problem.install(monkeypatch.setattr, replicate_by_replicate=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Results of a sweep that was never stopped, one for each set of flags."""
    directory = tmp_path_factory.mktemp("whole")
    done: dict[tuple[str, ...], Path] = {}

    def of(*flags: str) -> Path:
        if flags not in done:
            done[flags] = directory / f"{len(done)}.h5"
            with pytest.MonkeyPatch.context() as patch:
                fake_problem.install(patch.setattr)
                assert start(done[flags], *flags) == 0
        return done[flags]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_stops_anywhere_do_not_change_a_bit(
    tmp_path: Path, whole: Callable[..., Path], kind: str
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS[kind], *FLAGS]
    chance = random.Random(kind)
    statuses, seen = [], []
    while not statuses or statuses[-1] != 0:
        statuses.append(start(path, *flags, n_supersteps=chance.randint(1, 7)))
        with results.open_results(path) as file:
            seen.append((file.attrs["n_examples"], file.attrs["n_draws"]))
            assert file.attrs["status"] == ("complete" if statuses[-1] == 0 else "partial")
        assert len(statuses) < 100
    assert statuses[:-1] == [sweep.STOPPED] * (len(statuses) - 1) and len(statuses) > 1
    assert seen == sorted(seen) and seen[-1] == (45, 28)
    assert all_bits(path) == all_bits(whole(*flags))
    if "blocks" in kind:
        with results.open_results(path) as file:
            assert len(json.loads(file["state"].attrs["blocks"])[0]) > 1


@pytest.mark.parametrize("kind", ["other examples", "regression", "blocks"])
def test_a_partial_file_is_a_sweep_of_as_many_draws(
    tmp_path: Path, whole: Callable[..., Path], kind: str
) -> None:
    path = tmp_path / "s.h5"
    assert start(path, *KINDS[kind], *FLAGS, n_supersteps=5) == sweep.STOPPED
    found = results.read(path)
    if "blocks" in kind:
        assert 0 < found.attrs["n_examples"] < 45 and "examples" in found.attrs["rest"]
        return
    n_draws = found.attrs["n_draws"]
    assert found.attrs["rest"] == f"{n_draws} of 28 draws"
    some = whole(*KINDS[kind], *FLAGS, f"--num_monte_carlo={n_draws}")
    few, same = all_bits(path), all_bits(some)
    told = ("status", "rest", "n_cells", "n_cells_done")
    for bits in (few, same):
        bits["attributes"] = tuple(pair for pair in bits["attributes"] if pair[0] not in told)
    assert few == same


@pytest.mark.parametrize(
    "kind", ["other examples", "regression", "blocks", "blocks of a regression"]
)
def test_thresholds_are_added_and_kept(
    tmp_path: Path, whole: Callable[..., Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS[kind], *FLAGS, "--state_limit_gb=1"]
    if "blocks" in kind:
        flags = [*KINDS[kind], *FLAGS]
    assert (
        start(path, *flags, "--thresholds=0.5,2", n_supersteps=5 if "blocks" not in kind else 10)
        == sweep.STOPPED
    )
    before = results.read(path)
    assert before.metrics.threshold.values.tolist() == [0.5, 2]
    if "blocks" in kind:  # what is added takes memory
        flags[-1:] = [flags[-1], "--state_limit_gb=0.01"]
    # While others catch up, what is shown is what is level.
    assert start(path, *flags, "--thresholds=0,1", n_supersteps=3) == sweep.STOPPED
    between = results.read(path)
    assert between.metrics.threshold.values.tolist() == [0.5, 2]
    assert (between.metrics.nll.values == before.metrics.nll.values).all()
    assert "2 more thresholds are being caught up" in between.attrs["rest"]
    capsys.readouterr()
    assert start(path, *flags, "--thresholds=0.25,0.5", n_supersteps=2) == sweep.STOPPED
    said = capsys.readouterr().err
    assert "keeps threshold 0, 1, 2, which it already has" in said
    assert "does not have threshold 0.25 yet; computed first" in said
    assert start(path, *flags, "--thresholds=0.5") == 0
    thresholds = "--thresholds=0,0.25,0.5,1,2"
    plain = [flag for flag in flags if "limit" not in flag]
    assert all_bits(path) == all_bits(whole(*plain, thresholds))


@pytest.mark.parametrize("name", ["absent/../keep.h5", "link.h5", "deep/../keep.h5", "./keep.h5"])
def test_a_file_of_another_sweep_stays_under_any_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep").mkdir()
    Path("link.h5").symlink_to("keep.h5")
    flags = [*KINDS["classes"], *FLAGS]
    assert start(Path("keep.h5"), *flags) == 0
    before = Path("keep.h5").read_bytes()
    assert start(Path(name), *flags, "--seed=7") == 2
    assert "keep.h5: was made with seed 0, now 7; pass --overwrite" in capsys.readouterr().err
    assert Path("keep.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "keep.h5", "link.h5"]
    assert start(Path(name), *flags, "--seed=7", "--overwrite") == 0
    assert Path("keep.h5.bak").read_bytes() == before != Path("keep.h5").read_bytes()


@pytest.mark.parametrize("suffix", [".bak", ".lock"])
def test_a_directory_in_the_way_of_a_later_write_is_found_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    (tmp_path / f"s.h5{suffix}").mkdir()
    assert start(path, *flags) == 2
    assert f"s.h5{suffix}: is a directory" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [f"s.h5{suffix}"]


@pytest.mark.parametrize("kind", ["other examples", "regression"])
def test_more_draws_extend_a_finished_file(
    tmp_path: Path, whole: Callable[..., Path], kind: str
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS[kind], *FLAGS]
    assert start(path, *flags, "--num_monte_carlo=12") == 0
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    assert start(path, *flags) == 0
    assert all_bits(path) == all_bits(whole(*flags))
    # Fewer are what is there.
    before = path.read_bytes()
    assert start(path, *flags, "--num_monte_carlo=12") == 0
    assert path.read_bytes() == before


def test_blocks_of_examples_take_no_more_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["blocks"], *FLAGS]
    assert start(path, *flags) == 0
    before = path.read_bytes()
    assert start(path, *flags, "--num_monte_carlo=60") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "was taken in blocks of examples, whose sums of 28 draws are not kept" in error
    assert start(path, *flags, "--num_monte_carlo=10") == 0
    assert path.read_bytes() == before
    assert start(path, *flags, "--thresholds=0,0.25,0.5,1") == 2
    assert "raise --state_limit_gb from 0.0001 to 0.001" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_target_is_tested_where_it_would_have_been(
    tmp_path: Path, whole: Callable[..., Path]
) -> None:
    path = tmp_path / "s.h5"
    flags = [*KINDS["classes"], *FLAGS, "--num_monte_carlo=500", "--target_se=nll=0.012"]
    n_draws = results.read(whole(*flags)).attrs["n_draws"]
    assert n_draws in (100, 200, 400)  # else it tests nothing
    while start(path, *flags, n_supersteps=40):
        pass
    assert all_bits(path) == all_bits(whole(*flags))
    before = path.read_bytes()
    assert start(path, *flags) == 0  # nothing more to do
    assert path.read_bytes() == before
    # Without the target it goes on.
    assert start(path, *flags[:-1]) == 0
    assert results.read(path).attrs["n_draws"] == 500


def test_a_complete_file_stays_and_its_table_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.h5"
    assert start(path, *KINDS["classes"], *FLAGS) == 0
    before, first = path.stat(), capsys.readouterr().out
    assert start(path, *KINDS["classes"], *FLAGS) == 0
    second = capsys.readouterr()
    assert path.stat() == before and second.out == first
    assert "is complete; nothing to do" in second.err
    # Another question on the same sums takes no draws.
    assert start(path, *KINDS["classes"], *FLAGS, "--max_nll_rise=0.5", n_supersteps=0) == 0
    assert "choice: " in capsys.readouterr().out and "choice" in results.read(path).groups


def test_a_job_without_time_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *flags, n_supersteps=0) == sweep.STOPPED
    assert "stopped before anything was done (test)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    before = path.stat()
    assert start(path, *flags, n_supersteps=0) == sweep.STOPPED
    assert path.stat() == before
    assert "stopped early (test); the same command goes on" in capsys.readouterr().out


def test_a_damaged_file_is_refused_and_the_backup_goes_on(
    tmp_path: Path, whole: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    first = path.read_bytes()
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    damaged = path.read_bytes()[:-1] + b"x"
    path.write_bytes(damaged)
    capsys.readouterr()
    assert start(path, *flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "move s.h5.bak, an earlier state, to its place, or run the sweep with --over" in error
    backup = tmp_path / "s.h5.bak"
    assert path.read_bytes() == damaged and backup.read_bytes() == first
    # What is damaged does not become the backup.
    assert start(path, *flags, "--overwrite", n_supersteps=2) == sweep.STOPPED
    assert backup.read_bytes() == first
    backup.replace(path)
    assert start(path, *flags) == 0
    assert all_bits(path) == all_bits(whole(*flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed=1"], "was made with seed 0, now 1; pass --overwrite or another --output"),
        (["--pairing=none"], "with pairing antithetic, now none"),
        (["--criterion=magnitude"], "with criterion snr, now magnitude"),
        (["--scope=layer"], "with scope global, now layer"),
        (["--granularity=neuron"], "with granularity weight, now neuron"),
        (["--pruned_weights=bprune"], "with --pruned_weights zero, now bprune"),
        (["--prior_scale=2"], "with prior_scale none, now 2.0"),
        (["--batch_size=11"], "with batch_size 10, now 11"),
        (["--ood_dataset=digits"], "with ood data none, now sha256"),
        (["--prune_fractions=0,0.5"], "with a grid of thresholds, now fractions"),
        (["--model_dir=fake:regression"], "with checkpoint sha256"),
        (["--seed=1", "--scope=layer"], "with seed 0, now 1; with scope global, now layer"),
    ],
)
def test_other_numbers_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    path, sweep_flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *sweep_flags, n_supersteps=2) == sweep.STOPPED
    before = path.read_bytes()
    assert start(path, *sweep_flags, *flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert error.startswith(f"error: {path}: was made with ") and message in error
    assert path.read_bytes() == before
    assert start(path, *sweep_flags, *flags, "--overwrite") == 0
    with results.open_results(path) as file:
        assert file.attrs["status"] == "complete"


@pytest.mark.parametrize("what", ["x", "label", "loc", "scale", "ood_x", "evaluator", "graph"])
def test_other_arrays_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["other examples"], *FLAGS]
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    plain = fake_problem.problem

    def changed(config: object) -> object:
        network, (test, other) = plain(config)  # type: ignore[arg-type]
        posterior = network.posterior
        array = {
            "x": test.x,
            "label": test.label,
            "loc": posterior.loc["layer/kernel"],
            "scale": posterior.scale["layer/kernel"],
            "ood_x": other.x,
        }[what]
        flat = array.reshape(-1)
        flat[3] = flat[3] + 1 if array.dtype.kind == "i" else np.nextafter(flat[3], np.float32(9))
        return network, [test, other]

    def run_otherwise(config: object) -> object:
        network, examples = plain(config)  # type: ignore[arg-type]
        return dataclasses.replace(network, evaluator="other"), examples

    if what == "evaluator":
        monkeypatch.setattr(fake_problem, "problem", run_otherwise)
    elif what == "graph":
        monkeypatch.setattr(identity, "graph_sha256", lambda lifted: "other")
    else:
        monkeypatch.setattr(fake_problem, "problem", changed)
    assert start(path, *flags) == 2


def test_what_layers_began_when_its_sums_had_another_order_is_read_and_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags, plain = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS], fake_problem.problem

    def by_layers(config: SweepConfig) -> object:
        network, examples = plain(config)
        return dataclasses.replace(network, evaluator="layers"), examples

    monkeypatch.setattr(fake_problem, "problem", by_layers)
    with monkeypatch.context() as before:
        before.setattr(identity, "NAMES_IN_RESULTS", {})
        assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    assert main_report([str(path)]) == 0
    assert "where dense layers are added" in capsys.readouterr().out
    assert start(path, *flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "numbers of such networks may be wrong, now layers-3; " in error
    assert start(path, *flags, "--overwrite", n_supersteps=2) == sweep.STOPPED
    assert start(path, *flags) == 0


def test_masks_that_the_rule_does_not_make_any_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    before, plain = path.read_bytes(), preparation.pruning_masks

    def others(posterior: object, kind: str, grid: list[float], rule: object) -> object:
        return plain(posterior, kind, [2 * value for value in grid], rule)  # type: ignore[arg-type]

    monkeypatch.setattr(preparation, "pruning_masks", others)
    assert start(path, *flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "weights stay at threshold 0.5, and the same rule leaves" in error
    assert path.read_bytes() == before
    assert start(path, *flags, "--overwrite", n_supersteps=2) == sweep.STOPPED


def test_another_environment_warns_and_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    assert "mixed_environment" not in results.read(path).attrs
    monkeypatch.setattr(provenance, "cpu_model", lambda: "Other CPU")
    assert start(path, *flags, "--num_intra=2", n_supersteps=2) == sweep.STOPPED
    assert "the environment was not the same all the time" in capsys.readouterr().err
    monkeypatch.undo()
    fake_problem.install(monkeypatch.setattr, replicate_by_replicate=True)
    assert start(path, *flags) == 0  # once is for ever
    mixed = results.read(path).attrs["mixed_environment"]
    assert "Other CPU" in mixed and "num_intra 1, 2" in mixed


def test_code_of_another_kind_under_the_same_version_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *flags, n_supersteps=2) == sweep.STOPPED
    monkeypatch.setattr(sources, "package_sha256", lambda: "0123" * 16)
    assert start(path, *flags) == 0
    assert "sources" in capsys.readouterr().err
    assert "bprune_hpc sources" in results.read(path).attrs["mixed_environment"]


def test_only_what_is_level_is_merged() -> None:
    with pytest.raises(ValueError, match="only what is level"):
        merged([SweepState((0,), 0, 3), SweepState((1,), 0, 4)])


def test_labels_are_the_thresholds_of_what_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    assert start(path, *KINDS["classes"], *FLAGS, n_supersteps=1) == sweep.STOPPED
    with h5py.File(path) as file:  # a plain reader, by its name
        assert file["metrics/threshold"][()].tolist() == [0, 0.5, 1]
        assert file["state/0/sums/0/mean"].shape == (3, 4 + 5, 45)
