"""Kills a training at each of its operations on files in turn, and looks at what is left.

Run by ``test_train_resume``: a process of its own, so that it can fork. What is trained is a stand-
in that writes small files, so that all kills take seconds; the files are moved by the real code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bprune_hpc import graph_info
from bprune_hpc.training import directory as train_directory
from bprune_hpc.training.config import parse
from bprune_hpc.training.directory import TrainingDirectory

N_STEPS = 2
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod")


def files_of(prefix: Path) -> list[Path]:
    ends = (".meta", ".index", ".data-00000-of-00001")
    return [prefix.with_name(prefix.name + end) for end in ends]


def train(place: Path, seed: int, *flags: str) -> None:
    """Train a stand-in, whose every file holds the seed."""

    def write(training: Any, session: Any, prefix: Path, step: int) -> None:
        for path in files_of(prefix.with_name(f"{prefix.name}-{step}"))[:0:-1]:
            with path.open("w") as file:
                file.write(f"{seed}")

    def write_names(directory: Path, graph: Any) -> None:
        (directory / graph_info.LAYER_NAMES).write_text(f"{seed}")

    train_directory.write_checkpoint = write  # type: ignore[assignment]
    graph_info.write = write_names  # type: ignore[assignment]
    meta = SimpleNamespace(SerializeToString=lambda deterministic: f"{seed}".encode())
    training: Any = SimpleNamespace(
        graph=SimpleNamespace(as_default=contextlib.nullcontext),
        saver=SimpleNamespace(export_meta_graph=lambda: meta),
    )
    config = parse([f"--model_dir={place}", f"--seed={seed}", "--epochs=1", *flags], "train")
    directory = TrainingDirectory(config, 1)
    with directory.held():
        state = directory.join({"data": "0"}, N_STEPS, {})
        if state == "complete":
            return
        if state == "trained":
            directory.publish()
            return
        if state == "new":
            directory.begin(training, None)
        for step in range(directory.step + 1, N_STEPS + 1):
            directory.save(training, None, step)
        directory.finish({"config": config.settings, "n_ranks": 1, "n_steps": N_STEPS,
                          "data": {"sha256": {"data": "0"}}})  # fmt: skip


def in_child(place: Path, kill_at: int, *flags: str) -> int:
    """Train with seed 2 in a process that is killed before its so-many-th change; its status."""
    # The threads that Python warns of are TensorFlow's and OpenBLAS's, which do nothing here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    n_changes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_changes
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if event in CHANGES or is_write:
            n_changes += 1
            if n_changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        train(place, 2, *flags)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def network_in(directory: Path) -> str:
    """The seed of the network that is whole in a directory; empty if there is none, else why."""
    listing = directory / "checkpoint"
    if not listing.exists():
        return ""
    names = re.findall(r'"(.*)"', listing.read_text())
    files = [file for name in names for file in files_of(directory / name)]
    files.append(directory / graph_info.LAYER_NAMES)
    absent = [file.name for file in files if not file.exists()]
    seeds = {file.read_text() for file in files if file.exists()}
    if absent or len(seeds) != 1:
        return f"of seeds {seeds}, lacks {absent}"
    return seeds.pop()


def problems(place: Path, is_exchanged: bool) -> list[str]:
    """What is wrong after a kill."""
    work, replaced = place.with_name("net.training"), place.with_name(".net.replaced")
    found = {directory: network_in(directory) for directory in (place, work, replaced)}
    wrong = [f"{path.name}: {seed}" for path, seed in found.items() if seed not in ("", "1", "2")]
    if found[place] not in ("1", "2") and (is_exchanged or found[replaced] != "1"):
        wrong.append(f"no network in its place: {found}")
    if found[place] and not (place / "train.json").exists():
        wrong.append("train.json is gone")
    recorded = (place / "train.json").read_text() if place.exists() else ""
    if recorded and f'"seed": {found[place]}' not in recorded:
        wrong.append("train.json is of another network")
    for name in ("notes.txt", "mine/figure.png"):
        if sum((directory / name).exists() for directory in found) != 1:
            wrong.append(f"{name} is lost")
    return wrong


def trial(home: Path, kill_at: int, is_exchanged: bool, again: tuple[str, ...]) -> bool:
    """Kill one training and start it again; whether it was killed."""
    shutil.rmtree(home, ignore_errors=True)
    place = home / "net"
    train(place, 1)
    (place / "notes.txt").write_text("of the user")
    (place / "mine").mkdir()
    (place / "mine" / "figure.png").write_text("of the user")
    was_killed = os.WIFSIGNALED(in_child(place, kill_at, "--overwrite"))
    wrong = problems(place, is_exchanged)
    has_begun = network_in(home / "net.training") == "2" or network_in(place) == "2"
    if in_child(place, -1, *(again if has_begun else ("--overwrite",))):
        wrong.append("cannot be started again")
    there = {path.name for path in home.iterdir() if not path.name.startswith(".net.lock.")}
    if network_in(place) != "2" or there != {"net"} or (place / "unfinished.json").exists():
        wrong.append(f"is not mended: {network_in(place)!r} in {there}")
    wrong += problems(place, True)
    sys.stdout.writelines(f"kill {kill_at}, {again}: {text}\n" for text in wrong)
    return was_killed


def main(home: Path, is_exchanged: bool) -> None:
    """Kill at each change of a file in turn; print what is wrong, and how often it was killed."""
    logging.disable()
    os.fsync = lambda handle: None  # type: ignore[assignment]  # matters to a machine that stops
    if not is_exchanged:
        train_directory._exchange = lambda one, other: False  # type: ignore[assignment]
    kill_at = 1
    while trial(home, kill_at, is_exchanged, ()):
        if kill_at % 4 == 0:
            trial(home, kill_at, is_exchanged, ("--overwrite",))
        kill_at += 1
    print(f"{kill_at - 1} kills")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "exchange")
