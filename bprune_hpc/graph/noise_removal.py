"""Cuts noise out of a graph and makes the weights that it perturbed arguments of the graph.

What belongs here: the change to the graph, and the table of means and scales that comes out of
it. What does not: finding the noise (``graph.noise``), everything around it (``graph.lifting``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from .constant_folding import Evaluator
from .nodes import (
    SAME_NUMBERS,
    Node,
    Nodes,
    Tensor,
    ancestors,
    constant_node,
    is_random,
    placeholder_node,
    source_of,
    structure,
    typed_node,
)
from .noise import NoiseSite
from .parametrization import WeightEnds
from .source import VariableValues

_FLOAT32, _FLOAT64 = 1, 2
_BLOCK = 1 << 18
# Of the noise, besides 1: where its part vanishes, and where it is twice as large.
_LEVELS = (0.0, 2.0)


class NoiseRemoval:
    """A graph on which cuts are made one after another.

    Parameters
    ----------
    nodes : dict of str to Node
        The graph, which is changed; variables are placeholders in it.
    variables : dict of str to str
        Checkpoint name of each variable, by node.
    values : VariableValues
        By checkpoint name; released as soon as the last site that needs them is done.
    evaluator : Evaluator
        Of the same graph before any cut.
    label : str
        What error messages call the graph.

    Attributes
    ----------
    loc, scale : dict of str to float32 or float64 array
        The posterior so far; float64 where the network's weights are.
    placeholders : dict of str to str
        Node that each mean-field tensor is fed to.
    ends : dict of str to WeightEnds
        Where each mean-field tensor comes from.
    notes : list of str
    rows_with_noise : list of Tensor
        What is multiplied by weights that each row had noise of its own of.
    """

    def __init__(
        self,
        nodes: Nodes,
        variables: dict[str, str],
        values: VariableValues,
        evaluator: Evaluator,
        label: str,
    ) -> None:
        self.loc: dict[str, NDArray[Any]] = {}
        self.scale: dict[str, NDArray[Any]] = {}
        self.placeholders: dict[str, str] = {}
        self.ends: dict[str, WeightEnds] = {}
        self.notes: list[str] = []
        self.rows_with_noise: list[Tensor] = []
        self._values = values
        self._nodes = nodes
        self._uncut = dict(nodes)
        self._variables = variables
        self._evaluate = evaluator
        self._label = label
        self._name_of: dict[bytes, str] = {}
        self._loc_of_noise: dict[str, str] = {}

    def apply_all(self, sites: Sequence[NoiseSite]) -> None:
        """Replace the sum at each site by its mean, computed from a weight that is fed.

        Raises
        ------
        GraphError
            If the noise is not independent for each weight, or not proportional to a scale.
        """
        fed = [self._fed_tensor(site.loc) for site in sites]
        for site, tensor in zip(sites, fed, strict=True):
            self._values.announce(self._evaluate.behind(site.scaled).values())
            self._values.announce(self._evaluate.behind(tensor).values())
        for site, tensor in zip(sites, fed, strict=True):
            self._apply(site, tensor)

    def _apply(self, site: NoiseSite, fed: Tensor) -> None:
        # The scale first: its variable can be gone before the mean is read.
        behind_scale = self._evaluate.behind(site.scaled)
        scaled = self._scaled(site)
        self._values.release(behind_scale.values())
        behind_loc = self._evaluate.behind(fed)
        loc = self._values[behind_loc[fed[0]]] if fed[0] in behind_loc else self._evaluate(fed)
        loc_shape = self._shape_of(site.loc)
        self._values.release(behind_loc.values())
        loc, scale = self._matched(site, loc, scaled)
        name = self._entry(site, fed, loc, scale)
        self.ends.setdefault(
            name,
            WeightEnds(
                fed,
                site.scaled,
                site.kind == "LocalReparameterization" and site.is_variance,
                tuple(sorted(set(behind_loc.values()))),
                tuple(sorted(set(behind_scale.values()))),
            ),
        )
        weight = self._typed_weight(name, self._evaluate.static_type(site.loc).dtype_enum, site)
        if site.product is None:
            shape = np.broadcast_shapes(scaled.shape, loc_shape)
            self._replace_by_reshape(site, weight, shape)
        else:
            self._replace_by_mean(site, self._clone(site.mean, fed, weight, site))
            factors = self._uncut[site.product].inputs
            self.rows_with_noise += [tensor for tensor in factors if tensor != site.loc]
        form = self._noise_of_places(site)
        if form:
            self.notes.append(
                f"{name}: {form}; a draw of one kernel has "
                "the same distribution in each output, not the same joint one"
            )

    def _noise_of_places(self, site: NoiseSite) -> str:
        """In words, how each place of an example has noise of its own; empty where none has."""
        shape = self._evaluate.static_type(site.total).shape
        if site.product is None or shape is None or len(shape) < 3:
            return ""
        estimator = "Flipout" if site.kind == "Flipout" else "local reparameterization"
        if "Conv" not in self._uncut[site.product].op:
            return f"dense layer at several places with {estimator}"
        return "" if site.kind == "Flipout" else f"convolution with {estimator}"

    def _fed_tensor(self, loc: Tensor) -> Tensor:
        root = source_of(self._uncut, loc, SAME_NUMBERS)
        return root if root[0] in self._variables else source_of(self._uncut, loc)

    def _shape_of(self, tensor: Tensor) -> tuple[int, ...]:
        known = self._evaluate.static_type(tensor).shape
        if known is not None and None not in known:
            return tuple(size for size in known if size is not None)
        return self._evaluate(tensor).shape

    def _scaled(self, site: NoiseSite) -> NDArray[Any]:
        behind = ancestors(self._uncut, [site.scaled])
        random = [n for n in behind if is_random(self._uncut[n].op) and n != site.noise]
        if random:
            raise GraphError(
                f"{self._label}: the scale of noise '{site.noise}' is random itself (see "
                f"'{random[0]}'); not mean-field"
            )
        if site.kind == "LocalReparameterization":
            value = self._by_blocks(site, (1.0,))
            if value is None:
                value = np.array(self._evaluate(site.scaled))
            return np.sqrt(value, out=value) if site.is_variance else value
        n_noise = self._evaluate.size((site.noise, 0))
        if n_noise is None:
            n_noise = int(np.prod(self._evaluate(self._uncut[site.noise].inputs[0])))
        if n_noise == self._evaluate.size(site.scaled):
            value = self._by_blocks(site, (1.0, *_LEVELS))
            if value is not None:
                return value
        at_one, is_scalar = self._at_one(site.scaled, n_noise)
        if n_noise != at_one.size:
            raise GraphError(
                f"{self._label}: noise '{site.noise}' is shared between weights; not mean-field"
            )
        for level in _LEVELS:
            self._check_level(site, level, self._evaluate(site.scaled, level, is_scalar), at_one)
        return at_one

    def _by_blocks(self, site: NoiseSite, levels: Sequence[float]) -> NDArray[Any] | None:
        """Value where the noise is 1, part by part; None where it cannot be had so."""
        whole: list[NDArray[Any]] = []

        def take(part: slice, found: list[NDArray[Any]]) -> None:
            if not whole:  # not before it is known that as many are stored
                whole.append(np.empty(self._evaluate.size(site.scaled) or 0, found[0].dtype))
            whole[0][part] = found[0]
            for level, others in zip(levels[1:], found[1:], strict=True):
                self._check_level(site, level, others, found[0])

        if not self._evaluate.in_blocks(site.scaled, levels, take):
            return None
        return whole[0].reshape(self._shape_of(site.scaled))

    def _check_level(
        self, site: NoiseSite, level: float, found: NDArray[Any], at_one: NDArray[Any]
    ) -> None:
        if not level and not _agree(found, at_one, 0.0, 0.0):
            raise GraphError(
                f"{self._label}: noise '{site.noise}' has a mean of its own besides the one it is "
                f"added to at '{site.total[0]}'; not mean-field"
            )
        if not _agree(found, at_one, level, 1e-3):
            raise GraphError(
                f"{self._label}: noise '{site.noise}' does not grow in proportion to its scale "
                f"before '{site.total[0]}'; not a Gaussian posterior"
            )

    def _at_one(self, scaled: Tensor, n_noise: int) -> tuple[NDArray[Any], bool]:
        """Value where the noise is 1, and whether one number could stand for all of it."""
        try:
            value = self._evaluate(scaled, 1.0, is_scalar=True)
        except GraphError:
            value = None
        if value is not None and value.size == n_noise:
            return value, True
        return self._evaluate(scaled, 1.0), False

    def _matched(
        self, site: NoiseSite, loc: NDArray[Any], scaled: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean and scale of one shape: the variable's where it can be."""
        if _without_ones(loc.shape) != _without_ones(scaled.shape):
            # One number as the mean of many weights, or as their scale (noise has its own size).
            is_local = site.kind == "LocalReparameterization"
            try:
                shape = np.broadcast_shapes(loc.shape, scaled.shape)
            except ValueError:
                shape = ()
            kept = loc.shape if site.product is not None else scaled.shape
            is_shared = site.product is None and np.prod(shape) != scaled.size
            if is_shared or shape != kept or (site.product is not None and not is_local):
                raise GraphError(
                    f"{self._label}: the mean at '{site.loc[0]}' has shape {loc.shape}, its scale "
                    f"{scaled.shape}; not one Gaussian a weight"
                )
            n_extra = scaled.ndim - loc.ndim
            if loc.ndim and n_extra > 0 and _is_repeated(scaled, n_extra):
                n_samples = math.prod(scaled.shape[:n_extra])
                weights = next(iter(self._evaluate.behind(site.loc).values()))
                raise GraphError(
                    f"{self._label}: noise '{site.noise}' makes {n_samples} samples of '{weights}' "
                    "in one call; take one, and leave averages over samples to the sweep"
                )
            loc, scaled = np.broadcast_to(loc, shape), np.broadcast_to(scaled, shape)
        kind = np.float64 if loc.dtype == np.float64 else np.float32
        mean = np.ascontiguousarray(loc, kind).reshape(loc.shape)
        return mean, np.ascontiguousarray(scaled, kind).reshape(mean.shape)

    def _entry(
        self,
        site: NoiseSite,
        fed: Tensor,
        loc: NDArray[Any],
        scale: NDArray[Any],
    ) -> str:
        """Name in the posterior; a layer that is called twice has one entry."""
        key = structure(self._uncut, fed)
        name = self._name_of.get(key)
        if name is None:
            name = self._new_name(fed)
            self._name_of[key] = name
            self.loc[name], self.scale[name] = loc, scale
            node = _unused(f"bprune_loc/{len(self.placeholders)}", self._nodes)
            self.placeholders[name] = node
            self._nodes[node] = placeholder_node(node, self._type_of(name), loc.shape)
        elif not np.array_equal(self.scale[name], scale, equal_nan=True):
            raise GraphError(
                f"{self._label}: '{name}' is perturbed with two different scales; not one posterior"
            )
        elif site.noise not in self._loc_of_noise:
            raise GraphError(
                f"{self._label}: '{name}' is drawn anew each time that it is used (see "
                f"'{site.total[0]}'), and a sweep draws each weight once; call each Bayesian layer "
                "once, and leave averages over passes to the sweep"
            )
        if self._loc_of_noise.setdefault(site.noise, name) != name:
            raise GraphError(
                f"{self._label}: noise '{site.noise}' perturbs both "
                f"'{self._loc_of_noise[site.noise]}' and '{name}'; not mean-field"
            )
        return name

    def _new_name(self, fed: Tensor) -> str:
        if fed[0] in self._variables:
            return self._variables[fed[0]]
        behind = [n for n in ancestors(self._uncut, [fed]) if n in self._variables]
        suffix = fed[0].rpartition("/")[2] + (f"_{fed[1]}" if fed[1] else "")
        return _unused(f"{self._variables[behind[0]]}/{suffix}", self.loc)

    def _type_of(self, name: str) -> int:
        return _FLOAT64 if self.loc[name].dtype == np.float64 else _FLOAT32

    def _typed_weight(self, name: str, dtype: int, site: NoiseSite) -> Tensor:
        weight, given = (self.placeholders[name], 0), self._type_of(name)
        if dtype == given:
            return weight
        node = _unused(f"{site.total[0]}/weight", self._nodes)
        self._nodes[node] = typed_node(node, "Cast", [weight], SrcT=given, DstT=dtype)
        return node, 0

    def _replace_by_reshape(self, site: NoiseSite, weight: Tensor, shape: tuple[int, ...]) -> None:
        total = site.total[0]
        dtype = self._evaluate.static_type(site.total).dtype_enum
        size = _unused(f"{total}/shape", self._nodes)
        self._nodes[size] = constant_node(size, np.array(shape, np.int32))
        index = self._nodes[size].attr["dtype"].type
        self._nodes[total] = typed_node(
            total, "Reshape", [weight, (size, 0)], T=dtype, Tshape=index
        )

    def _clone(self, tensor: Tensor, fed: Tensor, weight: Tensor, site: NoiseSite) -> Tensor:
        """Copy of the chain that leads from the weight through the product to the mean."""
        if tensor == fed:
            return weight
        node = self._nodes[tensor[0]]
        position = 0
        if node.name == site.product:
            position = node.inputs.index(site.loc)
        inputs = list(node.inputs)
        inputs[position] = self._clone(inputs[position], fed, weight, site)
        name = _unused(f"{site.total[0]}/{node.name.rpartition('/')[2]}", self._nodes)
        self._nodes[name] = Node(name, node.op, inputs, attr=node.attr)
        return name, tensor[1]

    def _replace_by_mean(self, site: NoiseSite, mean: Tensor) -> None:
        total = site.total[0]
        dtype = self._evaluate.static_type(site.total).dtype_enum
        whole = self._evaluate.static_type(site.total).shape
        part = self._evaluate.static_type(site.mean).shape
        n_extra = len(whole) - len(part) if whole is not None and part is not None else 0
        if n_extra and whole is not None and any(size != 1 for size in whole[:n_extra]):
            raise GraphError(
                f"{self._label}: '{total}' has shape {whole}, its mean {part}; several samples in "
                "one call cannot be lifted"
            )
        for _ in range(n_extra):
            axis = _unused(f"{total}/axis", self._nodes)
            self._nodes[axis] = constant_node(axis, np.int32(0))
            index = self._nodes[axis].attr["dtype"].type
            name = _unused(f"{total}/expanded", self._nodes)
            self._nodes[name] = typed_node(
                name, "ExpandDims", [mean, (axis, 0)], T=dtype, Tdim=index
            )
            mean = name, 0
        self._nodes[total] = typed_node(total, "Identity", [mean], T=dtype)


def _agree(found: NDArray[Any], at_one: NDArray[Any], factor: float, rtol: float) -> bool:
    """Whether ``found`` is ``factor * at_one`` where that is finite; in blocks, to save memory."""
    if found.shape != at_one.shape:
        return False
    found, at_one = found.reshape(-1), at_one.reshape(-1)
    for start in range(0, at_one.size, _BLOCK):
        part = at_one[start : start + _BLOCK]
        finite = np.isfinite(part)
        expected = factor * part[finite]
        if not np.allclose(found[start : start + _BLOCK][finite], expected, rtol=rtol, atol=0):
            return False
    return True


def _is_repeated(values: NDArray[Any], n_axes: int) -> bool:
    """Whether values are the same along all of their first axes."""
    one = values[(0,) * n_axes]
    return bool((values == one).all())


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _unused(name: str, taken: Any) -> str:
    number, unused = 0, name
    while unused in taken:
        number += 1
        unused = f"{name}_{number}"
    return unused
