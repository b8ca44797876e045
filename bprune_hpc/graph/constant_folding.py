"""Evaluates the weights' side of a graph: means and scales, with the noise set to a number.

What belongs here: importing nodes into TensorFlow for shapes, types and values that do not depend
on the input. What does not: the network itself (``graph.lifted``), deciding what to evaluate
(``graph.noise_removal``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from ..tensorflow_import import MOST_AXES, import_graphs, open_session, quiet_file_descriptor_2
from .blockwise_folding import elementwise
from .nodes import (
    NORMALS,
    Node,
    Nodes,
    Tensor,
    ancestors,
    placeholder_node,
    tensor_name,
    typed_node,
)
from .shapes import shape_vectors
from .source import VariableValues

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
    names : mapping of str to str
        Stored name of each variable, by node.
    values : VariableValues
        By stored name; only those are read that a tensor depends on.
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
        names: Mapping[str, str],
        values: VariableValues,
        build: Callable[[Iterable[Node]], Any],
        label: str,
        threads: tuple[int, int],
    ) -> None:
        for some, vectors in shape_vectors(nodes):
            _check_lengths(import_graph(build(some), label), vectors, label)
        self._nodes = dict(nodes)
        self._names = dict(names)
        self._values = values
        self._build = build
        self._graph = import_graph(build(_with_noise_level(nodes)), label)
        self._label = label
        self._threads = threads

    def static_type(self, tensor: Tensor) -> StaticType:
        """Shape and type of a tensor as far as they are known."""
        return static_type(self._graph, tensor)

    def behind(self, tensor: Tensor) -> dict[str, str]:
        """Stored names of the variables that a tensor is computed from, by node."""
        return {
            name: self._names[name]
            for name in ancestors(self._nodes, [tensor])
            if name in self._names
        }

    def __call__(self, tensor: Tensor, noise: float = 0.0, is_scalar: bool = False) -> NDArray[Any]:
        """Value of a tensor where every standard normal equals ``noise``.

        With ``is_scalar`` the normals are one number without axes, which saves the memory of as
        many as there are weights; what depends on their shape is then another or cannot be had.
        """
        error_type = import_graphs().OpError
        feeds: dict[str, Any] = {
            f"{node}:0": self._values[name] for node, name in self.behind(tensor).items()
        }
        feeds[f"{_NOISE_LEVEL}:0"] = np.float64(noise)
        behind = {name: self._nodes[name] for name in ancestors(self._nodes, [tensor])}
        graph = import_graph(self._build(_with_noise_level(behind, is_scalar)), self._label)
        try:
            # A session keeps the constants that it folds, which are as large as the weights: each
            # has only the nodes that it needs, does not optimize them, and goes at once.
            with (
                quiet_file_descriptor_2(),
                open_session(graph, *self._threads, is_optimized=False) as session,
            ):
                return np.asarray(session.run(tensor_name(tensor), feeds))
        except error_type as error:
            raise GraphError(
                f"{self._label}: '{tensor_name(tensor)}' cannot be evaluated: "
                f"{' '.join(error.message.split())[:200]}; export the graph again"
            ) from error

    @contextmanager
    def function(
        self, tensors: Sequence[Tensor]
    ) -> Iterator[Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]]:
        """Tensors as a function of the variables, by stored name, where every normal equals 1."""
        behind = {name: self._nodes[name] for name in ancestors(self._nodes, tensors)}
        names = {node: self._names[node] for node in behind if node in self._names}
        graph = import_graph(self._build(_with_noise_level(behind)), self._label)
        with open_session(graph, *self._threads, is_optimized=False) as session:

            def call(values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
                feeds: dict[str, Any] = {f"{node}:0": values[name] for node, name in names.items()}
                feeds[f"{_NOISE_LEVEL}:0"] = np.float64(1.0)
                with quiet_file_descriptor_2():
                    found = session.run([tensor_name(tensor) for tensor in tensors], feeds)
                return [np.asarray(one) for one in found]

            yield call

    def size(self, tensor: Tensor) -> int | None:
        """Number of a tensor's elements, None where it is not known without evaluating it."""
        shape = self.static_type(tensor).shape
        if shape is None or None in shape:
            return None
        return math.prod(size for size in shape if size is not None)

    def in_blocks(
        self,
        tensor: Tensor,
        levels: Sequence[float],
        take: Callable[[slice, list[NDArray[Any]]], None],
    ) -> bool:
        """Give ``take`` flat parts of a tensor's values, one array for each level of noise.

        False where the tensor is not computed number by number; see
        ``graph.blockwise_folding``.
        """
        flat = elementwise(self._nodes, self._names, tensor, self.size, _NOISE_LEVEL)
        if flat is None:
            return False
        level = placeholder_node(_NOISE_LEVEL, import_graphs().float64.as_datatype_enum, ())
        graph = import_graph(self._build([level, *flat.nodes]), self._label)
        values = [self._values[self._names[name]].reshape(-1) for name in flat.variables]
        with (
            quiet_file_descriptor_2(),
            open_session(graph, *self._threads, is_optimized=False) as session,
        ):
            fed = [f"{_NOISE_LEVEL}:0", *(f"{name}:0" for name in flat.variables)]
            call = session.make_callable(tensor_name(flat.tensor), fed)
            for part in flat.blocks():
                feeds = [value[part] for value in values]
                take(part, [np.asarray(call(np.float64(noise), *feeds)) for noise in levels])
            # TensorFlow lets go of what it was fed when it is called the next time.
            call(np.float64(0.0), *(value[:0].copy() for value in values))
        return True


def import_graph(graph_def: Any, label: str) -> Any:
    """A tf.Graph of a GraphDef.

    Raises
    ------
    GraphError
        If TensorFlow refuses it.
    """
    tensorflow = import_graphs()
    graph = tensorflow.Graph()
    try:
        with graph.as_default():
            tensorflow.import_graph_def(graph_def, name="")
    except (ValueError, tensorflow.OpError) as error:
        raise GraphError(
            f"{label}: TensorFlow {tensorflow.VERSION} cannot import the graph: "
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


def _check_lengths(graph: Any, vectors: Sequence[tuple[str, Tensor]], label: str) -> None:
    """Refuse vectors that would make a shape of more axes than a tensor can have."""
    for taker, tensor in vectors:
        known = static_type(graph, tensor).shape or ()
        n_axes = math.prod(size or 0 for size in known)
        if n_axes > MOST_AXES:
            raise GraphError(
                f"{label}: '{taker}' takes a shape of {n_axes} axes from '{tensor_name(tensor)}', "
                f"and no tensor has more than {MOST_AXES}; the file is damaged: copy it again"
            )


def _with_noise_level(nodes: Nodes, is_scalar: bool = False) -> list[Node]:
    float64 = import_graphs().float64.as_datatype_enum
    changed = [placeholder_node(_NOISE_LEVEL, float64, ())]
    for node in nodes.values():
        if node.op not in NORMALS:
            changed.append(node)
            continue
        dtype = node.attr["dtype"].type
        index = node.attr["Tshape" if "Tshape" in node.attr else "T"].type
        level = f"{_NOISE_LEVEL}/{node.name}"
        changed.append(typed_node(level, "Cast", [(_NOISE_LEVEL, 0)], SrcT=float64, DstT=dtype))
        if is_scalar:
            changed.append(typed_node(node.name, "Identity", [(level, 0)], T=dtype))
            continue
        inputs = [node.inputs[0], (level, 0)]
        changed.append(typed_node(node.name, "Fill", inputs, T=dtype, index_type=index))
    return changed
