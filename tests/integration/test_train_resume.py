"""Trainings that are cut off: what is left on disk, and that they go on with the same bits."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc import sweep, train
from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.errors import ConfigError, LockError
from bprune_hpc.mpi.comm import EndedByRoot, SerialComm
from bprune_hpc.runner.timing import Timing
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training import directory as train_directory
from bprune_hpc.training.directory import TrainingDirectory
from tests.helpers.launch import LIMIT_S, ROOT, find_mpirun, launch_environment
from tests.helpers.trainings import SMALL, assert_same_bits, config, needs_horovod, variables

LONG = ("--dataset=digits", "--hidden=12", "--batch_size=50", "--n_draws_eval=2")
N_STEPS = 4 * (1438 // 50)  # of SMALL


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at signals and the clock before every step."""
    import_tensorflow()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    monkeypatch.setattr(train, "_LOOK_S", 0.0)


def stop_at(n: int) -> train.Ask:
    """Asked to stop at the so-many-th look."""
    left = iter(range(n))
    return lambda timing: None if next(left, None) is not None else "the test says so"


def run(directory: Path, *flags: str, ask: train.Ask | None = None) -> int:
    given = config(*SMALL, f"--model_dir={directory}", *flags)
    return train.train(given, SerialComm(), ask=ask)[0]


def refused(directory: Path, *flags: str) -> str:
    with pytest.raises(EndedByRoot) as caught:
        run(directory, *flags)
    assert caught.value.code == 2
    return caught.value.message


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def record(directory: Path) -> dict[str, Any]:
    """What ``train.json`` says, without what differs from run to run."""
    found = json.loads((directory / "train.json").read_text())
    del found["train_time_s"], found["config"]["model_dir"]
    return found


# Resumes


@pytest.mark.parametrize(
    ("flags", "stops"),
    [
        (("--save_every=2",), (1, 1, 17, 11, 40)),  # the third is asked for at an epoch's end
        (("--save_every=0", "--kl_anneal_epochs=3", "--seed=9"), (45,)),
        (("--estimator=local",), (45,)),
        pytest.param(("--model=resnet18", "--width=2", "--epochs=2"), (20, 30),
                     marks=pytest.mark.slow),
        (("--dataset=diabetes", "--task=regression"), (11,)),
    ],
)  # fmt: skip
def test_a_resume_ends_with_the_bits_of_an_uninterrupted_training(
    looks, tmp_path, flags, stops, caplog
):
    caplog.set_level("INFO")
    assert run(tmp_path / "whole", *flags) == 0
    done, steps = 0, []
    for n in stops:
        assert run(tmp_path / "case", *flags, ask=stop_at(n)) == train.STOPPED
        assert not (tmp_path / "case").exists()
        done += n
        unfinished = tmp_path / "case.training"
        steps.append(read_case(unfinished).source.step)
        assert len(read_case(unfinished).posterior.loc) >= 2
    assert steps == list(np.cumsum(stops))  # no step is lost or taken twice
    assert run(tmp_path / "case", *flags) == 0
    assert f"continuing from step {done} of" in caplog.text
    assert_same_bits(variables(tmp_path / "whole"), variables(tmp_path / "case"))
    assert record(tmp_path / "whole") == record(tmp_path / "case")
    whole, case = content(tmp_path / "whole"), content(tmp_path / "case")
    assert whole.keys() == case.keys()
    different = {name for name in whole if whole[name] != case[name]} - {"train.json"}
    if "--model=resnet18" in flags:  # Keras numbers the branches of its conditions by process
        different -= {name for name in different if name.endswith(".meta")}
    assert different == set()
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "case"}


def test_the_graph_that_is_saved_is_the_trainings_own_whichever_is_the_default(looks, tmp_path):
    with import_tensorflow().Graph().as_default():
        assert run(tmp_path / "case", "--epochs=1") == 0
    assert len(read_case(tmp_path / "case").posterior.loc) == 2


