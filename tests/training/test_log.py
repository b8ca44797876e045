"""Numbers on the way: the loss of the test half with its error, and logs that a resume goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import norm

from bprune_hpc import train
from bprune_hpc.errors import ConfigError
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import log
from bprune_hpc.training.validation import log_likelihood, validate
from tests.helpers.trainings import SMALL, assert_same_bits, config, variables

VALIDATED = ("--validate_every=2", "--n_draws_validate=4")


def test_the_loss_is_that_of_the_averaged_predictive():
    rng = np.random.default_rng(0)
    draws, y = rng.normal(size=(5, 30, 3)), rng.integers(0, 3, 30)
    found = validate(iter(draws), y, None)
    mean = softmax(draws, axis=2).mean(axis=0)
    losses = -np.log(mean[np.arange(30), y])
    assert found.nll == pytest.approx(losses.mean(), rel=1e-12)
    without = []
    for k in range(5):
        others = softmax(np.delete(draws, k, axis=0), axis=2).mean(axis=0)
        without.append(-np.log(others[np.arange(30), y]).mean())
    of_draws = 4 / 5 * ((np.array(without) - np.mean(without)) ** 2).sum()
    assert found.nll_se == pytest.approx(np.sqrt(of_draws + losses.var(ddof=1) / 30), rel=1e-12)
    np.testing.assert_allclose(
        log_likelihood(draws[0], y, None), log_softmax(draws[0], axis=1)[np.arange(30), y]
    )
    assert np.isnan(validate(iter(draws[:, :1]), y[:1], None).nll_se)
    targets = rng.normal(size=30)
    of_normals = norm.pdf(targets, draws[:, :, 0], 0.7).mean(axis=0)
    regression = validate(iter(draws[:, :, :1]), targets, 0.7)
    assert regression.nll == pytest.approx(-np.log(of_normals).mean(), rel=1e-12)


def test_its_error_is_that_of_other_draws_and_other_examples():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        shared = 0.7 * rng.normal(size=(16, 1, 2))  # what the draws do to all examples alike
        of_examples = rng.normal(size=(40, 2))
        y = (rng.random(40) < softmax(of_examples, axis=1)[:, 1]).astype(int)
        found.append(validate(iter(of_examples + shared), y, None))
    spread = np.std([one.nll for one in found])
    assert np.sqrt(np.mean([one.nll_se**2 for one in found])) == pytest.approx(spread, rel=0.1)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A look at signals and the clock before every step."""
    import_tensorflow()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    monkeypatch.setattr(train, "_LOOK_S", 0.0)
    monkeypatch.chdir(tmp_path)


def run(directory: str, *flags: str, stop: int | None = None) -> int:
    left = iter(range(10**6 if stop is None else stop))
    ask = lambda timing: None if next(left, None) is not None else "the test"  # noqa: E731
    given = config(*SMALL, f"--model_dir={directory}", *flags)
    return train.train(given, SerialComm(), ask=ask)[0]


def test_a_table_is_gone_on_with(looks):
    assert run("plain") == 0
    assert run("whole", "--log=csv", *VALIDATED) == 0
    assert_same_bits(variables(Path("plain")), variables(Path("whole")))
    # Stopped within the third epoch, of which rows are there that no checkpoint has.
    assert run("case", "--log=csv", *VALIDATED, stop=70) == train.STOPPED
    with Path("case.training/log.csv").open("ab") as file:
        file.write(b"3,84,9.9,,,,,\n3,8\xff")
    assert run("case", "--log=csv", *VALIDATED) == 0
    assert_same_bits(variables(Path("whole")), variables(Path("case")))
    assert Path("case/log.csv").read_bytes() == Path("whole/log.csv").read_bytes()
    rows = list(csv.DictReader(Path("case/log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [int(row["step"]) for row in rows] == [28, 56, 84, 112]
    assert [row["validation_nll"] != "" for row in rows] == [False, True, False, True]
    assert float(rows[3]["nll"]) < float(rows[0]["nll"])
    assert 0 < float(rows[3]["validation_nll"]) < float(rows[1]["validation_nll"])
    assert 0 < float(rows[3]["validation_nll_se"]) < 0.2
    # It is a file of the case, which another training replaces with it.
    assert run("case", "--overwrite", "--epochs=1") == 0
    assert not Path("case/log.csv").exists()


def test_what_tensorboard_shows_is_gone_on_with(looks):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    flags = ("--log=tensorboard", *VALIDATED)
    assert run("case", *flags, stop=70) == train.STOPPED
    ahead = log.open_log("tensorboard", Path("case.training"), 2, 70)
    ahead.write({"epoch": 3, "step": 84, "nll": 9.9})  # of a job that was killed then
    ahead.close()
    assert run("case", *flags) == 0
    found = events.EventAccumulator("case")
    found.Reload()
    assert set(found.Tags()["scalars"]) == {
        "nll", "kl", "learning_rate", "validation_nll", "validation_nll_se"
    }  # fmt: skip
    nll = {event.step: event.value for event in found.Scalars("nll")}
    assert list(nll) == [28, 56, 84, 112] and nll[84] < 9
    assert [event.step for event in found.Scalars("validation_nll")] == [56, 112]


def test_validation_needs_two_draws():
    with pytest.raises(ConfigError, match="--n_draws_validate=1: must be 2 or more"):
        config("--n_draws_validate=1")
    with pytest.raises(ConfigError, match="--log"):
        config("--log=xml")
