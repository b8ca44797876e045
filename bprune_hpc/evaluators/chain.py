"""Chains of layers, perhaps after one convolution, without the parts that pruning has made idle.

Units that are constant or not needed are left out (``evaluators.compaction``). What is left is run
by the compiled module (``evaluators.chain_compiled``) where there is one and little enough is left,
else by NumPy (``evaluators.chain_numpy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..graph.chain import Layers
from ..posterior.mean_field import Posterior
from .buffers import Threads, Workspace
from .chain_compiled import CompiledChain, is_faster
from .chain_numpy import NumpyChain
from .compaction import Alive, Weights, alive_units
from .im2col import Patches
from .interface import Pruned


class ChainNetwork:
    """A chain of layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    layers : Layers
    fixed : mapping of str to float32 array
        Kernels and biases that have no posterior.
    n_threads : int
        Of this process.
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
        self._threads = Threads(n_threads)
        self._fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        self._patches = None
        if layers.convolution is not None:
            self._patches = Patches(layers.convolution)

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        weights = Weights(table, self._fixed)
        nonzero = [weights.nonzero(layer.kernel) for layer in self.layers.dense]
        if self._patches is None:
            alive = alive_units(nonzero)
            layers = []
        else:
            assert self.layers.convolution is not None
            # Of the examples as a whole: whether a filter sees anything of them.
            seen = weights.nonzero(self.layers.convolution.kernel).any(axis=(0, 1, 2))
            n_positions = self._patches.n_positions
            _examples, *alive = alive_units([np.tile(seen, n_positions)[None], *nonzero])
            filters = np.unique(alive[0].varying % len(seen))
            # All units of a filter, as they are all made.
            places = np.arange(n_positions) * len(seen)
            alive[0] = Alive((places[:, None] + filters).ravel(), alive[0].constant)
            layers = [
                weights.compact_convolution(self.layers.convolution, filters, alive[0].constant)
            ]
        layers += [
            weights.compact(layer, before, after)
            for layer, before, after in zip(self.layers.dense, alive[:-1], alive[1:], strict=True)
        ]
        inputs = None if len(alive[0].varying) == len(nonzero[0]) else alive[0].varying
        if is_faster(layers):
            return CompiledChain(tuple(layers), inputs, self._patches, self._room, self._threads)
        return NumpyChain(tuple(layers), inputs, self._patches, self._room)
