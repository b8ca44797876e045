"""The trainer: its schedules by hand, and real runs on one, two and three ranks.

Runs in this process go without Horovod and without the process-wide determinism switch, which
would change what other tests of the session see; everything else is a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc import results, sweep, train
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.errors import BpruneError, ConfigError
from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.mpi.comm import EndedByRoot, SerialComm
from bprune_hpc.tensorflow_import import import_tensorflow, open_session
from bprune_hpc.training import config as train_config
from tests.helpers.bits import all_bits
from tests.helpers.launch import LIMIT_S, ROOT, find_mpirun, run_group
from tests.helpers.trainings import SMALL, assert_same_bits, config, needs_horovod, variables

WEIGHTS = ("kernel", "bias")


def launch(
    n_ranks: int, *flags: str, timeout_s: float = LIMIT_S, first_on_path: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run the command in processes of its own: plain at 0 ranks, else under mpirun."""
    command = [sys.executable, "-m", "bprune_hpc.train", *flags]
    if n_ranks:
        command = [str(find_mpirun()), "-n", str(n_ranks), *command]
    path = os.pathsep.join([str(first_on_path), str(ROOT)])
    return run_group(command, timeout_s, PYTHONPATH=path)


def alone(monkeypatch: pytest.MonkeyPatch, *flags: str) -> dict:
    """Train in this process."""
    import_tensorflow()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    status, report = train.train(config(*SMALL, *flags), SerialComm())
    assert status == 0
    return report


# Schedules and shares


def test_learning_rate_grows_from_one_ranks_to_all_ranks():
    c = config("--learning_rate=0.1", "--warmup_epochs=4")
    rates = [train_config.learning_rate(c, 3, epoch) for epoch in (0, 2, 4, 9)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.3])
    assert train_config.learning_rate(c, 1, 0) == 0.1
    no_warmup = config("--learning_rate=0.1", "--warmup_epochs=0")
    assert train_config.learning_rate(no_warmup, 2, 0) == 0.2


def test_kl_factor():
    c = config("--kl_weight=0.5", "--kl_anneal_epochs=10")
    assert [train_config.kl_factor(c, epoch) for epoch in (0, 5, 10, 50)] == [0, 0.25, 0.5, 0.5]
    assert train_config.kl_factor(config(), 0) == 1


def test_ranks_share_an_epoch_without_overlap():
    n_train, batch_size, n_ranks = 103, 8, 3
    shares = [
        train_config.epoch_batches(n_train, batch_size, n_ranks, rank, seed=5, epoch=2)
        for rank in range(n_ranks)
    ]
    assert {share.shape for share in shares} == {(4, 8)}
    together = np.concatenate([share.ravel() for share in shares])
    assert len(set(together)) == 96 and set(together) <= set(range(n_train))
    again = train_config.epoch_batches(n_train, batch_size, n_ranks, 1, seed=5, epoch=2)
    np.testing.assert_array_equal(again, shares[1])
    for seed, epoch in ((5, 3), (6, 2)):
        other = train_config.epoch_batches(n_train, batch_size, n_ranks, 1, seed, epoch)
        assert not np.array_equal(other, shares[1])
    # A step of n ranks takes what one rank with an n times larger batch would take.
    whole = train_config.epoch_batches(n_train, 24, 1, 0, seed=5, epoch=2)
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


def test_too_few_examples_for_a_step():
    with pytest.raises(ConfigError, match=r"2 rank.s. need 20 examples a step.*has 19; choose 9"):
        train_config.steps_per_epoch(19, 10, 2)


