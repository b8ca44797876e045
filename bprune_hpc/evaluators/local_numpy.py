"""Runs dense layers with noise of each example's own with NumPy, as whole matrices.

The plain form of what the compiled module does (``evaluators.local_compiled``). Examples are rows.
After the units of a layer comes a one, which the row below the next kernel, its bias, multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffers import Workspace
from .compaction import Floats, GaussianSlice
from .dense_ops import activate, multiply, rows_of
from .interface import Noise, Sampled, noise_batches_of
from .local_layer import LocalLayer, cost_of_units

_OUTPUT_BYTES = 2**19
"""Outputs that are worked on together, as the float64 that they will be."""
_OUTPUT_COST = 1500
"""Work on an output of a draw, in operations of a product that take as long; measured."""


@dataclass(frozen=True)
class NumpyLocal:
    """A pruned chain; see :class:`bprune_hpc.evaluators.interface.Pruned`."""

    layers: tuple[LocalLayer, ...]
    workspace: Workspace

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        n_weights = sum(layer.mean.loc.size for layer in self.layers[1:])
        return 4 * n_weights + cost_of_units(self.layers) + _OUTPUT_COST * (self.n_outputs + 8)

    @property
    def n_outputs(self) -> int:
        """Outputs of an example."""
        return self.layers[-1].n_units

    @cached_property
    def matrices(self) -> list[tuple[Floats, Floats | None]]:
        """Kernels of means and of variances, each with its bias below."""
        return [
            (
                _with_bias(layer.mean, layer.mean_bias),
                None if layer.variance is None else _with_bias(layer.variance, layer.variance_bias),
            )
            for layer in self.layers
        ]

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return noise_batches_of(noises, _OUTPUT_BYTES // (2 * 8 * self.n_outputs * n_examples))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return _Sampled(self, noises)


@dataclass(frozen=True)
class _Sampled:
    chain: NumpyLocal
    noises: Sequence[Noise]

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[Floats]:
        """See :class:`bprune_hpc.evaluators.interface.Sampled`."""
        examples = range(first_example, first_example + len(x))
        at_first = self._moments(0, self._inputs(x))
        for noise_batch in noise_batches:
            outputs = [
                of_draw
                for noise in self.noises[noise_batch]
                for of_draw in self._draws(noise, examples, at_first)
            ]
            yield np.stack(outputs)

    def _inputs(self, x: NDArray[Any]) -> Floats:
        """What the first kernel multiplies."""
        kernel = self.chain.layers[0].mean
        left, _ = kernel.indices
        numbers = x.reshape(len(x), -1)
        values = self._values("inputs", len(x), len(kernel.loc))
        values[:, : len(kernel.loc)] = numbers if left is None else numbers[:, left]
        return values

    def _values(self, kind: str, n_examples: int, n_units: int) -> Floats:
        """An array for a layer's values: a one after them, and zeros to whole blocks."""
        values = self.chain.workspace.array(kind, n_examples, rows_of(n_units))
        values[:, n_units] = 1
        values[:, n_units + 1 :] = 0
        return values

    def _moments(
        self, number: int, values: Floats, has_noise: bool = True
    ) -> tuple[Floats, Floats | None]:
        """Means of a layer's units, and their deviations where they vary."""
        (mean, variance), array = self.chain.matrices[number], self.chain.workspace.array
        kind, shape = "first" if number == 0 else "other", (len(values), mean.shape[1])
        means = array(f"{kind} means", *shape)
        multiply(values, mean, means)
        if variance is None or not has_noise:
            return means, None
        squares = np.square(values, out=array("squares", *values.shape))
        deviations = array(f"{kind} deviations", *shape)
        multiply(squares, variance, deviations)
        return means, np.sqrt(deviations, out=deviations)

    def _draws(
        self, noise: Noise, examples: range, at_first: tuple[Floats, Floats | None]
    ) -> Iterator[Floats]:
        """Outputs in each draw of a noise, shape (n_outputs, n_examples)."""
        layers, own = self.chain.layers, noise.of_examples
        normals = [
            None
            if own is None or layer.tensor is None
            else own.of(layer.tensor, examples, layer.units)
            for layer in layers
        ]
        for draw in noise.draws:
            moments = at_first
            for number, layer in enumerate(layers):
                means, deviations = moments
                values = self._values(f"values {number % 2}", len(examples), layer.n_units)
                units, of_layer = values[:, : layer.n_units], normals[number]
                if deviations is None or of_layer is None or not draw.sign:
                    units[...] = means
                else:
                    np.multiply(deviations, of_layer.T, out=units)
                    np.multiply(units, np.float32(draw.sign), out=units)
                    units += means
                activate(layer.layer.activations, values)
                values[:, layer.n_units] = 1
                values[:, layer.n_units + 1 :] = 0
                if number + 1 < len(layers):
                    moments = self._moments(number + 1, values, draw.sign != 0)
            yield units.T.copy()


def _with_bias(kernel: GaussianSlice, bias: Floats) -> Floats:
    """A kernel, its bias in the row below, and zeros to whole blocks."""
    n_in, n_out = kernel.loc.shape
    out = np.zeros((rows_of(n_in), n_out), np.float32)
    out[:n_in] = kernel.loc
    out[n_in] = bias
    return out
