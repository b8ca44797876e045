"""What a lifted network does first with what it is given: its type, its own scaling, its axes.

What belongs here: reading that from the graph, for the rules by which data are fitted to a network
(``data.fitting``). What does not: those rules, or finding the input (``graph.endpoints``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.fitting import NetworkInput
from ..tensorflow_import import import_graphs
from .lifted import LiftedGraph
from .nodes import (
    SAME_NUMBERS,
    SHAPE_ONLY,
    Node,
    Nodes,
    Tensor,
    ancestors,
    constant,
    consumers,
    parse_graph,
    parse_tensor,
)

_SAME_SIZES = SAME_NUMBERS | {"Cast", "Transpose"}
_STEPPED_OVER = _SAME_SIZES | {
    "Pad", "PadV2", "MirrorPad", "ReverseV2", "StridedSlice", "ResizeBilinear",
    "ResizeNearestNeighbor",
}  # fmt: skip
_LAYOUTS = {b"NH": "channels_last", b"NC": "channels_first", b"ND": "channels_last"}
_SUMS = frozenset({"Sub", "AddV2", "Add", "BiasAdd"})
_LIMITS = frozenset({"Greater", "GreaterEqual", "Less", "LessEqual", "Minimum"})
_ABOUT_255 = 100.0, 512.0
"""A factor of 1/255, or of 1/127.5 as for images in [-1, 1], and of what is near."""
_MOST_OF_SCALED = 1.5
"""No mean and no variance of what has been divided by 255 is larger."""


def network_input(lifted: LiftedGraph, fixed: Mapping[str, NDArray[Any]]) -> NetworkInput:
    """What a network takes, and what it does with it before anything else.

    Parameters
    ----------
    fixed : mapping of str to array
        Value of every deterministic variable.
    """
    nodes = parse_graph(import_graphs().GraphDef.FromString(lifted.graph_def))
    fed = lifted.fixed_tensors.items()
    values = {parse_tensor(tensor)[0]: fixed[name] for name, tensor in fed if name in fixed}
    takers = consumers(nodes, nodes)
    at, shape = parse_tensor(lifted.input_tensor)[0], lifted.input_shape
    is_flat = shape is not None and len(shape) == 2
    image: tuple[int, ...] | None = None
    own_scaling = ""
    while True:
        users = [user for user in takers.get(at, ()) if nodes[user[0]].op not in SHAPE_ONLY]
        if len(users) != 1:
            break
        name, position = users[0]
        node = nodes[name]
        if node.op == "Cast" and _is_integer(node.attr["DstT"].type):
            own_scaling = "rounds to integers first"
            break
        if node.op not in _STEPPED_OVER or position != 0:
            own_scaling = _scaling_of(nodes, node, position, values)
            break
        if node.op == "Reshape" and is_flat and image is None:
            image = _image_of(nodes, node)
        at = name
    return NetworkInput(
        shape=shape,
        dtype=lifted.input_dtype,
        own_scaling=own_scaling,
        flat_image=image,
        layout=_layout_of(nodes, takers, parse_tensor(lifted.input_tensor)[0]),
    )


def _is_integer(dtype: int) -> bool:
    return bool(import_graphs().as_dtype(dtype).is_integer)


def _scaling_of(nodes: Nodes, node: Node, position: int, values: Mapping[str, NDArray[Any]]) -> str:
    """How the first operation on the examples scales them from bytes, in words."""
    low, high = _ABOUT_255
    if node.op.startswith("FusedBatchNorm") and position == 0:
        mean = _value(nodes, node.inputs[3], values)
        if mean is not None and np.abs(mean).max(initial=0) > _MOST_OF_SCALED:
            return f"normalizes by means of up to {np.abs(mean).max():.4g} first"
    of_two = {"Mul", "RealDiv", "Div", *_SUMS, *_LIMITS}
    if node.op not in of_two or len(node.inputs) != 2:
        return ""
    found = _value(nodes, node.inputs[1 - position], values)
    if found is None and node.op == "Mul":
        variance = _variance(nodes, node.inputs[1 - position], values)
        if variance > _MOST_OF_SCALED:
            return f"normalizes by variances of up to {variance:.4g} first"
    if found is None or not found.size or found.dtype.kind not in "iuf":
        return ""
    sizes = np.abs(found.astype(np.float64))
    if node.op == "Mul" and ((sizes >= 1 / high) & (sizes <= 1 / low)).all():
        return f"multiplies by {found.flat[0]:.4g} first"
    if node.op in ("RealDiv", "Div") and position == 0 and ((sizes >= low) & (sizes <= high)).all():
        return f"divides by {found.flat[0]:.4g} first"
    if node.op in _SUMS and position == 0 and sizes.max() > _MOST_OF_SCALED:
        return f"subtracts means of up to {sizes.max():.4g} first"
    if node.op in _LIMITS and sizes.max() > _MOST_OF_SCALED:
        return f"compares with {sizes.max():.4g} first"
    return ""


def _value(nodes: Nodes, tensor: Tensor, values: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Value of a constant or a deterministic variable, through operations that keep numbers."""
    while nodes[tensor[0]].op in _SAME_SIZES:
        tensor = nodes[tensor[0]].inputs[0]
    return values[tensor[0]] if tensor[0] in values else constant(nodes, tensor)


def _variance(nodes: Nodes, tensor: Tensor, values: Mapping[str, NDArray[Any]]) -> float:
    """Largest variable whose root divides, as in batch normalization; 0 where there is none."""
    roots = [name for name in ancestors(nodes, [tensor]) if nodes[name].op in ("Rsqrt", "Sqrt")]
    behind = {name for root in roots for name in ancestors(nodes, nodes[root].inputs)}
    return max((float(values[name].max(initial=0)) for name in behind & values.keys()), default=0)


def _image_of(nodes: Nodes, node: Node) -> tuple[int, ...] | None:
    """Axes that flat rows are given, the examples' axis left out; None where they are not plain."""
    shape = constant(nodes, node.inputs[1])
    if shape is None:
        # As Keras writes it: the number of examples from the input, the rest as constants.
        pack = nodes[node.inputs[1][0]]
        parts = [constant(nodes, part) for part in pack.inputs[1:]] if pack.op == "Pack" else [None]
        if any(part is None for part in parts):
            return None
        sizes = [int(part) for part in parts if part is not None]
    else:
        sizes = [int(size) for size in shape.ravel()[1:]]
    return tuple(sizes) if len(sizes) > 1 and min(sizes) > 0 else None


def _layout_of(nodes: Nodes, takers: Mapping[str, list[tuple[str, int]]], start: str) -> str:
    """Where the first operation with such a choice has its channels."""
    waiting, seen = [start], {start}
    while waiting:
        at = waiting.pop(0)
        node = nodes[at]
        if "data_format" in node.attr and node.op.startswith(("Conv", "Depthwise")):
            return _LAYOUTS.get(node.attr["data_format"].s[:2], "")
        for user, _ in takers.get(at, ()):
            if user not in seen:
                seen.add(user)
                waiting.append(user)
    return ""
