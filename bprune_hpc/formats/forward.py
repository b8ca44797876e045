"""What a bundle's layers give examples: dense ones as products alone, all others one by one.

What belongs here: running a network's layers with NumPy, in few passes over memory. What does not:
what an operation means (``graph.layer_ops``), weights and their draws (``formats.portable``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Activation, Bias, Dense, LayerGraph, Reshape
from ..graph.layer_ops import activation, product, run

_ROWS = 512
"""Examples whose numbers between two layers stay in a processor's own memory."""
_ROWS_TOGETHER = 16
"""Of which a maximum is taken in one loop of NumPy."""
_COLUMNS = 8
"""That BLAS multiplies together: the rest of a matrix whose width is no multiple is slow."""
_NUMBERS_AT_ONCE = 2**23
"""Of the largest tensor: memory that is given back and taken anew costs more than its use."""

Matrices = list[NDArray[np.float32]]


@dataclass(frozen=True)
class DenseLayer:
    """A product, a bias and a function, of which the last two may be missing."""

    kernel: str
    bias: str | None = None
    function: Activation | None = None


@dataclass(frozen=True)
class DenseChain:
    """Dense layers one after the other.

    A row of numbers has a one behind it, and a kernel its bias below it, so that the product adds
    it; one more column of a matrix gives the next layer that one.

    Attributes
    ----------
    layers : tuple of DenseLayer
    inputs : int array or None
        Numbers of an example that the first one takes; None for all.
    """

    layers: tuple[DenseLayer, ...]
    inputs: NDArray[np.intp] | None

    @property
    def most_rows(self) -> int:
        """Examples that are run at once."""
        return _ROWS

    def prepared(self, weights: Mapping[str, NDArray[np.float32]]) -> Matrices:
        """The matrix of each layer: its kernel, and below it the bias."""
        found: Matrices = []
        for layer in self.layers:
            kernel, is_last = weights[layer.kernel], layer is self.layers[-1]
            n_in, n_out = kernel.shape
            height = found[-1].shape[1] if found else n_in + 1
            matrix = np.zeros((height, n_out if is_last else _whole(n_out + 1, _COLUMNS)), "f4")
            matrix[:n_in, :n_out] = kernel
            if layer.bias is not None:
                matrix[-1, :n_out] = weights[layer.bias].reshape(-1)
            if not is_last:
                matrix[-1, -1] = 1
            found.append(matrix)
        return found

    def memory(self, matrices: Matrices) -> Matrices:
        """For what each layer takes: memory that is taken anew costs as much as a product."""
        return [np.zeros((_whole(_ROWS, _ROWS_TOGETHER), len(one)), "f4") for one in matrices]

    def rows(self, x: NDArray[Any], memory: Matrices | None = None) -> NDArray[np.float32]:
        """What the first layer takes of examples, in that memory or in new one."""
        x = x.reshape(len(x), -1).astype(np.float32, copy=False)
        n_columns = x.shape[1] + 1 if self.inputs is None else len(self.inputs) + 1
        out = np.empty((len(x), n_columns), "f4") if memory is None else memory[0][: len(x)]
        if self.inputs is None:
            out[:, :-1] = x
        else:
            np.take(x, self._inputs_and_one, axis=1, out=out, mode="wrap")  # the fastest mode
        out[:, -1] = 1
        return out

    @cached_property
    def _inputs_and_one(self) -> NDArray[np.intp]:
        assert self.inputs is not None
        return np.append(self.inputs, 0)

    def run(
        self, rows: NDArray[np.float32], matrices: Matrices, memory: Matrices
    ) -> NDArray[np.float32]:
        """Outputs of at most :attr:`most_rows` rows, as an array of their own."""
        last = self.layers[-1].function
        for layer, matrix, out in zip(self.layers, matrices, memory[1:], strict=False):
            rows = product(rows, matrix, out[: len(rows)])
            if layer.function is not None and layer.function.function == "Relu":
                n_rows = _whole(len(rows), _ROWS_TOGETHER)
                long = out[:n_rows].reshape(-1, _ROWS_TOGETHER * out.shape[1])
                np.maximum(long, np.zeros(long.shape[1], "f4"), out=long)
            elif layer.function is not None:
                rows[:, :-1] = activation(rows[:, :-1], layer.function)
        rows = product(rows, matrices[-1])
        return rows if last is None else activation(rows, last)


@dataclass(frozen=True)
class AnyLayers:
    """A graph of layers that is run operation by operation.

    Attributes
    ----------
    graph : LayerGraph
    inputs : int array or None
        As in :class:`DenseChain`.
    most_rows : int
        Examples that are run at once.
    """

    graph: LayerGraph
    inputs: NDArray[np.intp] | None
    most_rows: int

    def prepared(self, weights: Mapping[str, NDArray[np.float32]]) -> Any:
        """The weights themselves."""
        return weights

    def memory(self, weights: Any) -> Matrices:
        """None of its own."""
        return []

    def rows(self, x: NDArray[Any], memory: Matrices | None = None) -> NDArray[np.float32]:
        """What the first layer takes of examples."""
        if self.inputs is not None:
            x = np.take(x.reshape(len(x), -1), self.inputs, axis=1, mode="wrap")
        return x.astype(np.float32, copy=False)

    def run(self, rows: NDArray[np.float32], weights: Any, memory: Matrices) -> NDArray[np.float32]:
        """Outputs of rows."""
        outputs = run(self.graph, weights, rows)
        return outputs.reshape(len(outputs), -1)


def forward(
    graph: LayerGraph, inputs: NDArray[np.intp] | None, largest: int
) -> DenseChain | AnyLayers:
    """How a graph is run: dense layers one after the other in their own way.

    Parameters
    ----------
    inputs : int array or None
        Numbers of an example, in one row, that it takes; None for all.
    largest : int
        Numbers of an example's largest tensor.
    """
    layers = _dense_layers(graph)
    if layers is not None:
        return DenseChain(layers, inputs)
    return AnyLayers(graph, inputs, max(1, _NUMBERS_AT_ONCE // max(largest, 1)))


def _dense_layers(graph: LayerGraph) -> tuple[DenseLayer, ...] | None:
    """The layers of a chain; None where a graph is none."""
    found: list[DenseLayer] = []
    n_axes = len(graph.input_shape)
    for at, node in enumerate(graph.nodes):
        one = node.operation
        if node.inputs != (at - 1,):
            return None
        if isinstance(one, Reshape) and not found:
            n_axes = len(one.shape)
        elif isinstance(one, Dense) and n_axes == 1:
            found.append(DenseLayer(one.kernel))
        elif isinstance(one, Bias) and found and found[-1] == DenseLayer(found[-1].kernel):
            found[-1] = replace(found[-1], bias=one.name)
        elif isinstance(one, Activation) and found and found[-1].function is None:
            found[-1] = replace(found[-1], function=one)
        else:
            return None
    return tuple(found) or None


def _whole(number: int, of: int) -> int:
    """The next multiple."""
    return -(-number // of) * of
