"""A bundle's own network: what predicts from its files, with NumPy alone.

``formats.single_file`` makes a bundle's ``predict.py`` of this module and of what it takes from
others, so that it may import nothing but NumPy (and SciPy where that is there). What belongs here:
reading ``network.json`` and ``weights.npz``, and predicting. What does not: writing them
(``formats.bundle``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.fitting import NetworkInput, fit
from ..errors import BpruneError, ConfigError, DataError
from ..evaluators.draw_noise import DRAW_NOISES, blocks_of
from ..graph.layer_graph import (
    Activation,
    Add,
    Bias,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Multiply,
    Padding,
    Pooling,
    Reshape,
    Scale,
    Transpose,
)
from ..graph.layer_ops import apply
from ..metrics.tasks import class_logits
from ..posterior.draws import (
    block_key,
    draws_per_replicate,
    example_key,
    in_whole_replicates,
    replicates_of,
    standard_normal,
)
from ..posterior.normals import plain_normals_at, plain_normals_of
from ..runner.datasets import TEST_SET
from ..runner.prediction import NormalPredictive, Predictive
from .forward import AnyLayers, DenseChain, Matrices, forward

FORMAT = "bprune-hpc-bundle/1"
OPERATIONS = {
    operation.__name__: operation
    for operation in (
        Activation, Add, Bias, Concatenation, Convolution, Dense, Multiply, Padding, Pooling,
        Reshape, Scale, Transpose,
    )
}  # fmt: skip


def load(directory: str | Path | None = None) -> PortableNetwork:
    """The network of a bundle.

    Parameters
    ----------
    directory : path, optional
        Without, the one that this file is in.

    Returns
    -------
    PortableNetwork
    """
    home = Path(__file__).resolve().parent if directory is None else Path(directory)
    described = json.loads((home / "network.json").read_text())
    if described["format"] != FORMAT:
        raise DataError(f"{home}: its format is '{described['format']}', this reads '{FORMAT}'")
    with np.load(home / "weights.npz") as arrays:
        tensors = {
            name: PackedTensor.read(of_tensor, arrays)
            for name, of_tensor in described["tensors"].items()
        }
    return PortableNetwork(
        input=NetworkInput(**_with_tuples(described["input"])),
        layers=layers_from(described),
        inputs=None if described["inputs"] is None else np.array(described["inputs"]),
        tensors=tensors,
        task=described["task"],
        input_scale=described["input_scale"],
        layout=described["layout"],
        class_names=described["class_names"],
        largest=described["largest"],
        noise=PortableNoise(**described["draw_noise"]),
        is_by_example=described["is_by_example"],
    )


def layers_from(described: Mapping[str, Any]) -> LayerGraph:
    """The graph of layers of a ``network.json``."""
    found = []
    for node in described["nodes"]:
        fields = _with_tuples({key: node[key] for key in node.keys() - {"operation", "inputs"}})
        found.append(LayerNode(OPERATIONS[node["operation"]](**fields), tuple(node["inputs"])))
    return LayerGraph(tuple(found), tuple(described["input_shape"]))


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    def of(value: Any) -> Any:
        return tuple(map(of, value)) if isinstance(value, list) else value

    return {name: of(value) for name, value in fields.items()}


@dataclass(frozen=True)
class PortableNoise:
    """Which examples share the noise of a draw.

    Attributes
    ----------
    kind : {"shared", "per_block", "per_example"}
    block : int
        Examples that share it, where it is by block.
    first_example : int
        Position of the first example in its data set.
    """

    kind: str = "shared"
    block: int = 0
    first_example: int = 0

    def parts(self, n_examples: int, batch_size: int) -> Iterator[tuple[range, slice]]:
        """Positions, and examples, of which each part is drawn alike."""
        first, n_together = self.first_example, {"per_block": self.block, "per_example": batch_size}
        whole = range(first, first + n_examples)
        parts = blocks_of(whole, n_together[self.kind]) if self.kind in n_together else [whole]
        for part in parts:
            yield part, slice(part.start - first, part.stop - first)


@dataclass(frozen=True)
class PackedTensor:
    """Weights of a tensor that are left, as means and deviations.

    Attributes
    ----------
    name : str
        Of the tensor, as it has standard normals.
    shape : tuple of int
        Of what is left of the tensor: some indices along each axis.
    loc : float32 array, shape (n_left,)
    scale : float32 array, shape (n_left,), or None
        None for weights that are fixed.
    places : int array, shape (n_left,), or None
        Where in ``shape`` the weights are, all others being zero; None for everywhere.
    full_shape : tuple of int
        Of the whole tensor, for its standard normals.
    axes : tuple of (int array or None)
        Which indices along each axis of the whole tensor are left; None for all.
    """

    name: str
    shape: tuple[int, ...]
    loc: NDArray[np.float32]
    scale: NDArray[np.float32] | None
    places: NDArray[np.intp] | None
    full_shape: tuple[int, ...]
    axes: tuple[NDArray[np.intp] | None, ...]

    @classmethod
    def read(cls, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> PackedTensor:
        """From its entry in ``network.json``, and all arrays."""
        key, shape = described["key"], tuple(described["shape"])
        places = None
        if f"{key}/indptr" in arrays:  # compressed sparse rows
            counts = np.diff(arrays[f"{key}/indptr"].astype(np.intp))
            rows = np.repeat(np.arange(len(counts)), counts)
            places = rows * shape[-1] + arrays[f"{key}/indices"].astype(np.intp)
        return cls(
            described["name"],
            shape,
            _in_float32(arrays, f"{key}/loc"),
            _in_float32(arrays, f"{key}/scale") if f"{key}/scale" in arrays else None,
            places,
            tuple(described["full_shape"]),
            tuple(
                arrays[f"{key}/axis{axis}"].astype(np.intp) if is_some else None
                for axis, is_some in enumerate(described["is_part"])
            ),
        )

    @property
    def n_left(self) -> int:
        """Weights that are not zero."""
        is_left = self.loc != 0
        return int(np.count_nonzero(is_left if self.scale is None else is_left | (self.scale != 0)))

    @cached_property
    def full_places(self) -> NDArray[np.intp]:
        """Where in the whole tensor the weights are."""
        places = np.arange(self.loc.size) if self.places is None else self.places
        index = np.unravel_index(places, self.shape)
        return np.ravel_multi_index(
            [i if axis is None else axis[i] for i, axis in zip(index, self.axes, strict=True)],
            self.full_shape,
        )

    def dense(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of the weights that are left in the tensor's shape, zeros elsewhere."""
        if self.places is None:
            return values.reshape(self.shape)
        out = np.zeros(math.prod(self.shape), np.float32)
        out[self.places] = values
        return out.reshape(self.shape)


