"""Builds a user's Keras model and turns its call, at inference, into a graph.

What belongs here: importing what ``--model`` names, building, tracing. What does not: weights
(``checkpoints.keras``, ``checkpoints.tf2``), lifting (``graph.lifting``).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ..errors import ConfigError, InstallationError, is_own
from ..graph.nodes import Node, constant_node
from ..graph.source import Endpoints
from ..tensorflow_import import (
    check_probability,
    import_probability,
    import_tensorflow,
    import_variables,
    limit_threads,
)

_HINT = (
    "end the model in a Categorical, OneHotCategorical, Bernoulli of one label, Normal, "
    "Independent(Normal) or MultivariateNormalDiag"
)

Loaded = TypeVar("Loaded")
ExampleShape = Callable[[], tuple[int, ...]]
"""Gives the shape of an example of the data, without their axis, once it is needed."""


@dataclass(frozen=True)
class Builder:
    """What builds a model.

    Attributes
    ----------
    model : str or callable
        ``MODULE:FUNCTION``, ``FILE.py:FUNCTION``, or the function itself.
    example_shape : callable, optional
        For models that do not say what shape they take.
    n_intra, n_inter : int
        TensorFlow threads of this process.
    """

    model: str | Callable[[], Any]
    example_shape: ExampleShape | None = None
    n_intra: int = 1
    n_inter: int = 1

    @property
    def name(self) -> str:
        """What messages call it."""
        if isinstance(self.model, str):
            return self.model
        return getattr(self.model, "__qualname__", type(self.model).__name__)


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


def load_and_trace(
    builder: Builder, load: Callable[[Any, bool], Loaded]
) -> tuple[Any, Loaded, Traced]:
    """Build a model, load its weights, let its layers finish what follows from them, and trace it.

    At first variables take no memory and cannot be read. Where anything reads one (a layer that
    computes constants from its weights, say), all is done again with values in them.

    Parameters
    ----------
    builder : Builder
    load : callable
        Takes the model and whether its variables have values, which it then has to set. Whatever
        it raises of a model without values has it called again with one that has them.

    Returns
    -------
    model : tf_keras.Model
    loaded
        What ``load`` gave.
    traced : Traced

    Raises
    ------
    ConfigError
        If the model cannot be built or traced.
    Exception
        Whatever ``load`` raises.
    """
    function = _imported(builder)
    with contextlib.suppress(Exception):
        with _no_values():
            model = _built(builder, function)
        return model, *_loaded(builder.name, model, load, False)
    model = _built(builder, function)
    return model, *_loaded(builder.name, model, load, True)


def _loaded(
    name: str, model: Any, load: Callable[[Any, bool], Loaded], has_values: bool
) -> tuple[Loaded, Traced]:
    loaded = load(model, has_values)
    for layer in model._flatten_layers():
        layer.finalize_state()
    return loaded, trace(name, model)


def build_model(model: str | Callable[[], Any], example_shape: ExampleShape | None = None) -> Any:
    """Call a user's function without an argument, and build the model that it returns.

    Parameters
    ----------
    model, example_shape
        See :class:`Builder`.

    Returns
    -------
    tf_keras.Model
        With its variables; built from its Input layer, from the data it was called on, from an
        attribute ``input_shape`` (without the axis of examples) of its class or of the function, or
        from the shape of the data.

    Raises
    ------
    ConfigError
        If there is no such function, it fails, or what it returns cannot be built.
    """
    builder = Builder(model, example_shape)
    return _built(builder, _imported(builder))


def _imported(builder: Builder) -> Callable[[], Any]:
    limit_threads(builder.n_intra, builder.n_inter)
    name = builder.model
    if not isinstance(name, str):
        return name
    module_name, _, function_name = name.rpartition(":")
    if not module_name or not function_name:
        raise ConfigError(f"--model: '{name}' is not MODULE:FUNCTION or FILE.py:FUNCTION")
    import_tensorflow()
    with _of_user(
        f"--model: {module_name} cannot be imported",
        "; start in its directory, add that to PYTHONPATH, or name the file, PATH/FILE.py:FUNCTION",
    ):
        module = _module_of(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"--model: {module_name} has no function '{function_name}'")
    return function  # type: ignore[no-any-return]


def _module_of(name: str) -> ModuleType:
    """A module by its name, looked for in the current directory too, or by its file."""
    if not name.endswith(".py"):
        _add_to_path(os.getcwd())
        return importlib.import_module(name)
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"--model: {name}: no such file; check the path")
    _add_to_path(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    finally:
        if before is not None:
            sys.modules[path.stem] = before
        else:
            del sys.modules[path.stem]
    return module


def _add_to_path(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _built(builder: Builder, function: Callable[[], Any]) -> Any:
    name = builder.name
    fix = "; it has to return a model without arguments"
    with _of_user(f"--model: {name}() failed", fix), fresh_names():
        model = function()
    _check_kind(name, model)
    if not model.built:
        shape = _shape_of(builder, model, function)
        said = f"--model: {name}() cannot be built from examples of shape {shape}"
        with _of_user(said), fresh_names():
            model(import_tensorflow().keras.Input(shape), **_inference(model))
    return model


def _shape_of(builder: Builder, model: Any, function: Any) -> tuple[int, ...]:
    """Shape of an example for a model that is not built."""
    for owner in (type(model), function):
        shape = getattr(owner, "input_shape", None)
        if isinstance(shape, tuple | list):
            return tuple(shape)
    if builder.example_shape is None:
        name = builder.name
        raise ConfigError(
            f"--model: {name}() returns a model of unknown input shape; start it with an Input "
            f"layer, or set {name.rpartition(':')[2]}.input_shape = "
            "(without the axis of examples)"
        )
    return builder.example_shape()


@lru_cache
def _unset_variables() -> Any:
    """The class of variables that have no value, and raise where they are read without one."""
    tensorflow = import_tensorflow()

    class UnsetVariable(import_variables().UninitializedVariable):  # type: ignore[misc]
        # TensorFlow gives an array of no elements, of which much can be computed.
        def _read_variable_op(self, *arguments: Any, **keywords: Any) -> Any:
            if tensorflow.executing_eagerly() and not self.is_initialized():
                raise ValueError(f"'{self.name}' has no value")
            return super()._read_variable_op(*arguments, **keywords)

    return UnsetVariable


@contextmanager
def _no_values() -> Iterator[None]:
    tensorflow = import_tensorflow()
    unset = _unset_variables()

    def create(make: Callable[..., Any], **keywords: Any) -> Any:
        shape = tensorflow.TensorShape(keywords.get("shape"))
        if not shape.is_fully_defined() or keywords.get("dtype") is None:
            return make(**keywords)
        taken = ("trainable", "name", "dtype", "constraint", "synchronization", "aggregation")
        kept = {key: keywords[key] for key in taken if key in keywords}
        return unset(shape=shape, **kept)

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


def types_of(model: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each of a built model's variables, by name."""
    found = variables_by_name(model)
    return {name: (tuple(v.shape), v.dtype.name) for name, v in found.items()}


