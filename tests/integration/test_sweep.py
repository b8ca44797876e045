"""Whole sweeps: against reference numbers, against plain NumPy, on any number of ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray
from scipy import special

from bprune_hpc import data, results, sweep
from bprune_hpc.checkpoints import case
from bprune_hpc.posterior.draws import standard_normal
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.bits import DIGITS, SMALL, all_bits
from tests.helpers.launch import THETA_DIR, MpiRun, needs_theta

EMBEDDED = case.case_directory("embedded:digits_fc")

# Reference of 3,200 draws by plain code written apart from this project, on the 64 MNIST images;
# the errors are those of a run of 400 independent draws.
# SNR, pruned, accuracy, single draw, NLL ±, predictive entropy ±, expected entropy ±
THETA_REFERENCE = np.array(
    [
        [0, 0.000000, 0.9688, 0.9673, 0.07955, 0.00063, 0.11715, 0.00055, 0.11302, 0.00045],
        [0.1, 0.033750, 0.9688, 0.9673, 0.07966, 0.00061, 0.11696, 0.00048, 0.11295, 0.00044],
        [0.25, 0.081250, 0.9688, 0.9674, 0.07967, 0.00056, 0.11666, 0.00047, 0.11277, 0.00043],
        [0.5, 0.155000, 0.9688, 0.9677, 0.07903, 0.00050, 0.11682, 0.00045, 0.11319, 0.00042],
        [1, 0.276250, 0.9688, 0.9673, 0.08174, 0.00045, 0.12312, 0.00044, 0.11962, 0.00042],
        [2, 0.534375, 0.9688, 0.9685, 0.08219, 0.00036, 0.16158, 0.00028, 0.15839, 0.00048],
        [3, 0.711250, 0.9375, 0.9348, 0.17082, 0.00092, 0.29317, 0.00072, 0.28946, 0.00071],
        [5, 0.910000, 0.4219, 0.4433, 1.39084, 0.00318, 1.41918, 0.00238, 1.41319, 0.00142],
    ]
)


def run(*argv: str | Path) -> int:
    """Run a sweep in this process; errors are printed and become the status."""
    return sweep.main([str(argument) for argument in argv])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small sweep of the embedded network, in one process."""
    path = tmp_path_factory.mktemp("small") / "sweep.h5"
    assert run(*SMALL, f"--output={path}") == 0
    return path


@needs_theta
def test_the_theta_checkpoint_agrees_with_the_reference(tmp_path: Path) -> None:
    status = run(
        f"--model_dir={THETA_DIR}", "--model_ckpt=model.ckpt-250",
        f"--data_path={THETA_DIR / 'mnist64.npz'}", "--thresholds", "0,0.1,0.25,0.5,1,2,3,5",
        "--num_monte_carlo", "400", f"--output={tmp_path / 'theta.h5'}",
    )  # fmt: skip
    assert status == 0
    found = results.read(tmp_path / "theta.h5")
    metrics, column = found.metrics, THETA_REFERENCE.T
    assert metrics.threshold.values.tolist() == column[0].tolist()
    assert found.sparsity.pruned_fraction.values.tolist() == column[1].tolist()
    assert np.round(metrics.accuracy.values * 64).tolist() == np.round(column[2] * 64).tolist()
    for name, value, error in (
        ("nll", column[4], column[5]),
        ("predictive_entropy", column[6], column[7]),
        ("expected_entropy", column[8], column[9]),
        ("accuracy_single_draw", column[3], np.hypot(metrics.accuracy_single_draw_se, 5e-5)),
    ):
        assert (np.abs(metrics[name].values - value) < 4 * error).all(), name
    # Antithetic pairs: the error is well below that of as many independent draws.
    assert (metrics.nll_se.values < column[5]).all()


