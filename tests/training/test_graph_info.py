"""The text files beside a checkpoint, for networks small enough to write the answer out."""

from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc import graph_info
from bprune_hpc.checkpoints import case
from bprune_hpc.errors import ConfigError
from bprune_hpc.graph.endpoints import read_ops_names
from bprune_hpc.graph.nodes import SAME_VALUE
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


@pytest.fixture(scope="module")
def keras():
    import_tensorflow()
    import tf_keras

    return tf_keras


@pytest.fixture(scope="module")
def tfp():
    import_tensorflow()
    import tensorflow_probability

    return tensorflow_probability


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


def behind_ones(op):
    """The op whose output TFP's Categorical multiplies with ones."""
    op = op.inputs[0].op
    while op.type in SAME_VALUE:
        op = op.inputs[0].op
    return op


def endings(keras, tfp):
    """Ways in which a classifier's model ends, each with the op that gives its logits."""
    last = tfp.layers.DenseFlipout(3, name="last")
    return {
        "logits": [last],
        "softmax": [tfp.layers.DenseFlipout(3, activation="softmax", name="last")],
        "softmax layer": [last, keras.layers.Softmax()],
        "Categorical": [
            last,
            tfp.layers.DistributionLambda(lambda t: tfp.distributions.Categorical(logits=t)),
        ],
        "OneHotCategorical": [last, tfp.layers.OneHotCategorical(3)],
    }


@pytest.mark.parametrize(
    "ending", ["logits", "softmax", "softmax layer", "Categorical", "OneHotCategorical"]
)
def test_a_keras_classifier_is_found_as_bprune_does(keras, tfp, tmp_path, ending):
    hidden = tfp.layers.DenseReparameterization(4, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, *endings(keras, tfp)[ending]], name="net")
    layers, ops = graph_info.write(tmp_path, model=model)
    parameters = ("kernel_posterior_loc:0", "kernel_posterior_untransformed_scale:0")
    assert layers.read_text().splitlines() == [
        *(f"hidden/{name}" for name in parameters), "hidden/bias_posterior_loc:0",
        *(f"last/{name}" for name in parameters), "last/bias_posterior_loc:0",
    ]  # fmt: skip
    names = ops.read_text().splitlines()
    assert names[:2] == ["input", "label"] and len(names) == len(set(names))
    found_input, product = read_ops_names(ops)
    assert found_input == "input" and product is not None
    # Another trace gives the same names (but for TFP's divergences, which carry an address), so
    # that they can be looked up in its graph.
    traced = graph_info.trace(model)
    again = [op.name for op in traced.get_operations()]
    assert [n for n in again if "Kullback" not in n] == [n for n in names if "Kullback" not in n]
    logits = behind_ones(traced.get_operation_by_name(product))
    assert logits.type == "BiasAdd" and "/last/" in logits.name
    assert traced.get_operation_by_name("input").outputs[0].shape.as_list() == [None, 5]


def test_a_normal_gets_no_likelihood_that_would_be_taken_for_logits(keras, tfp, tmp_path):
    layers = [keras.Input((5,)), tfp.layers.DenseFlipout(2), tfp.layers.IndependentNormal(1)]
    _, ops = graph_info.write(tmp_path, model=keras.Sequential(layers))
    assert read_ops_names(ops) == ("input", None)
    assert ops.read_text().splitlines()[:2] == ["input", "label"]


def test_a_subclassed_model_once_it_is_built(keras, tfp, tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.layer = tfp.layers.DenseFlipout(3, name="layer")

        def call(self, x):
            return self.layer(x)

    model = Net()
    with pytest.raises(ConfigError, match="'net' is not built; call it on an example"):
        graph_info.write(tmp_path, model=model)
    model(np.zeros((2, 4), np.float32))
    layers, ops = graph_info.write(tmp_path, model=model)
    assert layers.read_text().splitlines()[0] == "net/layer/kernel_posterior_loc:0"
    assert read_ops_names(ops)[1] is not None


def test_what_the_files_cannot_say(keras, graph, tmp_path):
    left, right = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([left, right], left + right, name="two")
    with pytest.raises(ConfigError, match="'two' has several inputs"):
        graph_info.write(tmp_path, model=model)
    with pytest.raises(ConfigError, match="both a graph and a model"):
        graph_info.write(tmp_path, graph, model=model)
    assert not list(tmp_path.iterdir())


def test_a_keras_model_in_a_tf1_graph_opens_by_its_files(keras, tfp, tmp_path):
    tf = import_tensorflow()
    tf1 = tf.compat.v1
    with tf.Graph().as_default():
        label = tf1.placeholder(tf.int32, (None,), name="label")
        images = keras.Input((4,), name="images")
        logits = tfp.layers.DenseFlipout(3, name="layer")(images)
        model = keras.Model(images, logits)
        tfp.distributions.Categorical(logits=model.output, name="dist").log_prob(label)
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            tf1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=3)
            loc = session.run(model.trainable_variables[0])
    layers, ops = graph_info.write(tmp_path, model=model)
    assert ops.read_text().splitlines()[:2] == ["images", "label"]
    assert "layer/kernel_posterior_loc:0" in layers.read_text().splitlines()
    found = case.read_case(tmp_path)
    assert found.graph.input_tensor == "images:0"
    (name,) = found.posterior.names
    np.testing.assert_array_equal(found.posterior.loc[name], loc)
