"""Priors read from graphs: which one, and when there is none that can be known."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import results, sweep
from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.checkpoints.keras_tracing import build_model
from bprune_hpc.graph.priors import fit
from bprune_hpc.posterior.criteria import bmr, kl
from bprune_hpc.posterior.mean_field import Prior
from tests.helpers.launch import THETA_DIR, needs_theta


def posterior(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    loc = generator.normal(0, 0.4, n).astype(np.float32)
    return loc, np.exp(generator.normal(-1, 0.7, n)).astype(np.float32)


def divergence(loc: np.ndarray, scale: np.ndarray, prior: Prior) -> np.ndarray:
    """As float32 arithmetic has it, term by term."""
    m0, s0 = np.float32(prior.loc), np.float32(prior.scale)
    ratio = np.square(scale / s0)
    half = np.float32(0.5)
    return np.square(loc - m0) / (2 * s0 * s0) + half * (ratio - 1 - np.log(ratio))


@pytest.mark.parametrize("n", [4, 40, 4000])
@pytest.mark.parametrize(
    "prior", [Prior(0, 1), Prior(0, 0.3), Prior(0, 20), Prior(-0.5, 0.3), Prior(2, 1)]
)
def test_the_prior_is_the_one_that_the_divergence_is_from(prior: Prior, n: int) -> None:
    loc, scale = posterior(n)
    assert fit(loc, scale, divergence(loc, scale, prior)) == prior


def test_long_decimals_are_found_to_float32s_precision() -> None:
    loc, scale = posterior(4000)
    found = fit(loc, scale, divergence(loc, scale, Prior(0.1234567, 1 / 3)))
    assert found is not None
    assert found.loc == pytest.approx(0.1234567, abs=1e-6)
    assert found.scale == pytest.approx(1 / 3, rel=3e-6)


def test_what_is_no_divergence_from_a_normal_has_no_prior() -> None:
    loc, scale = posterior(400)
    right = divergence(loc, scale, Prior(0, 1))
    one_off = right.copy()
    one_off[7] += 1e-3
    laplace = np.log(2 / scale) - 0.5 + np.abs(loc)  # near the true one for small scales
    for wrong in (2 * right, right / 1000, right + 1, one_off, laplace, np.full(400, np.nan)):
        assert fit(loc, scale, wrong) is None
    assert fit(loc, scale, -np.log(scale)) is None


def test_too_little_to_tell() -> None:
    loc, scale = posterior(2)
    assert fit(loc, scale, divergence(loc, scale, Prior(0, 1))) is None
    loc, scale = np.zeros(50, np.float32), np.full(50, 0.1, np.float32)
    assert fit(loc, scale, divergence(loc, scale, Prior(0, 1))) is None
    loc, scale = posterior(50)
    assert fit(loc, 0 * scale, np.full(50, np.inf)) is None


def test_scores_with_a_prior_that_is_not_centred() -> None:
    loc, scale = posterior(50)
    prior = Prior(-0.5, 0.3)
    expected = divergence(loc, scale, prior)
    np.testing.assert_allclose(kl(loc, scale, prior.scale, prior.loc), expected, rtol=1e-5)
    # ln p(0) - ln q(0), written out.
    log_p = -np.log(0.3) - (0.5 / 0.3) ** 2 / 2
    log_q = -np.log(np.float64(scale)) - (np.float64(loc) / scale) ** 2 / 2
    np.testing.assert_allclose(bmr(loc, scale, prior.scale, prior.loc), log_p - log_q, rtol=1e-9)


# Graphs


def test_the_trainers_own_graph(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        case = read_case("embedded:digits_fc", with_prior=True)
    assert case.prior == dict.fromkeys(case.posterior.names, Prior(0, 1))
    assert "prior of sequential/dense_flipout/kernel_posterior_loc: N(0, 1²)" in caplog.text


@needs_theta
def test_a_graph_of_tensorflow_1_14() -> None:
    case = read_case(THETA_DIR, with_prior=True)
    assert case.prior == dict.fromkeys(case.posterior.names, Prior(0, 1))


def saved_weights(path: Path, model: str) -> str:
    """Weights of a small model, at random; what ``--model`` has to be."""
    name, generator = f"tests.helpers.small_models:{model}", np.random.default_rng(0)
    built = build_model(name)
    built.set_weights([generator.normal(0, 0.5, w.shape) for w in built.get_weights()])
    built.save_weights(path)
    return name


KNOWN = {
    "first/kernel_posterior_loc": Prior(0, 0.3),
    "first/bias_posterior_loc": Prior(-0.25, 2),
    "last/kernel_posterior_loc": Prior(1.5, 0.123456),
}


def test_a_sweep_takes_each_tensors_own_prior(tmp_path: Path) -> None:
    weights, path = tmp_path / "net.weights.h5", tmp_path / "sweep.h5"
    model = saved_weights(weights, "known_priors")
    case = read_case(weights, model=model, with_prior=True)
    assert case.prior == KNOWN
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 4), np.float32), y=np.arange(6) % 3)
    flags = [
        f"--model_dir={weights}", f"--model={model}", f"--data_path={tmp_path / 'd.npz'}",
        "--criterion=kl", "--num_monte_carlo=2", "--thresholds=0,1", f"--output={path}",
    ]  # fmt: skip
    assert sweep.main(flags) == 0
    sparsity = results.read(path).sparsity
    assert dict(zip(sparsity.layer.values, sparsity.prior_loc.values, strict=True)) == {
        name: prior.loc for name, prior in KNOWN.items()
    }
    n_kept = sum(
        int((kl(loc, case.posterior.scale[name], KNOWN[name].scale, KNOWN[name].loc) > 1).sum())
        for name, loc in case.posterior.loc.items()
    )
    assert 0 < n_kept < case.posterior.n_weights and sparsity.n_active[1] == n_kept
    # What is given counts for all.
    assert sweep.main([*flags, "--prior_scale=0.5", "--overwrite"]) == 0
    sparsity = results.read(path).sparsity
    assert sparsity.attrs["prior_scale"] == 0.5 and "prior_scale" not in sparsity
    assert sparsity.n_active[1] != n_kept


@pytest.mark.slow
def test_a_saved_model_keeps_the_divergences(tmp_path: Path) -> None:
    built = build_model("tests.helpers.small_models:known_priors")
    generator = np.random.default_rng(0)
    built.set_weights([generator.normal(0, 0.5, w.shape) for w in built.get_weights()])
    built.save(tmp_path / "saved")
    assert read_case(tmp_path / "saved", with_prior=True).prior == KNOWN


def test_a_prior_that_cannot_be_known_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "net.weights.h5"
    model = saved_weights(weights, "unknown_priors")
    case = read_case(weights, model=model, with_prior=True)
    assert case.prior == {"first/kernel_posterior_loc": Prior(0, 1)}
    assert len(case.posterior.names) == 4
    flags = [
        f"--model_dir={weights}",
        f"--model={model}",
        "--criterion=bmr",
        "--thresholds=none",
        "--dataset=digits",
    ]
    assert sweep.main([*flags, f"--output={tmp_path / 'sweep.h5'}"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "--criterion=bmr: the prior is not known" in error and "and 2 more tensors" in error
    assert error.endswith("with --prior_scale")
    assert not (tmp_path / "sweep.h5").exists()
