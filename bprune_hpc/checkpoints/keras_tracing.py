"""Builds a user's Keras model and turns its call, at inference, into a graph.

What belongs here: importing ``MODULE:FUNCTION``, building, tracing. What does not: weights
(``checkpoints.keras``, ``checkpoints.tf2``), lifting (``graph.lifting``).
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..graph.nodes import Node, constant_node
from ..graph.source import Endpoints
from ..tensorflow_import import import_tensorflow, limit_threads

_NORMAL_HINT = "end the model in a Categorical, OneHotCategorical, Normal or Independent(Normal)"


@dataclass(frozen=True)
class Traced:
    """The graph of a model's call.

    Attributes
    ----------
    graph_def : GraphDef
    handles : dict of str to str
        Name of the model's variable behind each placeholder that takes a handle.
    ends : Endpoints
    """

    graph_def: Any
    handles: dict[str, str]
    ends: Endpoints


def build_model(name: str, n_intra: int = 1, n_inter: int = 1, has_values: bool = True) -> Any:
    """Import ``MODULE:FUNCTION``, call it without an argument, and build what it returns.

    Parameters
    ----------
    name : str
        The current directory is searched for the module, too.
    n_intra, n_inter : int
        TensorFlow threads of this process.
    has_values : bool
        Without, variables take no memory and cannot be read; if the function reads them, it is
        called again and they have their first values all the same.

    Returns
    -------
    tf_keras.Model
        With its variables; built from its Input layer, from the data it was called on, or from an
        attribute ``input_shape`` (without the axis of examples) of its class or of the function.

    Raises
    ------
    ConfigError
        If there is no such function, it fails, or what it returns cannot be built.
    """
    limit_threads(n_intra, n_inter)
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ConfigError(f"--model: '{name}' is not MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    import_tensorflow()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"--model: {module_name} cannot be imported: {_said(error)}; start in its directory, "
            "or add that to PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"--model: {module_name} has no function '{function_name}'")
    if not has_values:
        try:
            with _no_values():
                return _built(name, function)
        except ConfigError:
            pass
    return _built(name, function)


def _built(name: str, function: Callable[[], Any]) -> Any:
    try:
        with fresh_names():
            model = function()
    except Exception as error:
        raise ConfigError(
            f"--model: {name}() failed: {_said(error)}; it has to return a model without arguments"
        ) from error
    _check_kind(name, model)
    if not model.built:
        shape = getattr(type(model), "input_shape", None)
        shape = shape if isinstance(shape, tuple | list) else getattr(function, "input_shape", None)
        if not isinstance(shape, tuple | list):
            raise ConfigError(
                f"--model: {name}() returns a model of unknown input shape; start it with an Input "
                f"layer, or set {name.partition(':')[2]}.input_shape = "
                "(without the axis of examples)"
            )
        try:
            model(import_tensorflow().keras.Input(tuple(shape)), **_inference(model))
        except Exception as error:
            raise ConfigError(
                f"--model: {name}() cannot be built from input_shape {tuple(shape)}: {_said(error)}"
            ) from error
    return model


@contextmanager
def _no_values() -> Iterator[None]:
    tensorflow = import_tensorflow()
    from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

    def create(make: Callable[..., Any], **keywords: Any) -> Any:
        shape = tensorflow.TensorShape(keywords.get("shape"))
        if not shape.is_fully_defined() or keywords.get("dtype") is None:
            return make(**keywords)
        taken = ("trainable", "name", "dtype", "constraint", "synchronization", "aggregation")
        kept = {key: keywords[key] for key in taken if key in keywords}
        return UninitializedVariable(shape=shape, **kept)

    with tensorflow.variable_creator_scope(create):
        yield


def variables_by_name(model: Any) -> dict[str, Any]:
    """A built model's variables by name, without ``:0``; repeated names get ``_1``, ``_2``..."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for variable in model.variables:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        plain = variable.name.partition(":")[0]
        name, number = plain, 0
        while name in found:
            number += 1
            name = f"{plain}_{number}"
        found[name] = variable
    return found


def trace(name: str, model: Any) -> Traced:
    """Graph of ``model(x, training=False)``.

    A distribution that the model returns is replaced by its parameters; no sample of it is taken.

    Parameters
    ----------
    name : str
        What messages call the model.
    model : tf_keras.Model
        Built.

    Raises
    ------
    ConfigError
        If the call fails, or its input or output is not one tensor or a known distribution.
    """
    tensorflow = import_tensorflow()
    spec = _input_spec(name, model)
    keywords = _inference(model)
    kinds: list[tuple[str, ...]] = []

    def call(x: Any) -> Any:
        outputs = _parameters(name, model(x, **keywords))
        kinds.append(tuple(outputs))
        return [tensorflow.identity(value) for value in outputs.values()]

    try:
        concrete = tensorflow.function(call, autograph=False).get_concrete_function(spec)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"--model: {name}() cannot be called: {_said(error)}") from error
    graph_def = concrete.graph.as_graph_def()
    names = {id(v.handle): key for key, v in variables_by_name(model).items()}
    handles: dict[str, str] = {}
    constants: dict[str, Node] = {}
    for captured, inside in concrete.graph.captures:
        node = inside.name.partition(":")[0]
        if captured.dtype == tensorflow.resource:
            if id(captured) in names:
                handles[node] = names[id(captured)]
        else:
            constants[node] = _constant(node, captured.numpy())
    for definition in graph_def.node:
        if definition.name in constants:
            definition.op = "Const"
            definition.attr.clear()
            for key, value in constants[definition.name].attr.items():
                definition.attr[key].CopyFrom(value)
    given = concrete.inputs[0].name
    ends = dict(zip(kinds[-1], (output.name for output in concrete.outputs), strict=True))
    return Traced(
        graph_def, handles, Endpoints(given, ends.get("logits"), ends.get("loc"), ends.get("scale"))
    )


