"""Layers that a format does not know, as the next one that is added will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bprune_hpc
from benchmarks import overpruned
from benchmarks.export import exported_network
from bprune_hpc.errors import ConfigError
from bprune_hpc.formats.bundle import Bundle
from bprune_hpc.formats.interface import UnknownLayerError
from bprune_hpc.formats.selection import FORMATS
from bprune_hpc.graph import layer_ops
from bprune_hpc.graph.layer_graph import Activation, LayerGraph, UnknownOperation
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.posterior.pruning import mask_at_threshold

RUNTIMES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert"}
IN_LAYERS = ["bundle", *(name for name, module in RUNTIMES.items() if find_spec(module))]


@dataclass(frozen=True)
class Sort:
    """An operation that nothing knows."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN_LAYERS)
@pytest.mark.parametrize("operation", [Sort(), Activation("Mish")])
def test_a_layer_that_a_format_has_not_is_named(
    name: str, operation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions: Mapping[str, Any] = {**layer_ops.FUNCTIONS, "Mish": np.tanh}
    monkeypatch.setattr(layer_ops, "FUNCTIONS", functions)
    rng = np.random.default_rng(0)
    loc = {
        at: rng.normal(size=size).astype(np.float32) for at, size in (("a", (4, 5)), ("b", (5, 3)))
    }
    posterior = Posterior(loc, {at: np.full_like(values, 0.1) for at, values in loc.items()})
    network = overpruned.dense_network(posterior)
    assert isinstance(network.graph.layers, LayerGraph)
    first, bias, _, *rest = network.graph.layers.chain() or ()
    layers = LayerGraph.of_chain((4,), first, bias, operation, *rest)
    network = replace(network, graph=replace(network.graph, layers=layers))
    export = exported_network(network, mask_at_threshold(posterior, 0.0))
    if name == "bundle" and isinstance(operation, Activation):
        FORMATS[name].write(export, tmp_path)  # it runs what the package runs
        return
    with pytest.raises(UnknownLayerError, match=r"'(Sort|Mish)'.*savedmodel"):
        FORMATS[name].write(export, tmp_path)


def test_wide_weights_are_the_reason_and_no_operation() -> None:
    network, _ = overpruned.problem(1)
    posterior = network.posterior
    wide = Posterior(
        {name: loc.astype(np.float64) for name, loc in posterior.loc.items()},
        {name: scale.astype(np.float64) for name, scale in posterior.scale.items()},
    )
    unknown = UnknownOperation("dense/BiasAdd", "BiasAdd")
    graph = replace(network.graph, layers=unknown)
    for table, said in ((wide, "its weights are float64"), (posterior, "BiasAdd")):
        given = replace(network, graph=graph, posterior=table)
        found = Bundle().why_not(exported_network(given, mask_at_threshold(table, 0.0)))
        assert said in (found or "") and "savedmodel take any" in (found or "")


def test_it_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise UnknownLayerError(Activation("Mish"))

    monkeypatch.setattr(Bundle, "write", write)
    with pytest.raises(
        ConfigError, match=r"bundle: .*digits_fc.*: it has a layer 'Mish'"
    ) as refused:
        bprune_hpc.load("embedded:digits_fc").save(tmp_path / "export", ["bundle"])
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