def test_seeds_of_ranks_differ_and_fit_tensorflow():
    seeds = {train_config.op_seed(seed, rank) for seed in (0, 1, 2**62) for rank in range(64)}
    assert len(seeds) == 3 * 64
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    "flag",
    ["--epochs=0", "--batch_size=-1", "--learning_rate=0", "--learning_rate=inf", "--seed=-1",
     "--kl_weight=-1", "--kl_weight=nan", "--prior_scale=0", "--hidden=64,0", "--hidden=a",
     "--save_every=-2", "--model=lenet", "--width=0", "--model_dir=", "--posterior_scale_init=x",
     "--epoch=3", "--posterior=local --model=vgg", "--allreduce=gloo"],
)  # fmt: skip
def test_a_bad_value_is_named(flag):
    with pytest.raises(ConfigError, match=flag.split("=")[0]):
        config(*flag.split())


def test_the_last_of_two_flags_wins_over_the_file(tmp_path):
    file = tmp_path / "train.txt"
    file.write_text("# small\n--hidden=16\n\n--epochs 7\n")
    found = config(f"@{file}", "--hidden=")
    assert (found.hidden, found.epochs) == ((), 7)


@pytest.mark.parametrize(
    ("name", "model"),
    [("digits", "dense"), ("digits_conv", "conv_flipout"), ("digits_resnet18", "resnet18"),
     ("digits_vgg", "vgg")],
)  # fmt: skip
def test_configs_hold(name, model):
    found = config(f"@{ROOT / 'configs' / f'train_{name}.txt'}")
    assert (found.dataset, found.model) == ("digits", model)


# Runs in this process


def test_a_case_directory_is_whole(tmp_path, monkeypatch):
    case = tmp_path / "case"
    report = alone(monkeypatch, f"--model_dir={case}", "--save_every=2")
    assert report == json.loads((case / "train.json").read_text(), object_hook=with_tuples)
    steps = 4 * (1438 // 50)
    state = (case / "checkpoint").read_text()
    assert state.splitlines()[0] == f'model_checkpoint_path: "model.ckpt-{steps}"'
    assert str(tmp_path) not in state
    assert {file.name for file in case.iterdir()} == {
        "checkpoint", "LayerNames.txt", "Ops_name_BNN.txt", "train.json",
        *(f"model.ckpt-{n}.{end}" for n in (steps // 2, steps)
          for end in ("meta", "index", "data-00000-of-00001")),
    }  # fmt: skip
    ops = (case / "Ops_name_BNN.txt").read_text().splitlines()
    assert ops[:2] == ["Placeholder", "Placeholder_1"]
    assert any(op.endswith("/log_prob/mul") for op in ops)  # BPrune's users find the logits by it
    saved = variables(case)
    layers = (case / "LayerNames.txt").read_text().splitlines()
    assert len(layers) == 6 and {name.removesuffix(":0") for name in layers} <= set(saved)
    assert saved["global_step"] == steps


def with_tuples(content: dict) -> dict:
    """JSON has no tuples: give ``hidden`` back its own type."""
    return content | {"hidden": tuple(content["hidden"])} if "hidden" in content else content


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path, monkeypatch):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        alone(monkeypatch, f"--model_dir={tmp_path / name}", f"--seed={seed}")
    a, b, c = (variables(tmp_path / name) for name in "abc")
    assert_same_bits(a, b)
    kernel = "sequential/dense_flipout/kernel_posterior_loc"
    assert not np.array_equal(a[kernel], c[kernel])


def test_measured_accuracy_is_that_of_the_saved_posterior(tmp_path, monkeypatch):
    report = alone(monkeypatch, f"--model_dir={tmp_path}", "--hidden=", "--epochs=10",
                   "--n_draws_eval=400")  # fmt: skip
    saved = {name.split("/")[-1]: value for name, value in variables(tmp_path).items()}
    loc, bias = saved["kernel_posterior_loc"], saved["bias_posterior_loc"]
    scale = np.log1p(np.exp(np.float64(saved["kernel_posterior_untransformed_scale"])))
    test = train.load("digits")
    x = np.float64(test.x.reshape(359, 64))
    right = (x @ loc + bias).argmax(axis=1) == test.y
    assert report["accuracy_mean_weights"] == right.mean() > 0.8
    # Example by example a draw of a linear layer's logits is a Gaussian: sample that instead.
    rng = np.random.default_rng(0)
    deviation = np.sqrt(x**2 @ scale**2)
    draws = x @ loc + bias + deviation * rng.standard_normal((400, 359, 10))
    hits = draws.argmax(axis=2) == test.y
    rate = hits.mean(axis=0)
    # Signs decorrelate Flipout's examples only in part: bound the error by full correlation
    # within a draw on its side.
    error = np.sqrt(
        (rate * (1 - rate)).sum() / 359**2 / 400 + rate.mean() * (1 - rate.mean()) / 400
    )
    assert abs(report["accuracy_single_draw"] - rate.mean()) < 4 * error
    snr = np.abs(np.float64(loc)) / scale
    for quantile, value in report["snr_quantiles"].items():
        assert value == pytest.approx(np.quantile(snr, float(quantile)), rel=1e-4, abs=1e-12)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    with pytest.raises(BpruneError, match="not finite in epoch 1; lower --learning_rate"):
        alone(monkeypatch, f"--model_dir={tmp_path}", "--learning_rate=1e38")
    assert list(tmp_path.iterdir()) == [] == list(tmp_path.parent.glob("*.training"))


def test_an_occupied_directory_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "checkpoint").write_text("somebody's\n")
    with pytest.raises(EndedByRoot) as caught:
        alone(monkeypatch, f"--model_dir={tmp_path}")
    assert "already holds a network ('checkpoint')" in caught.value.message
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    assert (tmp_path / "checkpoint").read_text() == "somebody's\n"
    alone(monkeypatch, f"--model_dir={tmp_path}", "--overwrite", "--epochs=1")
    assert "model.ckpt-28" in (tmp_path / "checkpoint").read_text()


