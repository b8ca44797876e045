"""A graph of layers as nodes of ONNX.

What belongs here: what each operation is in ONNX, and weights as its initializers. What does not:
which graphs a pruned network is written as (``formats.onnx``).

Images are (examples, channels, rows, columns) in ONNX, so that they are turned where they come in
and where they are made flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import (
    EXAMPLES,
    Activation,
    Add,
    Bias,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    Multiply,
    Operation,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Shape,
    Transpose,
)
from .interface import UnknownLayerError
from .portable import PackedTensor

OPSET = 20
IR_VERSION = 9
_DENSEST = 1 / 3
"""Share of a sparse initializer's numbers that are not zero: each takes 12 bytes in place of 4."""
_SIMPLE = {
    "Relu": "Relu", "Elu": "Elu", "Selu": "Selu", "Tanh": "Tanh", "Sigmoid": "Sigmoid",
    "Softplus": "Softplus", "Softsign": "Softsign",
}  # fmt: skip


def import_onnx() -> Any:
    """The package ``onnx``, with its module of helpers.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    import onnx
    import onnx.helper
    import onnx.numpy_helper

    return onnx


class GraphBuilder:
    """Nodes and initializers of one ONNX graph, under names that are each taken once."""

    def __init__(self) -> None:
        self.onnx = import_onnx()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.sparse: list[Any] = []
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._taken: set[str] = set()

    def name(self, wanted: str) -> str:
        """A name that nothing else has."""
        found, number = wanted, 1
        while found in self._taken:
            found, number = f"{wanted}_{number}", number + 1
        self._taken.add(found)
        return found

    def add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output; gives the output's name."""
        output = self.name(name or operation.lower())
        self.nodes.append(
            self.onnx.helper.make_node(operation, list(inputs), [output], output, **attributes)
        )
        return output

    def constant(self, values: Any, name: str = "constant") -> str:
        """An initializer; one for all constants with the same numbers."""
        array = np.ascontiguousarray(values)
        key = array.dtype.str, array.tobytes(), array.shape
        if key not in self._constants:
            self._constants[key] = self.name(name)
            tensor = self.onnx.numpy_helper.from_array(array, self._constants[key])
            self.initializers.append(tensor)
        return self._constants[key]

    def weights(self, array: NDArray[np.float32], name: str) -> str:
        """Weights as an initializer, a sparse one where that is smaller."""
        places = np.flatnonzero(array)
        if array.ndim < 2 or len(places) > _DENSEST * array.size:
            return self.constant(array, name)
        helper, kind = self.onnx.helper, self.onnx.TensorProto
        key = array.dtype.str, array.tobytes(), array.shape
        if key in self._constants:
            return self._constants[key]
        found = self._constants[key] = self.name(name)
        values = helper.make_tensor(found, kind.FLOAT, [len(places)], array.reshape(-1)[places])
        indices = helper.make_tensor(f"{found}/places", kind.INT64, [len(places)], places)
        self.sparse.append(helper.make_sparse_tensor(values, indices, array.shape))
        return found

    def scattered(self, values: str, tensor: PackedTensor, ordered: Ordered, name: str) -> str:
        """Weights that are left, in a whole tensor of zeros."""
        places = np.arange(tensor.loc.size) if tensor.places is None else tensor.places
        numbers = np.zeros(math.prod(tensor.shape), np.int64)
        numbers[places] = np.arange(1, len(places) + 1)
        inverse = ordered(numbers.reshape(tensor.shape))
        order = np.ascontiguousarray(inverse).reshape(-1)
        into = np.flatnonzero(order)
        shape = self.constant(np.array(inverse.shape, np.int64))
        if not np.array_equal(order[into], np.arange(1, len(into) + 1)):
            values = self.add("Gather", values, self._indices(order[into] - 1, name))
        if len(into) == order.size:
            return self.add("Reshape", values, shape)
        zeros = self.add("ConstantOfShape", self.constant(np.array([order.size], np.int64)))
        at = self.add(
            "Unsqueeze", self._indices(into, name), self.constant(np.array([1], np.int64))
        )
        return self.add("Reshape", self.add("ScatterND", zeros, at, values), shape)

    def _indices(self, indices: NDArray[np.intp], name: str) -> str:
        """Indices as int64, held in fewer bytes where these do."""
        narrow = np.uint16 if indices.max(initial=0) < 2**16 else np.int32
        held = self.constant(indices.astype(narrow), f"{name}/places")
        return self.add("Cast", held, to=self.onnx.TensorProto.INT64)

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any], name: str, words: str) -> Any:
        """The whole, checked."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, name, list(inputs), list(outputs), self.initializers,
            sparse_initializer=self.sparse, doc_string=words,
        )  # fmt: skip
        model = helper.make_model(
            graph, producer_name="bprune_hpc", ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )  # fmt: skip
        self.onnx.checker.check_model(model)
        return model


Ordered = Callable[[NDArray[Any]], NDArray[Any]]
"""Brings a tensor's axes into the order that ONNX takes."""


