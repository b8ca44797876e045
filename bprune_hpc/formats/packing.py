"""A pruned network without what is idle, and its weights that are left.

What belongs here: which numbers of which tensors a format has to hold. What does not: what is idle
(``evaluators.compaction``), or how a format holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import LayerGraph
from .portable import PackedTensor
from .pruned_network import PrunedNetwork


@dataclass(frozen=True)
class PackedNetwork:
    """A graph of layers on what is left.

    Attributes
    ----------
    layers : LayerGraph
    inputs : int array or None
        Numbers of an example that it takes; None for all.
    tensors : mapping of str to PackedTensor
        All that the graph names.
    """

    layers: LayerGraph
    inputs: NDArray[np.intp] | None
    tensors: Mapping[str, PackedTensor]

    @property
    def at_mean(self) -> dict[str, NDArray[np.float32]]:
        """Weights at the posterior mean."""
        return {name: tensor.dense(tensor.loc) for name, tensor in self.tensors.items()}

    @property
    def n_left(self) -> int:
        """Weights that are not zero, fixed ones included."""
        return sum(tensor.n_left for tensor in self.tensors.values())


def pack(network: PrunedNetwork, *, only_mean: bool = False) -> PackedNetwork:
    """Leave out what is idle.

    Parameters
    ----------
    only_mean : bool
        Whether the posterior's mean alone is wanted: then every constant becomes a part of a bias,
        and nothing has a deviation.
    """
    layers = network.layers
    assert layers is not None  # formats refuse such a network by name
    names = {
        name
        for node in layers.nodes
        for name in (getattr(node.operation, "kernel", None), getattr(node.operation, "name", None))
        if name is not None
    }
    loc, scale = network.posterior.loc, network.posterior.scale
    fixed = {**network.fixed, **layers.constants}
    tensors = {}
    for name in sorted(names):
        values = np.asarray(loc[name] if name in loc else fixed[name], np.float32)
        of_scale = scale[name] if name in loc and not only_mean else None
        tensors[name] = packed(values, None if of_scale is None else np.asarray(of_scale))
    return PackedNetwork(layers, None, tensors)


def packed(
    loc: NDArray[np.float32],
    scale: NDArray[np.floating] | None,
    full_shape: tuple[int, ...] | None = None,
    axes: tuple[NDArray[np.intp] | None, ...] | None = None,
) -> PackedTensor:
    """What is left of a tensor: sparse where that takes less memory.

    Parameters
    ----------
    loc, scale : array
        What is not idle.
    full_shape, axes
        See :class:`bprune_hpc.formats.portable.PackedTensor`.
    """
    is_left = loc != 0 if scale is None else (loc != 0) | (scale != 0)
    n_bytes = 4 if scale is None else 8
    places = None
    if loc.ndim > 1 and np.count_nonzero(is_left) * (n_bytes + 2) < loc.size * n_bytes:
        places = np.flatnonzero(is_left)
        loc_left, scale_left = loc.reshape(-1)[places], scale
        scale_left = None if scale is None else scale.reshape(-1)[places]
    else:
        loc_left, scale_left = loc.reshape(-1), None if scale is None else scale.reshape(-1)
    return PackedTensor(
        shape=loc.shape,
        loc=loc_left.astype(np.float32),
        scale=None if scale_left is None else scale_left.astype(np.float32),
        places=places,
        full_shape=loc.shape if full_shape is None else full_shape,
        axes=(None,) * loc.ndim if axes is None else axes,
    )
