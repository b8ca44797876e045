"""Finds the Gaussian noise of a mean-field posterior in a graph, by structure alone.

What belongs here: following noise to the mean that it is added to, and telling the three ways of
doing so apart. What does not: evaluating or changing the graph (``graph.lifting``).

References
----------
Reparameterization: C. Blundell et al., "Weight uncertainty in neural networks", ICML 2015.
LocalReparameterization: D. Kingma et al., "Variational dropout and the local
reparameterization trick", NIPS 2015.
Flipout: Y. Wen et al., "Flipout: efficient pseudo-independent weight perturbations on
mini-batches", ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..errors import GraphError
from ..tensorflow_import import import_graphs
from .nodes import (
    NORMALS,
    SAME_NUMBERS,
    SHAPE_ONLY,
    Depends,
    Node,
    Nodes,
    Tensor,
    ancestors,
    constant,
    constant_node,
    consumers,
    dependences,
    is_random,
    source_of,
    structure,
)

PRODUCTS = frozenset(
    {
        "MatMul",
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Einsum",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv2dNative",
        "Conv2DBackpropInput",
        "Conv3DBackpropInputV2",
    }
)
_ADDITIONS = frozenset({"Add", "AddV2", "AddN", "BiasAdd", "Sub"})
_OF_OUTPUT = "if it is a regression's own, pass --loc_op and --scale_op"
_BEFORE_PRODUCT = SAME_NUMBERS | {"Cast", "Pad", "SpaceToBatchND", "Transpose"}
# Between a product and the sum: reshapes of dilated, one-dimensional and transposed convolutions.
_AROUND_PRODUCT = SAME_NUMBERS | {"Cast", "BatchToSpaceND", "Transpose"}


@dataclass(frozen=True)
class NoiseSite:
    """One place where noise is added to a mean.

    Attributes
    ----------
    kind : str
        ``Reparameterization``, ``Flipout`` or ``LocalReparameterization``.
    noise : str
        The operation that draws the standard normals.
    total, mean : Tensor
        The sum and its noise-free operand.
    loc : Tensor
        The weights' mean: ``mean`` itself, or the weight operand of the product behind it.
    scaled : Tensor
        A tensor that equals the scale where the noise is 1 (the scale itself for
        LocalReparameterization; its square where ``is_variance``).
    product : str or None
        The noise-free product, if there is one.
    """

    kind: str
    noise: str
    total: Tensor
    mean: Tensor
    loc: Tensor
    scaled: Tensor
    product: str | None = None
    is_variance: bool = False


def find_noise(
    nodes: Nodes,
    outputs: Collection[Tensor],
    input_tensor: Tensor,
    variables: Collection[str],
    label: str,
) -> list[NoiseSite]:
    """All places where standard normals are added to a mean, in the order of the graph.

    Raises
    ------
    GraphError
        If noise is not added to a mean, its scale cannot be found, or it is not that of weights.
    """
    order = ancestors(nodes, outputs)
    search = _Search(nodes, dependences(nodes, order, input_tensor, variables), label)
    followers = consumers(nodes, order)
    sites: list[NoiseSite] = []
    for name in order:
        if nodes[name].op in NORMALS:
            sites.extend(search.sites_of(name, followers, outputs))
    position = {name: index for index, name in enumerate(order)}
    return sorted(sites, key=lambda site: position[site.total[0]])


def find_sampled(
    nodes: Nodes,
    output: Tensor,
    input_tensor: Tensor,
    variables: Collection[str],
    label: str,
) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation where an output is a sample of a Normal; else None.

    So ends a Keras model whose last layer is a distribution once it is saved as a graph. Noise that
    is a posterior's, as of a last layer with local reparameterization, is none of the output's.

    Parameters
    ----------
    nodes : dict of str to Node
        Where the deviation is one number, a node of it is added.
    output : Tensor
    """
    total = nodes[source_of(nodes, output, SAME_NUMBERS)[0]]
    if total.op not in _ADDITIONS:
        return None
    order = ancestors(nodes, [output])
    search = _Search(nodes, dependences(nodes, order, input_tensor, variables), label)
    followers = consumers(nodes, order)
    for name in order:
        if nodes[name].op not in NORMALS:
            continue
        reached, sums = search.follow(name, followers, ())
        for node, position in sums:
            if node is total and not search.is_posterior(name, node, position, reached):
                scale = search.factor_of(name, node.inputs[position], reached)
                return None if scale is None else (node.inputs[1 - position], scale)
    return None