def check_model(model: Any) -> None:
    """Refuse a model that was handed over and is none, or has no variables yet.

    Raises
    ------
    ConfigError
    """
    name = getattr(model, "name", type(model).__name__)
    _check_kind(name, model)
    if not model.built:
        raise ConfigError(f"{name}: the model is not built; call it on some examples first")


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
    told: list[tuple[tuple[str, ...], str | None]] = []

    def call(x: Any) -> Any:
        outputs, kind = _parameters(name, model(x, **keywords))
        told.append((tuple(outputs), kind))
        return [tensorflow.identity(value) for value in outputs.values()]

    with _of_user(f"--model: {name}() cannot be called"):
        concrete = tensorflow.function(call, autograph=False).get_concrete_function(spec)
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
    names_of_outputs, output_kind = told[-1]
    ends = dict(zip(names_of_outputs, (output.name for output in concrete.outputs), strict=True))
    return Traced(
        graph_def,
        handles,
        Endpoints(given, ends.get("logits"), ends.get("loc"), ends.get("scale"), output_kind),
    )


def _constant(name: str, value: Any) -> Node:
    """A Const node; one number stands for all where they are equal, as a prior's zeros are."""
    if value.size < 2 or (value != value.flat[0]).any():
        return constant_node(name, value)
    node = constant_node(name, value.flat[0])
    shape = import_tensorflow().TensorShape(value.shape).as_proto()
    node.attr["value"].tensor.tensor_shape.CopyFrom(shape)
    return node


def _parameters(name: str, output: Any) -> tuple[dict[str, Any], str | None]:
    """What a model returns, as named tensors, and of which kind it says that these are."""
    tensorflow, tfd = import_tensorflow(), import_probability().distributions
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
            logits = inner.logits_parameter()
            if logits.shape[-1] == 1:
                raise ConfigError(
                    f"--model: {name}() ends in a {type(inner).__name__} of one class, which is "
                    "always that; end a network of two classes in a Bernoulli, or in two logits"
                )
            return {"logits": logits}, "logits"
        if isinstance(inner, tfd.Bernoulli):
            return _of_one_label(name, inner)
        if isinstance(inner, tfd.Normal):
            loc = tensorflow.convert_to_tensor(inner.loc)
            scale = tensorflow.broadcast_to(inner.scale, tensorflow.shape(loc))
            return {"loc": loc, "scale": scale}, None
        if isinstance(inner, tfd.MultivariateNormalDiag):
            return {"loc": inner.mean(), "scale": inner.stddev()}, None
        raise ConfigError(
            f"--model: {name}() ends in a {type(inner).__name__} ({inner.name}); {_HINT}"
        )
    if not tensorflow.is_tensor(output):
        raise ConfigError(
            f"--model: {name}() gives {type(output).__name__} and not one tensor; return a model "
            "of which the logits are the only output"
        )
    return {"logits": output}, None


def _of_one_label(name: str, bernoulli: Any) -> tuple[dict[str, Any], str | None]:
    # Of the two parameters the one that is given: the other may be infinite where it is 0 or 1.
    given = bernoulli.probs if bernoulli.logits is None else bernoulli.logits
    if given.shape.rank is None or any(size != 1 for size in given.shape[1:]):
        raise ConfigError(
            f"--model: {name}() ends in a Bernoulli of several labels, of shape {given.shape}; "
            f"labels that do not exclude each other are not supported: {_HINT}"
        )
    # Probabilities are looked behind for the logits that they are of.
    return {"logits": given}, "logits" if bernoulli.probs is None else "probabilities"


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


@contextmanager
def _of_user(finding: str, fix: str = "") -> Iterator[None]:
    """Refuse in one line what code of the user's raises; errors in our own go through."""
    try:
        yield
    except (ConfigError, InstallationError):
        raise
    except Exception as error:
        if is_own(error):
            raise
        if isinstance(error, ImportError):
            check_probability()
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(f"{finding}: {said}{fix}") from error