def _constant(name: str, value: Any) -> Node:
    """A Const node; one number stands for all where they are equal, as a prior's zeros are."""
    if value.size < 2 or (value != value.flat[0]).any():
        return constant_node(name, value)
    node = constant_node(name, value.flat[0])
    shape = import_tensorflow().TensorShape(value.shape).as_proto()
    node.attr["value"].tensor.tensor_shape.CopyFrom(shape)
    return node


def _parameters(name: str, output: Any) -> dict[str, Any]:
    """What a model returns, as named tensors."""
    import tensorflow_probability as tfp

    tensorflow, tfd = import_tensorflow(), tfp.distributions
    if isinstance(output, list | tuple) and len(output) == 1:
        output = output[0]
    if isinstance(output, dict) and len(output) == 1:
        (output,) = output.values()
    if isinstance(output, tfd.Distribution):
        # As a Keras layer's output it is wrapped, so that it can be taken for a tensor.
        inner = getattr(output, "tensor_distribution", output)
        while isinstance(inner, tfd.Independent):
            inner = inner.distribution
        if isinstance(inner, tfd.Categorical | tfd.OneHotCategorical):
            return {"logits": inner.logits_parameter()}
        if isinstance(inner, tfd.Normal):
            loc = tensorflow.convert_to_tensor(inner.loc)
            return {
                "loc": loc,
                "scale": tensorflow.broadcast_to(inner.scale, tensorflow.shape(loc)),
            }
        raise ConfigError(
            f"--model: {name}() ends in a {type(inner).__name__} ({inner.name}); {_NORMAL_HINT}"
        )
    if not tensorflow.is_tensor(output):
        raise ConfigError(
            f"--model: {name}() gives {type(output).__name__} and not one tensor; return a model "
            "of which the logits are the only output"
        )
    return {"logits": output}


@contextmanager
def fresh_names() -> Iterator[None]:
    """Let Keras number layers from the start, whatever this process has made before."""
    # Draws depend on names, and Keras numbers layers by how many there were.
    backend = importlib.import_module("tf_keras.src.backend")
    counts = dict(backend.PER_GRAPH_OBJECT_NAME_UIDS)
    observed = set(backend.OBSERVED_NAMES)
    # Keras's scratch graph holds on to every variable that it has met, long after its model.
    scratch = getattr(backend._GRAPH, "graph", None)
    backend._GRAPH.graph = None
    backend.reset_uids()
    try:
        yield
    finally:
        backend._GRAPH.graph = scratch
        backend.reset_uids()
        backend.PER_GRAPH_OBJECT_NAME_UIDS.update(counts)
        backend.OBSERVED_NAMES.update(observed)


def _check_kind(name: str, model: Any) -> None:
    kinds = [(base.__module__, base.__name__) for base in type(model).__mro__]
    if any(home.startswith(("keras.src", "keras.engine", "keras.api")) for home, _ in kinds):
        raise ConfigError(
            f"--model: {name}() returns a Keras 3 model; TensorFlow Probability needs tf_keras: "
            "import tf_keras, or set TF_USE_LEGACY_KERAS=1"
        )
    if not any(home.startswith("tf_keras.") and kind == "Model" for home, kind in kinds):
        raise ConfigError(
            f"--model: {name}() returns a {type(model).__name__}; return a tf_keras model"
        )


def _inference(model: Any) -> dict[str, bool]:
    accepted = inspect.signature(model.call).parameters.values()
    takes_it = any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in accepted)
    return {"training": False} if takes_it else {}


def _input_spec(name: str, model: Any) -> Any:
    tensorflow = import_tensorflow()
    inputs = getattr(model, "inputs", None)
    if not inputs:
        saved = model.save_spec()
        inputs = None if saved is None else tensorflow.nest.flatten(saved)
    if not inputs or len(inputs) > 1:
        n_inputs = len(inputs) if inputs else "an unknown number of"
        listed = f" ({', '.join(str(one.name) for one in inputs)})" if inputs else ""
        raise ConfigError(
            f"--model: {name}() takes {n_inputs} inputs{listed}; return a model of one input, "
            "which splits it inside"
        )
    shape = inputs[0].shape
    open_shape = tensorflow.TensorShape([None, *shape[1:]]) if shape.rank else shape
    return tensorflow.TensorSpec(open_shape, inputs[0].dtype, name="x")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
