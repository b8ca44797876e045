"""Runs a chain with convolutions in TensorFlow, without the channels that pruning has made idle.

A channel is left out where nothing depends on it, or where it is exactly zero everywhere: no
channel that may differ from zero feeds it, and its activation turns its bias to zero. A constant
that is not zero stays (``evaluators.compaction``). Leaving zeros out is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import (
    NO_BORDERS,
    Activation,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    Operation,
    Pooling,
    Reshape,
    Shape,
    layers_of,
    same_border,
)
from ..posterior.mean_field import Posterior
from ..tensorflow_import import call_of, import_layers, open_session
from .compaction import Floats, GaussianSlice, Weights, compact
from .interface import Noise, Pruned, Sampled, noise_batches_of


class ChannelNetwork:
    """A chain with convolutions that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    graph : LayerGraph
        Without branches.
    fixed : mapping of str to float32 array
        Weights that have no posterior.
    n_intra, n_inter : int
        TensorFlow threads.
    """

    def __init__(
        self,
        graph: LayerGraph,
        fixed: Mapping[str, NDArray[Any]],
        n_intra: int = 1,
        n_inter: int = 1,
    ) -> None:
        self._fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        operations = graph.chain()
        assert operations is not None
        self._layers = layers_of(operations)
        self._input_shape = graph.input_shape
        self._call = _build(operations, n_intra, n_inter)

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        compacted = compact(self._layers, Weights(table, self._fixed), folds_constants=False)
        slices: list[tuple[GaussianSlice, tuple[int, ...]]] = []
        cost = 0
        for layer, left in zip(self._layers, compacted, strict=True):
            shape, n_places = left.kernel.loc.shape, 1
            if isinstance(layer.product, Convolution):
                shape = (*layer.product.window, -1, shape[-1])
                n_places = math.prod(layer.product.size)
            cost += 2 * n_places * left.kernel.loc.size
            slices.append((left.kernel, shape))
            if left.bias is not None:
                slices.append((left.bias, left.bias.loc.shape))
        return _PrunedChannels(self._call, self._input_shape, tuple(slices), cost)


@dataclass(frozen=True)
class _PrunedChannels:
    """Slices, in the order in which the chain takes weights, with their shapes there."""

    call: Any
    input_shape: Shape
    slices: tuple[tuple[GaussianSlice, tuple[int, ...]], ...]
    cost: int

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        return noise_batches_of(noises, 1)

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        starts = np.cumsum([0, *(len(noise.draws) for noise in noises)])
        drawn = []
        for weights, shape in self.slices:
            if weights.scale is None:
                drawn.append([weights.loc.reshape(shape)] * starts[-1])
                continue
            values = np.empty((starts[-1], *weights.loc.shape), np.float32)
            weights.draws(noises, values)
            drawn.append(list(values.reshape(starts[-1], *shape)))
        return _SampledChannels(self.call, self.input_shape, list(zip(*drawn, strict=True)), starts)


@dataclass(frozen=True)
class _SampledChannels:
    call: Any
    input_shape: Shape
    weights: Sequence[tuple[Floats, ...]]
    starts: NDArray[np.intp]

    def outputs(self, x: NDArray[Any], noise_batches: Sequence[slice]) -> Iterator[Floats]:
        examples = np.asarray(x, np.float32).reshape(len(x), *self.input_shape)
        for noise_batch in noise_batches:
            of_batch = self.weights[self.starts[noise_batch.start] : self.starts[noise_batch.stop]]
            yield np.stack([self.call(examples, *weights).T for weights in of_batch])


def _padding(convolution: Convolution) -> Any:
    """TensorFlow's name for borders where it has one."""
    if convolution.borders == NO_BORDERS:
        return "VALID"
    same = map(same_border, convolution.image, convolution.window, convolution.strides)
    if convolution.borders == tuple(same):
        return "SAME"
    return [(0, 0), *convolution.borders, (0, 0)]


def _build(operations: Sequence[Operation], n_intra: int, n_inter: int) -> Any:
    """A call from examples and weights, whose numbers of channels are open, to outputs."""
    tensorflow = import_layers()
    fed: list[Any] = []

    def placeholder(*shape: int | None) -> Any:
        fed.append(tensorflow.placeholder(tensorflow.float32, shape or None))
        return fed[-1]

    with tensorflow.Graph().as_default() as graph:
        values = placeholder()
        for one in operations:
            if isinstance(one, Dense):
                values = tensorflow.matmul(values, placeholder(None, None))
            elif isinstance(one, Convolution):
                kernel = placeholder(*one.window, None, None)
                values = tensorflow.conv2d(values, kernel, one.strides, _padding(one))
            elif isinstance(one, Bias):
                values = tensorflow.bias_add(values, placeholder(None))
            elif isinstance(one, Activation):
                values = getattr(tensorflow, one.function.lower())(values)
            elif isinstance(one, Pooling):
                pools = {"MaxPool": tensorflow.max_pool2d, "AvgPool": tensorflow.avg_pool2d}
                padding = "VALID" if one.borders == NO_BORDERS else "SAME"
                values = pools[one.function](values, one.window, one.strides, padding)
            elif isinstance(one, Reshape) and len(fed) == 1:
                values = tensorflow.reshape(values, (-1, *one.shape))
            elif isinstance(one, Reshape):
                values = tensorflow.reshape(values, (tensorflow.shape(values)[0], -1))
            else:
                raise ValueError(f"no operation of a chain: {one}")
        return call_of(open_session(graph, n_intra, n_inter), values, fed)
