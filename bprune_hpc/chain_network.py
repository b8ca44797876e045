"""Runs a chain of layers with NumPy, without the parts that pruning has made idle.

Two things make it cheaper than its plain arithmetic. Units that are constant or not needed are
left out (``alive``). And the first layer's input is the same for all draws, so that its product
with ``loc`` is made once for many draws, and its product with ``scale * noise`` once for the two
draws of an antithetic pair.

Units lie with one row each, so that a row's examples are next to each other. The bits of a draw
are the same whichever draws are evaluated beside it: every product has its own shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .activations import activate
from .alive import Alive, Indices, alive_units
from .chain import ConvolutionLayer, DenseLayer, Layers
from .evaluators import Noise, Pruned, Sampled
from .gaussian_part import Floats, GaussianPart
from .patches import Convolved, Examples, Front, Patches
from .posterior import Posterior
from .workspace import Workspace

_STACK_BYTES = 4 * 2**20
"""Units of a layer that are worked on together: few calls, and little that leaves the cache."""
_BLOCK_ROWS = 1024
"""Terms that are added one after the other; the rounding of a longer sum would be seen."""


class ChainNetwork:
    """A chain of layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    layers : Layers
    fixed : mapping of str to float32 array
        Kernels and biases that have no posterior.
    n_threads : int
        Of the matrix products, in the whole process.
    """

    def __init__(
        self,
        layers: Layers,
        fixed: Mapping[str, NDArray[Any]],
        n_threads: int = 1,
    ) -> None:
        threadpool_limits(n_threads, user_api="blas")
        self.layers = layers
        self._room = Workspace()
        self._fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        self._patches = None
        if layers.convolution is not None:
            self._patches = Patches(layers.convolution)

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.Evaluator`."""
        weights = _Weights(table, self._fixed)
        nonzero = [weights.nonzero(layer.kernel) for layer in self.layers.dense]
        if self._patches is None:
            alive = alive_units(nonzero)
            front: Front = Examples(_but_all(alive[0].varying, len(nonzero[0])))
            layers = []
        else:
            assert self.layers.convolution is not None
            # Of the examples as a whole: whether a filter sees anything of them.
            seen = weights.nonzero(self.layers.convolution.kernel).any(axis=(0, 1, 2))
            n_positions = self._patches.n_positions
            _examples, *alive = alive_units([np.tile(seen, n_positions)[None], *nonzero])
            filters = np.unique(alive[0].varying % len(seen))
            # The units in the order of the convolution's products: filter by filter.
            places = np.arange(n_positions) * len(seen)
            alive[0] = Alive((filters[:, None] + places).ravel(), alive[0].constant)
            front = Convolved(self._patches, len(filters))
            layers = [
                weights.compact_convolution(self.layers.convolution, filters, alive[0].constant)
            ]
        layers += [
            weights.compact(layer, before, after)
            for layer, before, after in zip(self.layers.dense, alive[:-1], alive[1:], strict=True)
        ]
        return _PrunedChain(front, tuple(layers), self._room)


def _but_all(indices: Indices, size: int) -> Indices | None:
    return None if len(indices) == size else indices


@dataclass(frozen=True)
class _CompactLayer:
    """A layer without what is idle, and its constant units and what they feed."""

    kernel: GaussianPart
    bias: GaussianPart | None
    from_constants: GaussianPart | None
    constants: GaussianPart | None
    constants_bias: GaussianPart | None
    n_constants: int
    activation: str | None


