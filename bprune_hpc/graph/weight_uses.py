"""How often a network uses each of its weights for one example. Pure.

A weight that is used once meets one number of an example: what its noise adds there is then noise
of that example alone. A convolution uses its kernel at every place of an image, and layers can
share a kernel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from .layer_graph import EXAMPLES, Bias, Convolution, Dense, LayerGraph, Scale, Shape


def weight_uses(graph: LayerGraph, shapes: Mapping[str, Shape]) -> Mapping[str, int]:
    """Uses of each number of each kernel, bias and factor, by name.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of all weights.
    """
    given = graph.shapes(shapes)
    uses: Counter[str] = Counter()
    for node, shape in zip(graph.nodes, given, strict=True):
        one, before = node.operation, node.inputs[0]
        of_input = graph.input_shape if before == EXAMPLES else given[before]
        if isinstance(one, Convolution):
            uses[one.kernel] += math.prod(shape[:-1])
        elif isinstance(one, Dense):
            uses[one.kernel] += 1
        elif isinstance(one, Bias | Scale):
            uses[one.name] += math.prod(of_input[:-1])
    return uses


def multiplications(graph: LayerGraph, shapes: Mapping[str, Shape]) -> int:
    """Those of products and convolutions, of a draw for an example, each with its addition."""
    products = [one.operation for one in graph.nodes]
    names = {one.kernel for one in products if isinstance(one, Dense | Convolution)}
    uses = weight_uses(graph, shapes)
    return sum(math.prod(shapes[name]) * uses[name] for name in names)
