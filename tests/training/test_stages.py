"""A sweep at the end of each stage of a training that prunes."""

from __future__ import annotations

import json
import shutil
import time
import types
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc import data, export, load, report, sweep, train
from bprune_hpc.errors import ConfigError
from bprune_hpc.mpi.comm import EndedByRoot, SerialComm
from bprune_hpc.results import read, resume
from bprune_hpc.results.file import write
from bprune_hpc.results.swept import read_all
from bprune_hpc.runner.timing import Timing
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import stages
from bprune_hpc.training.beginning import read_beginning
from bprune_hpc.training.config import stage_ends
from tests.helpers.contents import contents
from tests.helpers.trainings import SMALL, assert_same_bits, config, variables

N_STEPS = 28  # of an epoch
SCHEDULE = ("--prune_schedule=polynomial", "--final_fraction=0.8", "--begin_epoch=1",
            "--end_epoch=3")  # fmt: skip
SWEEP = "--num_monte_carlo=6 --prune_fractions=0,0.9"


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A look at signals and the clock before every step."""
    import_tensorflow()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    monkeypatch.setattr(train, "_LOOK_S", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in one job, and the sweeps of its stages."""
    import_tensorflow()
    directory = tmp_path_factory.mktemp("stages") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_start_tensorflow", lambda config: None)
        assert run(str(directory), f"--sweep_stages={SWEEP}") == 0
    return directory


def run(directory: str, *flags: str, ask: train.Ask | None = None) -> int:
    given = config(*SMALL, f"--model_dir={directory}", *SCHEDULE, *flags)
    return train.train(given, SerialComm(), ask=ask)[0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((*SCHEDULE, "--epochs=6"), [2, 3, 6]),  # before epoch 2 nothing is cut yet
        (("--prune_schedule=constant", "--final_fraction=0.5", "--epochs=3"), [3]),
        (("--prune_schedule=constant", "--final_fraction=0.5", "--epochs=3", "--start_from=a"),
         [0, 3]),
        (("--prune_schedule=constant", "--final_fraction=0.5", "--epochs=3", "--begin_epoch=2"),
         [2, 3]),
    ],
)  # fmt: skip
def test_stages_end_before_each_cut_and_with_the_training(flags, expected):
    assert stage_ends(config(*flags)) == expected


def test_each_stage_has_its_sweep_and_its_checkpoint(whole):
    shutil.copytree(whole, "case")
    assert run("plain") == 0
    assert_same_bits(variables(Path("plain")), variables(Path("case")))
    of_stages = [read(f"case/stage{k}.h5") for k in range(3)]
    for one, steps, zero in zip(of_stages, (56, 84, 112), (0, 0.7, 0.8), strict=True):
        assert one.attrs["checkpoint"] == str(whole.resolve() / f"model.ckpt-{steps}")
        # Of all weights, those that were cut before count at threshold 0.
        pruned = one.sparsity.pruned_fraction.values
        assert pruned == pytest.approx([zero, 0.9], abs=1e-3)
        assert one.sparsity.n_active.values[0] == round((1 - pruned[0]) * 888)
    # The network of the checkpoint is the one that was swept: the same sweep of it is complete.
    same = ["--dataset=digits", *SWEEP.split(), "--model_dir=case", "--model_ckpt=model.ckpt-84"]
    before = Path("case/stage1.h5").read_bytes()
    assert sweep.main([*same, "--output=case/stage1.h5"]) == 0
    assert Path("case/stage1.h5").read_bytes() == before
    assert sweep.main([*same, "--output=alone.h5"]) == 0
    found, alone = read("case/stage1.h5").metrics, read("alone.h5").metrics
    for name in alone.data_vars:
        np.testing.assert_array_equal(found[name].values, alone[name].values, err_msg=name)
    # Shown together, two of the same name are told apart.
    shutil.copytree("case", "other")
    paths = ["case/stage0.h5", "case/stage2.h5", "other/stage2.h5"]
    assert [one.label for one in read_all(paths[:2])] == ["stage0", "stage2"]
    assert [one.label for one in read_all(paths[1:])] == ["case/stage2", "other/stage2"]
    assert report.main([*paths, "--plot=figure.svg", "--panels=accuracy"]) == 0
    assert all(f">{path[:-3]}<" in Path("figure.svg").read_text() for path in paths)


