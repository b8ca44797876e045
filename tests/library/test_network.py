"""The library: the numbers of a sweep, from a notebook."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import bprune_hpc
from bprune_hpc import data, results, sweep
from bprune_hpc.config import sweep_config
from bprune_hpc.errors import (
    BpruneError,
    CheckpointError,
    ConfigError,
    DataError,
    GraphError,
    ResultsError,
)
from bprune_hpc.posterior import pruning
from bprune_hpc.runner import problem
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models
from tests.helpers.launch import ROOT

N_DRAWS, SEED, BATCH_SIZE = 12, 3, 100


@pytest.fixture(scope="module")
def net():
    return bprune_hpc.load("embedded:digits_fc")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", split="test")


@pytest.fixture(scope="module", params=["threshold", "fraction"])
def swept(request, tmp_path_factory):
    """Results of a sweep, and how each of its points is asked for in the library."""
    path = tmp_path_factory.mktemp(request.param) / "sweep.h5"
    grid = {"threshold": "--thresholds=0,0.5,2", "fraction": "--prune_fractions=0,0.9"}
    pairing = {"threshold": "antithetic", "fraction": "none"}[request.param]
    status = sweep.main(
        ["--model_dir=embedded:digits_fc", "--dataset=digits", grid[request.param],
         f"--num_monte_carlo={N_DRAWS}", f"--seed={SEED}", f"--batch_size={BATCH_SIZE}",
         f"--pairing={pairing}", f"--output={path}"]
    )  # fmt: skip
    assert status == 0
    values = {"threshold": (0.0, 0.5, 2.0), "fraction": (0.0, 0.9)}[request.param]
    keyword = {"threshold": "snr", "fraction": "fraction"}[request.param]
    return path, [{keyword: value} for value in values], pairing


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_predictions_are_the_sweeps_bit_by_bit(net, digits, swept):
    path, points, pairing = swept
    with h5py.File(path) as file:
        examples = {name: file["examples"][name][()] for name in file["examples"]}
        n_active = file["sparsity/n_active"][()]
        accuracy = file["metrics/accuracy"][()]
    for t, point in enumerate(points):
        pruned = net.prune(**point)
        assert pruned.n_active == n_active[t]
        found = pruned.predict(
            digits.x, N_DRAWS, seed=SEED, pairing=pairing, batch_size=BATCH_SIZE
        )  # fmt: skip
        assert same_bits(found.mean_probability, examples["mean_probability"][t])
        for name in ("predictive_entropy", "expected_entropy", "mutual_information"):
            assert same_bits(getattr(found, name).astype(np.float32), examples[name][t]), name
        assert (found.predicted_class == digits.y).mean() == pytest.approx(accuracy[t], abs=1e-15)


def test_logits_against_plain_numpy(net, digits):
    x = digits.x[:7].reshape(7, -1).astype(np.float64)
    rng = np.random.default_rng(0)
    random = {name: rng.normal(size=loc.shape) for name, loc in net.posterior.loc.items()}
    for weights in (None, random):
        hidden = x
        kernels = net.posterior.loc if weights is None else weights
        for index, (kernel, bias) in enumerate(
            zip(kernels.values(), net.fixed.values(), strict=True)
        ):
            hidden = hidden @ np.asarray(kernel, np.float64) + bias
            if index < 2:
                hidden = np.maximum(hidden, 0)
        found = net.logits(digits.x[:7], weights)
        assert found.dtype == np.float32 and found.shape == (7, 10)
        np.testing.assert_allclose(found, hidden, rtol=0, atol=2e-6 * np.abs(hidden).max())


def test_logits_do_not_depend_on_how_examples_are_cut(net, digits):
    whole = net.logits(digits.x[:23], batch_size=10)
    assert same_bits(whole[:20], net.logits(digits.x[:20], batch_size=10))
    assert same_bits(whole[20:], net.logits(digits.x[20:30], batch_size=10)[:3])


def test_pruning_gives_a_new_network(net):
    ratios = net.posterior.snr()
    before = {name: loc.copy() for name, loc in net.posterior.loc.items()}
    pruned = net.prune(snr=0.5)
    assert net.pruned_fraction == 0 and net.n_active == net.n_weights == 6464
    for name, ratio in ratios.items():
        kept = ratio > 0.5
        for table in (pruned.posterior.loc, pruned.posterior.scale):
            assert (table[name] != 0).sum() == kept.sum()
            assert not table[name][~kept].any()
        np.testing.assert_array_equal(net.posterior.loc[name], before[name])
    again = pruned.prune(snr=2)
    assert again.n_active == net.prune(snr=2).n_active < pruned.n_active
    assert net.prune(fraction=0.9).n_active == 6464 - round(0.9 * 6464)
    assert net.prune(snr=0).n_active == 6464
    assert "83.4 % pruned; (n, 64) -> 10 classes" in repr(pruned)


def test_the_tables_are_read_only(net):
    for network in (net, net.prune(snr=1)):
        name = network.posterior.names[0]
        for table in (network.posterior.loc, network.posterior.scale):
            with pytest.raises(ValueError, match="read-only"):
                table[name][0] = 1
            with pytest.raises(TypeError):
                table[name] = np.zeros(3)


def test_draws_are_rounded_up_to_pairs(net, digits):
    odd, even = (net.predict(digits.x[:9], n_draws=n) for n in (3, 4))
    assert odd.n_draws == 4
    assert same_bits(odd.mean_probability, even.mean_probability)
    assert net.predict(digits.x[:9], n_draws=3, pairing="none").n_draws == 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 63), np.float32), "one example of the data has shape (63), the network"),
        (np.zeros(64, np.float32), "has shape (), the network takes (64)"),
        (np.zeros((0, 64), np.float32), "holds no examples"),
        (np.float32(1), "holds no examples"),
        (np.zeros((3, 64), complex), "are complex128; the network takes float32"),
        (np.full((3, 64), np.nan), "has nan in example 0"),
        (np.full((3, 64), 1e300), "has inf in example 0"),
        (np.ma.masked_greater(np.eye(64), 0), "has masked values, which are no numbers"),
        ([["text"] * 64], "the network takes float32"),
        ([[0.0], [0.0, 1.0]], "is not an array"),
    ],
)
def test_examples_that_do_not_fit(net, x, message):
    for call in (net.predict, net.logits):
        with pytest.raises(DataError, match=re.escape(message)) as caught:
            call(x)
        assert len(str(caught.value).splitlines()) == 1


def test_outputs_that_are_not_finite(net):
    with pytest.raises(BpruneError, match="not finite for the posterior mean; check the scale"):
        net.predict(np.full((3, 64), 3e38), n_draws=2)


def test_weights_that_do_not_fit(net, digits):
    weights = dict(net.posterior.loc)
    first, *others = weights
    with pytest.raises(DataError, match="missing or unknown"):
        net.logits(digits.x, {name: weights[name] for name in others})
    with pytest.raises(DataError, match="'kernel' missing or unknown"):
        net.logits(digits.x, {**weights, "kernel": weights[first]})
    with pytest.raises(DataError, match=r"shape \(64,\), the network takes \(64, 64\)"):
        net.logits(digits.x, {**weights, first: np.zeros(64)})


def test_numbers_out_of_range(net, digits):
    for arguments in ({}, {"snr": 1, "fraction": 0.5}, {"snr": -1}, {"fraction": 1}):
        with pytest.raises(ConfigError, match="prune"):
            net.prune(**arguments)
    for name, value in (
        ("n_draws", 0), ("seed", -1), ("seed", 2**64), ("pairing", "both"), ("batch_size", 0),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=name):
            net.predict(digits.x, **{name: value})
    with pytest.raises(CheckpointError, match="no such embedded case"):
        bprune_hpc.load("embedded:nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bprune_hpc.nothing  # noqa: B018


def weights_of(model, tmp_path):
    """A Keras model with its first weights, and what ``load`` takes for it."""
    import_tensorflow()
    built = getattr(small_models, model)()
    file = tmp_path / "net.weights.h5"
    built.save_weights(str(file))
    return built, {"case": file, "model": f"tests.helpers.small_models:{model}"}


def test_keras_weights(tmp_path):
    built, case = weights_of("dense_flipout", tmp_path)
    net = bprune_hpc.load(**case)
    kernels = [v.numpy() for v in built.variables if v.name.endswith("kernel_posterior_loc:0")]
    found = [loc for name, loc in net.posterior.loc.items() if "kernel" in name]
    for kernel, loc in zip(kernels, found, strict=True):
        np.testing.assert_array_equal(kernel, loc)
    predicted = net.predict(np.ones((2, 4), np.float32), n_draws=4)
    np.testing.assert_allclose(predicted.mean_probability.sum(axis=1), 1, rtol=1e-6)


def test_a_linear_layers_numbers_in_0_to_1_are_logits(tmp_path):
    from tests.helpers import small_models

    built = small_models.dense_flipout()
    for variable in built.variables:
        small = "bias" in variable.name or "loc" in variable.name
        variable.assign(np.full(variable.shape, 0.01 if small else -9.0))
    built.variables[-1].assign([0.1, 0.5, 0.9])
    built.save_weights(str(tmp_path / "net.weights.h5"))
    model = "tests.helpers.small_models:dense_flipout"
    net = bprune_hpc.load(tmp_path / "net.weights.h5", model=model)
    assert ((net.logits(np.ones((2, 4))) > 0) & (net.logits(np.ones((2, 4))) < 1)).all()
    powers = np.exp([0.1, 0.5, 0.9])
    found = net.predict(np.ones((2, 4), np.float32), n_draws=4).mean_probability
    np.testing.assert_allclose(found, [powers / powers.sum()] * 2, atol=1e-3)


@pytest.fixture(scope="module")
def regressions(tmp_path_factory):
    """Of a network that gives a Normal and of one that gives its mean: model, case and data."""
    rng = np.random.default_rng(0)
    found = {}
    for model, noise_scale in (("normal_of_one", None), ("mean_of_one", 0.7)):
        place = tmp_path_factory.mktemp(model)
        built, case = weights_of(model, place)
        x = rng.normal(size=(23, *built.input_shape[1:])).astype(np.float32)
        y = rng.normal(size=23)
        np.savez(place / "data.npz", x=x, y=y)
        found[model] = built, {**case, "noise_scale": noise_scale}, x, y, place
    return found


@pytest.mark.parametrize("model", ["normal_of_one", "mean_of_one"])
def test_a_regression_is_the_sweeps_bit_by_bit(regressions, model):
    _, case, x, y, place = regressions[model]
    net = bprune_hpc.load(**case)
    assert net.task.name == "regression" and net.n_classes == 0 and "Normal" in repr(net)
    noise = [] if case["noise_scale"] is None else [f"--noise_scale={case['noise_scale']}"]
    status = sweep.main(
        [f"--model_dir={case['case']}", f"--model={case['model']}", *noise,
         f"--data_path={place / 'data.npz'}", "--thresholds=0,1", "--num_monte_carlo=12",
         f"--seed={SEED}", "--batch_size=10", f"--output={place / 'sweep.h5'}"]
    )  # fmt: skip
    assert status == 0
    with h5py.File(place / "sweep.h5") as file:
        examples = {name: file["examples"][name][()] for name in file["examples"]}
    for t, snr in enumerate((0, 1)):
        pruned = net.prune(snr=snr)
        found = pruned.predict(x, 12, seed=SEED, batch_size=10, y=y)
        for name, values in (
            ("predictive_mean", found.predictive_mean),
            ("predictive_sd", found.predictive_sd),
            ("epistemic_sd", np.sqrt(found.epistemic_variance)),
            ("aleatoric_sd", np.sqrt(found.aleatoric_variance)),
            ("nll", -found.log_density),
        ):
            assert same_bits(values.astype(np.float32), examples[name][t]), name
        # Without targets the moments are taken about another point, and are the same.
        apart = pruned.predict(x, 12, seed=SEED, batch_size=10)
        assert apart.log_density is None
        for name in ("predictive_mean", "predictive_sd", "aleatoric_variance"):
            np.testing.assert_allclose(getattr(apart, name), getattr(found, name), rtol=1e-9)


@pytest.mark.parametrize("model", ["normal_of_one", "mean_of_one"])
def test_a_regression_is_what_its_own_calls_give(regressions, model):
    """The network's own stochastic calls, many times, within Monte Carlo error."""
    built, case, x, _, _ = regressions[model]
    n_calls = 600
    calls = [built(x) for _ in range(n_calls)]
    if case["noise_scale"] is None:
        mean, variance = (
            np.array([getattr(call, of)() for call in calls]) for of in ("mean", "variance")
        )
    else:
        mean = np.array(calls)
        variance = np.full_like(mean, case["noise_scale"] ** 2)
    mean, variance = (np.float64(of).reshape(n_calls, -1) for of in (mean, variance))
    found = bprune_hpc.load(**case).predict(x, n_draws=2000)
    error = mean.std(axis=0, ddof=1) / np.sqrt(n_calls)
    assert (abs(found.predictive_mean - mean.mean(axis=0)) < 4.5 * error).all()
    spread = mean.var(axis=0, ddof=1)
    np.testing.assert_allclose(found.epistemic_variance, spread, rtol=6 * np.sqrt(2 / n_calls))
    np.testing.assert_allclose(
        found.predictive_sd**2, found.epistemic_variance + found.aleatoric_variance, rtol=1e-12
    )
    own = variance.mean(axis=0)
    error = variance.std(axis=0, ddof=1) / np.sqrt(n_calls) + 1e-6 * own
    assert (abs(found.aleatoric_variance - own) < 4.5 * error).all()


