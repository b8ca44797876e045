"""Runs a graph of layers with the compiled module, without the weights that pruning has zeroed.

What belongs here: an order of few operations, each with what follows it that is done while its
numbers are at hand; the room of their tensors, which is used again and again; and weights of draws.
What does not: where numbers lie (``evaluators.slabs``), the products themselves
(``_compiled_slabs.h``).

A convolution's weights are lists, either of each filter alone, which leave every zero out, or of
some filters together, which share their inputs. Which ones follows from a threshold's own zeros. A
sum's terms are added in the order of its list: its bits are the same whichever draws, examples and
threads there are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compiled
from ..graph.layer_graph import (
    EXAMPLES,
    NO_BORDERS,
    Activation,
    Add,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    Operation,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Shape,
    scales_apart,
)
from ..posterior.mean_field import Posterior
from .buffers import Threads, Workspace
from .compact_graph import CompactGraph, compact_graph
from .compaction import Floats, GaussianSlice, Weights
from .compiled_layers import Values, index_of
from .interface import Noise, Pruned, Sampled, noise_batches_of
from .slabs import (
    GROUP_SLABS,
    SLAB,
    VECTORS_OF_HALF,
    Layout,
    Tiles,
    Window,
    squares_of,
    tiles_of,
    windows_of,
)

_NO_BOUNDS = (-math.inf, math.inf)
_BOUNDS = {"Relu": (0.0, math.inf), "Relu6": (0.0, 6.0)}
_FUNCTIONS = {
    name: at
    for at, name in enumerate(
        ("Tanh", "Sigmoid", "Elu", "Softplus", "Selu", "Swish", "Softsign", "Gelu", "GeluTanh",
         "LeakyRelu"), 1,
    )
}  # fmt: skip
"""As the compiled module numbers them."""
_CONVOLUTION, _ELEMENTWISE, _POOLING, _SQUARES = range(4)
_GROUP = SLAB * GROUP_SLABS
"""Examples that go through all layers together."""
_MOST_WEIGHTS, _MOST_OPERATIONS = 2**31 - 1, 400


_Operation = tuple[Any, ...]
"""As the compiled module takes it."""


class UnknownLayersError(Exception):
    """A graph of layers that the compiled module does not run."""


@dataclass
class Step:
    """An operation, and what is done with its numbers before they are stored.

    Attributes
    ----------
    operation : Dense, Convolution, Pooling or None
        None for what follows alone.
    inputs : tuple of int
        The tensor that it takes, and one that is added.
    output : int
        The tensor that it gives.
    window : Window or None
    affine : list of Bias or Scale
        In their order.
    bounds : tuple of float
    function : int
        Of the compiled module; 0 for none.
    alpha : float
        Of ``LeakyRelu``.
    is_open : bool
        Whether more can follow.
    """

    operation: Dense | Convolution | Pooling | None
    inputs: tuple[int, ...]
    output: int
    window: Window | None = None
    affine: list[Bias | Scale] = field(default_factory=list)
    bounds: tuple[float, float] = _NO_BOUNDS
    function: int = 0
    alpha: float = 0.0
    is_open: bool = True


@dataclass(frozen=True)
class Tensor:
    """What a step gives, or the examples: rows, columns and channels; whether it is made flat."""

    size: tuple[int, int]
    n_channels: int


@dataclass(frozen=True)
class Steps:
    """A graph of layers in few steps.

    Attributes
    ----------
    steps : tuple of Step
    tensors : tuple of Tensor
        The examples first.
    result : int
    """

    steps: tuple[Step, ...]
    tensors: tuple[Tensor, ...]
    result: int

    @cached_property
    def n_narrow(self) -> int:
        """Steps before the first convolution that works on all slabs of a group together.

        They are run slab by slab, so that their tensors are small.
        """
        return next(
            (
                at
                for at, one in enumerate(self.steps)
                if isinstance(one.operation, Dense | Convolution)
                and one.window is not None
                and one.window.n_together > 1
            ),
            len(self.steps),
        )

    @cached_property
    def last_uses(self) -> list[int]:
        """The last step that uses each tensor; one more than there are for the result."""
        out = [0] * len(self.tensors)
        for at, step in enumerate(self.steps):
            for tensor in (*step.inputs, step.output):
                out[tensor] = at
        out[self.result] = len(self.steps)
        return out

    @cached_property
    def layouts(self) -> list[Layout]:
        """Of each tensor: slabs lie side by side in one that a step after the narrow ones uses."""
        narrow = [self.n_narrow > 0, *(last < self.n_narrow for last in self.last_uses[1:])]
        return [
            Layout(*one.size, SLAB if is_narrow else _GROUP)
            for one, is_narrow in zip(self.tensors, narrow, strict=True)
        ]

    def sums_layout(self, at: int) -> Layout:
        """That of a step's sums where they are not finished: each slab lies by itself."""
        size = self.tensors[self.steps[at].output].size
        return Layout(*size, self.layouts[0].column_stride)

    def sizes(self, at: int) -> tuple[int, int]:
        """Channels that a step takes, and that it gives."""
        step = self.steps[at]
        return self.tensors[step.inputs[0]].n_channels, self.tensors[step.output].n_channels

    def around(self, at: int, is_shared: bool = False) -> tuple[Window, Layout, Layout, Layout]:
        """A convolution's window, and layouts of what it takes, gives and adds."""
        step = self.steps[at]
        assert step.window is not None
        after = self.layouts[step.output]
        other = self.layouts[step.inputs[1]] if len(step.inputs) > 1 else after
        if is_shared:
            after = other = self.sums_layout(at)
        return step.window, self.layouts[step.inputs[0]], after, other

    def tiles(self, at: int) -> Tiles:
        """Those of a step that is a convolution."""
        return tiles_of(*self.around(at))


