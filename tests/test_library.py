"""The library: the numbers of a sweep, from a notebook; and docs/library.md as it stands."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import small_models

import bprune_hpc
from bprune_hpc import data, sweep
from bprune_hpc.errors import BpruneError, CheckpointError, ConfigError, DataError, GraphError
from bprune_hpc.tensorflow_import import import_tensorflow

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "library.md"
N_DRAWS, SEED, BATCH_SIZE = 12, 3, 100


@pytest.fixture(scope="module")
def net():
    return bprune_hpc.load("embedded:digits_fc")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", split="test")


@pytest.fixture(scope="module", params=["threshold", "fraction"])
def swept(request, tmp_path_factory):
    """Results of a sweep, and how each of its points is asked for in the library."""
    path = tmp_path_factory.mktemp(request.param) / "sweep.h5"
    grid = {"threshold": "--thresholds=0,0.5,2", "fraction": "--prune_fractions=0,0.9"}
    pairing = {"threshold": "antithetic", "fraction": "none"}[request.param]
    status = sweep.main(
        ["--model_dir=embedded:digits_fc", "--dataset=digits", grid[request.param],
         f"--num_monte_carlo={N_DRAWS}", f"--seed={SEED}", f"--batch_size={BATCH_SIZE}",
         f"--pairing={pairing}", f"--output={path}"]
    )  # fmt: skip
    assert status == 0
    values = {"threshold": (0.0, 0.5, 2.0), "fraction": (0.0, 0.9)}[request.param]
    keyword = {"threshold": "snr", "fraction": "fraction"}[request.param]
    return path, [{keyword: value} for value in values], pairing


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_predictions_are_the_sweeps_bit_by_bit(net, digits, swept):
    path, points, pairing = swept
    with h5py.File(path) as file:
        examples = {name: file["examples"][name][()] for name in file["examples"]}
        n_active = file["sparsity/n_active"][()]
        accuracy = file["metrics/accuracy"][()]
    for t, point in enumerate(points):
        pruned = net.prune(**point)
        assert pruned.n_active == n_active[t]
        found = pruned.predict(
            digits.x, N_DRAWS, seed=SEED, pairing=pairing, batch_size=BATCH_SIZE
        )  # fmt: skip
        assert same_bits(found.mean_probability, examples["mean_probability"][t])
        for name in ("predictive_entropy", "expected_entropy", "mutual_information"):
            assert same_bits(getattr(found, name).astype(np.float32), examples[name][t]), name
        assert (found.predicted_class == digits.y).mean() == pytest.approx(accuracy[t], abs=1e-15)


def test_logits_against_plain_numpy(net, digits):
    x = digits.x[:7].reshape(7, -1).astype(np.float64)
    rng = np.random.default_rng(0)
    random = {name: rng.normal(size=loc.shape) for name, loc in net.posterior.loc.items()}
    for weights in (None, random):
        hidden = x
        kernels = net.posterior.loc if weights is None else weights
        for index, (kernel, bias) in enumerate(
            zip(kernels.values(), net.fixed.values(), strict=True)
        ):
            hidden = hidden @ np.asarray(kernel, np.float64) + bias
            if index < 2:
                hidden = np.maximum(hidden, 0)
        found = net.logits(digits.x[:7], weights)
        assert found.dtype == np.float32 and found.shape == (7, 10)
        np.testing.assert_allclose(found, hidden, rtol=0, atol=2e-6 * np.abs(hidden).max())


def test_logits_do_not_depend_on_how_examples_are_cut(net, digits):
    whole = net.logits(digits.x[:23], batch_size=10)
    assert same_bits(whole[:20], net.logits(digits.x[:20], batch_size=10))
    assert same_bits(whole[20:], net.logits(digits.x[20:30], batch_size=10)[:3])


def test_pruning_gives_a_new_network(net):
    ratios = net.posterior.snr()
    before = {name: loc.copy() for name, loc in net.posterior.loc.items()}
    pruned = net.prune(snr=0.5)
    assert net.pruned_fraction == 0 and net.n_active == net.n_weights == 6464
    for name, ratio in ratios.items():
        kept = ratio > 0.5
        for table in (pruned.posterior.loc, pruned.posterior.scale):
            assert (table[name] != 0).sum() == kept.sum()
            assert not table[name][~kept].any()
        np.testing.assert_array_equal(net.posterior.loc[name], before[name])
    again = pruned.prune(snr=2)
    assert again.n_active == net.prune(snr=2).n_active < pruned.n_active
    assert net.prune(fraction=0.9).n_active == 6464 - round(0.9 * 6464)
    assert net.prune(snr=0).n_active == 6464
    assert "83.4 % pruned; (n, 64) -> 10 classes" in repr(pruned)


def test_the_tables_are_read_only(net):
    for network in (net, net.prune(snr=1)):
        name = network.posterior.names[0]
        for table in (network.posterior.loc, network.posterior.scale):
            with pytest.raises(ValueError, match="read-only"):
                table[name][0] = 1
            with pytest.raises(TypeError):
                table[name] = np.zeros(3)


def test_draws_are_rounded_up_to_pairs(net, digits):
    odd, even = (net.predict(digits.x[:9], n_draws=n) for n in (3, 4))
    assert odd.n_draws == 4
    assert same_bits(odd.mean_probability, even.mean_probability)
    assert net.predict(digits.x[:9], n_draws=3, pairing="none").n_draws == 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 63), np.float32), "one example of the data has shape (63), the network"),
        (np.zeros(64, np.float32), "has shape (), the network takes (64)"),
        (np.zeros((0, 64), np.float32), "holds no examples"),
        (np.float32(1), "holds no examples"),
        (np.zeros((3, 64), np.uint8), "is uint8, the network takes float32"),
        (np.full((3, 64), np.nan), "not finite"),
        (np.full((3, 64), 1e300), "not finite"),
        ([["text"] * 64], "the network takes float32"),
        ([[0.0], [0.0, 1.0]], "is no array"),
    ],
)
def test_examples_that_do_not_fit(net, x, message):
    for call in (net.predict, net.logits):
        with pytest.raises(DataError, match=re.escape(message)) as caught:
            call(x)
        assert len(str(caught.value).splitlines()) == 1


def test_outputs_that_are_not_finite(net):
    with pytest.raises(BpruneError, match="not finite for the posterior mean; check the scale"):
        net.predict(np.full((3, 64), 3e38), n_draws=2)


def test_weights_that_do_not_fit(net, digits):
    weights = dict(net.posterior.loc)
    first, *others = weights
    with pytest.raises(DataError, match="missing or unknown"):
        net.logits(digits.x, {name: weights[name] for name in others})
    with pytest.raises(DataError, match="'kernel' missing or unknown"):
        net.logits(digits.x, {**weights, "kernel": weights[first]})
    with pytest.raises(DataError, match=r"shape \(64,\), the network takes \(64, 64\)"):
        net.logits(digits.x, {**weights, first: np.zeros(64)})


def test_numbers_out_of_range(net, digits):
    for arguments in ({}, {"snr": 1, "fraction": 0.5}, {"snr": -1}, {"fraction": 1}):
        with pytest.raises(ConfigError, match="prune"):
            net.prune(**arguments)
    for name, value in (
        ("n_draws", 0), ("seed", -1), ("seed", 2**64), ("pairing", "both"), ("batch_size", 0),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=name):
            net.predict(digits.x, **{name: value})
    with pytest.raises(CheckpointError, match="no such embedded case"):
        bprune_hpc.load("embedded:nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bprune_hpc.nothing  # noqa: B018


@pytest.mark.parametrize("model", ["dense_flipout", "normal"])
def test_keras_weights(tmp_path, model):
    import_tensorflow()
    built = getattr(small_models, model)()
    file = tmp_path / "net.weights.h5"
    built.save_weights(str(file))
    if model == "normal":
        with pytest.raises(GraphError, match="gives a Normal distribution"):
            bprune_hpc.load(file, model=f"small_models:{model}")
        return
    net = bprune_hpc.load(file, model=f"small_models:{model}")
    kernels = [v.numpy() for v in built.variables if v.name.endswith("kernel_posterior_loc:0")]
    found = [loc for name, loc in net.posterior.loc.items() if "kernel" in name]
    for kernel, loc in zip(kernels, found, strict=True):
        np.testing.assert_array_equal(kernel, loc)
    predicted = net.predict(np.ones((2, 4), np.float32), n_draws=4)
    np.testing.assert_allclose(predicted.mean_probability.sum(axis=1), 1, rtol=1e-6)


def test_the_package_offers_it_without_loading_tensorflow():
    program = (
        "import sys, bprune_hpc\n"
        "assert {'load', 'results', 'graph_info'} <= set(dir(bprune_hpc))\n"
        "assert not {'bprune_hpc.library', 'numpy'} & set(sys.modules), 'import is not light'\n"
        "assert callable(bprune_hpc.load) and callable(bprune_hpc.results.read)\n"
        "assert callable(bprune_hpc.graph_info.write)\n"
        "assert not {'tensorflow', 'mpi4py'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_document_runs_as_it_stands(tmp_path, monkeypatch):
    """Each ``python`` block runs in turn; a ``text`` block after one is what it prints."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks].count("python") >= 4
    names: dict[str, object] = {}
    printed = ""
    for language, block in blocks:
        if language == "python":
            assert not printed, f"printed, but not shown in the document:\n{printed}"
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, str(DOCUMENT), "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert block == printed
            printed = ""
    assert not printed
