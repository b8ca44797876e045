"""The results file of a running sweep, on rank 0: held by a lock, gone on from, written anew.

The story of one file is told here; each of its steps has a module of its own (``files.lock``,
``results.resume``, ``results.contents``, ``files.atomic_write``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import results
from ..config.sweep_config import SweepConfig
from ..errors import ResultsError, WriteError, message_of
from ..files.atomic_write import Signature, clean, signature
from ..files.lock import Lock, hold
from ..job.provenance import Environment, Identity, mixture, union
from ..posterior.draws import draws_per_unit
from ..posterior.pruning import Cut
from ..runner.coordinator import Coordinator
from ..runner.datasets import Layout, Part
from ..runner.problem import Problem
from ..runner.state import SweepState
from ..streams import check_shown, show
from . import file as results_file
from . import resume
from .contents import contents
from .identity import identity_of
from .table import read_findings

logger = logging.getLogger(__name__)

T = TypeVar("T")


def on(one: T | None) -> T:
    """What only rank 0 has, for what only rank 0 calls."""
    assert one is not None
    return one


@contextlib.contextmanager
def open_output(config: SweepConfig) -> Iterator[Output]:
    """Hold the lock of a sweep's results file, and read what is there to go on from.

    Raises
    ------
    LockError
        If another job holds it.
    ResultsError
        If what is there is damaged, or no results file, and is not to be overwritten.
    """
    with hold(config.output, 60 * config.lock_timeout_min) as lock:
        clean(config.output)
        results_file.be_ready()
        saved, good = None, None
        if config.overwrite:
            good = _if_good(config.output)
        else:
            saved = resume.read(config.output)
            good = saved.signature if saved is not None else None
        yield Output(lock, saved, good)


def _if_good(path: str) -> Signature | None:
    """Signature of a file that may become the ``.bak``."""
    found = signature(Path(path))
    try:
        with results.open_results(path):
            return found
    except ResultsError:
        return None


class Output:
    """A results file that is held.

    Attributes
    ----------
    saved : Saved or None
        What there was to go on from.
    """

    def __init__(self, lock: Lock, saved: resume.Saved | None, good: Signature | None) -> None:
        self.saved = saved
        self.sweep_states: list[SweepState] = []
        self._lock = lock
        self._good = good
        self._identity: Identity = {}
        self._environment: Environment = {}
        self._run: Mapping[str, Any] = {}

    @property
    def layout(self) -> Layout | None:
        """Blocks of examples that the file was begun with."""
        return self.saved.layout if self.saved is not None else None

    def join(
        self, config: SweepConfig, problem: Problem, evaluator: str, draws_of_unit: int
    ) -> SweepConfig:
        """What is asked for, with what the file has.

        Raises
        ------
        ResultsError
            If the file was made with something else.
        """
        self._identity = identity_of(config, problem, evaluator)
        if self.saved is None:
            return config
        resume.check_identity(self.saved, self._identity)
        return resume.joined(config, self.saved, problem, draws_of_unit)

    def begin(
        self,
        config: SweepConfig,
        problem: Problem,
        cuts: Sequence[Cut],
        parts: Sequence[Part],
        environment: Environment,
        run: Mapping[str, Any],
    ) -> None:
        """Be ready to write; what there was to go on from becomes sweep states.

        Raises
        ------
        ResultsError
            If that is not what a sweep writes.
        """
        self._config, self._problem, self._cuts, self._parts = config, problem, cuts, parts
        self._run = run
        size = draws_per_unit(config.pairing, problem.task.noises_per_unit)
        there = self.saved.progress(size) if self.saved is not None else ""
        self.sweep_states = resume.sweep_states_of(self.saved, config, parts, size)
        before = [] if self.saved is None else [self.saved.environment]
        self._environment = union([*before, environment])
        if self.saved is None:
            return
        self.saved.sweep_states.clear()  # they are the sweep states' now
        logger.info("%s: going on from %s", config.output, there)
        mixed = mixture(self._environment)
        if mixed:
            logger.warning(
                "%s: the environment was not the same all the time (%s): last bits may differ from "
                "those of one run, and the file is marked mixed_environment", config.output, mixed,
            )  # fmt: skip

    def write(self, coordinator: Coordinator) -> None:
        """Write the file as the coordinator stands."""
        statistics = coordinator.statistics
        status = "complete" if coordinator.is_complete else "partial"
        cuts = statistics.thresholds.of(self._cuts)
        run = {**self._run, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        found = contents(self._config, self._problem, cuts, statistics, run, status)
        arrays, attrs = resume.state(
            self._identity, self._environment, self._config, self._parts, coordinator.sweep_states
        )
        root_attrs = dict(found.attrs)
        if status == "partial":
            root_attrs["rest"] = self._rest(coordinator)
            root_attrs["n_cells"] = coordinator.n_items
            root_attrs["n_cells_done"] = coordinator.n_items - coordinator.n_items_left
        if coordinator.n_failed:
            root_attrs["n_failed"] = coordinator.n_failed
        if mixed := mixture(self._environment):
            root_attrs["mixed_environment"] = mixed
        found = dataclasses.replace(found, attrs=root_attrs, state=arrays, state_attrs=attrs)
        self._good = results_file.write(
            self._config.output, found, keep=self._good, just_before=self._lock.check
        )

    def _rest(self, coordinator: Coordinator) -> str:
        """What a partial file covers of what it is to be, in words."""
        statistics, ahead = coordinator.statistics, coordinator.sweep_states[0]
        n_examples, n_all = len(statistics.statistics[0].label), len(self._problem.label)
        covers = f"{statistics.n_draws} of {self._config.n_draws} draws"
        if n_examples < n_all or ahead.n_passes:
            covers += f" of {n_examples} of {n_all} examples"
        n_behind = len(self._cuts) - len(ahead.thresholds)
        return covers + (f"; {n_behind} more thresholds are being caught up" if n_behind else "")

    def finish(self, coordinator: Coordinator, run: Mapping[str, Any], why: str | None) -> None:
        """Write the file for the last time, if there is something new, and show it."""
        config, timing = self._config, coordinator.timing
        self._run = {**run, "n_writes": timing.n_writes + 1}
        if timing.unsaved_s > 0:
            coordinator.publish()
        elif why is not None and self.saved is None and not timing.n_writes:
            logger.warning("stopped before anything was done (%s); nothing is written", why)
            return
        elif why is None:
            if self.saved is not None and resume.is_the_same(self.saved, config):
                logger.info("%s: is complete; nothing to do", config.output)
            else:
                coordinator.publish()
        try:
            read_findings(config.output).show()
        except (ResultsError, OSError) as error:
            raise WriteError(f"what was written cannot be read: {message_of(error)}") from error
        if why is not None:
            show(f"stopped early ({why}); the same command goes on from here")
        show(f"results: {config.output}")
        where = f"the results are whole; python -m bprune_hpc.report {config.output} prints them"
        check_shown(where, is_product=False)