class _Builder:
    """Divides a graph of layers into steps; without shapes it only looks at the operations."""

    def __init__(
        self, graph: LayerGraph, shapes: Sequence[Shape] | None, apart: Collection[int] = ()
    ) -> None:
        self._shapes, self._apart = shapes, apart
        self._is_flat = {EXAMPLES: False}
        self.tensors = [_tensor(graph.input_shape)]
        self.steps: list[Step] = []
        self._tensor_of = {EXAMPLES: 0}
        self._takers: dict[int, list[Operation]] = {at: [] for at in range(-1, len(graph.nodes))}
        for node in graph.nodes:
            for at in node.inputs:
                self._takers[at].append(node.operation)
        for at, node in enumerate(graph.nodes):
            self._is_flat[at] = any(self._is_flat[one] for one in node.inputs)
            try:
                self._tensor_of[at] = self._add(at, node.operation, node.inputs)
            except UnknownLayersError:
                raise UnknownLayersError(str(node.operation)) from None
        self.result = self._tensor_of[len(graph.nodes) - 1]

    def _add(self, at: int, one: Operation, inputs: tuple[int, ...]) -> int:
        """The tensor that holds what an operation gives."""
        tensors = [self._tensor_of[at] for at in inputs]
        if isinstance(one, Dense | Convolution):
            self._is_flat[at] = False
            return self._product(one, tensors[0], self._shapes[at][-1] if self._shapes else 0)
        if isinstance(one, Pooling):
            before = self.tensors[tensors[0]]
            window = Window(before.size, one.window, one.strides, one.borders)
            after = Tensor(window.places, before.n_channels)
            return self._step(
                Step(one, (tensors[0],), len(self.tensors), window, is_open=False), after
            )
        if isinstance(one, Reshape):
            tensor = self._reshaped(one, inputs[0])
            self._is_flat[at] = len(one.shape) == 1 and self.tensors[tensor].size != (1, 1)
            return tensor
        if isinstance(one, Add) and len(inputs) == 2:
            return self._sum(inputs)
        if isinstance(one, Bias | Scale):
            if self._is_flat[at]:
                raise UnknownLayersError  # one number for each place
            step = self._open(inputs[0], "affine", is_apart=at in self._apart)
            step.affine.append(one)
            return step.output
        if isinstance(one, Activation) and one.function in _BOUNDS:
            step = self._open(inputs[0], "bounds")
            step.bounds, step.is_open = _BOUNDS[one.function], False
            return step.output
        if isinstance(one, Activation) and one.function in _FUNCTIONS:
            step = self._open(inputs[0], "function")
            step.function, step.alpha, step.is_open = _FUNCTIONS[one.function], one.alpha, False
            return step.output
        raise UnknownLayersError

    def _step(self, step: Step, after: Tensor) -> int:
        self.steps.append(step)
        self.tensors.append(after)
        return step.output

    def _product(self, one: Dense | Convolution, at: int, n_out: int) -> int:
        before = self.tensors[at]
        if isinstance(one, Dense):  # its window is all that there is
            window = Window(before.size, before.size)
        else:
            if one.groups != 1 or one.image[:2] != before.size:
                raise UnknownLayersError
            window = Window(before.size, one.window, one.strides, one.borders, one.dilations)
        if math.prod(window.taps) * before.n_channels * n_out > _MOST_WEIGHTS:
            raise UnknownLayersError
        after = Tensor(window.places, n_out)
        return self._step(Step(one, (at,), len(self.tensors), window), after)

    def _reshaped(self, one: Reshape, before: int) -> int:
        """The same tensor, if its numbers stay where they are; examples are put there."""
        at = self._tensor_of[before]
        tensor, wanted = self.tensors[at], _tensor(one.shape)
        # A tensor by another name: its own step ends, if it is used as it is too.
        takers = self._takers[before]
        if len(takers) != 1:
            for step in self.steps:
                step.is_open &= step.output != at
        # Rows, columns and channels of the examples are nothing to a product of all of them.
        is_free = len(takers) == 1 or all(isinstance(taker, Dense | Reshape) for taker in takers)
        if at == 0 and is_free and not self.steps:
            self.tensors[0] = wanted
        elif len(one.shape) != 1 and wanted.size != tensor.size:
            raise UnknownLayersError
        return at

    def _sum(self, inputs: tuple[int, ...]) -> int:
        first, second = (self._tensor_of[at] for at in inputs)
        if self.tensors[first].size != self.tensors[second].size or first == second:
            raise UnknownLayersError
        for at, other in ((inputs[1], first), (inputs[0], second)):
            step = self._last(at)
            # It is made after the other one is, which is added to it.
            if step is not None and other < step.output and len(step.inputs) == 1:
                step.inputs += (other,)
                return step.output
        step = Step(None, (first, second), len(self.tensors))
        return self._step(step, self.tensors[first])

    def _last(self, at: int) -> Step | None:
        """The step that gives a node's result, if more can be done in it."""
        tensor = self._tensor_of[at]
        step = next((one for one in self.steps if one.output == tensor), None)
        return step if step is not None and step.is_open and len(self._takers[at]) == 1 else None

    def _open(self, at: int, what: str, is_apart: bool = False) -> Step:
        """A step to which something can be appended."""
        step = self._last(at)
        is_sum = step is not None and len(step.inputs) == 2
        of_product = step is not None and step.operation is not None
        is_apart &= not of_product  # whose sums are rounded by as much
        is_closed = (what == "affine" and is_sum) or (what == "function" and of_product)
        if step is None or is_closed or is_apart:
            tensor = self._tensor_of[at]
            step = Step(None, (tensor,), len(self.tensors))
            self._step(step, self.tensors[tensor])
        return step


