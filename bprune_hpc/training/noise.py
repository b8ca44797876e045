"""The noise of a training by the number of the run that it is for, so that a resume has the same.

What belongs here: the random operations of a graph, and their values. What does not: which run is
next (``train``).

TensorFlow's random operations count their own runs inside a session, and nothing sets that count.
So they are not run: what each gives in its n-th run is computed by the stateless operation with
the same key, from where the count would stand, and is fed. The bits are those of a session that has
run all the time, and the saved graph is not touched.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tensorflow_import import calls_of, import_tensorflow, open_session

_COUNTED_PER_VALUE = 256  # by how much TensorFlow's kernels move their count for each value
_PHILOX = 1


class Noise:
    """What the random operations of a graph give, run by run; initial values are left alone.

    Parameters
    ----------
    graph : tf.Graph
        Whole: what is added later is not seen. The sizes of its noise are fixed.
    n_runs : int
        Runs of the session that there have been.
    n_intra, n_inter : int
        Threads; the same as for all sessions of this process.

    Attributes
    ----------
    fed : list of tf.Tensor
        Outputs of the random operations.
    """

    def __init__(self, graph: Any, n_runs: int = 0, n_intra: int = 1, n_inter: int = 1) -> None:
        tf = import_tensorflow()
        self.n_runs = n_runs
        operations = [
            op
            for op in graph.get_operations()
            if op.type in _STATELESS and "/Initializer/" not in op.name
        ]
        self.fed = [op.outputs[0] for op in operations]
        with tf.Graph().as_default() as own:
            run = tf.compat.v1.placeholder(tf.int64, ())
            values = [_STATELESS[op.type](op, _where(op, run)) for op in operations]
        self._session = open_session(own, n_intra, n_inter)
        self._call = calls_of(self._session, values, [run])

    def __enter__(self) -> Noise:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def next(self) -> list[NDArray[Any]]:
        """What to feed in the next run, in the order of :attr:`fed`."""
        values = self._call(np.int64(self.n_runs))
        self.n_runs += 1
        return values


def _where(op: Any, run: Any) -> dict[str, Any]:
    """Key and count of an operation in a run."""
    tf = import_tensorflow()
    n_values = math.prod(op.outputs[0].shape.as_list())
    start = [run * (_COUNTED_PER_VALUE * n_values), tf.constant(op.get_attr("seed2"), tf.int64)]
    return {
        "shape": op.outputs[0].shape.as_list(),
        "key": tf.constant([op.get_attr("seed")], tf.uint64),
        "counter": tf.bitcast(tf.stack(start), tf.uint64),
        "alg": _PHILOX,
    }


def _normal(op: Any, where: dict[str, Any]) -> Any:
    tf = import_tensorflow()
    return tf.raw_ops.StatelessRandomNormalV2(dtype=op.outputs[0].dtype, **where)


def _integers(op: Any, where: dict[str, Any]) -> Any:
    tf = import_tensorflow()
    least, end = (tf.constant(tf.get_static_value(bound)) for bound in op.inputs[1:])
    return tf.raw_ops.StatelessRandomUniformIntV2(minval=least, maxval=end, **where)


_STATELESS = {"RandomStandardNormal": _normal, "RandomUniformInt": _integers}
