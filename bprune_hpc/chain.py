"""Networks that are a chain: layers one after the other, each fed by the one before alone.

What belongs here: the plain description of a chain, which knows no TensorFlow. What does not:
telling that a graph is one (``chain_search``), running it (``dense_network``).
"""

from __future__ import annotations

from dataclasses import dataclass

ACTIVATIONS = frozenset({"Relu", "Relu6", "Tanh", "Sigmoid", "Elu", "Softplus"})
"""Operations on single numbers that a step may be, by TensorFlow's names."""


@dataclass(frozen=True)
class Product:
    """``x @ kernel``; the kernel is named as in the lifted graph, shape (n_in, n_out)."""

    kernel: str


@dataclass(frozen=True)
class Convolution:
    """A convolution over (rows, columns, channels); kernel of shape (rows, columns, in, out)."""

    kernel: str
    strides: tuple[int, int]
    padding: str


@dataclass(frozen=True)
class Bias:
    """One number added to each unit or channel."""

    name: str


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
class Reshaping:
    """Each example in another shape, with the same numbers in the same order."""

    shape: tuple[int, ...]


Step = Product | Convolution | Bias | Activation | Pooling | Reshaping


@dataclass(frozen=True)
class Chain:
    """A network as steps from the examples to the outputs."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class DenseLayer:
    """``activation(x @ kernel + bias)``; without bias or activation where those are None."""

    kernel: str
    bias: str | None
    activation: str | None


def dense_layers(chain: Chain | None) -> tuple[DenseLayer, ...] | None:
    """The layers of a chain that has dense ones alone; None for any other network."""
    if chain is None:
        return None
    steps = list(chain.steps)
    while steps and isinstance(steps[0], Reshaping) and len(steps[0].shape) == 1:
        del steps[0]
    layers: list[DenseLayer] = []
    while steps:
        product, *rest = steps
        if not isinstance(product, Product):
            return None
        bias = activation = None
        if rest and isinstance(rest[0], Bias):
            bias = rest.pop(0).name  # type: ignore[union-attr]
        if rest and isinstance(rest[0], Activation):
            activation = rest.pop(0).function  # type: ignore[union-attr]
        layers.append(DenseLayer(product.kernel, bias, activation))
        steps = rest
    return tuple(layers) or None
