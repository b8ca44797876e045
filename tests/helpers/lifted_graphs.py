"""Lifted graphs that are written by hand, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bprune_hpc.graph.layer_search import find_layers
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.graph.nodes import parse_graph, parse_tensor
from bprune_hpc.tensorflow_import import import_tensorflow

Build = Callable[[Any, Any, Mapping[str, Any]], Any]

SHAPES = {
    "k0": (3, 3, 2, 8), "b0": (8,), "k1": (3, 3, 8, 6), "b1": (6,), "k2": (24, 5), "b2": (5,),
    "d0": (16, 7), "d1": (7, 3), "e0": (7,),
}  # fmt: skip


def lifted(
    build: Build,
    shape: tuple[int, ...],
    posterior: set[str],
    used: list[str],
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    fixed: Mapping[str, Any] | None = None,
) -> LiftedGraph:
    """A graph written by hand; weights are fed by their names, some of known values."""
    tensorflow = import_tensorflow()
    placeholder = tensorflow.compat.v1.placeholder
    with tensorflow.Graph().as_default() as graph:
        x = placeholder(tensorflow.float32, (None, *shape), name="x")
        weights = {name: placeholder(tensorflow.float32, shapes[name], name=name) for name in used}
        output = tensorflow.identity(build(tensorflow, x, weights), name="logits")
        graph_def = graph.as_graph_def()
    found = find_layers(
        graph_def, parse_graph(graph_def), parse_tensor("x:0"), parse_tensor("logits:0"),
        {name: name for name in used}, fixed or {},
    )  # fmt: skip
    return LiftedGraph(
        graph_def=graph_def.SerializeToString(), input_tensor="x:0", input_shape=(None, *shape),
        input_dtype="float32", output_tensor="logits:0",
        output_shape=tuple(output.shape.as_list()),
        loc_tensors={name: f"{name}:0" for name in used if name in posterior},
        fixed_tensors={name: f"{name}:0" for name in used if name not in posterior}, layers=found,
    )  # fmt: skip