def test_what_a_network_is_for_is_told_as_in_a_sweep(regressions):
    _, case, x, y, _ = regressions["mean_of_one"]
    with pytest.raises(ConfigError, match="is a single number an example; .* with noise_scale; "):
        bprune_hpc.load(**{**case, "noise_scale": None})
    for more, message in (
        ({"task": "classification"}, "noise_scale: is for regression"),
        ({"noise_scale": 0.0}, "noise_scale: 0 is not in"),
        ({"task": "ranking"}, "task: 'ranking' is none of"),
    ):
        with pytest.raises((ConfigError, GraphError), match=message):
            bprune_hpc.load(**{**case, **more})
    net = bprune_hpc.load(**case)
    with pytest.raises(ConfigError, match="is a regression; use predict"):
        net.logits(x)
    with pytest.raises(DataError, match="has 3 labels for 23 examples"):
        net.predict(x, y=y[:3])
    with pytest.raises(DataError, match="y has nan at example 22"):
        net.predict(x, y=[*y[:-1], np.nan])


def test_labels_give_log_probabilities(net, digits):
    found = net.predict(digits.x[:9], n_draws=4, y=digits.y[:9])
    of_label = found.mean_probability[np.arange(9), digits.y[:9]]
    np.testing.assert_allclose(found.log_probability, np.log(of_label), rtol=0, atol=1e-6)
    assert net.predict(digits.x[:9], n_draws=4).log_probability is None
    with pytest.raises(DataError, match="label 10 of example 0 is not a class"):
        net.predict(digits.x[:1], y=[10])