@dataclass(frozen=True)
class _Weights:
    """All weights of a network, with and without a posterior."""

    table: Posterior
    fixed: Mapping[str, NDArray[Any]]

    def nonzero(self, name: str) -> NDArray[np.bool_]:
        if name in self.table.loc:
            return (self.table.loc[name] != 0) | (self.table.scale[name] != 0)
        return self.fixed[name] != 0

    def part(self, name: str, shape: tuple[int, ...], *indices: Indices) -> GaussianPart:
        loc = self.table.loc[name] if name in self.table.loc else self.fixed[name]
        return GaussianPart.of(name, loc, self.table.scale.get(name), shape, indices)

    def compact(self, layer: DenseLayer, before: Alive, after: Alive) -> _CompactLayer:
        shape = self.nonzero(layer.kernel).shape
        inputs, fed, constant = before.varying, before.constant, after.constant
        kernel, bias = layer.kernel, layer.bias
        return _CompactLayer(
            kernel=self.part(kernel, shape, inputs, after.varying),
            bias=self.part(bias, shape[1:], after.varying) if bias else None,
            from_constants=self.part(kernel, shape, fed, after.varying) if len(fed) else None,
            constants=(
                self.part(kernel, shape, fed, constant) if len(fed) and len(constant) else None
            ),
            constants_bias=self.part(bias, shape[1:], constant) if bias and len(constant) else None,
            n_constants=len(constant),
            activation=layer.activation,
        )

    def compact_convolution(
        self, layer: ConvolutionLayer, filters: Indices, constant: Indices
    ) -> _CompactLayer:
        """The convolution as a product with patches."""
        n_filters = self.nonzero(layer.kernel).shape[3]
        n_each = self.nonzero(layer.kernel).size // n_filters
        of_constants = constant % n_filters
        bias = layer.bias
        return _CompactLayer(
            kernel=self.part(layer.kernel, (n_each, n_filters), np.arange(n_each), filters),
            bias=self.part(bias, (n_filters,), filters) if bias else None,
            from_constants=None,
            constants=None,
            constants_bias=(
                self.part(bias, (n_filters,), of_constants) if bias and len(constant) else None
            ),
            n_constants=len(constant),
            activation=layer.activation,
        )


