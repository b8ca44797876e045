"""The directory of a training: the network appears in it whole, or what was there stays.

A training that is not done is ``DIR.training``, beside ``DIR``: checkpoints, each with its meta
graph, and ``unfinished.json``, by which a resume knows it. Once ``train.json`` is in it, it takes
the place of ``DIR``; a network that was there is removed then, other files there move into the new
one. At any moment each of the two directories holds one training, or nothing.

What belongs here: files and names, on rank 0. What does not: what is in a checkpoint
(``training.graph``), when one is due (``train``).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import graph_info
from ..checkpoints import saver
from ..data.splitting import SPLIT_FILE
from ..errors import BpruneError, CheckpointError, ConfigError, WriteError
from ..files.atomic_write import clean, put, resolved
from ..files.lock import Lock, hold
from ..job.provenance import Environment, differences, mixture, union
from .config import TrainConfig, defaults, stage_ends
from .graph import Training, write_checkpoint
from .log import CSV_FILE, EVENTS

CHECKPOINT = "model.ckpt"
RECORD = "train.json"
UNFINISHED = "unfinished.json"
ORIGINS = ("--start_from", "--mask")
"""Flags whose files are known by their digests."""

_LISTING = "checkpoint"
_CHECKPOINT_FILE = rf"{re.escape(CHECKPOINT)}-\d+\.(meta|index|data-\d{{5}}-of-\d{{5}})"
_PUT = rf"{_LISTING}|{re.escape(RECORD)}|{UNFINISHED}|{_CHECKPOINT_FILE}"
_KEPT = rf"{re.escape(SPLIT_FILE)}|{re.escape(CSV_FILE)}"
_SWEPT = r"stage\d+\.h5"
_OURS = re.compile(
    rf"{_PUT}|{graph_info.LAYER_NAMES}|{graph_info.OP_NAMES}"
    # What killed writers leave: TensorFlow's, and ``files.atomic_write``'s.
    rf"|{_CHECKPOINT_FILE}\.tempstate\d+|\.({_PUT}|{_KEPT}|{_SWEPT})\.[0-9a-f]{{16}}\.part"
    # Both halves of the data, logs; sweeps of stages, and what is beside them.
    rf"|{_KEPT}|{EVENTS}|{_SWEPT}(\.bak|\.lock)?|\.{_SWEPT}\.lock\.[0-9a-f]{{16}}(\.next)?"
)
_STEP = re.compile(rf"{re.escape(CHECKPOINT)}-(\d+)\.")
_LOCK_TIMEOUT_S = 180.0
_ANEW = "or pass --overwrite to begin anew"

logger = logging.getLogger(__name__)


class TrainingDirectory:
    """The directory that a training is to fill; all of it is for rank 0, and while it is held.

    Attributes
    ----------
    final, work : Path
        Where the network is to be, and where it is until it is done.
    step : int
        Of the newest checkpoint; -1 before :meth:`begin` of a new training, which saves step 0.
    seconds : float
        Time spent in the jobs before this one.
    epoch_nll : float
        Of the steps of the epoch that the newest checkpoint is in, the sum of the loss so far, and
        0 where that is not known.
    n_summed : int
        Steps in that sum.
    """

    def __init__(self, config: TrainConfig, n_ranks: int) -> None:
        self._config = config
        self._n_ranks = n_ranks
        try:
            self.final = resolved(Path(config.model_dir))
        except RuntimeError as error:  # links in a circle
            raise ConfigError(f"--model_dir={config.model_dir}: {error}; choose another") from error
        if not self.final.name:
            raise ConfigError(f"--model_dir={config.model_dir}: has no name; choose one below it")
        self.work = self.final.with_name(f"{self.final.name}.training")
        self._replaced = self.final.with_name(f".{self.final.name}.replaced")
        self.step = -1
        self.seconds = 0.0
        self.epoch_nll, self.n_summed = 0.0, 0
        self._state: dict[str, Any] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only training that fills it; what a killed one has left half moved is mended.

        Raises
        ------
        ConfigError
            If it cannot be the directory of a network.
        LockError
            If another training holds it.
        """
        self._check_place()
        with hold(self.final, _LOCK_TIMEOUT_S, "--model_dir") as lock:
            self._lock: Lock = lock
            clean(self.final)
            if self._replaced.is_dir() and not self.final.exists():
                (self.work if _is_done(self.work) else self._replaced).rename(self.final)
            if (self.final / UNFINISHED).exists() and _is_done(self.final):
                self._tidy()
            yield

    def status(self) -> str:
        """How far this training is, in words: ``complete``, ``partial 560/4400 steps``, nothing."""
        unfinished = _read(self.work / UNFINISHED)
        if unfinished and not self._differences(unfinished.get("identity")):
            return f"partial {_newest(self.work) or 0}/{unfinished.get('n_steps')} steps"
        record = self._record()
        if record is not None and not self._differences(_identity_in(record)):
            return "complete"
        return ""

    def _record(self) -> dict[str, Any] | None:
        """What ``train.json`` says of the network in its place; None unless it is of that one."""
        record = _read(self.final / RECORD)
        if record is None or _newest(self.final) != record.get("n_steps"):
            return None
        return record

    def join(
        self,
        sha256: Mapping[str, str],
        n_steps: int,
        environment: Environment,
        origin: Mapping[str, str] = {},
    ) -> str:
        """Find out whether there is something to go on with; writes nothing.

        Parameters
        ----------
        sha256 : mapping of str to str
            Digest of every data file.
        n_steps : int
            Of the whole training.
        origin : mapping of str to str
            Digests of what it begins with, by flag.

        Returns
        -------
        str
            ``new``, ``unfinished`` (at :attr:`step`), ``trained`` (all that is left is to put it
            in its place) or ``complete``.

        Raises
        ------
        ConfigError
            If what is there is another training, and it is not to be overwritten.
        """
        there = _read(self.work / UNFINISHED)
        if self.work.exists() and there is None and _has_others(self.work):
            raise ConfigError(
                f"{self.work}: is there, and is no unfinished training; move it away, or choose "
                "another --model_dir"
            )
        identity = self._identity(sha256, origin)
        step = _newest(self.work)
        if step is None and max(self._steps(), default=0) > 0 and not self._config.overwrite:
            raise ConfigError(
                f"{self.work}: an unfinished training whose newest checkpoint is not whole; mend "
                f"that, {_ANEW}"
            )
        self._state = {"identity": identity, "n_steps": n_steps, "environment": environment,
                       "overwrite": self._config.overwrite, "asked_for": []}  # fmt: skip
        if there is not None and step is not None and not self._config.overwrite:
            found = self._differences(there.get("identity"), identity)
            if found and step > 0:
                raise ConfigError(
                    f"{self.work}: an unfinished training with {'; with '.join(found)}; go on with "
                    f"that, {_ANEW}"
                )
            if not found:
                if not there.get("overwrite"):
                    self._refuse_network()
                self._go_on(there, step, environment)
                return "trained" if _is_done(self.work) else "unfinished"
        record = self._record()
        if record is None or self._config.overwrite:
            self._refuse_network()
            return "new"
        found = self._differences(_identity_in(record), identity)
        if found:
            raise ConfigError(
                f"{self.final}: a network trained with {'; with '.join(found)}; choose another "
                f"directory, {_ANEW}"
            )
        return "complete"

    @property
    def mixed_environment(self) -> str:
        """What of the environment was not the same in all jobs, in words."""
        return mixture(self._state["environment"])

    def begin(self, training: Training, session: Any, files: Mapping[str, bytes] = {}) -> None:
        """Begin a new training, and save it as it is before the first step.

        Parameters
        ----------
        files : mapping of str to bytes
            What else is to be in it.
        """
        try:
            self._remove(self.work)
            self.work.mkdir(exist_ok=True)
            if self.final.is_dir():
                shutil.copymode(self.final, self.work)
            self._write_state()
            for name, content in files.items():
                put(self.work / name, [content])
            try:
                graph_info.write(self.work, training.graph)
            except ConfigError as error:
                raise WriteError(str(error)) from error
            self.save(training, session, 0)
        except OSError as error:
            self.give_up()
            raise WriteError(
                f"{self.work}: cannot be written ({error.strerror}); mend that, or choose another "
                "--model_dir"
            ) from error
        except BpruneError:
            self.give_up()
            raise

    def restore(self, training: Training, session: Any) -> None:
        """Set a session's variables to those of the newest checkpoint."""
        prefix = self._prefix(self.step)
        with saver.reading(prefix):
            training.saver.restore(session, str(prefix))

    def save(
        self,
        training: Training,
        session: Any,
        step: int,
        seconds: float = 0.0,
        epoch_nll: tuple[float, int] = (0.0, 0),
    ) -> None:
        """Write a checkpoint with its meta graph, and only then say that it is there.

        Parameters
        ----------
        seconds : float
            Time that this job has trained.
        epoch_nll : tuple of float and int
            Sum of the loss over the steps of this epoch, and their number.

        Raises
        ------
        WriteError
            If that fails; the checkpoint before it is as it was.
        """
        if step == self.step:
            return
        self._lock.check()
        prefix = self._prefix(step)
        for left in self.work.glob(f"{prefix.name}.*"):  # by a job that was killed
            left.unlink()
        with training.graph.as_default():  # that is the one which a Saver exports
            meta = training.saver.export_meta_graph().SerializeToString(deterministic=True)
        put(prefix.with_name(f"{prefix.name}.meta"), [meta])
        write_checkpoint(training, session, self.work / CHECKPOINT, step)
        for path in saver.checkpoint_files(prefix):
            _sync(path)
        kept = sorted({n for n in self._steps() if n < step and self._is_asked_for(n)} | {step})
        names = [f"{CHECKPOINT}-{n}" for n in kept]
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        put(self.work / _LISTING, ["".join(f"{line}\n" for line in lines).encode()])
        self.step = step
        self._state["asked_for"] = [n for n in kept if self._is_asked_for(n)]
        self._state["epoch"] = [step, *epoch_nll]
        self._write_state(seconds)
        for path in self.work.iterdir():
            found = _STEP.match(path.name)
            if found and int(found[1]) not in kept:
                path.unlink()

    def give_up(self) -> None:
        """Remove a training that has nothing anyone could want."""
        if not any(self._is_asked_for(step) for step in self._steps()):
            with contextlib.suppress(OSError):
                self._remove(self.work)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Write ``train.json``, and put the training in its place."""
        put(self.work / RECORD, [f"{json.dumps(report, indent=2)}\n".encode()])
        self.publish()

    def publish(self) -> None:
        """Put what is trained in its place.

        Raises
        ------
        BpruneError
            If the file system refuses, or a network has come there that is not to be replaced.
        """
        self._lock.check()
        try:
            if not self._state["overwrite"] and (name := self._network()):
                raise FileExistsError(errno.EEXIST, f"'{name}' has come there meanwhile")
            if self.final.is_dir() and any(self.final.iterdir()):
                shutil.copymode(self.final, self.work)
                self._change_places()
            else:
                self.work.rename(self.final)
            _sync(self.final.parent)
        except OSError as error:
            raise BpruneError(
                f"{self.final}: cannot be replaced ({error.strerror}); the network is whole in "
                f"{self.work}: move it, or mend that and run the same command again"
            ) from error
        self._tidy()

    def _change_places(self) -> None:
        if _exchange(self.work, self.final):
            return
        self.final.rename(self._replaced)
        try:
            self.work.rename(self.final)
        except OSError:
            self._replaced.rename(self.final)
            raise

    def _check_place(self) -> None:
        given = f"--model_dir={self._config.model_dir}"
        if self.final.name.endswith(".training"):
            raise ConfigError(f"{given}: unfinished trainings have such names; choose another")
        if self.final.exists() and not self.final.is_dir():
            raise ConfigError(f"{given}: is not a directory; choose another")
        if self.final.exists() and not os.access(self.final, os.W_OK | os.X_OK):
            raise ConfigError(f"{given}: cannot be written to; choose another")
        if os.path.ismount(self.final) or Path.cwd().is_relative_to(self.final):
            raise ConfigError(
                f"{given}: cannot be replaced by a new directory, as it is a mount point or the "
                "directory that this was started in; choose one below it"
            )
        at = self.final.parent
        while not at.exists():
            at = at.parent
        if not at.is_dir() or not os.access(at, os.W_OK | os.X_OK):
            raise ConfigError(f"{given}: cannot be made, as {at} cannot be written; choose another")

    def _identity(self, sha256: Mapping[str, str], origin: Mapping[str, str]) -> dict[str, Any]:
        digest = hashlib.sha256("".join(sorted(set(sha256.values()))).encode()).hexdigest()
        made = {**self._config.defining, "ranks": self._n_ranks, "data": f"sha256 {digest}",
                **{name: origin.get(name, "none") for name in ORIGINS}}  # fmt: skip
        return json.loads(json.dumps(made))  # type: ignore[no-any-return]

    def _differences(self, before: Any, now: Mapping[str, Any] | None = None) -> list[str]:
        """What differs; without ``now``, of the settings alone."""
        if not isinstance(before, dict):
            return ["other settings"]
        now = json.loads(json.dumps(self._config.defining)) if now is None else now
        absent = {f"--{name}": value for name, value in defaults().items()}
        absent |= dict.fromkeys(ORIGINS, "none")
        before = {**json.loads(json.dumps(absent)), **before}
        both = [name for name in now if name in before]
        return differences(
            {name: before[name] for name in both}, {name: now[name] for name in both}
        )

    def _network(self) -> str:
        """A file in the place of the network that belongs to one; empty if there is none."""
        if not self.final.is_dir():
            return ""
        return min((path.name for path in self.final.iterdir() if _is_ours(path)), default="")

    def _refuse_network(self) -> None:
        if not self._config.overwrite and (name := self._network()):
            raise ConfigError(
                f"--model_dir={self.final}: already holds a network ('{name}'); choose another "
                f"directory, {_ANEW}"
            )

    def _go_on(self, there: Mapping[str, Any], step: int, environment: Environment) -> None:
        self.step, self.seconds = step, float(there.get("train_time_s", 0.0))
        summed = there.get("epoch", [-1, 0.0, 0])
        if summed[0] == step:
            self.epoch_nll, self.n_summed = float(summed[1]), int(summed[2])
        before = there.get("environment")
        known = [before] if isinstance(before, dict) else []
        self._state["environment"] = union([*known, environment])
        self._state["overwrite"] = bool(there.get("overwrite"))
        self._state["asked_for"] = there.get("asked_for", [])  # perhaps by another --save_every
        if self.mixed_environment:
            logger.warning(
                "%s: the environment was not the same all the time (%s): last bits may differ from "
                "those of one run, and train.json says mixed_environment",
                self.work, self.mixed_environment,
            )  # fmt: skip

    def _write_state(self, seconds: float = 0.0) -> None:
        state = {**self._state, "train_time_s": round(self.seconds + seconds, 1)}
        put(self.work / UNFINISHED, [f"{json.dumps(state, indent=2)}\n".encode()])

    def _prefix(self, step: int) -> Path:
        return self.work / f"{CHECKPOINT}-{step}"

    def _steps(self) -> set[int]:
        """Steps of which there is a checkpoint."""
        found = (_STEP.match(path.name) for path in self.work.glob("*.index"))
        return {int(match[1]) for match in found if match}

    def _is_asked_for(self, step: int) -> bool:
        """Whether a checkpoint is to be in the end, and not only for a resume."""
        n_steps = self._state["n_steps"]
        of_epoch = n_steps // self._config.epochs
        every = self._config.save_every * of_epoch
        is_due = step == n_steps or bool(every and step and step % every == 0)
        is_due |= step > 0 and step in self._swept_steps(of_epoch)
        return is_due or step in self._state["asked_for"]

    def _swept_steps(self, of_epoch: int) -> list[int]:
        """Steps at which a stage ends that is swept."""
        is_swept = self._config.sweep_stages is not None
        return [of_epoch * epoch for epoch in stage_ends(self._config)] if is_swept else []

    def _tidy(self) -> None:
        """After a training has taken its place: remove the network that was there."""
        for old in (self.work, self._replaced):
            if not old.is_dir():
                continue
            for path in old.iterdir():
                if not _is_ours(path) and not os.path.lexists(self.final / path.name):
                    path.rename(self.final / path.name)
            self._remove(old)
            if old.exists():
                logger.warning("%s: holds files that have no place in %s", old, self.final)
        (self.final / UNFINISHED).unlink(missing_ok=True)

    @staticmethod
    def _remove(directory: Path) -> None:
        """Remove a training; other files in the directory stay, and so does the directory then."""
        if not directory.is_dir():
            return
        # First what names other files, and last what says whose they are.
        order = {RECORD: 0, _LISTING: 1, UNFINISHED: 3}
        for path in sorted(directory.iterdir(), key=lambda path: order.get(path.name, 2)):
            if _is_ours(path):
                path.unlink()
        with contextlib.suppress(OSError):
            directory.rmdir()


def _identity_in(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What decides the numbers, as a ``train.json`` has it."""
    try:
        found = {f"--{name}": value for name, value in record["config"].items()}
        digests = sorted(set(record["data"]["sha256"].values()))
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        origin = record.get("origin", {})
        begun = {name: origin.get(name, "none") for name in ORIGINS}
        return {**found, "ranks": record["n_ranks"], "data": f"sha256 {digest}", **begun}
    except (KeyError, TypeError, AttributeError):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """What is in a JSON file; None if there is none, or it makes no sense."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_ours(path: Path) -> bool:
    is_directory = path.is_dir() and not path.is_symlink()
    return bool(_OURS.fullmatch(path.name)) and not is_directory


def _has_others(directory: Path) -> bool:
    """Whether there is more than what a training leaves that was killed as it began."""
    return not directory.is_dir() or any(
        not path.name.endswith(".part") for path in directory.iterdir()
    )


def _is_done(directory: Path) -> bool:
    return (directory / RECORD).is_file()


def _is_whole(directory: Path) -> bool:
    """Whether a checkpoint is there, with its meta graph."""
    try:
        prefix = saver.find_checkpoint(directory)
    except CheckpointError:
        return False
    return prefix.with_name(f"{prefix.name}.meta").is_file()


def _newest(directory: Path) -> int | None:
    """Step of the checkpoint that a training can go on from."""
    if not (directory / _LISTING).is_file() or not _is_whole(directory):
        return None
    return saver.step_of(saver.find_checkpoint(directory))


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change places in one step; False where the system has no such step."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(path: Path) -> None:
    """Make what was written last, as far as the file system lets it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
