"""Train a mean-field Bayesian network on one or many ranks.

    mpirun -n 2 python -m bprune_hpc.train @configs/train_digits.txt

What belongs here: the training run, from flags to a directory with a TF1 checkpoint, its meta graph
and the text files BPrune's users keep beside it. What does not: networks (``models``), the graph
(``training.graph``), schedules and shares (``training.config``), files (``training.directory``),
pruning.

Every rank takes its own examples of each step and its own noise; gradients are averaged, in one
array a step, by Horovod or by MPI. The same seed and the same number of ranks give the same bits,
in one job or in several; with three or more, as long as the MPI library and the layout of ranks
over hosts are the same, by which it chooses the order of a sum. Batch normalization sees a rank's
own examples, and each rank keeps moving statistics of its own: rank 0's are evaluated and saved.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=True)

import numpy as np
from numpy.typing import NDArray

from . import streams
from .config.argument_file import ArgumentParser
from .data.fitting import NetworkInput
from .data.loading import DataSet, check_labels, check_targets, describe, load
from .data.splitting import SPLIT_FILE, as_file, held_out
from .data.values import Split
from .errors import BpruneError, ConfigError, DataError, LaunchError
from .job import deadline, launch_report
from .job.environment import versions
from .job.provenance import Environment, environment_of, union
from .models.zoo import image_shape
from .mpi import comm as ranks
from .results import sweeping
from .results.progress import complete
from .runner.examples import check_paths
from .runner.loop import StopVote
from .runner.timing import Timing
from .tensorflow_import import call_of, import_tensorflow, limit_threads, open_session
from .training import config as training_config
from .training import graph, stages
from .training import report as train_report
from .training.beginning import Beginning, read_beginning
from .training.config import (
    TrainConfig,
    epoch_batches,
    fraction_to_prune,
    kl_factor,
    learning_rate,
    parse,
    stage_ends,
    steps_per_epoch,
)
from .training.directory import RECORD, TrainingDirectory
from .training.log import Log, open_log
from .training.noise import Noise
from .training.pruning import prune, prune_fraction, share_pruned
from .training.shares import AddUp, SharedSteps
from .training.units import units_of
from .training.validation import Validation, validate

PROG = "python -m bprune_hpc.train"
STOPPED = 3
"""Exit status of a training that has stopped early; the same command goes on."""
FAILED = 4
"""Exit status of a training that is done, but for thresholds that failed in a stage's sweep."""

_LOOK_S = 1.0  # between looks at signals and the clock, about
_SAVE_S = 300.0  # between checkpoints that are for a resume alone, at least
_SAVE_SHARE = 0.02  # of the time that may go into them
_TAKES = NetworkInput()  # examples of any shape, in float32
_VALIDATION = 2**32 - 1  # in place of a rank, for noise of its own
_MOST_NAMED = 10  # classes in a message
_MOST_CLASSES = 10_000  # of fewer examples than classes

