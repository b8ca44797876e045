"""Runs a pruned chain of layers with NumPy, as whole matrices.

The plain form of what the compiled module does (``evaluators.chain_compiled``), for where there is
none and for networks that are large and hardly pruned. Examples are rows. After the neurons of a
layer comes a one, which the row below the next kernel, its bias, multiplies.

The first layer's input is the same for all draws: its product with ``loc`` is made once for many,
and that with ``scale * noise`` once for the two draws of a pair. A draw then goes through all
layers by itself, so that its values stay in the core's cache and its bits are the same whichever
draws are evaluated beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffers import Workspace
from .compaction import CompactLayer, Floats, Indices
from .dense_ops import activate, drawn_biases, multiply, multiply_last, rows_of
from .im2col import Patches
from .interface import Noise, Sampled, noise_batches_of

_OUTPUT_BYTES = 2**19
"""Outputs that are worked on together, as the float64 that they will be: few calls, and little
that leaves the cache."""
_OUTPUT_COST = 1500
"""Work on an output of a draw, in operations of a product that take as long; measured."""
_CHUNK_BYTES = 6 * 2**20
"""Products with ``loc`` of the images that go through all layers together."""
_BLOCK_BYTES = 2**19
"""The same of those that are pooled together: what is made of them stays in a core's cache."""


