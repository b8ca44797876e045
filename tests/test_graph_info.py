"""The text files beside a checkpoint, for a graph small enough to write the answer out."""

from __future__ import annotations

import pytest

from bprune_hpc import graph_info
from bprune_hpc.errors import ConfigError
from bprune_hpc.tensorflow_import import import_tensorflow


@pytest.fixture(scope="module")
def graph():
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, (None, 2))
        tf.compat.v1.placeholder(tf.int64, (None,))
        tf.compat.v1.get_variable("layer/kernel", (2, 3), use_resource=True)
        tf.compat.v1.get_variable("counter", (), trainable=False, use_resource=True)
        tf.constant(1.0, name="last")
    return graph


def test_names_in_order_of_creation(graph, tmp_path):
    layers, ops = graph_info.write(tmp_path, graph)
    assert layers == tmp_path / "LayerNames.txt" and ops == tmp_path / "Ops_name_BNN.txt"
    assert layers.read_text() == "layer/kernel:0\n"
    names = ops.read_text().splitlines()
    assert names[:2] == ["Placeholder", "Placeholder_1"]
    assert names[-1] == "last"
    assert names.index("layer/kernel") < names.index("counter")
    assert len(names) == len(set(names)) == len(graph.get_operations())


def test_default_is_the_current_graph(graph, tmp_path):
    with graph.as_default():
        layers, _ = graph_info.write(tmp_path)
    assert layers.read_text() == "layer/kernel:0\n"


def test_a_directory_that_is_not_there(graph, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written to"):
        graph_info.write(tmp_path / "none", graph)
