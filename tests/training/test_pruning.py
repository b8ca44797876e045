"""Weights that are pruned while a network is trained, and stay so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import sweep, train
from bprune_hpc.errors import ConfigError
from bprune_hpc.mpi.comm import EndedByRoot, SerialComm
from bprune_hpc.results import read
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import graph
from bprune_hpc.training.config import fraction_to_prune
from bprune_hpc.training.pruning import prune
from tests.helpers.flags import foreign_flags
from tests.helpers.steps import Steps, random_masks
from tests.helpers.trainings import SMALL, assert_same_bits, config, variables

KINDS = [
    ["--model=dense"], ["--posterior=local"], ["--model=conv_flipout"],
    ["--posterior=reparameterization"],
    pytest.param(["--model=resnet18"], marks=pytest.mark.slow),
    ["--task=regression", "--estimator=local"],
]  # fmt: skip
Make = Callable[..., Steps]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Steps] = []

    def build(*flags: str, **options: int) -> Steps:
        made.append(Steps(*flags, is_masked=True, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


def pruned_values(training: graph.Training, session, masks) -> dict[str, np.ndarray]:
    """Of pruned weights: means, standard deviations, and the optimizer's averages of both."""
    network, found = training.network, {}
    state = graph.state_of(training, session)
    scales = session.run(network.scales)
    for layer, loc in network.loc_variables.items():
        gone = ~masks[loc.op.name]
        raw = network.untransformed_scales[layer].op.name
        found[f"{layer}/scale"] = scales[layer][gone]
        slots = [n for n in state if n.startswith((f"{loc.op.name}/", f"{raw}/"))]
        assert len(slots) == 4  # both of Adam, of both
        for name in (loc.name, *slots):
            found[name] = state[name][gone]
    return found


@pytest.mark.parametrize("flags", KINDS)
def test_pruned_weights_are_exactly_zero_after_every_step(make, flags):
    steps = make(*flags)
    training, session = steps.training, steps.session
    take = graph.step_of(training, session, steps.noise)
    rate, one = np.float32(0.05), np.float32(1)
    take(steps.x, steps.y, rate, one)  # so that the averages are not zero by themselves
    masks = random_masks(training)
    assert any(v.any() for v in pruned_values(training, session, masks).values())
    prune(training, session, masks)
    before = graph.state_of(training, session)
    for _ in range(50):
        assert np.isfinite(take(steps.x, steps.y, rate, one))
        for name, values in pruned_values(training, session, masks).items():
            assert not values.any(), name
    after = graph.state_of(training, session)
    for loc in training.network.loc_variables.values():
        kept = masks[loc.op.name]
        assert (before[loc.name] != after[loc.name])[kept].mean() > 0.9


@pytest.mark.parametrize("flags", KINDS)
def test_gradients_of_what_is_kept_are_those_that_tensorflow_finds(make, flags):
    steps = make(*flags, "--prior_scale=0.7")
    tf, training = import_tensorflow(), steps.training
    prune(training, steps.session, random_masks(training))
    with training.graph.as_default():
        loss = training.nll + training.kl_factor * training.network.kl
        every = training.graph.get_collection("trainable_variables")
        expected = tf.gradients(loss, every)
    found, wanted = steps.session.run((training.gradients, expected), steps.feed(0.4))
    masks = random_masks(training)
    owner = {}
    for layer, loc in training.network.loc_variables.items():
        owner[loc.name] = owner[training.network.untransformed_scales[layer].name] = loc.op.name
    for variable, mine, theirs in zip(every, found, wanted, strict=True):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        kept = masks[owner[variable.name]] if variable.name in owner else ...
        assert np.isfinite(theirs).all()
        largest = np.abs(theirs).max()
        np.testing.assert_allclose(mine[kept], theirs[kept], rtol=2e-4, atol=2e-5 * largest,
                                   err_msg=variable.name)  # fmt: skip
        if variable.name in owner:
            assert not mine[~kept].any()


