"""The evaluator for any architecture: the lifted graph, run once for each draw.

Nothing is left out, and nothing is shared between draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..graph.lifted import LiftedGraph
from ..posterior.mean_field import Posterior
from ..tensorflow_import import call_of, import_graphs, open_session
from .interface import Noise, Pruned, Sampled, Weights, noise_batches_of


class Network(Protocol):
    """The deterministic half of a Bayesian network."""

    def __call__(self, x: NDArray[Any], weights: Weights) -> NDArray[Any]:
        """Outputs, one row an example, of inputs under given mean-field weights."""


@dataclass(frozen=True)
class GraphEvaluator:
    """Runs a network as it is; nothing is left out, and nothing is shared between draws."""

    network: Network
    n_threads: int = 1  # it is TensorFlow that has products

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`Evaluator`."""
        return _PrunedGraph(self.network, table)


@dataclass(frozen=True)
class _PrunedGraph:
    network: Network
    table: Posterior

    @property
    def cost(self) -> int:
        return 1  # the same at every threshold, as nothing is left out

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        return noise_batches_of(noises, 1)

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        weights = [weights_of(self.table, noise) for noise in noises]
        return _SampledGraph(self.network, weights)


@dataclass(frozen=True)
class _SampledGraph:
    network: Network
    weights: Sequence[Sequence[Weights]]

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[NDArray[Any]]:
        for noise_batch in noise_batches:
            rows = [
                self.network(x, weights).reshape(len(x), -1)
                for of_noise in self.weights[noise_batch]
                for weights in of_noise
            ]
            yield np.stack([outputs.T for outputs in rows])


def weights_of(table: Posterior, noise: Noise) -> list[Weights]:
    """Weights of each draw: ``loc + sign * scale * noise``."""
    if noise.values is None:
        return [table.loc]
    deviation = {name: scale * noise.values[name] for name, scale in table.scale.items()}
    return [
        {name: loc + np.float32(draw.sign) * deviation[name] for name, loc in table.loc.items()}
        for draw in noise.draws
    ]


class GraphNetwork:
    """A lifted graph that can be called; serves any architecture.

    Parameters
    ----------
    lifted : LiftedGraph
    fixed : mapping of str to array
        Value of every deterministic variable, by the names of ``lifted.fixed_tensors``.
    n_intra, n_inter : int
        TensorFlow threads within and between operations; the same for all networks of a process.
    with_scale : bool
        Whether a Normal's standard deviations, where the graph gives one, follow its means.
    """

    def __init__(
        self,
        lifted: LiftedGraph,
        fixed: Mapping[str, NDArray[Any]],
        n_intra: int = 1,
        n_inter: int = 1,
        with_scale: bool = False,
    ) -> None:
        missing = set(lifted.fixed_tensors) - set(fixed)
        if missing:
            raise ValueError(f"no value for {sorted(missing)}")
        tensorflow = import_graphs()
        graph_def = tensorflow.GraphDef.FromString(lifted.graph_def)
        graph = tensorflow.Graph()
        with graph.as_default():
            tensorflow.import_graph_def(graph_def, name="")
            output: Any = lifted.output_tensor
            if with_scale:
                output = outputs_of(
                    tensorflow, lifted, lambda names: [*map(graph.get_tensor_by_name, names)]
                )
        self.lifted = lifted
        self.n_intra, self.n_inter = n_intra, n_inter
        self._fixed = [
            np.asarray(
                fixed[name], graph.get_tensor_by_name(tensor).dtype.as_numpy_dtype, order="C"
            )
            for name, tensor in lifted.fixed_tensors.items()
        ]
        # A mean near a billion needs the digits that a float64 network has.
        self._types = [
            graph.get_tensor_by_name(tensor).dtype.as_numpy_dtype
            for tensor in lifted.loc_tensors.values()
        ]
        is_float64 = graph.get_tensor_by_name(lifted.output_tensor).dtype == tensorflow.float64
        self._output_type = np.float64 if is_float64 else np.float32
        self._session = open_session(graph, n_intra, n_inter)
        fed = [lifted.input_tensor, *lifted.loc_tensors.values(), *lifted.fixed_tensors.values()]
        self._call = call_of(self._session, output, fed)

    def __call__(self, x: ArrayLike, weights: Mapping[str, NDArray[np.floating]]) -> NDArray[Any]:
        """Outputs of the examples under one set of weights.

        A graph that takes a certain number of examples alone is run as often as it takes.

        Parameters
        ----------
        x : array, shape (n_examples, ...)
            Examples, as the network's input takes them.
        weights : mapping of str to float array
            One array for every name of ``lifted.loc_tensors``.

        Returns
        -------
        float32 array, shape (n_examples, n_classes)
            Logits; where the graph gives a Normal, its mean and, if asked for, its standard
            deviation as a further column. In float64 where the network gives that.
        """
        named = zip(self.lifted.loc_tensors, self._types, strict=True)
        drawn = [np.asarray(weights[name], dtype) for name, dtype in named]
        examples = np.asarray(x, np.dtype(self.lifted.input_dtype))
        size = self.lifted.batch_size
        if size is None or size == len(examples):
            return np.asarray(self._call(examples, *drawn, *self._fixed), self._output_type)
        padded = np.concatenate([examples, np.repeat(examples[-1:], -len(examples) % size, axis=0)])
        outputs = [
            np.array(self._call(padded[start : start + size], *drawn, *self._fixed))
            for start in range(0, len(padded), size)
        ]
        return np.concatenate(outputs)[: len(examples)].astype(self._output_type, copy=False)

    def close(self) -> None:
        """Release the session; the network cannot be called afterwards."""
        self._session.close()

    def __enter__(self) -> GraphNetwork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def outputs_of(
    tensorflow: Any, lifted: LiftedGraph, tensors: Callable[[list[str]], Sequence[Any]]
) -> Any:
    """The outputs of a network as one tensor: of a Normal its means, then its deviations.

    Parameters
    ----------
    tensorflow : module or namespace
    tensors : callable
        The tensors of some names, in the graph where the outputs are wanted.
    """
    if "loc" not in lifted.output_tensors:
        (output,) = tensors([lifted.output_tensor])
        return output
    output, *both = tensors(
        [lifted.output_tensor, *(lifted.output_tensors[kind] for kind in ("loc", "scale"))]
    )
    is_float64 = output.dtype == tensorflow.float64
    dtype = tensorflow.float64 if is_float64 else tensorflow.float32
    loc, scale = (tensorflow.cast(one, dtype) for one in both)
    columns = [loc, tensorflow.broadcast_to(scale, tensorflow.shape(loc))]
    n_examples = tensorflow.shape(loc)[0]
    return tensorflow.concat(
        [tensorflow.reshape(column, [n_examples, -1]) for column in columns], axis=1
    )
