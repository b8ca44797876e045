"""Gradients against TensorFlow's own, and units against weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bprune_hpc.models.zoo import MODELS
from bprune_hpc.tensorflow_import import import_tensorflow, open_session
from bprune_hpc.training import graph
from tests.helpers.steps import N_CLASSES, N_TRAIN, Steps

KINDS = [
    *(pytest.param([f"--model={name}"], marks=pytest.mark.slow) if name == "resnet18" else
      [f"--model={name}"] for name in MODELS),
    ["--estimator=local"],
    ["--task=regression"],
    ["--task=regression", "--estimator=local", "--noise_scale=0.5"],
]  # fmt: skip
Make = Callable[..., Steps]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Steps] = []

    def build(*flags: str, **options: int) -> Steps:
        made.append(Steps(*flags, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.mark.parametrize("flags", KINDS)
def test_they_are_those_that_tensorflow_finds_in_the_whole_loss(make, flags):
    steps = make(*flags, "--prior_scale=0.7", n_ranks=3)
    tf, training = import_tensorflow(), steps.training
    with training.graph.as_default():
        # The divergence is that of TFP, and in it the number of examples.
        loss = training.nll + training.kl_factor * training.network.kl
        variables = training.graph.get_collection("trainable_variables")
        expected = tf.gradients(loss, variables)
    found, wanted = steps.session.run((training.gradients, expected), steps.feed(kl_factor=0.4))
    for variable, mine, theirs in zip(variables, found, wanted, strict=True):
        largest = np.abs(theirs).max()
        assert largest > 0 or "bias" in variable.name
        np.testing.assert_allclose(3 * mine, theirs, rtol=2e-4, atol=2e-5 * largest,
                                   err_msg=variable.name)  # fmt: skip


def test_the_divergence_alone_is_the_closed_form(make):
    """The difference that its weight makes, by hand in float64."""
    steps = make("--hidden=", "--prior_scale=0.7", n_ranks=2)
    training = steps.training
    kernels = training.graph.get_collection("trainable_variables")[:2]
    feed = steps.feed(0.0)
    without = steps.session.run(training.gradients, feed)
    factor = 1e4  # above the rounding of the rest
    feed[training.kl_factor] = factor
    found, loc, raw = steps.session.run([training.gradients, *kernels], feed)
    loc, raw = np.float64(loc), np.float64(raw)
    scale = np.log1p(np.exp(raw)) + 2.0**-23
    weight = 0.5 * factor / N_TRAIN
    by_hand = [loc / 0.49, (scale / 0.49 - 1 / scale) / (1 + np.exp(-raw)), np.zeros(N_CLASSES)]
    for mine, other, expected in zip(found, without, by_hand, strict=True):
        difference = np.float64(mine) - other
        np.testing.assert_allclose(difference, weight * expected, rtol=1e-5, atol=1e-6 * weight)


def test_units_drawn_have_the_moments_of_units_under_drawn_weights(make):
    steps = make("--estimator=local", "--hidden=", n_examples=2)
    training = steps.training
    losses = [float(steps.session.run(training.nll, steps.feed(1.0))) for _ in range(4000)]
    loc, raw, bias = steps.session.run(training.graph.get_collection("trainable_variables"))
    scale = np.log1p(np.exp(np.float64(raw)))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(4000):
        logits = np.stack([
            x @ (loc + scale * rng.standard_normal(loc.shape)) + bias for x in np.float64(steps.x)
        ])  # fmt: skip
        log_sum = np.log(np.exp(logits).sum(axis=1))
        drawn.append((log_sum - logits[np.arange(2), steps.y]).mean())
    error = np.hypot(np.std(losses), np.std(drawn)) / np.sqrt(4000)
    assert abs(np.mean(losses) - np.mean(drawn)) < 4 * error
    assert abs(np.std(losses) / np.std(drawn) - 1) < 0.15


def test_an_input_of_zeros_has_a_gradient(make):
    steps = make("--estimator=local")
    steps.x[:] = 0
    step = graph.step_of(steps.training, steps.session, steps.noise)
    step(steps.x, steps.y, np.float32(0.01), np.float32(1))
    for name, value in graph.state_of(steps.training, steps.session).items():
        assert np.isfinite(value).all(), name


def test_the_network_that_is_saved_does_not_depend_on_the_estimator():
    def nodes(estimator: str) -> dict[str, bytes]:
        steps = Steps(f"--estimator={estimator}")
        with open_session(steps.training.graph):
            definition = steps.training.graph.as_graph_def()
        steps.close()
        return {
            node.name: node.SerializeToString(deterministic=True)
            for node in definition.node
            if node.name.startswith(("sequential/", "label_dist/", "Placeholder"))
        }

    flipout, local = nodes("flipout"), nodes("local")
    assert len(flipout) > 100 and flipout.items() <= local.items()
