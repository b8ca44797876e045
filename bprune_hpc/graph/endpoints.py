"""Finds the input and the logits of a graph where they are not named.

What belongs here: BPrune's ``Ops_name_BNN.txt`` and the search of a graph for what feeds a
softmax. What does not: anything about noise or weights.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import GraphError
from .nodes import (
    SAME_NUMBERS,
    SAME_VALUE,
    Nodes,
    Tensor,
    ancestors,
    constant,
    describe,
    is_random,
    parse_tensor,
    source_of,
    tensor_name,
)

OPS_NAME_FILE = "Ops_name_BNN.txt"

_LOG = logging.getLogger(__name__)
Shape = tuple[int | None, ...] | None

_SOFTMAX = frozenset(
    {
        "Softmax",
        "LogSoftmax",
        "SoftmaxCrossEntropyWithLogits",
        "SparseSoftmaxCrossEntropyWithLogits",
    }
)
_DRAWS = frozenset({"Multinomial", "StatelessMultinomial"})
_AFTER_DRAW = SAME_NUMBERS | {"Cast", "OneHot", "Transpose"}
_OF_UNIFORM = SAME_NUMBERS | {"Add", "AddV2", "Mul"}
_OF_PROBABILITIES = frozenset({"Sigmoid", "Softmax"})
_CHOICES = SAME_NUMBERS | {"Cast", "GatherV2", "StridedSlice"}
_ARITHMETIC = frozenset({"Add", "AddV2", "ClipByValue", "Maximum", "Minimum", "Mul", "Sub"})
_LINEAR = frozenset({"BatchMatMul", "BatchMatMulV2", "Conv1D", "Conv2D", "Einsum", "MatMul"})
_KEEP_SIGNS = _CHOICES | {"AvgPool", "BiasAdd", "Mean"}
_FED = frozenset({"Placeholder", "IteratorGetNext", "IteratorGetNextSync"})


def read_ops_names(path: Path) -> tuple[str, str | None]:
    """Input operation, and the product that holds the logits, as ``Ops_name_BNN.txt`` has them.

    Parameters
    ----------
    path : Path
        One operation a line: input, label, then the rest of the graph in order.

    Returns
    -------
    input_op : str
    product_op : str or None
        First operation whose name ends in ``/log_prob/mul`` (logits × ones like the labels).
    """
    names = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    names = [name for name in names if name]
    if not names:
        raise GraphError(f"{path}: empty; delete it, or pass --input_op and --logits_op")
    products = [name for name in names if name.partition(":")[0].endswith("/log_prob/mul")]
    return names[0], products[0] if products else None


def named_tensor(
    nodes: Nodes, renamed: Mapping[Tensor, Tensor], name: str, flag: str, label: str
) -> Tensor:
    """The tensor of a name that a user or a file gives (``op`` or ``op:output``).

    Raises
    ------
    GraphError
        If the graph has no such operation, not even inside one function.
    """
    tensor = parse_tensor(name)
    tensor = renamed.get(tensor, tensor)
    if tensor[0] not in nodes:
        # A node of a function lies under the names of the calls that lead to it.
        nested = [known for known in nodes if known.endswith(f"/{tensor[0]}")]
        if len(nested) == 1:
            return nested[0], tensor[1]
        close = difflib.get_close_matches(tensor[0], nodes, n=3)
        hint = f"; close: {', '.join(map(repr, close))}" if close else ""
        raise GraphError(
            f"{label}: the graph has no operation '{name}'{hint}; pass another as {flag}"
        )
    return tensor


def find_logits(nodes: Nodes, label: str) -> Tensor:
    """The tensor that feeds a softmax or a softmax cross entropy at the end of the network.

    Raises
    ------
    GraphError
        If there is none, or more than one.
    """
    found = {
        _before_broadcast(nodes, before_ones(nodes, node.inputs[0]))
        for node in nodes.values()
        if node.op in _SOFTMAX
    }
    behind = {tensor: set(ancestors(nodes, [tensor])) for tensor in found}
    found = {tensor for tensor in found if any(nodes[name].op in _FED for name in behind[tensor])}
    # Softmaxes inside the network (attention) and flattened copies of the logits: a candidate
    # that another one is computed from is the copied one or lies inside.
    for tensor in sorted(found):
        for other in sorted(found - {tensor}):
            if tensor[0] not in behind[other] or tensor not in found:
                continue
            is_copy = _before_reshape(nodes, other) == tensor
            found.discard(other if is_copy else tensor)
    if len(found) == 1:
        return found.pop()
    if not found:
        raise GraphError(
            f"{label}: no softmax or softmax cross entropy is computed from an input; "
            "pass --logits_op=NAME, or --loc_op and --scale_op of a regression"
        )
    candidates = ", ".join(tensor_name(tensor).removesuffix(":0") for tensor in sorted(found))
    raise GraphError(
        f"{label}: several tensors could be the logits: {candidates}; pass one as --logits_op"
    )


def find_input(nodes: Nodes, logits: Tensor, label: str) -> Tensor:
    """The only placeholder that the logits are computed from.

    Raises
    ------
    GraphError
        If there is none, or more than one.
    """
    behind = ancestors(nodes, [logits])
    found = [name for name in behind if nodes[name].op == "Placeholder"]
    found = [name for name in found if nodes[name].attr["dtype"].type not in _handle_types()]
    if len(found) == 1:
        return found[0], 0
    if found:
        raise GraphError(
            f"{label}: several placeholders could be the input: "
            f"{', '.join(found)}; pass one as --input_op, and give the others values with "
            "--feed NAME=VALUE"
        )
    others = [name for name in behind if nodes[name].op in _FED]
    others += [name for name in behind if nodes[name].op == "PlaceholderWithDefault"]
    hint = f"; it could be {describe(nodes, others)}" if others else ""
    raise GraphError(
        f"{label}: no placeholder leads to '{tensor_name(logits)}'{hint}; pass --input_op=NAME"
    )


def before_ones(nodes: Nodes, tensor: Tensor) -> Tensor:
    """Step back over identities and products with ones, as TFP's Categorical makes them."""
    while True:
        node = nodes[tensor[0]]
        if node.op in SAME_VALUE:
            tensor = node.inputs[0]
            continue
        if node.op == "Mul":
            left, right = node.inputs
            if _is_ones(nodes, right):
                tensor = left
                continue
            if _is_ones(nodes, left):
                tensor = right
                continue
        return tensor


