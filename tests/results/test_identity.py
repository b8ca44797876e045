from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.job import environment, provenance
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.results import identity
from bprune_hpc.tensorflow_import import import_tensorflow


def test_a_graph_is_known_by_what_it_computes() -> None:
    tensorflow = import_tensorflow()

    def digest(function: Callable, prefix: str = "") -> str:
        with tensorflow.Graph().as_default() as graph:
            x = tensorflow.compat.v1.placeholder("float32", (None, 3), f"{prefix}x")
            w = tensorflow.compat.v1.placeholder("float32", (3, 2), f"{prefix}w")
            y = function(tensorflow, x, w)
        lifted = LiftedGraph(
            graph.as_graph_def().SerializeToString(), x.name, (None, 3), "float32", y.name,
            (None, 2), {"kernel": w.name}, {},
        )  # fmt: skip
        return identity.graph_sha256(lifted)

    plain = digest(lambda tf, x, w: tf.nn.relu(x @ w))
    assert plain == digest(lambda tf, x, w: tf.nn.relu(x @ w, name="other"), "a_")
    others = [
        digest(lambda tf, x, w: tf.nn.selu(x @ w)),
        digest(lambda tf, x, w: tf.nn.relu(tf.matmul(x, w, transpose_b=False) + 1.0)),
        digest(lambda tf, x, w: tf.nn.relu(x @ w) * 2.0),
        digest(lambda tf, x, w: tf.nn.relu(x @ w) * 3.0),
        digest(lambda tf, x, w: tf.nn.relu(tf.transpose(tf.transpose(w) @ tf.transpose(x)))),
    ]
    assert len({plain, *others}) == 6


def test_environments_are_united() -> None:
    one = {"cpu": ["A"], "numpy": ["2"], "OMP_NUM_THREADS": ["1"]}
    both = provenance.union([one, {"cpu": ["B", "A"], "numpy": ["2"]}])
    assert both == {"cpu": ["A", "B"], "numpy": ["2"], "OMP_NUM_THREADS": ["1", "unset"]}
    assert provenance.mixture(both) == "OMP_NUM_THREADS 1, unset; cpu A, B"
    assert provenance.mixture(provenance.union([one, one])) == ""


def test_only_variables_that_may_change_bits_are_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in environment.BIT_VARIABLES | environment.SPEED_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    plain = provenance.environment_of(SerialComm(), 1, 1)
    for name in ("TF_CLI_CONFIG_FILE", "TF_CONFIG", "TF_VAR_token_XLA", "MKL_THREADS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    assert provenance.environment_of(SerialComm(), 1, 1) == plain
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    expected = {"TF_ENABLE_ONEDNN_OPTS": ["0"], "OPENBLAS_NUM_THREADS": ["2"]}
    assert provenance.environment_of(SerialComm(), 1, 1) == {**plain, **expected}
    facts = environment.describe_run(SerialComm(), environment.Stopwatch(), 1, 1)
    assert json.loads(facts["thread_variables"]) == {
        "OMP_PROC_BIND": "close", "OPENBLAS_NUM_THREADS": "2", "TF_ENABLE_ONEDNN_OPTS": "0",
    }  # fmt: skip
    assert "secret" not in str(facts)


def test_results_that_may_be_wrong_are_told_from_others() -> None:
    said = provenance.differences({"evaluator": "channels"}, {"evaluator": "channels-2"})
    assert said == [
        "evaluator channels, which left out channels that were not zero, so that its numbers may "
        "be wrong, now channels-2"
    ]
    assert provenance.differences({"evaluator": "graph"}, {"evaluator": "channels-2"}) == [
        "evaluator graph, now channels-2"
    ]