logger = logging.getLogger(__name__)
Comm = ranks.Comm
Ask = Callable[[Timing], str | None]
"""Tells every rank whether to stop, and why; see :class:`bprune_hpc.runner.loop.StopVote`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on all ranks; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    started = time.time()

    def command(comm: Comm) -> int:
        config = comm.from_root(lambda: parse(arguments or ["--help"], PROG))
        if config.status:
            return comm.from_root(lambda: _say_status(config))
        return train(config, comm, started)[0]

    return ranks.run(command)


def parser() -> ArgumentParser:
    """Flags of the command."""
    return training_config.parser(PROG)


def train(
    config: TrainConfig, comm: Comm, started: float | None = None, ask: Ask | None = None
) -> tuple[int, dict[str, Any]]:
    """Train, or go on with a training, evaluate on rank 0, and write the directory.

    Parameters
    ----------
    config : TrainConfig
    comm : SerialComm or MPIComm
        All of its ranks call this.
    started : float, optional
        When this job started, in seconds since 1970; default: now.
    ask : callable, optional
        See :data:`Ask`; without, a vote on signals and the end of the job.

    Returns
    -------
    int
        Exit status, the same on every rank: 0, or 3 if it has stopped early, or 4 if it is done
        and thresholds failed in sweeps of its stages.
    dict
        On rank 0, once it is done, what ``train.json`` holds; else empty.

    Raises
    ------
    EndedByRoot
        If the run cannot start as asked for (rank 0 has a ConfigError or DataError), and nothing
        was written then; or if a checkpoint cannot be written, and what was there is as it was.
    BpruneError
        If the loss is no longer finite.
    """
    started = time.time() if started is None else started
    end = comm.from_root(lambda: deadline.find(config.time_limit_min, started))
    with contextlib.ExitStack() as stack:
        on_root: list[TrainingDirectory] = []

        def enter() -> None:
            directory = TrainingDirectory(config, comm.size)
            stack.enter_context(directory.held())
            on_root.append(directory)

        comm.from_root(enter)
        return _Run(config, comm, on_root[0] if on_root else None, end, ask).run()


def _say_status(config: TrainConfig) -> int:
    directory = TrainingDirectory(config, 1)
    status = directory.status()
    if not status:
        return 1
    n_failed = 0
    if status == "complete":
        n_failed = sum(stages.failures(config, directory.final).values())
        status = complete(n_failed)
    streams.show(status)
    streams.check_shown("the status is told by the exit status too", is_product=False)
    return FAILED if n_failed else 0 if status == "complete" else STOPPED


class _StoppedError(Exception):
    """An evaluation is to end; the reason is its text."""


class _Run:
    """One job of a training, on one rank; ``directory`` is held by rank 0, which alone has it."""

    def __init__(
        self,
        config: TrainConfig,
        comm: Comm,
        directory: TrainingDirectory | None,
        end: deadline.Deadline | None,
        ask: Ask | None,
    ) -> None:
        self.config, self.comm, self.directory, self.end = config, comm, directory, end
        self.ask = ask or StopVote(comm, end, config.stop_margin_s)
        self.call: Callable[..., np.float32]
        # What several ranks have in shares, with Adam's moments or without.
        self._put_back: Callable[[bool], None] = lambda with_moments: None
        self.ask_root = ask or StopVote(ranks.SerialComm(), end, config.stop_margin_s)

    def run(self) -> tuple[int, dict[str, Any]]:
        """See :func:`train`."""
        config, comm = self.config, self.comm
        data: dict[str, DataSet] = {}  # on rank 0, which alone reads files
        self.n_steps, n_outputs = comm.from_root(lambda: _prepare(config, comm.size, data))
        self.files: dict[str, bytes] = {}
        if config.test_fraction is not None and comm.is_root:
            halves = [(data[half].x, data[half].labels) for half in ("train", "test")]
            self.files[SPLIT_FILE] = as_file(halves[0], halves[1])
        self.allreduce = comm.from_root(lambda: _allreduce(config, comm.size))
        environment = _environment(config, comm, self.allreduce)
        self.beginning = Beginning()
        is_masked = comm.from_root(self._read_beginning)
        state = comm.from_root(lambda: self._join(data, environment))
        if state in ("complete", "trained"):
            record = self._record(state) if comm.is_root else {}
            return self._status(), record
        launch_report.report(comm, config.num_intra, self.end)
        on_root: dict[str, NDArray[Any]] | None = None
        if comm.is_root:
            on_root = {"x": data["train"].x, "y": data["train"].labels}
        arrays = comm.bcast_arrays(on_root)
        self.x = arrays["x"]
        is_regression = config.task == "regression"
        self.y = arrays["y"].astype(np.float32 if is_regression else np.int64)
        _start_tensorflow(config)
        if self.allreduce:
            logger.info("gradients of %d ranks are added up by %s", comm.size, self.allreduce)
        self.add_up: AddUp | None = None
        if self.allreduce == "horovod":
            self.add_up = _horovod_sum(_start_horovod(comm), (config.num_intra, config.num_inter))
        self.training = graph.build(
            config, self.x.shape[1:], n_outputs, len(self.y), comm.rank, comm.size, is_masked,
            units_of(self.x, self.y) if config.standardize else None,
        )  # fmt: skip
        asked_for = f"--hidden and --width, with {n_outputs} outputs"
        comm.from_root(lambda: graph.check_memory(self.training, asked_for))
        self.test = data.get("test")
        self.log: Log | None = None
        self.epoch_nll, self.n_summed = 0.0, 0
        with contextlib.ExitStack() as stack:
            self.stack = stack
            threads = config.num_intra, config.num_inter
            self.session = stack.enter_context(open_session(self.training.graph, *threads))
            self.session.run(self.training.init)
            step = comm.from_root(lambda: self._start(state))
            self.noise = graph.noise_of(self.training, config, comm.rank, step)
            self.steps = stack.enter_context(contextlib.ExitStack())
            self._take_steps()
            why = self._train(step)
            report: dict[str, Any] = {}

            def finish() -> str | None:
                try:
                    report.update(self._finish(data))
                except _StoppedError as stopped:
                    return str(stopped)
                return None

            if why is None:
                why = comm.from_root(finish)
        if why is None:
            return self._status(), report
        if comm.is_root:
            without = " without --overwrite" if config.overwrite else ""
            logger.info("stopped early (%s); the same command%s goes on from here", why, without)
        return STOPPED, report

    def _status(self) -> int:
        """Exit status of a training that is done, by the files of all stages; on every rank."""

        def on_root() -> int:
            final = self._on_root.final
            found = stages.failures(self.config, final)
            for name, n_failed in found.items():
                logger.warning("%s: %d thresholds failed, and are marked", final / name, n_failed)
            return FAILED if found else 0

        return self.comm.from_root(on_root)

    def _take_steps(self) -> None:
        """Have steps go on from the variables that rank 0 has; every rank calls this."""
        config, comm = self.config, self.comm
        self.steps.close()
        if comm.size == 1:
            self.call = graph.step_of(self.training, self.session, self.noise)
            return
        mine = graph.state_of(self.training, self.session) if comm.is_root else None
        arrays = comm.bcast_arrays(mine)
        if not comm.is_root:
            graph.set_state(self.training, self.session, arrays)
        shared = SharedSteps(
            self.training, self.session, config, len(self.y), self.noise, comm, self.add_up
        )  # fmt: skip
        self.steps.callback(shared.close)
        self.call, self._put_back = shared, shared.put_back

    @property
    def _on_root(self) -> TrainingDirectory:
        assert self.directory is not None
        return self.directory

    def _join(self, data: dict[str, DataSet], environment: Environment) -> str:
        sha256 = data["train"].sha256 | data["test"].sha256
        n_steps = self.config.epochs * self.n_steps
        return self._on_root.join(sha256, n_steps, environment, self.beginning.sha256)

    def _read_beginning(self) -> bool:
        """Read what this training begins with, on rank 0; whether weights can be pruned in it."""
        config = self.config
        if config.start_from is not None:
            self.beginning = read_beginning(config)
        return config.prune_schedule is not None or self.beginning.has_masks

    def _record(self, state: str) -> dict[str, Any]:
        """Of a training that an earlier job has done."""
        final = self._on_root.final
        if state == "trained":
            self._on_root.publish()
        logger.info("%s: is complete; nothing to do (--overwrite trains anew)", final)
        return dict(json.loads((final / RECORD).read_bytes()))

    def _start(self, state: str) -> int:
        """Begin, or go on; the number of steps that are done."""
        directory, n_steps = self._on_root, self.config.epochs * self.n_steps
        self.saved_at = self.began = time.monotonic()
        self.save_s = 0.0
        if state == "unfinished":
            directory.restore(self.training, self.session)
            logger.info(
                "%s: continuing from step %d of %d", directory.work, directory.step, n_steps
            )
        else:
            self.beginning.set(self.training, self.session)
            directory.begin(self.training, self.session, self.files)
            self.save_s = time.monotonic() - self.saved_at
            logger.info(
                "%s: training here; replaces %s once it is done", directory.work, directory.final
            )
        self.epoch_nll, self.n_summed = directory.epoch_nll, directory.n_summed
        if self.config.log is not None:
            n_done = directory.step // self.n_steps
            self.log = open_log(self.config.log, directory.work, n_done, directory.step)
            self.stack.callback(self.log.close)
        return directory.step

    def _train(self, step: int) -> str | None:
        """Take all steps from one on; why it has stopped, if it has."""
        config, comm = self.config, self.comm
        look = _Looks(comm, self.ask)
        if comm.is_root:
            look.timing.wrote(self.save_s)
        if comm.is_root:
            show = train_report.progress(config.epochs)
        while step < config.epochs * self.n_steps:
            epoch, first = divmod(step, self.n_steps)
            if first == 0 and fraction_to_prune(config, epoch) is not None:
                self._save(step, look.timing)  # the pruning follows from what is saved
                why = self._sweep_stage(epoch, step)
                if why is not None:
                    return why
                self._prune(epoch)
                look.restart()
            batches = epoch_batches(
                len(self.y), config.batch_size, comm.size, comm.rank, config.seed, epoch
            )
            if first == 0:
                self.epoch_nll, self.n_summed = 0.0, 0
            for i in range(first, self.n_steps):
                why, is_due = look.before(step, self._is_save_due)
                if why is not None or is_due:
                    self._save(step, look.timing)
                if why is not None:
                    return why
                self.epoch_nll += float(self._step(batches[i], epoch + i / self.n_steps))
                self.n_summed += 1
                step += 1
            # One rank's broken gradient breaks all, so rank 0 sees it and says it once: in the
            # losses of the epoch or, if it was the last step's, in what that step left behind.
            self._put_back(False)
            row: dict[str, float] = {"epoch": epoch + 1, "step": step}
            if comm.is_root:
                row |= self._end_epoch(epoch)
            found = self._validate(epoch + 1)
            if comm.is_root:
                show(epoch + 1, row["nll"], row["kl"], found)
                if found is not None:
                    row |= {"validation_nll": found.nll, "validation_nll_se": found.nll_se}
                if self.log is not None:
                    self.log.write(row)
            if config.save_every and (epoch + 1) % config.save_every == 0:
                self._save(step, look.timing)
        self._save(step, look.timing)
        return self._sweep_stage(config.epochs, step)

    def _end_epoch(self, epoch: int) -> dict[str, float]:
        """Numbers of an epoch, on rank 0, after a look whether they are finite."""
        config, training = self.config, self.training
        nll = self.epoch_nll / self.n_summed
        kl = float(self.session.run(training.network.kl))
        if not math.isfinite(nll + kl):
            self._on_root.give_up()
            raise BpruneError(
                f"{config.model_dir}: the loss is not finite in epoch {epoch + 1}; lower "
                "--learning_rate"
            )
        rate = learning_rate(config, self.comm.size, epoch + 1)
        return {"nll": nll, "kl": kl, "learning_rate": rate, **self._pruned_fraction()}

    def _validate(self, n_epochs: int) -> Validation | None:
        """Measure the network on the test half, where that is due; rank 0 does it for all."""
        config, training, test = self.config, self.training, self.test
        every = config.validate_every
        if not every or n_epochs % every:
            return None

        def on_root() -> Validation:
            assert test is not None
            noise = Noise(training.outputs, config.seed, _VALIDATION)
            x = test.x.reshape(len(test.x), -1)
            draw = graph.drawing(training, self.session, x, noise)
            scale = training.noise_scale
            of_noise = None if scale is None else float(self.session.run(scale))
            draws = (draw() for _ in range(config.n_draws_validate))
            return validate(draws, test.labels, of_noise)

        return self.comm.from_root(on_root)

    def _sweep_stage(self, epoch: int, step: int) -> str | None:
        """Sweep the network that a stage has ended with, on all ranks; why that has stopped."""
        config = self.config
        if config.sweep_stages is None or epoch not in stage_ends(config):
            return None
        asked = self.comm.from_root(
            lambda: stages.sweep_of(config, self._on_root.work, epoch, step)
        )
        if self.comm.is_root:
            logger.info("sweep of the network after %d epochs: %s", epoch, asked.output)
        with stages.named():
            why, _ = sweeping.run(self.comm, asked, self.ask, config.model_dir)
        return why

    def _step(self, batch: NDArray[np.int64], done: float) -> np.float32:
        """Take one step; this rank's negative log-likelihood, nats an example."""
        return self.call(
            self.x[batch].reshape(len(batch), -1),
            self.y[batch],
            np.float32(learning_rate(self.config, self.comm.size, done)),
            np.float32(kl_factor(self.config, done)),
        )

    def _prune(self, epoch: int) -> None:
        """Prune what is due before an epoch, on every rank alike."""

        def on_root() -> None:
            fraction = fraction_to_prune(self.config, epoch)
            assert fraction is not None
            masks = prune_fraction(self.training, self.session, self.config, fraction)
            prune(self.training, self.session, masks)

        self.comm.from_root(on_root)
        self._take_steps()
        if self.comm.is_root:
            share = 100 * share_pruned(self.training, self.session)
            logger.info("before epoch %d: %.2f %% of the weights are pruned", epoch + 1, share)

    def _is_save_due(self) -> bool:
        """Whether a checkpoint is worth its time, on rank 0."""
        since = time.monotonic() - self.saved_at
        return since > max(_SAVE_S, self.save_s / _SAVE_SHARE)

    def _save(self, step: int, timing: Timing) -> None:
        """Save on rank 0; every rank calls this."""
        self._put_back(True)

        def save() -> None:
            began = time.monotonic()
            summed = self.epoch_nll, self.n_summed
            self._on_root.save(self.training, self.session, step, began - self.began, summed)
            self.saved_at = time.monotonic()
            self.save_s = self.saved_at - began
            timing.wrote(self.save_s)

        self.comm.from_root(save)

    def _pruned_fraction(self) -> dict[str, float]:
        if not self.training.network.masks:
            return {}
        return {"pruned_fraction": share_pruned(self.training, self.session)}

    def _finish(self, data: dict[str, DataSet]) -> dict[str, Any]:
        """Evaluate, and put the network in its place; on rank 0."""
        config, directory, test = self.config, self._on_root, data["test"]
        seconds = directory.seconds + time.monotonic() - self.began
        timing = Timing()
        drawn_at = time.monotonic()

        def before_draw() -> None:
            nonlocal drawn_at
            now = time.monotonic()
            timing.slowest_round_s = max(timing.slowest_round_s, now - drawn_at)
            drawn_at = now
            why = self.ask_root(timing)
            if why is not None:
                raise _StoppedError(why)

        n_steps = config.epochs * self.n_steps
        measured = graph.evaluate(
            config, self.training, self.session, test.x.reshape(len(test.x), -1), test.labels,
            Noise(self.training.outputs, config.seed, 0, n_steps), before_draw,
        )  # fmt: skip
        mixed = directory.mixed_environment
        report = {
            "config": config.settings,
            "n_ranks": self.comm.size,
            "n_steps": n_steps,
            **({"allreduce": self.allreduce} if self.allreduce else {}),
            **({"origin": self.beginning.sha256} if self.beginning.sha256 else {}),
            **self._pruned_fraction(),
            "train_time_s": round(seconds, 1),
            "data": {
                "name": test.name,
                "n_train": len(self.y),
                "n_test": len(test.labels),
                "sha256": data["train"].sha256 | test.sha256,
                "held_out": not _same_examples(data["train"], test),
            },
            **measured,
            "versions": versions(train_report.PACKAGES),
            **({"mixed_environment": mixed} if mixed else {}),
        }
        directory.finish(report)
        train_report.log_result(report)
        if config.sweep_stages is not None:
            where = f"{config.model_dir}/stage*.h5"
            logger.info("sweeps of %d stages: %s", len(stage_ends(config)), where)
        return report


