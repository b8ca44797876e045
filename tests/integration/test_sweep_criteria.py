"""Whole sweeps of the embedded network by every criterion, and of BPrune's defect."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import results, sweep
from bprune_hpc.checkpoints import case
from bprune_hpc.posterior.criteria import CRITERIA
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.results import table
from tests.helpers.launch import MpiRun

DIGITS = ["--model_dir=embedded:digits_fc", "--dataset=digits", "--num_monte_carlo=2"]
PRIOR = 1.0


def run(*argv: str | Path) -> int:
    return sweep.main([str(argument) for argument in argv])


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    return case.read_case("embedded:digits_fc").posterior


def flat(posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
    loc = np.concatenate([posterior.loc[name].ravel() for name in posterior.names])
    scale = np.concatenate([posterior.scale[name].ravel() for name in posterior.names])
    return np.abs(loc.astype(float)), scale.astype(float)


# Thresholds, and which weights they prune, written out plainly.
RULES = {
    "snr": ([0, 0.5], lambda m, s, t: m / s <= t),
    "signal_plus_noise": ([0, 0.3], lambda m, s, t: m + s <= t),
    "magnitude": ([0, 0.1], lambda m, s, t: m <= t),
    "log_alpha": (["none", 3, 0], lambda m, s, t: 2 * (np.log(s) - np.log(m)) >= t),
    "kl": ([0, 0.1], lambda m, s, t: np.log(PRIOR / s) + (s**2 + m**2) / 2 / PRIOR**2 - 0.5 <= t),
    "bmr": (["none", -0.5, 0], lambda m, s, t: (m / s) ** 2 / 2 + np.log(s / PRIOR) <= t),
}


@pytest.mark.parametrize("criterion", RULES)
def test_every_criterion_prunes_what_its_formula_says(
    posterior: Posterior, tmp_path: Path, criterion: str
) -> None:
    thresholds, prunes = RULES[criterion]
    path = tmp_path / "sweep.h5"
    flags = [f"--criterion={criterion}", f"--prior_scale={PRIOR}"]
    listed = "--thresholds=" + ",".join(map(str, thresholds))
    assert run(*DIGITS, *flags, listed, f"--output={path}") == 0
    found = results.read(path)
    mean, deviation = flat(posterior)
    assert found.sparsity.n_active[0] == posterior.n_weights
    assert found.metrics.accuracy_drop[0] == 0 and found.metrics.accuracy[0] > 0.95
    assert found.metrics.threshold.values[1:].tolist() == thresholds[1:]
    for index, threshold in list(enumerate(thresholds))[1:]:
        n_pruned = int(prunes(mean, deviation, threshold).sum())
        assert 0 < n_pruned < posterior.n_weights
        assert found.sparsity.n_active[index] == posterior.n_weights - n_pruned
        assert (found.sparsity.layer_threshold[index] == threshold).all()
    assert found.sparsity.attrs["criterion"] == criterion
    assert found.sparsity.attrs["prior_scale"] == PRIOR
    assert criterion in found.attrs["config"] and "Infinity" not in found.attrs["config"]
    assert table.read_table(path).heading.split()[-1] == (
        ">=" if CRITERIA[criterion].keeps == "below" else "<="
    )


def test_automatic_cuts_of_each_layer(
    posterior: Posterior, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--thresholds=auto:4", "--scope=layer", "--criterion=log_alpha"]
    assert run(*DIGITS, *flags, f"--output={tmp_path / 'sweep.h5'}") == 0
    found = results.read(tmp_path / "sweep.h5")
    assert found.groups[""].requested_fraction.values.tolist() == [0, 0.25, 0.5, 0.75]
    for layer, name in enumerate(posterior.names):
        alpha = -2 * np.log(np.abs(posterior.loc[name]) / posterior.scale[name].astype(float))
        ordered = np.sort(alpha.ravel())[::-1]
        for index, fraction in enumerate((0, 0.25, 0.5, 0.75)):
            n_pruned = round(fraction * alpha.size)
            cut = found.sparsity.isel(threshold=index, layer=layer)
            assert cut.layer_pruned_fraction * alpha.size == pytest.approx(n_pruned)
            limit = ordered[n_pruned - 1] if n_pruned else math.inf
            assert cut.layer_threshold == pytest.approx(limit)
    assert found.metrics.threshold[1] == found.sparsity.layer_threshold[1].min()
    header, _, first, *_ = capsys.readouterr().out.splitlines()
    # No one threshold says what goes, so that none stands there.
    assert header.startswith("highest log alpha in each layer") and first.split()[0] == "0"
    assert table.read_table(tmp_path / "sweep.h5").labels == ["0 %", "25 %", "50 %", "75 %"]


@pytest.mark.parametrize(
    ("flags", "heading", "chosen"),
    [
        (["--scope=layer"], "lowest SNR in each layer", "the 50 % of lowest SNR in each layer, "),
        (["--granularity=neuron"], "neurons of lowest SNR", "the 50 % of neurons of lowest SNR, "),
        (["--criterion=magnitude", "--scope=layer", "--granularity=neuron"],
         "neurons of lowest |loc| in each layer",
         "the 50 % of neurons of lowest |loc| in each layer, "),
        ([], "lowest SNR", "the 50 % of lowest SNR, "),
    ],
)  # fmt: skip
def test_table_and_choice_name_what_is_pruned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], heading: str, chosen: str
) -> None:
    path = tmp_path / "sweep.h5"
    limit = ["--prune_fractions=0,0.5", "--max_accuracy_drop=0.9", "--num_monte_carlo=4"]
    assert run(*DIGITS, *flags, *limit, "--draw_noise=shared", f"--output={path}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{heading}  ") or lines[0].lstrip().startswith(heading)
    (choice,) = [line for line in lines if line.startswith("choice: ")]
    assert choice.startswith(f"choice: {chosen}")
    assert "% pruned: accuracy drop of this ensemble of 4 networks below 0.9" in choice


def test_random_weights_are_worse_than_those_of_low_snr(tmp_path: Path) -> None:
    half = [*DIGITS, "--prune_fractions=0,0.5"]
    drops = {}
    for name in ("snr", "random"):
        assert run(*half, f"--criterion={name}", f"--output={tmp_path / name}.h5") == 0
        drops[name] = float(results.read(tmp_path / f"{name}.h5").metrics.accuracy_drop[1])
    assert run(*half, "--criterion=random", "--seed=1", f"--output={tmp_path / 'other.h5'}") == 0
    other = results.read(tmp_path / "other.h5").sparsity.layer_pruned_fraction
    same = results.read(tmp_path / "random.h5").sparsity.layer_pruned_fraction
    assert not np.array_equal(other, same)
    assert drops["random"] > 0.05 > 0.02 > drops["snr"]


def test_neurons_go_whole(posterior: Posterior, tmp_path: Path) -> None:
    flags = ["--granularity=neuron", "--thresholds=0,0.2,1"]
    assert run(*DIGITS, *flags, f"--output={tmp_path / 'sweep.h5'}") == 0
    sparsity = results.read(tmp_path / "sweep.h5").sparsity
    for layer, name in enumerate(posterior.names):
        ratio = np.abs(posterior.loc[name].astype(float)) / posterior.scale[name]
        of_units = np.sqrt((ratio**2).mean(axis=0))
        for index, threshold in ((1, 0.2), (2, 1)):
            gone = float((of_units <= threshold).mean())
            assert sparsity.layer_pruned_fraction[index, layer] == pytest.approx(gone)
    assert sparsity.pruned_fraction[2] > 0


def test_bprunes_pruned_weights_ruin_what_zeros_keep(tmp_path: Path) -> None:
    accuracy = {}
    for what in ("zero", "bprune"):
        flags = ["--num_monte_carlo=20", "--thresholds=0,0.25,1", f"--pruned_weights={what}"]
        assert run(*DIGITS, *flags, f"--output={tmp_path / what}.h5") == 0
        found = results.read(tmp_path / f"{what}.h5")
        assert found.sparsity.attrs["pruned_weights"] == what
        accuracy[what] = found.metrics
    zero, noise = accuracy["zero"], accuracy["bprune"]
    for name in zero:
        assert zero[name][0].values.tobytes() == noise[name][0].values.tobytes(), name
    assert zero.accuracy_drop[2] < 0.02 and zero.accuracy_single_draw[2] > 0.9
    fall = zero.accuracy_single_draw[2] - noise.accuracy_single_draw[2]
    assert fall > 0.25 and fall > 10 * noise.accuracy_single_draw_se[2]
    # Against the unpruned network: zeros do not raise the NLL, noise does, in standard errors.
    for metrics, low, high in ((zero, -np.inf, 2), (noise, 5, np.inf)):
        rise = metrics.nll_rise / np.hypot(metrics.nll_rise_se, metrics.nll_rise_se_data)
        assert ((rise[1:] > low) & (rise[1:] < high)).all()
    # At the mean both are the same network: the pruned mean is zero in either.
    assert (zero.accuracy_mean_weights.values == noise.accuracy_mean_weights.values).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--granularity=filter"], "the network has no mean-field convolution kernel"),
        (["--criterion=bmr", "--prior_scale=-1"], "--prior_scale: -1 is not in"),
    ],
)
def test_what_cannot_be_pruned_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(*DIGITS, *flags, f"--output={tmp_path / 'sweep.h5'}") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and message in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_defect_and_criterion_give_the_same_bits_on_three_ranks(
    mpirun: MpiRun, tmp_path: Path
) -> None:
    flags = [
        *DIGITS, "--num_monte_carlo=6", "--criterion=random", "--pruned_weights=bprune",
        "--granularity=neuron", "--scope=layer", "--thresholds=auto:3",
    ]  # fmt: skip
    assert run(*flags, f"--output={tmp_path / 'one.h5'}") == 0
    arguments = ["-m", "bprune_hpc.sweep", *flags, f"--output={tmp_path / 'three.h5'}"]
    assert mpirun(3, arguments).returncode == 0
    one, three = results.read(tmp_path / "one.h5"), results.read(tmp_path / "three.h5")
    for group in ("metrics", "draws", "examples", "sparsity"):
        for name, array in one.groups[group].items():
            assert array.values.tobytes() == three.groups[group][name].values.tobytes(), name