@dataclass(frozen=True)
class _Search:
    nodes: Nodes
    depends: dict[str, Depends]
    label: str

    def sites_of(
        self, noise: str, followers: dict[str, list[tuple[str, int]]], outputs: Collection[Tensor]
    ) -> list[NoiseSite]:
        reached, sums = self.follow(noise, followers, {name for name, _ in outputs})
        return [self._classify(noise, node, position, reached) for node, position in sums]

    def follow(
        self, noise: str, followers: dict[str, list[tuple[str, int]]], ends: Collection[str]
    ) -> tuple[set[str], list[tuple[Node, int]]]:
        """Nodes that noise goes through, and the sums (and which operand) that it is added in."""
        reached, waiting = {noise}, [noise]
        sums: list[tuple[Node, int]] = []
        while waiting:
            name = waiting.pop()
            if name in ends:
                raise GraphError(
                    f"{self.label}: noise '{noise}' reaches the output without being added to "
                    "a mean; only additive Gaussian noise can be lifted"
                )
            for follower, position in followers.get(name, []):
                node = self.nodes[follower]
                if self._hides_value(node, position):
                    continue
                if self._is_sum(node, position):
                    sums.append((node, position))
                elif follower not in reached:
                    reached.add(follower)
                    waiting.append(follower)
        return reached, sums

    def is_posterior(self, noise: str, total: Node, position: int, reached: set[str]) -> bool:
        """Whether noise that is added in a sum is that of weights."""
        try:
            self._classify(noise, total, position, reached)
        except GraphError:
            return False
        return True

    def factor_of(self, noise: str, noisy: Tensor, reached: set[str]) -> Tensor | None:
        """The one factor on the way of noise to where it is added; None where there is more."""
        factors = []
        for name in [name for name in ancestors(self.nodes, [noisy]) if name in reached]:
            node = self.nodes[name]
            if name == noise or node.op in SAME_NUMBERS:
                continue
            for factor in node.inputs:
                if factor[0] in reached or self._is_neutral(node, factor):
                    continue
                if node.op != "Mul":
                    return None
                factors.append(factor)
        if not factors:
            one = f"{noise}/one"
            dtype = import_graphs().as_dtype(self.nodes[noise].attr["dtype"].type)
            self.nodes[one] = constant_node(one, np.ones((), dtype.as_numpy_dtype))
            factors = [(one, 0)]
        return factors[0] if len(factors) == 1 else None

    def _hides_value(self, node: Node, position: int) -> bool:
        return node.op in SHAPE_ONLY or is_random(node.op) or (node.op == "Fill" and position == 0)

    def _is_sum(self, node: Node, position: int) -> bool:
        if node.op not in _ADDITIONS or len(node.inputs) != 2:
            return False
        other = self.depends[node.inputs[1 - position][0]]
        return bool(other & (Depends.VARIABLE | Depends.INPUT))

    def _classify(self, noise: str, total: Node, position: int, reached: set[str]) -> NoiseSite:
        noisy, mean = total.inputs[position], total.inputs[1 - position]
        where = f"{self.label}: noise '{noise}', added at '{total.name}',"
        if total.op == "Sub" and position == 0:
            raise GraphError(f"{where} has a mean subtracted from it; rewrite it as mean + noise")
        path = [name for name in ancestors(self.nodes, [noisy]) if name in reached]
        products = [name for name in path if self.nodes[name].op in PRODUCTS]
        if products:
            return self._flipout(noise, total, mean, where, path, products)
        if not (self.depends[noisy[0]] | self.depends[mean[0]]) & Depends.INPUT:
            self._check_scale(noisy, where)
            self._check_loc(mean, where)
            return NoiseSite(
                "Reparameterization", noise, (total.name, 0), mean, loc=mean, scaled=noisy
            )
        return self._local_reparameterization(noise, total, mean, where, path)

    def _flipout(
        self,
        noise: str,
        total: Node,
        mean: Tensor,
        where: str,
        path: list[str],
        products: list[str],
    ) -> NoiseSite:
        noisy_product = self.nodes[products[0]]
        mean_product = self._product_behind(mean, where)
        if len(products) > 1 or mean_product.op != noisy_product.op:
            raise GraphError(
                f"{where} passes {', '.join(map(repr, products))} but its mean comes from "
                f"'{mean_product.name}' ({mean_product.op}); not Flipout"
            )
        weight = self._weight_position(mean_product, where)
        scaled = noisy_product.inputs[weight]
        if scaled[0] not in path:
            raise GraphError(f"{where} is not noise of the weights of '{mean_product.name}'")
        self._check_scale(scaled, where)
        for name in path[path.index(noisy_product.name) + 1 :]:
            node = self.nodes[name]
            others = [tensor for tensor in node.inputs if tensor[0] not in path]
            is_sign = node.op == "Mul" and any(self._is_sign(node, other) for other in others)
            if node.op not in _AROUND_PRODUCT and not is_sign:
                raise GraphError(
                    f"{where} is more than turned in its sign after its product, by '{name}' "
                    f"({node.op}); its scale cannot be found"
                )
        noisy_data, data = (  # a transposed convolution's last operand
            [other for at, other in enumerate(product.inputs) if at != weight][-1]
            for product in (noisy_product, mean_product)
        )
        if not self._differ_by_signs(noisy_data, data):
            raise GraphError(
                f"{where} is multiplied in '{noisy_product.name}' by something else than the "
                f"weights in '{mean_product.name}'; not Flipout"
            )
        return NoiseSite(
            "Flipout",
            noise,
            (total.name, 0),
            mean,
            loc=mean_product.inputs[weight],
            scaled=scaled,
            product=mean_product.name,
        )

    def _is_sign(self, node: Node, factor: Tensor) -> bool:
        """Whether a factor is random alone, or one."""
        return self.depends[factor[0]] == Depends.RANDOM or self._is_neutral(node, factor)

    def _differ_by_signs(self, left: Tensor, right: Tensor) -> bool:
        """Whether a tensor is another one times random signs, in the same shape or in others."""
        left, right = source_of(self.nodes, left), source_of(self.nodes, right)
        if left == right:
            return True
        node, other = self.nodes[left[0]], self.nodes[right[0]]
        of_both = zip(node.inputs, reversed(node.inputs), strict=True)
        if node.op == "Mul" and any(
            self._is_sign(node, sign) and self._differ_by_signs(data, right)
            for data, sign in of_both
        ):
            return True
        if node.op == other.op and node.op in _BEFORE_PRODUCT:
            return self._differ_by_signs(node.inputs[0], other.inputs[0])
        return structure(self.nodes, left) == structure(self.nodes, right)

    def _local_reparameterization(
        self, noise: str, total: Node, mean: Tensor, where: str, path: list[str]
    ) -> NoiseSite:
        variance_product: Node | None = None
        for name in path:
            node = self.nodes[name]
            for factor in node.inputs if name != noise else []:
                root = self.nodes[source_of(self.nodes, factor, SAME_NUMBERS)[0]]
                if factor[0] in path or node.op in SAME_NUMBERS:
                    continue
                if node.op == "Mul" and root.op == "Sqrt" and variance_product is None:
                    variance_product = self._product_behind(root.inputs[0], where)
                elif not self._is_neutral(node, factor):
                    raise GraphError(
                        f"{where} has no scale that depends on variables alone (see "
                        f"'{node.name}'); noise of activations is not a posterior of weights "
                        f"({_OF_OUTPUT})"
                    )
        if variance_product is None:
            raise GraphError(
                f"{where} is noise of activations without a scale that depends on a variable; "
                f"it is not a posterior of weights ({_OF_OUTPUT})"
            )
        mean_product = self._product_behind(mean, where)
        weight = self._weight_position(mean_product, where)
        square = variance_product.inputs[1 - weight]
        if (
            variance_product.op != mean_product.op
            or self._weight_position(variance_product, where) != weight
            or structure(self.nodes, self._root(square) or square)
            != structure(self.nodes, mean_product.inputs[1 - weight])
        ):
            raise GraphError(
                f"{where} has a scale from '{variance_product.name}' that does not match its mean "
                f"from '{mean_product.name}'; not LocalReparameterization"
            )
        variance = variance_product.inputs[weight]
        scale = self._root(variance)
        self._check_scale(variance, where)
        return NoiseSite(
            "LocalReparameterization",
            noise,
            (total.name, 0),
            mean,
            loc=mean_product.inputs[weight],
            scaled=variance if scale is None else scale,
            product=mean_product.name,
            is_variance=scale is None,
        )

    def _product_behind(self, tensor: Tensor, where: str) -> Node:
        node = self.nodes[source_of(self.nodes, tensor, _AROUND_PRODUCT)[0]]
        if node.op not in PRODUCTS:
            raise GraphError(
                f"{where} is noise of activations (added to '{node.name}', {node.op}); its scale "
                "over weights cannot be found"
            )
        return node

    def _weight_position(self, product: Node, where: str) -> int:
        for position, tensor in enumerate(product.inputs):
            if self.depends[tensor[0]] == Depends.VARIABLE:
                return position
        raise GraphError(f"{where} has no weights among the operands of '{product.name}'")

    def _check_scale(self, scaled: Tensor, where: str) -> None:
        depends = self.depends[scaled[0]]
        if not depends & Depends.VARIABLE:
            raise GraphError(
                f"{where} has a mean but no scale that depends on a variable; nothing to prune by"
            )
        if depends & Depends.INPUT:
            raise GraphError(f"{where} has a scale that depends on the input; not mean-field")

    def _check_loc(self, loc: Tensor, where: str) -> None:
        if self.depends[loc[0]] != Depends.VARIABLE:
            raise GraphError(f"{where} has the mean '{loc[0]}', which is random itself")

    def _is_neutral(self, node: Node, factor: Tensor) -> bool:
        """Whether ``factor`` leaves the noise as it is: times one or plus nothing."""
        if self.depends[factor[0]] != Depends.NOTHING:
            return False
        root = self.nodes[source_of(self.nodes, factor)[0]]
        if root.op == "ZerosLike":
            return node.op in _ADDITIONS
        value = constant(self.nodes, root.inputs[1] if root.op == "Fill" else factor)
        neutral = 1.0 if node.op == "Mul" else 0.0 if node.op in _ADDITIONS else None
        return value is not None and neutral is not None and bool(np.all(value == neutral))

    def _root(self, tensor: Tensor) -> Tensor | None:
        """The tensor whose square ``tensor`` is, if the graph has it."""
        node = self.nodes[source_of(self.nodes, tensor)[0]]
        if node.op == "Square":
            return node.inputs[0]
        if node.op == "Mul":
            left, right = (source_of(self.nodes, operand) for operand in node.inputs)
            return node.inputs[0] if left == right else None
        if node.op == "Pow":
            power = constant(self.nodes, node.inputs[1])
            return node.inputs[0] if power is not None and np.all(power == 2) else None
        return None