class _Looks:
    """When all ranks look for signals and at the clock: about once a second, between steps.

    Attributes
    ----------
    timing : Timing
        What the vote on the end of the job asks for.
    """

    def __init__(self, comm: Comm, ask: Ask) -> None:
        self.timing = Timing()
        self._comm = comm
        self._ask = ask
        self._at = self._next = -1
        self._looked_at = time.monotonic()

    def before(self, step: int, is_save_due: Callable[[], bool]) -> tuple[str | None, bool]:
        """Why to stop before a step, and whether to save there; the same on every rank."""
        if step < self._next:
            return None, False
        now = time.monotonic()
        n_steps = 1
        if self._at >= 0:
            seconds = now - self._looked_at
            n_steps = max(1, int(_LOOK_S * (step - self._at) / max(seconds, 1e-6)))
            self.timing.slowest_round_s = max(self.timing.slowest_round_s, seconds)
        why = self._ask(self.timing)
        n_steps, is_due = self._comm.from_root(lambda: (n_steps, why is None and is_save_due()))
        self._at, self._next, self._looked_at = step, step + n_steps, now
        return why, is_due

    def restart(self) -> None:
        """Look before the next step, and do not take what was done since for steps."""
        self._at = self._next = -1


def _environment(config: TrainConfig, comm: Comm, allreduce: str | None) -> Environment:
    """What the last bits depend on; whole on rank 0; every rank calls this."""
    facts = {**versions(train_report.PACKAGES), **({"allreduce": allreduce} if allreduce else {})}
    here = environment_of(comm, config.num_intra, config.num_inter)
    return union([{**{name: [value] for name, value in facts.items()}, **here}])


