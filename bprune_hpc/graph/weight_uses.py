"""How often a network uses each of its weights for one example. Pure.

A weight that is used once meets one number of an example: what its noise adds there is then noise
of that example alone. A convolution uses its kernel at every place of an image, and layers can
share a kernel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from .layer_graph import EXAMPLES, Bias, Convolution, Dense, LayerGraph, Pooling, Reshape


def multiplications(graph: LayerGraph, sizes: Mapping[str, int]) -> int:
    """Those of a draw for an example, each with its addition.

    Parameters
    ----------
    sizes : mapping of str to int
        Numbers of each kernel.
    """
    products = [
        one.operation for one in graph.nodes if isinstance(one.operation, Dense | Convolution)
    ]
    uses = weight_uses(graph)
    return sum(sizes[name] * uses[name] for name in {one.kernel for one in products})


def weight_uses(graph: LayerGraph) -> Mapping[str, int]:
    """Uses of each number of each kernel and bias, by name.

    Scales and offsets of batch normalizations are left out.
    """
    uses: Counter[str] = Counter()
    n_places = {EXAMPLES: 1}
    for number, node in enumerate(graph.nodes):
        one, before = node.operation, n_places[node.inputs[0]]
        after = before
        if isinstance(one, Convolution):
            after = math.prod(one.size)
            uses[one.kernel] += after
        elif isinstance(one, Dense):
            after = 1
            uses[one.kernel] += 1
        elif isinstance(one, Bias):
            uses[one.name] += before
        elif isinstance(one, Pooling):
            after = max(1, before // math.prod(one.strides))
        elif isinstance(one, Reshape):
            after = 1
        n_places[number] = after
    return uses
