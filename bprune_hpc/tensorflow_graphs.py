"""The part of TensorFlow that reads, changes and runs graphs: a third of the time of the whole.

Its modules are imported one by one, with a stand-in for the package ``tensorflow`` whose own
import loads all of it. The stand-in is gone when they are there: who imports TensorFlow then, in
the same process, gets all of it, with these modules as its own.

What belongs here: where TensorFlow keeps what is used of it. What does not: using it; the door to
it is ``tensorflow_import``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

Homes = Mapping[str, Sequence[str]]
"""Modules of TensorFlow, and what is used of each; after a colon, under which name."""

GRAPHS: Homes = {
    "core.framework.attr_value_pb2": ["AttrValue"],
    "core.framework.graph_pb2": ["GraphDef"],
    "core.protobuf.config_pb2": ["CallableOptions", "ConfigProto"],
    "core.protobuf.meta_graph_pb2": ["MetaGraphDef"],
    "core.protobuf.tensor_bundle_pb2": ["BundleEntryProto"],
    "python.client.session": ["Session"],
    "python.framework.constant_op": ["constant"],
    "python.framework.dtypes": ["as_dtype", "float32", "float64", "resource", "variant"],
    "python.framework.errors_impl": ["OpError"],
    "python.framework.importer": ["import_graph_def"],
    "python.framework.op_def_registry": ["get:op_def_of"],
    "python.framework.ops": ["Graph"],
    "python.framework.tensor_shape": ["TensorShape"],
    "python.framework.tensor_util": ["MakeNdarray:make_ndarray", "make_tensor_proto"],
    "python.framework.versions": ["VERSION"],
    "python.ops.array_ops": ["concat", "placeholder", "reshape", "shape"],
    "python.ops.gen_array_ops": ["broadcast_to"],
    "python.ops.gen_math_ops": ["is_finite"],
    "python.ops.math_ops": ["cast", "matmul", "reduce_all"],
    "python.training.py_checkpoint_reader": ["NewCheckpointReader:open_checkpoint"],
}
LAYERS: Homes = {
    "python.ops.gen_nn_ops": ["elu", "relu", "softplus"],
    "python.ops.math_ops": ["sigmoid", "tanh"],
    "python.ops.nn_ops": ["avg_pool2d", "bias_add", "conv2d_v2:conv2d", "max_pool2d", "relu6"],
}
"""For networks that are built here."""

_PACKAGE = "tensorflow"
_PLUGIN_VARIABLE = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"
_PLUGIN_DIRECTORY = "tensorflow-plugins"


def load(homes: Homes) -> dict[str, Any]:
    """Import a part, or take it from a TensorFlow that is there.

    With plugins, which only the whole loads, that is imported.

    Returns
    -------
    found : dict of str to object
        What is used, by its name.

    Raises
    ------
    ImportError
        If TensorFlow is not there, or cannot be loaded.
    AttributeError
        If it is a TensorFlow that keeps something elsewhere.
    """
    found: dict[str, Any] = {}
    with _stand_in():
        importlib.import_module(f"{_PACKAGE}.python.tf2").enable()  # as its own import begins
        for home, names in homes.items():
            module = importlib.import_module(f"{_PACKAGE}.{home}")
            for name in names:
                there, _, here = name.partition(":")
                found[here or there] = getattr(module, there)
    return found


class _StandIn(ModuleType):
    """What another thread has got that imports TensorFlow meanwhile: the whole, once it asks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or sys.modules.get(_PACKAGE) is self:
            raise AttributeError(name)
        return getattr(importlib.import_module(_PACKAGE), name)


@contextmanager
def _stand_in() -> Iterator[None]:
    """Let ``tensorflow.x`` be imported without ``tensorflow``, where that is not there yet."""
    if _PACKAGE not in sys.modules and _has_plugins():
        importlib.import_module(_PACKAGE)
    if _PACKAGE in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named '{_PACKAGE}'", name=_PACKAGE)
    package = _StandIn(_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = package
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


def _has_plugins() -> bool:
    directories = {site.getusersitepackages(), *site.getsitepackages(), *sys.path}
    return bool(os.environ.get(_PLUGIN_VARIABLE)) or any(
        Path(directory, _PLUGIN_DIRECTORY).exists() for directory in directories
    )