def _prepare(config: TrainConfig, n_ranks: int, loaded: dict[str, DataSet]) -> tuple[int, int]:
    """Find out, before anything is written or waited for, whether the run can start."""
    if config.sweep_stages is not None:
        asked = stages.sweep_of(config, Path(config.model_dir), config.epochs, 0)
        if config.test_fraction is None:  # else there are no halves yet
            check_paths(asked)
    halves: tuple[Split, Split] = ("train", "test")
    for split in halves:
        loaded[split] = load(
            config.dataset,
            config.data_path,
            split,
            subtract_pixel_mean=config.subtract_pixel_mean,
            task=config.task,
            x_key=config.x_key,
            y_key=config.y_key,
            target_columns=config.target_columns,
            first_label=config.first_label,
            network=_TAKES,
        )
    if config.test_fraction is not None:
        _split(config, loaded)
    for split in halves:
        logger.info("%s set: %s", split, describe(loaded[split], config.data_path))
    n_outputs = 1
    if config.task == "classification":
        n_outputs, n_train = int(loaded["train"].labels.max()) + 1, len(loaded["train"].labels)
        if n_outputs > max(n_train, _MOST_CLASSES):
            raise DataError(
                f"{config.data_path}: labels go up to {n_outputs - 1} in {n_train} examples to "
                "train on; number the classes from 0 on, or pass --task=regression"
            )
        if loaded["train"].classes != loaded["test"].classes:
            raise DataError(
                f"{config.data_path}: the labels of both halves are not the same names; save class "
                "numbers from 0"
            )
        for half in loaded.values():
            check_labels(half.labels, n_outputs)
        _warn_of_classes(loaded["train"].labels, loaded["test"].labels)
    else:
        for half in loaded.values():
            check_targets(half.labels, n_outputs)
    if loaded["train"].x.shape[1:] != loaded["test"].x.shape[1:]:
        shapes = loaded["train"].x.shape[1:], loaded["test"].x.shape[1:]
        raise ConfigError(
            f"{config.data_path}: one training example has shape {shapes[0]}, one test example "
            f"{shapes[1]}; save both halves alike"
        )
    if config.model != "dense":
        image_shape(loaded["train"].x.shape[1:])
    n_steps = steps_per_epoch(len(loaded["train"].labels), config.batch_size, n_ranks)
    return n_steps, n_outputs


