"""Networks with convolutions, against plain arithmetic at its peak, and against TensorFlow.

The floor is all products of the convolutions, pruned ones too, at the peak. What is called directly
is ``tf.nn.conv2d`` alone, once for each convolution of the network, on inputs of the same shapes
and the same number of examples at a time. Ours makes draws of all weights, everything between the
convolutions, the head, softmax and exact sums as well. Masks at random leave the same share of
weights in every tensor; no filter is gone then, which is the hardest case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.evaluators.interface import Evaluator
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.pruning import PruningMask
from bprune_hpc.runner.datasets import Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import import_tensorflow

from . import conv_networks
from .dense import Sweep
from .record import Measured
from .timing import Peak, Settings, in_turns

PRUNED_FRACTION = 0.9
UNIFORM = (0.2, 0.1, 0.05)
"""Shares of weights that masks at random keep."""
PROFILE = (
    1, 0.75, 0.6, 0.5, 0.42, 0.36, 0.31, 0.27, 0.235, 0.205, 0.18, 0.16, 0.14, 0.125, 0.11, 0.1,
    0.09, 0.08, 0.07, 0.06, 0.05,
)  # fmt: skip
"""The same of the 21 thresholds of a sweep."""


@dataclass(frozen=True)
class Convolution:
    """Shapes of a convolution, and how it is made."""

    inputs: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    @property
    def operations(self) -> int:
        """Additions and multiplications."""
        n_places = self.inputs[0]
        for size, stride in zip(self.inputs[1:3], self.strides, strict=True):
            n_places *= -(-size // stride)
        return 2 * n_places * int(np.prod(self.kernel))


def run(settings: Settings) -> Measured:
    """Measure each network."""
    peak = Peak(settings.clock, settings.choose(256, 2048))
    # Network, examples at a time, draws, repeats.
    networks: dict[str, tuple[tuple[Network, Examples], int, int, int]]
    if settings.is_quick:
        networks = {
            "theta": (conv_networks.theta(20), 20, 4, 1),
            "six": (conv_networks.six(20), 20, 2, 1),
            "vgg16": (conv_networks.vgg16(4, 8), 4, 2, 1),
            "resnet18": (conv_networks.resnet18(4, 4), 4, 2, 1),
        }
    else:
        networks = {
            "theta": (conv_networks.theta(2000), 1000, 16, 5),
            "six": (conv_networks.six(2048), 512, 4, 2),
            "vgg16": (conv_networks.vgg16(512), 64, 2, 3),
            "resnet18": (conv_networks.resnet18(512), 64, 2, 3),
        }
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    for name, ((network, test), batch_size, n_draws, n_repeats) in networks.items():
        peak.forget()
        found = _measure(network, test, batch_size, n_draws, n_repeats, settings, peak)
        ratios |= {f"{name}_{key}": value for key, value in found.ratios.items()}
        absolute[name] = found.absolute
    return Measured(ratios, absolute)


def _measure(
    network: Network,
    test: Examples,
    batch_size: int,
    n_draws: int,
    n_repeats: int,
    settings: Settings,
    peak: Peak,
) -> Measured:
    evaluator, n_batches = network.make_evaluator(1, 1), len(test) // batch_size
    plain = replace(network, evaluator="graph").make_evaluator(1, 1)
    posterior = network.posterior
    unpruned = pruning.pruning_masks(posterior, "threshold", [0.0])
    rng = np.random.default_rng(0)
    masks = {
        "whole": unpruned,
        "pruned": pruning.pruning_masks(posterior, "fraction", [PRUNED_FRACTION]),
        **{f"kept_{share:g}": [_at_random(rng, unpruned[0], share)] for share in UNIFORM},
        "profile": [_at_random(rng, unpruned[0], share) for share in PROFILE],
    }

    def sweep(name: str, by: Evaluator, examples: Examples = test) -> Sweep:
        return Sweep(network, examples, by, masks[name], n_draws, batch_size)

    found = convolutions_of(network, test.x[:batch_size])
    direct = _direct(found, n_batches)
    first = Examples(test.name, test.x[:batch_size], test.summed_label[:batch_size])
    for by in (evaluator, plain):
        sweep("whole", by, first).seconds(settings)
    direct()
    sweeps = {name: sweep(name, evaluator) for name in masks}
    sweeps |= {f"graph_{name}": sweep(name, plain) for name in ("whole", "pruned")}
    # All examples at a time: threads share those of a batch.
    sweeps |= {
        f"threads_{n}": Sweep(
            network, test, network.make_evaluator(n, 1), unpruned, n_draws, len(test)
        )
        for n in (1, 2)
    }

    def timed(one: Sweep) -> Callable[[], float]:
        return lambda: one.seconds(settings)

    seconds = in_turns(
        {
            "direct": direct,
            **{name: timed(one) for name, one in sweeps.items()},
            "peak": peak.sample,
        },
        n_repeats,
        settings.clock,
        warm_up=False,
    )
    # The posterior mean is one more pass over the examples.
    passes = n_draws + 1
    operations = sum(one.operations for one in found) * n_batches
    floor = passes * operations / peak.rate
    return Measured(
        {
            "share_of_direct": seconds["direct"] * passes / seconds["whole"],
            "pruned_over_unpruned": seconds["pruned"] / seconds["whole"],
            "direct_share_of_peak": operations / seconds["direct"] / peak.rate,
            **{
                f"{name}_over_floor": seconds[name] / len(of_name) / floor
                for name, of_name in masks.items()
            },
            "one_thread_over_two": seconds["threads_1"] / seconds["threads_2"],
            **{
                f"graph_{name}_over_ours": seconds[f"graph_{name}"] / seconds[name]
                for name in ("whole", "pruned")
            },
        },
        {
            "network": network.checkpoint.rpartition("/")[2],
            "evaluator": network.evaluator,
            "n_weights": network.posterior.n_weights,
            "n_examples": len(test),
            "batch_size": batch_size,
            "n_draws": n_draws,
            "repeats": n_repeats,
            "n_convolutions": len(found),
            "gflop_of_convolutions": operations / 1e9,
            "direct_seconds": seconds["direct"],
            "seconds_per_draw": seconds["whole"] / passes,
            "pruned_fraction": PRUNED_FRACTION,
            "pruned_seconds_per_draw": seconds["pruned"] / passes,
            "peak_gflops": {key: rate / 1e9 for key, rate in peak.rates.items()},
        },
    )


def _at_random(rng: np.random.Generator, whole: PruningMask, share: float) -> PruningMask:
    """A mask that keeps a share of every tensor's weights."""
    kept = {
        name: rng.random(mask.shape, dtype=np.float32) < share for name, mask in whole.kept.items()
    }
    return replace(whole, kept=kept)


