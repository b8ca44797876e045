"""Whole sweeps of regressions: closed forms of a linear network, heads, equal bits, bad input."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import stats

from bprune_hpc import results, sweep
from bprune_hpc.accumulators.regression import expected_distance
from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.checkpoints.keras_tracing import build_model
from bprune_hpc.data.loading import load
from bprune_hpc.posterior.draws import standard_normal
from bprune_hpc.posterior.mean_field import Prior
from tests.helpers.bits import SMALL, all_bits
from tests.helpers.launch import ROOT, MpiRun
from tests.helpers.regressions import trained

THRESHOLDS = (0.0, 0.3, 1.0, 2.0)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, with the noise scale learned."""
    return trained(tmp_path_factory.mktemp("linear"), "--hidden=")


@pytest.fixture(scope="module")
def given_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, with a noise scale that float32 holds exactly."""
    flags = ("--hidden=6", "--noise_scale=0.75", "--prior_scale=0.5")
    return trained(tmp_path_factory.mktemp("given"), *flags)


def sweep_arguments(output: Path, case: Path, *flags: str) -> list[str]:
    thresholds = ",".join(map(str, THRESHOLDS))
    data = [] if any(flag.startswith("--data_path") for flag in flags) else ["--dataset=diabetes"]
    return [f"--model_dir={case}", *data, "--task=regression", f"--thresholds={thresholds}",
            f"--output={output}", *flags]  # fmt: skip


def run(output: Path, case: Path, *flags: str) -> int:
    return sweep.main(sweep_arguments(output, case, *flags))


# The linear network, whose predictive is a Normal in closed form


class ClosedForm:
    """Predictive mean and variance at each threshold, shape (n_thresholds, n_examples)."""

    def __init__(self, directory: Path) -> None:
        case = read_case(directory)
        (name,) = case.posterior.names
        loc, scale = (
            np.asarray(table[name], float)[:, 0]
            for table in (case.posterior.loc, case.posterior.scale)
        )
        bias = float(case.fixed["sequential/dense_flipout/bias_posterior_loc"][0])
        raw = float(case.fixed["noise/untransformed_scale"])
        self.noise = 1e-6 + np.log1p(np.exp(raw))
        test = load("diabetes", task="regression")
        x, self.target = test.x.astype(float), test.y
        kept = np.array([(np.abs(loc) / scale > t) | (t == 0) for t in THRESHOLDS])
        self.mean = (kept * loc) @ x.T + bias
        self.epistemic = (kept * scale**2) @ (x**2).T
        assert len({k.sum() for k in kept}) == len(THRESHOLDS)

    def metrics(self) -> dict[str, np.ndarray]:
        deviation = np.sqrt(self.epistemic + self.noise**2)
        error = self.mean - self.target
        crps = expected_distance(error, deviation) - deviation / np.sqrt(np.pi)
        return {
            "rmse": np.sqrt((error**2).mean(axis=1)),
            "rmse_mean_weights": np.sqrt((error**2).mean(axis=1)),
            "rmse_single_draw": np.sqrt((error**2 + self.epistemic).mean(axis=1)),
            "mae": np.abs(error).mean(axis=1),
            "nll": -stats.norm.logpdf(self.target, self.mean, deviation).mean(axis=1),
            "crps": crps.mean(axis=1),
            "sharpness": deviation.mean(axis=1),
            "epistemic_variance": self.epistemic.mean(axis=1),
            "aleatoric_variance": np.full(len(THRESHOLDS), self.noise**2),
        }


@pytest.mark.parametrize("pairing", ["none", "antithetic"])
def test_the_linear_network_meets_its_closed_form(
    linear: Path, tmp_path: Path, pairing: str
) -> None:
    path = tmp_path / "sweep.h5"
    assert run(path, linear, "--num_monte_carlo=400", f"--pairing={pairing}") == 0
    metrics, exact = results.read(path).metrics, ClosedForm(linear).metrics()
    for name, expected in exact.items():
        error = np.abs(metrics[name].values - expected)
        # Pairs leave no Monte Carlo error in the mean of a linear network, so that float32's shows.
        assert (error <= 4 * metrics[f"{name}_se"].values + 2e-6 * np.abs(expected)).all(), name


@pytest.mark.slow
def test_its_error_falls_as_one_over_the_root_of_the_draws(linear: Path, tmp_path: Path) -> None:
    exact, chosen = ClosedForm(linear), [0, 2]
    n_draws = np.repeat([40, 160, 640], 6)
    mean_error, epistemic = exact.mean[chosen], exact.epistemic[chosen]
    off: dict[str, list[np.ndarray]] = {"mean": [], "variance": []}
    for seed, n in enumerate(n_draws):
        flags = (
            f"--num_monte_carlo={n}",
            "--pairing=none",
            f"--seed={seed}",
            "--thresholds=0,1",
            "--overwrite",
        )
        assert run(tmp_path / "r.h5", linear, *flags) == 0
        with h5py.File(tmp_path / "r.h5") as file:
            mean = file["examples/predictive_mean"][()]
            variance = file["examples/epistemic_sd"][()].astype(float) ** 2 * n / (n - 1)
        # In units of what one draw is off: a deviation, or the root of two variances.
        off["mean"].append((((mean - mean_error) ** 2) / epistemic).mean(axis=1))
        off["variance"].append(((variance / epistemic - 1) ** 2 / 2).mean(axis=1))
    for name, squares in off.items():
        found = np.array(squares)  # 1 / n_draws at both thresholds
        scaled = found * n_draws[:, None]
        assert (np.abs(scaled.mean(axis=0) - 1) < 4 * stats.sem(scaled, axis=0)).all(), name
        fit = stats.linregress(np.log(n_draws), 0.5 * np.log(found.mean(axis=1)))
        assert fit.stderr < 0.1 and abs(fit.slope + 0.5) < 4 * fit.stderr, (name, fit)


def test_the_prior_that_it_was_trained_with_is_in_its_graph(given_noise: Path) -> None:
    case = read_case(given_noise, with_prior=True)
    assert case.prior == dict.fromkeys(case.posterior.names, Prior(0, 0.5))


# Heads


def test_a_mean_alone_with_the_noise_given_is_the_same_as_the_normal(
    given_noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A Normal is no chain of layers, a mean alone may be one.
    flags = ("--num_monte_carlo=8", "--batch_size=40", "--evaluator=graph")
    assert run(tmp_path / "normal.h5", given_noise, *flags) == 0
    point = ("--logits_op=predictive/loc", "--noise_scale=0.75")
    assert run(tmp_path / "point.h5", given_noise, *flags, *point) == 0
    log = capsys.readouterr().err
    assert "a Normal, with loc at predictive/loc:0 and scale at predictive/scale:0" in log
    assert "a mean at predictive/loc:0, with --noise_scale=0.75" in log
    one, other = all_bits(tmp_path / "normal.h5"), all_bits(tmp_path / "point.h5")
    different = {name for name in one if one[name] != other[name]}
    assert different <= {"attributes"}
    with h5py.File(tmp_path / "point.h5") as file:
        assert file.attrs["task"] == "regression"
        assert (file["metrics/aleatoric_variance"][()] == 0.75**2).all()


@pytest.mark.parametrize("model", ["normal_of_one", "mean_of_one"])
def test_a_keras_regression_against_plain_numpy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    name, generator = f"tests.helpers.small_models:{model}", np.random.default_rng(0)
    built = build_model(name)
    built.set_weights([generator.normal(0, 0.5, w.shape) for w in built.get_weights()])
    weights = tmp_path / "net.weights.h5"
    built.save_weights(weights)
    x, y = generator.normal(size=(7, 4)).astype(np.float32), generator.normal(size=7)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    arguments = [f"--model_dir={weights}", f"--model={name}", f"--data_path={tmp_path / 'd.npz'}",
                 "--inference", "--num_monte_carlo=8", "--draw_noise=shared",
                 f"--output={tmp_path / 'r.h5'}"]  # fmt: skip
    if model == "mean_of_one":
        assert sweep.main(arguments) == 2
        assert "is a single number an example" in capsys.readouterr().err
        arguments.append("--noise_scale=0.4")
    assert sweep.main(arguments) == 0
    case = read_case(weights, model=name)
    (tensor,) = case.posterior.names
    (bias,) = case.fixed.values()
    loc, scale = (np.float64(t[tensor]) for t in (case.posterior.loc, case.posterior.scale))
    means, variances = [], []
    for k in range(8):
        noise = standard_normal(0, tensor, k // 2, loc.shape)
        out = x.astype(float) @ (loc + (-1) ** k * scale * noise) + bias
        means.append(out[:, 0])
        raw = np.full(7, np.nan) if out.shape[1] == 1 else out[:, 1]
        variances.append((1e-5 + np.logaddexp(0, raw)) ** 2)
    examples = results.read(tmp_path / "r.h5").examples
    np.testing.assert_allclose(examples.predictive_mean[0], np.mean(means, axis=0), atol=1e-5)
    np.testing.assert_allclose(examples.epistemic_sd[0], np.std(means, axis=0), atol=1e-5)
    aleatoric = np.full(7, 0.4) if model == "mean_of_one" else np.sqrt(np.mean(variances, axis=0))
    np.testing.assert_allclose(examples.aleatoric_sd[0], aleatoric, rtol=1e-4)


# Labels


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((4, 2, 2)), "has shape (4, 2, 2); a regression takes (n,), or (n, n_targets)"),
        (np.array([0.5, np.nan, 1, 2]), "has nan at example 1"),
        (np.array([0.5, 1, 1e39, 2]), "has 1e+39 at example 2"),
        (np.array(list("abcd")), "a regression takes numbers"),
    ],
)
def test_labels_that_are_no_targets(
    linear: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], y: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 10), np.float32), y=y)
    assert run(tmp_path / "r.h5", linear, f"--data_path={tmp_path / 'data.npz'}") == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "data.npz" in error
    assert not (tmp_path / "r.h5").exists()


def test_data_of_the_other_task(
    linear: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "r.h5", linear, "--dataset=digits") == 2
    assert "has classes, a regression needs numbers" in capsys.readouterr().err
    digits = ["--model_dir=embedded:digits_fc", f"--output={tmp_path / 'r.h5'}"]
    assert sweep.main([*digits, "--dataset=diabetes"]) == 2
    assert "a classification needs classes" in capsys.readouterr().err
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 64), np.float32), y=np.array([0.5, 1]))
    assert sweep.main([*digits, f"--data_path={tmp_path / 'd.npz'}"]) == 2
    assert "save class numbers from 0, or pass --task=regression" in capsys.readouterr().err


def test_targets_in_files_are_those_of_the_package(linear: Path, tmp_path: Path) -> None:
    test = load("diabetes", task="regression")
    np.savez(tmp_path / "d.npz", x_test=test.x, y_test=test.y[:, None])
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"], file["y"] = test.x, test.y
    paths = [tmp_path / f"{name}.h5" for name in ("inside", "npz", "hdf5")]
    few = ("--num_monte_carlo=4",)
    assert run(paths[0], linear, *few) == 0  # without a path: what is in the package
    assert run(paths[1], linear, *few, f"--data_path={tmp_path / 'd.npz'}") == 0
    assert run(paths[2], linear, *few, f"--data_path={tmp_path / 'd.h5'}") == 0
    values = [results.read(path).metrics.crps.values.tolist() for path in paths]
    assert values[0] == values[1] == values[2]


# Bits, files, tables


def test_draws_come_four_at_a_time_and_are_those_of_any_task(
    linear: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "six.h5", linear, "--num_monte_carlo=6") == 0
    log = capsys.readouterr().err
    assert "draws come 4 at a time: --num_monte_carlo rounded up to 8" in log
    assert run(tmp_path / "twelve.h5", linear, "--num_monte_carlo=12") == 0
    six, twelve = (results.read(tmp_path / f"{name}.h5") for name in ("six", "twelve"))
    assert six.groups[""].pair.values.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (twelve.draws.nll[:, :8].values == six.draws.nll.values).all()


def test_blocks_of_examples_and_batches_change_no_bit(given_noise: Path, tmp_path: Path) -> None:
    flags = ("--num_monte_carlo=12", "--batch_size=16")
    assert run(tmp_path / "whole.h5", given_noise, *flags) == 0
    assert run(tmp_path / "blocks.h5", given_noise, *flags, "--state_limit_gb=1e-6") == 0
    assert all_bits(tmp_path / "whole.h5") == all_bits(tmp_path / "blocks.h5")


# Two stages of draws, since the error is out of reach.
FOR_RANKS = ("--num_monte_carlo=60", "--batch_size=40", "--target_se=crps=1e-9")


@pytest.fixture(scope="module")
def one_rank(given_noise: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a sweep that one process did."""
    path = tmp_path_factory.mktemp("one") / "sweep.h5"
    assert run(path, given_noise, *FOR_RANKS) == 0
    return path