def _split(config: TrainConfig, loaded: dict[str, DataSet]) -> None:
    """Hold out examples of a file without halves."""
    whole, other = loaded["train"], loaded["test"]
    where = config.data_path or whole.name
    if not _same_examples(whole, other):
        raise ConfigError(f"--test_fraction: {where} has a test half; leave the flag out")
    if len(whole.x) < 2:
        raise DataError(f"{where}: has one example, and two are needed to hold one out")
    assert config.test_fraction is not None
    is_held_out = held_out(len(whole.x), config.test_fraction, config.split_seed)
    for name, chosen in (("train", ~is_held_out), ("test", is_held_out)):
        loaded[name] = replace(whole, x=whole.x[chosen], y=whole.labels[chosen])


def _warn_of_classes(train: NDArray[Any], test: NDArray[Any]) -> None:
    """Say which classes of the test half nothing can be learned of."""
    unknown = np.setdiff1d(test, train)
    if unknown.size:
        logger.warning(
            "no example to train on is of class %s, and %d of the test half are",
            ", ".join(map(str, unknown[:_MOST_NAMED])), np.isin(test, unknown).sum(),
        )  # fmt: skip


def _start_tensorflow(config: TrainConfig) -> None:
    """Let this process's TensorFlow give the same bits each time, by the threads asked for.

    What builds a network runs operations outside of sessions, too, and the first that runs in a
    process makes the pool of threads that all use.
    """
    tf = import_tensorflow()
    limit_threads(config.num_intra, config.num_inter)
    tf.config.experimental.enable_op_determinism()


