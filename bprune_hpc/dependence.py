"""What the values in a graph depend on: variables, the input, random numbers.

What belongs here: one pass over a graph, by kinds of operations. What does not: what the random
numbers are for (``noise``).
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Flag, auto

from .graph_nodes import Nodes, Tensor, value_inputs

NORMALS = frozenset({"RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2"})


class Depends(Flag):
    """What the value (not only the shape) of a node depends on."""

    NOTHING = 0
    VARIABLE = auto()
    INPUT = auto()
    RANDOM = auto()


def is_random(op: str) -> bool:
    """Whether an operation draws random numbers, going by TensorFlow's names for them."""
    return (
        ("Random" in op and not op.startswith(("StatelessRandomGet", "RandomDataset")))
        or "TruncatedNormal" in op
        or "Multinomial" in op
        or op in ("RngReadAndSkip", "RngSkip")
    )


def dependences(
    nodes: Nodes, order: Collection[str], input_tensor: Tensor, variables: Collection[str]
) -> dict[str, Depends]:
    """What each node depends on; ``order`` must list a node after its inputs."""
    found: dict[str, Depends] = {}
    for name in order:
        node = nodes[name]
        if name == input_tensor[0]:
            found[name] = Depends.INPUT
        elif name in variables:
            found[name] = Depends.VARIABLE
        elif is_random(node.op):
            found[name] = Depends.RANDOM
        else:
            found[name] = Depends.NOTHING
            for source, _ in value_inputs(node):
                found[name] |= found[source]
    return found
