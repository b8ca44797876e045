"""Networks with convolutions to measure on, lifted from graphs of Flipout layers.

What belongs here: four architectures with their posteriors and examples. What does not: running
them. Where the checkpoint from Theta is at hand it is used; else its architecture. The posteriors
are random: weights of the size that He et al. start with, and SNR such that filters differ much
in strength, so that many are gone before all are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.evaluators.selection import choose_evaluator
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.graph.lifting import lift
from bprune_hpc.metrics.tasks import Classification
from bprune_hpc.models import layers as models_layers
from bprune_hpc.models import zoo as models_zoo
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.runner.datasets import TEST_SET, Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import import_tensorflow, open_session

from .processes import ROOT

THETA_IMAGE, CIFAR_IMAGE = (28, 28, 1), (32, 32, 3)
N_CLASSES = 10
# Filters of VGG-16's convolutions; 0 is a pooling.
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
_VGG16_HIDDEN = 512
THETA_DIR = os.path.join(
    os.environ.get("BPRUNE_TEST_DATA", ROOT.parent / "shared" / "data"), "theta_2rank_250"
)
_STRENGTH_SD = 2.0  # of the logarithm of a filter's SNR


def theta(n_examples: int) -> tuple[Network, Examples]:
    """The network of BPrune's authors: a convolution 5 x 5 x 1 x 64, pooling, a fixed head."""
    if not os.path.isdir(THETA_DIR):
        return _random("conv_flipout", THETA_IMAGE, n_examples)
    case = read_case(THETA_DIR)
    x, label = _examples((784,), n_examples)
    return _problem(case.graph, case.posterior, case.fixed, x, label, "theta_2rank_250")


def six(n_examples: int, width: int = 32) -> tuple[Network, Examples]:
    """Six convolutions at 32 x 32, two before each pooling, and two dense layers."""

    def build(inputs: Any) -> Any:
        layers, flipout = models_layers.keras().layers, _flipout()
        relu = models_layers.keras().activations.relu
        x = layers.Reshape(CIFAR_IMAGE)(inputs)
        for filters in (width, 2 * width, 4 * width):
            for _ in range(2):
                x = flipout.conv(filters, 3, activation=relu)(x)
            x = layers.MaxPooling2D(2, padding="SAME")(x)
        hidden = flipout.dense(4 * width, activation=relu)
        return flipout.dense(N_CLASSES)(hidden(layers.Flatten()(x)))

    return _lifted(build, CIFAR_IMAGE, n_examples, f"six convolutions, {width} filters at first")


def vgg16(n_examples: int, width: int = 64) -> tuple[Network, Examples]:
    """VGG-16's convolutions at 32 x 32, and two dense layers, all of them Flipout."""

    def build(inputs: Any) -> Any:
        layers, flipout = models_layers.keras().layers, _flipout()
        relu = models_layers.keras().activations.relu
        x = layers.Reshape(CIFAR_IMAGE)(inputs)
        for filters in VGG16:
            if filters:
                x = flipout.conv(filters * width // 64, 3, activation=relu)(x)
            else:
                x = layers.MaxPooling2D(2, padding="SAME")(x)
        hidden = flipout.dense(_VGG16_HIDDEN * width // 64, activation=relu)
        return flipout.dense(N_CLASSES)(hidden(layers.Flatten()(x)))

    return _lifted(build, CIFAR_IMAGE, n_examples, f"VGG-16, {width} filters at first")


def resnet18(n_examples: int, width: int = 64) -> tuple[Network, Examples]:
    """The zoo's ResNet-18 at 32 x 32."""
    return _random("resnet18", CIFAR_IMAGE, n_examples, width)


def _random(
    name: str, image: tuple[int, ...], n_examples: int, width: int = 64
) -> tuple[Network, Examples]:
    def build(inputs: Any) -> Any:
        return models_zoo.build(
            name, inputs, N_CLASSES, 50_000, example_shape=image, width=width
        ).logits

    return _lifted(build, image, n_examples, f"{name}, {width} filters at first")


def _flipout() -> models_layers.Flipout:
    return models_layers.Flipout(50_000, is_deep=True)


def _lifted(
    build: Callable[[Any], Any], image: tuple[int, ...], n_examples: int, label: str
) -> tuple[Network, Examples]:
    tf = import_tensorflow()
    n_values = int(np.prod(image))
    with tf.Graph().as_default() as graph:
        inputs = tf.compat.v1.placeholder(tf.float32, (None, n_values), name="examples")
        logits = tf.identity(build(inputs), name="logits")
        variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        with open_session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            lifted = lift(
                graph.as_graph_def(),
                lambda names: session.run({name: variables[name] for name in names}),
                input_op=inputs.op.name,
                logits_op=logits.op.name,
            )
    rng = np.random.default_rng(0)
    table = {name: _gaussians(rng, loc.shape) for name, loc in lifted.posterior.loc.items()}
    posterior = Posterior(
        {name: loc for name, (loc, _) in table.items()},
        {name: scale for name, (_, scale) in table.items()},
    )
    x, labels = _examples((n_values,), n_examples)
    return _problem(lifted.graph, posterior, lifted.fixed, x, labels, label)


def _gaussians(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means and deviations whose squares add up to a weight's of usual size."""
    size = np.sqrt(2 / np.prod(shape[:-1]))
    strength = np.exp(rng.normal(0, _STRENGTH_SD, shape[-1]))
    ratio = rng.standard_normal(shape) * strength
    whole = np.sqrt(1 + ratio**2)
    loc = size * ratio / whole
    return loc.astype(np.float32), (size / whole).astype(np.float32)


def _examples(
    shape: tuple[int, ...], n_examples: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    x = rng.random((n_examples, *shape), dtype=np.float32)
    return x, rng.integers(0, N_CLASSES, n_examples)


def _problem(
    graph: LiftedGraph,
    posterior: Posterior,
    fixed: Any,
    x: NDArray[np.float32],
    label: NDArray[np.int64],
    origin: str,
) -> tuple[Network, Examples]:
    network = Network(
        graph, posterior, fixed, Classification(N_CLASSES), origin, {},
        evaluator=choose_evaluator("auto", graph),
    )  # fmt: skip
    return network, Examples(TEST_SET, x, label)