def test_what_is_cut_off_in_a_sweep_or_in_a_stage_goes_on_with_the_same_bits(whole):
    flag = f"--sweep_stages={SWEEP}"
    stops = []
    for n in (2 * N_STEPS + 1, N_STEPS + 20):
        left = iter(range(n))
        ask = lambda timing, left=left: None if next(left, None) is not None else "the test"  # noqa: E731
        assert run("case", flag, ask=ask) == train.STOPPED
        stops.append((Path("case.training") / "stage1.h5").exists())
    assert stops[0] is False and stops[-1] is True
    assert run("case", flag) == 0
    assert_same_bits(variables(whole), variables(Path("case")))
    for k in range(3):
        mine, theirs = (read(f"{where}/stage{k}.h5").metrics for where in ("case", whole))
        for name in theirs.data_vars:
            np.testing.assert_array_equal(mine[name].values, theirs[name].values)
    there, found = ({path.name for path in Path(at).iterdir()} for at in (whole, "case"))
    assert there == {name for name in found if not name.endswith(".bak")}


def test_thresholds_that_fail_in_a_stage_are_the_status_of_the_training(capsys):
    test = data.load("digits", split="test")
    x = test.x.reshape(len(test.x), -1).astype(np.float32)
    x[5] = 3e38  # overflows in a sum of weights, and not where all weights are pruned
    np.savez("hot.npz", x_test=x, y_test=test.y)
    of_sweep = "--num_monte_carlo=4 --thresholds=0,1e6 --data_path=hot.npz"
    flags = [*SMALL, "--model_dir=case", "--prune_schedule=constant", "--final_fraction=0.5",
             "--begin_epoch=1", "--epochs=2", f"--sweep_stages={of_sweep}"]  # fmt: skip
    left = iter(range(N_STEPS + 20))  # a stop behind the first stage: the next job does not see it
    ask = lambda timing: None if next(left, None) is not None else "the test"  # noqa: E731
    assert train.train(config(*flags), SerialComm(), ask=ask)[0] == train.STOPPED
    first = read("case.training/stage0.h5")
    assert first.attrs["status"] == "complete"
    assert [failure != "" for failure in first["failure"].values] == [True, False]
    assert not Path("case.training/stage1.h5").exists()
    for _ in range(2):  # the second time it is complete
        assert train.train(config(*flags), SerialComm())[0] == train.FAILED
    assert [read(f"case/stage{k}.h5").attrs["n_failed"] for k in range(2)] == [1, 1]
    capsys.readouterr()
    assert train.main([*flags, "--status"]) == train.FAILED == sweep.FAILED
    assert capsys.readouterr().out == "complete (2 thresholds failed)\n"


def test_a_network_that_is_gone_on_from_is_swept_before_its_first_cut(whole):
    constant = ["--prune_schedule=constant", "--final_fraction=0.9", "--begin_epoch=0"]
    given = config(*SMALL, "--model_dir=second", f"--start_from={whole}", *constant, "--epochs=1",
                   f"--sweep_stages={SWEEP}")  # fmt: skip
    left = iter(range(4))  # a stop behind the first cut
    ask = lambda timing: None if next(left, None) is not None else "the test"  # noqa: E731
    assert train.train(given, SerialComm(), ask=ask)[0] == train.STOPPED
    assert train.train(given, SerialComm())[0] == 0
    pruned = [read(f"second/stage{k}.h5").sparsity.pruned_fraction.values[0] for k in range(2)]
    assert pruned == pytest.approx([0.8, 0.9], abs=1e-3)


def test_what_is_exported_of_a_network_with_zeros_has_zeros(whole):
    asked = [f"{whole}/stage2.h5", "--at=index=1", "--formats=checkpoint", "--to=out"]
    assert export.main(asked) == 0
    before, after = load(str(whole)).posterior, load("out/checkpoint").posterior
    with np.load("out/checkpoint/mask.npz") as masks:
        assert {(~kept & (before.scale[name] > 0)).any() for name, kept in masks.items()} == {True}
        for name, kept in masks.items():
            for old, new in ((before.loc, after.loc), (before.scale, after.scale)):
                np.testing.assert_array_equal(new[name], np.where(kept, old[name], 0))
    # A training that goes on from it holds them without being told.
    found = read_beginning(config("--start_from=out/checkpoint"))
    of_file = [value for name, value in found.variables.items() if name.endswith("_mask")]
    assert 1 - np.concatenate([one.ravel() for one in of_file]).mean() == pytest.approx(
        0.9, abs=1e-3
    )