def _allreduce(config: TrainConfig, n_ranks: int) -> str | None:
    """What adds up gradients: None for one rank, else ``horovod`` or ``mpi``."""
    if n_ranks == 1:
        return None
    is_installed = importlib.util.find_spec("horovod") is not None
    return config.allreduce or ("horovod" if is_installed else "mpi")


def _horovod_sum(horovod: Any, threads: tuple[int, int]) -> AddUp:
    """Adds up arrays by Horovod, in a session of its own."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as own:
        array = tf.compat.v1.placeholder(tf.float32, (None,))
        whole = horovod.allreduce(array, op=horovod.Sum, name="gradients")
    return call_of(open_session(own, *threads), whole, [array])


def _start_horovod(comm: Comm) -> Any:
    """``horovod.tensorflow``, which joins all ranks."""
    tf = import_tensorflow()
    try:
        import horovod.tensorflow as horovod
    except (ImportError, tf.errors.NotFoundError) as error:  # the second: for another TensorFlow
        horovod, reason = None, str(error).splitlines()[0]
    is_missing = comm.any_of(horovod is None)

    def check() -> None:
        if is_missing:
            raise LaunchError(
                f"Horovod cannot be imported ({reason if horovod is None else 'on another rank'}); "
                "install it (tools/install_horovod.sh), or pass --allreduce=mpi"
            )

    comm.from_root(check)
    horovod.init()
    n_joined = horovod.size()

    def check_size() -> None:
        if n_joined != comm.size:
            raise LaunchError(
                f"Horovod joins {n_joined} of {comm.size} processes; build it with the MPI that "
                "mpi4py loads (tools/install_horovod.sh), or pass --allreduce=mpi"
            )

    comm.from_root(check_size)
    return horovod


def _same_examples(one: DataSet, other: DataSet) -> bool:
    return one.x.shape == other.x.shape and np.array_equal(one.x, other.x)


if __name__ == "__main__":
    startup.end(main)
