"""A training step of several ranks, each of which takes Adam's step for its share of the weights.

Noise, softplus, divergence and Adam take more time than the products of a fully connected network,
and every rank would do them for all weights. So the weights that the network runs with lie outside
TensorFlow's variables, in two arrays: those that are used as they are, and the scales, each the
softplus of a variable. A step adds up each rank's share of the gradients, lets that rank go on
from there, and gives the new values to all (ZeRO, stage 1).

What belongs here: shares, the step. What does not: where the arrays lie, and what adds up
(``mpi.exchange``, ``train``), when the variables are needed (``train``).

References
----------
S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models",
SC 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._typing import Float32Array as Array
from ..alignment import LINE, aligned, extent, views_of
from ..models.layers import ancestors, scale_of
from ..mpi.comm import Comm
from ..mpi.exchange import slices_of
from ..tensorflow_import import calls_of, import_tensorflow, open_session
from .config import TrainConfig
from .graph import Training, set_state, state_of
from .noise import Noise

AddUp = Callable[[Array], Array]
"""Gives the sum over all ranks of an array; every rank calls it."""


class _Group:
    """Variables side by side, in a part of an array of which each rank has a share.

    Attributes
    ----------
    shapes : list of list of int
    at : slice
        Where the part is.
    bounds : list of int
        Where shares begin in the array, and the end.
    """

    def __init__(self, variables: Sequence[Any], start: int, n_ranks: int) -> None:
        self.variables = variables
        self.shapes = [variable.shape.as_list() for variable in variables]
        self.at = slice(start, start + extent(self.shapes))
        lines = (self.at.stop - start) // LINE
        self.bounds = [start + lines * one // n_ranks * LINE for one in range(n_ranks + 1)]

    def of(self, array: Array) -> list[Array]:
        """What is of each variable in an array of all groups."""
        return views_of(array[self.at], self.shapes)

    def laid_out(self, rank: int, of_variables: Sequence[NDArray[Any]]) -> Array:
        """A rank's share of such an array of other numbers."""
        whole = aligned(self.at.stop)
        for view, value in zip(self.of(whole), of_variables, strict=True):
            view[...] = value
        return whole[slice(*self.bounds[rank : rank + 2])]


