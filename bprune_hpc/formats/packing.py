"""A pruned network without what is idle, and its weights that are left.

What belongs here: which numbers of which tensors a format has to hold. What does not: what is idle
(``evaluators.compact_graph``), or how a format holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..evaluators.compact_graph import CompactGraph, compact_graph
from ..evaluators.compaction import GaussianSlice, Weights
from ..evaluators.interface import Noise
from ..graph.layer_graph import EXAMPLES, Dense, LayerGraph, Shape
from ..posterior.draws import Draw, standard_normal
from ..posterior.mean_field import Posterior
from .portable import PackedTensor
from .pruned_network import PrunedNetwork

_COST_OF_TAKING = 64
"""Multiplications that a runtime does in the time in which it takes one number of an example."""


@dataclass(frozen=True)
class PackedNetwork:
    """A graph of layers on what is left.

    Attributes
    ----------
    layers : LayerGraph
    shapes : tuple of tuple of int
        Of what each of its nodes gives for an example.
    inputs : int array or None
        Numbers of an example, in one row, that it takes; None for all.
    tensors : mapping of str to PackedTensor
        All that the graph names.
    """

    layers: LayerGraph
    shapes: tuple[Shape, ...]
    inputs: NDArray[np.intp] | None
    tensors: Mapping[str, PackedTensor]

    @property
    def at_mean(self) -> dict[str, NDArray[np.float32]]:
        """Weights at the posterior mean."""
        return {name: tensor.dense(tensor.loc) for name, tensor in self.tensors.items()}


def pack(network: PrunedNetwork, *, only_mean: bool = False) -> PackedNetwork:
    """Leave out what is idle.

    A constant that has a deviation, its own or that of a weight which takes it, stays as a channel.

    Parameters
    ----------
    only_mean : bool
        Whether the posterior's mean alone is wanted: then every constant becomes a part of a bias,
        and nothing has a deviation.
    """
    layers, posterior = network.layers, network.posterior
    assert layers is not None  # formats refuse such a network by name
    fixed = {
        name: np.asarray(value, np.float32)
        for name, value in {**network.fixed, **layers.constants}.items()
    }
    if only_mean:
        fixed |= posterior.loc
        posterior = Posterior({}, {})
    weights = Weights(posterior, fixed)
    # No runtime takes a tensor without numbers, as a layer's that is pruned as a whole would be.
    compact = compact_graph(layers, weights, keeps_one=True)
    constants = _constants(compact, posterior)
    if constants is None:
        compact = compact_graph(layers, weights, folds_constants=False, keeps_one=True)
        constants = {}
    tensors = {name: _of_slice(one) for name, one in compact.weights.items()}
    tensors |= {name: packed(name, value, None) for name, value in constants.items()}
    inputs = compact.inputs
    if inputs is not None:
        n_channels = layers.input_shape[-1]
        n_places = math.prod(layers.input_shape[:-1])
        inputs = (n_channels * np.arange(n_places)[:, None] + inputs).reshape(-1)
    found = PackedNetwork(compact.graph, compact.shapes, inputs, tensors)
    return _with_all_inputs(found, math.prod(layers.input_shape))


def _constants(
    compact: CompactGraph, posterior: Posterior
) -> dict[str, NDArray[np.float32]] | None:
    """The biases that constants become; None if they differ from draw to draw."""
    values = {
        name: standard_normal(0, name, 0, scale.shape) for name, scale in posterior.scale.items()
    }
    noise = Noise(0, (Draw(0, 1, 0), Draw(1, -1, 0)), values)
    first, second = compact.biases(noise)
    is_same = all(np.array_equal(first[name], second[name]) for name in compact.bias_names)
    return dict(first) if is_same else None


def _with_all_inputs(network: PackedNetwork, n_inputs: int) -> PackedNetwork:
    """The network on whole examples, where to take some of their numbers costs more than it saves.

    Only of dense layers can the weights of the others be put back, as zeros.
    """
    first = [one.operation for one in network.layers.nodes if EXAMPLES in one.inputs]
    kernels = [one.kernel for one in first if isinstance(one, Dense)]
    if network.inputs is None or len(kernels) < len(first):
        return network
    n_outputs = sum(network.tensors[name].shape[-1] for name in kernels)
    n_left = len(network.inputs)
    if (n_inputs - n_left) * n_outputs > _COST_OF_TAKING * n_left:
        return network
    tensors = dict(network.tensors)
    for name in kernels:
        tensor = tensors[name]
        n_columns = tensor.shape[-1]
        places = np.arange(tensor.loc.size) if tensor.places is None else tensor.places
        is_left = tensor.loc != 0
        is_left = is_left if tensor.scale is None else is_left | (tensor.scale != 0)
        rows, columns = np.divmod(places[is_left], n_columns)
        tensors[name] = replace(
            tensor,
            shape=(n_inputs, n_columns),
            loc=tensor.loc[is_left],
            scale=None if tensor.scale is None else tensor.scale[is_left],
            places=network.inputs[rows] * n_columns + columns,
            axes=(None, *tensor.axes[1:]),
        )
    layers = replace(network.layers, input_shape=(n_inputs,))
    return PackedNetwork(layers, network.shapes, None, tensors)


def _of_slice(one: GaussianSlice) -> PackedTensor:
    return packed(one.name, one.loc, one.scale, one.shape, tuple(one.indices))


def packed(
    name: str,
    loc: NDArray[np.floating],
    scale: NDArray[np.floating] | None,
    full_shape: Shape | None = None,
    axes: tuple[NDArray[np.intp] | None, ...] | None = None,
) -> PackedTensor:
    """What is left of a tensor: sparse where that takes less memory.

    Parameters
    ----------
    loc, scale : array
        What is not idle.
    name, full_shape, axes
        See :class:`bprune_hpc.formats.portable.PackedTensor`.
    """
    is_left = loc != 0 if scale is None else (loc != 0) | (scale != 0)
    n_bytes = 4 if scale is None else 8
    places = None
    loc_left, scale_left = loc.reshape(-1), None if scale is None else scale.reshape(-1)
    if loc.ndim > 1 and np.count_nonzero(is_left) * (n_bytes + 2) < loc.size * n_bytes:
        places = np.flatnonzero(is_left)
        loc_left = loc_left[places]
        scale_left = None if scale_left is None else scale_left[places]
    return PackedTensor(
        name=name,
        shape=loc.shape,
        loc=loc_left.astype(np.float32),
        scale=None if scale_left is None else scale_left.astype(np.float32),
        places=places,
        full_shape=loc.shape if full_shape is None else full_shape,
        axes=(None,) * loc.ndim if axes is None else axes,
    )