@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_the_same_bits_on_any_number_of_ranks(
    given_noise: Path, one_rank: Path, mpirun: MpiRun, tmp_path: Path, n_ranks: int
) -> None:
    path = tmp_path / "many.h5"
    arguments = sweep_arguments(path, given_noise, *FOR_RANKS)
    done = mpirun(n_ranks, ["-m", "bprune_hpc.sweep", *arguments])
    assert done.returncode == 0, done.stderr
    assert all_bits(path) == all_bits(one_rank)


@pytest.mark.slow
def test_seven_ranks_that_do_their_cells_in_any_order_give_the_same_bits(
    given_noise: Path, one_rank: Path, mpirun: MpiRun, tmp_path: Path
) -> None:
    digits = [*SMALL, f"--output={tmp_path / 'digits.h5'}"]
    regression = sweep_arguments(tmp_path / "regression.h5", given_noise, *FOR_RANKS)
    program = str(ROOT / "tests/programs/mpi_program.py")
    done = mpirun(7, [program, "shuffled", *regression, "-", *digits])
    assert done.returncode == 0, done.stderr
    assert results.read(tmp_path / "regression.h5").run.n_ranks == 7
    assert all_bits(tmp_path / "regression.h5") == all_bits(one_rank)
    assert sweep.main([*SMALL, f"--output={tmp_path / 'one_digits.h5'}"]) == 0
    assert all_bits(tmp_path / "digits.h5") == all_bits(tmp_path / "one_digits.h5")


