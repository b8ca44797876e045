from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.errors import ConfigError
from bprune_hpc.metrics.stopping import Target
from bprune_hpc.metrics.threshold_selection import Limit
from bprune_hpc.posterior.pruning import PruningRule

CASE = ["--model_dir=embedded:digits_fc"]


def test_defaults() -> None:
    found = sweep_config.parse(CASE)
    assert found.n_draws == 200 and found.num_intra == 1 and found.output == "results/sweep.h5"
    assert found.grid_kind == "threshold" and found.grid[0] == 0
    assert json.loads(found.to_json())["grid"] == list(found.grid)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list is empty"),
        (",", "the list is empty"),
        ("-1", "-1 is not allowed; values are finite and not negative"),
        ("0,nan", "nan is not allowed"),
        ("inf", "inf is not allowed"),
        ("a,b", "'a,b' is neither numbers"),
        ("0:1", "'0:1' is neither numbers"),
        ("0:1:0", "COUNT is 1 to"),
        ("0:1:3:log", "a log range starts above 0"),
        ("0:1:3:lin", r"not START:STOP:COUNT\[:log\]"),
    ],
)
def test_bad_thresholds(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--thresholds: .*{message}|--thresholds: {message}"):
        sweep_config.parse([*CASE, f"--thresholds={text}"])


@pytest.mark.parametrize("text", ["1", "-0.1", "0,1.5", "nan"])
def test_fractions_are_below_one(text: str) -> None:
    with pytest.raises(ConfigError, match="--prune_fractions: .* at least 0 and below 1"):
        sweep_config.parse([*CASE, f"--prune_fractions={text}"])


def test_the_last_kind_of_grid_wins() -> None:
    found = sweep_config.parse([*CASE, "--thresholds=0,1", "--prune_fractions=0,0.5"])
    assert (found.grid_kind, found.grid) == ("fraction", (0, 0.5))
    found = sweep_config.parse([*CASE, "--prune_fractions=0,0.5", "--thres_val=0.02"])
    assert (found.grid_kind, found.grid) == ("threshold", (0.02,))


def test_inference_is_the_unpruned_network_whatever_threshold_is_named() -> None:
    assert sweep_config.parse([*CASE, "--thres_val=0.5", "--inference"]).grid == (0,)
    assert sweep_config.parse([*CASE, "--thres_val=0.5", "--inference", "--prune"]).grid == (0.5,)


def test_each_criterion_has_its_own_thresholds() -> None:
    found = sweep_config.parse([*CASE, "--criterion=log_alpha", "--thresholds=-1,none,3,0.5"])
    assert found.grid == (math.inf, 3, 0.5, -1)  # from the least that is pruned to the most
    assert json.loads(found.to_json())["grid"] == ["none", 3, 0.5, -1]
    found = sweep_config.parse([*CASE, "--criterion=bmr", "--prior_scale=2", "--inference"])
    assert found.grid == (-math.inf,) and found.rule() == PruningRule("bmr", prior_scale=2.0)
    found = sweep_config.parse([*CASE, "--criterion=magnitude", "--scope=layer", "--seed=4"])
    assert (found.grid_kind, found.grid) == ("fraction", tuple(k / 10 for k in range(10)))
    assert found.rule() == PruningRule("magnitude", scope="layer", seed=4)
    assert found.pruned_weights == "zero"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--num_monte_carlo=0", "--num_monte_carlo: 0 is not in 1 to"),
        ("--num_monte_carlo=-4", "--num_monte_carlo: -4 is not in 1 to"),
        ("--num_monte_carlo=100000000", "--num_monte_carlo: 100000000 is not in 1 to"),
        ("--batch_size=0", "--batch_size: 0 is not in 1 to"),
        ("--num_intra=0", "--num_intra: 0 is not in 1 to"),
        ("--seed=-1", "--seed: -1 is not in"),
        ("--state_limit_gb=0", "--state_limit_gb: 0.0 is not in 0 to"),
        ("--state_limit_gb=nan", "--state_limit_gb: nan is not in 0 to"),
        ("--num_intra=2147483648", "--num_intra: 2147483648 is not in 1 to"),
        ("--state_limit_gb=1e300", "--state_limit_gb: 1e.300 is not in 0 to"),
        ("--output=", "--output: is empty"),
        ("--thresholds=0:1:999999999999", "COUNT is 1 to"),
        ("--thresholds=0:inf:3", "START and STOP are finite"),
        ("--dataset=imagenet", "argument --dataset: invalid choice"),
        ("--pairing=both", "argument --pairing: invalid choice"),
        ("--criterion=size", "argument --criterion: invalid choice"),
        ("--scope=unit", "argument --scope: invalid choice"),
        ("--granularity=row", "argument --granularity: invalid choice"),
        ("--pruned_weights=one", "argument --pruned_weights: invalid choice"),
        ("--prior_scale=0", "--prior_scale: 0 is not in 1e-30 to 1e30"),
        ("--prior_scale=nan", "--prior_scale: nan is not in"),
    ],
)
def test_out_of_range(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep_config.parse([*CASE, argument])


def test_a_gpu_runs_the_graph_alone() -> None:
    assert sweep_config.parse(CASE).device == "cpu"
    assert sweep_config.parse([*CASE, "--device=gpu"]).evaluator == "graph"
    with pytest.raises(ConfigError, match="--device=gpu: runs the evaluator graph, not chain"):
        sweep_config.parse([*CASE, "--device=gpu", "--evaluator=chain"])


def test_the_data_are_not_written_over() -> None:
    with pytest.raises(ConfigError, match="x.npz is the data set itself"):
        sweep_config.parse([*CASE, "--data_path=a/../x.npz", "--output=x.npz"])


def test_a_results_file_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found, held and written under it, whichever way it was named."""
    home, real = tmp_path / "home", tmp_path / "real"
    for place in (home, real):
        place.mkdir()
    (home / "link").symlink_to(real)
    (home / "link.h5").symlink_to(real / "s.h5")  # which is not there yet
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))

    def output(*arguments: str) -> str:
        return sweep_config.parse([*CASE, *arguments]).output

    for name in ("s.h5", "./s.h5", "absent/../s.h5", "~/s.h5", f"{home}/s.h5", "link/../home/s.h5"):
        assert output(f"--output={name}") == "s.h5", name
    assert output() == "results/sweep.h5"
    for name in ("link", "link/.", "absent/../link", "~/link/"):
        assert output(f"--data_dir={name}") == str(real / "sweep.h5"), name
    for name in ("link/s.h5", "link.h5", "absent/../link.h5", "../real/s.h5"):
        assert output(f"--output={name}") == str(real / "s.h5"), name
    for name in ("results/", "results/.", "absent/..", "~/"):
        with pytest.raises(ConfigError, match="is a directory; give a file name"):
            output(f"--output={name}")


def test_a_network_must_be_named() -> None:
    with pytest.raises(ConfigError, match="--model_dir is missing"):
        sweep_config.parse([])


def test_bprunes_own_flags_are_accepted_and_explained(caplog: pytest.LogCaptureFixture) -> None:
    flags = ["--horovod_used", "--name_scope", "--cluster", "--plotting", "--kmp_blocktime=0"]
    with caplog.at_level(logging.INFO):
        sweep_config.parse(
            [*CASE, *flags, "--verbose", "--kmp_affinity=granularity=fine,compact,1,0"]
        )
    for flag in (*flags[:4], "--kmp_blocktime", "--kmp_affinity"):
        assert sum(flag in record.getMessage() for record in caplog.records) == 1


def test_bprunes_flags_for_cifar10_choose_the_data(caplog: pytest.LogCaptureFixture) -> None:
    found = sweep_config.parse([*CASE, "--cifar10", "--subtract_pixel_mean"])
    assert (found.dataset, found.subtract_pixel_mean) == ("cifar10", True)
    assert sweep_config.parse([*CASE, "--cifar10", "--dataset=cifar10"]).dataset == "cifar10"
    plain = sweep_config.parse(CASE)
    assert (plain.dataset, plain.subtract_pixel_mean) == ("auto", False)
    with caplog.at_level(logging.INFO):
        assert sweep_config.parse([*CASE, "--cifar10", "--dataset=npz"]).dataset == "npz"
    assert "--cifar10 does nothing: --dataset=npz is named" in caplog.text


def test_the_configuration_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    found = sweep_config.parse([*CASE, "--output=~/x.h5", "--data_path=~/d.npz"])
    assert (found.output, found.data_path) == ("/nowhere/x.h5", "/nowhere/d.npz")
    assert math.isclose(json.loads(found.to_json())["state_limit_gb"], 1.0)


def test_the_last_limit_of_a_choice_counts() -> None:
    assert sweep_config.parse(CASE).limit is None
    found = sweep_config.parse([*CASE, "--max_nll_rise=0.02", "--max_accuracy_drop=0.01"])
    assert found.limit == Limit("accuracy_drop", 0.01)
    assert json.loads(found.to_json())["limit"] == {"metric": "accuracy_drop", "value": 0.01}
    assert sweep_config.parse([*CASE, "--inference", "--max_nll_rise=1"]).limit == Limit(
        "nll_rise", 1
    )
    signed = ["--criterion=log_alpha", "--thresholds=none,3", "--max_nll_rise=1"]
    assert sweep_config.parse([*CASE, *signed]).limit == Limit("nll_rise", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_nll_rise=0"], "--max_nll_rise: 0 is not positive"),
        (["--max_accuracy_drop=nan"], "--max_accuracy_drop: nan is not positive"),
        (["--max_nll_rise=1", "--thresholds=0.1,1"], "not in the sweep; add 0 to --thresholds"),
        (["--max_nll_rise=1", "--prune_fractions=0.5"], "add 0 to --prune_fractions"),
        (
            ["--max_nll_rise=1", "--criterion=log_alpha", "--thresholds=3,0"],
            "add none to --thresholds",
        ),
        (["--max_nll_rise=1", "--num_monte_carlo=2"], "one pair of draws .* has no standard error"),
        (
            ["--max_nll_rise=1", "--num_monte_carlo=1", "--pairing=none"],
            "one pair of draws .or single draw. has no",
        ),
    ],
)
def test_a_choice_that_cannot_be_made(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep_config.parse([*CASE, *arguments])


def test_a_target_is_a_metric_and_its_error(caplog: pytest.LogCaptureFixture) -> None:
    assert sweep_config.parse(CASE).target is None
    found = sweep_config.parse([*CASE, "--target_se=nll_rise=1e-3"])
    assert found.target == Target("nll_rise", 0.001) and found.n_draws == 200
    assert json.loads(found.to_json())["target"] == {"metric": "nll_rise", "se": 0.001}
    assert not caplog.records
    sweep_config.parse([*CASE, "--target_se", "accuracy = 0.01"])
    assert "accuracy changes in steps" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target_se=nll"], "--target_se: 'nll' is not METRIC=VALUE"),
        (["--target_se=nll=small"], "'nll=small' is not METRIC=VALUE"),
        (["--target_se=loss=1"], "no metric 'loss' .*; there are accuracy, .*nll_rise"),
        (["--target_se=accuracy_mean_weights=1"], "no metric 'accuracy_mean_weights' with a Monte"),
        (["--target_se=nll=0"], "--target_se: 0 is not positive"),
        (["--target_se=nll=-1"], "--target_se: -1 is not positive"),
        (["--target_se=nll=inf"], "--target_se: inf is not positive"),
        (
            ["--target_se=nll=1", "--num_monte_carlo=2"],
            "one pair of draws .* has no standard error",
        ),
    ],
)
def test_a_target_that_cannot_be_met(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep_config.parse([*CASE, *arguments])


def test_a_silence_that_says_nothing_is_refused() -> None:
    assert sweep_config.parse(CASE).lock_timeout_min == 3 and not sweep_config.parse(CASE).overwrite
    for value in ("0", "-1", "nan", "inf"):
        with pytest.raises(ConfigError, match="--lock_timeout_min: .* is not in 0 to"):
            sweep_config.parse([*CASE, f"--lock_timeout_min={value}"])


@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [
        ("--input_scale=auto", "input_scale", "auto"),
        ("--input_scale=none", "input_scale", "none"),
        ("--input_scale=1", "input_scale", "none"),
        ("--input_scale=1/255.0", "input_scale", "1/255"),
        ("--input_scale=5e-1", "input_scale", "0.5"),
        ("--layout=channels_first", "layout", "channels_first"),
        ("--x_key=images", "x_key", "images"),
        ("--y_key=test/labels", "y_key", "test/labels"),
        ("--target_columns=kind, -1", "target_columns", ("kind", "-1")),
        ("--first_label=1", "first_label", 1),
    ],
)
def test_how_data_are_read(flag: str, name: str, value: object) -> None:
    assert getattr(sweep_config.parse([*CASE, flag]), name) == value


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--input_scale=-1", "--input_scale: '-1' is neither auto, none nor a positive factor"),
        ("--layout=NHWC", "layout"),
        ("--x_key=", "--x_key: is empty"),
        ("--target_columns=a,,b", "names no column"),
        ("--first_label=10000000", "--first_label: 10000000 is not in"),
    ],
)
def test_how_data_cannot_be_read(flag: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep_config.parse([*CASE, flag])
