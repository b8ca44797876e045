"""Random networks of every operation that a graph of layers has, as graphs of TensorFlow.

A number decides a network: branches, windows, strides, paddings, activations, what has a posterior
and what has not, and which of its weights are exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bprune_hpc.graph.layer_search import find_layers
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.graph.nodes import parse_graph, parse_tensor
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.tensorflow_import import import_tensorflow

ACTIVATIONS = ("relu", "relu", "relu", "relu6", "tanh", "sigmoid", "elu", "selu", "softplus",
               "softsign", "leaky_relu", "swish", "gelu", "gelu_tanh")  # fmt: skip
INPUTS = ((9, 9, 2), (8, 6, 1), (7, 7, 3), (11, 3), (12,))
WIDE_INPUTS = ((14, 13, 3), (9, 20, 8), (12, 12, 1))
DENSITIES = (0.0, 0.1, 0.5, 0.9, 1.0)


@dataclass
class Weights:
    """Values of a network's weights.

    Attributes
    ----------
    loc, scale : dict of str to float32 array
        Of those with a posterior, as they were trained.
    fixed : dict of str to float32 array
        Of the others.
    is_kept : dict of str to bool array
        Which ones pruning leaves.
    """

    loc: dict[str, np.ndarray] = field(default_factory=dict)
    scale: dict[str, np.ndarray] = field(default_factory=dict)
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    is_kept: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def posterior(self) -> Posterior:
        """Of all weights."""
        return Posterior(self.loc, self.scale)

    @property
    def pruned(self) -> Posterior:
        """Of those that are left; the others are exactly zero."""

        def left(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {
                name: np.where(self.is_kept[name], value, np.float32(0))
                for name, value in values.items()
            }

        return Posterior(left(self.loc), left(self.scale))


@dataclass
class Network:
    """A random network.

    Attributes
    ----------
    graph : LiftedGraph
    weights : Weights
    x : float32 array
        A few examples.
    operations : list of str
        What it was made of.
    """

    graph: LiftedGraph
    weights: Weights
    x: np.ndarray
    operations: list[str]


def random_network(
    seed: int, n_operations: int = 6, n_examples: int = 3, is_wide: bool = False
) -> Network:
    """The network of a number; a wide one has convolutions of many channels, most of 3 x 3 taps."""
    tensorflow = import_tensorflow()
    rng = np.random.default_rng([5, seed])
    inputs = WIDE_INPUTS if is_wide else INPUTS
    shape = inputs[rng.integers(len(inputs))]
    with tensorflow.Graph().as_default() as graph:
        x = tensorflow.compat.v1.placeholder(tensorflow.float32, (None, *shape), name="x")
        builder = (_WideBuilder if is_wide else _Builder)(tensorflow, rng)
        output = tensorflow.identity(builder.network(x, n_operations), name="logits")
        graph_def = graph.as_graph_def()
    weights = builder.weights
    layers = find_layers(
        graph_def, parse_graph(graph_def), parse_tensor("x:0"), parse_tensor("logits:0"),
        {name: name for name in (*weights.loc, *weights.fixed)}, weights.fixed,
    )  # fmt: skip
    lifted = LiftedGraph(
        graph_def=graph_def.SerializeToString(), input_tensor="x:0", input_shape=(None, *shape),
        input_dtype="float32", output_tensor="logits:0",
        output_shape=tuple(output.shape.as_list()),
        loc_tensors={name: f"{name}:0" for name in weights.loc},
        fixed_tensors={name: f"{name}:0" for name in weights.fixed}, layers=layers,
    )  # fmt: skip
    examples = rng.normal(size=(n_examples, *shape)).astype(np.float32)
    return Network(lifted, weights, examples, builder.operations)


class _Builder:
    def __init__(self, tensorflow: Any, rng: np.random.Generator) -> None:
        self.tf, self.rng = tensorflow, rng
        self.weights = Weights()
        self.operations: list[str] = []
        self.density = DENSITIES[rng.integers(len(DENSITIES))]

    def network(self, x: Any, n_operations: int) -> Any:
        """Operations on images or vectors, and dense layers."""
        tf, rng = self.tf, self.rng
        if len(x.shape) == 2 and rng.random() < 0.5:
            x = tf.reshape(x, (-1, 3, 4, 1))
        if rng.random() < 0.3:
            x = self.affine(x)
        for _ in range(int(rng.integers(n_operations + 1)) if len(x.shape) > 2 else 0):
            kind = ("block", "block", "residual", "concatenated", "gated", "pooled", "padded",
                    "affine", "channels_first", "at_places")[rng.integers(10)]  # fmt: skip
            self.operations.append(kind)
            x = getattr(self, kind)(x)
        if len(x.shape) > 2:
            axes = list(range(1, len(x.shape) - 1))
            kind = ("flat", "mean", "max")[rng.integers(3)]
            self.operations.append(kind)
            reduced = {"mean": tf.reduce_mean, "max": tf.reduce_max}
            if kind != "flat":
                x = reduced[kind](x, axes, keepdims=bool(rng.integers(2)))
            x = tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))
        for _ in range(int(rng.integers(3))):
            x = self.activated(self.biased(x @ self.weight((x.shape[-1], 5))))
            x = self.affine(x) if rng.random() < 0.3 else x
        return self.biased(x @ self.weight((x.shape[-1], 3)))

    def weight(self, shape: tuple[int, ...], is_fixed: bool = False, positive: bool = False) -> Any:
        """Weights, some of which are pruned."""
        rng, name = self.rng, f"w{len(self.weights.loc) + len(self.weights.fixed)}"
        value = rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        value = (np.abs(value) + 0.1 if positive else value).astype(np.float32)
        if is_fixed or rng.random() < 0.2:
            if not positive and rng.random() < 0.2:
                value *= rng.random(shape) < 0.5
            self.weights.fixed[name] = value
        else:
            self.weights.loc[name] = value
            self.weights.scale[name] = np.abs(rng.normal(size=shape) / 9).astype(np.float32) + 0.01
            kept = rng.random(shape) < self.density
            kept &= rng.random(shape[-1]) >= rng.choice([0, 0.3, 0.7])  # whole filters, or biases
            if len(shape) > 1:
                kept &= (rng.random(shape[-2]) >= rng.choice([0, 0, 0.4]))[:, None]
            self.weights.is_kept[name] = kept
        return self.tf.compat.v1.placeholder(self.tf.float32, shape, name=name)

    def biased(self, x: Any) -> Any:
        if self.rng.random() < 0.3:
            return x
        bias = self.weight((x.shape[-1],), is_fixed=bool(self.rng.random() < 0.5))
        return self.tf.nn.bias_add(x, bias) if self.rng.random() < 0.5 else x + bias

    def activated(self, x: Any) -> Any:
        kind = ACTIVATIONS[self.rng.integers(len(ACTIVATIONS))]
        if kind == "tanh" and "FusedBatchNorm" in x.op.type:
            kind = "sigmoid"  # TensorFlow 2.18 fuses the two, and cannot run what it has fused
        self.operations.append(kind)
        if kind.startswith("gelu"):
            return self.tf.nn.gelu(x, approximate=kind == "gelu_tanh")
        return getattr(self.tf.nn, kind)(x)

    def affine(self, x: Any) -> Any:
        """Batch normalization in one operation or in many, or constants' arithmetic."""
        tf, n = self.tf, x.shape[-1]
        kind = self.rng.integers(4 if len(x.shape) == 4 else 3)
        self.operations.append(f"affine {kind}")
        if kind == 2:
            return 2 - (x - 0.25) / 0.5
        scale, shift, mean = (self.weight((n,), is_fixed=True) for _ in range(3))
        variance = self.weight((n,), is_fixed=True, positive=True)
        if kind == 0:
            factor = tf.math.rsqrt(variance + 0.1) * scale
            return x * factor + (shift - mean * factor)
        if kind == 1:
            return tf.nn.batch_normalization(x, mean, variance, shift, scale, 0.1)
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=shift, mean=mean, variance=variance, epsilon=0.1,
            is_training=False,
        ).y  # fmt: skip

    def convolved(self, x: Any, n_out: int, keeps_size: bool = False) -> Any:
        tf, rng = self.tf, self.rng
        n_in = int(x.shape[-1])
        if len(x.shape) == 3:
            window, stride = int(rng.integers(1, 4)), 1 if keeps_size else int(rng.integers(1, 3))
            return tf.nn.conv1d(x, self.weight((window, n_in, n_out)), stride, "SAME")
        window = [int(size) for size in rng.integers(1, 4, 2)]
        strides = [1, 1] if keeps_size else [int(size) for size in rng.integers(1, 3, 2)]
        if (
            n_in == 1
        ):  # zeros in oneDNN (2.18) where columns alone have a stride and windows are wide
            strides[0] = strides[1]
        dilations = [int(size) for size in rng.choice([1, 1, 2], 2)]
        reach = [(size - 1) * each + 1 for size, each in zip(window, dilations, strict=True)]
        padding: Any = "SAME"
        if not keeps_size and min(np.array(x.shape[1:3]) - reach) >= 0:
            borders = [[int(n) for n in rng.integers(0, 3, 2)] for _ in range(2)]
            choices: list[Any] = ["SAME", "VALID", [[0, 0], *borders, [0, 0]]]
            padding = choices[rng.integers(3)]
        self.operations.append(f"{window} {strides} {dilations} {padding}")
        if n_out == n_in and rng.random() < 0.3 and padding in ("SAME", "VALID"):
            # TensorFlow has the same stride both ways here, and dilations without strides.
            stride = strides[0] if dilations == [1, 1] else 1
            kernel = self.weight((*window, n_in, 1))
            return tf.nn.depthwise_conv2d(
                x, kernel, (1, stride, stride, 1), padding, dilations=dilations
            )
        groups = 2 if n_in % 2 == n_out % 2 == 0 and rng.random() < 0.3 else 1
        kernel = self.weight((*window, n_in // groups, n_out))
        return tf.nn.conv2d(x, kernel, strides, padding, dilations=dilations)

    def block(self, x: Any) -> Any:
        n_out = int(x.shape[-1]) if self.rng.random() < 0.4 else int(self.rng.integers(1, 7))
        x = self.biased(self.convolved(x, n_out))
        x = self.affine(x) if self.rng.random() < 0.4 else x
        return self.activated(x) if self.rng.random() < 0.7 else x

    def residual(self, x: Any) -> Any:
        inner = self.activated(self.biased(self.convolved(x, 4, keeps_size=True)))
        inner = self.biased(self.convolved(inner, int(x.shape[-1]), keeps_size=True))
        return self.activated(inner + x)

    def concatenated(self, x: Any) -> Any:
        return self.tf.concat([self.activated(self.convolved(x, 3, keeps_size=True)), x], -1)

    def gated(self, x: Any) -> Any:
        return x * self.tf.nn.sigmoid(self.convolved(x, int(x.shape[-1]), keeps_size=True))

    def pooled(self, x: Any) -> Any:
        rng, kind = self.rng, ("max_pool", "avg_pool")[self.rng.integers(2)]
        n_axes = len(x.shape) - 2
        window = [int(size) for size in rng.integers(1, 4, n_axes)]
        strides = [int(size) for size in rng.integers(1, 3, n_axes)]
        fits = all(size <= whole for size, whole in zip(window, x.shape[1:-1], strict=True))
        padding = ("SAME", "VALID")[rng.integers(2)] if fits else "SAME"
        return getattr(self.tf.nn, f"{kind}{n_axes}d")(x, window, strides, padding)

    def channels_first(self, x: Any) -> Any:
        """Operations of images whose channels are the first axis of an example."""
        tf, rng, n_out = self.tf, self.rng, 3
        if len(x.shape) != 4:
            return x
        x, options = tf.transpose(x, (0, 3, 1, 2)), {"data_format": "NCHW"}
        kernel = self.weight((2, 3, x.shape[1], n_out))
        x = tf.nn.conv2d(x, kernel, 1, "SAME", **options)
        x = tf.nn.bias_add(x, self.weight((n_out,)), **options)
        x = self.activated(x)
        if rng.random() < 0.5:
            x = x * self.weight((n_out, 1, 1), is_fixed=True) + 1
        if rng.random() < 0.5:
            x = tf.nn.max_pool2d(x, (2, 1), (2, 1), "SAME", **options)
        if rng.random() < 0.3:
            return tf.reduce_mean(tf.nn.relu(x), (2, 3), keepdims=True)
        if rng.random() < 0.3:
            return tf.reshape(x, (-1, *x.shape[1:]))
        return tf.transpose(x, (0, 2, 3, 1))

    def at_places(self, x: Any) -> Any:
        """A product at each place, as a product of all of them or of each."""
        kernel = self.weight((x.shape[-1], 4))
        if self.rng.random() < 0.5:
            return self.biased(self.tf.matmul(x, kernel))
        return self.biased(self.tf.tensordot(x, kernel, 1))

    def padded(self, x: Any) -> Any:
        borders = [[int(n) for n in self.rng.integers(0, 2, 2)] for _ in x.shape[1:-1]]
        return self.tf.pad(x, [[0, 0], *borders, [0, 0]])


class _WideBuilder(_Builder):
    KINDS = ("block", "block", "residual", "pooled", "affine")

    def network(self, x: Any, n_operations: int) -> Any:
        for at in range(2 + int(self.rng.integers(n_operations))):
            kind = self.KINDS[self.rng.integers(len(self.KINDS))] if at else "block"
            self.operations.append(kind)
            x = getattr(self, kind)(x)
        axes = (1, 2) if self.rng.random() < 0.5 else ()
        x = self.tf.reduce_mean(x, axes) if axes else x
        x = self.tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))
        return self.biased(x @ self.weight((x.shape[-1], 5)))

    def convolved(self, x: Any, n_out: int, keeps_size: bool = False) -> Any:
        rng = self.rng
        n_in, n_out = int(x.shape[-1]), n_out if keeps_size else int(rng.integers(10, 40))
        if keeps_size and n_out == 4:
            n_out = int(rng.integers(10, 40))  # between the two of a residual block
        window = [3, 3] if rng.random() < 0.8 else [int(size) for size in rng.integers(1, 6, 2)]
        stride = 1 if keeps_size or rng.random() < 0.8 else 2
        fits = not keeps_size and min(np.array(x.shape[1:3]) - window) >= 0
        padding = "VALID" if fits and rng.random() < 0.3 else "SAME"
        self.operations.append(f"{window} {stride} {padding} {n_in} {n_out}")
        return self.tf.nn.conv2d(x, self.weight((*window, n_in, n_out)), stride, padding)