def test_checkpoints_that_were_asked_for_stay_when_others_are_asked_for(looks, tmp_path):
    case = tmp_path / "case"
    assert run(case, "--save_every=1", ask=stop_at(2 * N_STEPS // 3)) == train.STOPPED
    assert run(case, "--save_every=0", ask=stop_at(1)) == train.STOPPED
    assert run(case, "--save_every=0") == 0
    kept = {name for name in content(case) if name.endswith(".index")}
    epochs = (1, 2, 4)  # the first two were asked for, the last is the end
    assert kept == {f"model.ckpt-{epoch * N_STEPS // 4}.index" for epoch in epochs}


def test_what_is_trained_on_is_said(looks, tmp_path, caplog):
    caplog.set_level("INFO")
    assert run(tmp_path / "case", "--epochs=1") == 0
    assert "train set: the embedded digits: 1438 examples of 8 x 8, uint8 divided" in caplog.text
    assert "test set: the embedded digits: 359 examples of 8 x 8" in caplog.text


def test_an_evaluation_that_is_cut_off_is_done_again(looks, tmp_path):
    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "case", ask=stop_at(N_STEPS + 2)) == train.STOPPED
    assert read_case(tmp_path / "case.training").source.step == N_STEPS
    assert run(tmp_path / "case") == 0
    assert record(tmp_path / "whole") == record(tmp_path / "case")


def test_checkpoints_for_a_resume_alone_come_by_the_clock(looks, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_SAVE_S", 0.0)
    monkeypatch.setattr(train, "_SAVE_SHARE", 1e9)
    saved: list[int] = []
    save = TrainingDirectory.save

    def spy(self: TrainingDirectory, training: Any, session: Any, step: int, *more: Any) -> None:
        saved.append(step)
        save(self, training, session, step, *more)

    monkeypatch.setattr(TrainingDirectory, "save", spy)
    assert run(tmp_path / "case", "--epochs=1") == 0
    assert sorted(set(saved)) == list(range(29))
    assert sum(name.endswith(".index") for name in content(tmp_path / "case")) == 1


def test_a_finished_training_is_not_done_again(looks, tmp_path, caplog):
    assert run(tmp_path / "case") == 0
    before = content(tmp_path / "case")
    caplog.set_level("INFO")
    assert run(tmp_path / "case") == 0
    assert f"{tmp_path / 'case'}: is complete; nothing to do" in caplog.text
    assert run(tmp_path / "case", "--save_every=2", "--num_inter=2") == 0  # no other numbers
    assert content(tmp_path / "case") == before
    assert run(tmp_path / "case", "--overwrite") == 0
    assert content(tmp_path / "case") != before


@pytest.mark.parametrize("unfinished", [True, False])
def test_another_training_is_refused_by_the_flag_that_differs(looks, tmp_path, unfinished):
    case = tmp_path / "case"
    run(case, ask=stop_at(3) if unfinished else None)
    before = content(tmp_path / "case.training" if unfinished else case)
    for flag, finding in (
        ("--seed=2", "--seed 1, now 2"),
        ("--learning_rate=0.03", "--learning_rate 0.02, now 0.03"),
        ("--hidden=3,4", r"--hidden [12], now [3, 4]"),
        ("--epochs=5", "--epochs 4, now 5"),
    ):
        said = refused(case, flag)
        assert finding in said and "pass --overwrite" in said and "\n" not in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SerialComm, "size", 2)
        assert "with ranks 1, now 2;" in refused(case)
    digits = train.load("digits", split="train")
    other = tmp_path / "other.npz"
    np.savez(other, x=digits.x, y=digits.y)
    assert "with data sha256" in refused(case, "--dataset=npz", f"--data_path={other}")
    assert content(tmp_path / "case.training" if unfinished else case) == before


def test_other_versions_are_marked(looks, tmp_path, monkeypatch, caplog):
    assert run(tmp_path / "case", ask=stop_at(9)) == train.STOPPED
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert run(tmp_path / "case") == 0
    assert "TF_ENABLE_ONEDNN_OPTS 0, unset" in record(tmp_path / "case")["mixed_environment"]
    assert "the environment was not the same all the time" in caplog.text


# Directories


@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_a_kill_at_any_change_of_a_file_leaves_a_whole_network(tmp_path, how):
    program = [sys.executable, ROOT / "tests/helpers/killed_trainings.py", tmp_path / "home", how]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=LIMIT_S, env=launch_environment()
    )
    assert done.stderr == ""
    *wrong, last = done.stdout.splitlines()
    assert wrong == [] and int(last.split()[0]) > 50