def add_layers(
    builder: GraphBuilder,
    layers: LayerGraph,
    shapes: Sequence[Shape],
    weight: Callable[[str, Ordered], str],
    examples: str,
) -> str:
    """Add the nodes of a graph of layers; gives the name of its outputs.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of what each node gives for an example.
    weight : callable
        Of a tensor's name and a function of arrays, the order of axes that ONNX takes; gives the
        name of the tensor in the graph.
    examples : str
        Tensor of shape (n_examples, *layers.input_shape).
    """
    found: list[str] = []
    if len(layers.input_shape) == 3:
        examples = builder.add("Transpose", examples, perm=[0, 3, 1, 2])
    for node, shape in zip(layers.nodes, shapes, strict=True):
        inputs = [examples if at == EXAMPLES else found[at] for at in node.inputs]
        first = node.inputs[0]
        before = layers.input_shape if first == EXAMPLES else shapes[first]
        found.append(_added(builder, node.operation, inputs, before, shape, weight))
    is_image = len(shapes[-1]) == 3
    return builder.add("Transpose", found[-1], perm=[0, 2, 3, 1]) if is_image else found[-1]


def _added(
    builder: GraphBuilder,
    one: Operation,
    inputs: list[str],
    before: Shape,
    after: Shape,
    weight: Callable[[str, Ordered], str],
) -> str:
    values, add = inputs[0], builder.add

    def ordered(number: NDArray[Any]) -> NDArray[Any]:
        """One number for each channel, or for each of an image's places, too."""
        if len(after) < 3:
            return number.reshape(-1)
        places = after[:2] if number.size > after[-1] else (1, 1)
        return np.transpose(number.reshape(1, *places, after[-1]), (0, 3, 1, 2))

    if isinstance(one, Dense):
        return add("MatMul", values, weight(one.kernel, lambda kernel: kernel))
    if isinstance(one, Convolution):
        shape = (*one.window, one.image[2] // one.groups, after[-1])
        kernel = weight(
            one.kernel, lambda kernel: np.transpose(kernel.reshape(shape), (3, 2, 0, 1))
        )
        return add(
            "Conv", values, kernel, strides=list(one.strides), pads=_pads(one.borders),
            dilations=list(one.dilations), group=one.groups, kernel_shape=list(one.window),
        )  # fmt: skip
    if isinstance(one, Bias | Scale):
        number = weight(one.name, ordered)
        return add("Add" if isinstance(one, Bias) else "Mul", values, number)
    if isinstance(one, Activation):
        return _activation(builder, one, values)
    if isinstance(one, Pooling):
        return add(
            "MaxPool" if one.function == "MaxPool" else "AveragePool", values,
            kernel_shape=list(one.window), strides=list(one.strides), pads=_pads(one.borders),
        )  # fmt: skip
    if isinstance(one, Padding):
        (top, bottom), (left, right) = one.borders
        pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        return add("Pad", values, builder.constant(pads))
    if isinstance(one, Reshape):
        if len(before) == 3:
            values = add("Transpose", values, perm=[0, 2, 3, 1])
        values = add("Reshape", values, builder.constant(np.array([-1, *one.shape], np.int64)))
        return add("Transpose", values, perm=[0, 3, 1, 2]) if len(after) == 3 else values
    if isinstance(one, Transpose):
        places = 2, 3, 1  # of rows, columns and channels
        last, *before_last = (places[one.axes[axis]] for axis in (2, 0, 1))
        return add("Transpose", values, perm=[0, last, *before_last])
    if isinstance(one, Add):
        return add("Sum", *inputs)
    if isinstance(one, Multiply):
        return add("Mul", *inputs)
    if isinstance(one, Concatenation):
        return add("Concat", *inputs, axis=1)
    raise UnknownLayerError(one)


def _activation(builder: GraphBuilder, one: Activation, values: str) -> str:
    if one.function in _SIMPLE:
        return builder.add(_SIMPLE[one.function], values)
    if one.function == "Relu6":
        zero, six = (builder.constant(np.float32(number)) for number in (0, 6))
        return builder.add("Clip", values, zero, six)
    if one.function == "LeakyRelu":
        return builder.add("LeakyRelu", values, alpha=one.alpha)
    if one.function in ("Gelu", "GeluTanh"):
        approximate = "tanh" if one.function == "GeluTanh" else "none"
        return builder.add("Gelu", values, approximate=approximate)
    if one.function == "Swish":
        return builder.add("Mul", values, builder.add("Sigmoid", values))
    raise UnknownLayerError(one)


def _pads(borders: tuple[tuple[int, int], tuple[int, int]]) -> list[int]:
    (top, bottom), (left, right) = borders
    return [top, left, bottom, right]
