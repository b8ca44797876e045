"""Runs a chain of dense layers with NumPy, without the parts that pruning has made idle.

Two things make it cheaper than its plain arithmetic. Units that are constant or not needed are
left out (``alive``). And the first layer's input is the same for all draws, so that its product
with ``loc`` is made once for many draws, and its product with ``scale * noise`` once for the two
draws of an antithetic pair.

Activations lie with one row a unit, so that a row's examples are next to each other. The bits of
a draw are the same whichever draws are evaluated beside it: every product has its own shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .alive import Alive, Indices, alive_units
from .chain import DenseLayer
from .evaluators import Noise, Pruned, Sampled
from .posterior import Posterior

Floats = NDArray[np.float32]

_STACK_BYTES = 2 * 2**20
"""Activations of a layer that are worked on together, so that they stay in a core's cache."""


class DenseNetwork:
    """A chain of dense layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    layers : sequence of DenseLayer
    fixed : mapping of str to float32 array
        Kernels and biases that have no posterior.
    shapes : mapping of str to tuple of int
        Of every kernel, (n_in, n_out).
    n_threads : int
        Of the matrix products, in the whole process.
    """

    def __init__(
        self,
        layers: Sequence[DenseLayer],
        fixed: Mapping[str, NDArray[Any]],
        shapes: Mapping[str, tuple[int, ...]],
        n_threads: int = 1,
    ) -> None:
        threadpool_limits(n_threads, user_api="blas")
        self.layers = tuple(layers)
        self._fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        self._widest = max(shapes[layer.kernel][1] for layer in layers)

    def noises_at_once(self, n_examples: int) -> int:
        """See :class:`bprune_hpc.evaluators.Evaluator`."""
        return max(1, _STACK_BYTES // (2 * 4 * self._widest * n_examples))

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.Evaluator`."""
        alive = alive_units([self._nonzero(table, layer.kernel) for layer in self.layers])
        compact = []
        for layer, before, after in zip(self.layers, alive[:-1], alive[1:], strict=True):
            compact.append(self._compact(table, layer, before, after))
        return _PrunedDense(tuple(compact))

    def _nonzero(self, table: Posterior, kernel: str) -> NDArray[np.bool_]:
        if kernel in table.loc:
            return (table.loc[kernel] != 0) | (table.scale[kernel] != 0)
        return self._fixed[kernel] != 0

    def _compact(
        self, table: Posterior, layer: DenseLayer, before: Alive, after: Alive
    ) -> _CompactLayer:
        def part(name: str, *index: Indices) -> _Gaussian:
            if name in table.loc:
                loc, scale = table.loc[name], table.scale[name]
            else:
                loc, scale = self._fixed[name], None
            flat = loc.reshape(loc.shape if len(index) == 2 else -1)
            is_whole = all(len(one) == size for one, size in zip(index, flat.shape, strict=True))
            chosen = None if is_whole else np.ix_(*index)
            return _Gaussian.of(name, flat, scale, chosen)

        kernel, bias = layer.kernel, layer.bias
        inputs, fed = before.varying, before.constant
        n_constants = len(after.constant)
        return _CompactLayer(
            kernel=part(kernel, inputs, after.varying),
            bias=part(bias, after.varying) if bias else None,
            from_constants=part(kernel, fed, after.varying) if len(fed) else None,
            constants=part(kernel, fed, after.constant) if len(fed) and n_constants else None,
            constants_bias=part(bias, after.constant) if bias and n_constants else None,
            n_constants=n_constants,
            inputs=None if len(inputs) == self._n_in(table, kernel) else inputs,
            activation=layer.activation,
        )

    def _n_in(self, table: Posterior, kernel: str) -> int:
        found: int = (table.loc if kernel in table.loc else self._fixed)[kernel].shape[0]
        return found


@dataclass(frozen=True)
class _Gaussian:
    """Part of a tensor of weights: means, deviations (None: fixed), and where in the tensor."""

    name: str
    loc: Floats
    scale: Floats | None
    index: Any

    @classmethod
    def of(cls, name: str, loc: Floats, scale: Floats | None, index: Any) -> _Gaussian:
        if scale is not None:
            scale = scale.reshape(loc.shape)
            scale = scale if index is None else scale[index]
        return cls(name, loc if index is None else loc[index], scale, index)

    def deviation(self, noise: Noise) -> Floats | None:
        """``scale * noise`` of the part; None where nothing varies."""
        if self.scale is None or noise.values is None:
            return None
        values = noise.values[self.name]
        if self.index is None:
            return self.scale * values.reshape(self.loc.shape)
        return self.scale * values.reshape(-1 if self.loc.ndim == 1 else values.shape)[self.index]

    def draws(self, noises: Sequence[Noise], out: Floats) -> None:
        """Fill in the part in every draw: shape (n_draws, ...)."""
        at = 0
        for noise in noises:
            deviation = self.deviation(noise)
            for draw in noise.draws:
                if deviation is None:
                    out[at] = self.loc
                elif draw.sign > 0:
                    np.add(self.loc, deviation, out=out[at])
                else:
                    np.subtract(self.loc, deviation, out=out[at])
                at += 1


@dataclass(frozen=True)
class _CompactLayer:
    """A layer without what is idle; ``inputs`` None: all of them."""

    kernel: _Gaussian
    bias: _Gaussian | None
    from_constants: _Gaussian | None
    constants: _Gaussian | None
    constants_bias: _Gaussian | None
    n_constants: int
    inputs: Indices | None
    activation: str | None


@dataclass(frozen=True)
class _PrunedDense:
    layers: tuple[_CompactLayer, ...]

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
        return _SampledDense(self.layers, tuple(noises), deviations, kernels)


def _with_bias(layer: _CompactLayer, noises: Sequence[Noise], constants: Floats | None) -> Floats:
    """Kernels of every draw, shape (n_draws, n_in + 1, n_out); the bias is the last row.

    What the constant units before the layer give is in the bias.
    """
    n_draws = sum(len(noise.draws) for noise in noises)
    n_in, n_out = layer.kernel.loc.shape
    out = np.zeros((n_draws, n_in + 1, n_out), np.float32)
    layer.kernel.draws(noises, out[:, :-1])
    bias = out[:, -1]
    if layer.bias is not None:
        layer.bias.draws(noises, bias)
    if layer.from_constants is not None:
        assert constants is not None
        drawn = np.empty((n_draws, *layer.from_constants.loc.shape), np.float32)
        layer.from_constants.draws(noises, drawn)
        bias += (drawn.transpose(0, 2, 1) @ constants)[:, :, 0]
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
class _SampledDense:
    """Draws of a pruned chain: deviations of the first layer, whole kernels of the others."""

    layers: tuple[_CompactLayer, ...]
    noises: tuple[Noise, ...]
    deviations: Sequence[_FirstDeviation]
    kernels: Sequence[Floats]

    def outputs(self, x: NDArray[Any], stacks: Sequence[slice]) -> Iterator[Floats]:
        first = self.layers[0]
        rows = np.asarray(x.reshape(len(x), -1), np.float32)
        inputs = (rows if first.inputs is None else rows[:, first.inputs]).T
        at_mean = np.matmul(first.kernel.loc.T, inputs)
        if first.bias is not None:
            at_mean += first.bias.loc[:, None]
        starts = np.cumsum([0, *(len(noise.draws) for noise in self.noises)])
        for stack in stacks:
            draws = slice(starts[stack.start], starts[stack.stop])
            n_draws = draws.stop - draws.start
            values = _with_ones(n_draws, at_mean.shape)
            self._first_layer(stack, inputs, at_mean, values[:, :-1])
            for layer, kernel in zip(self.layers[1:], self.kernels, strict=True):
                units = _with_ones(n_draws, (kernel.shape[2], inputs.shape[1]))
                np.matmul(kernel[draws].transpose(0, 2, 1), values, out=units[:, :-1])
                activate(layer.activation, units[:, :-1])
                values = units
            yield values[:, :-1]

    def _first_layer(self, stack: slice, inputs: Floats, at_mean: Floats, out: Floats) -> None:
        """Fill in the first layer's units, shape (n_draws, n_units, n_examples)."""
        at = 0
        for noise, deviation in zip(self.noises[stack], self.deviations[stack], strict=True):
            spread = None
            if deviation.kernel is not None:
                spread = np.matmul(deviation.kernel.T, inputs)
            if deviation.bias is not None:
                bias = deviation.bias[:, None]
                spread = bias if spread is None else np.add(spread, bias, out=spread)
            for draw in noise.draws:
                if spread is None:
                    out[at] = at_mean
                elif draw.sign > 0:
                    np.add(at_mean, spread, out=out[at])
                else:
                    np.subtract(at_mean, spread, out=out[at])
                at += 1
        activate(self.layers[0].activation, out)


def _with_ones(n_draws: int, shape: tuple[int, ...]) -> Floats:
    """Room for units, and below them a row of ones, which the next layer's bias multiplies."""
    out = np.empty((n_draws, shape[0] + 1, shape[1]), np.float32)
    out[:, -1] = 1
    return out


def activate(function: str | None, values: Floats) -> None:
    """Apply an activation in place; see :data:`bprune_hpc.chain.ACTIVATIONS`."""
    if function is not None:
        _ACTIVATIONS[function](values)


def _sigmoid(values: Floats) -> None:
    np.negative(values, out=values)
    with np.errstate(over="ignore"):
        np.exp(values, out=values)
    values += 1
    np.reciprocal(values, out=values)


def _elu(values: Floats) -> None:
    negative = np.expm1(np.minimum(values, 0))
    np.maximum(values, 0, out=values)
    values += negative


_ACTIVATIONS: Mapping[str, Callable[[Floats], Any]] = {
    "Relu": lambda values: np.maximum(values, 0, out=values),
    "Relu6": lambda values: np.clip(values, 0, 6, out=values),
    "Tanh": lambda values: np.tanh(values, out=values),
    "Sigmoid": _sigmoid,
    "Elu": _elu,
    "Softplus": lambda values: np.logaddexp(values, np.float32(0), out=values),
}