def test_data_without_a_test_half_is_not_called_held_out(tmp_path, monkeypatch, caplog):
    digits = train.load("digits")
    path = tmp_path / "all.npz"
    np.savez(path, x=digits.x, y=digits.y)
    flags = ("--dataset=npz", f"--data_path={path}", f"--model_dir={tmp_path / 'case'}")
    report = alone(monkeypatch, *flags, "--epochs=1", "--n_draws_eval=1")
    assert report["data"]["held_out"] is False
    assert "has no test half" in caplog.text
    np.savez(path, x_train=digits.x, y_train=digits.y, x_test=digits.x[:, :6], y_test=digits.y)
    with pytest.raises(EndedByRoot) as caught:
        alone(monkeypatch, *flags, "--overwrite")
    assert "save both halves alike" in caught.value.message


@pytest.mark.parametrize(
    ("model", "n_layers", "n_norms"),
    [pytest.param("resnet18", 21, 20, marks=pytest.mark.slow), ("vgg", 8, 0)],
)
def test_deep_networks_are_trained_and_open(tmp_path, monkeypatch, model, n_layers, n_norms):
    alone(monkeypatch, f"--model_dir={tmp_path}", f"--model={model}", "--width=2", "--epochs=1",
          "--learning_rate=0.005")  # fmt: skip
    case = read_case(tmp_path)
    saved = variables(tmp_path)
    assert len(case.posterior.loc) == n_layers
    for name, loc in case.posterior.loc.items():
        np.testing.assert_array_equal(loc, saved[name])
        raw = np.float64(saved[name.removesuffix("loc") + "untransformed_scale"])
        scale = np.log1p(np.exp(raw)) + np.finfo(np.float32).eps
        np.testing.assert_allclose(case.posterior.scale[name], scale, rtol=1e-6)
    moving = {name: value for name, value in case.fixed.items() if "moving" in name}
    assert len(moving) == 2 * n_norms
    for name, value in moving.items():
        np.testing.assert_array_equal(value, saved[name])
        assert not (value == (1 if name.endswith("variance") else 0)).any()  # where they began
    x = train.load("digits").x[:40].reshape(40, 64)
    expected = logits_without_noise(tmp_path, case, x)
    with GraphNetwork(case.graph, case.fixed) as network:
        logits = network(x, case.posterior.loc)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.mpi
