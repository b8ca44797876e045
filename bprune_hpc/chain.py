"""Networks that are a chain: layers one after the other, each fed by the one before alone.

What belongs here: the plain description of a chain, which knows no TensorFlow. What does not:
telling that a graph is one (``chain_search``), running it (``chain_network``).
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
    """A convolution over (rows, columns, channels); kernel of shape (*window, in, out)."""

    kernel: str
    window: tuple[int, int]
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
        sizes = zip(self.image, self.strides, self.window, strict=False)
        if self.padding == "SAME":
            rows, columns = (-(-size // stride) for size, stride, _ in sizes)
        else:
            rows, columns = ((size - window) // stride + 1 for size, stride, window in sizes)
        return rows, columns


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
    image: tuple[int, ...] = ()
    while steps and isinstance(steps[0], Reshaping):
        image = steps[0].shape
        del steps[0]
    convolution = None
    if steps and isinstance(steps[0], Convolution):
        convolution = _take_convolution(steps, image)
        if convolution is None:
            return None
    dense: list[DenseLayer] = []
    while steps:
        product = steps.pop(0)
        if not isinstance(product, Product):
            return None
        dense.append(DenseLayer(product.kernel, _take_bias(steps), _take_activation(steps)))
    return Layers(convolution, tuple(dense)) if dense else None


def _take_convolution(steps: list[Step], image: tuple[int, ...]) -> ConvolutionLayer | None:
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
    if len(image) != 3 or not steps or not isinstance(steps[0], Reshaping):
        return None
    if len(steps[0].shape) != 1:
        return None
    del steps[0]
    layer = ConvolutionLayer(
        convolution.kernel, convolution.window, bias, activation, (image[0], image[1], image[2]),
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
