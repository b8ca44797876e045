"""The free energy along a sweep: against TFP, what it leaves as it is, and what is refused.

Ranks, stops and blocks: two of ``tests.helpers.sweeps.KINDS`` have it.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import results, sweep
from bprune_hpc.config import sweep_config
from bprune_hpc.posterior.draws import standard_normal
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import fake_problem
from tests.helpers.bits import all_bits
from tests.helpers.sweeps import FLAGS, KINDS, start

CHOOSE = ["--elbo_dataset=digits", "--choose=free_energy"]
OF = {"classes": "training data", "regression": "blocks and training data"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_problem.install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def tfp():
    import_tensorflow()
    import tensorflow_probability

    return tensorflow_probability


@pytest.mark.parametrize("task", OF)
def test_it_is_what_tfp_finds_on_the_same_draws(fake, tmp_path, tfp, task):
    """TFP's divergences and log-probabilities, in float64; errors over pairs by hand."""
    kind, path = OF[task], tmp_path / "s.h5"
    assert start(path, *KINDS[kind], *FLAGS, "--prior_scale=0.7") == 0
    config = sweep_config.parse([*KINDS[kind], *FLAGS])
    network, (*_, training) = fake_problem.problem(config)
    (name,) = network.posterior.names
    loc, scale = (np.float64(one[name]) for one in (network.posterior.loc, network.posterior.scale))
    snr, x = np.abs(loc) / scale, np.float64(training.x)
    energies = []
    with h5py.File(path) as file:
        found = {key: item[()] for key, item in file["free_energy"].items()}
        assert file["free_energy"].attrs["n_examples"] == 53
    for index, threshold in enumerate((0, 0.5, 1)):
        kept = (snr > threshold) | (threshold == 0)
        divergence = tfp.distributions.kl_divergence(
            tfp.distributions.Normal(loc[kept], scale[kept]),
            tfp.distributions.Normal(np.float64(0), np.float64(0.7)),
        ).numpy().sum()  # fmt: skip
        nll = []
        for draw in range(28):
            noise = np.float64(standard_normal(0, name, draw // 2, loc.shape)) * (-1) ** draw
            outputs = x @ np.where(kept, loc + scale * noise, 0)
            if task == "classes":
                distribution = tfp.distributions.Categorical(logits=outputs)
            else:
                distribution = tfp.distributions.Normal(outputs[:, 0], np.float64(np.float32(0.7)))
            nll.append(-distribution.log_prob(training.label).numpy().sum())
        energies.append(divergence + np.reshape(nll, (14, 2)).mean(axis=1))
        assert found["complexity"][index] == pytest.approx(divergence, rel=1e-5)
        assert found["expected_nll"][index] == pytest.approx(np.mean(nll), rel=1e-5)
        assert found["free_energy"][index] == pytest.approx(energies[-1].mean(), rel=1e-5)
        for key, values in (("", energies[-1]), ("_change", energies[-1] - energies[0])):
            error = values.std(ddof=1) / np.sqrt(14)
            assert found[f"free_energy{key}_se"][index] == pytest.approx(error, rel=1e-4)
        change = energies[-1].mean() - energies[0].mean()
        assert found["free_energy_change"][index] == pytest.approx(change, rel=1e-4, abs=1e-9)
        # Savage-Dickey, by densities at zero: what is lost where weights are fixed there.
        lost = tfp.distributions.Normal(np.float64(0), np.float64(0.7)).log_prob(
            np.float64(0)
        ) - tfp.distributions.Normal(loc[~kept], scale[~kept]).log_prob(np.float64(0))
        assert found["predicted_change"][index] == pytest.approx(lost.numpy().sum(), rel=1e-6)
    assert found["free_energy_change_se"][1] < np.hypot(*found["free_energy_se"][:2])


def test_no_other_number_changes(fake, tmp_path: Path) -> None:
    plain = [flag for flag in KINDS["training data"] if "elbo" not in flag]
    assert start(tmp_path / "plain.h5", *plain, *FLAGS) == 0
    assert start(tmp_path / "energy.h5", *KINDS["training data"], *FLAGS) == 0
    with_it, without = (all_bits(tmp_path / name) for name in ("energy.h5", "plain.h5"))
    del without["attributes"]
    assert {name: with_it[name] for name in without} == without
    assert {name.partition("/")[0] for name in with_it.keys() - without} == {
        "free_energy", "attributes",
    }  # fmt: skip


def test_the_choice_is_the_minimum_and_the_table_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prior is that of the graph, the data are the ones that the network was trained on."""
    path = tmp_path / "s.h5"
    flags = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=10", f"--output={path}"]
    flags += ["--prune_fractions=0,0.5,0.85,0.99", "--choose=free_energy"]
    assert sweep.main([*flags, "--elbo_dataset=digits"]) == 0
    said = capsys.readouterr().out
    assert "free energy  in closed form" in said and "±" in said
    assert "choice: the 85 % of lowest SNR, 84.99 % pruned: the least free energy" in said
    found = results.read(path).groups["free_energy"]
    value = found.free_energy.values
    assert value.argmin() == found.attrs["minimum"] == 2 and found.may_be_minimum[2] == 1
    assert found.attrs["prior"] == "read from the graph" and found.attrs["n_examples"] == 1438
    assert (found.complexity.diff("threshold") < 0).all()
    with h5py.File(path) as file:
        assert file["choice"].attrs["index"] == 2 and file["choice"].attrs["rule"] == "free_energy"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--choose=free_energy"], "needs the training data; name them with --elbo_path"),
        (["--elbo_dataset=auto"], "--elbo_path is missing"),
        (["--elbo_path=nowhere.npz"], "nowhere.npz: no such file"),
        ([*CHOOSE, "--max_nll_rise=1"], "leave one out"),
        ([*CHOOSE, "--thresholds=1"], "is not in the sweep"),
        ([*CHOOSE, "--num_monte_carlo=2"], "standard error"),
        (["--elbo_dataset=diabetes"], "its targets are numbers"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    given = ["--model_dir=embedded:digits_fc", "--dataset=digits", *flags]
    assert sweep.main([*given, f"--output={tmp_path / 's.h5'}"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert said in error