@dataclass(frozen=True)
class Head:
    """The end of a network, as its structure tells it.

    Attributes
    ----------
    output : Tensor
        The logits where ``kind`` says so, else what was named.
    kind : str or None
        ``"logits"`` where a softmax of them, or a sample drawn by them, was stepped over.
    activation : str or None
        ``"Softmax"`` or ``"Sigmoid"`` where ``output`` may be one, in another shape, of...
    behind : Tensor or None
        ...this one: to be taken for ``output`` if their shapes say the same.
    """

    output: Tensor
    kind: str | None = None
    activation: str | None = None
    behind: Tensor | None = None

    def is_of(self, behind: Shape, output: Shape) -> bool:
        """Whether ``output`` is the ``activation`` of ``behind``, in its own shape or another.

        Parameters
        ----------
        behind, output : tuple of int or None; None
            Shapes, the examples' axis first. A softmax is of a row, a sigmoid here of one number.
        """
        if behind is None or output is None:
            return False
        sizes = behind[1:]
        n_behind, n_output = (
            None if None in shape else math.prod(size or 0 for size in shape)
            for shape in (sizes, output[1:])
        )
        if n_behind is None or n_behind != n_output:
            return False
        return n_behind == 1 if self.activation == "Sigmoid" else sizes[-1:] == (n_behind,)