def _tensor(shape: tuple[int, ...]) -> Tensor:
    """A vector is an image of one place, a sequence one of one row."""
    sizes = (1, 1, *shape)[-3:]
    if len(shape) > 3:
        raise UnknownLayersError
    return Tensor((sizes[0], sizes[1]), sizes[2])


def steps_of(graph: LayerGraph, shapes: Sequence[Shape], apart: Collection[int] = ()) -> Steps:
    """A graph of layers in few steps.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of what each node gives for an example.
    apart : collection of int
        Nodes that are ``Scale`` and do not become one sum with what is before them, unless that is
        a product.

    Raises
    ------
    UnknownLayersError
        If it has an operation that the compiled module has not.
    """
    built = _Builder(graph, shapes, apart)
    return Steps(tuple(built.steps), tuple(built.tensors), built.result)


def is_known(graph: LayerGraph) -> bool:
    """Whether the compiled module has all operations of a graph."""
    return not what_is_unknown(graph)


def what_is_unknown(graph: LayerGraph) -> str:
    """What keeps the compiled module from running a graph; empty if nothing does."""
    try:
        _Builder(graph, None)
    except UnknownLayersError as error:
        return str(error)
    n_operations = len(graph.nodes)
    return "" if 0 < n_operations <= _MOST_OPERATIONS else f"{n_operations} operations"


