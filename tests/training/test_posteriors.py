"""Draws that gradients are estimated from: the same mean, and less noise with some than others.

A linear regression with a given noise scale, whose gradients have moments in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from bprune_hpc.tensorflow_import import calls_of
from bprune_hpc.training.config import ESTIMATORS
from tests.helpers.steps import Steps

N_EXAMPLES, N_RUNS, NOISE = 6, 3000, 0.5


@dataclass(frozen=True)
class Found:
    """Gradients of means and standard deviations, run by run; and what they are functions of."""

    of_loc: np.ndarray
    of_scale: np.ndarray
    x: np.ndarray
    residual: np.ndarray
    scale: np.ndarray


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    return {name: gradients(name) for name in ESTIMATORS}


def gradients(posterior: str) -> Found:
    steps = Steps(
        f"--posterior={posterior}", "--task=regression", f"--noise_scale={NOISE}", "--hidden=",
        n_examples=N_EXAMPLES,
    )  # fmt: skip
    training, session = steps.training, steps.session
    call = calls_of(
        session, training.nll_gradients[:2], [training.inputs, training.labels, *steps.noise.fed]
    )
    drawn = [
        [part.ravel().copy() for part in call(steps.x, steps.y, *steps.noise.next(N_EXAMPLES))]
        for _ in range(N_RUNS)
    ]
    variables = session.run(training.graph.get_collection("trainable_variables"))
    loc, raw, bias = (np.asarray(one, np.float64).ravel() for one in variables)
    x = np.float64(steps.x)
    residual = x @ loc + bias - steps.y
    steps.close()
    of_loc, of_scale = np.float64(drawn).transpose(1, 0, 2)
    return Found(of_loc, of_scale, x, residual, np.log1p(np.exp(raw)))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_have_the_mean_of_the_expected_loss(found, name):
    # Its expectation is the mean of ((x m - y)^2 + x^2 s^2) / (2 NOISE^2).
    one = found[name]
    of_loc = (one.x * one.residual[:, None]).mean(axis=0) / NOISE**2
    of_scale = (one.x**2).mean(axis=0) * one.scale / NOISE**2
    for drawn, expected in ((one.of_loc, of_loc), (one.of_scale, of_scale)):
        error = drawn.std(axis=0, ddof=1) / np.sqrt(N_RUNS)
        assert (np.abs(drawn.mean(axis=0) - expected) < 5 * error).all()
        assert (error < 0.2 * np.abs(expected).max()).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_of_means_have_the_variance_of_their_draws(found, name):
    one = found[name]
    if name == "reparameterization":  # an error of a weight is that of all examples
        together = one.x.T @ one.x / N_EXAMPLES
        expected = together**2 @ one.scale**2
    else:  # examples have errors of their own
        expected = one.x.T**2 @ (one.x**2 @ one.scale**2) / N_EXAMPLES**2
    measured = one.of_loc.var(axis=0).sum()
    assert measured == pytest.approx(expected.sum() / NOISE**4, rel=0.15)


def test_one_draw_for_all_examples_has_the_most_noise(found):
    for part in ("of_loc", "of_scale"):
        noise = {name: getattr(one, part).var(axis=0).sum() for name, one in found.items()}
        assert noise["flipout"] < 0.6 * noise["reparameterization"]
        assert noise["local"] < 0.6 * noise["reparameterization"]


def test_one_draw_gives_all_examples_the_same_network():
    """Differences of outputs are those of a linear function: the same weights times the inputs."""
    steps = Steps("--posterior=reparameterization", "--hidden=", n_examples=N_EXAMPLES)
    steps.x[2] = steps.x[0] + steps.x[1]
    steps.x[3] = 0
    outputs = steps.session.run(steps.training.network.logits, steps.feed(1.0))
    at_mean = steps.session.run(steps.training.network.locs)
    steps.close()
    np.testing.assert_allclose(
        outputs[2] - outputs[3], outputs[0] + outputs[1] - 2 * outputs[3], atol=1e-5
    )
    (loc,) = at_mean.values()
    assert np.abs(outputs - outputs[3] - steps.x @ loc).max() > 0.1
