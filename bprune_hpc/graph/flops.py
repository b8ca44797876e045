"""How many multiplications the products of a network take, read off its graph.

Matrix products and convolutions are counted, of one example at one draw; what else a network does
is little beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tensorflow_import import import_graphs, open_session, quiet_file_descriptor_2
from .lifted import LiftedGraph

_MATRIX_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
_CONVOLUTIONS = frozenset({"Conv2D", "Conv3D", "DepthwiseConv2dNative"})
_TRANSPOSED = frozenset({"Conv2DBackpropInput", "Conv3DBackpropInputV2"})
PRODUCTS = _MATRIX_PRODUCTS | _CONVOLUTIONS | _TRANSPOSED


def multiplications(
    lifted: LiftedGraph, x: NDArray[Any], weights: Mapping[str, NDArray[Any]]
) -> int:
    """Multiplications (each with its addition) of one draw for one example.

    Parameters
    ----------
    x : array, shape (1, ...)
        An example.
    weights : mapping of str to array
        Value of every variable, mean-field or not, by the names of the lifted graph.
    """
    tensorflow = import_graphs()
    graph = tensorflow.Graph()
    with graph.as_default():
        definition = tensorflow.GraphDef.FromString(lifted.graph_def)
        tensorflow.import_graph_def(definition, name="")
        operations = [one for one in graph.get_operations() if one.type in PRODUCTS]
        shapes = [
            [tensorflow.shape(tensor) for tensor in (*one.inputs[:3], one.outputs[0])]
            for one in operations
        ]
    feeds = {lifted.input_tensor: np.asarray(x, lifted.input_dtype)}
    for names in (lifted.loc_tensors, lifted.fixed_tensors):
        feeds |= {tensor: weights[name] for name, tensor in names.items()}
    with quiet_file_descriptor_2(), open_session(graph, 1, 1, is_optimized=False) as session:
        found = session.run(shapes, feeds)
    return sum(
        _multiplications(
            operation.type,
            [tuple(int(size) for size in shape) for shape in of_operation],
            any(_is_set(operation, name) for name in ("transpose_a", "adj_x")),
        )
        for operation, of_operation in zip(operations, found, strict=True)
    )


def _is_set(operation: Any, name: str) -> bool:
    return name in operation.node_def.attr and bool(operation.get_attr(name))


def _multiplications(kind: str, shapes: Sequence[tuple[int, ...]], is_transposed: bool) -> int:
    """Of one operation, from the shapes of its inputs and, last, of its output."""
    output = math.prod(shapes[-1])
    if kind in _MATRIX_PRODUCTS:
        return output * shapes[0][-2 if is_transposed else -1]
    kernel = shapes[1]  # (..., in, out)
    if kind == "DepthwiseConv2dNative":
        return output * math.prod(kernel[:-2])
    if kind in _TRANSPOSED:  # sizes of the output, kernel (..., out, in), what is spread out
        return math.prod(shapes[2]) * math.prod(kernel[:-1])
    return output * math.prod(kernel[:-1])
