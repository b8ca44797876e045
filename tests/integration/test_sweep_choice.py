"""Whole sweeps that choose a threshold, and that draw until an error is reached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import report, results, sweep
from bprune_hpc.config.sweep_config import SweepConfig
from bprune_hpc.metrics.exact_tests import drop_p_value, rise_p_value
from bprune_hpc.runner.problem import Problem
from tests.helpers import fake_problem
from tests.helpers.bits import all_bits
from tests.helpers.rewriting import rewritten
from tests.helpers.sweeps import FLAGS, KINDS, start

DIGITS = ["--model_dir=embedded:digits_fc", "--draw_noise=shared", "--thresholds=0,0.5,3"]


def run(*argv: str | Path) -> int:
    return sweep.main([str(argument) for argument in argv])


def test_an_asymptotic_choice_is_printed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.h5"
    flags = ["--num_monte_carlo=12", "--max_nll_rise=0.05", "--choice=asymptotic"]
    assert run(*DIGITS, *flags, f"--output={path}") == 0
    table, choice, where = capsys.readouterr().out.rsplit("\n", 3)[:3]
    assert where == f"results: {path}" and "SNR <=" in table
    assert choice.startswith("choice: SNR <= 0.5, 83.45 % pruned: NLL rise below 0.05 at 95 % ")
    assert "confidence (asymptotic; estimated: -0.0" in choice
    assert "single losses above 8.3" in choice and "Not exact" not in choice
    assert "At SNR <= 3 it is estimated at 0.2" in choice
    found = results.read(path).choice
    assert found.attrs["rule"] == "nll_rise" and found.attrs["limit"] == 0.05
    assert found.attrs["mode"] == "asymptotic" and found.attrs["decided_on"] == "nll_rise"
    assert found.attrs["confidence"] == 0.95 and found.attrs["index"] == 1
    assert found.attrs["text"] == choice
    assert found.is_below.values.tolist() == [1, 1, 0]
    assert (found.p_value.values <= 0.05).tolist() == [True, True, False]
    metrics = results.read(path).metrics
    combined = np.hypot(metrics.nll_rise_se, metrics.nll_rise_se_data)
    student = (found.upper_bound - metrics.nll_rise)[1:] / combined[1:]
    assert (student > 1.645).all() and (student < 2.02).all()  # t of 5 degrees or more
    np.testing.assert_allclose(found.largest_loss, 359 * (0.05 - metrics.nll_rise) / 3)
    assert report.main([str(path)]) == 0
    assert choice in capsys.readouterr().out


def chosen(path: Path, *flags: str) -> results.Results:
    """A sweep of few draws of the digits, on which a choice was made."""
    flags = ("--num_monte_carlo=4", "--overwrite", "--save_probabilities", *flags)
    assert run(*DIGITS, *flags, f"--output={path}") == 0
    return results.read(path)


def test_an_exact_choice_rests_on_numbers_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.h5"
    found = chosen(path, "--max_accuracy_drop=0.02")
    choice, examples = found.choice, found.examples
    assert choice.attrs["text"] in capsys.readouterr().out
    assert choice.attrs["text"].startswith(
        "choice: SNR <= 0.5, 83.45 % pruned: accuracy drop of this ensemble of 4 networks below "
        "0.02 at 95 % confidence (exact; estimated: "
    )
    is_right = examples.mean_probability.values.argmax(axis=2) == examples.label.values
    lost, won = is_right[0] & ~is_right, ~is_right[0] & is_right
    assert choice.n_lost.values.tolist() == lost.sum(axis=1).tolist()
    assert choice.n_won.values.tolist() == won.sum(axis=1).tolist()
    assert choice.attrs["mode"] == "exact" and choice.attrs["index"] == 1
    assert choice.attrs["decided_on"] == "accuracy_drop" and choice.attrs["n_comparisons"] == 1
    assert choice.attrs["about"] == "this ensemble of 4 networks"
    assert choice.cut.values.tolist() == ["SNR <= 0", "SNR <= 0.5", "SNR <= 3"]
    assert choice.is_below.values.tolist() == [1, 1, 0]
    assert np.isnan(choice.upper_bound).all()
    for index in range(3):
        counts = (int(lost[index].sum()), int(won[index].sum()))
        assert choice.p_value[index] == drop_p_value(*counts, 359, 0.02)
    # The NLL of a mixture with the uniform distribution, which is another number than nll_rise.
    found = chosen(path, "--max_nll_rise=0.3", "--soften=0.2", "--seed=3")
    choice, examples = found.choice, found.examples
    assert "nll_rise_softened (--soften=0.2) of this ensemble of 4" in choice.attrs["text"]
    assert choice.attrs["decided_on"] == "nll_rise_softened" and choice.attrs["soften"] == 0.2
    p_true = np.exp(-examples.nll.values.astype(float))
    loss = -np.log(0.8 * p_true + 0.02)
    rise = (loss - loss[0]).mean(axis=1)
    np.testing.assert_allclose(choice.nll_rise_softened, rise, atol=1e-6)
    assert abs(choice.nll_rise_softened - found.metrics.nll_rise)[2] > 0.01
    assert choice.attrs["bound"] == pytest.approx(np.log(0.82 / 0.02))
    for index in range(choice.attrs["index"] + 1):
        expected = rise_p_value(loss[index] - loss[0], choice.attrs["bound"], 0.3, seed=3)
        assert choice.p_value[index] == pytest.approx(expected, rel=1e-3)
    # Brier scores are bounded as they are.
    found = chosen(path, "--max_brier_change=0.2")
    choice, examples = found.choice, found.examples
    assert "brier_rise of this ensemble of 4 networks below 0.2" in choice.attrs["text"]
    one_hot = np.eye(10)[examples.label.values]
    brier = ((examples.mean_probability.values - one_hot) ** 2).sum(axis=2)
    np.testing.assert_allclose(choice.brier_rise, (brier - brier[0]).mean(axis=1), atol=1e-6)
    assert choice.attrs["bound"] == 2 and choice.attrs["index"] >= 1


def test_a_short_test_set_is_said_to_be_one(tmp_path: Path) -> None:
    choice = chosen(tmp_path / "s.h5", "--max_nll_rise=0.05").choice
    needed = choice.attrs["n_examples_needed"]
    assert choice.attrs["index"] == -1 and needed == 458
    assert "359 test examples are too few to show" in choice.attrs["text"]
    assert (
        f"{needed} or more could (3.3 times the largest rise that there can be, 6.9, per limit)"
        in (choice.attrs["text"])
    )


def test_what_is_not_fixed_beforehand_is_asymptotic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, limit = tmp_path / "s.h5", "--max_accuracy_drop=0.02"
    choice = chosen(path, limit, "--target_se=nll=0.5", "--num_monte_carlo=12").choice
    assert choice.attrs["mode"] == "asymptotic"
    assert choice.attrs["text"].endswith(
        "Not exact: --target_se chose the number of draws by the data."
    )
    assert chosen(path, limit).choice.attrs["mode"] == "exact"
    command = [*DIGITS, f"--output={path}", limit]
    # More of anything, after the results were there, and it stays so.
    for more in ("--num_monte_carlo=6", "--num_monte_carlo=6"):
        assert run(*command, more) == 0
        choice = results.read(path).choice
        assert choice.attrs["mode"] == "asymptotic"
        assert "Not exact: what was asked for has changed since" in choice.attrs["text"]
    capsys.readouterr()
    assert run(*command, "--num_monte_carlo=6", "--choice=exact") == 2
    assert "--choice=exact is of what is fixed beforehand; pass" in capsys.readouterr().err
    assert run(*command, "--num_monte_carlo=6", "--choice=exact", "--overwrite") == 0
    assert results.read(path).choice.attrs["mode"] == "exact"
    # The same command, and fewer draws than there are, change nothing.
    for same in ("--num_monte_carlo=6", "--num_monte_carlo=4"):
        assert run(*command, same) == 0
        assert results.read(path).choice.attrs["mode"] == "exact"
    assert run(*DIGITS, "--max_accuracy_drop=0.03", "--num_monte_carlo=6", f"--output={path}") == 0
    assert results.read(path).choice.attrs["mode"] == "asymptotic"


def test_a_job_that_was_cut_off_ends_with_the_exact_choice_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_problem.install(monkeypatch.setattr, replicate_by_replicate=True)
    whole, parts = tmp_path / "whole.h5", tmp_path / "parts.h5"
    flags = [*KINDS["classes"], *FLAGS, "--max_nll_rise=2"]
    assert start(whole, *flags) == 0
    assert start(parts, *flags, n_supersteps=5) == sweep.STOPPED
    choice = results.read(parts).choice
    assert choice.attrs["mode"] == "asymptotic"
    assert choice.attrs["text"].endswith("Not exact: not all is done that was asked for.")
    assert start(parts, *flags) == 0
    assert all_bits(parts) == all_bits(whole)
    found = [results.read(path).choice.attrs for path in (whole, parts)]
    assert found[0]["mode"] == "exact" and found[0]["text"] == found[1]["text"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target_se=nll=1", "--choice=exact"], "--target_se chooses the number of draws"),
        (["--soften=0"], "--soften: 0 is not between 0 and 1"),
        (["--soften=1"], "--soften: 1 is not between 0 and 1"),
        (["--n_comparisons=0"], "--n_comparisons: 0 is not in 1 to 500"),
    ],
)
def test_what_a_choice_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    path = tmp_path / "s.h5"
    assert run(*DIGITS, "--max_nll_rise=0.1", *flags, f"--output={path}") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in error and not path.exists()


def test_several_files_share_the_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    for path, flags in zip(
        paths, (["--n_comparisons=2"], ["--choice=asymptotic"], []), strict=True
    ):
        chosen(path, "--max_accuracy_drop=0.02", *flags)
    assert (
        "97.5 % confidence (exact; 5 % divided by 2; est"
        in results.read(paths[0]).choice.attrs["text"]
    )
    capsys.readouterr()
    assert report.main([str(path) for path in paths]) == 0
    said = capsys.readouterr()
    assert "3 choices are shown" in said.err and "5 % / 3" in said.err
    shown = [line for line in said.out.splitlines() if line.startswith("choice: ")]
    assert len(shown) == 3 and all("at 98.33 % confidence" in line for line in shown)
    for line, mode in zip(shown, ("exact", "asymptotic", "exact"), strict=True):
        assert line.endswith(f"({mode}; 5 % divided by 3).")
    for path, line in zip(paths, shown, strict=True):
        choice = results.read(path).choice
        n_passed = int(np.logical_and.accumulate(choice.p_value.values <= 0.05 / 3).sum())
        expected = ["choice: none", "choice: no pruning", "choice: SNR <= 0.5"][min(n_passed, 2)]
        assert line.startswith(expected)
    assert [line for line in said.out.splitlines() if line.endswith(".h5:")] == [
        f"{path}:" for path in paths
    ]
    assert report.main([*map(str, paths), "--html=x.html"]) == 2
    assert "--html: takes one results file" in capsys.readouterr().err


def test_a_file_of_before_is_read_and_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, fresh = tmp_path / "old.h5", tmp_path / "fresh.h5"
    first = chosen(path, "--max_accuracy_drop=0.02", "--choice=asymptotic")
    fresh.write_bytes(path.read_bytes())
    rewritten(path, _as_before)
    assert results.read(path).chosen_pruning() == first.chosen_pruning()
    capsys.readouterr()
    assert report.main([str(path)]) == 0
    assert "choice: SNR <= 0.5" in capsys.readouterr().out
    assert report.main([str(path), str(fresh)]) == 0
    assert "sweep again with --n_comparisons=2" in capsys.readouterr().out
    # A command that asks for nothing else finds nothing to do; one that does is of a changed file.
    command = [*DIGITS, "--save_probabilities", "--max_accuracy_drop=0.02", f"--output={path}"]
    assert run(*command, "--num_monte_carlo=4") == 0
    assert "is complete; nothing to do" in capsys.readouterr().err
    assert run(*command, "--num_monte_carlo=4", "--n_comparisons=3") == 0
    assert results.read(path).choice.attrs["mode"] == "exact"
    assert run(*command, "--num_monte_carlo=8") == 0
    assert results.read(path).choice.attrs["mode"] == "asymptotic"


def _as_before(file: h5py.File) -> None:
    """Leave out what files did not have that were written before choices were exact."""
    config = json.loads(file.attrs["config"])
    for name in ("choice", "soften", "n_comparisons", "extended"):
        del config[name]
    file.attrs["config"] = json.dumps(config, sort_keys=True)
    group = file["choice"]
    for name in ("p_value", "cut", "largest_loss"):
        if name in group:
            del group[name]
    for name in ("mode", "decided_on", "cost", "n_comparisons"):
        del group.attrs[name]


@pytest.mark.parametrize("grid", ["--thresholds=0,0.5,1", "--prune_fractions=0,0.6,0.9"])
def test_a_network_that_was_pruned_before_has_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: str
) -> None:
    """What was zero before is pruned at every threshold; 0 is the network as it was read."""
    whole = fake_problem.problem

    def pruned_before(config: SweepConfig, n_examples: int = 45) -> Problem:
        network, (test, *others) = whole(config, n_examples)
        for table in (network.posterior.loc, network.posterior.scale):
            table["layer/kernel"][:4] = 0
        predicted = (test.x @ network.posterior.loc["layer/kernel"]).argmax(axis=1)
        wrong = replace(test, label=(predicted + 1) % fake_problem.N_CLASSES)
        return network, [wrong, *others]

    fake_problem.install(monkeypatch.setattr)
    monkeypatch.setattr(fake_problem, "problem", pruned_before)
    for limit in ("--max_nll_rise=9", "--max_accuracy_drop=0.5", "--choose=free_energy"):
        path = tmp_path / f"{limit.strip('-')}.h5"
        assert start(path, *KINDS["training data"], grid, limit, "--num_monte_carlo=28") == 0
        found = results.read(path)
        assert found.sparsity.pruned_fraction.values[0] == pytest.approx(1 / 3)
        assert found.choice.attrs["index"] > 0 and found.choice.attrs["text"]
        assert "no more than" in found.attrs["doubt"]


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