@dataclass(frozen=True)
class Lists:
    """A kernel's weights that are not zero, as the compiled module takes them.

    Attributes
    ----------
    width : int
        Filters that share a list; 0 for Winograd's products, which have none.
    block : int
        Inputs of each list.
    starts, offsets : int32 array
    weights : Values
        ``width`` of them an entry.
    cost : float
        Operations for each place, in the time of those of filters that share their inputs.
    square_size : int
        Rows and columns of places of Winograd's products; else 0.
    """

    width: int
    block: int
    starts: NDArray[np.int32]
    offsets: NDArray[np.int32]
    weights: Values
    cost: float
    square_size: int = 0


_COST_ALONE, _COST_OF_LISTS = 1.15, 0.05
"""Time of a weight of a filter alone, relative to one of filters that share inputs, and that of a
list, relative to all of its weights together, zeros too; measured."""
_COST_OF_SQUARES = 1.3
"""Time of one of Winograd's products, relative to one of filters that share inputs; measured."""
_COST_OF_SUMS = 40
"""Operations for each place to put a filter's number together from these; measured."""
_EMPTY = np.zeros(1, np.int32), np.zeros(0, np.int32)
_NEAR_VECTORS = 640
"""Vectors of a tile's inputs that stay in a core's first cache."""
_FEWEST_ENTRIES = 8
"""Of a list: less, and storing sums between blocks of inputs takes longer than products."""


