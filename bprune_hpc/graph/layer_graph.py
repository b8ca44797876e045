"""A network as a graph of layers: plain dataclasses that know no TensorFlow.

What belongs here: which operations there are, what each takes and gives, and a chain of them
divided into layers. What does not: finding them in a TensorFlow graph (``graph.layer_search``),
leaving out what pruning has made idle (``evaluators.compaction``), running them.

A tensor holds for each example either a vector, of shape (n,), or an image, of shape (rows,
columns, channels), in that order in memory; a sequence is an image of one row. *Channels* are the
last axis of either. A name stands for weights: a tensor of the posterior, a fixed one, or one of
``LayerGraph.constants``. A kernel's numbers are in the order of (rows, columns, inputs of a group,
outputs), whatever shape the tensor of that name has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Borders = tuple[tuple[int, int], tuple[int, int]]
"""Rows before and after an image, and columns."""
NO_BORDERS: Borders = ((0, 0), (0, 0))

ACTIVATIONS = frozenset(
    {"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "GeluTanh", "Swish", "Tanh", "Sigmoid",
     "Softplus", "Softsign"}
)  # fmt: skip
"""Functions of single numbers, by TensorFlow's names where it has one: ``Gelu`` is
``x * (1 + erf(x / sqrt(2))) / 2``, ``GeluTanh`` its approximation by a tanh, ``Swish``
``x * sigmoid(x)``."""

_MOST_SHIFT = 2.0**10
"""In deviations: float32 is then off by no more than 2**-14 of one."""


def n_places(
    size: int, window: int, stride: int, border: tuple[int, int], dilation: int = 1
) -> int:
    """Places of a window along an axis."""
    return (size + sum(border) - (window - 1) * dilation - 1) // stride + 1


def same_border(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The border along an axis that TensorFlow's padding ``SAME`` puts there."""
    reach = (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1
    total = max(reach - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Dense:
    """``x @ kernel`` of a vector; kernel of shape (n_in, n_out)."""

    kernel: str


@dataclass(frozen=True)
class Convolution:
    """A convolution of an image; kernel of shape (*window, channels / groups, n_out).

    Attributes
    ----------
    kernel : str
    window : tuple of int
        Rows and columns of the kernel.
    image : tuple of int
        Rows, columns and channels of what it takes.
    strides : tuple of int
    borders : Borders
        Zeros that are put around the image.
    dilations : tuple of int
        Steps in the image between a kernel's rows, and columns.
    groups : int
        Outputs and channels are divided into so many runs of equal length, and a group's outputs
        see its channels alone; as many as there are channels: a depthwise convolution.
    """

    kernel: str
    window: tuple[int, int]
    image: tuple[int, int, int]
    strides: tuple[int, int] = (1, 1)
    borders: Borders = NO_BORDERS
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of what it gives."""
        rows, columns = (
            n_places(size, window, stride, border, dilation)
            for size, window, stride, border, dilation in zip(
                self.image, self.window, self.strides, self.borders, self.dilations, strict=False
            )
        )
        return rows, columns

    @property
    def n_terms(self) -> int:
        """Products that an output is the sum of."""
        return math.prod(self.window) * self.image[2] // self.groups


@dataclass(frozen=True)
class Bias:
    """One number added to each channel."""

    name: str


@dataclass(frozen=True)
class Scale:
    """Each channel multiplied by a number.

    Batch normalization is a ``Scale`` and a ``Bias``, whose numbers are in
    ``LayerGraph.constants``. Before a convolution with borders it cannot become a part of its
    kernel, as the zeros there are put around its result.
    """

    name: str


@dataclass(frozen=True)
class Activation:
    """A function of each number alone, one of ``ACTIVATIONS``; ``alpha`` of ``LeakyRelu``."""

    function: str
    alpha: float = 0.0


@dataclass(frozen=True)
class Pooling:
    """``MaxPool`` or ``AvgPool`` over rows and columns.

    Borders take no part: they are below all numbers of a maximum, and are not counted in a mean.
    The mean or the maximum of a whole image is a window of its size.
    """

    function: str
    window: tuple[int, int]
    strides: tuple[int, int]
    borders: Borders = NO_BORDERS


@dataclass(frozen=True)
class Padding:
    """Zeros around an image; those around a convolution's are the convolution's own."""

    borders: Borders


@dataclass(frozen=True)
class Reshape:
    """Each example in another shape, with the same numbers in the same order.

    ``n_places`` counts the places of an image's channels where it is made flat.
    """

    shape: Shape
    n_places: int = 1


@dataclass(frozen=True)
class Transpose:
    """The axes of an image in another order: those of an example, counted from 0.

    There are few: images whose channels come first are taken with their channels last.
    """

    axes: tuple[int, int, int]


@dataclass(frozen=True)
class Add:
    """The sum of two or more of the network's tensors, all of one shape."""


@dataclass(frozen=True)
class Multiply:
    """The product, number by number, of two of the network's tensors of one shape."""


@dataclass(frozen=True)
class Concatenation:
    """The channels of some tensors after each other; their images are of one size."""


Operation = (
    Dense | Convolution | Bias | Scale | Activation | Pooling | Padding | Reshape | Transpose | Add
    | Multiply | Concatenation
)  # fmt: skip

EXAMPLES = -1
"""In place of an operation's number: the network's input."""


@dataclass(frozen=True)
class LayerNode:
    """An operation, and the numbers of those whose results it takes; ``EXAMPLES`` for the input."""

    operation: Operation
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class LayerGraph:
    """A network from the examples to its outputs.

    Attributes
    ----------
    nodes : tuple of LayerNode
        Each after those that it takes; the last one gives the outputs.
    input_shape : tuple of int
        Of an example, a vector or an image; whoever runs the network gives examples this shape.
    constants : mapping of str to float32 array
        Numbers that the graph holds or that are computed of fixed weights, such as those of batch
        normalization; to be used like fixed weights.
    """

    nodes: tuple[LayerNode, ...]
    input_shape: Shape
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict, compare=False)

    @classmethod
    def of_chain(cls, input_shape: Shape, *operations: Operation) -> LayerGraph:
        """A network without branches: each operation takes the result of the one before."""
        nodes = tuple(LayerNode(one, (at - 1,)) for at, one in enumerate(operations))
        return cls(nodes, input_shape)

    def chain(self) -> tuple[Operation, ...] | None:
        """Its operations in order; None where it has branches."""
        if any(node.inputs != (at - 1,) for at, node in enumerate(self.nodes)):
            return None
        return tuple(node.operation for node in self.nodes)

    @cached_property
    def n_uses_of_first(self) -> tuple[int, ...]:
        """How often the whole graph takes the result that each node takes first."""
        n_uses = Counter(at for node in self.nodes for at in node.inputs)
        return tuple(n_uses[node.inputs[0]] for node in self.nodes)

    @cached_property
    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """Results that each node takes, and no node after it."""
        last = {at: number for number, node in enumerate(self.nodes) for at in node.inputs}
        return tuple(
            tuple(at for at in dict.fromkeys(node.inputs) if last[at] == number)
            for number, node in enumerate(self.nodes)
        )

    def shapes(self, weights: Mapping[str, Shape]) -> list[Shape]:
        """Shape of what each node gives for an example, by the shapes of kernels.

        Raises
        ------
        ValueError
            If an operation does not take what it is given.
        """
        found: list[Shape] = []
        for node in self.nodes:
            inputs = [self.input_shape if at == EXAMPLES else found[at] for at in node.inputs]
            found.append(shape_of(node.operation, inputs, weights))
        return found


def shape_of(operation: Operation, inputs: Sequence[Shape], weights: Mapping[str, Shape]) -> Shape:
    """Shape of what an operation gives for an example.

    Raises
    ------
    ValueError
        If it does not take tensors of these shapes.
    """
    first = inputs[0]
    error = ValueError(f"{operation} of {list(inputs)}")
    if isinstance(operation, Dense):
        n_in, n_out = weights[operation.kernel]
        if first != (n_in,):
            raise error
        return (n_out,)
    if isinstance(operation, Convolution):
        n_out, rest = divmod(math.prod(weights[operation.kernel]), max(1, operation.n_terms))
        if first != operation.image or rest or min(operation.size) < 1:
            raise error
        if n_out % operation.groups or operation.image[2] % operation.groups:
            raise error
        return (*operation.size, n_out)
    if isinstance(operation, Bias | Scale):
        if math.prod(weights[operation.name]) != first[-1]:
            raise error
        return first
    if isinstance(operation, Pooling | Padding):
        window, strides = (1, 1), (1, 1)
        if isinstance(operation, Pooling):
            window, strides = operation.window, operation.strides
        size = tuple(map(n_places, first[:2], window, strides, operation.borders))
        if len(first) != 3 or min(size) < 1:
            raise error
        return (*size, first[2])
    if isinstance(operation, Reshape):
        if math.prod(operation.shape) != math.prod(first):
            raise error
        return operation.shape
    if isinstance(operation, Transpose):
        if len(first) != 3:
            raise error
        return tuple(first[axis] for axis in operation.axes)
    if isinstance(operation, Concatenation):
        if any(one[:-1] != first[:-1] for one in inputs):
            raise error
        return (*first[:-1], sum(one[-1] for one in inputs))
    if any(one != first for one in inputs):
        raise error
    return first


@dataclass(frozen=True)
class UnknownOperation:
    """What keeps a graph from being a LayerGraph: a node of an operation that is none of these."""

    name: str
    operation: str


@dataclass(frozen=True)
class Layer:
    """A product or convolution, and what follows it up to the next one."""

    product: Dense | Convolution
    after: tuple[Operation, ...] = ()

    @property
    def kernel(self) -> str:
        """Name of its kernel."""
        return self.product.kernel

    @property
    def bias(self) -> str | None:
        """Name of what is added to its neurons or channels."""
        return next((one.name for one in self.after if isinstance(one, Bias)), None)

    @property
    def activations(self) -> tuple[str, ...]:
        """Functions of its numbers, in their order."""
        return tuple(one.function for one in self.after if isinstance(one, Activation))

    @property
    def pooling(self) -> Pooling | None:
        """The first one that follows."""
        return next((one for one in self.after if isinstance(one, Pooling)), None)


def layers_of(chain: Sequence[Operation]) -> tuple[Layer, ...]:
    """A chain as its layers; what comes before the first one is left out."""
    starts = [at for at, one in enumerate(chain) if isinstance(one, Dense | Convolution)]
    layers = []
    for start, stop in pairwise([*starts, len(chain)]):
        product = chain[start]
        assert isinstance(product, Dense | Convolution)
        layers.append(Layer(product, tuple(chain[start + 1 : stop])))
    return tuple(layers)


def scales_apart(graph: LayerGraph, fixed: Mapping[str, NDArray[Any]]) -> frozenset[int]:
    """Nodes that multiply small differences from large means: (x - mean) / deviation.

    With the mean over the deviation as a shift, its rounding would be as large as what is left.

    Parameters
    ----------
    fixed : mapping of str to array
        Weights that are the same in all draws.
    """
    found = set()
    for at, node in enumerate(graph.nodes):
        before = graph.nodes[node.inputs[0]].operation if node.inputs[0] != EXAMPLES else None
        if not isinstance(node.operation, Scale) or not isinstance(before, Bias):
            continue
        if before.name in fixed and node.operation.name in fixed:
            shift, factor = fixed[before.name].astype(float), fixed[node.operation.name]
            if np.abs(shift * factor).max(initial=0) > _MOST_SHIFT:
                found.add(at)
    return frozenset(found)