def test_other_files_in_a_directory_that_is_overwritten_stay(looks, tmp_path):
    case = tmp_path / "case"
    case.mkdir(mode=0o750)
    (case / "notes.txt").write_text("before there was a network")
    assert run(case, "--epochs=1") == 0
    (case / "figures").mkdir()
    (case / "figures" / "one.png").write_bytes(b"one")
    (case / "model.ckpt-7.index").touch()
    (case / "best.ckpt-7.index").touch()
    others = {"model.ckpt-28.index.bak", ".sweep.h5.0123456789abcdef.part", ".notes.part"}
    for name in others:
        (case / name).touch()
    assert run(case, "--epochs=1", "--seed=2", "--overwrite") == 0
    assert others <= {path.name for path in case.iterdir()}
    assert (case / "notes.txt").read_text() == "before there was a network"
    assert (case / "figures" / "one.png").read_bytes() == b"one"
    assert (case / "best.ckpt-7.index").exists() and not (case / "model.ckpt-7.index").exists()
    assert case.stat().st_mode & 0o777 == 0o750
    assert {path.name for path in tmp_path.iterdir()} == {"case"}


def test_a_link_to_a_directory_stays_one(looks, tmp_path):
    (tmp_path / "disk" / "case").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "case")
    assert run(tmp_path / "link", "--epochs=1") == 0
    assert run(tmp_path / "link", "--epochs=1", "--overwrite") == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk/case/train.json").exists()


def test_a_network_that_comes_meanwhile_is_not_replaced(looks, tmp_path):
    case = tmp_path / "case"
    assert run(case, ask=stop_at(9)) == train.STOPPED
    case.mkdir()

    def ask(timing: Timing) -> None:
        (case / "checkpoint").write_text("somebody's")

    with pytest.raises(EndedByRoot) as caught:
        run(case, ask=ask)
    assert caught.value.code == 1 and "has come there meanwhile" in caught.value.message
    assert content(case) == {"checkpoint": b"somebody's"}
    assert "already holds a network" in refused(case)
    (case / "checkpoint").unlink()
    assert run(case) == 0
    assert record(case)["n_steps"] == N_STEPS


def test_an_unfinished_training_gives_way_to_overwrite_or_if_it_has_not_begun(looks, tmp_path):
    case = tmp_path / "case"
    assert run(case, ask=stop_at(9)) == train.STOPPED
    assert run(case, "--seed=2", "--overwrite") == 0
    assert record(case)["config"]["seed"] == 2
    other = tmp_path / "other"
    assert run(other, "--seed=3", ask=stop_at(0)) == train.STOPPED
    assert (tmp_path / "other.training" / "model.ckpt-0.meta").exists()
    assert run(other, "--seed=4") == 0
    assert record(other)["config"]["seed"] == 4


def test_what_is_not_whole_is_neither_complete_nor_dropped(looks, tmp_path):
    case, work = tmp_path / "case", tmp_path / "case.training"
    assert run(case, ask=stop_at(9)) == train.STOPPED
    (work / "model.ckpt-9.meta").unlink()
    before = content(work)
    assert "whose newest checkpoint is not whole" in refused(case)
    assert content(work) == before
    assert run(case, "--overwrite") == 0
    # Checkpoints of another training beside train.json, as versions before left them.
    listing = (case / "checkpoint").read_text().replace(str(N_STEPS), "7")
    for path in case.glob("model.ckpt-*"):
        path.rename(case / path.name.replace(str(N_STEPS), "7"))
    (case / "checkpoint").write_text(listing)
    assert "already holds a network" in refused(case)