def _in_float32(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """Numbers that may be float16, or bfloat16 (its bits as uint16); NaN for one kept exactly."""
    values = arrays[name]
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values = values.astype(np.float32)
    if f"{name}_exact" in arrays:
        values[np.isnan(values)] = arrays[f"{name}_exact"]
    return values


@dataclass(frozen=True, repr=False)
class PortableNetwork:
    """A pruned Bayesian network.

    Attributes
    ----------
    input : NetworkInput
        What it was trained on: examples are reshaped and cast to that.
    layers : LayerGraph
        Its operations on what is left.
    inputs : int array or None
        Numbers of an example that it depends on; None for all, in the shape of ``input``.
    tensors : mapping of str to PackedTensor
    task : mapping
        ``name``, and what outputs are.
    input_scale, layout
        As :meth:`predict` takes them, where they are not given.
    class_names : list of str or None
    largest : int
        Numbers of an example's largest tensor.
    noise : PortableNoise
        That of :meth:`predict`, where it is not given: as in the sweep.
    is_by_example : bool
        Whether each example can have noise of its own: layers are dense, one after the other.
    """

    input: NetworkInput
    layers: LayerGraph
    inputs: NDArray[np.intp] | None
    tensors: Mapping[str, PackedTensor]
    task: Mapping[str, Any]
    input_scale: str = "auto"
    layout: str | None = None
    class_names: Sequence[str] | None = None
    largest: int = 1
    noise: PortableNoise = PortableNoise()
    is_by_example: bool = False

    def mean(
        self,
        x: ArrayLike,
        batch_size: int = 500,
        *,
        input_scale: str | float | None = None,
        layout: str | None = None,
    ) -> NDArray[np.float32]:
        """Outputs at the posterior mean.

        Parameters
        ----------
        x : array of real numbers, shape (n_examples, ...)
        batch_size : int
            Examples evaluated at once.
        input_scale, layout
            See :meth:`predict`.

        Returns
        -------
        float32 array, shape (n_examples, n_classes) or (n_examples, n_outputs)
            Logits; of a regression the mean of each target, and after them their standard
            deviations where the network gives them.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size} is below 1")
        examples = self._examples(x, input_scale, layout)
        return self._shown(self._outputs(examples, self._prepared_mean, batch_size))

    def sample(
        self,
        x: ArrayLike,
        seed: int = 0,
        n_draws: int = 1,
        pairing: str = "antithetic",
        batch_size: int = 500,
        *,
        input_scale: str | float | None = None,
        layout: str | None = None,
    ) -> NDArray[np.float32]:
        """Outputs under each of some draws of the weights, which all examples share.

        They are the first draws of a sweep with ``--draw_noise=shared``.

        Parameters
        ----------
        x, input_scale, layout
            See :meth:`predict`.
        seed : int
            In [0, 2**64).
        n_draws : int
            An odd one leaves out the other half of the last antithetic pair.
        pairing : {"antithetic", "none"}
        batch_size : int

        Returns
        -------
        float32 array, shape (n_draws, n_examples, n_classes or n_outputs)
            See :meth:`mean`.
        """
        examples = self._examples(x, input_scale, layout)
        outputs = self._of_draws(examples, seed, n_draws, pairing, 1, batch_size)
        found = [self._shown(of_draw) for of_draw, _ in zip(outputs, range(n_draws), strict=False)]
        return np.stack(found)

    def predict(
        self,
        x: ArrayLike,
        n_draws: int = 200,
        seed: int = 0,
        pairing: str = "antithetic",
        batch_size: int = 500,
        y: ArrayLike | None = None,
        *,
        input_scale: str | float | None = None,
        layout: str | None = None,
        draw_noise: str | None = None,
        noise_block: int | None = None,
        first_example: int = 0,
    ) -> Predictive | NormalPredictive:
        """The predictive distribution of examples, averaged over draws from the posterior.

        Parameters
        ----------
        x : array of real numbers, shape (n_examples, ...)
            Examples; reshaped where only the axes differ.
        n_draws : int
            Rounded up to what is taken together: two for antithetic pairs, four in a regression.
        seed : int
            In [0, 2**64); decides every draw.
        pairing : {"antithetic", "none"}
            Whether draws come in pairs with opposite noise.
        batch_size : int
            Examples evaluated at once.
        y : array, shape (n_examples,), optional
            Class numbers or targets whose log-probability or log-density is wanted; of several
            targets, (n_examples, n_targets).
        input_scale : str or float
            What examples are multiplied by: ``none``, or a factor such as 0.5 or ``"1/255"``;
            ``auto``: bytes (uint8) by 1/255 unless the network takes integers or scales them
            itself, all else as it is. Without, as when the network was exported.
        layout : {"channels_last", "channels_first"}, optional
            Where the examples have their channels, if that is not clear.
        draw_noise : {"shared", "per_block", "per_example"}, optional
            Which examples share the noise of a draw. Without, as in the sweep.
        noise_block : int, optional
            Examples that share it, for ``per_block``.
        first_example : int
            Position of the first example in its data set, of which noise that is not shared is a
            function.

        Returns
        -------
        Predictive or NormalPredictive
            Of a classification, or of a regression.

        Raises
        ------
        DataError
            If examples or labels do not fit the network or are not finite.
        ConfigError
            If a number is out of its range.
        BpruneError
            If an output is not finite.
        """
        examples = self._examples(x, input_scale, layout)
        is_classification = self.task["name"] == "classification"
        together = 1 if is_classification else 2
        if pairing in _PAIRINGS and n_draws >= 1:
            n_draws = in_whole_replicates(n_draws, draws_per_replicate(pairing, together))
        noise = self._noise(draw_noise, noise_block, first_example, len(examples))
        outputs = self._of_draws(examples, seed, n_draws, pairing, together, batch_size, noise)
        chosen = {"n_draws": n_draws, "seed": seed, "pairing": pairing}
        if is_classification:
            return self._classes(outputs, len(examples), y, chosen)
        return self._normals(outputs, len(examples), y, chosen)

    def __repr__(self) -> str:
        left = [of.n_left for of in self.tensors.values() if of.scale is not None]
        whole = [math.prod(of.full_shape) for of in self.tensors.values() if of.scale is not None]
        return (
            f"<PortableNetwork: {sum(left):,} of {sum(whole):,} weights with a posterior left; "
            f"{self.task['name']}>"
        )

    def _examples(
        self,
        x: ArrayLike,
        input_scale: str | float | None,
        layout: str | None,
    ) -> NDArray[Any]:
        """Examples in the network's shape and type."""
        try:
            examples = np.asarray(x)
        except ValueError as error:
            raise DataError(f"x: is not an array ({error}); give (n_examples, ...)") from error
        if examples.ndim == 0 or not examples.size:
            raise DataError(f"x: shape {examples.shape} holds no examples; give (n_examples, ...)")
        if np.ma.is_masked(x):
            raise DataError("x: has masked values, which are no numbers; drop these examples")
        scale = self.input_scale if input_scale is None else str(input_scale)
        try:
            return fit(
                examples, self.input, input_scale=scale, layout=layout or self.layout,
                with_warnings=False,
            ).x  # fmt: skip
        except DataError as error:
            raise DataError(f"x: {str(error).replace('--', '')}") from None

    @cached_property
    def _forward(self) -> DenseChain | AnyLayers:
        return forward(self.layers, self.inputs, self.largest)

    @cached_property
    def _free(self) -> list[Matrices]:
        """Memory of calls that have ended."""
        return []

    @cached_property
    def _at_mean(self) -> dict[str, NDArray[np.float32]]:
        return {name: tensor.dense(tensor.loc) for name, tensor in self.tensors.items()}

    @cached_property
    def _prepared_mean(self) -> Any:
        return self._forward.prepared(self._at_mean)

    def _noise(
        self, kind: str | None, block: int | None, first_example: int, n_examples: int
    ) -> PortableNoise:
        """The noise that was asked for."""
        if block is not None:
            kind = kind or "per_block"
        kind, block = kind or self.noise.kind, block or self.noise.block
        if kind not in DRAW_NOISES:
            raise ConfigError(f"draw_noise: '{kind}' is none of {', '.join(DRAW_NOISES)}")
        if kind == "per_example" and not self.is_by_example:
            raise ConfigError(
                "draw_noise: per_example is for dense layers one after the other, whose weights "
                "are used once for an example; give per_block"
            )
        if kind == "per_block" and block < 1:
            raise ConfigError("noise_block: give how many examples share their noise, 1 or more")
        if not 0 <= first_example <= 2**32 - n_examples:
            raise ConfigError(f"first_example: {first_example} is not in 0 to 2**32 - {n_examples}")
        return PortableNoise(kind, block, first_example)

    def _of_draws(
        self,
        examples: NDArray[Any],
        seed: int,
        n_draws: int,
        pairing: str,
        together: int,
        batch_size: int,
        noise: PortableNoise | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """Outputs under each draw, one draw after the other."""
        if pairing not in _PAIRINGS:
            raise ConfigError(f"pairing: '{pairing}' is none of {', '.join(_PAIRINGS)}")
        if n_draws < 1:
            raise ConfigError(f"n_draws: {n_draws} is below 1")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed: {seed} is not in 0 to 2**64 - 1")
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size} is below 1")
        noise = noise or PortableNoise()
        whole = in_whole_replicates(n_draws, draws_per_replicate(pairing, together))
        replicates = replicates_of(whole, pairing, together)
        draws = [draw for replicate in replicates for draw in replicate]
        for index, group in groupby(draws, key=lambda draw: draw.noise):
            signs = [np.float32(draw.sign) for draw in group]
            parts = [
                list(self._drawn(examples[rows], seed, index, signs, batch_size, noise, positions))
                for positions, rows in noise.parts(len(examples), batch_size)
            ]
            yield from (np.concatenate(of_draw) for of_draw in zip(*parts, strict=True))

    def _drawn(
        self,
        examples: NDArray[Any],
        seed: int,
        index: int,
        signs: Sequence[np.float32],
        batch_size: int,
        noise: PortableNoise,
        positions: range,
    ) -> Iterator[NDArray[np.float32]]:
        """Outputs of examples that are drawn alike, under the noise of that index and each sign."""
        if noise.kind == "per_example":
            units = {
                name: plain_normals_at(example_key(seed, TEST_SET, name), index, positions, left).T
                for name, left in self._drawn_units.values()
            }
            yield from (_checked(self._by_example(examples, sign, units)) for sign in signs)
            return
        deviations = {}
        for name, tensor in self.tensors.items():
            if tensor.scale is not None:
                shape = tensor.full_shape
                if noise.kind == "shared":
                    of_tensor = standard_normal(seed, tensor.name, index, shape).reshape(-1)
                else:
                    key, block = block_key(seed, TEST_SET, tensor.name), positions[0] // noise.block
                    of_tensor = plain_normals_of(key, index, block, math.prod(shape))
                deviations[name] = tensor.scale * of_tensor[tensor.full_places]
        for sign in signs:
            weights = dict(self._at_mean)
            for name, deviation in deviations.items():
                tensor = self.tensors[name]
                weights[name] = tensor.dense(tensor.loc + sign * deviation)
            yield self._outputs(examples, self._forward.prepared(weights), batch_size)

    @cached_property
    def _variances(self) -> dict[str, NDArray[np.float32]]:
        """Of all weights that have any."""
        return {
            name: np.square(tensor.dense(tensor.scale))
            for name, tensor in self.tensors.items()
            if tensor.scale is not None
        }

    @cached_property
    def _drawn_units(self) -> dict[str, tuple[str, NDArray[np.int32]]]:
        """By kernel: the tensor whose normals its units have, and which units of it are left."""
        found = {}
        for node, after in zip(self.layers.nodes, [*self.layers.nodes[1:], None], strict=True):
            if isinstance(node.operation, Dense):
                kernel = self.tensors[node.operation.kernel]
                names = [kernel.name] if kernel.scale is not None else []
                if after is not None and isinstance(after.operation, Bias):
                    bias = self.tensors[after.operation.name]
                    names += [bias.name] if bias.scale is not None else []
                left = kernel.axes[-1]
                units = np.arange(kernel.shape[-1]) if left is None else left
                if names:
                    found[node.operation.kernel] = names[0], units.astype(np.int32)
        return found

    def _by_example(
        self, x: NDArray[Any], sign: np.float32, normals: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Outputs where each unit of each example is drawn (Kingma, Salimans and Welling 2015)."""
        operations = [node.operation for node in self.layers.nodes]
        x, nothing = x.reshape(len(x), -1), np.zeros(1, np.float32)
        if self.inputs is not None:
            x = np.take(x, self.inputs, axis=1)
        x = x.astype(np.float32, copy=False).reshape(len(x), *self.layers.input_shape)
        variance, of_units = nothing, None
        for one, after in zip(operations, [*operations[1:], None], strict=True):
            given, x = x, apply(one, [x], self._at_mean)
            if isinstance(one, Dense) and one.kernel in self._drawn_units:
                of_units, variance = normals[self._drawn_units[one.kernel][0]], nothing
                if one.kernel in self._variances:
                    variance = np.square(given) @ self._variances[one.kernel]
            elif isinstance(one, Bias) and of_units is not None and one.name in self._variances:
                variance = variance + self._variances[one.name]
            if of_units is not None and not isinstance(after, Bias):
                x = x + sign * np.sqrt(variance) * of_units
                of_units = None
        return x

    def _outputs(
        self, examples: NDArray[Any], weights: Any, batch_size: int
    ) -> NDArray[np.float32]:
        layers = self._forward
        try:
            memory = self._free.pop()
        except IndexError:  # the first call, or another thread has it
            memory = layers.memory(weights)
        step = min(batch_size, layers.most_rows)
        parts = [
            layers.run(layers.rows(examples[at : at + step], memory), weights, memory)
            for at in range(0, len(examples), step)
        ]
        self._free.append(memory)
        return _checked(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _shown(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.task["name"] != "classification":
            return outputs
        return self._logits(outputs)

    def _logits(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        kind, is_binary = self.task["output_kind"], self.task["is_binary"]
        logits = class_logits(outputs.T[None], kind, is_binary)[0]
        return np.ascontiguousarray(logits.T)

    def _classes(
        self,
        outputs: Iterator[NDArray[np.float32]],
        n_examples: int,
        y: ArrayLike | None,
        chosen: Mapping[str, Any],
    ) -> Predictive:
        n_classes = self.task["n_classes"]
        label = None if y is None else _class_numbers(y, n_examples, n_classes)
        total = np.zeros((n_examples, n_classes))
        entropy = np.zeros(n_examples)
        of_label = np.full(n_examples, -np.inf)
        for of_draw in outputs:
            shifted = self._logits(of_draw).astype(np.float64)
            shifted -= shifted.max(axis=1, keepdims=True)
            probability = np.exp(shifted)
            normalizer = probability.sum(axis=1, keepdims=True)
            probability /= normalizer
            log = shifted - np.log(normalizer)
            total += probability
            entropy -= (probability * log).sum(axis=1)
            if label is not None:
                of_label = np.logaddexp(of_label, log[np.arange(n_examples), label])
        n_draws = chosen["n_draws"]
        mean, expected = total / n_draws, np.maximum(entropy / n_draws, 0.0)
        predictive = -(mean * np.log(np.where(mean > 0, mean, 1.0))).sum(axis=1)
        return Predictive(
            mean_probability=mean.astype(np.float32),
            predictive_entropy=predictive,
            expected_entropy=expected,
            mutual_information=predictive - expected,
            log_probability=None if label is None else of_label - math.log(n_draws),
            **chosen,
        )

    def _normals(
        self,
        outputs: Iterator[NDArray[np.float32]],
        n_examples: int,
        y: ArrayLike | None,
        chosen: Mapping[str, Any],
    ) -> NormalPredictive:
        n_targets = self.task["n_targets"]
        target = None if y is None else _targets(y, n_examples, n_targets)
        loc, scale = [], []
        for of_draw in outputs:
            numbers = of_draw.astype(np.float64)
            loc.append(numbers[:, :n_targets])
            given = self.task["noise_scale"]
            deviation = numbers[:, n_targets:] if given is None else np.full(loc[-1].shape, given)
            if not (deviation > 0).all():
                raise BpruneError("a standard deviation that the network gives is not positive")
            scale.append(deviation)
        locs, scales = np.stack(loc), np.stack(scale)
        log_density = None
        if target is not None:
            ratio = (locs - target) / scales
            of_draws = -0.5 * ratio**2 - np.log(scales) - 0.5 * math.log(2 * math.pi)
            summed = np.logaddexp.reduce(of_draws.sum(axis=2), axis=0)
            log_density = summed - math.log(chosen["n_draws"])
        of_mean, aleatoric = locs.var(axis=0), (scales**2).mean(axis=0)
        shape = (n_examples,) if n_targets == 1 else (n_examples, n_targets)
        return NormalPredictive(
            predictive_mean=locs.mean(axis=0).reshape(shape),
            predictive_sd=np.sqrt(of_mean + aleatoric).reshape(shape),
            epistemic_variance=of_mean.reshape(shape),
            aleatoric_variance=aleatoric.reshape(shape),
            log_density=log_density,
            **chosen,
        )


def _checked(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs in one row for each example."""
    outputs = outputs.reshape(len(outputs), -1)
    if not np.isfinite(outputs).all():
        raise BpruneError("outputs are not finite; check the scale of examples")
    return outputs


_PAIRINGS = ("antithetic", "none")


def _class_numbers(y: ArrayLike, n_examples: int, n_classes: int) -> NDArray[np.intp]:
    label = np.asarray(y)
    if label.dtype.kind not in "iu" or label.shape != (n_examples,):
        raise DataError(f"y: give {n_examples} class numbers, one for each example")
    if label.size and not 0 <= label.min() <= label.max() < n_classes:
        raise DataError(f"y: class numbers are 0 to {n_classes - 1}")
    return label.astype(np.intp)


def _targets(y: ArrayLike, n_examples: int, n_targets: int) -> NDArray[np.float64]:
    target = np.asarray(y, np.float64)
    if target.shape == (n_examples,) and n_targets == 1:
        target = target[:, None]
    if target.shape != (n_examples, n_targets):
        raise DataError(f"y: give {n_targets} targets for each of {n_examples} examples")
    return target