@dataclass(frozen=True)
class NumpyChain:
    """A pruned chain; see :class:`bprune_hpc.evaluators.interface.Pruned`.

    Attributes
    ----------
    layers : tuple of CompactLayer
    patches : Patches or None
        Those of a convolution.
    workspace : Workspace
    """

    layers: tuple[CompactLayer, ...]
    patches: Patches | None
    workspace: Workspace

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        # A pair has one product of the first layer's for its two draws.
        first, *others = (layer.kernel.loc.size for layer in self.layers)
        return self.n_rows * first + 2 * sum(others) + _OUTPUT_COST * (self.n_outputs + 8)

    @property
    def n_rows(self) -> int:
        """Rows of an example that the first kernel multiplies."""
        return self.patches.n_rows if self.patches else 1

    @property
    def n_outputs(self) -> int:
        """Outputs of an example."""
        return self.layers[-1].kernel.loc.shape[1]

    @cached_property
    def inputs(self) -> Indices:
        """Which number of an example each of those is that the first kernel multiplies, plus two.

        0 is a one, and 1 a zero. Patches are ordered by their place in the pooling's windows, then
        by position, so that the maximum is one of whole arrays.
        """
        kernel = self.layers[0].kernel
        n_in = len(kernel.loc)
        out = np.ones((self.n_rows, rows_of(n_in)), np.intp)
        if self.patches is None:
            (left, _) = kernel.indices
            out[:, :n_in] = 2 + (np.arange(n_in) if left is None else left)
        else:
            columns, within, bases = self.patches.places()
            out[:, :n_in] = 2 + columns[bases.T.reshape(-1, 1) + within]
        out[:, n_in] = 0
        return out

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        # Images are worked on chunk by chunk, each once for a batch of noises.
        n_bytes = _OUTPUT_BYTES if self.patches is None else 2**6 * _OUTPUT_BYTES
        return noise_batches_of(noises, max(1, n_bytes // (2 * 8 * self.n_outputs * n_examples)))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return _Sampled(self, noises)


class _Sampled:
    """Draws of a pruned chain."""

    def __init__(self, chain: NumpyChain, noises: Sequence[Noise]) -> None:
        self._chain, self._noises = chain, noises
        self._starts = np.cumsum([0, *(len(noise.draws) for noise in noises)]).tolist()
        first, *others = chain.layers
        n_in, n_out = first.kernel.loc.shape
        shape = rows_of(n_in), n_out
        self._loc = np.zeros(shape, np.float32)
        self._deviations = chain.workspace.array("deviations", len(noises), *shape)
        self._deviations[:, n_in:] = 0
        self._varies = np.zeros(len(noises), bool)
        for weights, rows in ((first.kernel, slice(0, n_in)), (first.bias, n_in)):
            if weights is None:
                continue
            self._loc[rows] = weights.loc
            for at, noise in enumerate(noises):
                out = self._deviations[at, rows]
                if weights.deviation(noise, out) is None:
                    out[...] = 0
                else:
                    self._varies[at] = True
        self._kernels = []
        biases = drawn_biases(chain.layers, noises)
        for number, (layer, bias) in enumerate(zip(others, biases, strict=True), 1):
            n_in, n_out = layer.kernel.loc.shape
            kernels = chain.workspace.array(f"kernels {number}", len(bias), rows_of(n_in), n_out)
            layer.kernel.draws(noises, kernels[:, :n_in])
            kernels[:, n_in] = bias
            kernels[:, n_in + 1 :] = 0
            self._kernels.append(kernels)

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[Floats]:
        """See :class:`bprune_hpc.evaluators.interface.Sampled`."""
        chain = self._chain
        n_at_once = len(x) if chain.patches is None else self._n_images(_CHUNK_BYTES)
        chunks = [slice(start, start + n_at_once) for start in range(0, len(x), n_at_once)]
        products = None
        for noise_batch in noise_batches:
            start, stop = self._starts[noise_batch.start], self._starts[noise_batch.stop]
            out = np.empty((stop - start, chain.n_outputs, len(x)), np.float32)
            for chunk in chunks:
                if products is None or len(chunks) > 1:
                    inputs = self._inputs(x[chunk])
                    products = inputs, self._product("at mean", inputs, self._loc)
                self._run(noise_batch, *products, out[:, :, chunk])
            if len(chain.layers) > 1:
                activate(chain.layers[-1].activations, out)
            yield out

    def _inputs(self, x: NDArray[Any]) -> Floats:
        """What the first kernel multiplies, shape (n_examples * n_rows, n_rows of the kernel)."""
        chain = self._chain
        numbers = np.empty((len(x), 2 + x[0].size), np.float32)
        numbers[:, 0], numbers[:, 1] = 1, 0
        numbers[:, 2:] = x.reshape(len(x), -1)
        inputs = chain.workspace.array("inputs", len(x), *chain.inputs.shape)
        np.take(numbers, chain.inputs, axis=1, out=inputs, mode="clip")  # the fastest way
        return inputs.reshape(-1, inputs.shape[2])

    def _product(self, kind: str, inputs: Floats, kernel: Floats) -> Floats:
        # Dense: as wide as values of the layer, so that they are summed without gaps.
        n_out, has_patches = kernel.shape[1], self._chain.patches is not None
        out = self._chain.workspace.array(
            kind, len(inputs), n_out if has_patches else rows_of(n_out)
        )
        np.matmul(inputs, kernel, out=out[:, :n_out])
        out[:, n_out:] = 0
        return out

    def _run(self, noise_batch: slice, inputs: Floats, at_mean: Floats, out: Floats) -> None:
        """Outputs of some examples in some draws, shape (n_draws, n_outputs, n_examples)."""
        others = self._chain.layers[1:]
        hidden = [
            self._values(f"values {number}", out.shape[2], layer.kernel.loc.shape[1])
            for number, layer in enumerate(others[:-1], 1)
        ]
        of_first = self._first if self._chain.patches is None else self._pooled
        firsts = (
            values
            for noise in range(noise_batch.start, noise_batch.stop)
            for values in of_first(noise, inputs, at_mean)
        )
        for draw, (values, of_draw) in enumerate(
            zip(firsts, out, strict=True), self._starts[noise_batch.start]
        ):
            for layer, kernels, after in zip(others, self._kernels, hidden, strict=False):
                multiply(values, kernels[draw], after)
                _finish(after, layer, layer.kernel.loc.shape[1])
                values = after
            if others:
                multiply_last(values, self._kernels[-1][draw], of_draw)
            else:
                of_draw[...] = values[:, : len(of_draw)].T

    def _values(self, kind: str, n_examples: int, n_units: int) -> Floats:
        """An array for a layer's values; see :func:`_finish`."""
        values = self._chain.workspace.array(kind, n_examples, rows_of(n_units))
        values[:, n_units:] = 0
        return values

    def _first(self, noise: int, inputs: Floats, at_mean: Floats) -> Iterator[Floats]:
        """What comes after a dense first layer in each draw of a noise, in the same array."""
        values = self._chain.workspace.array("values 0", *at_mean.shape)
        spread = self._spread(noise, inputs)
        for draw in self._noises[noise].draws:
            _signed_sum(at_mean, spread, draw.sign, values)
            _finish(values, self._chain.layers[0], self._loc.shape[1])
            yield values

    def _pooled(self, noise: int, inputs: Floats, at_mean: Floats) -> Iterator[Floats]:
        """The same after a convolution: its draws share a product for some images at a time."""
        chain, draws = self._chain, self._noises[noise].draws
        assert chain.patches is not None
        n_examples = len(inputs) // chain.n_rows
        n_units = chain.patches.n_positions * at_mean.shape[1]
        values = [self._values(f"values 0 {at}", n_examples, n_units) for at in range(len(draws))]
        n_at_once = self._n_images(_BLOCK_BYTES)
        for start in range(0, n_examples, n_at_once):
            examples = slice(start, min(start + n_at_once, n_examples))
            rows = slice(examples.start * chain.n_rows, examples.stop * chain.n_rows)
            spread = self._spread(noise, inputs[rows])
            summed = chain.workspace.array("summed", *at_mean[rows].shape)
            of_pooled = summed.reshape(examples.stop - start, chain.patches.n_pooled, n_units)
            for draw, out in zip(draws, values, strict=True):
                _signed_sum(at_mean[rows], spread, draw.sign, summed)
                np.maximum.reduce(of_pooled, axis=1, out=out[examples, :n_units])
        for out in values:
            _finish(out, chain.layers[0], n_units)
            yield out

    def _n_images(self, n_bytes: int) -> int:
        """How many have products of that size, at least one."""
        return max(1, n_bytes // max(1, 4 * self._chain.n_rows * self._loc.shape[1]))

    def _spread(self, noise: int, inputs: Floats) -> Floats | None:
        """Product with ``scale * noise``; None where nothing varies."""
        if not self._varies[noise]:
            return None
        return self._product("spread", inputs, self._deviations[noise])


def _finish(values: Floats, layer: CompactLayer, n_units: int) -> None:
    """Apply a layer's activations, and put the one there that the next kernel's bias takes."""
    activate(layer.activations, values)
    values[:, n_units] = 1


def _signed_sum(at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
    """``at_mean + sign * spread``."""
    if spread is None or not sign:
        out[...] = at_mean
    elif sign > 0:
        np.add(at_mean, spread, out=out)
    else:
        np.subtract(at_mean, spread, out=out)
