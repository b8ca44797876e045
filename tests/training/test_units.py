"""Tables that have no halves, split by the trainer; units of the data inside of the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import sweep, train
from bprune_hpc.config.sweep_config import parse
from bprune_hpc.data.splitting import held_out
from bprune_hpc.errors import ConfigError
from bprune_hpc.mpi.comm import EndedByRoot, SerialComm
from bprune_hpc.results import read
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training.units import units_of
from tests.helpers.trainings import config, variables

N = 120
HELD_OUT = 24


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import_tensorflow()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    monkeypatch.chdir(tmp_path)


def table() -> tuple[np.ndarray, np.ndarray]:
    """Inputs far from 0 and of very different size, one of them the same in all rows."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal([5, -300, 0.002], [2, 80, 0.001], (N, 3)), 6)
    y = 40 + 3 * (x[:, 0] - 5) + (x[:, 1] + 300) / 40 + rng.normal(0, 2, N)
    x = np.column_stack([x, np.full(N, 7.7)])
    rows = np.column_stack([x[:, :1], y, x[:, 1:]])
    np.savetxt("table.csv", rows, fmt="%.6f", delimiter=",", header="a,price,b,c,d", comments="")
    return x, np.round(y, 6)


TABLE = ("--data_path=table.csv", "--target_columns=price", "--task=regression",
         "--test_fraction=0.2", "--standardize", "--hidden=5", "--epochs=60", "--batch_size=16",
         "--learning_rate=0.02", "--n_draws_eval=20")  # fmt: skip


def run(directory: str, *flags: str) -> int:
    return train.train(config(f"--model_dir={directory}", *flags), SerialComm())[0]


def refused(*flags: str) -> str:
    with pytest.raises(EndedByRoot) as caught:
        run("case", *flags)
    assert caught.value.code == 2
    return caught.value.message


