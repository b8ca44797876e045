"""Chains of layers, perhaps after one convolution, without the parts that pruning has made idle.

Neurons that are constant or not needed are left out (``evaluators.compaction``). What is left is
run by the compiled module (``evaluators.chain_compiled``) where there is one and little enough is
left, else by NumPy (``evaluators.chain_numpy``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Convolution, Layer
from ..posterior.mean_field import Posterior
from .buffers import Threads, Workspace
from .chain_compiled import CompiledChain, is_faster
from .chain_numpy import NumpyChain
from .compaction import Weights, compact
from .im2col import Patches
from .interface import Pruned


class ChainNetwork:
    """A chain of layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    layers : sequence of Layer
        All dense, or the first one a convolution, which maxima of tiles may follow.
    fixed : mapping of str to float32 array
        Kernels and biases that have no posterior.
    n_threads : int
        Of this process.
    """

    def __init__(
        self, layers: Sequence[Layer], fixed: Mapping[str, NDArray[Any]], n_threads: int = 1
    ) -> None:
        self.n_threads = n_threads
        self._layers = layers
        self._workspace, self._threads = Workspace(), Threads(n_threads)
        self._fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        product, pooling = layers[0].product, layers[0].pooling
        self._patches = None
        if isinstance(product, Convolution):
            self._patches = Patches(product, pooling.window if pooling else (1, 1))

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        layers = compact(self._layers, Weights(table, self._fixed))
        if is_faster(layers):
            return CompiledChain(layers, self._patches, self._workspace, self._threads)
        return NumpyChain(layers, self._patches, self._workspace)
