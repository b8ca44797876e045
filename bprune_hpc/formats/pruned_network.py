"""What every format gets: a pruned network, and all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from ..checkpoints.case import Opening, Source
from ..data.fitting import NetworkInput
from ..evaluators.compaction import Weights
from ..evaluators.selection import choose_draw_noise
from ..graph.layer_graph import LayerGraph, UnknownOperation
from ..metrics.tasks import Task
from ..posterior.mean_field import Posterior
from ..posterior.pruning import PruningMask, PruningRule
from ..runner.datasets import Examples
from ..runner.network import Network
from ..runner.prediction import Sampling
from .normal import normal_layers

BITS = (32, 16)
"""Of a number, where a format can hold fewer."""


@dataclass(frozen=True)
class InputFitting:
    """How examples are brought to a network; see :func:`bprune_hpc.data.fitting.fit`.

    Attributes
    ----------
    network : NetworkInput
        Shape, type and axes that the network takes.
    input_scale : str
        ``auto``, ``none`` or a factor.
    layout : str or None
        Where the examples have their channels, if that was said.
    """

    network: NetworkInput
    input_scale: str = "auto"
    layout: str | None = None


@dataclass(frozen=True)
class SweptMetric:
    """A number that a sweep has found at the threshold, with both of its standard errors.

    Attributes
    ----------
    value, se, se_data : float
        ``se`` is the Monte Carlo error, ``se_data`` that of the test set; NaN where there is none.
    """

    value: float
    se: float
    se_data: float


@dataclass(frozen=True, eq=False)
class PrunedNetwork:
    """A network that a threshold was chosen for, and all that is known of it.

    Attributes
    ----------
    unpruned : Network
        The network as a sweep takes it: the lifted graph (``unpruned.graph``, its ``layers`` a
        LayerGraph or what keeps it from being one), the posterior before pruning, the
        deterministic variables, the task.
    mask : PruningMask
        Which weights stay.
    rule : PruningRule or None
        By which they were chosen; None where masks of several rules came together.
    cut : str
        What is pruned, in words: ``SNR <= 0.5``.
    source : Source
        Where the network came from.
    opening : Opening
        How its source is opened again.
    fitting : InputFitting
    sampling : Sampling
        Seed, pairing, number of draws and size of batch of the sweep.
    class_names : tuple of str or None
        Of classes that have names.
    provenance : mapping of str to what JSON can hold
        Digests of checkpoint and results file, what was asked for, versions.
    metrics : mapping of str to SweptMetric
        What the results file has of the threshold; empty without one.
    examples : Examples or None
        To measure the formats on, as the network takes them.
    draw_noise : tuple of str and int
        Which examples shared the noise of a draw in the sweep, and how many by block (else 0): the
        posterior is measured so, and the bundle predicts so; all else that is written draws for all
        examples together.
    bits : {32, 16}
        Of a weight's mean and deviation, where a format can hold fewer.
    keeps_slots : bool
        Whether a checkpoint keeps what an optimizer has for each weight; else that begins anew.
    """

    unpruned: Network
    mask: PruningMask
    rule: PruningRule | None
    cut: str
    source: Source
    opening: Opening
    fitting: InputFitting
    sampling: Sampling = field(default_factory=Sampling)
    class_names: tuple[str, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, SweptMetric] = field(default_factory=dict)
    examples: Examples | None = None
    draw_noise: tuple[str, int] = ("shared", 0)
    bits: int = 32
    keeps_slots: bool = False

    @cached_property
    def pruned(self) -> Network:
        """The network with the pruned posterior."""
        return replace(self.unpruned, posterior=self.mask.apply(self.unpruned.posterior))

    @property
    def posterior(self) -> Posterior:
        """The pruned posterior."""
        return self.pruned.posterior

    @property
    def is_by_example(self) -> bool:
        """Whether each example can have noise of its own."""
        full = self.unpruned
        weights = Weights(full.posterior, full.fixed)
        chosen = choose_draw_noise("auto", full.evaluator, full.graph, weights, False)
        return chosen == "per_example"

    @property
    def fixed(self) -> Mapping[str, NDArray[Any]]:
        """Variables of the network that have no posterior."""
        return self.unpruned.fixed

    @property
    def task(self) -> Task:
        """What the network is for."""
        return self.unpruned.task

    @cached_property
    def found_layers(self) -> LayerGraph | UnknownOperation | None:
        """The network as a graph of layers, of a regression's two outputs too.

        What keeps it from being one, where it is none; None where its outputs do.
        """
        graph = self.unpruned.graph
        if graph.layers is None and {"loc", "scale"} <= graph.output_tensors.keys():
            return normal_layers(graph, self.unpruned.posterior, self.fixed)
        return graph.layers

    @property
    def layers(self) -> LayerGraph | None:
        """The network as a graph of layers; None where it is none."""
        found = self.found_layers
        return found if isinstance(found, LayerGraph) else None