def convolutions_of(network: Network, batch: NDArray[Any]) -> list[Convolution]:
    """Every convolution of a lifted graph, as it is run on a batch."""
    tf = import_tensorflow()
    lifted, v1 = network.graph, tf.compat.v1
    graph_def = v1.GraphDef.FromString(lifted.graph_def)
    nodes = [node for node in graph_def.node if node.op == "Conv2D"]
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        operations = [graph.get_operation_by_name(node.name) for node in nodes]
        shapes = [[tf.shape(tensor) for tensor in one.inputs] for one in operations]
        feed = {lifted.input_tensor: batch}
        feed |= {lifted.loc_tensors[name]: loc for name, loc in network.posterior.loc.items()}
        feed |= {lifted.fixed_tensors[name]: value for name, value in network.fixed.items()}
        values = session.run(shapes, feed)
    return [
        Convolution(
            tuple(map(int, inputs)),
            tuple(map(int, kernel)),
            tuple(one.get_attr("strides")[1:3]),
            one.get_attr("padding").decode(),
        )
        for one, (inputs, kernel) in zip(operations, values, strict=True)
    ]


def _direct(found: list[Convolution], n_batches: int) -> Callable[[], None]:
    tf = import_tensorflow()
    rng = np.random.default_rng(0)
    operands = [
        (
            tf.constant(rng.random(one.inputs, dtype=np.float32)),
            tf.constant(rng.random(one.kernel, dtype=np.float32)),
            one.strides,
            one.padding,
        )
        for one in found
    ]

    def call() -> None:
        for _ in range(n_batches):
            for operand in operands:
                out = tf.nn.conv2d(*operand)
        out[0, 0, 0, 0].numpy()  # waits

    return call
