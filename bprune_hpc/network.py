"""Evaluators: the deterministic half of a Bayesian network, ``outputs = f(x, weights)``.

What belongs here: calling a lifted graph with given weights. What does not: how the graph was
lifted (``graph``), where the weights come from (``draws``, ``pruning``), sums over draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .chain import Chain
from .tensorflow_import import call_of, import_graphs, open_session


@dataclass(frozen=True)
class LiftedGraph:
    """A network as a graph without noise and without weights: every weight is an argument.

    Attributes
    ----------
    graph_def : bytes
        Serialized GraphDef; holds constants, but no variable's value.
    input_tensor, output_tensor : str
        Names of the tensors that take the examples and give the logits (in a regression, the mean).
    output_tensors : mapping of str to str
        Every output by what it is: ``logits``; or ``loc`` and ``scale``, the mean and the standard
        deviation of a regression's Normal, each of one shape with the other or broadcast to it.
    input_shape, output_shape : tuple of int or None; None
        First axis: examples. An axis that the graph leaves open is None; None in place of the
        tuple says that not even the number of axes is known.
    input_dtype : str
        NumPy's name of the type that examples are cast to.
    loc_tensors, fixed_tensors : mapping of str to str
        Name of each mean-field tensor, and of each deterministic one, to the tensor it is fed to.
    notes : tuple of str
        What a reader of results should know about the lift.
    chain : Chain or None
        The same network as a chain of layers, where it is one.
    """

    graph_def: bytes
    input_tensor: str
    input_shape: tuple[int | None, ...] | None
    input_dtype: str
    output_tensor: str
    output_shape: tuple[int | None, ...] | None
    loc_tensors: Mapping[str, str]
    fixed_tensors: Mapping[str, str]
    notes: tuple[str, ...] = ()
    output_tensors: Mapping[str, str] = field(default_factory=dict)
    chain: Chain | None = None


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
            if with_scale and "loc" in lifted.output_tensors:
                output = _side_by_side(tensorflow, graph, lifted)
        self.lifted = lifted
        self.n_intra, self.n_inter = n_intra, n_inter
        self._fixed = [
            np.asarray(
                fixed[name], graph.get_tensor_by_name(tensor).dtype.as_numpy_dtype, order="C"
            )
            for name, tensor in lifted.fixed_tensors.items()
        ]
        self._session = open_session(graph, n_intra, n_inter)
        fed = [lifted.input_tensor, *lifted.loc_tensors.values(), *lifted.fixed_tensors.values()]
        self._call = call_of(self._session, output, fed)

    def __call__(
        self, x: ArrayLike, weights: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Outputs of the examples under one set of weights.

        Parameters
        ----------
        x : array, shape (n_examples, ...)
            Examples, as the network's input takes them.
        weights : mapping of str to float32 array
            One array for every name of ``lifted.loc_tensors``.

        Returns
        -------
        float32 array, shape (n_examples, n_classes)
            Logits; where the graph gives a Normal, its mean and, if asked for, its standard
            deviation as a further column.
        """
        drawn = [np.asarray(weights[name], np.float32) for name in self.lifted.loc_tensors]
        examples = np.asarray(x, np.dtype(self.lifted.input_dtype))
        return np.asarray(self._call(examples, *drawn, *self._fixed), np.float32)

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


def _side_by_side(tensorflow: Any, graph: Any, lifted: LiftedGraph) -> Any:
    """Mean and standard deviation of a Normal as the columns of one tensor."""
    loc, scale = (
        tensorflow.cast(graph.get_tensor_by_name(lifted.output_tensors[kind]), tensorflow.float32)
        for kind in ("loc", "scale")
    )
    columns = [loc, tensorflow.broadcast_to(scale, tensorflow.shape(loc))]
    n_examples = tensorflow.shape(loc)[0]
    return tensorflow.concat(
        [tensorflow.reshape(column, [n_examples, -1]) for column in columns], axis=1
    )