def test_a_prediction_leaves_threads_of_others_alone(net, digits):
    def n_threads():
        return {one["filepath"]: one["num_threads"] for one in threadpool_info()}

    with threadpool_limits(3, user_api="blas"):
        before = n_threads()
        net.predict(digits.x[:8], n_draws=2)
        assert n_threads() == before


def test_both_numbers_of_threads_reach_the_evaluator(monkeypatch, digits):
    net = bprune_hpc.load("embedded:digits_fc", n_intra=1, n_inter=2)
    asked = []
    make = Network.make_evaluator
    monkeypatch.setattr(
        Network, "make_evaluator",
        lambda self, *threads: asked.append(threads) or make(self, *threads),
    )  # fmt: skip
    net.predict(digits.x[:3], n_draws=2)
    assert asked == [(1, 2)]


RULES = (
    ["--thresholds=0,0.3,1", "--criterion=signal_plus_noise"],
    ["--prune_fractions=0,0.5,0.8", "--scope=layer"],
    ["--prune_fractions=0,0.5,0.8", "--granularity=neuron"],
    ["--thresholds=none,3,0.2", "--criterion=log_alpha"],
    ["--prune_fractions=0,0.5,0.8", "--criterion=kl"],
    ["--prune_fractions=0,0.5,0.8", "--criterion=bmr", "--prior_scale=0.5"],
    ["--thresholds=0,0.4,0.7", "--criterion=random", "--seed=5"],
)


