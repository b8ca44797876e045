"""Evaluates the weights' side of a graph: means and scales, with the noise set to a number.

What belongs here: importing nodes into TensorFlow for shapes, types and values that do not depend
on the input. What does not: the network itself (``network``), deciding what to evaluate
(``noise_removal``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dependence import NORMALS
from .errors import GraphError
from .graph_nodes import (
    Node,
    Nodes,
    Tensor,
    placeholder_node,
    tensor_name,
    typed_node,
)
from .tensorflow_import import (
    import_tensorflow,
    open_session,
    quiet_file_descriptor_2,
)

_NOISE_LEVEL = "noise_level"


@dataclass(frozen=True)
class StaticType:
    """What is known of a tensor before it is computed; ``shape`` None: not even its rank."""

    shape: tuple[int | None, ...] | None
    dtype: str
    dtype_enum: int


class Evaluator:
    """Values of tensors that depend on variables alone, apart from noise.

    Parameters
    ----------
    nodes : dict of str to Node
        The uncut graph; variables are placeholders in it.
    values : mapping of str to array
        Value of each variable, by node.
    build : callable
        Makes a GraphDef of nodes.
    label : str
        What error messages call the graph.
    threads : tuple of int
        Within and between operations.
    """

    def __init__(
        self,
        nodes: Nodes,
        values: Mapping[str, NDArray[Any]],
        build: Callable[[Iterable[Node]], Any],
        label: str,
        threads: tuple[int, int],
    ) -> None:
        self._feeds = {f"{name}:0": value for name, value in values.items()}
        self._graph = import_graph(build(_with_noise_level(nodes)), label)
        self._session = open_session(self._graph, *threads)
        self._label = label

    def static_type(self, tensor: Tensor) -> StaticType:
        """Shape and type of a tensor as far as they are known."""
        return static_type(self._graph, tensor)

    def __call__(self, tensor: Tensor, noise: float = 0.0) -> NDArray[Any]:
        """Value of a tensor where every standard normal equals ``noise``."""
        error_type = import_tensorflow().errors.OpError
        feeds = {**self._feeds, f"{_NOISE_LEVEL}:0": np.float64(noise)}
        try:
            with quiet_file_descriptor_2():
                return np.asarray(self._session.run(tensor_name(tensor), feeds))
        except error_type as error:
            raise GraphError(
                f"{self._label}: '{tensor_name(tensor)}' cannot be evaluated: "
                f"{' '.join(error.message.split())[:200]}; export the graph again"
            ) from error


def import_graph(graph_def: Any, label: str) -> Any:
    """A tf.Graph of a GraphDef.

    Raises
    ------
    GraphError
        If TensorFlow refuses it.
    """
    tensorflow = import_tensorflow()
    graph = tensorflow.Graph()
    try:
        with graph.as_default():
            tensorflow.import_graph_def(graph_def, name="")
    except (ValueError, tensorflow.errors.OpError) as error:
        raise GraphError(
            f"{label}: TensorFlow {tensorflow.__version__} cannot import the graph: "
            f"{' '.join(str(error).split())[:200]}; export it again"
        ) from error
    return graph


def static_types(
    graph_def: Any, tensors: Collection[Tensor], label: str
) -> dict[Tensor, StaticType]:
    """Shapes and types of some tensors of a GraphDef."""
    graph = import_graph(graph_def, label)
    return {tensor: static_type(graph, tensor) for tensor in tensors}


def static_type(graph: Any, tensor: Tensor) -> StaticType:
    """Shape and type of a tensor of a tf.Graph."""
    found = graph.get_tensor_by_name(tensor_name(tensor))
    shape = None if found.shape.rank is None else tuple(found.shape.as_list())
    dtype = found.dtype.base_dtype
    return StaticType(shape, dtype.name, dtype.as_datatype_enum)


def _with_noise_level(nodes: Nodes) -> list[Node]:
    float64 = import_tensorflow().float64.as_datatype_enum
    changed = [placeholder_node(_NOISE_LEVEL, float64, ())]
    for node in nodes.values():
        if node.op not in NORMALS:
            changed.append(node)
            continue
        dtype = node.attr["dtype"].type
        index = node.attr["Tshape" if "Tshape" in node.attr else "T"].type
        level = f"{_NOISE_LEVEL}/{node.name}"
        changed.append(typed_node(level, "Cast", [(_NOISE_LEVEL, 0)], SrcT=float64, DstT=dtype))
        inputs = [node.inputs[0], (level, 0)]
        changed.append(typed_node(node.name, "Fill", inputs, T=dtype, index_type=index))
    return changed
