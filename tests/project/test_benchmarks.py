"""The benchmarks run, and measure what they say; no time is judged here."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import conv_networks, convolution_peers, draw_noise, overpruned
from benchmarks.record import Measured, Record, measure
from benchmarks.requirements import REQUIREMENTS, Requirement
from benchmarks.timing import Settings
from bprune_hpc.graph.layer_graph import LayerGraph
from bprune_hpc.graph.layer_ops import run
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.mean_field import Posterior
from tests.helpers.launch import run_group
from tests.helpers.stochastic_calls import softmax

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.9, 0.99)
# Of the published posterior, layer by layer.
PUBLISHED_SNR = (
    (6e-22, 1.1e-4, 0.013, 0.23, 0.57, 2.36),
    (4.6e-7, 7.1e-4, 0.0034, 0.022, 0.44, 3.1),
    (1.3e-4, 0.0056, 0.028, 1.28, 3.3, 6.7),
)
PUBLISHED_PRUNED = {0.1: 0.684, 0.5: 0.889, 1.0: 0.944, 2.0: 0.981}
# Operations relative to dense, mean over the grid: by removal, and with a shared first layer.
PUBLISHED_WORK = {
    ("threshold", (0, 2, 21)): (0.29, 0.18),
    ("fraction", (0, 0.95, 20)): (0.71, 0.45),
}


def test_the_dense_network_prunes_as_the_published_one() -> None:
    posterior = overpruned.posterior(np.random.default_rng(0))
    for ratio, published in zip(posterior.snr().values(), PUBLISHED_SNR, strict=True):
        np.testing.assert_allclose(np.quantile(ratio, QUANTILES), published, rtol=0.02)
    for cut in pruning.pruning_masks(posterior, "threshold", list(PUBLISHED_PRUNED)):
        assert cut.pruned_fraction == pytest.approx(PUBLISHED_PRUNED[cut.threshold], abs=0.005)
    for cut in pruning.pruning_masks(posterior, "fraction", list(overpruned.ALIVE)):
        assert overpruned.work(cut).alive == (*overpruned.ALIVE[cut.requested_fraction], 10)
    for (kind, grid), published in PUBLISHED_WORK.items():
        works = map(
            overpruned.work, pruning.pruning_masks(posterior, kind, list(np.linspace(*grid)))
        )
        found = np.mean([(one.removal, one.shared) for one in works], axis=0)
        np.testing.assert_allclose(found, published, atol=0.01)


def test_times_of_noise_are_at_the_thresholds_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(draw_noise, "times_table", lambda *given: asked.append(given[2]) or "")
    monkeypatch.setattr(draw_noise.logging, "disable", lambda level: None)
    for thresholds in ("0,0.5", "0:2:3"):
        flags = ["--data_path=test.npz", f"--thresholds={thresholds}", "--times"]
        assert draw_noise.main(flags) == 0
    assert asked == [(0, 0.5), (0, 1, 2)]


def test_a_limit_is_kept_on_its_own_side() -> None:
    at_least, at_most = Requirement("a", "b", "", 2), Requirement("a", "b", "", 2, is_most=True)
    assert [at_least.holds(value) for value in (1.9, 2, 2.1)] == [False, True, True]
    assert [at_most.holds(value) for value in (1.9, 2, 2.1)] == [True, True, False]
    assert at_most.judge(None)["held"] is None


def test_a_part_is_renewed_and_others_stay_with_their_own_machine(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    old = {"cpu_model": "another", "name": "there"}
    parts = {"dense": {"ratios": {"a": 1}, "date": "then"}, "start": {"ratios": {}, "date": "then"}}
    path.write_text(json.dumps({"machine": old, "parts": parts}))  # as older files are
    settings = Settings(True, False, time.perf_counter)
    Record(path).add("dense", measure(lambda _: Measured({"a": 2.0}, {}), settings))
    record = Record(path)
    assert list(record.parts) == ["dense", "start"]
    assert record.parts["start"] == {**parts["start"], "machine": old}
    now = record.parts["dense"]
    assert now["ratios"] == {"a": 2.0} and now["machine"]["name"] == os.uname().nodename
    assert {"versions", "cpu_model"} <= set(now["machine"]) and now["date"] > "2026"
    assert record.table().endswith("start: then  another (there)")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_layers_of_peers_are_the_network() -> None:
    network, test = conv_networks.resnet18(3, 2)
    table = network.posterior
    mean = Posterior(
        table.loc, {name: np.full_like(one, 1e-6) for name, one in table.scale.items()}
    )
    layers = network.graph.layers
    assert isinstance(layers, LayerGraph)
    logits = run(layers, {**network.fixed, **layers.constants, **table.loc}, test.x)
    case = convolution_peers.Case(3, 2, 2, 2, 1, 1, with_others=True)
    peers, _ = convolution_peers.draws(replace(network, posterior=mean), test.x, case)
    assert {"tfp_flipout", "tfp_reparameterization"} <= set(peers)
    for name, draw in peers.items():
        if not name.endswith("_xla"):  # the same functions, whose compilation takes a minute
            np.testing.assert_allclose(draw(), softmax(logits), 0, 1e-5)


@pytest.mark.slow
@pytest.mark.mpi
def test_a_quick_run_finds_every_number_that_is_asked_for(tmp_path: Path) -> None:
    parts = (
        "dense",
        "peers",
        "standard_error",
        "ranks",
        "training",
        "export",
    )  # what is quick enough
    output = tmp_path / "results.json"
    names = [f"--name={part}" for part in parts]
    done = run_group([sys.executable, "-m", "benchmarks", "--quick", f"--output={output}", *names])
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert set(found["parts"]) == set(parts)
    asked_for = [requirement for requirement in REQUIREMENTS if requirement.part in parts]
    assert asked_for
    for requirement in asked_for:
        assert found["ratios"][requirement.part][requirement.name] > 0
        assert requirement.text in done.stdout
    for part in found["parts"].values():
        assert {"date", "load_average", "absolute"} <= set(part)
        assert np.isfinite(list(part["ratios"].values())).all()
        assert {"cpu_model", "versions", "n_cores"} <= set(part["machine"])