@pytest.mark.parametrize("rule", RULES, ids=" ".join)
def test_the_network_of_each_point_is_the_sweeps_mask_for_mask(net, digits, tmp_path, rule):
    path = tmp_path / "sweep.h5"
    status = sweep.main(
        ["--model_dir=embedded:digits_fc", *rule, "--num_monte_carlo=8", "--max_nll_rise=10",
         f"--output={path}"]
    )  # fmt: skip
    assert status == 0
    swept = results.read(path)
    asked = sweep_config.parse(["--model_dir=embedded:digits_fc", *rule])
    read, _ = problem.read(asked)
    masks = pruning.pruning_masks(
        read.posterior, asked.grid_kind, asked.grid, asked.rule(read.prior)
    )
    for index, cut in enumerate(masks):
        pruned = net.prune(**swept.pruning(index))
        for name, kept in cut.kept.items():
            np.testing.assert_array_equal(pruned.posterior.scale[name] != 0, kept)
            np.testing.assert_array_equal(
                pruned.posterior.loc[name], np.where(kept, net.posterior.loc[name], 0)
            )
        assert pruned.n_active == swept.sparsity.n_active[index]
    chosen = net.prune(**swept.chosen_pruning())
    assert chosen.n_active == swept.sparsity.n_active[swept.choice.attrs["index"]] < net.n_active
    seed = 5 if "--seed=5" in rule else 0
    found = chosen.predict(digits.x, 8, seed=seed, batch_size=1000).mean_probability
    expected = swept.examples.mean_probability.values[swept.choice.attrs["index"]]
    assert same_bits(found, expected)


