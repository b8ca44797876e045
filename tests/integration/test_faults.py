"""Outputs that are not finite: the threshold is marked, and the rest is as if nothing had been."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc import inspect, results, sweep
from bprune_hpc.posterior.draws import MEAN, standard_normal
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.runner import coordinator
from bprune_hpc.runner import problem as problems
from bprune_hpc.runner.nonfinite import Fault, take_earliest
from bprune_hpc.runner.nonfinite_search import first_not_finite
from tests.helpers import fake_problem, overflowing_case
from tests.helpers.bits import all_bits
from tests.helpers.launch import ROOT, MpiRun
from tests.helpers.sweeps import FLAGS, KINDS, start

Spoil = Callable[[np.ndarray], bool]

_FEATURE = 2
"""Its weights decide which draws go wrong."""


def install(patch: pytest.MonkeyPatch, spoil: Spoil, **settings: Any) -> None:
    """The network without TensorFlow, with NaN in the second batch where the kernel is so."""
    fake_problem.install(patch.setattr, **settings)
    patch.setattr(coordinator, "find_layer", lambda *_: "layer/MatMul")
    plain = fake_problem.Network.__call__

    def spoiled(self: Any, x: np.ndarray, weights: Any) -> np.ndarray:
        out = plain(self, x, weights)
        if spoil(weights["layer/kernel"]):
            out[3] = np.nan
        return out

    patch.setattr(fake_problem.Network, "__call__", spoiled)


def network_of(kind: str) -> Any:
    class Config:
        model_dir = next(flag for flag in KINDS[kind] if "dir" in flag).partition("=")[2]
        ood_dataset, elbo_dataset = None, None
        draw_noise, noise_block = "shared", None

    return fake_problem.problem(Config())[0]  # type: ignore[arg-type]


def pruned_and_large(kind: str) -> tuple[Spoil, float, int]:
    """Which kernels go wrong; the only threshold of ``FLAGS`` for it; the first draw by oracle.

    Those whose first weight with an SNR in (0.5, 1] is pruned while another, never pruned, is
    large.
    """
    posterior = network_of(kind).posterior
    loc, scale = posterior.loc["layer/kernel"], posterior.scale["layer/kernel"]
    snr = np.abs(loc) / scale
    away = tuple(np.argwhere((snr > 0.5) & (snr <= 1))[0])
    kept = tuple(np.argwhere(snr > 1)[0])
    limit = loc[kept] + 1.3 * scale[kept]

    def spoil(kernel: np.ndarray) -> bool:
        return bool(kernel[away] == 0 and kernel[kept] > limit)

    for k in range(28):
        noise = k if kind == "single draws" else k // 2
        sign = 1 if kind == "single draws" else (-1) ** k
        drawn = standard_normal(0, "layer/kernel", noise, loc.shape)[kept]
        if sign * drawn > 1.3:
            return spoil, 1.0, k
    raise AssertionError("no draw is large")


def numbers(path: Path) -> dict[str, np.ndarray]:
    """Every dataset along the thresholds but the cuts themselves."""
    found = results.read(path)
    return {
        f"{group}/{name}": np.asarray(variable)
        for group, dataset in found.groups.items()
        if group not in ("", "sparsity", "run")
        for name, variable in dataset.data_vars.items()
        if variable.dims[:1] == ("threshold",)
    }


def is_marked(array: np.ndarray) -> bool:
    return bool((array == -1).all() if array.dtype.kind == "i" else np.isnan(array).all())


@pytest.mark.parametrize("kind", ["blocks and other examples", "regression"])
def test_a_threshold_is_marked_and_the_others_are_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    flags = [*KINDS[kind], *FLAGS]
    fine, whole, path = tmp_path / "fine.h5", tmp_path / "whole.h5", tmp_path / "s.h5"
    with monkeypatch.context() as patch:
        fake_problem.install(patch.setattr)
        assert start(fine, *flags) == 0
    spoil, threshold, draw = pruned_and_large(kind)
    with monkeypatch.context() as patch:
        install(patch, spoil)
        assert start(whole, *flags) == sweep.FAILED
    install(monkeypatch, spoil, replicate_by_replicate=True)
    chance, statuses = random.Random(kind), []
    while not statuses or statuses[-1] == sweep.STOPPED:
        statuses.append(start(path, *flags, n_supersteps=chance.randint(1, 7)))
        assert len(statuses) < 100
    assert statuses[-1] == sweep.FAILED and len(statuses) > 1
    assert all_bits(path) == all_bits(whole)

    found = results.read(path)
    failures = [f"draw {draw}, layer/MatMul" if t == threshold else "" for t in (0, 0.5, 1)]
    assert found.groups[""].failure.values.tolist() == failures
    assert found.attrs["status"] == "complete" and found.attrs["n_failed"] == 1
    before, after = numbers(fine), numbers(path)
    assert before.keys() == after.keys() and len(after) > 30
    for name, array in after.items():
        if "_band_" not in name:  # those are of all thresholds, of which there are fewer
            np.testing.assert_array_equal(array[:2], before[name][:2], err_msg=name)
        assert is_marked(array[2]), name
        assert not is_marked(before[name][2]), name


def test_without_the_reference_there_are_no_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*KINDS["classes"], *FLAGS, "--max_nll_rise=0.5", "--target_se=nll=0.5"]
    fine, path = tmp_path / "fine.h5", tmp_path / "s.h5"
    with monkeypatch.context() as patch:
        fake_problem.install(patch.setattr)
        assert start(fine, *flags) == 0
    install(monkeypatch, lambda kernel: bool((kernel != 0).all()))
    assert start(path, *flags) == sweep.FAILED
    said = capsys.readouterr().out
    assert "choice: none. SNR <= 0 failed, and all others are compared with it." in said
    assert "target: reached with 28 draws" in said and "that failed do not count" in said
    (line,) = [line for line in said.splitlines() if "failed: " in line]
    assert line.split() == ["0", "0.00", "%", "failed:", "posterior", "mean,", "layer/MatMul"]
    found = results.read(path)
    assert found.groups[""].failure.values.tolist() == ["posterior mean, layer/MatMul", "", ""]
    assert found.choice.attrs["index"] == -1 and not found.choice.is_below.values.any()
    before, after = numbers(fine), numbers(path)
    n_differences = 0
    for name, array in after.items():
        if not name.startswith("metrics/"):
            continue
        base = re.sub("_(se|se_data|low|high|band_low|band_high)$", "", name)
        is_difference = base.endswith(("_change", "accuracy_drop", "nll_rise"))
        n_differences += is_difference
        assert is_marked(array if is_difference else array[0]), name
        if not is_difference:
            np.testing.assert_array_equal(array[1:], before[name][1:], err_msg=name)
    assert n_differences > 20

    # The same command again: nothing to do, the same status; and what scripts ask.
    bits = path.read_bytes()
    assert start(path, *flags) == sweep.FAILED and path.read_bytes() == bits
    assert inspect.main([f"--status={path}"]) == 4
    assert capsys.readouterr().out.endswith("complete (1 threshold failed)\n")


@pytest.mark.parametrize("kind", ["other examples", "regression"])
def test_added_thresholds_and_draws_meet_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spoil, _, draw = pruned_and_large(kind)
    install(monkeypatch, spoil, replicate_by_replicate=True)
    whole, path = tmp_path / "whole.h5", tmp_path / "s.h5"
    flags = [*KINDS[kind], *FLAGS]
    before = draw // 4 * 4
    if before:
        some = ["--thresholds=0.5,1", f"--num_monte_carlo={before}"]
        assert start(path, *flags, *some) == 0
    assert start(path, *flags, "--thresholds=0.5,1") == sweep.FAILED
    assert start(path, *flags, "--thresholds=0", n_supersteps=2) == sweep.STOPPED
    assert start(path, *flags, "--thresholds=0,0.25,0.5,1") == sweep.FAILED
    assert start(whole, *flags, "--thresholds=0,0.25,0.5,1") == sweep.FAILED
    assert all_bits(path) == all_bits(whole)
    assert [bool(text) for text in results.read(path).groups[""].failure.values] == [0, 0, 0, 1]


def test_what_fails_while_it_is_caught_up_is_not_counted_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, lambda kernel: not kernel.all(), replicate_by_replicate=True)
    path, flags = tmp_path / "s.h5", [*KINDS["classes"], *FLAGS]
    assert start(path, *flags, "--thresholds=0") == 0
    assert start(path, *flags, "--thresholds=0,0.5", n_supersteps=2) == sweep.STOPPED
    found = results.read(path)
    assert found.metrics.threshold.values.tolist() == [0]
    assert "n_failed" not in found.attrs
    assert start(path, *flags, "--thresholds=0,0.5") == sweep.FAILED
    assert results.read(path).attrs["n_failed"] == 1


def test_all_thresholds_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda kernel: True)
    path = tmp_path / "s.h5"
    flags = [*KINDS["classes"], *FLAGS, "--target_se=nll=1e-9", "--num_monte_carlo=500"]
    assert start(path, *flags) == sweep.FAILED
    found = results.read(path)
    assert found.attrs["n_failed"] == 3 and found.attrs["n_draws"] == 50  # more are of no use
    assert "no threshold has a nll" in found.metrics.attrs["target_text"]


def test_the_first_is_named_in_any_order() -> None:
    faults = [Fault(4, 0, 10), Fault(4, 1, 0), Fault(MEAN, 1, 20), Fault(0, 0, 0), Fault(4, 0, 0)]
    for seed in range(20):
        random.Random(seed).shuffle(faults)
        found: dict[int, Fault] = {}
        for fault in faults:
            take_earliest(found, {7: fault})
        assert found == {7: Fault(MEAN, 1, 20)}
    known = {0: Fault(2, 0, 0, "a/MatMul")}
    assert take_earliest(known, {0: Fault(2, 0, 0)}) == [] and known[0].layer == "a/MatMul"
    assert Fault(MEAN, 1, 0).text == "posterior mean of the other examples, layer not found"


def test_a_network_that_overflows_on_two_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mpirun: MpiRun
) -> None:
    given = [part for kind in ("chain", "graph") for part in (kind, str(tmp_path / f"{kind}2.h5"))]
    done = mpirun(2, [str(ROOT / "tests/helpers/overflowing_case.py"), *given])
    assert done.returncode == 0, done.stderr
    assert "RuntimeWarning" not in done.stderr
    hot = overflowing_case.hot_draws()
    assert 0 < len(hot) < overflowing_case.N_DRAWS / 2 and hot[0] > 0
    monkeypatch.setattr(problems, "load", overflowing_case.load)
    for kind in ("chain", "graph"):
        path = tmp_path / f"{kind}1.h5"
        flags = [*overflowing_case.FLAGS, f"--evaluator={kind}", f"--output={path}"]
        assert sweep.main(flags) == sweep.FAILED
        assert all_bits(path) == all_bits(tmp_path / f"{kind}2.h5")
        found = results.read(path)
        failures = ["", "", f"draw {hot[0]}, second/MatMul", ""]
        assert found.groups[""].failure.values.tolist() == failures
        assert np.isnan(found.metrics.nll.values).tolist() == [False, False, True, False]
        assert "Left out, as it failed: SNR <= 7." in found.choice.attrs["text"]


@pytest.mark.usefixtures("instructions")
def test_with_noise_of_each_examples_own_the_layer_is_named_by_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: Any, comm: Any, *device: Any) -> Any:
        network, examples = overflowing_case.problem("chain")
        sizes = {name: np.full(loc.shape, 1e19) for name, loc in network.fixed.items()}
        loc = {name: np.ones_like(loc) for name, loc in network.posterior.loc.items()}
        scale = {name: np.full_like(one, 0.1) for name, one in loc.items()}
        network = replace(
            network, posterior=Posterior(loc, scale), fixed=sizes, draw_noise="per_example"
        )
        return problems.share((network, examples), comm)

    monkeypatch.setattr(problems, "load", load)
    path = tmp_path / "s.h5"
    flags = [*overflowing_case.FLAGS, "--draw_noise=per_example", f"--output={path}"]
    assert sweep.main(flags) == sweep.FAILED
    # Hidden units are about 1e19, their squares beyond float32, until all weights are pruned.
    failures = [*["draw 0, d1"] * 3, ""]
    assert results.read(path).groups[""].failure.values.tolist() == failures


@pytest.mark.parametrize(
    ("hot", "layer"),
    [
        ({"d0": 1e38}, "first/MatMul"),
        ({"e0": np.inf}, "e0"),
        ({"e0": 3.3e38, "d0": 1e37}, "first/add"),
        ({"d1": 1e38}, "second/MatMul"),
        ({}, ""),
    ],
)
def test_the_first_operation_is_found(hot: dict[str, float], layer: str) -> None:
    network, _ = overflowing_case.problem("graph")
    shapes = overflowing_case.SHAPES
    weights = {
        name: np.full(shapes[name], hot.get(name, 1.0), np.float32) for name in ("d0", "e0", "d1")
    }
    x = np.ones((3, 16), np.float32)
    assert first_not_finite(network.graph, x, weights) == layer