@pytest.mark.parametrize("kind", ["stranger", "name", "file", "here", "parent", "root"])
def test_places_that_cannot_be_a_training_are_refused_at_once(looks, tmp_path, kind, monkeypatch):
    case = tmp_path / "case"
    case.mkdir()
    said = "is no unfinished training; move it away"
    if kind == "stranger":
        (tmp_path / "case.training").mkdir()
        (tmp_path / "case.training" / "mine").touch()
    elif kind == "name":
        case, said = tmp_path / "case.training", "unfinished trainings have such names"
    elif kind == "file":
        case, said = tmp_path / "file", "is not a directory"
        case.touch()
    elif kind == "here":
        monkeypatch.chdir(case)
        case, said = Path("."), "the directory that this was started in"
    elif kind == "root":
        case, said = Path("/"), "--model_dir=/: has no name; choose one below it"
    else:
        (tmp_path / "file").touch()
        case, said = tmp_path / "file" / "case", "cannot be made"
    before = sorted(tmp_path.rglob("*"))
    assert said in refused(case)
    assert sorted(tmp_path.rglob("*")) == before


def test_two_trainings_do_not_share_a_directory(looks, tmp_path):
    first = TrainingDirectory(config(f"--model_dir={tmp_path / 'case'}"), 1)
    with first.held():
        said = refused(tmp_path / "case")
        assert "is being written by process" in said and "choose another --model_dir" in said
        with pytest.raises(LockError), first.held():
            pass
    assert list(tmp_path.iterdir()) == []


# What does not fit


def test_labels_that_cannot_be_classes_are_refused(looks, tmp_path):
    digits = train.load("digits")
    y = digits.y.copy()
    y[3] = 10**9
    np.savez(tmp_path / "d.npz", x=digits.x, y=y)
    said = refused(tmp_path / "case", "--dataset=npz", f"--data_path={tmp_path / 'd.npz'}")
    assert "labels go up to 1000000000 in 359 examples" in said and "\n" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"d.npz"}


def test_a_network_larger_than_the_memory_is_refused(looks, tmp_path):
    said = refused(tmp_path / "case", "--hidden=1000000,1000000")
    assert "the network and its optimizer take" in said and "choose a smaller one" in said
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="--hidden"):
        config("--hidden=1000000000")


# Processes


def start(
    n_ranks: int, *flags: str, first_on_path: Path = ROOT, **more: Any
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bprune_hpc.train", *flags]
    if n_ranks:
        command = [str(find_mpirun()), "-n", str(n_ranks), *command]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, **more,
        env=launch_environment() | {"PYTHONPATH": f"{first_on_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip


def wait_for(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + LIMIT_S
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        err = process.communicate(timeout=LIMIT_S)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"no end: {process.communicate()[1]}")
    return process.returncode, err


def wait_for_steps(training: Path, process: subprocess.Popen[str]) -> None:
    """Until a checkpoint of some steps is there."""
    wait_for(lambda: any(training.glob("model.ckpt-[1-9]*.index")), process)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, None])
