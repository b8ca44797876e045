"""Describes a lifted graph as a graph of layers, by its structure.

What belongs here: walking from the output back to the input, and stopping at whatever is not
plainly one of the operations that ``graph.layer_graph`` has. Nothing is lost by that: the graph
itself is run then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from ..tensorflow_import import import_graphs, open_session, quiet_file_descriptor_2
from .constant_folding import import_graph, static_type
from .layer_graph import (
    ACTIVATIONS,
    EXAMPLES,
    NO_BORDERS,
    Activation,
    Add,
    Bias,
    Borders,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Multiply,
    Operation,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Shape,
    Transpose,
    UnknownOperation,
    same_border,
)
from .nodes import (
    SAME_NUMBERS,
    SAME_VALUE,
    Depends,
    Node,
    Nodes,
    Tensor,
    ancestors,
    constant,
    dependences,
    source_of,
    tensor_name,
)

_FLOAT32 = "float32"
_N_EXAMPLES = 7
_BATCH_NORMALIZATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})

Axes = tuple[int, int, int]
_SAME: Axes = (0, 1, 2)
X = object()
_CUBIC = ("AddV2", X, ("Mul", 0.044715, ("Pow", X, 3.0)))
_PRODUCTS: Mapping[str, tuple[Any, ...]] = {
    "Swish": (("Mul", X, ("Sigmoid", X)), ("Mul", X, ("Sigmoid", ("Mul", 1.0, X)))),
    "Gelu": (
        ("Mul", ("Mul", 0.5, X), ("AddV2", 1.0, ("Erf", ("RealDiv", X, math.sqrt(2))))),
        ("Mul", ("Mul", 0.5, X), ("Erfc", ("Mul", ("Neg", X), math.sqrt(0.5)))),  # 2.21
    ),
    "GeluTanh": (
        (
            "Mul",
            ("Mul", 0.5, X),
            ("AddV2", 1.0, ("Tanh", ("Mul", math.sqrt(2 / math.pi), _CUBIC))),
        ),
    ),
}
"""Activations that are products of what they are a function of, as TensorFlow writes them."""

_FIRST, _LAST = Transpose((2, 0, 1)), Transpose((1, 2, 0))
"""From images whose channels are last to those whose are first, and back."""
_TURNED = Transpose((1, 0, 2))
"""From rows to columns."""

Found = tuple[tuple[Operation, ...], tuple[Tensor, ...]]
"""Operations that follow one another, and the tensors that the first one takes; none for a tensor
that is the same as the one that it takes."""


class _UnknownError(Exception):
    """A node is not plainly one of the operations of a LayerGraph."""


def find_layers(
    graph_def: Any,
    nodes: Nodes,
    input_tensor: Tensor,
    output: Tensor,
    weights: Mapping[str, str],
    fixed: Mapping[str, NDArray[Any]],
    threads: tuple[int, int] = (1, 1),
) -> LayerGraph | UnknownOperation:
    """Describe a lifted graph as a graph of layers, or say what is in it that is none.

    Parameters
    ----------
    graph_def : GraphDef
        The lifted graph.
    nodes : dict of str to Node
        The same, parsed.
    input_tensor, output : Tensor
    weights : mapping of str to str
        Name of each tensor of weights, by the node that it is fed to.
    fixed : mapping of str to array
        By name, those without a posterior.
    threads : tuple of int
        Of TensorFlow, within and between operations.

    Returns
    -------
    LayerGraph or UnknownOperation
        Of several operations that are not known, the one that is met first from the output back.
    """
    try:
        with_examples = _with_examples(graph_def, input_tensor)
    except GraphError:  # a graph can be for another number of examples alone
        return UnknownOperation(input_tensor[0], nodes[input_tensor[0]].op)
    search = _Search(with_examples, nodes, input_tensor, output, weights, fixed, threads)
    found: list[LayerNode] = []
    numbers = {input_tensor: EXAMPLES}
    waiting = [output]
    while waiting:
        at = waiting[-1]
        try:
            operations, inputs = search.operations(at)
        except _UnknownError:
            node = nodes[at[0]]
            return UnknownOperation(node.name, node.op)
        missing = [tensor for tensor in inputs if tensor not in numbers]
        if missing:
            waiting += reversed(missing)
            continue
        waiting.pop()
        if at in numbers:
            continue
        of_inputs = tuple(numbers[tensor] for tensor in inputs)
        for operation in operations:
            found.append(LayerNode(operation, of_inputs))
            of_inputs = (len(found) - 1,)
        numbers[at] = of_inputs[0]
    layers = LayerGraph(
        _simplified(_in_one_layout(found)), search.input_shape(found), search.constants
    )
    shapes = search.shapes(layers, output)
    if shapes is None:
        return UnknownOperation(output[0], nodes[output[0]].op)
    return replace(layers, nodes=_without_turns(layers.nodes, shapes))


def _with_examples(graph_def: Any, input_tensor: Tensor) -> Any:
    """The graph with a number of examples, so that every shape that follows from it is known."""
    counted = type(graph_def)()
    counted.CopyFrom(graph_def)
    for node in counted.node:
        if node.name == input_tensor[0] and node.attr["shape"].shape.dim:
            node.attr["shape"].shape.dim[0].size = _N_EXAMPLES
    return import_graph(counted, "lifted graph")


def _in_one_layout(found: Sequence[LayerNode]) -> list[LayerNode]:
    """Axes in another order where something depends on it, and not twice."""
    nodes: list[LayerNode] = []
    bare: dict[int, tuple[int, Axes]] = {EXAMPLES: (EXAMPLES, _SAME)}

    def add(operation: Operation, inputs: Sequence[int]) -> int:
        nodes.append(LayerNode(operation, tuple(inputs)))
        return len(nodes) - 1

    def ordered(at: int) -> int:
        number, axes = bare[at]
        if axes != _SAME:
            bare[at] = add(Transpose(axes), (number,)), _SAME
        return bare[at][0]

    for at, node in enumerate(found):
        one, (number, axes) = node.operation, bare[node.inputs[0]]
        if isinstance(one, Transpose):
            first, second, third = (axes[axis] for axis in one.axes)
            bare[at] = number, (first, second, third)
        elif isinstance(one, Pooling) and axes == _TURNED.axes:
            window, strides, borders = one.window[::-1], one.strides[::-1], one.borders[::-1]
            bare[at] = add(Pooling(one.function, window, strides, borders), [number]), axes
        elif isinstance(one, Activation | Add | Multiply) and all(
            bare[of][1] == axes for of in node.inputs
        ):
            bare[at] = add(one, [bare[of][0] for of in node.inputs]), axes
        else:
            bare[at] = add(one, [ordered(of) for of in node.inputs]), _SAME
    ordered(len(found) - 1)
    return nodes


def _without_turns(nodes: Sequence[LayerNode], shapes: Sequence[Shape]) -> tuple[LayerNode, ...]:
    """A single row that becomes a column, or the other way round, keeps its numbers in order."""
    return tuple(
        replace(node, operation=Reshape(shape, shape[0] * shape[1]))
        if node.operation == _TURNED and 1 in shape[:2]
        else node
        for node, shape in zip(nodes, shapes, strict=True)
    )


def _simplified(found: Sequence[LayerNode]) -> tuple[LayerNode, ...]:
    """Zeros around what a convolution takes as its own, and no node that nothing needs."""
    nodes = list(found)
    for at, node in enumerate(nodes):
        one = node.operation
        if not isinstance(one, Convolution):
            continue
        (before,) = node.inputs
        while before != EXAMPLES and isinstance(padding := nodes[before].operation, Padding):
            rows, columns = (
                (start + of_start, stop + of_stop)
                for (start, stop), (of_start, of_stop) in zip(
                    one.borders, padding.borders, strict=True
                )
            )
            image = (
                one.image[0] - sum(padding.borders[0]),
                one.image[1] - sum(padding.borders[1]),
                one.image[2],
            )
            one = replace(one, image=image, borders=(rows, columns))
            (before,) = nodes[before].inputs
        nodes[at] = LayerNode(one, (before,))
    needed = {len(nodes) - 1}
    for at in reversed(range(len(nodes))):
        if at in needed:
            needed.update(nodes[at].inputs)
    kept = [at for at in range(len(nodes)) if at in needed]
    number = {EXAMPLES: EXAMPLES} | {at: new for new, at in enumerate(kept)}
    return tuple(
        replace(nodes[at], inputs=tuple(number[one] for one in nodes[at].inputs)) for at in kept
    )


class _Search:
    """What each tensor is; ``constants`` fills up with the numbers that were worked out."""

    def __init__(
        self,
        graph: Any,
        nodes: Nodes,
        input_tensor: Tensor,
        output: Tensor,
        weights: Mapping[str, str],
        fixed: Mapping[str, NDArray[Any]],
        threads: tuple[int, int],
    ) -> None:
        self.constants: dict[str, NDArray[np.float32]] = {}
        self._graph = graph
        self._nodes = nodes
        self._input = input_tensor
        self._weights = weights
        self._fixed = fixed
        self._threads = threads
        of_input = dependences(nodes, ancestors(nodes, [output]), input_tensor, weights)
        self._of_input = {name for name, what in of_input.items() if what & Depends.INPUT}
        self._operations = {
            "MatMul": self._dense, "BatchMatMulV2": self._dense_at_places,
            "Conv2D": self._convolution, "DepthwiseConv2dNative": self._convolution,
            "BatchToSpaceND": self._dilated, "MaxPool": self._pooling, "AvgPool": self._pooling,
            "Mean": self._reduced, "Max": self._reduced, "Pad": self._padding,
            "ConcatV2": self._concatenation, "Transpose": self._transpose,
            "LeakyRelu": self._leaky_relu, "Sub": self._difference, "Mul": self._product,
            "RealDiv": self._quotient,
            **dict.fromkeys(("Add", "AddN", "AddV2", "BiasAdd"), self._sum),
            **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), self._reshape),
            **dict.fromkeys(_BATCH_NORMALIZATIONS, self._batch_normalization),
        }  # fmt: skip

    def operations(self, at: Tensor) -> Found:
        """Operations that give a tensor, and what they take."""
        node = self._nodes[at[0]]
        if at == self._input:
            return (), ()
        if node.op == "IdentityN":  # around what has a gradient of its own
            return (), (node.inputs[at[1]],)
        if at[1] != 0 or not node.inputs:
            raise _UnknownError
        data = node.inputs[0]
        if node.op in SAME_VALUE or (node.op == "Cast" and data == self._input):
            return (), (data,)  # examples of another type are cast as they are read
        self._expect_float32(at)
        if node.op in self._operations:
            operations, inputs = self._operations[node.op](node, at)
            return (_LAST, *operations, _FIRST) if _is_first(node) else operations, inputs
        if node.op in ACTIVATIONS:
            return (Activation(node.op),), (data,)
        raise _UnknownError

    def input_shape(self, found: Sequence[LayerNode]) -> Shape:
        """Shape of an example; where the graph leaves it open, as the first kernels have it."""
        try:
            return self._shape(self._input)
        except _UnknownError:
            takers = [node.operation for node in found if EXAMPLES in node.inputs]
            kernels = [one.kernel for one in takers if isinstance(one, Dense)]
            n_in = {self._sizes[name][0] for name in kernels}
            return tuple(n_in) if len(kernels) == len(takers) else ()

    def shapes(self, layers: LayerGraph, output: Tensor) -> list[Shape] | None:
        """Shapes of all nodes; None where they do not follow from one another as TensorFlow's."""
        try:
            [*_, last] = shapes = layers.shapes(self._sizes)
        except ValueError:
            return None
        given = static_type(self._graph, output).shape
        fits = given is None or None in given or last == _of_example(_known(given))
        return shapes if fits else None

    @property
    def _sizes(self) -> dict[str, Shape]:
        """Shapes of weights and constants."""
        sizes = {name: value.shape for name, value in self.constants.items()}
        for node, name in self._weights.items():
            shape = static_type(self._graph, (node, 0)).shape
            if shape is not None and None not in shape:
                sizes[name] = _known(shape)
        return sizes

    # Each takes a node and its tensor, the first one that it gives.

    def _dense(self, node: Node, _: Tensor) -> Found:
        if node.attr["transpose_a"].b or node.attr["transpose_b"].b:
            raise _UnknownError
        return (Dense(self._kernel(node.inputs[1])),), (node.inputs[0],)

    def _dense_at_places(self, node: Node, _: Tensor) -> Found:
        if node.attr["adj_x"].b or node.attr["adj_y"].b:
            raise _UnknownError
        return self._at_places(node.inputs[0], node.inputs[1])

    def _at_places(self, data: Tensor, kernel: Tensor) -> Found:
        """A product at each place of an image: a convolution whose window is one place."""
        shape = self._shape(data)
        if len(shape) != 3 or len(self._static(kernel)) != 2:
            raise _UnknownError
        return (Convolution(self._kernel(kernel), (1, 1), (shape[0], shape[1], shape[2])),), (data,)

    def _leaky_relu(self, node: Node, _: Tensor) -> Found:
        return (Activation(node.op, node.attr["alpha"].f),), (node.inputs[0],)

    def _sum(self, node: Node, at: Tensor) -> Found:
        if len(node.inputs) == 2:
            data, other = self._with_weights(node)
            if other is not None:
                return self._of_channels(Bias, other, data, at)
        return self._of_equals(Add(), node, at)

    def _difference(self, node: Node, at: Tensor) -> Found:
        data, other = self._with_weights(node)
        if other is None:
            raise _UnknownError
        if data == node.inputs[0]:
            return self._of_channels(Bias, other, data, at, np.negative)
        n_channels = self._shape(data)[-1]
        minus = self._constant(f"{node.name}:minus {n_channels}", np.full(n_channels, -1))
        added, _ = self._of_channels(Bias, other, data, at)
        return (Scale(minus), *added), (data,)

    def _product(self, node: Node, at: Tensor) -> Found:
        for function, forms in _PRODUCTS.items():
            for x in (x for form in forms for x in self._matches(at, form, None)):
                assert x is not None  # each form has one
                return (Activation(function),), (x,)
        data, other = self._with_weights(node)
        if other is not None:
            return self._of_channels(Scale, other, data, at)
        return self._of_equals(Multiply(), node, at)

    def _quotient(self, node: Node, at: Tensor) -> Found:
        data, other = self._with_weights(node)
        if other is None or data != node.inputs[0]:
            raise _UnknownError
        return self._of_channels(Scale, other, data, at, np.reciprocal)

    def _of_equals(self, operation: Operation, node: Node, at: Tensor) -> Found:
        """An operation on tensors of one shape, none of which is spread over another."""
        shapes = {_known(static_type(self._graph, one).shape) for one in (at, *node.inputs)}
        if len(shapes) > 1:
            raise _UnknownError
        return (operation,), tuple(node.inputs)

    def _batch_normalization(self, node: Node, _: Tensor) -> Found:
        # Attributes that are not written down have their defaults: this one's is true.
        is_plain = "is_training" in node.attr and "epsilon" in node.attr
        if not is_plain or node.attr["is_training"].b:
            raise _UnknownError
        gain, offset, mean, variance = node.inputs[1:5]
        center = self._value(mean).astype(np.float64)
        factor = 1 / np.sqrt(self._value(variance).astype(np.float64) + node.attr["epsilon"].f)
        shift = -center * factor
        try:
            of_gain, of_offset = (self._value(one).astype(np.float64) for one in (gain, offset))
        except _UnknownError:  # they have a posterior
            own: tuple[Operation, ...] = (Scale(self._weight(gain)), Bias(self._weight(offset)))
        else:
            own = ()
            factor, shift = factor * of_gain, shift * of_gain + of_offset
        plain = (
            Scale(self._constant(f"{node.name}:scale", factor)),
            Bias(self._constant(f"{node.name}:shift", shift)),
        )
        return (*plain, *own), (node.inputs[0],)

    def _convolution(self, node: Node, _: Tensor) -> Found:
        return (self._plain_convolution(node),), (node.inputs[0],)

    def _plain_convolution(self, node: Node) -> Convolution:
        rows, columns, n_in, _ = self._static(node.inputs[1])
        strides, dilations = (_pair(node, key) for key in ("strides", "dilations"))
        image, window = self._image(node), (rows, columns)
        n_seen = 1 if node.op == "DepthwiseConv2dNative" else n_in
        return Convolution(
            self._kernel(node.inputs[1]), window, image, strides,
            _borders(node, image, window, strides, dilations), dilations, image[2] // n_seen,
        )  # fmt: skip

    def _dilated(self, node: Node, _: Tensor) -> Found:
        """A convolution whose dilation is made by moving pixels to examples and back."""
        inner = self._nodes[source_of(self._nodes, node.inputs[0], SAME_NUMBERS)[0]]
        if inner.op not in ("Conv2D", "DepthwiseConv2dNative") or _is_first(inner):
            raise _UnknownError
        outer = self._nodes[source_of(self._nodes, inner.inputs[0], SAME_NUMBERS)[0]]
        if outer.op != "SpaceToBatchND":
            raise _UnknownError
        one = self._plain_convolution(inner)
        blocks, crops = (self._value(tensor).tolist() for tensor in node.inputs[1:])
        outer_blocks, borders = (self._value(tensor).tolist() for tensor in outer.inputs[1:])
        if len(blocks) == 1 and one.image[0] == one.window[0] == 1:  # a sequence
            blocks, outer_blocks = [1, *blocks], [1, *outer_blocks]
            crops, borders = [[0, 0], *crops], [[0, 0], *borders]
        is_plain = one.strides == one.dilations == (1, 1) and one.borders == NO_BORDERS
        if not is_plain or blocks != outer_blocks or len(blocks) != 2:
            raise _UnknownError
        (top, bottom), (left, right) = (np.array(borders) - crops).tolist()
        if min(top, bottom, left, right) < 0:
            raise _UnknownError
        data = outer.inputs[0]
        rows, columns, channels = self._shape(data)
        operation = replace(
            one, image=(rows, columns, channels), borders=((top, bottom), (left, right)),
            dilations=(blocks[0], blocks[1]),
        )  # fmt: skip
        return (operation,), (data,)

    def _pooling(self, node: Node, _: Tensor) -> Found:
        window, strides = _pair(node, "ksize"), _pair(node, "strides")
        borders = _borders(node, self._image(node), window, strides)
        return (Pooling(node.op, window, strides, borders),), (node.inputs[0],)

    def _reduced(self, node: Node, at: Tensor) -> Found:
        """The mean or maximum of whole rows, columns or images."""
        data = node.inputs[0]
        n_axes = len(self._static(data))
        axes = {int(axis) % n_axes for axis in self._value(node.inputs[1]).reshape(-1)}
        image, is_first = self._shape(data), False
        if n_axes == 4 and 3 in axes:
            is_first, axes = True, {axis - 1 for axis in axes}
            image = (*image[1:], image[0])
        if len(image) != 3 or not axes or axes & {0, n_axes - 1} or (is_first and 0 in axes):
            raise _UnknownError
        # A sequence is an image of one row.
        rows, columns = (image[axis] if axis + n_axes - 3 in axes else 1 for axis in range(2))
        pooling = Pooling({"Mean": "AvgPool", "Max": "MaxPool"}[node.op], (rows, columns), (1, 1))
        left = image[0] - rows + 1, image[1] - columns + 1, image[2]
        if not is_first:
            return (pooling, *_reshaped(left, self._shape(at))), (data,)
        placed = left[2], left[0], left[1]
        return (_LAST, pooling, _FIRST, *_reshaped(placed, self._shape(at))), (data,)

    def _transpose(self, node: Node, _: Tensor) -> Found:
        examples, *axes = (int(axis) for axis in self._value(node.inputs[1]))
        if axes == list(range(1, 1 + len(axes))):
            return (), (node.inputs[0],)
        if examples or len(axes) != 3:
            raise _UnknownError
        first, second, third = (axis - 1 for axis in axes)
        return (Transpose((first, second, third)),), (node.inputs[0],)

    def _padding(self, node: Node, _: Tensor) -> Found:
        data = node.inputs[0]
        borders = [(int(start), int(stop)) for start, stop in self._value(node.inputs[1])]
        if len(borders) == 3:
            borders.insert(1, (0, 0))
        is_image = len(borders) == 4 and borders[0] == borders[3] == (0, 0)
        if not is_image:
            raise _UnknownError
        return (Padding((borders[1], borders[2])),), (data,)

    def _concatenation(self, node: Node, _: Tensor) -> Found:
        *data, axis = node.inputs
        n_axes = {len(self._static(tensor)) for tensor in data}
        if len(n_axes) > 1 or int(self._value(axis)) % max(n_axes) != max(n_axes) - 1:
            raise _UnknownError
        if max(n_axes) < 2:
            raise _UnknownError
        return (Concatenation(),), tuple(data)

    def _reshape(self, node: Node, at: Tensor) -> Found:
        before, after = (
            _known(static_type(self._graph, one).shape) for one in (node.inputs[0], at)
        )
        if before[:1] != (_N_EXAMPLES,) and after[:1] == (_N_EXAMPLES,):
            return self._product_of_rows(node, after)
        if not before[:1] == after[:1] == (_N_EXAMPLES,):
            raise _UnknownError
        return _reshaped(_of_example(before), _of_example(after)), (node.inputs[0],)

    def _product_of_rows(self, node: Node, after: Shape) -> Found:
        """A product whose rows were the places of all examples."""
        inner = self._nodes[source_of(self._nodes, node.inputs[0])[0]]
        outer = self._nodes[source_of(self._nodes, inner.inputs[0])[0]] if inner.inputs else inner
        is_product = inner.op == "MatMul" and outer.op == "Reshape"
        if not is_product or inner.attr["transpose_a"].b or inner.attr["transpose_b"].b:
            raise _UnknownError
        data, kernel = outer.inputs[0], inner.inputs[1]
        of_data, rows, of_kernel = map(self._static, (data, inner.inputs[0], kernel))
        # Each row is of one place, before and after.
        is_of_places = (*of_data[:-1], of_kernel[1]) == after and rows[-1] == of_data[-1]
        if not is_of_places:
            raise _UnknownError
        return self._at_places(data, kernel)

    # What tensors are.

    def _matches(self, tensor: Tensor, form: Any, x: Tensor | None) -> Iterator[Tensor | None]:
        """What ``X`` is in a form of one unknown, for each way in which a tensor has the form."""
        tensor = source_of(self._nodes, tensor)
        if form is X:
            if x in (None, tensor):
                yield tensor
        elif isinstance(form, float):
            found = constant(self._nodes, tensor)
            if found is not None and found.size == 1 and np.isclose(found, form, 1e-6, 0).all():
                yield x
        elif self._nodes[tensor[0]].op == form[0] and tensor[1] == 0:
            inputs = self._nodes[tensor[0]].inputs
            for first, *others in {tuple(inputs), tuple(inputs[::-1])}:
                for found_x in self._matches(first, form[1], x):
                    if others:
                        yield from self._matches(others[0], form[2], found_x)
                    else:
                        yield found_x

    def _with_weights(self, node: Node) -> tuple[Tensor, Tensor | None]:
        """Data, and the tensor of weights or constants that is combined with them, if one is."""
        left, right = node.inputs
        for data, other in ((left, right), (right, left)):
            if other[0] not in self._of_input:
                return data, other
        return left, None

    def _of_channels(
        self,
        kind: type[Bias | Scale],
        tensor: Tensor,
        data: Tensor,
        at: Tensor,
        function: Any = None,
    ) -> Found:
        """Weights of which each channel of some data has one number, or all have one."""
        of_data, whole = self._static(data), self._static(at)
        node, shape = self._nodes[at[0]], self._static(tensor)
        if whole != of_data or len(shape) > len(whole):
            raise _UnknownError
        shape = (1,) * (len(whole) - len(shape)) + shape
        if node.op == "BiasAdd" and _is_first(node):
            shape = (1, shape[-1], *(1 for _ in whole[2:]))
        axes = [axis for axis, size in enumerate(shape) if size > 1] or [len(whole) - 1]
        # Nothing is broadcast but axes other than the channels', which are the last or the first.
        is_first = len(whole) == 4 and axes == [1]
        if axes != [len(whole) - 1] and not is_first:
            raise _UnknownError
        n_channels = whole[1] if is_first else _of_example(whole)[-1]
        size = math.prod(shape)
        if size > 1 and (size != n_channels or len(whole) < 2):
            raise _UnknownError
        origin = self._origin(tensor)
        name = self._weights.get(origin[0])
        if name is not None and function is None and size == n_channels:
            self._expect_float32(origin)
        else:
            value = self._value(tensor).astype(np.float64).reshape(-1)
            name = f"{tensor_name(tensor)} of {n_channels}"
            if function is not None:
                with np.errstate(divide="ignore"):
                    value, name = function(value), f"{name}, {function.__name__}"
            name = self._constant(name, np.broadcast_to(value, (n_channels,)))
        is_to_be_ordered = is_first and not (node.op == "BiasAdd" and _is_first(node))
        of_each = (kind(name),)
        return (_LAST, *of_each, _FIRST) if is_to_be_ordered else of_each, (data,)

    def _kernel(self, tensor: Tensor) -> str:
        """Name of the weights that a kernel is, with the numbers of its last two axes."""
        origin = self._origin(tensor)
        name = self._weights.get(origin[0])
        if name is None:
            return self._constant(tensor_name(tensor), self._value(tensor))
        if self._static(origin)[-2:] != self._static(tensor)[-2:]:
            raise _UnknownError
        self._expect_float32(tensor)
        return name

    def _weight(self, tensor: Tensor) -> str:
        """Name of the weights that a vector is."""
        name = self._weights.get(self._origin(tensor)[0])
        if name is None:
            return self._constant(tensor_name(tensor), self._value(tensor))
        self._expect_float32(tensor)
        return name

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = np.ascontiguousarray(value, np.float32)
        if not np.isfinite(self.constants[name]).all():
            raise _UnknownError
        return name

    def _value(self, tensor: Tensor) -> NDArray[Any]:
        """Value of a tensor that depends on constants and fixed weights alone."""
        origin = self._origin(tensor)
        plain = self._fixed.get(self._weights.get(origin[0], ""))
        if plain is None:
            plain = constant(self._nodes, origin)
        if plain is not None:
            return np.asarray(plain).reshape(self._static(tensor))
        feeds = {}
        for name in ancestors(self._nodes, [tensor]):
            if self._weights.get(name) in self._fixed:
                feeds[f"{name}:0"] = self._fixed[self._weights[name]]
            elif self._nodes[name].op == "Placeholder":
                raise _UnknownError
        try:
            with (
                quiet_file_descriptor_2(),
                open_session(self._graph, *self._threads, is_optimized=False) as session,
            ):
                return np.asarray(session.run(tensor_name(tensor), feeds))
        except import_graphs().OpError as error:
            raise _UnknownError from error

    def _origin(self, tensor: Tensor) -> Tensor:
        """The tensor that has the same numbers in the same order, as far back as it goes."""
        while True:
            node = self._nodes[tensor[0]]
            if tensor[1] != 0 or node.op not in SAME_NUMBERS | {"BroadcastTo"}:
                return tensor
            (before, *_) = node.inputs
            if math.prod(self._static(tensor)) != math.prod(self._static(before)):
                return tensor
            tensor = before

    def _static(self, tensor: Tensor) -> Shape:
        """Shape that TensorFlow has for a tensor; how many examples there are may be open."""
        shape = static_type(self._graph, tensor).shape
        if shape and shape[0] is None and tensor[0] in self._of_input:
            shape = (_N_EXAMPLES, *shape[1:])
        return _known(shape)

    def _shape(self, tensor: Tensor) -> Shape:
        """Shape of an example, a vector or an image."""
        return _of_example(self._static(tensor))

    def _image(self, node: Node) -> tuple[int, int, int]:
        """Of what a node takes, with channels last."""
        rows, columns, channels = self._static(node.inputs[0])[1:]
        return (columns, channels, rows) if _is_first(node) else (rows, columns, channels)

    def _expect_float32(self, tensor: Tensor) -> None:
        if static_type(self._graph, tensor).dtype != _FLOAT32:
            raise _UnknownError