def lists_of(weights: GaussianSlice, steps: Steps, at: int) -> Lists:
    """The lists of a convolution, in the form that takes less time for its own zeros."""
    step, tiles = steps.steps[at], steps.tiles(at)
    assert step.window is not None
    n_in, n_out = steps.sizes(at)
    loc = np.ascontiguousarray(weights.loc, np.float32).reshape(-1)
    scale = weights.scale
    if scale is not None:
        scale = np.ascontiguousarray(scale, np.float32).reshape(-1)
    filters = compiled.module.FILTERS
    kernel = loc, scale, tiles.offsets, n_in, n_out, tiles.reach * SLAB
    alone, runs = compiled.module.weight_counts(kernel)
    width, n_entries = 1, alone
    cost = 2 * (_COST_ALONE * alone + _COST_OF_LISTS * loc.size)
    if 2 * runs * filters < cost:
        width, n_entries, cost = filters, runs, 2.0 * runs * filters
    if size := step.window.square_size:
        n_padded = -(-n_out // filters) * filters
        of_products = 2 * n_in * n_padded * step.window.n_products(size)
        of_squares = (
            _COST_OF_SQUARES * of_products / math.prod(step.window.places) + _COST_OF_SUMS * n_out
        )
        if of_squares < cost:
            return Lists(0, 0, *_EMPTY, _all_values(weights, loc, scale), of_squares, size)
    # A block's inputs stay near, and its lists are not too short.
    n_lists = max(1, -(-n_out // width))
    fewest = math.ceil(_FEWEST_ENTRIES * n_lists * n_in / max(1, n_entries))
    block = max(1, min(n_in, max(_NEAR_VECTORS // tiles.reach, fewest)))
    n_blocks = max(1, -(-n_in // block))
    block = max(1, -(-n_in // n_blocks))
    starts = np.zeros(n_blocks * -(-n_out // width) + 1, np.int32)
    compiled.module.weight_lists(kernel, block, width, starts, None)
    starts = np.cumsum(starts, dtype=np.int32)
    offsets, places = np.empty(n_entries, np.int32), np.empty(n_entries * width, np.int32)
    of_list = [np.empty(n_entries * width, np.float32) for _ in range(1 if scale is None else 2)]
    written = offsets, places, of_list[0], of_list[-1]
    compiled.module.weight_lists(kernel, block, width, starts, written)
    nothing = np.zeros(0, np.float32)
    values = Values(weights.name, of_list[0], nothing, places[:0], is_fixed=True)
    if scale is not None:
        np.maximum(places, 0, out=places)
        if places.size and any(one is not None for one in weights.indices):
            places = index_of(weights).reshape(-1).take(places, mode="clip")
        values = Values(weights.name, of_list[0], of_list[1], places, is_fixed=False)
    return Lists(width, block, starts, offsets, values, cost)


def _all_values(weights: GaussianSlice, loc: Floats, scale: Floats | None) -> Values:
    """All of a slice's weights, in their own order."""
    if scale is None:
        nothing = np.zeros(0, np.float32)
        return Values(weights.name, loc, nothing, nothing.astype(np.int32), True)
    return Values(weights.name, loc, scale, index_of(weights).reshape(-1), False)


class CompiledGraph:
    """A graph of layers that can be pruned and sampled; an ``Evaluator``.

    Parameters
    ----------
    graph : LayerGraph
        Of which :func:`is_known` is true.
    fixed : mapping of str to float32 array
        Weights that have no posterior; without the graph's constants.
    n_threads : int
        Of this process.
    """

    def __init__(
        self, graph: LayerGraph, fixed: Mapping[str, NDArray[Any]], n_threads: int = 1
    ) -> None:
        self.n_threads = n_threads
        self._graph = graph
        self._fixed = {
            name: np.asarray(value, np.float32)
            for name, value in {**fixed, **graph.constants}.items()
        }
        # Zeros around an image keep constants from being one bias at all places.
        self._folds_constants = not any(
            isinstance(node.operation, Convolution | Pooling | Padding)
            and node.operation.borders != NO_BORDERS
            for node in graph.nodes
        )
        self._workspace, self._threads = Workspace(), Threads(n_threads)

    def prune(self, table: Posterior) -> Pruned:
        """See :class:`bprune_hpc.evaluators.interface.Evaluator`."""
        network = compact_graph(
            self._graph, Weights(table, self._fixed), folds_constants=self._folds_constants
        )
        fixed = {name: one.loc for name, one in network.weights.items() if one.scale is None}
        steps = steps_of(network.graph, network.shapes, scales_apart(network.graph, fixed))
        lists = {
            at: lists_of(network.weights[step.operation.kernel], steps, at)
            for at, step in enumerate(steps.steps)
            if isinstance(step.operation, Dense | Convolution)
        }
        return CompiledPruned(network, steps, lists, self._workspace, self._threads)


_SHARED_COST = 0.03
"""Share of the cost from which on products with the examples are made for several draws."""
_OUTPUT_COST = 900
"""Work on an output of a draw, in operations of a product that take as long; measured."""
_OUTPUT_BYTES = 2**20
"""Outputs that are worked on together: enough that calls take no time, and little memory."""


@dataclass(frozen=True)
class CompiledPruned:
    """A pruned graph; see :class:`bprune_hpc.evaluators.interface.Pruned`.

    Attributes
    ----------
    network : CompactGraph
    steps : Steps
    lists : mapping of int to Lists
        Of each product, by its step's number.
    workspace : Workspace
    threads : Threads
    """

    network: CompactGraph
    steps: Steps
    lists: Mapping[int, Lists]
    workspace: Workspace
    threads: Threads

    @cached_property
    def shared(self) -> tuple[int, ...]:
        """Products with the examples, which are made at the mean and for each noise.

        None, where they are a small part of all.
        """
        costs = {at: self._cost(at) for at in self.lists}
        firsts = [at for at in costs if self.steps.steps[at].inputs[0] == 0]
        if sum(costs[at] for at in firsts) < _SHARED_COST * sum(costs.values()):
            return ()
        return tuple(firsts)

    def _cost(self, at: int) -> float:
        window = self.steps.steps[at].window
        assert window is not None
        return self.lists[at].cost * math.prod(window.places)

    @property
    def n_outputs(self) -> int:
        """Outputs of an example."""
        result = self.steps.tensors[self.steps.result]
        return math.prod(result.size) * result.n_channels

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        products = sum(self._cost(at) / (2 if at in self.shared else 1) for at in self.lists)
        return int(products) + _OUTPUT_COST * (self.n_outputs + 4)

    @cached_property
    def program(self) -> Program:
        """The operations, and where their tensors are."""
        rooms = [
            _room(lists, *self.steps.sizes(at), self.steps.tiles(at).reach)
            for at, lists in self.lists.items()
        ]
        return Program(self.steps, self.shared, max(rooms, default=0))

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        n_draws = max((len(noise.draws) for noise in noises), default=1)
        most = _OUTPUT_BYTES // (4 * n_draws * self.n_outputs * n_examples)
        return noise_batches_of(noises, max(1, min(most, compiled.module.MOST_DRAWS // n_draws)))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return _Sampled(self, noises)


class Program:
    """Where a pruned graph's tensors are.

    Attributes
    ----------
    tensors : int64 array, shape (n_tensors, 8)
        As the compiled module takes them.
    sums : dict of int to (int, int)
        For each shared step the tensors of its products with means and with a noise.
    room : int
        Where in the scratch products have their own.
    n_scratch, n_group : int
        Numbers of the scratch, and of a group of examples.
    """

    def __init__(self, steps: Steps, shared: Sequence[int], n_room: int) -> None:
        layouts, tensors = list(steps.layouts), list(steps.tensors)
        self.sums: dict[int, tuple[int, int]] = {}
        for at in shared:
            self.sums[at] = len(tensors), len(tensors) + 1
            layouts += [steps.sums_layout(at)] * 2
            tensors += [tensors[steps.steps[at].output]] * 2
        sizes = [
            one.n_channels * layout.channel_stride
            for one, layout in zip(tensors, layouts, strict=True)
        ]
        strides = [SLAB if layout.column_stride == _GROUP else 0 for layout in layouts]
        for tensor in (0, *(one for pair in self.sums.values() for one in pair)):
            if not strides[tensor]:  # a slab after the other
                strides[tensor] = sizes[tensor]
                sizes[tensor] *= GROUP_SLABS
        self.n_group = sizes[0]
        starts, self.room = self._places(steps, sizes)
        self.n_scratch = self.room + n_room
        self.tensors = np.array(
            [
                (
                    start, stride, layout.channel_stride, layout.row_stride,
                    layout.column_stride, one.n_channels, *one.size,
                )
                for start, stride, one, layout in zip(
                    starts, strides, tensors, layouts, strict=True
                )
            ],
            np.int64,
        )  # fmt: skip

    def _places(self, steps: Steps, sizes: Sequence[int]) -> tuple[list[int], int]:
        """Where each tensor begins, beside those that are used at the same time; numbers of all."""
        starts = [0] * len(sizes)
        taken: list[tuple[int, int, int, int]] = []  # start, stop, first use, last use

        def place(tensor: int, first: int, last: int) -> None:
            start = 0
            for other in sorted(one for one in taken if one[2] <= last and first <= one[3]):
                if start + sizes[tensor] <= other[0]:
                    break
                start = max(start, other[1])
            taken.append((start, start + sizes[tensor], first, last))
            starts[tensor] = start

        for pair in self.sums.values():
            for tensor in pair:
                place(tensor, 0, len(steps.steps))
        for at, step in enumerate(steps.steps):
            last = steps.last_uses[step.output]
            # The other slabs' narrow steps come after this one's.
            place(step.output, 0 if at < steps.n_narrow <= last else at, last)
        return starts, max(one[1] for one in taken)


def _room(lists: Lists, n_in: int, n_out: int, reach: int) -> int:
    """Numbers of a product's own: Winograd's, or what a tile sees of a block, and its sums."""
    if lists.square_size:
        filters, n_together = compiled.module.FILTERS, compiled.module.SQUARES_TOGETHER
        n_rows = n_in + -(-n_out // filters) * filters + 1
        n_vectors = (lists.square_size + 2) ** 2 * n_together * n_rows
    else:
        n_vectors = lists.block * reach + VECTORS_OF_HALF * (1 + 2 * n_out)
    return n_vectors * SLAB


class _Sampled:
    """Draws of a pruned graph."""

    def __init__(self, pruned: CompiledPruned, noises: Sequence[Noise]) -> None:
        self._pruned, self._noises = pruned, noises
        self._starts = np.cumsum([0, *(len(noise.draws) for noise in noises)]).tolist()
        workspace = pruned.workspace
        n_draws = self._starts[-1]
        self._values: dict[int, Floats] = {}
        for at, lists in pruned.lists.items():
            n_sets = len(noises) + 1 if at in pruned.shared else n_draws
            kind = f"values {at}" if lists.width else "kernel"
            values = workspace.array(kind, n_sets, len(lists.weights))
            if at in pruned.shared:
                _means_and_noises(lists.weights, noises, values)
            else:
                lists.weights.draws(noises, values)
            self._values[at] = values if lists.width else self._of_squares(at, values)
        self._affine = {
            at: self._of_channels(step, pruned.steps.tensors[step.output].n_channels)
            for at, step in enumerate(pruned.steps.steps)
        }

    def _of_squares(self, at: int, kernels: Floats) -> Floats:
        """Weights of Winograd's products, of each set of a kernel's."""
        pruned, size = self._pruned, self._pruned.lists[at].square_size
        n_in, n_out = pruned.steps.sizes(at)
        n_lists = -(-n_out // compiled.module.FILTERS)
        n_values = (size + 2) ** 2 * n_in * n_lists * compiled.module.FILTERS
        values = pruned.workspace.array(f"values {at}", len(kernels), n_values)

        def run(_: Workspace, first: int, last: int) -> None:
            compiled.module.square_weights(
                compiled.instructions(), size, kernels[first:last], last - first, n_in, n_out,
                values[first:last],
            )  # fmt: skip

        pruned.threads.run(run, len(kernels))
        return values

    def _of_channels(self, step: Step, n_channels: int) -> tuple[Floats, Floats]:
        """By what channels are multiplied in every draw, and what is added then."""
        n_draws = self._starts[-1]
        scale = np.ones((n_draws, n_channels), np.float32)
        shift = np.zeros((n_draws, n_channels), np.float32)
        for one in step.affine:
            drawn = self._drawn(one.name)
            if isinstance(one, Scale):
                scale *= drawn
                shift *= drawn
            else:
                shift += drawn
        return scale, shift

    def _drawn(self, name: str) -> Floats:
        """A vector in every draw."""
        network = self._pruned.network
        if name in network.bias_names:
            drawn = [of for noise in self._noises for of in network.biases(noise)]
            return np.stack([of[name].reshape(-1) for of in drawn])
        weights = network.weights[name]
        out = np.empty((self._starts[-1], *weights.loc.shape), np.float32)
        weights.draws(self._noises, out)
        return out

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[Floats]:
        """See :class:`bprune_hpc.evaluators.interface.Sampled`."""
        pruned = self._pruned
        n_groups = -(-len(x) // _GROUP)
        slabs = self._slabs(x, n_groups)
        for noise_batch in noise_batches:
            start, stop = self._starts[noise_batch.start], self._starts[noise_batch.stop]
            out = np.empty((stop - start, pruned.n_outputs, n_groups * _GROUP), np.float32)
            for first in range(start, stop, compiled.module.MOST_DRAWS):
                last = min(first + compiled.module.MOST_DRAWS, stop)
                some = out[first - start : last - start]
                self._run(noise_batch, first, last, slabs, -(-len(x) // SLAB), some)
            yield out[:, :, : len(x)]

    def _slabs(self, x: NDArray[Any], n_groups: int) -> Floats:
        """Examples as slabs."""
        pruned, program = self._pruned, self._pruned.program
        layout = pruned.steps.layouts[0]
        rows = pruned.network.take(np.asarray(x, np.float32)).reshape(len(x), -1)
        rows = np.ascontiguousarray(rows)
        slabs = pruned.workspace.array("slabs", n_groups * program.n_group)
        slabs[...] = 0
        start, stride = map(int, program.tensors[0, :2])
        places = layout.places(pruned.steps.tensors[0].n_channels)
        places += np.int32(start)

        def run(_: Workspace, first: int, last: int) -> None:
            compiled.module.fill_slabs(
                rows, len(rows), places, slabs, program.n_group, stride, first, last
            )

        pruned.threads.run(run, n_groups)
        return slabs

    def _run(
        self, noise_batch: slice, first: int, last: int, slabs: Floats, n_slabs: int, out: Floats
    ) -> None:
        """Some draws of a batch of noises on all examples."""
        pruned = self._pruned
        program, steps = pruned.program, pruned.steps
        columns: list[int] = []
        signs: list[float] = []
        noises: list[int] = []
        for noise in range(noise_batch.start, noise_batch.stop):
            for at, draw in enumerate(self._noises[noise].draws, self._starts[noise]):
                if first <= at < last:
                    if noise not in noises:
                        noises.append(noise)
                    has_noise = self._noises[noise].values is not None and draw.sign
                    columns.append(len(noises) - 1 if has_noise else -1)
                    signs.append(float(draw.sign))
        shared = [self._shared(at, noises) for at in pruned.shared]
        others, n_narrow = [], 0
        for at in range(len(steps.steps)):
            others += self._operations(at, slice(first, last))
            n_narrow = len(others) if at < steps.n_narrow else n_narrow
        result = steps.tensors[steps.result]
        outputs = steps.layouts[steps.result].places(result.n_channels)

        def run(workspace: Workspace, start: int, stop: int) -> None:
            scratch = workspace.array("scratch", program.n_scratch)
            compiled.module.run_graph(
                compiled.instructions(), slabs, program.n_group, program.tensors, tuple(shared),
                tuple(others), n_narrow, tuple(columns), tuple(signs), len(noises), steps.result,
                outputs, out, scratch, start, stop, program.n_group, n_slabs,
            )  # fmt: skip

        pruned.threads.run(run, -(-n_slabs // GROUP_SLABS))

    def _shared(self, at: int, noises: Sequence[int]) -> _Operation:
        """Products with the examples, at the mean and with some noises."""
        means, spread = self._pruned.program.sums[at]
        values = self._values[at][[0, *(1 + noise for noise in noises)]]
        ones = np.ones((len(values), self._affine[at][0].shape[1]), np.float32)
        return self._product(at, means, spread, _NO_BOUNDS, values, ones, np.zeros_like(ones))

    def _operations(self, at: int, draws: slice) -> list[_Operation]:
        """What a step is in some draws."""
        pruned, step = self._pruned, self._pruned.steps.steps[at]
        scale, shift = (values[draws] for values in self._affine[at])
        added = step.inputs[1] if len(step.inputs) > 1 else -1
        if at in pruned.shared:
            means, spread = pruned.program.sums[at]
            bounds = step.bounds if added < 0 else _NO_BOUNDS
            out: list[_Operation] = [
                (_ELEMENTWISE, means, step.output, spread, bounds, True, 0, 0.0, scale, shift)
            ]
            if added >= 0:
                ones = np.ones_like(scale)
                output, nothing = step.output, np.zeros_like(ones)
                out.append(
                    (_ELEMENTWISE, output, output, added, step.bounds, False, 0, 0.0, ones, nothing)
                )
            return out
        if at in pruned.lists:
            values = self._values[at][draws]
            return [self._product(at, step.output, added, step.bounds, values, scale, shift)]
        if isinstance(step.operation, Pooling):
            assert step.window is not None
            before, after = (pruned.steps.layouts[one] for one in (step.inputs[0], step.output))
            is_mean = step.operation.function == "AvgPool"
            windows = windows_of(step.window, before, after)
            return [(_POOLING, step.inputs[0], step.output, is_mean, *windows)]
        return [
            (
                _ELEMENTWISE, step.inputs[0], step.output, added, step.bounds, False,
                step.function, step.alpha, scale, shift,
            )
        ]  # fmt: skip

    def _product(
        self, at: int, output: int, added: int, bounds: tuple[float, float], values: Floats,
        scale: Floats, shift: Floats,
    ) -> _Operation:  # fmt: skip
        """A convolution as the compiled module takes it."""
        pruned = self._pruned
        step, lists = pruned.steps.steps[at], pruned.lists[at]
        around = pruned.steps.around(at, at in pruned.shared)
        tiles, room = tiles_of(*around), pruned.program.room
        if not lists.width:
            n_together = GROUP_SLABS if tiles.n_together > 1 else 1
            return (
                _SQUARES, step.inputs[0], output, added, bounds, lists.square_size,
                n_together, room,
                squares_of(*around), values, scale, shift,
            )  # fmt: skip
        return (
            _CONVOLUTION, step.inputs[0], output, added, bounds, lists.width, lists.block,
            tiles.n_together, tiles.half, room, tiles.tiles, tiles.sources, lists.starts,
            lists.offsets, values, scale, shift,
        )  # fmt: skip


def _means_and_noises(weights: Values, noises: Sequence[Noise], out: Floats) -> None:
    """Fill in ``loc``, and ``scale * noise`` of each noise."""
    out[0] = weights.loc
    for row, noise in zip(out[1:], noises, strict=True):
        if weights.is_fixed or noise.values is None:
            row[...] = 0
        else:
            compiled.module.draw_values(
                None, weights.scale, noise.values[weights.name], weights.index, 1.0, row, 0, 1
            )