def test_signals_and_the_end_of_the_job_stop_it_with_status_3(tmp_path, number):
    case, training = tmp_path / "case", tmp_path / "case.training"
    flags = [*LONG, f"--model_dir={case}", "--epochs=10000", "--save_every=1"]
    if number:
        process = start(0, *flags)
        wait_for_steps(training, process)
        process.send_signal(number)
        status, said = ended(process)
    else:
        limit_min = 0.15
        while not training.exists():  # a machine that is busy needs longer to begin
            limit = [f"--time_limit_min={limit_min}", "--stop_margin_s=1"]
            status, said = ended(start(0, *flags, *limit))
            limit_min *= 3
    assert status == 3, said
    assert (f"{number.name} on rank 0" if number else "--time_limit_min") in said
    assert "the same command goes on from here" in said and "Traceback" not in said
    asked = subprocess.run(
        [sys.executable, "-m", "bprune_hpc.train", *flags, "--status"],
        cwd=ROOT, env=launch_environment(), capture_output=True, text=True,
    )  # fmt: skip
    step = read_case(tmp_path / "case.training").source.step
    assert step is not None
    if number:
        assert step > 0
    assert (asked.returncode, asked.stdout) == (3, f"partial {step}/280000 steps\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "allreduce", [pytest.param("mpi", marks=pytest.mark.mpi),
                  pytest.param("horovod", marks=needs_horovod)]
)  # fmt: skip
def test_ranks_go_on_with_the_same_bits(tmp_path, allreduce):
    n_ranks, flags = 2, [*LONG, "--epochs=250", "--save_every=10", f"--allreduce={allreduce}"]
    status, said = ended(start(n_ranks, *flags, f"--model_dir={tmp_path / 'whole'}"))
    assert status == 0, said
    process = start(n_ranks, *flags, f"--model_dir={tmp_path / 'case'}")
    wait_for_steps(tmp_path / "case.training", process)
    process.send_signal(signal.SIGUSR1)
    status, said = ended(process)
    assert status == 3, said
    step = read_case(tmp_path / "case.training").source.step
    assert step and 0 < step < 250 * 14
    status, said = ended(start(n_ranks, *flags, f"--model_dir={tmp_path / 'case'}"))
    assert status == 0, said
    assert f"continuing from step {step} of 3500" in said
    assert_same_bits(variables(tmp_path / "whole"), variables(tmp_path / "case"))
    assert record(tmp_path / "whole") == record(tmp_path / "case")


@pytest.mark.slow
def test_overwriting_that_is_killed_leaves_a_network_that_is_swept(looks, tmp_path):
    case, chance = tmp_path / "case", random.Random(5)
    run(case)
    before = content(case)
    flags = [*LONG, f"--model_dir={case}", "--epochs=10000", "--save_every=3", "--overwrite"]
    for trial in range(6):
        process = start(0, *flags)
        wait_for((tmp_path / "case.training" / "checkpoint").exists, process)
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        process.communicate()
        assert content(case) == before
        for place in (case, tmp_path / "case.training"):
            output = tmp_path / f"{place.name}-{trial}.h5"
            sweeping = [f"--model_dir={place}", "--dataset=digits", "--thresholds=0,1",
                        "--num_monte_carlo=2", f"--output={output}"]  # fmt: skip
            assert sweep.main(sweeping) == 0


def test_a_checkpoint_that_cannot_be_written_loses_nothing(looks, tmp_path, no_horovod):
    case = tmp_path / "case"
    run(case)
    before = content(case)

    def limited(n_bytes: int) -> Callable[[], None]:
        limit = (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    flags = [*SMALL, f"--model_dir={case}", "--overwrite", "--hidden=500,500"]
    largest = 1_000_000  # above the meta graph, below the variables
    process = start(0, *flags, first_on_path=no_horovod, preexec_fn=limited(largest))
    status, said = ended(process)
    assert status == 1, said
    errors = [line for line in said.splitlines() if "INFO" not in line]
    assert len(errors) == 1 and "cannot be written (File too large)" in errors[0]
    assert content(case) == before and not (tmp_path / "case.training").exists()


def test_a_later_checkpoint_that_cannot_be_written_leaves_the_one_before(
    looks, tmp_path, monkeypatch
):
    case, work = tmp_path / "case", tmp_path / "case.training"
    write = train_directory.write_checkpoint

    def fail(training: Any, session: Any, prefix: Path, step: int) -> None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        if step == 56:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        try:
            write(training, session, prefix, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    monkeypatch.setattr(train_directory, "write_checkpoint", fail)
    with pytest.raises(EndedByRoot) as caught:
        run(case, "--save_every=1")
    assert caught.value.code == 1 and "model.ckpt-56: cannot be written" in caught.value.message
    assert read_case(work).source.step == 28
    monkeypatch.undo()
    monkeypatch.setattr(train, "_start_tensorflow", lambda config: None)
    assert run(case, "--save_every=1") == 0
    assert {path.name for path in case.glob("*.meta")} == {
        f"model.ckpt-{28 * epoch}.meta" for epoch in (1, 2, 3, 4)
    }
    assert not list(case.glob("*tempstate*"))
