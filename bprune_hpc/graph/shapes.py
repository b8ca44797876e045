"""The vectors of a graph that say what shape something has, in an order to check them in.

TensorFlow takes such a vector at its word while it imports a graph: one of a million numbers, which
a few bytes can declare or compute, becomes a shape of a million axes, and takes gigabytes. What
belongs here: which tensors these are, and what they depend on. What does not: asking TensorFlow how
long they are (``graph.constant_folding``).
"""

from __future__ import annotations

from collections.abc import Iterator

from .nodes import Node, Nodes, Tensor, ancestors, operation, placeholder_node

_SAYS_SHAPE = frozenset(
    {"dense_shape", "dims", "element_shape", "filter_sizes", "input_sizes", "multiples",
     "orig_input_shape", "output_shape", "shape"}
)  # fmt: skip
"""Names of inputs, as operations are defined, from whose values a shape is made."""

# Their own values have few numbers, whatever comes in.
_ENDS = frozenset({"Rank", "Shape", "ShapeN", "Size"})


def shape_vectors(nodes: Nodes) -> Iterator[tuple[list[Node], list[tuple[str, Tensor]]]]:
    """Vectors that say shapes, in steps: what one step's depend on has been checked before.

    Yields
    ------
    nodes : list of Node
        All that the vectors of this step are computed from, and nothing else.
    vectors : list of (str, Tensor)
        Each with the node that takes it for a shape.
    """
    wanted = [(name, tensor) for name, node in nodes.items() for tensor in _taken(node)]
    if not wanted:
        return
    cut = dict(nodes)
    for name, node in nodes.items():
        if node.op in _ENDS:
            dtype = node.attr["T"].type
            open_end = placeholder_node(f"{name}/any", dtype)
            cut[open_end.name] = open_end
            cut[name] = Node(name, node.op, [(open_end.name, 0)] * len(node.inputs), [], node.attr)
    order = ancestors(cut, [tensor for _, tensor in wanted])
    step_of: dict[str, int] = {}
    for name in order:
        taken = set(_taken(cut[name]))
        step_of[name] = max(
            (step_of[tensor[0]] + (tensor in taken) for tensor in cut[name].inputs), default=0
        )
    for step in range(1 + max(step_of.values())):
        vectors = [(name, tensor) for name, tensor in wanted if step_of[tensor[0]] == step]
        if vectors:
            yield [cut[name] for name in order if step_of[name] <= step], vectors


def _taken(node: Node) -> list[Tensor]:
    """Inputs of a node that it makes a shape of."""
    definition = operation(node.op)
    names = [argument.name for argument in definition.input_arg] if definition is not None else []
    # Arguments of several tensors come last in all operations that have a shape among theirs.
    return [tensor for name, tensor in zip(names, node.inputs, strict=False) if name in _SAYS_SHAPE]
