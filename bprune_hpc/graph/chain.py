"""Networks that are a chain: layers one after the other, each fed by the one before alone.

What belongs here: the plain description of a chain, which knows no TensorFlow. What does not:
telling that a graph is one (``graph.chain_search``), running it (``evaluators.chain``,
``evaluators.channels``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

ACTIVATIONS = frozenset({"Relu", "Relu6", "Tanh", "Sigmoid", "Elu", "Softplus"})
"""Operations on single numbers that a step may be, by TensorFlow's names."""


@dataclass(frozen=True)
class Product:
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
    """Each example in another shape, with the same numbers in the same order.

    ``n_places`` counts the places of an image's channels where it is made flat.
    """

    shape: tuple[int, ...]
    n_places: int = 1


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


def convolved(step: Convolution | ConvolutionLayer) -> tuple[int, int]:
    """Rows and columns of a convolution."""
    sizes = zip(step.image, step.strides, step.window, strict=False)
    if step.padding == "SAME":
        rows, columns = (-(-size // stride) for size, stride, _ in sizes)
    else:
        rows, columns = ((size - window) // stride + 1 for size, stride, window in sizes)
    return rows, columns


@dataclass(frozen=True)
class ConvolutionLayer:
    """``activation(max_pool(convolution(x) + bias))``, flattened.

    Attributes
    ----------
    image : tuple of int
        Rows, columns and channels of an example.
    strides : tuple of int
    padding : {"SAME", "VALID"}
    pool : tuple of int
        Rows and columns of the windows, which tile the convolution; (1, 1) for no pooling.
    """

    kernel: str
    window: tuple[int, int]
    bias: str | None
    activation: str | None
    image: tuple[int, int, int]
    strides: tuple[int, int]
    padding: str
    pool: tuple[int, int]

    @property
    def convolved(self) -> tuple[int, int]:
        """Rows and columns of the convolution, before pooling."""
        return convolved(self)


@dataclass(frozen=True)
class Layers:
    """A chain of dense layers, perhaps after one convolution of the examples."""

    convolution: ConvolutionLayer | None
    dense: tuple[DenseLayer, ...]


def layers_of(chain: Chain | None) -> Layers | None:
    """The layers of a chain that has at most one convolution, as its first; None otherwise."""
    if chain is None:
        return None
    steps = list(chain.steps)
    while steps and isinstance(steps[0], Reshaping):
        del steps[0]
    convolution = None
    if steps and isinstance(steps[0], Convolution):
        convolution = _take_convolution(steps)
        if convolution is None:
            return None
    dense: list[DenseLayer] = []
    while steps:
        product = steps.pop(0)
        if not isinstance(product, Product):
            return None
        dense.append(DenseLayer(product.kernel, _take_bias(steps), _take_activation(steps)))
    return Layers(convolution, tuple(dense)) if dense else None


def _take_convolution(steps: list[Step]) -> ConvolutionLayer | None:
    """Take a convolution and what follows it, flattening included, from the front of the steps."""
    convolution = steps.pop(0)
    assert isinstance(convolution, Convolution)
    bias, activation, pool = _take_bias(steps), _take_activation(steps), (1, 1)
    if steps and isinstance(steps[0], Pooling):
        pooling = steps[0]
        del steps[0]
        pool = pooling.size
        if pooling.function != "MaxPool" or pooling.strides != pool:
            return None
    # No activation falls as its argument grows, so that it may come before or after a maximum.
    activation = activation or _take_activation(steps)
    if not steps or not isinstance(steps[0], Reshaping):
        return None
    del steps[0]
    layer = ConvolutionLayer(
        convolution.kernel, convolution.window, bias, activation, convolution.image,
        convolution.strides, convolution.padding, pool,
    )  # fmt: skip
    is_tiled = all(size % each == 0 for size, each in zip(layer.convolved, pool, strict=True))
    return layer if is_tiled else None


def _take_bias(steps: list[Step]) -> str | None:
    if steps and isinstance(steps[0], Bias):
        name = steps[0].name
        del steps[0]
        return name
    return None


def _take_activation(steps: list[Step]) -> str | None:
    if steps and isinstance(steps[0], Activation):
        function = steps[0].function
        del steps[0]
        return function
    return None


@dataclass(frozen=True)
class ChannelLayer:
    """A product or convolution of any chain, and what follows it.

    Attributes
    ----------
    activations : tuple of str
        In their order; none before the bias.
    n_places : int
        How many inputs each channel before it is: of images that are made flat, their places.
    n_columns : int
        Places of a convolution; 1 for a product.
    """

    kernel: str
    bias: str | None
    activations: tuple[str, ...]
    n_places: int
    n_columns: int


def channel_layers(chain: Chain | None) -> tuple[ChannelLayer, ...] | None:
    """The layers of a chain of any kind; None where a weight is not in its usual place."""
    out: list[ChannelLayer] = []
    n_places = 1
    for step in chain.steps if chain is not None else ():
        if isinstance(step, Product | Convolution):
            n_columns = math.prod(convolved(step)) if isinstance(step, Convolution) else 1
            out.append(ChannelLayer(step.kernel, None, (), n_places, n_columns))
            n_places = 1
        elif isinstance(step, Reshaping):
            # Examples are not taken apart, and what is flat already may be made flat again.
            n_places *= step.n_places if out else 1
        elif isinstance(step, Bias):
            is_by_place = n_places > 1  # of an image that is flat already
            if not out or out[-1].bias is not None or out[-1].activations or is_by_place:
                return None
            out[-1] = replace(out[-1], bias=step.name)
        elif isinstance(step, Activation):
            if not out:
                return None
            out[-1] = replace(out[-1], activations=(*out[-1].activations, step.function))
    names = [name for layer in out for name in (layer.kernel, layer.bias) if name]
    return tuple(out) if out and len(set(names)) == len(names) else None
