"""A graph of layers without what pruning has made idle: a smaller graph and its Gaussians. Pure.

A channel that nothing depends on is left out, and so is one that is the same whatever the example
is: what such a constant gives to others becomes a part of their bias, place by place, as it does
not count in full where zeros are put around an image. Both are exact. What does not belong here:
running what is left (``evaluators.reference``).

Of each channel of each tensor it is found whether it varies with the example, what it is where that
is one number in every draw (mostly a zero), and whether the outputs depend on it. Tensors that are
combined number by number keep the same channels, so that their arrays fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import (
    EXAMPLES,
    NO_BORDERS,
    Activation,
    Add,
    Bias,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Multiply,
    Operation,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Shape,
    Transpose,
)
from ..graph.layer_ops import activation, apply, convolution
from .compaction import Floats, GaussianSlice, Indices, Weights
from .interface import Noise

Mask = NDArray[np.bool_]
Array = NDArray[Any]


@dataclass(frozen=True)
class CompactGraph:
    """A smaller network that gives the same outputs.

    Attributes
    ----------
    graph : LayerGraph
        Its weights are named by the keys of ``weights`` and by ``bias_names``.
    inputs : int array or None
        Which numbers of a vector, or channels of an image, it takes of an example; None for all.
    weights : mapping of str to GaussianSlice
        Kernels of shape (n_in, n_out) or (places of the window, channels / groups, n_out), and
        vectors. The key is the tensor's own name; of one that is used again, one made of it.
    bias_names : tuple of str
        Of the biases that constants become, each of a ``Bias`` of the graph.
    shapes : tuple of tuple of int
        Of what each node gives for an example.
    channels : mapping of int to int array
        For each node of the larger graph, and ``EXAMPLES``, which of its channels are left.
    """

    graph: LayerGraph
    inputs: Indices | None
    weights: Mapping[str, GaussianSlice]
    bias_names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    channels: Mapping[int, Indices]
    _constants: _Constants

    def take(self, x: Array) -> Array:
        """Examples as the graph takes them, shape (n_examples, *graph.input_shape)."""
        if self.inputs is not None:
            n_channels = self._constants.live.shapes[EXAMPLES][-1]
            x = np.take(x.reshape(len(x), -1, n_channels), self.inputs, axis=2, mode="clip")
        return x.reshape(len(x), *self.graph.input_shape)

    def biases(self, noise: Noise) -> list[dict[str, Floats]]:
        """The biases that constants become, in each draw of a noise.

        Returns
        -------
        list of dict of str to float32 array
            By ``bias_names``; of shape (channels,), or of an image where its places differ.
        """
        return self._constants.biases(noise)


def compact_graph(
    graph: LayerGraph,
    weights: Weights,
    *,
    folds_constants: bool = True,
    keeps_one: bool = False,
) -> CompactGraph:
    """Leave out what is idle.

    Parameters
    ----------
    graph : LayerGraph
    weights : Weights
        All that the graph names; its constants are among the fixed ones.
    folds_constants : bool
        Whether constants become biases; else those that may differ from zero stay.
    keeps_one : bool
        Whether a tensor of which nothing would be left keeps one channel, which nothing takes.
    """
    live = _find_live(graph, weights, folds_constants, keeps_one)
    kept = {at: np.flatnonzero(mask) for at, mask in live.kept.items()}
    constants = _Constants(graph, weights, live)
    named: dict[str, GaussianSlice] = {}
    nodes: list[LayerNode] = []
    shapes: list[Shape] = []
    number = {EXAMPLES: EXAMPLES}

    def add(operation: Operation, inputs: tuple[int, ...], shape: Shape) -> None:
        nodes.append(LayerNode(operation, inputs))
        shapes.append(shape)

    for at, node in enumerate(graph.nodes):
        (first, *_), inputs = node.inputs, tuple(number[one] for one in node.inputs)
        shape = (*live.shapes[at][:-1], len(kept[at]))
        operation = _smaller(node.operation, shape, len(kept[first]))
        if isinstance(operation, Dense | Convolution | Bias | Scale):
            tensor = operation.name if isinstance(operation, Bias | Scale) else operation.kernel
            key = tensor if tensor not in named else f"{tensor} {at}"
            named[key] = _slice(node.operation, weights, kept[first], kept[at])
            if _chooses(node.operation):
                idle = (live.idle[of][kept[of]] for of in (first, at))
                named[key] = named[key].without(*idle)
            if isinstance(operation, Bias | Scale):
                operation = replace(operation, name=key)
            else:
                operation = replace(operation, kernel=key)
        add(operation, inputs, shape)
        if at in constants.names:
            add(Bias(constants.names[at]), (len(nodes) - 1,), shape)
        number[at] = len(nodes) - 1
    taken = kept[EXAMPLES]
    is_whole = len(taken) == graph.input_shape[-1]
    smaller = LayerGraph(tuple(nodes), (*graph.input_shape[:-1], len(taken)))
    return CompactGraph(
        smaller, None if is_whole else taken, named, tuple(constants.names.values()),
        tuple(shapes), kept, constants,
    )  # fmt: skip


def _smaller(operation: Operation, shape: Shape, n_in: int) -> Operation:
    """An operation with fewer channels; ``shape`` is of what it gives."""
    if isinstance(operation, Convolution):
        rows, columns, n_before = operation.image
        is_one_each = 1 < operation.groups == n_before
        groups = max(1, n_in) if is_one_each else operation.groups
        return replace(operation, image=(rows, columns, n_in), groups=groups)
    if isinstance(operation, Reshape) or (isinstance(operation, Transpose) and not n_in):
        return Reshape(shape, getattr(operation, "n_places", 1))
    return operation


def _slice(
    operation: Operation, weights: Weights, inputs: Indices, outputs: Indices
) -> GaussianSlice:
    """The weights between some channels, or of some channels."""
    if isinstance(operation, Bias | Scale):
        return weights.slice(operation.name, (-1,), outputs)
    if isinstance(operation, Dense):
        return weights.slice(operation.kernel, weights.shapes[operation.kernel], inputs, outputs)
    assert isinstance(operation, Convolution)
    n_window = math.prod(operation.window)
    n_seen = operation.image[2] // operation.groups
    if operation.groups > 1:  # of one channel each, or whole
        inputs = np.arange(n_seen)
    shape = n_window, n_seen, -1
    return weights.slice(operation.kernel, shape, np.arange(n_window), inputs, outputs)


# What is live.


@dataclass(frozen=True)
class _Live:
    """Of a graph's tensors, by number: shapes, channels that stay, and constants that count.

    ``feeds`` says, of each product, from which channels to which ones it has weights; ``idle``,
    which channels stay for their place alone.
    """

    shapes: dict[int, Shape]
    kept: dict[int, Mask]
    constant: dict[int, Mask]
    feeds: dict[int, Mask]
    idle: dict[int, Mask]


def _find_live(
    graph: LayerGraph, weights: Weights, folds_constants: bool, keeps_one: bool
) -> _Live:
    nodes = list(enumerate(graph.nodes))
    shapes = {EXAMPLES: graph.input_shape, **dict(enumerate(graph.shapes(weights.shapes)))}
    n_inputs = graph.input_shape[-1]
    feeds: dict[int, Mask] = {}
    varies, value = {EXAMPLES: np.ones(n_inputs, bool)}, {EXAMPLES: np.full(n_inputs, np.nan)}
    for at, node in nodes:
        first, one = node.inputs[0], node.operation
        if isinstance(one, Dense | Convolution):
            feeds[at] = _feeds(one, weights)
            varies[at] = feeds[at][varies[first]].any(axis=0)
            value[at] = np.where(feeds[at][value[first] != 0].any(axis=0), np.nan, 0.0)
        else:
            maps = _maps(node, shapes, shapes[at])
            varies[at] = np.any(
                [one.forward(varies[of]) for of, one in zip(node.inputs, maps, strict=True)], axis=0
            )
            values = [
                one.forward_values(value[of]) for of, one in zip(node.inputs, maps, strict=True)
            ]
            value[at] = _value(node.operation, values, weights)
            varies[at] &= value[at] != 0  # multiplied by zero
        value[at][varies[at]] = np.nan
    is_zero = {at: known == 0 for at, known in value.items()}
    needed = {at: np.zeros(shape[-1], bool) for at, shape in shapes.items()}
    last = len(nodes) - 1
    needed[last][:] = True
    for at, node in reversed(nodes):
        passed = needed[at] & ~is_zero[at]
        if at in feeds:
            needed[node.inputs[0]] |= feeds[at][:, passed].any(axis=1)
            continue
        if isinstance(node.operation, Scale):
            passed = passed & weights.nonzero(node.operation.name).reshape(-1)
        for of, channels in zip(node.inputs, _maps(node, shapes, shapes[at]), strict=True):
            needed[of] |= channels.backward(passed)
    stays = varies if folds_constants else {at: ~zero for at, zero in is_zero.items()}
    kept = {at: need & stays[at] for at, need in needed.items()}
    kept[last][:] = True
    _align(graph, shapes, kept)
    while _keep_fed(graph, feeds, {at: need & ~is_zero[at] for at, need in needed.items()}, kept):
        _align(graph, shapes, kept)
    constant = {at: need & ~kept[at] & ~is_zero[at] for at, need in needed.items()}
    more = {at: mask.copy() for at, mask in kept.items()}
    if keeps_one:
        for mask in more.values():
            mask[0] |= not mask.any()
        _align(graph, shapes, more)
    idle = {at: mask & ~kept[at] for at, mask in more.items()}
    return _Live(shapes, more, constant, feeds, idle)


def _align(graph: LayerGraph, shapes: Mapping[int, Shape], kept: dict[int, Mask]) -> None:
    """Let tensors that are combined number by number keep the same channels."""
    linked = [
        (of, at, one)
        for at, node in enumerate(graph.nodes)
        if not _chooses(node.operation)
        for of, one in zip(node.inputs, _maps(node, shapes, shapes[at]), strict=True)
    ]
    is_changed = True
    while is_changed:
        is_changed = False
        for of, at, one in [*linked, *reversed(linked)]:
            for to, more in ((at, one.forward(kept[of])), (of, one.backward(kept[at]))):
                if (more & ~kept[to]).any():
                    kept[to] = kept[to] | more
                    is_changed = True


def _keep_fed(
    graph: LayerGraph, feeds: Mapping[int, Mask], counts: Mapping[int, Mask], kept: dict[int, Mask]
) -> bool:
    """Let what a constant feeds stay where that stays, beside what varies; whether any is new."""
    is_changed = False
    for at, of_product in feeds.items():
        first = graph.nodes[at].inputs[0]
        fed = of_product[kept[first] & counts[first]].any(axis=0) & counts[at]
        is_changed |= bool((fed & ~kept[at]).any())
        kept[at] = kept[at] | fed
    return is_changed


def _chooses(operation: Operation) -> bool:
    """Whether an operation can take some channels and give others."""
    return isinstance(operation, Dense) or (
        isinstance(operation, Convolution) and operation.groups == 1
    )


def _feeds(operation: Dense | Convolution, weights: Weights) -> Mask:
    """Whether there is any weight that is not zero, from each channel to each one."""
    nonzero = weights.nonzero(operation.kernel)
    if isinstance(operation, Dense):
        return nonzero.reshape(weights.shapes[operation.kernel])
    n_channels, groups = operation.image[2], operation.groups
    n_seen = n_channels // groups
    of_groups = nonzero.reshape(math.prod(operation.window), n_seen, groups, -1).any(axis=0)
    feeds = np.zeros((groups, n_seen, groups, of_groups.shape[2]), bool)
    every = np.arange(groups)
    feeds[every, :, every] = of_groups.transpose(1, 0, 2)
    return feeds.reshape(n_channels, -1)


@dataclass(frozen=True)
class _Map:
    """How channels of an input are those of what an operation gives.

    Attributes
    ----------
    n_in, n_out : int
    kind : str
        ``same``; ``part``: a run of them, from ``start``; ``repeated``: those of all places after
        each other; ``joined``: the other way round; ``mixed``: any of any.
    """

    n_in: int
    n_out: int
    kind: str = "same"
    start: int = 0

    def forward(self, mask: Mask) -> Mask:
        """Channels of the result that some of the input are a part of."""
        return self._to(mask, self.n_in, self.n_out, is_back=False)

    def backward(self, mask: Mask) -> Mask:
        """Channels of the input that are a part of some of the result."""
        return self._to(mask, self.n_out, self.n_in, is_back=True)

    def _to(self, mask: Mask, n_from: int, n_to: int, is_back: bool) -> Mask:
        if self.kind == "same":
            return mask
        if self.kind == "mixed":
            return np.full(n_to, mask.any())
        if self.kind == "part":
            if is_back:
                return mask[self.start : self.start + n_to]
            out = np.zeros(n_to, bool)
            out[self.start : self.start + n_from] = mask
            return out
        if n_to > n_from:
            return np.tile(mask, n_to // n_from)
        out = mask.reshape(-1, n_to).any(axis=0)
        return out

    def forward_values(self, value: Array) -> Array:
        """Numbers that channels are everywhere; NaN where they are none."""
        if self.kind == "same":
            return value
        if self.kind == "part":
            out = np.zeros(self.n_out)
            out[self.start : self.start + self.n_in] = value
            return out
        if self.kind == "repeated":
            return np.tile(value, self.n_out // self.n_in)
        of_places = value.reshape(-1, self.n_out if self.kind == "joined" else 1)
        is_one = (of_places == of_places[0]).all(axis=0)
        return np.broadcast_to(np.where(is_one, of_places[0], np.nan), (self.n_out,)).copy()


def _maps(node: LayerNode, shapes: Mapping[int, Shape], shape: Shape) -> list[_Map]:
    """How the channels of each input are those of the result."""
    one, of_inputs, n_out = node.operation, [shapes[at] for at in node.inputs], shape[-1]
    if isinstance(one, Concatenation):
        starts = np.cumsum([0, *(given[-1] for given in of_inputs)]).tolist()
        return [
            _Map(given[-1], n_out, "part", start)
            for given, start in zip(of_inputs, starts, strict=False)
        ]
    (before, *_) = of_inputs
    kind = "same"
    if isinstance(one, Reshape) and before[-1] != n_out:
        kind = {(3, 1): "repeated", (1, 3): "joined"}.get((len(before), len(shape)), "mixed")
    if isinstance(one, Transpose):
        kind = "mixed"
    if isinstance(one, Convolution) and not one.groups == before[-1] == n_out:
        kind = "mixed"
    return [_Map(given[-1], n_out, kind) for given in of_inputs]


def _value(operation: Operation, values: Sequence[Array], weights: Weights) -> Array:
    """What an operation makes of channels that are one number everywhere; NaN for others."""
    (value, *_) = values
    if isinstance(operation, Bias | Scale):
        is_zero = ~weights.nonzero(operation.name).reshape(-1)
        known = weights.fixed.get(operation.name)
        number = np.full(len(value), np.nan) if known is None else known.reshape(-1).astype(float)
        number = np.where(is_zero, 0.0, number)
        if isinstance(operation, Bias):
            return np.asarray(value + number)
        return np.where(is_zero | (value == 0), 0.0, value * number)
    if isinstance(operation, Activation):
        with np.errstate(invalid="ignore"):
            return activation(value.astype(np.float32), operation).astype(float)
    if isinstance(operation, Padding) and operation.borders != NO_BORDERS:
        return np.where(value == 0, 0.0, np.nan)
    if isinstance(operation, Add | Concatenation):
        return np.sum(values, axis=0)
    if isinstance(operation, Multiply):
        return np.where((np.array(values) == 0).any(axis=0), 0.0, np.prod(values, axis=0))
    return value.copy()


# What constants are in a draw.


class _Constants:
    """Evaluates constants, for one draw at a time, as images that may be of one place."""

    def __init__(self, graph: LayerGraph, weights: Weights, live: _Live) -> None:
        self.live = live
        self._nodes = graph.nodes
        self.names: dict[int, str] = {}
        self._slices: dict[int, GaussianSlice] = {}
        constant = {at: np.flatnonzero(mask) for at, mask in live.constant.items()}
        for at, node in enumerate(graph.nodes):
            one, first, outputs = node.operation, node.inputs[0], constant[at]
            if not isinstance(one, Dense | Convolution | Bias | Scale):
                continue
            takes = live.kept[at] & ~live.idle[at]
            if at in live.feeds and live.feeds[at][constant[first]][:, takes].any():
                self.names[at] = f"constants at {at}"
                outputs = np.concatenate([np.flatnonzero(live.kept[at]), outputs])
            if isinstance(one, Convolution) and one.groups > 1 and len(outputs):
                outputs = np.arange(live.shapes[at][-1])
            if len(outputs):
                self._slices[at] = _slice(one, weights, constant[first], outputs)

    def biases(self, noise: Noise) -> list[dict[str, Floats]]:
        """See :class:`CompactGraph`."""
        if not self.names:
            return [{} for _ in noise.draws]
        drawn = {}
        for key, weights in self._slices.items():
            drawn[key] = np.empty((len(noise.draws), *weights.loc.shape), np.float32)
            weights.draws([noise], drawn[key])
        return [
            self._of_draw({at: values[draw] for at, values in drawn.items()})
            for draw in range(len(noise.draws))
        ]

    def _of_draw(self, weights: Mapping[int, Array]) -> dict[str, Floats]:
        constant, shapes = self.live.constant, self.live.shapes
        found = {at: np.zeros((1,) * len(shape) + (0,), np.float32) for at, shape in shapes.items()}
        out = {}
        for at, node in enumerate(self._nodes):
            one, inputs = node.operation, [found[of] for of in node.inputs]
            if at in self._slices and isinstance(one, Convolution) and one.groups > 1:
                whole = _spread(inputs[0], constant[node.inputs[0]])
                whole = np.broadcast_to(whole, (1, *one.image))
                found[at] = convolution(whole, weights[at], one)[..., constant[at]]
            elif at in self._slices and isinstance(one, Dense | Convolution):
                found[at] = self._product(one, inputs[0], weights[at])
                if at in self.names:
                    n_kept = int(self.live.kept[at].sum())
                    bias, found[at] = found[at][0, ..., :n_kept], found[at][..., n_kept:]
                    bias[..., self.live.idle[at][self.live.kept[at]]] = 0
                    bias = bias.reshape(-1) if bias.size == n_kept else bias
                    out[self.names[at]] = np.ascontiguousarray(bias)
            elif constant[at].any():
                found[at] = self._of_others(at, node, inputs, weights)
        return out

    def _product(self, one: Operation, values: Array, kernel: Array) -> Array:
        if isinstance(one, Dense):
            return np.asarray(values @ kernel)
        assert isinstance(one, Convolution)
        if values.shape[1:3] == (1, 1) and one.borders == NO_BORDERS:
            return np.asarray(values @ kernel.sum(axis=0))
        image = (*one.image[:2], values.shape[-1])
        values = np.broadcast_to(values, (1, *image))
        return convolution(values, kernel, replace(one, image=image))

    def _of_others(
        self, at: int, node: LayerNode, inputs: Sequence[Array], weights: Mapping[int, Array]
    ) -> Array:
        one, constant, shapes = node.operation, self.live.constant, self.live.shapes
        (first, *_), wanted = node.inputs, constant[at]
        if isinstance(one, Concatenation | Reshape | Transpose):
            whole = [
                _spread(values, constant[of])
                for of, values in zip(node.inputs, inputs, strict=True)
            ]
            if not isinstance(one, Concatenation):
                whole = [np.broadcast_to(whole[0], (1, *shapes[first]))]
            elif not all(values.shape[:-1] == whole[0].shape[:-1] for values in whole):
                whole = [
                    np.broadcast_to(values, (1, *shapes[at][:-1], values.shape[-1]))
                    for values in whole
                ]
            return apply(one, whole, {})[..., wanted]
        chosen = [
            _spread(values, constant[of])[..., wanted]
            for of, values in zip(node.inputs, inputs, strict=True)
        ]
        if isinstance(one, Bias | Scale):
            return apply(one, chosen, {one.name: weights[at]})
        is_of_one_place = chosen[0].shape[1:3] == (1, 1)
        if isinstance(one, Pooling) and is_of_one_place:
            return chosen[0]
        if isinstance(one, Padding) and is_of_one_place:
            chosen = [np.broadcast_to(chosen[0], (1, *shapes[first][:-1], chosen[0].shape[-1]))]
        return apply(one, chosen, {})


def _spread(values: Array, mask: Mask) -> Array:
    """Values of some channels among zeros for the others."""
    out = np.zeros((*values.shape[:-1], len(mask)), values.dtype)
    out[..., mask] = values
    return out