def test_the_divergence_is_that_of_the_weights_that_are_kept(make):
    steps = make("--prior_scale=0.7", "--hidden=")
    training, session = steps.training, steps.session
    masks = random_masks(training)
    prune(training, session, masks)
    network = training.network
    kl, locs, scales = session.run((network.kl, network.locs, network.scales))
    expected = 0.0
    for layer, loc in network.loc_variables.items():
        kept = masks[loc.op.name]
        m, s = np.float64(locs[layer][kept]), np.float64(scales[layer][kept])
        expected += (np.log(0.7 / s) + (s**2 + m**2) / (2 * 0.49) - 0.5).sum() / 40
    assert kl == pytest.approx(expected, rel=1e-5)


def test_logits_are_those_of_a_network_without_these_weights(make):
    """In a draw of the weights; after 50 steps with them held."""
    steps = make("--hidden=6,4", "--posterior=reparameterization")
    training, session = steps.training, steps.session
    masks = random_masks(training)
    prune(training, session, masks)
    take = graph.step_of(training, session, steps.noise)
    for _ in range(50):
        take(steps.x, steps.y, np.float32(0.01), np.float32(1))
    feed = steps.feed(1.0)
    found = session.run(training.network.logits, feed)
    scales, state = session.run(training.network.scales), graph.state_of(training, session)
    x, names = np.float64(steps.x), list(training.network.loc_variables)
    for layer, normals in zip(names, steps.noise.fed[: len(names)], strict=True):
        loc = training.network.loc_variables[layer]
        kept = masks[loc.op.name]
        normal = feed[normals].reshape(kept.shape)
        drawn = np.float64(state[loc.name]) + np.float64(scales[layer]) * normal
        bias = state[loc.name.replace("kernel_posterior_loc", "bias_posterior_loc")]
        # Each unit from the inputs that it still has.
        units = [x[:, kept[:, k]] @ drawn[kept[:, k], k] + bias[k] for k in range(len(bias))]
        x = np.stack(units, axis=1)
        x = np.maximum(x, 0) if layer != names[-1] else x
    assert np.abs(x).max() > 0.1
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("constant --final_fraction=0.8 --begin_epoch=2", {2: 0.8}),
        # 0.9 (1 - (1 - (t - 2) / 6)^3), by hand
        ("polynomial --final_fraction=0.9 --begin_epoch=2 --end_epoch=8 --frequency=2",
         {2: 0.0, 4: 0.9 * 19 / 27, 6: 0.9 * 26 / 27, 8: 0.9}),
        ("polynomial --initial_fraction=0.5 --final_fraction=0.9 --end_epoch=3 --frequency=2",
         {0: 0.5, 2: 0.9 - 0.4 / 27, 3: 0.9}),
    ],
)  # fmt: skip
def test_the_schedules(flags, expected):
    given = config("--epochs=12", *f"--prune_schedule={flags}".split())
    due = {epoch: fraction_to_prune(given, epoch) for epoch in range(12)}
    assert {e: f for e, f in due.items() if f is not None} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mask=m.npz", "--mask: prunes a trained network"),
        ("--prune_schedule=constant", "--final_fraction=None: must be given"),
        ("--final_fraction=0.5", "left out without a schedule"),
        ("--prune_schedule=constant --final_fraction=1", "below 1"),
        ("--prune_schedule=polynomial --final_fraction=0.5", "--end_epoch=None: must be given"),
        ("--prune_schedule=polynomial --final_fraction=0.5 --end_epoch=500", "must be 1 to 199"),
    ],
)
def test_what_does_not_fit_is_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        config(*flags.split())


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at signals and the clock before every step."""
    import_tensorflow()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    monkeypatch.setattr(train, "_LOOK_S", 0.0)


def run(directory: Path, *flags: str, ask: train.Ask | None = None) -> int:
    given = config(*SMALL, f"--model_dir={directory}", *flags)
    return train.train(given, SerialComm(), ask=ask)[0]


def refused(*flags: str) -> str:
    """What is said in place of a training."""
    with pytest.raises(EndedByRoot) as caught:
        run(Path("refused"), *flags)
    assert caught.value.code == 2 and not Path("refused").exists()
    assert not foreign_flags(caught.value.message, train.parser())
    return caught.value.message


SCHEDULE = (
    "--prune_schedule=polynomial",
    "--final_fraction=0.8",
    "--begin_epoch=1",
    "--end_epoch=3",
)


def test_a_schedule_that_is_cut_off_goes_on_with_the_same_bits(looks, tmp_path):
    assert run(tmp_path / "whole", *SCHEDULE) == 0
    for n in (28, 30, 20):  # the first is where an epoch ends
        left = iter(range(n))
        ask = lambda timing, left=left: None if next(left, None) is not None else "the test"  # noqa: E731
        assert run(tmp_path / "case", *SCHEDULE, ask=ask) == train.STOPPED
    assert run(tmp_path / "case", *SCHEDULE) == 0
    assert_same_bits(variables(tmp_path / "whole"), variables(tmp_path / "case"))
    record = json.loads((tmp_path / "case" / "train.json").read_text())
    assert record["pruned_fraction"] == pytest.approx(0.8, abs=1e-3)


def test_a_network_is_pruned_by_its_sweep_and_trained_on(looks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(Path("first")) == 0
    asked = ["--dataset=digits", "--num_monte_carlo=4"]
    grid = "--prune_fractions=0,0.5,0.75"
    assert sweep.main(["--model_dir=first", *asked, grid, "--output=first.h5"]) == 0
    on = ("--start_from=first", "--mask=first.h5", "--at=fraction=0.75")
    assert run(Path("second"), *on) == 0
    assert (
        sweep.main(["--model_dir=second", *asked, "--thresholds=0,0.1", "--output=second.h5"]) == 0
    )
    sparsity = read("second.h5").sparsity
    first, second = variables(Path("first")), variables(Path("second"))
    n_weights = n_kept = 0
    for name in (n for n in first if n.endswith("kernel_posterior_loc")):
        mask = second[name.replace("_loc", "_mask")]
        assert not second[name][mask == 0].any() and (second[name] != first[name]).any()
        n_weights, n_kept = n_weights + mask.size, n_kept + mask.sum()
    assert n_kept == n_weights - round(0.75 * n_weights)
    assert sparsity.n_active.values[0] == n_kept >= sparsity.n_active.values[1]
    # What is pruned stays so without its mask being named again, and the prior is still known.
    assert run(Path("third"), "--start_from=second", "--epochs=1") == 0
    third = variables(Path("third"))
    for name in (n for n in third if n.endswith("_mask")):
        assert (third[name] == second[name]).all()
    # Another network is not the one that was swept.
    assert refused("--start_from=second", "--mask=first.h5", "--at=index=1").endswith(
        "sweep it, or name the case as it was with --start_from"
    )
    of_mask = ("--start_from=first", "--mask=first.h5")
    assert "no fraction 0.6" in refused(*of_mask, "--at=fraction=0.6")
    of_prior = ["--model_dir=third", *asked, "--criterion=kl", "--output=third.h5"]
    assert sweep.main([*of_prior, "--thresholds=0"]) == 0


def test_what_a_training_cannot_begin_with_is_refused(looks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(Path("first"), "--epochs=1") == 0

    assert "no such file" in refused("--start_from=first", "--mask=none.npz")
    assert "nowhere: no such directory; check the path" in refused("--start_from=nowhere")
    Path("empty").mkdir()
    Path("empty/checkpoint").touch()
    assert "mend the file 'checkpoint' there" in refused("--start_from=empty")
    assert "pass the flags" in refused("--start_from=first", "--hidden=13")
    name = next(n for n in variables(Path("first")) if n.endswith("kernel_posterior_loc"))
    for content, message in [
        ({"other": np.ones(3, bool)}, "has 'other', and the network has"),
        ({name: np.ones(3, bool)}, r"has shape \(3,\)"),
        ({name: np.ones(3)}, "holds float64, not which weights stay"),
    ]:
        np.savez("m.npz", **content)
        assert re.search(message, refused("--start_from=first", "--mask=m.npz"))
