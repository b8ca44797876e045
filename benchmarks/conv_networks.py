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
from bprune_hpc.models import zoo as models_zoo
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.runner.datasets import TEST_SET, Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import import_tensorflow, open_session

from .processes import ROOT

THETA_IMAGE, CIFAR_IMAGE = (28, 28, 1), (32, 32, 3)
N_CLASSES = 10
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
    return problem(case.graph, case.posterior, case.fixed, x, label, "theta_2rank_250")


def six(n_examples: int, width: int = 32) -> tuple[Network, Examples]:
    """The zoo's network of six convolutions at 32 x 32, two before each pooling."""
    return _random("vgg", CIFAR_IMAGE, n_examples, width)


def vgg16(n_examples: int, width: int = 64) -> tuple[Network, Examples]:
    """The zoo's VGG-16 at 32 x 32."""
    return _random("vgg16", CIFAR_IMAGE, n_examples, width)


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
    return problem(lifted.graph, posterior, lifted.fixed, x, labels, label)


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


def problem(
    graph: LiftedGraph,
    posterior: Posterior,
    fixed: Any,
    x: NDArray[np.float32],
    label: NDArray[np.int64],
    origin: str,
) -> tuple[Network, Examples]:
    """A network and examples, whatever they come from."""
    network = Network(
        graph, posterior, fixed, Classification(N_CLASSES), origin, {},
        evaluator=choose_evaluator("auto", graph),
    )  # fmt: skip
    return network, Examples(TEST_SET, x, label)