@pytest.mark.parametrize("model", [pytest.param("resnet18", marks=pytest.mark.slow), "vgg"])
def test_a_trained_network_of_convolutions_is_swept_by_its_layers(
    tmp_path, monkeypatch, mpirun, model
):
    alone(monkeypatch, f"--model_dir={tmp_path}", f"--model={model}", "--width=8", "--epochs=1",
          "--learning_rate=0.005")  # fmt: skip
    flags = [f"--model_dir={tmp_path}", "--dataset=digits", "--thresholds=0,1,2",
             "--num_monte_carlo=8"]  # fmt: skip
    files = {name: tmp_path / f"{name}.h5" for name in ("alone", "ranks", "graph")}
    assert sweep.sweep(SerialComm(), [*flags, f"--output={files['alone']}"]) == 0
    done = mpirun(3, ["-m", "bprune_hpc.sweep", *flags, f"--output={files['ranks']}"])
    assert done.returncode == 0, done.stderr
    assert all_bits(files["ranks"]) == all_bits(files["alone"])
    by_graph = [*flags, "--evaluator=graph", f"--output={files['graph']}"]
    assert sweep.sweep(SerialComm(), by_graph) == 0
    for name, evaluator in (("alone", "layers-3"), ("graph", "graph")):
        with results.open_results(files[name]) as file:
            assert json.loads(file["state"].attrs["identity"])["evaluator"] == evaluator
    found, expected = (results.read(files[name]) for name in ("alone", "graph"))
    for name in ("accuracy", "nll", "brier", "ece", "mutual_information"):
        np.testing.assert_allclose(
            found["metrics"][name], expected["metrics"][name], rtol=0, atol=1e-5, err_msg=name
        )


def logits_without_noise(case_dir: Path, case: Case, x: np.ndarray) -> np.ndarray:
    """The saved graph itself, as TensorFlow restores it, with every standard normal zero."""
    tf = import_tensorflow()
    prefix = tf.train.latest_checkpoint(str(case_dir))
    with tf.Graph().as_default() as graph:
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta")
    with open_session(graph) as session:
        saver.restore(session, prefix)
        normals = [op for op in graph.get_operations() if op.type == "RandomStandardNormal"]
        noise = [op.outputs[0] for op in normals if "/Initializer/" not in op.name]
        zeros = {tensor: np.zeros(tensor.shape, np.float32) for tensor in noise}
        assert len(zeros) == len(case.posterior.loc)
        return session.run(case.graph.output_tensor, {"Placeholder:0": x, **zeros})


# The case inside the package


def test_the_embedded_case_is_what_its_record_says():
    case = ROOT / "bprune_hpc" / "embedded" / "digits_fc"
    report = json.loads((case / "train.json").read_text())
    test = train.load("digits")
    assert report["data"]["sha256"] == test.sha256
    shipped = config(f"@{ROOT / 'configs' / 'train_digits.txt'}")
    recorded = with_tuples(report["config"])
    # Settings that came later have no bearing on this network.
    now = shipped.settings
    assert recorded == {name: now[name] for name in recorded}
    assert now.keys() - recorded.keys() == {
        "width", "subtract_pixel_mean", "task", "noise_scale", "estimator", "allreduce",
    }  # fmt: skip
    saved = variables(case)
    hidden = np.float64(test.x.reshape(359, 64))
    for layer in ("dense_flipout", "dense_flipout_1", "dense_flipout_2"):
        loc, bias = (saved[f"sequential/{layer}/{name}_posterior_loc"] for name in WEIGHTS)
        hidden = (hidden if layer == "dense_flipout" else np.maximum(hidden, 0)) @ loc + bias
    accuracy = (hidden.argmax(axis=1) == test.y).mean()
    # An example on the edge may tip with float32's rounding.
    assert abs(accuracy - report["accuracy_mean_weights"]) < 1.5 / 359
    assert report["n_ranks"] == 2 and accuracy > 0.95


