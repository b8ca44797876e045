"""Runs a chain with convolutions in TensorFlow, without the channels that pruning has made idle.

A channel is left out where nothing depends on it, or where it is exactly zero everywhere: no
channel that may differ from zero feeds it, and its activation turns its bias to zero. A constant
that is not zero stays, and so does what it feeds: at the border of a padded image it does not
count in full, so that it varies from place to place. Leaving zeros out is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.chain import (
    Activation,
    Bias,
    Chain,
    ChannelLayer,
    Convolution,
    Pooling,
    Product,
    channel_layers,
)
from ..posterior.mean_field import Posterior
from ..tensorflow_import import call_of, import_layers, open_session
from .compaction import Floats, GaussianPart, Indices
from .interface import Noise, Pruned, Sampled, stacks_of

_ZERO_AT_ZERO = frozenset({"Relu", "Relu6", "Tanh", "Elu"})
_ZERO_BELOW = frozenset({"Relu", "Relu6"})


class ChannelNetwork:
    """A chain with convolutions that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    chain : Chain
    fixed : mapping of str to float32 array
        Weights that have no posterior.
    shapes : mapping of str to tuple of int
        Of every mean-field tensor.
    n_intra, n_inter : int
        TensorFlow threads.
    """

    def __init__(
        self,
        chain: Chain,
        fixed: Mapping[str, NDArray[Any]],
        shapes: Mapping[str, tuple[int, ...]],
        n_intra: int = 1,
        n_inter: int = 1,
    ) -> None:
        self._fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        layers = channel_layers(chain)
        if layers is None:
            raise ValueError("a weight is not in its usual place")
        self._layers = layers
        self._weights = [
            step.kernel if isinstance(step, Product | Convolution) else step.name
            for step in chain.steps
            if isinstance(step, Product | Convolution | Bias)
        ]
        self._shapes = {**{name: value.shape for name, value in self._fixed.items()}, **shapes}
        self._call = _build(chain, self._weights, n_intra, n_inter)

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        channels = self._channels(table)
        parts: dict[str, GaussianPart] = {}
        for layer, before, after in zip(self._layers, channels[:-1], channels[1:], strict=True):
            shape = self._shapes[layer.kernel]
            n_before = shape[-2] // layer.n_places
            # After flattening, a channel is an input at every place.
            inputs = (np.arange(layer.n_places)[:, None] * n_before + before).ravel()
            window = [np.arange(size) for size in shape[:-2]]
            parts[layer.kernel] = self._part(table, layer.kernel, *window, inputs, after)
            if layer.bias is not None:
                parts[layer.bias] = self._part(table, layer.bias, after)
        cost = sum(2 * layer.n_columns * parts[layer.kernel].loc.size for layer in self._layers)
        return _PrunedChannels(self._call, tuple(parts[name] for name in self._weights), cost)

    def _channels(self, table: Posterior) -> list[Indices]:
        """Channels that are left before each layer, and after the last."""
        feeds = []
        for layer in self._layers:
            kernel = self._nonzero(table, layer.kernel)
            kernel = kernel.reshape(-1, kernel.shape[-2] // layer.n_places, kernel.shape[-1])
            feeds.append(kernel.any(axis=0))
        may_differ = [np.ones(feeds[0].shape[0], bool)]
        for layer, mask in zip(self._layers, feeds, strict=True):
            is_fed = mask[may_differ[-1]].any(axis=0)
            may_differ.append(is_fed | ~self._is_zero_unfed(table, layer))
        is_needed = [np.ones(feeds[-1].shape[1], bool)]
        for mask in reversed(feeds):
            is_needed.append(mask[:, is_needed[-1]].any(axis=1))
        is_needed.reverse()
        left = [
            np.flatnonzero(differs & needed)
            for differs, needed in zip(may_differ, is_needed, strict=True)
        ]
        # Examples are not taken apart; an output is there, whatever it is; TensorFlow takes no
        # image without channels.
        left[0], left[-1] = (np.arange(len(needed)) for needed in (is_needed[0], is_needed[-1]))
        return [channels if len(channels) else np.zeros(1, np.intp) for channels in left]

    def _is_zero_unfed(self, table: Posterior, layer: ChannelLayer) -> NDArray[np.bool_]:
        """Which channels of a layer are zero everywhere where all that feeds them is."""
        n_channels = self._shapes[layer.kernel][-1]
        if not _ZERO_AT_ZERO.issuperset(layer.activations):
            return np.zeros(n_channels, bool)
        if layer.bias is None:
            return np.ones(n_channels, bool)
        if layer.bias in table.loc:
            return ~self._nonzero(table, layer.bias).reshape(-1)
        bias = self._fixed[layer.bias].reshape(-1)
        # None of these activations changes the sign.
        return bias <= 0 if _ZERO_BELOW.intersection(layer.activations) else bias == 0

    def _nonzero(self, table: Posterior, name: str) -> NDArray[np.bool_]:
        if name in table.loc:
            return (table.loc[name] != 0) | (table.scale[name] != 0)
        return self._fixed[name] != 0

    def _part(self, table: Posterior, name: str, *indices: Indices) -> GaussianPart:
        loc = table.loc[name] if name in table.loc else self._fixed[name]
        shape = self._shapes[name] if len(indices) > 1 else (self._shapes[name][-1],)
        return GaussianPart.of(name, loc, table.scale.get(name), shape, indices)


@dataclass(frozen=True)
class _PrunedChannels:
    call: Any
    parts: tuple[GaussianPart, ...]
    cost: int

    def stacks(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        return stacks_of(noises, 1)

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        n_draws = sum(len(noise.draws) for noise in noises)
        drawn = []
        for part in self.parts:
            if part.scale is None:
                drawn.append([part.loc] * n_draws)
                continue
            values = np.empty((n_draws, *part.loc.shape), np.float32)
            part.draws(noises, values)
            drawn.append(list(values))
        starts = np.cumsum([0, *(len(noise.draws) for noise in noises)])
        return _SampledChannels(self.call, list(zip(*drawn, strict=True)), starts)


@dataclass(frozen=True)
class _SampledChannels:
    call: Any
    weights: Sequence[tuple[Floats, ...]]
    starts: NDArray[np.intp]

    def outputs(self, x: NDArray[Any], stacks: Sequence[slice]) -> Iterator[Floats]:
        examples = np.asarray(x, np.float32)
        for stack in stacks:
            of_stack = self.weights[self.starts[stack.start] : self.starts[stack.stop]]
            yield np.stack([self.call(examples, *weights).T for weights in of_stack])


def _build(chain: Chain, names: Sequence[str], n_intra: int, n_inter: int) -> Any:
    """A call from examples and weights, whose numbers of channels are open, to outputs."""
    tensorflow = import_layers()
    placeholder = tensorflow.placeholder
    with tensorflow.Graph().as_default() as graph:
        values = fed = placeholder(tensorflow.float32)
        weights: dict[str, Any] = {}
        for step in chain.steps:
            if isinstance(step, Product):
                weights[step.kernel] = placeholder(tensorflow.float32, (None, None))
                values = tensorflow.matmul(values, weights[step.kernel])
            elif isinstance(step, Convolution):
                weights[step.kernel] = placeholder(tensorflow.float32, (*step.window, None, None))
                values = tensorflow.conv2d(values, weights[step.kernel], step.strides, step.padding)
            elif isinstance(step, Bias):
                weights[step.name] = placeholder(tensorflow.float32, (None,))
                values = tensorflow.bias_add(values, weights[step.name])
            elif isinstance(step, Activation):
                values = _activation(tensorflow, step.function)(values)
            elif isinstance(step, Pooling):
                pool = tensorflow.max_pool2d if step.function == "MaxPool" else None
                pool = pool or tensorflow.avg_pool2d
                values = pool(values, step.size, step.strides, step.padding)
            elif not weights:
                values = tensorflow.reshape(values, (-1, *step.shape))
            else:
                values = tensorflow.reshape(values, (tensorflow.shape(values)[0], -1))
        session = open_session(graph, n_intra, n_inter)
        return call_of(session, values, [fed, *(weights[name] for name in names)])


def _activation(tensorflow: Any, function: str) -> Any:
    return getattr(tensorflow, function.lower())
