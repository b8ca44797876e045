"""What outputs mean: logits of whatever a classifier gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from bprune_hpc.accumulators.classification import MAX_NLL
from bprune_hpc.errors import BpruneError
from bprune_hpc.metrics.tasks import Classification
from bprune_hpc.posterior.draws import Draw

DRAWS = [(0, Draw(0, 1, 0)), (0, Draw(1, -1, 0))]


def sums_of(task: Classification, outputs: np.ndarray, label: np.ndarray) -> tuple:
    """Mean probability, NLL of each draw, and accuracy of each draw."""
    sums, draw_sums = task.sums(1, len(label), 2), task.draw_sums(1, 2)
    task.add_up(outputs, label, DRAWS, (0, slice(0, len(label))), {0: sums}, draw_sums)
    probability = sums.probability[0] / (2 * 2.0**50)
    return probability, draw_sums.nll(len(label))[0], draw_sums.accuracy(len(label))[0]


@pytest.mark.usefixtures("instructions")
def test_every_kind_against_its_closed_form() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 4, (2, 3, 50)).astype(np.float32)
    exact = special.softmax(np.float64(logits), axis=1)
    one = logits[:, :1]
    of_one = np.concatenate([special.expit(-np.float64(one)), special.expit(np.float64(one))], 1)
    for task, outputs, right in (
        (Classification(3), logits, exact),
        (Classification(3, "probabilities"), exact, exact),
        (Classification(3, "probabilities"), 0.4 * exact, exact),
        (Classification(2, "logits", is_binary=True), one, of_one),
        (Classification(2, "probabilities", is_binary=True), of_one[:, 1:], of_one),
    ):
        label = generator.integers(0, task.n_classes, 50)
        probability, nll, accuracy = sums_of(task, outputs.astype(np.float32), label)
        np.testing.assert_allclose(probability.T, right.mean(axis=0), rtol=1e-5, atol=1e-7)
        of_label = right[:, label, np.arange(50)]
        np.testing.assert_allclose(nll, -np.log(of_label).mean(axis=1), rtol=1e-4)
        assert (accuracy == (right.argmax(axis=1) == label).mean(axis=1)).all()


@pytest.mark.usefixtures("instructions")
def test_probabilities_that_are_exactly_zero_or_one() -> None:
    # What float32 leaves of a softmax of (0, 200): the true class's is 0, and so it is counted.
    outputs = np.array([[0, 1], [1, 0], [0, 0]], np.float32)[None].repeat(2, 0)
    _, nll, accuracy = sums_of(Classification(3, "probabilities"), outputs, np.array([0, 0]))
    np.testing.assert_allclose(nll, MAX_NLL / 2, rtol=1e-6)
    assert (accuracy == 0.5).all()
    binary = Classification(2, "probabilities", is_binary=True)
    probability, nll, _ = sums_of(
        binary, np.array([[[0, 1, 1]]], np.float32).repeat(2, 0), np.array([0, 0, 1])
    )
    np.testing.assert_array_equal(probability, [[1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(nll, MAX_NLL / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "value"),
    [
        (Classification(3, "probabilities"), -0.1),
        (Classification(2, "probabilities", is_binary=True), 1.2),
    ],
)
def test_what_cannot_be_a_probability(task: Classification, value: float) -> None:
    outputs = np.full((2, task.n_outputs, 4), 0.5, np.float32)
    outputs[1, 0, 2] = value
    with pytest.raises(BpruneError, match=rf"gives {value:g} where it gave probabilities before"):
        task.logits(outputs)