def _is_first(node: Node) -> bool:
    """Whether channels are the first axis of an example."""
    data_format = node.attr["data_format"].s if "data_format" in node.attr else b"NHWC"
    if data_format not in (b"NHWC", b"NCHW"):
        raise _UnknownError
    return bool(data_format == b"NCHW")


def _pair(node: Node, key: str) -> tuple[int, int]:
    """An attribute that has a number for rows and one for columns."""
    examples, rows, columns, channels = list(node.attr[key].list.i) or (1, 1, 1, 1)
    if _is_first(node):
        rows, columns, channels = columns, channels, rows
    if examples != 1 or channels != 1:
        raise _UnknownError
    return rows, columns


def _borders(
    node: Node,
    image: Shape,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int] = (1, 1),
) -> Borders:
    padding = node.attr["padding"].s
    if padding == b"VALID":
        return NO_BORDERS
    if padding == b"SAME":
        rows, columns = map(same_border, image[:2], window, strides, dilations)
        return rows, columns
    explicit = list(node.attr["explicit_paddings"].list.i)
    start = 4 if _is_first(node) else 2
    top, bottom, left, right = explicit[start : start + 4]
    return (top, bottom), (left, right)


def _reshaped(before: Shape, after: Shape) -> tuple[Operation, ...]:
    """The operation that gives a tensor another shape, if it has another one."""
    if 1 in before[:2] and before[:2] == after[1::-1] and before[2:] == after[2:] != ():
        return () if before == after else (_TURNED,)
    return () if before == after else (Reshape(after, math.prod(before) // before[-1]),)


def _of_example(shape: Shape) -> Shape:
    """A vector or an image, of which TensorFlow has so many examples: see ``layer_graph``."""
    one = shape[1:] or (1,)
    return (1, *one) if len(one) == 2 else one


def _known(shape: Sequence[int | None] | None) -> Shape:
    """A shape of which nothing may be open."""
    out = tuple(size for size in shape or () if size is not None)
    if shape is None or len(out) < len(shape):
        raise _UnknownError
    return out
