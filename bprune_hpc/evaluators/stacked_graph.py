"""The evaluator for a GPU: the lifted graph, for many draws in one call.

Weights of all draws of a chunk are brought to the device once, and stay there for all batches of
examples; a loop on the device runs the network for one after the other. So a call brings the
examples and fetches the outputs, and nothing waits for the host in between. Each draw goes through
the operations that it would alone: its bits do not depend on which others are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.lifted import LiftedGraph
from ..posterior.mean_field import Posterior
from ..tensorflow_import import (
    CPU,
    Device,
    call_of,
    calls_of,
    import_tensorflow,
    open_session,
    same_bits,
)
from .graph import outputs_of, weights_of
from .interface import Noise, Pruned, Sampled, noise_batches_of

_LOOPS_AT_ONCE = 4
"""Draws that are under way at a time on a device, so that it does not wait for the next one."""


class StackedGraph:
    """A lifted graph on a device; an ``Evaluator``.

    Parameters
    ----------
    lifted : LiftedGraph
    fixed : mapping of str to array
        Value of every deterministic variable, by the names of ``lifted.fixed_tensors``.
    n_intra, n_inter : int
        TensorFlow threads.
    device : Device
    """

    def __init__(
        self,
        lifted: LiftedGraph,
        fixed: Mapping[str, NDArray[Any]],
        n_intra: int = 1,
        n_inter: int = 1,
        device: Device = CPU,
    ) -> None:
        self.n_threads = n_intra
        tensorflow = import_tensorflow()
        definition = tensorflow.compat.v1.GraphDef.FromString(lifted.graph_def)
        with tensorflow.Graph().as_default() as alone:
            tensorflow.graph_util.import_graph_def(definition, name="")
        original = alone.get_tensor_by_name
        self._lifted = lifted
        self._drawn: Sampled | None = None
        with tensorflow.Graph().as_default() as self._graph, tensorflow.device(device.name):
            drawn = [
                _Held(tensorflow, original(tensor).dtype, f"drawn/{index}")
                for index, tensor in enumerate(lifted.loc_tensors.values())
            ]
            fixed_held = [
                _Held(tensorflow, original(tensor).dtype, f"fixed/{index}")
                for index, tensor in enumerate(lifted.fixed_tensors.values())
            ]
            x = tensorflow.compat.v1.placeholder(original(lifted.input_tensor).dtype)
            shared = {
                lifted.input_tensor: x,
                **_by_tensor(lifted.fixed_tensors, [held.value for held in fixed_held]),
            }

            is_float64 = original(lifted.output_tensor).dtype == tensorflow.float64
            output_type = tensorflow.float64 if is_float64 else tensorflow.float32

            def network(weights: Sequence[Any]) -> Any:
                given = {**shared, **_by_tensor(lifted.loc_tensors, weights)}
                # Of the loop's own body; known to have the shapes that the network gives them.
                inside = {tensor: tensorflow.identity(value) for tensor, value in given.items()}
                for tensor, value in inside.items():
                    value.set_shape(original(tensor).shape)
                found = outputs_of(
                    tensorflow,
                    lifted,
                    lambda names: tensorflow.graph_util.import_graph_def(
                        definition, inside, names, name="network"
                    ),
                )
                return tensorflow.cast(found, output_type)

            outputs = tensorflow.map_fn(
                tensorflow.autograph.experimental.do_not_convert(network),
                [held.value for held in drawn],
                fn_output_signature=tensorflow.TensorSpec(None, output_type),
                parallel_iterations=_LOOPS_AT_ONCE,
            )
        self._input_type = np.dtype(lifted.input_dtype)
        self._session = open_session(self._graph, n_intra, n_inter, device=device)
        self._types = [held.dtype for held in drawn]
        self._put = calls_of(
            self._session, [], [held.given for held in drawn], [held.assign for held in drawn]
        )
        values = [
            np.asarray(fixed[name], held.dtype, order="C")
            for name, held in zip(lifted.fixed_tensors, fixed_held, strict=True)
        ]
        if values:
            targets = [held.assign for held in fixed_held]
            calls_of(self._session, [], [held.given for held in fixed_held], targets)(*values)
        self._call = call_of(self._session, outputs, [x])

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        return _PrunedStack(self, table)

    def outputs(
        self, x: NDArray[Any], sampled: Sampled, weights: Sequence[Mapping[str, NDArray[Any]]]
    ) -> NDArray[Any]:
        """Outputs of a batch under every draw.

        Parameters
        ----------
        sampled : Sampled
            Whose weights these are; they are brought to the device where it has others.
        weights : sequence of mapping of str to array
            One a draw.

        Returns
        -------
        float32 or float64 array, shape (n_draws, n_outputs, n_examples)
        """
        if self._drawn is not sampled:
            names = zip(self._lifted.loc_tensors, self._types, strict=True)
            self._put(*(np.stack([of[name] for of in weights]).astype(t) for name, t in names))
            self._drawn = sampled
        examples = np.asarray(x, self._input_type)
        size = self._lifted.batch_size or len(examples)
        missing = -len(examples) % size
        padded = np.concatenate([examples, np.repeat(examples[-1:], missing, axis=0)])
        with same_bits():
            parts = [
                np.array(self._call(padded[start : start + size]))
                for start in range(0, len(padded), size)
            ]
        found = np.concatenate([part.reshape(len(weights), size, -1) for part in parts], axis=1)
        return found[:, : len(examples)].transpose(0, 2, 1)


@dataclass(frozen=True)
class _PrunedStack:
    network: StackedGraph
    table: Posterior

    @property
    def cost(self) -> int:
        return 1  # the same at every threshold, as nothing is left out

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        return noise_batches_of(noises, max(1, len(noises)))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        return _SampledStack(self.network, [weights_of(self.table, noise) for noise in noises])


@dataclass(frozen=True, eq=False)
class _SampledStack:
    network: StackedGraph
    weights: Sequence[Sequence[Mapping[str, NDArray[Any]]]]

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[NDArray[Any]]:
        every = [weights for of_noise in self.weights for weights in of_noise]
        found = self.network.outputs(x, self, every)
        starts = np.cumsum([0, *map(len, self.weights)])
        for noise_batch in noise_batches:
            yield found[starts[noise_batch.start] : starts[noise_batch.stop]]


class _Held:
    """An array that stays on the device from one call to the next.

    Attributes
    ----------
    given : tf.Tensor
        What is fed to ``assign``.
    value : tf.Tensor
    """

    def __init__(self, tensorflow: Any, dtype: Any, name: str) -> None:
        raw = tensorflow.raw_ops
        place = raw.VarHandleOp(dtype=dtype, shape=tensorflow.TensorShape(None), shared_name=name)
        self.dtype = dtype.as_numpy_dtype
        self.given = tensorflow.compat.v1.placeholder(dtype)
        self.assign = raw.AssignVariableOp(resource=place, value=self.given)
        self.value = raw.ReadVariableOp(resource=place, dtype=dtype)


def _by_tensor(tensors: Mapping[str, str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(tensors.values(), values, strict=True))