@dataclass(frozen=True)
class _PrunedChain:
    front: Front
    layers: tuple[_CompactLayer, ...]
    room: Workspace

    def noises_at_once(self, n_examples: int) -> int:
        if isinstance(self.front, Convolved):
            return 1
        widest = max(layer.kernel.loc.shape[1] for layer in self.layers)
        return max(1, _STACK_BYTES // (2 * 4 * max(1, widest) * n_examples))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        first, *others = self.layers
        constants = _constants(first, noises, None)
        kernels = []
        for layer in others:
            kernels.append(_with_bias(layer, noises, constants))
            constants = _constants(layer, noises, constants)
        deviations = [
            _FirstDeviation(
                first.kernel.deviation(noise), first.bias.deviation(noise) if first.bias else None
            )
            for noise in noises
        ]
        return _SampledChain(self.front, self.layers, tuple(noises), deviations, kernels, self.room)


def _with_bias(layer: _CompactLayer, noises: Sequence[Noise], constants: Floats | None) -> Floats:
    """Kernels of every draw, shape (n_draws, rows_of(n_in), n_out); the bias is row ``n_in``.

    What the constant units before the layer give is in the bias.
    """
    n_draws = sum(len(noise.draws) for noise in noises)
    n_in, n_out = layer.kernel.loc.shape
    out = np.zeros((n_draws, rows_of(n_in), n_out), np.float32)
    layer.kernel.draws(noises, out[:, :n_in])
    bias = out[:, n_in]
    if layer.bias is not None:
        layer.bias.draws(noises, bias)
    if layer.from_constants is not None:
        assert constants is not None
        drawn = np.empty((n_draws, *layer.from_constants.loc.shape), np.float32)
        layer.from_constants.draws(noises, drawn)
        # A long sum of few numbers: in double, so that its rounding is not seen.
        bias += (drawn.transpose(0, 2, 1).astype(float) @ constants)[:, :, 0].astype(np.float32)
    return out


def _constants(
    layer: _CompactLayer, noises: Sequence[Noise], before: Floats | None
) -> Floats | None:
    """Values of a layer's constant units in every draw: shape (n_draws, n_constants, 1)."""
    if not layer.n_constants:
        return None
    n_draws = sum(len(noise.draws) for noise in noises)
    value = np.zeros((n_draws, layer.n_constants, 1), np.float32)
    if layer.constants_bias is not None:
        layer.constants_bias.draws(noises, value[:, :, 0])
    if layer.constants is not None:
        assert before is not None
        drawn = np.empty((n_draws, *layer.constants.loc.shape), np.float32)
        layer.constants.draws(noises, drawn)
        value += drawn.transpose(0, 2, 1) @ before
    activate(layer.activation, value)
    return value


@dataclass(frozen=True)
class _FirstDeviation:
    """``scale * noise`` of the first kernel and bias; None where nothing varies."""

    kernel: Floats | None
    bias: Floats | None


@dataclass(frozen=True)
class _SampledChain:
    """Draws of a pruned chain: deviations of the first layer, whole kernels of the others."""

    front: Front
    layers: tuple[_CompactLayer, ...]
    noises: tuple[Noise, ...]
    deviations: Sequence[_FirstDeviation]
    kernels: Sequence[Floats]
    room: Workspace

    def outputs(self, x: NDArray[Any], stacks: Sequence[slice]) -> Iterator[Floats]:
        pieces = (
            self._of_piece(inputs, rows.stop - rows.start, stacks)
            for rows, inputs in self.front.pieces(x)
        )
        if self.front.is_whole:
            yield from next(pieces)
            return
        of_pieces = [list(piece) for piece in pieces]
        for of_stack in zip(*of_pieces, strict=True):
            yield np.concatenate(of_stack, axis=2)

    def _of_piece(
        self, inputs: Floats, n_examples: int, stacks: Sequence[slice]
    ) -> Iterator[Floats]:
        """Outputs of some examples for each stack of noises."""
        first, *others = self.layers
        kernel = first.kernel.loc.T
        room = self.room.array("at_mean", *inputs.shape[:-2], len(kernel), inputs.shape[-1])
        at_mean = np.matmul(kernel, inputs, out=room)
        if first.bias is not None:
            at_mean += first.bias.loc[:, None]
        starts = np.cumsum([0, *(len(noise.draws) for noise in self.noises)])
        n_first = others[0].kernel.loc.shape[0] if others else at_mean.shape[-2]
        for stack in stacks:
            draws = slice(starts[stack.start], starts[stack.stop])
            n_draws = draws.stop - draws.start
            n_units, values = n_first, self._units(0, n_draws, n_first, n_examples)
            self._first_layer(stack, inputs, at_mean, values[:, :n_units])
            for number, (layer, kernel) in enumerate(zip(others, self.kernels, strict=True), 1):
                n_units = kernel.shape[2]
                after = self._units(number, n_draws, n_units, n_examples)
                _multiply(kernel[draws], values, after[:, :n_units])
                activate(layer.activation, after[:, :n_units])
                values = after
            yield values[:, :n_units].copy()  # its room is used again

    def _units(self, layer: int, n_draws: int, n_units: int, n_examples: int) -> Floats:
        """Room for units, and below them a row of ones, which the next layer's bias multiplies."""
        out = self.room.array(f"units {layer}", n_draws, rows_of(n_units), n_examples)
        out[:, n_units] = 1
        out[:, n_units + 1 :] = 0
        return out

    def _first_layer(self, stack: slice, inputs: Floats, at_mean: Floats, out: Floats) -> None:
        """Fill in the first layer's units, shape (n_draws, n_units, n_examples)."""
        at = 0
        for noise, deviation in zip(self.noises[stack], self.deviations[stack], strict=True):
            spread = None
            if deviation.kernel is not None:
                room = self.room.array("spread", *at_mean.shape)
                spread = np.matmul(deviation.kernel.T, inputs, out=room)
            if deviation.bias is not None:
                bias = deviation.bias[:, None]
                spread = bias if spread is None else np.add(spread, bias, out=spread)
            for draw in noise.draws:
                self.front.combine(at_mean, spread, draw.sign, out[at])
                activate(self.layers[0].activation, out[at])
                at += 1


def rows_of(n_in: int) -> int:
    """Rows of a layer's matrices: its inputs, a one for the bias, and zeros to whole blocks."""
    n_rows = n_in + 1
    return n_rows if n_rows <= 2 * _BLOCK_ROWS else -(-n_rows // _BLOCK_ROWS) * _BLOCK_ROWS


def _multiply(kernel: Floats, values: Floats, out: Floats) -> None:
    """Products of kernels and values of each draw, long sums in blocks so that they round less."""
    n_draws, n_rows, n_out = kernel.shape
    if n_rows <= 2 * _BLOCK_ROWS:
        np.matmul(kernel.transpose(0, 2, 1), values, out=out)
        return
    blocks = kernel.reshape(n_draws, -1, _BLOCK_ROWS, n_out).transpose(0, 1, 3, 2)
    parts = np.matmul(blocks, values.reshape(n_draws, blocks.shape[1], _BLOCK_ROWS, -1))
    parts.sum(axis=1, out=out)
