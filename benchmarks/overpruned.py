"""A dense 784-256-256-10 network whose posterior prunes as that of BPrune's MNIST network does.

What belongs here: the shape of that posterior, and the examples it is run on. What does not:
running it. Which weights are alive at which threshold decides what removal saves, so two things
are those of the published posterior: the quantiles of SNR of each layer (to which the transform is
exact), and how many inputs and units are alive at a given share of pruned weights. What is not: the
places of weights within that structure, which are drawn at random, and the numbers themselves
(scales are small, so that logits have a usual size).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.evaluators.compaction import live_units
from bprune_hpc.graph.layer_graph import Activation, Bias, Dense, LayerGraph, Operation
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.metrics.tasks import Classification
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.posterior.pruning import PruningMask
from bprune_hpc.runner.datasets import TEST_SET, Examples
from bprune_hpc.runner.network import Network

SIZES = (784, 256, 256, 10)
N_WEIGHTS = sum(n_in * n_out for n_in, n_out in itertools.pairwise(SIZES))

# Shares of a layer's weights and the SNR below which they are: the published quantiles (1, 25, 50,
# 75, 90, 99 %); the others are set so that SNR 0.1, 0.5, 1 and 2 prune what they do there of all
# weights (68.4, 88.9, 94.4 and 98.1 %).
_SNR_QUANTILES = (
    ((0, 1e-23), (0.01, 6e-22), (0.25, 1.1e-4), (0.5, 0.013), (0.648, 0.1), (0.75, 0.23),
     (0.885, 0.5), (0.9, 0.57), (0.945, 1.0), (0.983, 2.0), (0.99, 2.36), (1, 6.0)),
    ((0, 1e-8), (0.01, 4.6e-7), (0.25, 7.1e-4), (0.5, 0.0034), (0.75, 0.022), (0.79, 0.1),
     (0.9, 0.44), (0.91, 0.5), (0.948, 1.0), (0.98, 2.0), (0.99, 3.1), (1, 8.0)),
    ((0, 1e-5), (0.01, 1.3e-4), (0.25, 0.0056), (0.5, 0.028), (0.75, 1.28), (0.9, 3.3),
     (0.99, 6.7), (1, 12.0)),
)  # fmt: skip

# Share of pruned weights: inputs, units of the first and of the second layer that are alive. The
# published ones are at 63 to 98 %; the others are set by what the operations add up to there.
ALIVE = {0.63: (537, 255, 148), 0.76: (500, 171, 123), 0.89: (461, 136, 108),
         0.94: (416, 122, 97), 0.98: (340, 102, 82)}  # fmt: skip
_ALIVE_ELSEWHERE = {0.0: (784, 256, 256), 0.4: (690, 256, 230), 1.0: (150, 60, 60)}
_LEVELS = np.concatenate([[0.995, 0.99], np.arange(0.98, 0.0, -0.01), [0.0]])
_N_IMAGE_VALUES = 0.2  # of an MNIST image's values, those that are not 0
_SMALL_SNR = 0.1


@dataclass(frozen=True)
class Work:
    """What is alive at a threshold, and its operations relative to those of all weights.

    ``removal`` leaves out what is dead; ``shared`` also makes the first layer's product with
    ``scale * noise`` once for the two draws of a pair (and that with ``loc`` once for all);
    ``weights`` leaves out each pruned weight, too.
    """

    alive: tuple[int, ...]
    removal: float
    shared: float
    weights: float


def work(cut: PruningMask) -> Work:
    """Count the operations that are left at a threshold."""
    live = live_units(list(cut.kept.values()))
    alive = tuple(len(units.varying) for units in live)
    each = [n_in * n_out for n_in, n_out in itertools.pairwise(alive)]
    kept = [int(np.count_nonzero(of_layer)) for of_layer in cut.kept.values()]
    return Work(
        alive,
        sum(each) / N_WEIGHTS,
        (sum(each) - each[0] / 2) / N_WEIGHTS,
        (sum(kept) - kept[0] / 2) / N_WEIGHTS,
    )


def problem(n_examples: int, seed: int = 0) -> tuple[Network, Examples]:
    """The network and random examples with as many zeros as MNIST's; labels are random.

    Parameters
    ----------
    n_examples : int
    seed : int
        Of everything.
    """
    rng = np.random.default_rng(seed)
    table = posterior(rng)
    x = rng.random((n_examples, SIZES[0]), dtype=np.float32)
    x[rng.random(x.shape, dtype=np.float32) > _N_IMAGE_VALUES] = 0
    label = rng.integers(0, SIZES[-1], n_examples)
    return dense_network(table), Examples(TEST_SET, x, label)


def dense_network(table: Posterior) -> Network:
    """A chain of dense layers with ReLU between them, and biases (zeros) without a posterior."""
    operations: list[Operation] = []
    fixed = {}
    for layer, (kernel, loc) in enumerate(table.loc.items()):
        bias = f"bias{layer}"
        operations += [Activation("Relu")] if operations else []
        operations += [Dense(kernel), Bias(bias)]
        fixed[bias] = np.zeros(loc.shape[1], np.float32)
    n_in, n_classes = len(next(iter(table.loc.values()))), loc.shape[1]
    graph = LiftedGraph(
        graph_def=b"",
        input_tensor="",
        input_shape=(None, n_in),
        input_dtype="float32",
        output_tensor="",
        output_shape=(None, n_classes),
        loc_tensors=dict.fromkeys(table.names, ""),
        fixed_tensors=dict.fromkeys(fixed, ""),
        layers=LayerGraph.of_chain((n_in,), *operations),
    )
    return Network(graph, table, fixed, Classification(n_classes), "random", {}, evaluator="chain")


def posterior(rng: np.random.Generator) -> Posterior:
    """Draw the posterior."""
    snr = _snr(rng)
    loc, scale = {}, {}
    for layer, ratio in enumerate(snr):
        name = f"kernel{layer}"
        spread = np.where(ratio < _SMALL_SNR, 0.1, 0.05).astype(np.float32)
        sign = rng.choice([-1, 1], ratio.shape)
        loc[name], scale[name] = (sign * ratio * spread).astype(np.float32), spread
    return Posterior(loc, scale)


def _snr(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """SNR of every weight of each layer: the strongest weights first, in blocks that grow.

    At each level of SNR there are so many inputs and units alive, and so many weights above it.
    Those that a level adds are put at random among the inputs and units that are alive there, and
    one at each of these that had none.
    """
    values = [_quantiles(index) for index in range(len(_SNR_QUANTILES))]
    pooled = np.sort(np.concatenate(values))
    levels = [pooled[int(share * (len(pooled) - 1))] for share in _LEVELS]
    levels[-1] = -1.0
    knots = sorted({**ALIVE, **_ALIVE_ELSEWHERE}.items())
    shares, counts = np.array([share for share, _ in knots]), np.array([n for _, n in knots])
    alive = [np.rint(np.interp(_LEVELS, shares, of_units)).astype(int) for of_units in counts.T]
    alive.append(np.full(len(_LEVELS), SIZES[-1]))
    # Which inputs and units live longest, the same before a layer as behind it.
    orders = [rng.permutation(size) for size in SIZES]
    out = []
    for index, ordered in enumerate(values):
        snr = np.full((SIZES[index], SIZES[index + 1]), np.nan)
        n_placed = 0
        for level, n_in, n_out in zip(levels, alive[index], alive[index + 1], strict=True):
            n_above = int(np.count_nonzero(ordered > level))
            places = _places(rng, ~np.isnan(snr[:n_in, :n_out]), n_above - n_placed)
            snr[places] = rng.permutation(ordered[n_placed : n_placed + len(places[0])])
            n_placed += len(places[0])
        shuffled = np.empty_like(snr)
        shuffled[np.ix_(orders[index], orders[index + 1])] = snr
        out.append(shuffled)
    return out


def _quantiles(index: int) -> NDArray[np.float64]:
    """SNR of all weights of a layer, largest first."""
    shares, values = zip(*_SNR_QUANTILES[index], strict=True)
    n_weights = SIZES[index] * SIZES[index + 1]
    at = (np.arange(n_weights) + 0.5) / n_weights
    return np.exp(np.interp(at, shares, np.log(values)))[::-1]


def _places(
    rng: np.random.Generator, taken: NDArray[np.bool_], number: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Free places of a block: one in each row and column that has none, then at random."""
    chosen = np.zeros_like(taken)
    for row in np.flatnonzero(~taken.any(axis=1)):
        chosen[row, rng.integers(taken.shape[1])] = True
    for column in np.flatnonzero(~(taken | chosen).any(axis=0)):
        chosen[rng.integers(taken.shape[0]), column] = True
    free = np.flatnonzero(~(taken | chosen))
    missing = min(max(0, number - int(np.count_nonzero(chosen))), len(free))
    chosen.reshape(-1)[rng.choice(free, missing, replace=False)] = True
    rows, columns = np.nonzero(chosen)
    return rows, columns