class SharedSteps:
    """Training steps of one rank of several.

    Parameters
    ----------
    training : Training
        Built for so many ranks.
    session : tf.compat.v1.Session
        Whose variables the first step goes on from, on all ranks the same.
    config : TrainConfig
    n_train : int
    noise : Noise
    comm : Comm
    add_up : callable, optional
        Adds up gradients; default: the ranks' own exchange.
    """

    def __init__(
        self,
        training: Training,
        session: Any,
        config: TrainConfig,
        n_train: int,
        noise: Noise,
        comm: Comm,
        add_up: AddUp | None = None,
    ) -> None:
        tf = import_tensorflow()
        self._training, self._session, self._noise = training, session, noise
        self._comm, self._add_up = comm, add_up
        network, graph = training.network, training.graph
        variables = graph.get_collection("trainable_variables")
        raw = {one.ref(): name for name, one in network.untransformed_scales.items()}
        is_raw = [one.ref() in raw for one in variables]
        # In the order of the graph, but scales last.
        order = [k for k, one in enumerate(is_raw) if not one]
        n_used = len(order)
        order += [k for k, one in enumerate(is_raw) if one]
        of_order = [variables[k] for k in order]
        used = _Group(of_order[:n_used], 0, comm.size)
        groups = used, _Group(of_order[n_used:], used.at.stop, comm.size)
        self._groups = groups
        bounds = [group.bounds for group in groups]
        self._exchange, self._mine = comm.exchange(bounds), slices_of(bounds, comm.rank)
        values_used, values_scales = (group.of(self._exchange.values) for group in groups)

        fed: list[Any] = []
        self._fed: list[Array] = []
        reads = [op for op in ancestors(training.nll) if op.type == "ReadVariableOp"]
        for variable, view in zip(used.variables, values_used, strict=True):
            found = [op.outputs[0] for op in reads if op.inputs[0] is variable.handle]
            fed += found
            self._fed += [view] * len(found)
        fed += [training.scales[raw[one.ref()]] for one in groups[1].variables]
        self._fed += values_scales
        inputs, self._flags = [training.inputs, training.labels, *noise.fed], list[Any]()
        if network.is_training is not None:
            inputs, self._flags = [*inputs, network.is_training], [np.bool_(True)]
        gradients = [training.nll_gradients[k] for k in order]
        outputs = [training.nll, *gradients]
        self._backward = calls_of(session, outputs, [*inputs, *fed], network.updates)
        self._of_gradient = [one for group in groups for one in group.of(self._exchange.summand)]

        is_loc = {one.ref() for one in network.loc_variables.values()}
        penalized = used.laid_out(comm.rank, [
            np.full(one.shape.as_list(), one.ref() in is_loc, np.float32) for one in used.variables
        ])  # fmt: skip
        self._names = [
            [[name.format(one.op.name) for one in group.variables] for name in _STATE]
            for group in groups
        ]
        before = state_of(training, session)
        state = [[[before[one] for one in names] for names in of_group] for of_group in self._names]
        self._step = before[_GLOBAL_STEP]
        with tf.Graph().as_default() as own:
            v1 = tf.compat.v1
            sums = [v1.placeholder(tf.float32, mine.stop - mine.start) for mine in self._mine]
            rate, factor = (v1.placeholder(tf.float32, ()) for _ in range(2))
            shares = [
                v1.get_variable(f"share{k}", initializer=group.laid_out(comm.rank, of_group[0]))
                for k, (group, of_group) in enumerate(zip(groups, state, strict=True))
            ]
            scale = v1.get_variable("scale", initializer=scale_of(shares[1]))
            weight = factor / n_train
            of_used = sums[0] + (weight / config.prior_scale**2) * penalized * shares[0]
            of_scale = sums[1] + (weight / config.prior_scale**2) * scale - weight / scale
            of_raw = tf.raw_ops.SoftplusGrad(gradients=of_scale, features=shares[1])
            if network.masks:
                of_used, of_raw = (
                    gradient * v1.get_variable(f"mask{k}", initializer=kept, trainable=False)
                    for k, (gradient, kept) in enumerate(
                        zip((of_used, of_raw), self._kept(before), strict=True)
                    )
                )
            adam = v1.train.AdamOptimizer(rate)
            step = adam.apply_gradients(zip((of_used, of_raw), shares, strict=True))
            with tf.control_dependencies([step]):
                new = [shares[0].read_value(), scale_of(shares[1].read_value())]
                kept = scale.assign(new[1], read_value=False)
            self._of_share = [
                [share, adam.get_slot(share, "m"), adam.get_slot(share, "v")] for share in shares
            ]
            initializer = v1.global_variables_initializer()
            values = [shares[0], scale]
            variables = v1.global_variables()
        self._own = open_session(own, config.num_intra, config.num_inter)
        self._own.run(initializer)
        by_name = {one.name: one for one in variables}
        self._powers = [by_name[name] for name in _POWERS]
        pairs = [(by_name[name], before[name]) for name in _POWERS]
        for group, of_share, of_group in zip(groups, self._of_share, state, strict=True):
            for slot, moments in zip(of_share[1:], of_group[1:], strict=True):
                pairs.append((slot, group.laid_out(comm.rank, moments)))
        for one, value in pairs:
            self._own.run(one.initializer, {one.initializer.inputs[1]: value})
        self._update = calls_of(self._own, new, [*sums, rate, factor], [kept])
        self._publish(self._own.run(values))

    def __call__(self, x: Any, y: Any, rate: np.float32, factor: np.float32) -> np.float32:
        """Take a step; see :func:`bprune_hpc.training.graph.step_of`."""
        noise = self._noise.next(len(x))
        nll, *gradients = self._backward(x, y, *noise, *self._flags, *self._fed)
        for view, gradient in zip(self._of_gradient, gradients, strict=True):
            view[...] = gradient
        if self._add_up is None:
            shares = self._exchange.add_up()
        else:
            whole = self._add_up(self._exchange.summand)
            shares = [whole[mine] for mine in self._mine]
        self._publish(self._update(*shares, rate, factor))
        self._step += 1
        return nll  # type: ignore[no-any-return]

    def _publish(self, shares: Sequence[Array]) -> None:
        for mine, share in zip(self._mine, shares, strict=True):
            self._exchange.values[mine] = share
        self._exchange.publish()

    def _kept(self, state: Mapping[str, NDArray[Any]]) -> list[Array]:
        """Masks of this rank's shares: 1 where a weight stays."""
        network, masks = self._training.network, {}
        for layer, mask in network.masks.items():
            for variable in (network.loc_variables[layer], network.untransformed_scales[layer]):
                masks[variable.name] = state[mask.name]
        return [
            group.laid_out(self._comm.rank, [
                masks.get(one.name, np.ones(one.shape.as_list(), np.float32))
                for one in group.variables
            ])
            for group in self._groups
        ]  # fmt: skip

    def put_back(self, with_moments: bool = True) -> None:
        """Give rank 0's variables, and those of Adam, their values; every rank calls this."""
        found: dict[str, NDArray[Any]] = {}
        n = len(_STATE) if with_moments else 1
        for k, (group, mine) in enumerate(zip(self._groups, self._mine, strict=True)):
            of_shares = self._own.run(self._of_share[k][:n])
            for names, share in zip(self._names[k], of_shares, strict=False):
                whole = aligned(group.at.stop)
                whole[mine] = share
                self._comm.gather_shares(whole, group.bounds)
                found |= zip(names, group.of(whole), strict=True)
        if self._comm.is_root:
            found |= zip(_POWERS, self._own.run(self._powers), strict=True)
            found[_GLOBAL_STEP] = np.asarray(self._step)
            set_state(self._training, self._session, found)

    def close(self) -> None:
        """Let go of what the shares take."""
        self._own.close()


_STATE = ("{}:0", "{}/Adam:0", "{}/Adam_1:0")
_POWERS = ("beta1_power:0", "beta2_power:0")
_GLOBAL_STEP = "global_step:0"