def test_a_table_is_split_and_the_network_knows_the_units_of_its_training_half():
    x, y = table()
    assert run("case", *TABLE) == 0
    halves = np.load("case/split.npz")
    test = [int(np.flatnonzero(y == one)[0]) for one in halves["y_test"]]
    is_held_out = np.isin(np.arange(N), test)
    assert len(set(test)) == HELD_OUT
    np.testing.assert_allclose(halves["x_test"], x[test], rtol=1e-6)
    np.testing.assert_array_equal(np.sort(halves["y_train"]), np.sort(y[~is_held_out]))
    # Nothing of the test half is in the units.
    found = variables(Path("case"))
    mean, scale = x[~is_held_out].mean(0), x[~is_held_out].std(0)
    np.testing.assert_allclose(found["standardize/mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["standardize/scale"][:3], scale[:3], rtol=1e-5)
    assert found["standardize/scale"][3] == 1
    assert found["standardize/target_mean"] == pytest.approx(y[~is_held_out].mean(), rel=1e-6)
    assert found["standardize/target_scale"] == pytest.approx(y[~is_held_out].std(), rel=1e-6)
    # The network by hand, in the units of the table.
    hidden = (x[is_held_out] - mean) / np.where(np.ptp(x, axis=0) == 0, 1, scale)
    for layer in ("dense_flipout", "dense_flipout_1"):
        kernel, bias = (found[f"sequential/{layer}/{n}_posterior_loc"] for n in ("kernel", "bias"))
        hidden = (hidden if layer == "dense_flipout" else np.maximum(hidden, 0)) @ kernel + bias
    by_hand = y[~is_held_out].mean() + y[~is_held_out].std() * hidden[:, 0]
    error = np.sqrt(((by_hand - y[is_held_out]) ** 2).mean())
    report = json.loads(Path("case/train.json").read_text())
    assert report["rmse_mean_weights"] == pytest.approx(error, rel=1e-3)
    assert error < 0.75 * y.std() and report["data"]["held_out"]
    assert 1.5 < report["noise_scale"] < 3.5  # 2 were added
    # A sweep that is told no data takes the half that was held out; and the other for its energy.
    asked = ["--model_dir=case", "--prune_fractions=0", "--num_monte_carlo=200"]
    assert sweep.main([*asked, "--elbo_path=case/split.npz", "--output=a.h5"]) == 0
    of_sweep = read("a.h5")
    assert of_sweep.attrs["n_examples"] == HELD_OUT
    assert of_sweep.metrics.rmse_mean_weights.values[0] == pytest.approx(error, rel=1e-3)
    assert of_sweep["free_energy"].attrs["n_examples"] == N - HELD_OUT


def test_a_sweep_of_what_is_not_held_out_is_told_of(caplog):
    Path("case").mkdir()
    assert parse(["--model_dir=case"]).data_path is None
    Path("case/split.npz").touch()
    assert parse(["--model_dir=case"]).data_path == "case/split.npz"
    assert parse(["--model_dir=case", "--data_path=case/../case/split.npz"]).data_path
    assert not caplog.text
    for flags, path in (["--data_path=table.csv"], "table.csv"), (["--dataset=digits"], None):
        caplog.clear()
        assert parse(["--model_dir=case", *flags]).data_path == path
        assert "case/split.npz has what was held out of the training" in caplog.text


def test_another_seed_holds_out_others_and_a_resume_tells_them_apart():
    table()
    short = [*TABLE, "--epochs=1"]
    assert run("case", *short) == 0
    assert "already holds" not in refused(*short, "--split_seed=1")
    for flags, name in (
        (["--split_seed=1"], "--split_seed 0, now 1"),
        (["--prune_schedule=constant", "--final_fraction=0.5"], "--final_fraction none, now 0.5"),
        (["--posterior=local"], "--estimator flipout, now local"),
    ):
        assert name in refused(*short, *flags)
    without = [flag for flag in short if flag != "--standardize"]
    assert "--standardize True, now False" in refused(*without)
    assert run("other", *short, "--split_seed=1") == 0
    one, other = (set(np.load(f"{d}/split.npz")["y_test"]) for d in ("case", "other"))
    assert len(one & other) < HELD_OUT
    # A network goes on with the units that it has.
    message = refused(*without, "--model_dir=third", "--start_from=case")
    assert "pass --standardize, as the network was trained" in message
    assert run("third", *without) == 0
    message = refused(*short, "--model_dir=fourth", "--start_from=third")
    assert "leave --standardize out, as the network was trained" in message
    of_classes = ["--dataset=digits", "--standardize", "--hidden=5", "--epochs=1"]
    message = refused(*of_classes, "--model_dir=fifth", "--start_from=case")
    assert "pass the flags that the network was trained with" in message
    assert run("fourth", *short, "--split_seed=1", "--start_from=case") == 0
    before, after = variables(Path("case")), variables(Path("fourth"))
    for name in ("mean", "scale", "target_mean", "target_scale"):
        np.testing.assert_array_equal(before[f"standardize/{name}"], after[f"standardize/{name}"])


def test_classes_that_are_text_and_one_that_is_nowhere_in_the_training_half(caplog):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2)).round(3)
    kinds = np.where(x[:, 0] > 0, "yes", "no").astype(object)
    kinds[7] = "maybe"  # alone in its class
    lines = [f"{a},{b},{kind}\n" for (a, b), kind in zip(x, kinds, strict=True)]
    Path("t.csv").write_text("".join(lines))
    flags = ["--data_path=t.csv", "--test_fraction=0.5", "--hidden=4", "--epochs=2",
             "--batch_size=10", "--n_draws_eval=2", "--standardize"]  # fmt: skip
    seed = next(seed for seed in range(50) if held_out(60, 0.5, seed)[7])
    assert run("case", *flags, f"--split_seed={seed}") == 0
    assert "no example to train on is of class 0, and 1 of the test half are" in caplog.text
    halves = np.load("case/split.npz")
    assert 0 in halves["y_test"] and 0 not in halves["y_train"]
    assert sweep.main(["--model_dir=case", "--thresholds=0", "--num_monte_carlo=4",
                       "--output=a.h5"]) == 0  # fmt: skip
    assert len(read("a.h5")["class"]) == 3


def test_what_cannot_be_split_is_refused():
    assert "has a test half; leave the flag out" in refused("--dataset=digits",
                                                            "--test_fraction=0.1")  # fmt: skip
    for value in ("0", "1", "-0.1", "nan"):
        with pytest.raises(ConfigError, match="must be above 0 and below 1"):
            config(f"--test_fraction={value}")
    np.savez("two.npz", x=np.zeros((8, 3)), y=np.zeros((8, 2)))
    message = refused("--data_path=two.npz", "--task=regression", "--batch_size=2")
    assert "has 2 targets an example, the network gives 1" in message


def test_units_of_what_does_not_vary_are_one():
    x = np.full((5, 2, 2), 0.1, np.float32)
    x[:, 0, 1] = [1, 2, 3, 4, 5]
    of_targets = units_of(x, np.full(5, 3, np.float32))
    np.testing.assert_allclose(of_targets.mean, [0.1, 3, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(of_targets.scale, [1, np.sqrt(2), 1, 1], rtol=1e-6)
    assert (of_targets.target_mean, of_targets.target_scale) == (3, 1)
    of_classes = units_of(x, np.arange(5))
    assert (of_classes.target_mean, of_classes.target_scale) == (0, 1)