def test_the_embedded_case_is_small_and_knows_no_machine():
    files = [p for p in (ROOT / "bprune_hpc" / "embedded").rglob("*") if p.is_file()]
    assert sum(file.stat().st_size for file in files) < 1.5e6
    for file in files:
        content = file.read_bytes()
        assert not re.search(rb"/(home|root|tmp|work|mnt|opt)/|site-packages", content), file.name


# Runs of the command


def test_help_and_errors_come_without_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    for flags, status, text in (
        (["--help"], 0, "--kl_anneal_epochs"),
        ([], 0, "--kl_anneal_epochs"),
        (["--epochs=0"], 2, "error: --epochs=0: must be 1 or more\n"),
        (["--data_path=/nowhere.npz"], 2, "error: /nowhere.npz: no such file; check the path\n"),
    ):
        done = launch(0, *flags, first_on_path=tmp_path)
        assert (done.returncode, text in done.stdout + done.stderr) == (status, True), done.stderr
        assert status == 0 or len(done.stderr.splitlines()) == 1


def test_one_process_without_a_launcher(tmp_path):
    done = launch(0, *SMALL, f"--model_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "train.json").read_text())
    assert report["n_ranks"] == 1 and report["accuracy_averaged"] > 0.5
    assert "held-out examples" in done.stderr and "are added up" not in done.stderr


def trained(directory: Path, n_ranks: int, *flags: str, **options: Any) -> str:
    """Train under mpirun; what was logged."""
    done = launch(n_ranks, *SMALL, f"--model_dir={directory}", *flags, **options)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.mpi
class TestMpi:
    """Ranks whose gradients MPI adds up; Horovod is not there."""

    @pytest.mark.parametrize("n_ranks", [1, 2, 3])
    def test_same_seed_same_bits_and_a_share_of_the_steps(self, tmp_path, n_ranks, no_horovod):
        for name in "ab":
            said = trained(tmp_path / name, n_ranks, first_on_path=no_horovod)
        report = json.loads((tmp_path / "a" / "train.json").read_text())
        assert report["n_ranks"] == n_ranks
        assert report["n_steps"] == 4 * (1438 // (50 * n_ranks))
        assert report.get("allreduce") == (None if n_ranks == 1 else "mpi")
        assert ("are added up by mpi" in said) == (n_ranks > 1)
        assert report["accuracy_averaged"] > 0.5
        assert_same_bits(variables(tmp_path / "a"), variables(tmp_path / "b"))
        assert "Horovod" not in (tmp_path / "a" / "Ops_name_BNN.txt").read_text()
        assert len(read_case(tmp_path / "a").posterior.loc) == 2

    @pytest.mark.parametrize("n_ranks", [2, 3])
    def test_a_step_is_that_of_one_rank_with_all_their_examples(self, tmp_path, n_ranks):
        # One step, of an epoch, without noise and divergence: nothing else is random.
        quiet = ("--posterior_scale_init=1e-30", "--kl_weight=0", "--epochs=1", "--n_draws_eval=1")
        n_examples = 1438 // n_ranks * n_ranks
        trained(tmp_path / "many", n_ranks, *quiet, f"--batch_size={n_examples // n_ranks}",
                "--allreduce=mpi")  # fmt: skip
        trained(tmp_path / "one", 0, *quiet, f"--batch_size={n_examples}")
        many, one = variables(tmp_path / "many"), variables(tmp_path / "one")
        assert many["global_step"] == one["global_step"] == 1
        gradients = [name for name in one if name.endswith("loc/Adam")]  # a tenth of them
        assert len(gradients) == 4
        for name in gradients:
            atol = 1e-5 * np.abs(one[name]).max()
            np.testing.assert_allclose(many[name], one[name], rtol=1e-4, atol=atol, err_msg=name)

    def test_a_rank_that_fails_in_a_step_ends_all(self, tmp_path):
        program = ROOT / "tests/programs/train_program.py"
        command = [str(find_mpirun()), "-n", "3", sys.executable, str(program), "1"]
        done = run_group([*command, *SMALL, f"--model_dir={tmp_path}", "--allreduce=mpi"], LIMIT_S)
        assert done.returncode == 1
        assert re.search(r"^rank 1 on \S+: error: planted", done.stderr, re.MULTILINE), done.stderr
        assert not (tmp_path / "checkpoint").exists()

    def test_a_loss_that_is_not_finite_ends_both(self, tmp_path):
        flags = (*SMALL, f"--model_dir={tmp_path}", "--learning_rate=1e38", "--allreduce=mpi")
        done = launch(2, *flags)
        assert done.returncode == 1
        assert done.stderr.count("the loss is not finite") == 1
        assert not (tmp_path / "checkpoint").exists()

    def test_bad_input_is_said_once_and_ends_both(self):
        done = launch(2, *SMALL, "--data_path=/nowhere", "--dataset=npz")
        assert done.returncode == 2
        assert done.stderr.count("/nowhere: no such file") == 1

    def test_horovod_that_is_asked_for_and_is_not_there(self, tmp_path, no_horovod):
        case = tmp_path / "case"
        done = launch(2, *SMALL, f"--model_dir={case}", "--allreduce=horovod",
                      first_on_path=no_horovod)  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.count("install it (tools/install_horovod.sh), or pass --allreduce") == 1
        assert not case.exists() and not case.with_name("case.training").exists()

    @pytest.mark.slow
    def test_batch_normalization(self, tmp_path):
        trained(tmp_path, 2, "--model=resnet18", "--width=2", "--epochs=1", "--allreduce=mpi")
        case = read_case(tmp_path)
        moving = {name: value for name, value in case.fixed.items() if "moving" in name}
        assert len(moving) == 40
        for name, value in moving.items():
            assert np.isfinite(value).all()
            assert not (value == (1 if name.endswith("variance") else 0)).any()


class TestHorovod:
    pytestmark = needs_horovod

    @pytest.mark.parametrize("n_ranks", [2, 3])
    def test_the_same_training_as_with_mpi(self, tmp_path, n_ranks):
        said = trained(tmp_path / "horovod", n_ranks)
        assert "are added up by horovod" in said  # by default, where it is installed
        trained(tmp_path / "mpi", n_ranks, "--allreduce=mpi")
        report = json.loads((tmp_path / "horovod" / "train.json").read_text())
        found = [variables(tmp_path / name) for name in ("horovod", "mpi")]
        if n_ranks == 2:  # there is one way to add two numbers
            assert_same_bits(*found)
        for name, value in found[0].items():
            np.testing.assert_allclose(found[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
        metas = [(tmp_path / name / f"model.ckpt-{report['n_steps']}.meta").read_bytes()
                 for name in ("horovod", "mpi")]  # fmt: skip
        assert metas[0] == metas[1]
        assert len(read_case(tmp_path / "horovod").posterior.loc) == 2
        assert report["allreduce"] == "horovod" and report["accuracy_averaged"] > 0.5


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [1, 2])
def test_the_shipped_config_reaches_95_percent_in_two_minutes(n_ranks, tmp_path):
    done = launch(n_ranks, "@configs/train_digits.txt", f"--model_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "train.json").read_text())
    assert report["n_ranks"] == n_ranks
    assert report["accuracy_averaged"] >= 0.95 and report["accuracy_mean_weights"] >= 0.95
    # The spread that makes pruning worth a sweep: weights that carry nothing, and some that do.
    assert report["snr_quantiles"]["0.5"] < 0.3 and report["snr_quantiles"]["0.99"] > 3