def test_against_plain_numpy_with_the_same_noise(tmp_path: Path) -> None:
    assert run(*SMALL, "--draw_noise=shared", f"--output={tmp_path / 'shared.h5'}") == 0
    tf = import_tensorflow()
    reader = tf.train.load_checkpoint(str(EMBEDDED))
    examples = data.load("digits", None, "test")
    layers = [f"sequential/dense_flipout{suffix}/" for suffix in ("", "_1", "_2")]
    loc, scale, bias = [], [], []
    for layer in layers:
        loc.append(reader.get_tensor(f"{layer}kernel_posterior_loc").astype(float))
        raw = reader.get_tensor(f"{layer}kernel_posterior_untransformed_scale").astype(float)
        scale.append(np.finfo(np.float32).eps + np.log1p(np.exp(raw)))
        bias.append(reader.get_tensor(f"{layer}bias_posterior_loc").astype(float))

    def log_probabilities(kernels: list[np.ndarray]) -> np.ndarray:
        hidden = examples.x.reshape(len(examples.x), -1).astype(float)
        for index, kernel in enumerate(kernels):
            hidden = hidden @ kernel + bias[index]
            if index < 2:
                hidden = np.maximum(hidden, 0)
        return special.log_softmax(hidden, axis=1)

    found = results.read(tmp_path / "shared.h5")
    rows, n = np.arange(len(examples.y)), len(examples.y)
    for t, threshold in enumerate(found.metrics.threshold.values):
        keep = [
            (np.abs(m) / s > threshold) | (threshold == 0) for m, s in zip(loc, scale, strict=True)
        ]
        drawn = []
        for k in range(12):
            kernels = []
            for layer, mean, deviation, kept in zip(layers, loc, scale, keep, strict=True):
                noise = standard_normal(0, f"{layer}kernel_posterior_loc", k // 2, mean.shape)
                kernels.append(np.where(kept, mean + (-1) ** k * deviation * noise, 0))
            drawn.append(log_probabilities(kernels))
        log_p = np.array(drawn)
        np.testing.assert_allclose(
            found.draws.nll[t], -log_p[:, rows, examples.y].mean(axis=1), rtol=1e-5
        )
        mean = np.exp(log_p).mean(axis=0)
        np.testing.assert_allclose(found.examples.mean_probability[t], mean, atol=2e-6)
        nll = -np.log(mean[rows, examples.y])
        np.testing.assert_allclose(found.examples.nll[t], nll, rtol=1e-4, atol=1e-6)
        correct = (mean.argmax(axis=1) == examples.y).sum()
        assert found.metrics.accuracy[t] * n == pytest.approx(correct)
        at_mean = log_probabilities([np.where(k, m, 0) for m, k in zip(loc, keep, strict=True)])
        correct = (at_mean.argmax(axis=1) == examples.y).sum()
        assert found.metrics.accuracy_mean_weights[t] * n == pytest.approx(correct)
        kept = sum(int(k.sum()) for k in keep)
        assert found.sparsity.n_active[t] == kept


@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
def test_the_same_bits_on_any_number_of_ranks(
    small: Path, mpirun: MpiRun, tmp_path: Path, n_ranks: int
) -> None:
    arguments = ["-m", "bprune_hpc.sweep", *SMALL, f"--output={tmp_path / 'sweep.h5'}"]
    done = mpirun(n_ranks, arguments)
    assert done.returncode == 0, done.stderr
    assert all_bits(tmp_path / "sweep.h5") == all_bits(small)
    assert results.read(tmp_path / "sweep.h5").run.n_ranks == n_ranks


@pytest.mark.slow
def test_more_ranks_than_draws_and_thresholds(mpirun: MpiRun, tmp_path: Path) -> None:
    few = [*DIGITS, "--thres_val=0.5", "--num_monte_carlo=2"]
    assert run(*few, f"--output={tmp_path / 'one.h5'}") == 0
    arguments = ["-m", "bprune_hpc.sweep", *few, f"--output={tmp_path / 'many.h5'}"]
    assert mpirun(4, arguments).returncode == 0
    assert all_bits(tmp_path / "one.h5") == all_bits(tmp_path / "many.h5")


def test_blocks_of_examples_change_no_bit(small: Path, tmp_path: Path) -> None:
    assert run(*SMALL, "--state_limit_gb=1e-6", f"--output={tmp_path / 'blocks.h5'}") == 0
    assert all_bits(tmp_path / "blocks.h5") == all_bits(small)


def test_other_thresholds_change_no_bit_of_this_one(tmp_path: Path) -> None:
    # With 20 groups: NumPy adds a few numbers, and an axis that is alone, in other orders.
    many = tmp_path / "many.h5"
    assert run(*SMALL, "--num_monte_carlo=46", f"--output={many}") == 0
    for thresholds in ([0, 0.5], [0]):
        listed, few = ",".join(map(str, thresholds)), tmp_path / f"{len(thresholds)}.h5"
        arguments = ["--num_monte_carlo=46", f"--thresholds={listed}", f"--output={few}"]
        assert run(*SMALL, *arguments) == 0
        of_many, of_few = results.read(many), results.read(few)
        for group in ("metrics", "draws", "examples", "sparsity", "classes", "calibration"):
            for name, array in of_few.groups[group].items():
                if "threshold" in array.dims and "_band_" not in name:  # those are of all of them
                    same = of_many.groups[group][name].sel(threshold=thresholds)
                    assert same.values.tobytes() == array.values.tobytes(), name


def test_more_draws_keep_the_first_ones(small: Path, tmp_path: Path) -> None:
    assert run(*SMALL, "--num_monte_carlo=20", f"--output={tmp_path / 'more.h5'}") == 0
    more, few = results.read(tmp_path / "more.h5"), results.read(small)
    assert (more.draws.nll[:, :12].values == few.draws.nll.values).all()
    assert more.groups[""].pair.values.tolist() == [k // 2 for k in range(20)]


def test_the_file_opens_with_common_readers(small: Path) -> None:
    with xarray.open_dataset(small, engine="h5netcdf", group="metrics") as metrics:
        assert metrics.threshold.values.tolist() == [0, 0.1, 0.5, 1, 3]
        for name in ("accuracy", "accuracy_single_draw", "accuracy_mean_weights", "nll",
                     "predictive_entropy", "expected_entropy", "mutual_information",
                     "accuracy_drop", "nll_rise"):  # fmt: skip
            bands = ("_band_low", "_band_high") if name in ("accuracy_drop", "nll_rise") else ()
            for suffix in ("", "_se", "_se_data", "_low", "_high", *bands):
                assert metrics[name + suffix].dims == ("threshold",)
                assert np.isfinite(metrics[name + suffix]).all()
    found = results.read(small)
    assert found.examples.mean_probability.dims == ("threshold", "example", "class")
    assert found.sparsity.layer_pruned_fraction.dims == ("threshold", "layer")
    assert "sequential/dense_flipout/kernel_posterior_loc" in found.sparsity.layer.values
    assert found.attrs["status"] == "complete" and found.attrs["n_draws"] == 12
    assert "model.ckpt-4400.data-00000-of-00001" in found.attrs["sha256"]
    counts = found.groups["snr/sequential/dense_flipout/kernel_posterior_loc"].counts
    assert counts.sum() == 64 * 64


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed")
def test_h5dump_reads_the_file(small: Path) -> None:
    done = subprocess.run(["h5dump", "-H", str(small)], capture_output=True, text=True, check=True)
    for name in ('GROUP "metrics"', 'DATASET "nll_se_data"', 'DATASET "threshold"'):
        assert name in done.stdout


def test_inference_is_one_unpruned_network(tmp_path: Path) -> None:
    status = run(*DIGITS, "--inference", "--num_monte_carlo=2", f"--output={tmp_path / 'i.h5'}")
    found = results.read(tmp_path / "i.h5")
    assert status == 0 and found.metrics.threshold.values.tolist() == [0]
    assert found.sparsity.pruned_fraction.values.tolist() == [0]
    assert np.isnan(found.metrics.nll_se).all()  # one pair has no Monte Carlo error


def test_fractions_and_single_draws(tmp_path: Path) -> None:
    arguments = ["--prune_fractions=0,0.5,0.9", "--pairing=none", "--num_monte_carlo=3"]
    assert run(*DIGITS, *arguments, f"--output={tmp_path / 'f.h5'}") == 0
    found = results.read(tmp_path / "f.h5")
    assert found.groups[""].requested_fraction.values.tolist() == [0, 0.5, 0.9]
    assert found.sparsity.n_active.values.tolist() == [6464, 3232, 6464 - round(0.9 * 6464)]
    assert found.groups[""].pair.values.tolist() == [0, 1, 2]


def test_it_prints_the_table_and_where_the_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "sweep.h5"
    assert run(*DIGITS, "--num_monte_carlo=4", f"--data_dir={tmp_path / 'out'}") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"results: {path}" and path.is_file()
    assert "pruned" in printed and "±" in printed and "0.00 %" in printed


def _damaged(directory: Path, kind: str) -> Path:
    """Copy the embedded case and damage it."""
    shutil.copytree(EMBEDDED, directory)
    shard = directory / "model.ckpt-4400.data-00000-of-00001"
    if kind == "missing shard":
        shard.unlink()
    if kind == "truncated shard":
        os.truncate(shard, shard.stat().st_size // 2)
    return directory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_dir=/nowhere"], "/nowhere: no such directory"),
        (["--model_ckpt=model.ckpt-1"], "model.ckpt-1"),
        (["--data_path=/nowhere.npz", "--dataset=npz"], "/nowhere.npz: no such file"),
        (["--logits_op=nothing"], "nothing"),
        (["--thresholds="], "--thresholds: the list is empty"),
        (["--thresholds=0,-1"], "--thresholds: -1 is not allowed"),
        (["--thresholds=nan"], "--thresholds: nan is not allowed"),
        (["--num_monte_carlo=0"], "--num_monte_carlo: 0 is not in"),
        (["--trheshold=0"], "unknown flag '--trheshold'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_earlier_results(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    path = tmp_path / "sweep.h5"
    shutil.copy(small, path)
    assert run(*SMALL, f"--output={path}", *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and message in errors[0], errors
    assert path.read_bytes() == small.read_bytes()
    assert os.listdir(tmp_path) == ["sweep.h5"]


@pytest.mark.parametrize("kind", ["missing shard", "truncated shard"])
def test_a_damaged_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    directory = _damaged(tmp_path / "case", kind)
    assert run(*SMALL, f"--model_dir={directory}", f"--output={tmp_path / 'o.h5'}") == 2
    error = capsys.readouterr().err
    assert "model.ckpt-4400" in error and "copy" in error and "Traceback" not in error
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 63), np.float32), np.zeros(4, int), "has shape (63), the network takes (64)"),
        (np.zeros((4, 64), np.float32), np.array([0, 1, 10, 2]), "label 10 of example 2"),
        (np.zeros((4, 64), np.float32), np.array([0, 1, -1, 2]), "label -1 of example 2"),
        (np.full((4, 64), np.nan, np.float32), np.zeros(4, int), "nan in example 0"),
        (np.zeros((4, 64), np.float32), np.zeros(3, int), "4 examples, 'y_test' 3 labels"),
        (np.zeros((0, 64), np.float32), np.zeros(0, int), "needs one or more examples"),
    ],
)
def test_data_that_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], x: np.ndarray, y: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "d.npz", x_test=x, y_test=y)
    arguments = [f"--data_path={tmp_path / 'd.npz'}", "--dataset=npz"]
    assert run(*SMALL, *arguments, f"--output={tmp_path / 'o.h5'}") == 2
    error = capsys.readouterr().err
    assert "d.npz" in error and message in error and "Traceback" not in error
    assert not (tmp_path / "o.h5").exists()


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(*SMALL, f"--output={tmp_path / 'file' / 'sweep.h5'}") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_unknown_flag_in_a_file_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "args.txt").write_text("--seed=1\n\n--thresold=0\n")
    assert run(f"@{tmp_path / 'args.txt'}") == 2
    message = f"error: {tmp_path / 'args.txt'}:3: unknown flag '--thresold'"
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.slow
def test_the_users_own_line(mpirun: MpiRun, tmp_path: Path) -> None:
    done = mpirun(2, ["-m", "bprune_hpc.sweep", "@ArgFilePrune.txt"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "results: results/sweep.h5" in done.stdout
    metrics = results.read(tmp_path / "results" / "sweep.h5").metrics
    half = metrics.sel(threshold=0.5)
    assert abs(half.accuracy_drop) <= 2 * np.hypot(
        half.accuracy_drop_se, half.accuracy_drop_se_data
    )


@pytest.mark.horovod
@pytest.mark.slow
@pytest.mark.parametrize("model", ["dense", "conv_flipout"])
def test_what_two_horovod_ranks_train_can_be_swept(
    mpirun: MpiRun, tmp_path: Path, model: str
) -> None:
    flags = [f"--model={model}", "--dataset=digits", "--epochs=8", "--learning_rate=0.02"]
    arguments = ["-m", "bprune_hpc.train", *flags, f"--model_dir={tmp_path / 'case'}"]
    done = mpirun(2, arguments)
    assert done.returncode == 0, done.stderr
    status = run(
        f"--model_dir={tmp_path / 'case'}", "--dataset=digits", "--thresholds=0,0.1,100",
        "--num_monte_carlo=10", f"--output={tmp_path / 'sweep.h5'}",
    )  # fmt: skip
    metrics = results.read(tmp_path / "sweep.h5").metrics
    assert status == 0 and metrics.accuracy[0] > 0.5
    assert metrics.accuracy[2] < metrics.accuracy[0]