def look_behind(nodes: Nodes, tensor: Tensor) -> Head:
    """Step back from probabilities, a sample, or as BPrune names it a copy, to the logits."""
    root = source_of(nodes, tensor)
    if nodes[root[0]].op == "Mul":  # BPrune names logits × ones like the labels
        logits = before_ones(nodes, root)
        return Head(logits, None if logits == root else "logits")
    if nodes[root[0]].op in ("Softmax", "LogSoftmax"):
        return Head(before_ones(nodes, nodes[root[0]].inputs[0]), "logits")
    shaped = nodes[source_of(nodes, tensor, SAME_NUMBERS)[0]]
    if shaped.op in ("Softmax", "LogSoftmax", "Sigmoid"):
        behind = before_ones(nodes, shaped.inputs[0])
        return Head(tensor, None, shaped.op.removeprefix("Log"), behind)
    while nodes[root[0]].op in _AFTER_DRAW:
        root = source_of(nodes, nodes[root[0]].inputs[0])
    if nodes[root[0]].op == "Less":  # a Bernoulli's sample: a uniform number below a probability
        uniform, probability = nodes[root[0]].inputs
        if is_random(nodes[source_of(nodes, uniform, _OF_UNIFORM)[0]].op):
            return look_behind(nodes, probability)
    if nodes[root[0]].op in _DRAWS:
        logits = _before_reshape(nodes, before_ones(nodes, nodes[root[0]].inputs[0]))
        return Head(logits, "logits")
    return Head(tensor)


def is_of_probabilities(nodes: Nodes, tensor: Tensor) -> bool:
    """Whether numbers are those of a sigmoid or softmax, perhaps with constants' arithmetic behind.

    Parameters
    ----------
    nodes : dict of str to Node
        May be empty, of which nothing is told.
    """
    while tensor[0] in nodes:
        node = nodes[tensor[0]]
        if node.op in _OF_PROBABILITIES:
            return True
        if node.op in _CHOICES:
            tensor = node.inputs[0]
            continue
        open_inputs = [other for other in node.inputs if constant(nodes, other) is None]
        if node.op not in _ARITHMETIC or len(open_inputs) != 1:
            return False
        (tensor,) = open_inputs
    return False


def is_of_any_sign(nodes: Nodes, tensor: Tensor) -> bool:
    """Whether numbers are a linear layer's, which nothing keeps from being negative.

    A product with constants that are not negative (an average of probabilities) is none.

    Parameters
    ----------
    nodes : dict of str to Node
        May be empty, of which nothing is told.
    """
    if tensor[0] not in nodes:
        return False
    node = nodes[tensor[0]]
    if node.op in _LINEAR:
        values = [constant(nodes, other) for other in node.inputs]
        return not any(value is not None and (value >= 0).all() for value in values)
    if node.op in _KEEP_SIGNS:
        return is_of_any_sign(nodes, node.inputs[0])
    return node.op in ("Add", "AddV2") and any(is_of_any_sign(nodes, one) for one in node.inputs)


def _is_ones(nodes: Nodes, tensor: Tensor) -> bool:
    node = nodes[tensor[0]]
    if node.op in SAME_VALUE:
        return _is_ones(nodes, node.inputs[0])
    if node.op == "OnesLike":
        return True
    value = constant(nodes, node.inputs[1] if node.op == "Fill" else tensor)
    return value is not None and bool(np.all(value == 1))


def _before_broadcast(nodes: Nodes, tensor: Tensor) -> Tensor:
    """Logits before TFP's OneHotCategorical gives them the shape of the labels, if it does."""
    root = _before_reshape(nodes, tensor)
    if nodes[root[0]].op == "BroadcastTo":
        return before_ones(nodes, nodes[root[0]].inputs[0])
    return tensor


def _before_reshape(nodes: Nodes, tensor: Tensor) -> Tensor:
    while nodes[tensor[0]].op == "Reshape":
        tensor = before_ones(nodes, nodes[tensor[0]].inputs[0])
    return tensor


def _handle_types() -> tuple[int, int]:
    from ..tensorflow_import import import_graphs

    tensorflow = import_graphs()
    return tensorflow.resource.as_datatype_enum, tensorflow.variant.as_datatype_enum