def test_the_table_and_the_examples(
    given_noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "r.h5", given_noise, "--num_monte_carlo=8") == 0
    heading = capsys.readouterr().out.splitlines()[0].split("  ")
    titles = [title.strip() for title in heading if title.strip()]
    assert titles == ["SNR <=", "pruned", "RMSE", "NLL", "CRPS", "in 90 %", "sharpness"]
    found = results.read(tmp_path / "r.h5")
    examples = found.examples
    names = ("predictive_mean", "predictive_sd", "epistemic_sd", "aleatoric_sd", "pit", "nll")
    for name in names:
        assert examples[name].dims == ("threshold", "example"), name
    total = np.hypot(examples.epistemic_sd, examples.aleatoric_sd)
    np.testing.assert_allclose(examples.predictive_sd, total, rtol=1e-6)
    np.testing.assert_array_equal(examples.target, load("diabetes", task="regression").y)
    assert (found.calibration.pit_count.sum("bin") == len(examples.target)).all()
    for name, metric in found.metrics.items():
        assert np.isfinite(metric).all(), name
    assert found.metrics.coverage_90.attrs["discrete"]


# An error to reach, and the choice


def test_it_draws_until_an_error_is_reached_and_chooses(
    given_noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped, plain = tmp_path / "stopped.h5", tmp_path / "plain.h5"
    flags = ("--batch_size=40", "--max_nll_rise=0.2")
    assert run(plain, given_noise, *flags, "--num_monte_carlo=52") == 0
    error = float(results.read(plain).metrics.crps_se.max())
    # The first test is at 50 draws, rounded up to whole units of four; the next at 100.
    for factor, n_draws in ((1.01, 52), (0.99, 100)):
        target = f"--target_se=crps={factor * error}"
        assert run(stopped, given_noise, *flags, target, "--num_monte_carlo=100") == 0
        found = results.read(stopped)
        assert found.attrs["n_draws"] == n_draws and len(found.draws.draw) == n_draws
        assert f"{n_draws} draws: crps_se is at most" in found.metrics.attrs["target_text"]
        if n_draws == 52:
            assert found.metrics.attrs["target_reached"] == 1
            assert all_bits(stopped) == all_bits(plain)
    choice = found.choice
    assert choice.attrs["mode"] == "asymptotic"
    assert "Not exact: the losses of a regression have no bound." in choice.attrs["text"]
    assert choice.attrs["rule"] == "nll_rise" and choice.attrs["text"] in capsys.readouterr().out
    metrics = found.metrics
    combined = np.hypot(metrics.nll_rise_se, metrics.nll_rise_se_data)
    assert (choice.upper_bound >= metrics.nll_rise + 1.64 * combined).all()
    assert (choice.is_below == (choice.upper_bound < 0.2)).all()
    assert choice.attrs["index"] >= 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target_se=brier=1"], "--target_se: no metric 'brier' .* there are rmse, "),
        (["--task=auto", "--target_se=brier=1"], "'brier' is not of a regression; there are rmse"),
        (["--target_se=rmse_mean_weights=1"], "no metric 'rmse_mean_weights' with a Monte Carlo"),
        (
            ["--max_nll_rise=1", "--choice=exact"],
            "--choice=exact: the losses of a regression have no bound",
        ),
        (["--max_accuracy_drop=1"], "--max_accuracy_drop: is for classification; give --max_nll"),
        (
            ["--max_nll_rise=1", "--num_monte_carlo=4"],
            "come 4 at a time, .* to 8 or more",
        ),
        (["--ood_dataset=digits"], "--ood_path: is for classification"),
    ],
)
def test_goals_that_a_regression_does_not_have(
    given_noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str],
    message: str,
) -> None:  # fmt: skip
    assert run(tmp_path / "r.h5", given_noise, "--num_monte_carlo=8", *flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert re.search(message, error), error
    assert not (tmp_path / "r.h5").exists()
