"""The two text files BPrune's users keep beside a checkpoint: what the graph's things are called.

What belongs here: writing them for the network that was trained. What does not: reading them, or
deciding from names what has a posterior (structure decides that, in ``graph.lifting``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .tensorflow_import import import_probability, import_tensorflow

LAYER_NAMES = "LayerNames.txt"
OP_NAMES = "Ops_name_BNN.txt"


def write(
    case_dir: str | os.PathLike[str], graph: Any = None, *, model: Any = None
) -> tuple[Path, Path]:
    """Write ``LayerNames.txt`` and ``Ops_name_BNN.txt`` of a TF1 graph or a Keras model.

    Parameters
    ----------
    case_dir : path
        An existing directory; files of these names in it are replaced.
    graph : tf.Graph, optional
        Default: the current graph.
    model : tf_keras.Model, optional
        Instead of a graph: a model with one input, built. See :func:`trace` for what its ops are.
        One that was built inside a TF1 graph is described by that graph, its input first and the
        first other placeholder, which is taken for the label, second.

    Returns
    -------
    tuple of Path
        Trainable variables, one name a line with its ``:0``; every op's name, one a line in the
        order of creation, so that a graph whose placeholders were made first starts with them.

    Raises
    ------
    ConfigError
        If a file cannot be written, or the model has no single known input.
    """
    if model is None:
        tf = import_tensorflow()
        graph = tf.compat.v1.get_default_graph() if graph is None else graph
        trainable = graph.get_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)
        operations = [op.name for op in graph.get_operations()]
    elif graph is not None:
        raise ConfigError("graph_info: both a graph and a model are given; give one of them")
    else:
        trainable = model.trainable_variables
        home = _graph_of(trainable)
        if home is None:
            operations = [op.name for op in trace(model).get_operations()]
        else:
            operations = _input_first(home, model)
    directory = Path(case_dir)
    layers, ops = directory / LAYER_NAMES, directory / OP_NAMES
    try:
        layers.write_text("".join(f"{variable.name}\n" for variable in trainable))
        ops.write_text("".join(f"{name}\n" for name in operations))
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be written to ({error.strerror}); choose another directory"
        ) from None
    return layers, ops


def trace(model: Any) -> Any:
    """The graph of a call of a Keras model, with the likelihood that BPrune looks for.

    The first op is the placeholder ``input``, the second ``label``. Where the model ends in
    logits, in a softmax or in a (one-hot) categorical distribution, the first op whose name ends
    in ``/log_prob/mul`` is the product of the logits with ones, as in a TF1 graph with TFP's
    ``Categorical``. A plain tensor is taken for logits. A model that ends in any other
    distribution gets no likelihood: the op of that name inside, say, a Normal's holds no logits.

    Parameters
    ----------
    model : tf_keras.Model
        Built, with one input.

    Returns
    -------
    tf.Graph

    Raises
    ------
    ConfigError
        If the model is not built, or has several inputs.
    """
    tf = import_tensorflow()
    spec = _input_spec(model)

    # AutoGraph would only repeat what Keras does itself, with warnings about lambdas.
    @tf.function(
        input_signature=[
            tf.TensorSpec(spec.shape, spec.dtype, name="input"),
            tf.TensorSpec((None,), tf.int64, name="label"),
        ],
        autograph=False,
    )
    def likelihood(examples: Any, label: Any) -> Any:
        tfp = import_probability()
        output = model(examples, training=False)
        distribution = getattr(output, "tensor_distribution", output)
        categorical = (tfp.distributions.Categorical, tfp.distributions.OneHotCategorical)
        if isinstance(distribution, categorical):
            logits = distribution.logits_parameter()
        elif isinstance(distribution, tfp.distributions.Distribution):
            return distribution.parameters.get("loc", label)
        else:
            logits = output.op.inputs[0] if output.op.type == "Softmax" else output
        return tfp.distributions.Categorical(logits=logits, name="label_dist").log_prob(label)

    return likelihood.get_concrete_function().graph


def _input_spec(model: Any) -> Any:
    signature = model.save_spec()
    if signature is None:
        raise ConfigError(
            f"graph_info: the model '{model.name}' is not built; call it on an example first"
        )
    spec = signature[0][0]
    if not hasattr(spec, "shape"):
        raise ConfigError(
            f"graph_info: the model '{model.name}' has several inputs; the files name one"
        )
    return spec


def _graph_of(variables: Sequence[Any]) -> Any:
    """The TF1 graph that variables live in; None where they were made eagerly."""
    return getattr(variables[0], "graph", None) if variables else None


def _input_first(graph: Any, model: Any) -> list[str]:
    operations = graph.get_operations()
    first = model.inputs[0].op.name
    others = [op.name for op in operations if op.type == "Placeholder" and op.name != first]
    start = [first, *others[:1]]
    return [*start, *(op.name for op in operations if op.name not in start)]
