"""What the outputs of a network are: the numbers of a sweep are those of the network's own calls.

The oracle calls the Keras model itself, with its own noise, and averages what it says of classes.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import special, stats

import bprune_hpc
from bprune_hpc import results, sweep
from bprune_hpc.errors import ConfigError, DataError
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import heads
from tests.helpers.bits import all_bits
from tests.helpers.launch import MpiRun

N_EXAMPLES, N_CALLS, N_DRAWS = 40, 300, 200
QUICK = ("softmax_clipped", "softmax_shaped", "sigmoid", "bernoulli", "several_sigmoids")


@cache
def own_probabilities(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """A model, examples, and the probabilities of every one of its own calls."""
    tensorflow = import_tensorflow()
    generator = np.random.default_rng(3)
    model = getattr(heads, name)()
    heads.randomise(model, generator)
    x = generator.normal(size=(N_EXAMPLES, heads.N_FEATURES)).astype(np.float32)
    call = tensorflow.function(lambda: heads.tensor_of(name, model(x)))
    calls = np.array([heads.class_probabilities(name, call().numpy()) for _ in range(N_CALLS)])
    return model, x, calls


def arguments(place: Path, name: str, x: np.ndarray, y: np.ndarray, model: Any) -> list[str]:
    model.save_weights(place / "net.weights.h5")
    np.savez(place / "d.npz", x=x, y=y)
    return [f"--model_dir={place / 'net.weights.h5'}", f"--model=tests.helpers.heads:{name}",
            f"--data_path={place / 'd.npz'}", "--thresholds=0", f"--num_monte_carlo={N_DRAWS}",
            f"--output={place / 'r.h5'}"]  # fmt: skip


HEADS = [
    ("softmax", "logits of 3 classes", []),
    ("softmax_clipped", "probabilities of 3 classes", []),
    ("softmax_in_half_precision", "probabilities of 3 classes", []),
    ("softmax_shaped", "logits of 3 classes", []),
    ("softmax_regrouped", "probabilities of 3 classes", []),
    ("log_softmax", "logits of 3 classes", []),
    ("logits", "logits of 3 classes", []),
    ("logits", "logits of 3 classes", ["--output_kind=logits"]),
    ("categorical_of_probabilities", "takes another softmax", []),
    ("sigmoid", "one logit of two classes", []),
    ("sigmoid_clipped", "one probability of two classes", ["--task=classification"]),
    ("sigmoid_clipped", "one probability of two classes", ["--output_kind=probabilities"]),
    ("sigmoid_without_axis", "one probability of two classes", ["--task=classification"]),
    ("sigmoid_shaped", "one logit of two classes", []),
    ("one_logit", "one logit of two classes", ["--task=classification"]),
    ("one_logit_in_0_to_1", "one logit of two classes", ["--output_kind=logits"]),
    ("sparsemax", "probabilities of 3 classes", []),
    ("bernoulli", "one logit of two classes", []),
    ("bernoulli_of_a_probability", "one logit of two classes", []),
    ("independent_bernoulli", "one logit of two classes", []),
    ("two_sided", "probabilities of 2 classes", []),
    ("several_sigmoids", "divided by its sum", ["--output_kind=probabilities"]),
]


@pytest.mark.parametrize(
    ("name", "said", "flags"),
    [
        pytest.param(*head, id=f"{head[0]} {' '.join(head[2])}",
                     marks=[] if head[0] in QUICK else pytest.mark.slow)
        for head in HEADS
    ],
)  # fmt: skip
def test_classes_are_those_of_the_networks_own_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str, flags: list[str]
) -> None:
    model, x, calls = own_probabilities(name)
    mean = calls.mean(axis=0)
    generator = np.random.default_rng(0)
    y = np.array([generator.choice(len(p), p=p) for p in mean])
    given = arguments(tmp_path, name, x, y, model)
    assert sweep.main([*given, *flags]) == 0
    assert said in capsys.readouterr().err
    with h5py.File(tmp_path / "r.h5") as file:
        found = file["examples/mean_probability"][0].astype(np.float64)
        nll = float(file["metrics/nll"][0])
    error = calls.std(axis=0, ddof=1) * np.sqrt(1 / len(calls) + 1 / N_DRAWS)
    # Half precision, and tails that few draws reach.
    assert (np.abs(found - mean) < 5 * error + 2e-3).all()
    rows = np.arange(len(y))
    of_labels, of_mean = error[rows, y], mean[rows, y]
    assert abs(nll + np.log(of_mean).mean()) < 5 * (of_labels / of_mean).mean() + 2e-3
    more = {"task": "classification"} if "--task=classification" in flags else {}
    kind = [flag.partition("=")[2] for flag in flags if flag.startswith("--output_kind")]
    net = bprune_hpc.load(
        tmp_path / "net.weights.h5", model=f"tests.helpers.heads:{name}", **more,
        output_kind=(kind or ["auto"])[0],
    )  # fmt: skip
    predicted = net.predict(x, n_draws=N_DRAWS, batch_size=1000, y=y)
    np.testing.assert_allclose(predicted.mean_probability, found, atol=1e-6)
    assert net.n_classes == mean.shape[1]
    logits = np.float64(net.logits(x))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    at_mean = net.predict(x, n_draws=2).mean_probability  # of the same classes, for the shape
    assert weights.shape == at_mean.shape


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        (
            "several_sigmoids",
            [],
            r"\[0, 1\] that do not sum to 1 .*--output_kind=probabilities .*--output_kind=logits; ",
        ),
        ("several_sigmoids", ["--output_kind=independent"], "not supported"),
        ("several_bernoullis", [], r"a Bernoulli of several labels, of shape \(None, 3\)"),
        ("sequence", [], r"gives \(2, 3\) numbers an example; outputs of several places"),
        ("log_normal", [], "ends in a LogNormal"),
        ("correlated_normal", [], "ends in a MultivariateNormalTriL"),
        ("one_logit", [], "a single number an example; .*--noise_scale; .*--task=classification"),
        ("one_logit_in_0_to_1", ["--task=classification"], r"single numbers in \[0, 1\] .*=logits"),
        ("softmax_of_one", [], "is of one number, and so always 1; end a network of two classes"),
        ("softmax_of_a_sample", [], "has no scale that depends on variables alone"),
        ("categorical_of_one", [], "a Categorical of one class, which is always that"),
        (
            "one_logit",
            ["--output_kind=probabilities"],
            r"numbers from -.* no probabilities.*pass --output_kind=logits",
        ),
        (
            "softmax_clipped",
            ["--output_kind=logits"],
            "gives probabilities .*--output_kind=logits; leave the flag out",
        ),
        ("bernoulli", ["--noise_scale=1"], "gives a distribution of classes"),
        ("logits", ["--output_kind=mean"], "gives a mean alone, .*--output_kind=mean_and_scale"),
        ("logits", ["--output_kind=mean_and_scale"], "3 numbers .* not as many means as standard"),
        ("two_means", ["--output_kind=mean_and_scale"], r"deviation at .* is -.*--scale_op"),
        ("two_means", ["--noise_scale=1"], "d.npz: has 1 targets an example, the network gives 2"),
        ("logits", ["--output_kind=probabilities", "--task=regression"], "leave one out"),
        ("logits", ["--output_kind=mean", "--task=classification"], "leave one out"),
        ("logits", ["--output_kind=logits", "--noise_scale=1"], "leave one out"),
        ("one_logit", ["--output_kind=mean_and_scale", "--noise_scale=1"], "leave one out"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, flags: list[str], message: str
) -> None:
    model = getattr(heads, name)()
    heads.randomise(model, np.random.default_rng(3))
    x = np.random.default_rng(1).normal(size=(30, heads.N_FEATURES)).astype(np.float32)
    given = arguments(tmp_path, name, x, np.arange(30) % 2, model)
    capsys.readouterr()
    assert sweep.main([*given, *flags]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert re.search(message, said)
    assert not (tmp_path / "r.h5").exists()


def test_labels_of_a_binary_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = heads.sigmoid()
    x = np.ones((4, heads.N_FEATURES), np.float32)
    assert sweep.main(arguments(tmp_path, "sigmoid", x, np.array([0, 1, 2, 0]), model)) == 2
    assert "label 2 of example 2 is not a class of the network, which has 2" in (
        capsys.readouterr().err
    )


def test_a_library_that_is_told_nonsense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output_kind: 'odds' is none of auto, logits"):
        bprune_hpc.load(tmp_path, output_kind="odds")


@pytest.mark.parametrize("name", ["bernoulli", "independent_bernoulli"])
def test_a_saved_model_that_gives_samples_of_a_label(tmp_path: Path, name: str) -> None:
    model, x, calls = own_probabilities(name)
    model.save(tmp_path / "saved")
    y = (calls.mean(axis=0)[:, 1] > 0.5).astype(int)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    given = [f"--model_dir={tmp_path / 'saved'}", f"--data_path={tmp_path / 'd.npz'}"]
    given += ["--thresholds=0", f"--num_monte_carlo={N_DRAWS}", f"--output={tmp_path / 'r.h5'}"]
    assert sweep.main(given) == 0
    found = results.read(tmp_path / "r.h5").examples.mean_probability[0]
    error = calls.std(axis=0, ddof=1) * np.sqrt(1 / len(calls) + 1 / N_DRAWS)
    assert (np.abs(found - calls.mean(axis=0)) < 5 * error + 2e-3).all()


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("independent_normal", []),
        pytest.param("diagonal_normal", [], marks=pytest.mark.slow),
        pytest.param("means_and_scales", ["--output_kind=mean_and_scale"], marks=pytest.mark.slow),
        ("two_means", ["--noise_scale=0.6"]),
    ],
)
def test_several_targets_are_those_of_the_networks_own_calls(
    tmp_path: Path, name: str, flags: list[str]
) -> None:
    tensorflow = import_tensorflow()
    generator = np.random.default_rng(3)
    model = getattr(heads, name)()
    heads.randomise(model, generator)
    x = generator.normal(size=(N_EXAMPLES, heads.N_FEATURES)).astype(np.float32)
    call = tensorflow.function(lambda: heads.normals(name, model(x)))
    calls = np.float64([call().numpy() for _ in range(4 * N_CALLS)])
    loc, scale = calls[..., :2], calls[..., 2:]
    y = loc.mean(axis=0) + scale.mean(axis=0) * generator.normal(size=(N_EXAMPLES, 2))
    given = arguments(tmp_path, name, x, y, model)
    assert sweep.main([*given, *flags]) == 0
    found = results.read(tmp_path / "r.h5")

    def of(draws: slice) -> dict[str, np.ndarray]:
        """Metrics by some of the calls: of both targets, then of each."""
        mean, square = loc[draws].mean(axis=0), (loc[draws].mean(axis=0) - y) ** 2
        log = stats.norm.logpdf(y, loc[draws], scale[draws])
        nll = [
            special.logsumexp(part, axis=0).mean()
            for part in (log.sum(2), log[..., 0], log[..., 1])
        ]
        total = np.sqrt(loc[draws].var(axis=0) + (scale[draws] ** 2).mean(axis=0))
        pit = stats.norm.cdf(y, loc[draws], scale[draws]).mean(axis=0)
        assert mean.shape == (N_EXAMPLES, 2)
        inside = abs(pit - 0.5) < 0.25
        return {
            "rmse": np.sqrt([square.mean(), *square.mean(axis=0)]),
            "nll": np.log(len(log)) - np.array(nll),
            "sharpness": np.array([total.mean(), *total.mean(axis=0)]),
            "coverage_50": np.array([inside.mean(), *inside.mean(axis=0)]),
        }

    own, parts = of(slice(None)), [of(slice(k, None, 8)) for k in range(8)]
    for metric, expected in own.items():
        spread = np.std([part[metric] for part in parts], axis=0, ddof=1) / np.sqrt(8)
        swept = np.array([found.metrics[metric][0], *found.targets[metric][0]])
        swept_se = np.array([found.metrics[f"{metric}_se"][0], *found.targets[f"{metric}_se"][0]])
        step = 2 / N_EXAMPLES if metric == "coverage_50" else 1e-3
        assert (abs(swept - expected) < 6 * np.hypot(spread, swept_se) + step).all(), metric
    kinds = dict(flag.removeprefix("--").split("=") for flag in flags)
    noise = {"noise_scale": float(kinds.pop("noise_scale"))} if "noise_scale" in kinds else {}
    net = bprune_hpc.load(
        tmp_path / "net.weights.h5", model=f"tests.helpers.heads:{name}", **kinds, **noise
    )
    predicted = net.predict(x, n_draws=N_DRAWS, batch_size=1000, y=y)
    examples = found.examples
    for mine, theirs in (
        (predicted.predictive_mean, examples.predictive_mean),
        (predicted.predictive_sd, examples.predictive_sd),
        (np.sqrt(predicted.aleatoric_variance), examples.aleatoric_sd),
        (-predicted.log_density, examples.nll),
    ):
        np.testing.assert_allclose(mine, theirs[0], rtol=1e-5, atol=1e-6)
    assert predicted.predictive_mean.shape == (N_EXAMPLES, 2) and "2 targets" in repr(net)
    with pytest.raises(DataError, match="y: has 1 targets an example, the network gives 2"):
        net.predict(x, y=y[:, 0])
    apart = net.predict(x, n_draws=N_DRAWS, batch_size=1000)
    np.testing.assert_allclose(apart.predictive_mean, predicted.predictive_mean, rtol=1e-9)


def test_targets_that_differ_in_size_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, generator = heads.independent_normal(), np.random.default_rng(0)
    x = generator.normal(size=(30, heads.N_FEATURES)).astype(np.float32)
    y = generator.normal(size=(30, 2))
    for factor in (1, 100):
        given = arguments(tmp_path, "independent_normal", x, y * [1, factor], model)
        given = [*given, "--num_monte_carlo=8", "--overwrite"]
        assert sweep.main(given) == 0
        assert ("targets differ in size" in capsys.readouterr().err) == (factor == 100)


@pytest.mark.slow
@pytest.mark.mpi
def test_several_targets_have_the_same_bits_on_any_number_of_ranks_and_after_a_resume(
    mpirun: MpiRun, tmp_path: Path
) -> None:
    model, generator = heads.independent_normal(), np.random.default_rng(0)
    heads.randomise(model, generator)
    x = generator.normal(size=(50, heads.N_FEATURES)).astype(np.float32)
    given = arguments(tmp_path, "independent_normal", x, generator.normal(size=(50, 2)), model)
    given += ["--thresholds=0,0.5,2", "--batch_size=10", "--num_monte_carlo=24"]
    assert sweep.main([*given, f"--output={tmp_path / 'one.h5'}"]) == 0
    for blocks, n_ranks in (([], 3), (["--state_limit_gb=0.0004"], 2)):
        file = tmp_path / f"{n_ranks}.h5"
        run = ["-m", "bprune_hpc.sweep", *given, *blocks, f"--output={file}"]
        done = mpirun(n_ranks, run)
        assert done.returncode == 0, done.stderr
        assert all_bits(file) == all_bits(tmp_path / "one.h5")
    resumed = [*given, f"--output={tmp_path / 'resumed.h5'}"]
    assert sweep.main([*resumed, "--num_monte_carlo=12"]) == 0
    assert sweep.main(resumed) == 0
    assert all_bits(tmp_path / "resumed.h5") == all_bits(tmp_path / "one.h5")
    assert sweep.main([*given, "--plan"]) == 0