def test_a_choice_that_there_is_not(net, tmp_path):
    path = tmp_path / "sweep.h5"
    command = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=4", "--thresholds=0,1"]
    assert sweep.main([*command, f"--output={path}"]) == 0
    with pytest.raises(ResultsError, match="no choice was asked for; sweep with"):
        results.read(path).chosen_pruning()
    assert sweep.main([*command, "--max_accuracy_drop=1e-6", f"--output={path}"]) == 0
    with pytest.raises(ResultsError, match="there is no network to give: choice: none"):
        results.read(path).chosen_pruning()


def test_rules_that_do_not_fit(net):
    for arguments, message in (
        ({"snr": 1, "threshold": 1}, "give one of"),
        ({"fraction": 0.5, "criterion": "random", "seed": -1}, "seed -1 is not an integer"),
        ({"fraction": 0.5, "criterion": "random", "seed": 1.5}, "seed 1.5 is not an integer"),
        ({"snr": 1, "criterion": "kl"}, "snr is not a threshold of kl"),
        ({"threshold": 1, "criterion": "size"}, "criterion 'size' is none of snr, "),
        ({"fraction": 0.5, "scope": "here"}, "scope 'here' is none of"),
        ({"fraction": 0.5, "granularity": "row"}, "granularity 'row' is none of"),
        ({"fraction": 0.5, "granularity": "filter"}, "no mean-field convolution kernel"),
        ({"fraction": 0.5, "criterion": "kl", "prior_scale": -1}, "prior_scale -1"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            net.prune(**arguments)
        assert "--" not in str(caught.value)


def test_messages_name_arguments_and_no_flags(net, digits):
    for call, message in (
        (lambda: bprune_hpc.load("embedded:digits_fc", "model.ckpt-3"), "pass model_ckpt=NAME"),
        (
            lambda: bprune_hpc.load("embedded:digits_fc", logits_op="none"),
            "pass another as logits_op",
        ),
        (lambda: net.predict(digits.x, y=digits.y + 0.5), "or pass task=regression"),
    ):
        with pytest.raises(BpruneError, match=message) as caught:
            call()
        assert "--" not in str(caught.value)


def test_the_package_offers_it_without_loading_tensorflow():
    program = (
        "import sys, bprune_hpc\n"
        "assert {'load', 'results', 'graph_info'} <= set(dir(bprune_hpc))\n"
        "assert not {'bprune_hpc.library', 'numpy'} & set(sys.modules), 'import is not light'\n"
        "assert callable(bprune_hpc.load) and callable(bprune_hpc.results.read)\n"
        "assert callable(bprune_hpc.graph_info.write)\n"
        "assert not {'tensorflow', 'mpi4py'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_pruned_twice_is_saved_once(tmp_path: Path) -> None:
    net = bprune_hpc.load("embedded:digits_fc")
    twice = net.prune(snr=0.5).prune(fraction=0.3, criterion="magnitude", granularity="neuron")
    card = twice.save(tmp_path / "out", formats=["checkpoint"])
    assert card["n_active"] == twice.n_active < net.prune(snr=0.5).n_active
    again = bprune_hpc.load(tmp_path / "out" / "checkpoint")
    for name, loc in twice.posterior.loc.items():
        np.testing.assert_array_equal(again.posterior.loc[name], loc)
    noisy = net.prune(snr=0.5, pruned_weights="bprune").prune(snr=1)
    with pytest.raises(ConfigError, match="leaves pruned weights as noise"):
        noisy.save(tmp_path / "no", formats=["checkpoint"])
    with pytest.raises(ConfigError, match="bits 8 is neither 16 nor 32"):
        net.save(tmp_path / "no", bits=8)
    assert not (tmp_path / "no").exists()
