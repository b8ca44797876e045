from __future__ import annotations

from collections.abc import Callable

from bprune_hpc import identity
from bprune_hpc.network import LiftedGraph
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
    both = identity.union([one, {"cpu": ["B", "A"], "numpy": ["2"]}])
    assert both == {"cpu": ["A", "B"], "numpy": ["2"], "OMP_NUM_THREADS": ["1", "unset"]}
    assert identity.mixture(both) == "OMP_NUM_THREADS 1, unset; cpu A, B"
    assert identity.mixture(identity.union([one, one])) == ""
