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

import bprune_hpc
from bprune_hpc import sweep
from bprune_hpc.errors import ConfigError
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import heads

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
    ("categorical_of_probabilities", "another softmax is taken", []),
    ("sigmoid", "one logit of two classes", []),
    ("sigmoid_clipped", "one probability of two classes", ["--task=classification"]),
    ("sigmoid_clipped", "one probability of two classes", ["--output_kind=probabilities"]),
    ("sigmoid_without_axis", "one probability of two classes", ["--task=classification"]),
    ("sigmoid_shaped", "one logit of two classes", []),
    ("one_logit", "one logit of two classes", ["--task=classification"]),
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
        ("logits", ["--output_kind=mean"], "a regression of several targets"),
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