def test_a_mask_of_a_stage_goes_with_the_network_of_that_stage(whole):
    for stage, step, pruned in ((0, 56, 0.9), (2, 112, 0.9)):
        given = config(*SMALL, "--model_dir=second", f"--start_from={whole}", "--at=index=1",
                       f"--mask={whole}/stage{stage}.h5")  # fmt: skip
        found = read_beginning(given)
        reader = import_tensorflow().train.load_checkpoint(str(whole / f"model.ckpt-{step}"))
        for name, value in found.variables.items():
            np.testing.assert_array_equal(value, reader.get_tensor(name), err_msg=name)
        kept = np.concatenate([mask.ravel() for mask in found.masks.values()])
        assert 1 - kept.mean() == pytest.approx(pruned, abs=1e-3)


def test_the_data_of_a_stage_are_recorded_where_they_will_be():
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 2)
    given = ["--data_path=data.npz", "--test_fraction=0.5", "--hidden=4", "--epochs=2",
             "--batch_size=10", "--n_draws_eval=2", "--prune_schedule=constant",
             "--begin_epoch=1", "--final_fraction=0.5", "--model_dir=case",
             "--sweep_stages=--num_monte_carlo=2 --prune_fractions=0"]  # fmt: skip
    assert train.train(config(*given), SerialComm())[0] == 0
    for k in range(2):
        attrs = read(f"case/stage{k}.h5").attrs
        assert json.loads(attrs["config"])["data_path"] == "case/split.npz"
        assert "case/split.npz" in json.loads(attrs["sha256"])


def test_the_time_of_a_sweep_is_not_kept_for_the_end_of_the_job(monkeypatch):
    late, rounds = [0.0], []
    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + late[0], time=time.time)

    def an_hour(*_: object) -> tuple[None, int]:
        late[0] += 3600
        return None, 0

    def ask(timing: Timing) -> None:
        rounds.append(timing.slowest_round_s)

    monkeypatch.setattr(train, "time", clock)
    monkeypatch.setattr(train.sweeping, "run", an_hour)
    assert run("case", f"--sweep_stages={SWEEP}", ask=ask) == 0
    assert late == [3 * 3600] and max(rounds) < 1800


def test_flags_of_the_sweep_are_checked_before_anything_is_trained():
    def refused(text: str) -> str:
        with pytest.raises(EndedByRoot) as caught:
            run("case", f"--sweep_stages={text}")
        assert caught.value.code == 2 and not list(Path().glob("case*"))
        return caught.value.message

    assert "unknown flag '--threshold'" in refused("--threshold=1")
    assert "--num_monte_carlo: 0 is not in" in refused("--num_monte_carlo=0")
    assert "--plan sweeps nothing" in refused("--plan")
    assert "No closing quotation" in refused("'--seed=1")
    assert "none.npz: no such file" in refused("--ood_path=none.npz")
    assert "none.txt: no such argument file" in refused("@none.txt")
    with pytest.raises(ConfigError, match="--sweep_stages=: must be left out without a schedule"):
        config("--sweep_stages")


def test_what_is_there_of_another_sweep_can_be_moved_away_alone():
    """A training names the file itself, and its --overwrite drops all stages."""
    write("stage0.h5", contents())
    write("stage1.h5", contents())
    Path("stage1.h5").write_bytes(Path("stage1.h5").read_bytes()[:-9])
    unlike = "move it away, or leave these flags as they were"
    for name, said in (
        ("stage0.h5", f"has no state to go on from; {unlike}"),
        ("stage1.h5", "damaged, its digest does not fit; move it away"),
    ):
        with pytest.raises(EndedByRoot) as caught, stages.named():
            SerialComm().from_root(lambda name=name: resume.read(name))
        assert (caught.value.code, caught.value.message) == (2, f"--sweep_stages: {name}: {said}")


def test_an_argument_file_of_the_sweep_is_not_one_of_the_training():
    Path("sweep.txt").write_text("--model_dir=elsewhere\n--num_monte_carlo=8\n--overwrite\n")
    for flags in (["--sweep_stages", "@sweep.txt"], ["--sweep_stages=@sweep.txt"]):
        assert config(*SCHEDULE, *flags, "--seed=5").sweep_stages == "@sweep.txt"
    assert config(*SCHEDULE, "--sweep_stages", "--seed=5").sweep_stages == ""
    given = config(*SMALL, *SCHEDULE, "--sweep_stages", "@sweep.txt")
    asked = stages.sweep_of(given, Path("case"), epoch=2, step=56)
    assert (asked.n_draws, asked.overwrite, asked.dataset) == (8, False, "digits")
    assert (asked.model_dir, asked.model_ckpt) == ("case", "model.ckpt-56")
    assert asked.output == "case/stage0.h5"
