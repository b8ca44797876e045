"""A network as a graph of layers: plain dataclasses that know no TensorFlow.

What belongs here: which operations there are, what each takes, and a chain of them divided into
layers. What does not: finding them in a TensorFlow graph (``graph.layer_search``), leaving out what
pruning has made idle (``evaluators.compaction``), running them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ACTIVATIONS = frozenset({"Relu", "Relu6", "Tanh", "Sigmoid", "Elu", "Softplus"})
"""Functions of single numbers, by TensorFlow's names."""


@dataclass(frozen=True)
class Dense:
    """``x @ kernel``; the kernel is named as in the lifted graph, shape (n_in, n_out)."""

    kernel: str


@dataclass(frozen=True)
class Convolution:
    """A convolution of an image (rows, columns, channels); kernel of shape (*window, in, out)."""

    kernel: str
    window: tuple[int, int]
    image: tuple[int, int, int]
    strides: tuple[int, int]
    padding: str

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of what it gives."""
        sizes = zip(self.image, self.strides, self.window, strict=False)
        if self.padding == "SAME":
            rows, columns = (-(-size // stride) for size, stride, _ in sizes)
        else:
            rows, columns = ((size - window) // stride + 1 for size, stride, window in sizes)
        return rows, columns


@dataclass(frozen=True)
class Bias:
    """One number added to each neuron or channel."""

    name: str


@dataclass(frozen=True)
class BatchNormalization:
    """``(x - mean) / sqrt(variance + epsilon) * scale + offset`` of each channel, by names."""

    scale: str
    offset: str
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True)
class Activation:
    """A function of each number alone, one of ``ACTIVATIONS``."""

    function: str


@dataclass(frozen=True)
class Pooling:
    """``MaxPool`` or ``AvgPool`` over rows and columns."""

    function: str
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str


@dataclass(frozen=True)
class Reshape:
    """Each example in another shape, with the same numbers in the same order.

    ``n_places`` counts the places of an image's channels where it is made flat.
    """

    shape: tuple[int, ...]
    n_places: int = 1


@dataclass(frozen=True)
class Add:
    """The sum of two or more of the network's tensors, all of one shape."""


Operation = Dense | Convolution | Bias | BatchNormalization | Activation | Pooling | Reshape | Add

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
    """

    nodes: tuple[LayerNode, ...]

    @classmethod
    def of_chain(cls, *operations: Operation) -> LayerGraph:
        """A network without branches: each operation takes the result of the one before."""
        return cls(tuple(LayerNode(one, (at - 1,)) for at, one in enumerate(operations)))

    def chain(self) -> tuple[Operation, ...] | None:
        """Its operations in order; None where it has branches."""
        if any(node.inputs != (at - 1,) for at, node in enumerate(self.nodes)):
            return None
        return tuple(node.operation for node in self.nodes)


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
