"""Dense layers one after the other, with noise of its own for each example.

A unit of a layer is a sum of what each weight makes of one input. Given the inputs it is Normal
under weights that are: its mean is the inputs' product with ``loc``, its variance that of their
squares with ``scale`` squared, and units are independent (the local reparameterization of Kingma,
Salimans and Welling 2015). Drawing units of each example in place of weights of all of them leaves
the distribution of each example's outputs as it is, where no weight is used more than once; only
examples do not err together any more.

What is left of the layers is run by the compiled module (``evaluators.local_compiled``) where
there is one and little enough is left, else by NumPy (``evaluators.local_numpy``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Layer
from ..posterior.mean_field import Posterior
from .buffers import Threads, Workspace
from .chain_compiled import NEAR_BYTES, SPARSE, can_run
from .compaction import Weights, compact
from .interface import Pruned
from .local_compiled import CompiledLocal
from .local_layer import LocalLayer
from .local_numpy import NumpyLocal


class LocalChain:
    """A chain of dense layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    layers : sequence of Layer
        All dense; of their weights none is used twice.
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

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        compacted = compact(self._layers, Weights(table, self._fixed), folds_constants=False)
        layers = tuple(LocalLayer(layer) for layer in compacted)
        if can_run(compacted) and _is_near(layers):
            return CompiledLocal(layers, self._workspace, self._threads)
        return NumpyLocal(layers, self._workspace)


def _is_near(layers: Sequence[LocalLayer]) -> bool:
    """Whether numbers that each draw reads stay in a core's cache, or are few of all there are."""
    kernels = [kernel for layer in layers[1:] for kernel in (layer.mean, layer.variance) if kernel]
    n_left = sum(int(np.count_nonzero(kernel.loc)) for kernel in kernels)
    return 4 * n_left <= NEAR_BYTES or n_left < SPARSE * sum(one.loc.size for one in kernels)
