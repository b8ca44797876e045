"""What a network is for and what its outputs are: by flags, by structure, by numbers."""

from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError, GraphError
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.metrics.tasks import Classification, Regression, Task
from bprune_hpc.runner.task_selection import choose_task, told_by


def graph_of(
    shape: tuple[int | None, ...] | None, *kinds: str, output_kind: str | None = None
) -> LiftedGraph:
    tensors = {kind: f"{kind}:0" for kind in kinds}
    return LiftedGraph(
        b"", "x:0", (None, 4), "float32", f"{kinds[0]}:0", shape, {}, {}, (), tensors, output_kind
    )


def test_the_task_is_what_the_head_says() -> None:
    def auto(
        *arguments: object, noise: float | None = None, output_kind: str | None = None
    ) -> Task:
        graph = graph_of(*arguments, output_kind=output_kind)  # type: ignore[arg-type]
        return choose_task("auto", noise, graph, "case")

    assert auto((None, 10), "logits") == Classification(10, None)
    assert auto((None, 10), "logits", output_kind="logits") == Classification(10)
    assert auto((None, 1, 10), "logits", output_kind="logits") == Classification(10)
    for shape in ((None, 1), (None,)):
        found = auto(shape, "logits", output_kind="logits")
        assert found == Classification(2, "logits", is_binary=True) and found.n_outputs == 1
    assert auto((None, 1), "loc", "scale") == Regression(None)
    assert auto((None,), "loc", "scale") == Regression(None)
    assert auto((None, 1), "logits", noise=0.5) == Regression(0.5)


@pytest.mark.parametrize(
    ("asked", "noise", "shape", "kinds", "message"),
    [
        ("auto", None, (None, 1), ("logits",), "single number an example.*--noise_scale"),
        ("regression", None, (None, 1), ("logits",), "a mean alone.*--noise_scale"),
        ("regression", 0.5, (None, 1), ("loc", "scale"), "its own standard deviation"),
        ("classification", None, (None, 1), ("loc", "scale"), "a Normal.*--task=regression"),
        ("classification", 0.5, (None, 10), ("logits",), "--noise_scale.*leave it out"),
        ("auto", None, None, ("logits",), "unknown number of classes"),
        ("auto", None, (None, 5, 3), ("logits",), r"gives \(5, 3\) numbers an example"),
        ("auto", None, (None, 5, 1), ("logits",), r"gives \(5, 1\) numbers an example"),
        ("regression", 0.5, (None, 4, 4, 1), ("logits",), r"gives \(4, 4, 1\) numbers"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    asked: str, noise: float | None, shape: tuple[int | None, ...] | None, kinds: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    with pytest.raises((ConfigError, GraphError), match=message) as found:
        choose_task(asked, noise, graph_of(shape, *kinds), "case")
    assert "\n" not in str(found.value)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


LOGITS = np.random.default_rng(0).normal(size=(5, 3, 20)).astype(np.float32)
PROBABILITIES = _softmax(LOGITS).astype(np.float32)
SIGMOIDS = (1 / (1 + np.exp(-LOGITS))).astype(np.float32)


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        (LOGITS, "logits"),
        (PROBABILITIES, "probabilities"),
        (PROBABILITIES.astype(np.float16).astype(np.float32), "probabilities"),
        (np.clip(PROBABILITIES, 1e-3, 1 - 1e-3), "probabilities"),
        (np.log(PROBABILITIES), "logits"),
        (np.abs(LOGITS), "logits"),
        (np.zeros((5, 3, 20), np.float32), "logits"),
        (np.where(np.arange(20) == 7, np.nan, PROBABILITIES), "probabilities"),
        (np.full((5, 3, 20), np.nan, np.float32), "logits"),
    ],
)
def test_numbers_tell_what_they_are(outputs: np.ndarray, kind: str) -> None:
    graph, undecided = graph_of((None, 3), "logits"), Classification(3, None)
    assert told_by(outputs, undecided, graph, "case") == Classification(3, kind)


def test_a_single_number_of_two_classes() -> None:
    graph, undecided = graph_of((None, 1), "logits"), Classification(2, None, is_binary=True)
    for outputs, kind in ((SIGMOIDS, "probabilities"), (LOGITS, "logits")):
        found = told_by(outputs[:, :1], undecided, graph, "case")
        assert found == Classification(2, kind, is_binary=True)


@pytest.mark.parametrize("structure", [None, "logits"])
def test_probabilities_that_are_said_to_be_logits(structure: str | None) -> None:
    graph = graph_of((None, 3), "logits", output_kind=structure)
    if structure is None:
        with pytest.raises(ConfigError, match="gives probabilities.*leave the flag out"):
            told_by(PROBABILITIES, Classification(3), graph, "case", "logits")
    else:  # a distribution's own logits are what they are
        assert told_by(PROBABILITIES, Classification(3), graph, "case") == Classification(3)


def test_numbers_that_may_be_anything() -> None:
    graph = graph_of((None, 3), "logits")
    with pytest.raises(ConfigError, match=r"case: logits:0 gives numbers in \[0, 1\] that do not"):
        told_by(SIGMOIDS, Classification(3, None), graph, "case")
    for kind in ("logits", "probabilities"):
        asked = Classification(3, kind)
        assert told_by(SIGMOIDS, asked, graph, "case", kind) == asked
    with pytest.raises(ConfigError, match="no probabilities, .* --output_kind=probabilities"):
        told_by(LOGITS, Classification(3, "probabilities"), graph, "case", "probabilities")


@pytest.mark.parametrize("task", [Classification(5), Regression(1.0)])
def test_more_numbers_than_the_graph_says(task: Task) -> None:
    with pytest.raises(GraphError, match=rf"gives 3 numbers an example, not {task.n_outputs}"):
        told_by(LOGITS, task, graph_of((None, None), "logits"), "case")
