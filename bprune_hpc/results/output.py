"""The results file of a running sweep, on rank 0: held by a lock, gone on from, written anew.

The story of one file is told here; each of its steps has a module of its own (``files.lock``,
``results.resume``, ``results.contents``, ``files.atomic_write``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import results
from ..config.sweep_config import SweepConfig
from ..errors import ResultsError, WriteError, message_of
from ..files.atomic_write import Signature, check_writable, clean, signature
from ..files.lock import Lock, hold
from ..job.provenance import mixture, union
from ..runner.coordinator import Coordinator
from ..runner.preparation import PreparedSweep
from ..streams import check_shown, show
from . import file as results_file
from . import resume
from .contents import contents
from .table import read_table

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_output(config: SweepConfig) -> Iterator[HeldFile]:
    """Hold the lock of a sweep's results file, and read what is there to go on from.

    Raises
    ------
    LockError
        If another job holds it.
    ResultsError
        If it cannot be written; or what is there is damaged, or no results file, and is not to be
        overwritten.
    """
    check_writable(config.output)
    with hold(config.output, 60 * config.lock_timeout_min) as lock:
        clean(config.output)
        results_file.be_ready()
        saved, good = None, None
        if config.overwrite:
            good = _if_good(config.output)
        else:
            saved = resume.read(config.output)
            good = saved.signature if saved is not None else None
        yield HeldFile(lock, saved, good)


def _if_good(path: str) -> Signature | None:
    """Signature of a file that may become the ``.bak``."""
    of_file = signature(Path(path))
    try:
        with results.open_results(path):
            return of_file
    except ResultsError:
        return None


@dataclass
class HeldFile:
    """A results file that is held by a lock: its place is this sweep's alone.

    Attributes
    ----------
    saved : Saved or None
        What there was to go on from.
    good : Signature or None
        Of the file that is to become the ``.bak``.
    """

    lock: Lock
    saved: resume.Saved | None
    good: Signature | None


class Output:
    """The results file of a sweep that is prepared, to be written again and again.

    Attributes
    ----------
    sweep_states : list of SweepState
        What is done already.

    Raises
    ------
    ResultsError
        If what there is to go on from is not what a sweep writes.
    """

    def __init__(self, held: HeldFile, sweep: PreparedSweep, run: Mapping[str, Any]) -> None:
        self.sweep_states = resume.sweep_states_of(held.saved, sweep)
        if held.saved is not None:
            environment = union([held.saved.environment, sweep.environment])
            sweep = dataclasses.replace(sweep, environment=environment)
            progress = held.saved.progress(sweep.plan.draws_per_replicate)
            logger.info("%s: continuing from %s", sweep.config.output, progress)
            held.saved.sweep_states.clear()  # they are the sweep states' now
        if held.saved is not None and (mixed := mixture(sweep.environment)):
            logger.warning(
                "%s: the environment was not the same all the time (%s): last bits may differ from "
                "those of one run, and the file is marked mixed_environment",
                sweep.config.output, mixed,
            )  # fmt: skip
        self._held = held
        self._sweep = sweep
        self._run = run

    def write(self, coordinator: Coordinator) -> None:
        """Write the file as the coordinator stands."""
        statistics = coordinator.statistics
        status = "complete" if coordinator.is_complete else "partial"
        run = {**self._run, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        whole = contents(self._sweep, statistics, run, status)
        arrays, attrs = resume.state(self._sweep, coordinator.sweep_states)
        root_attrs = dict(whole.attrs)
        if status == "partial":
            root_attrs["rest"] = self._rest(coordinator)
            root_attrs["n_cells"] = coordinator.n_items
            root_attrs["n_cells_done"] = coordinator.n_items - coordinator.n_items_left
        if coordinator.n_failed:
            root_attrs["n_failed"] = coordinator.n_failed
        if mixed := mixture(self._sweep.environment):
            root_attrs["mixed_environment"] = mixed
        whole = dataclasses.replace(whole, attrs=root_attrs, state=arrays, state_attrs=attrs)
        held = self._held
        held.good = results_file.write(
            self._sweep.config.output, whole, keep=held.good, just_before=held.lock.check
        )

    def _rest(self, coordinator: Coordinator) -> str:
        """What a partial file covers of what it is to be, in words."""
        statistics, ahead = coordinator.statistics, coordinator.sweep_states[0]
        n_examples, n_all = len(statistics.statistics[0].label), len(self._sweep.datasets[0])
        covers = f"{statistics.n_draws} of {self._sweep.config.n_draws} draws"
        if n_examples < n_all or ahead.n_passes:
            covers += f" of {n_examples} of {n_all} examples"
        n_behind = len(self._sweep.masks) - len(ahead.thresholds)
        return covers + (f"; {n_behind} more thresholds are being caught up" if n_behind else "")

    def finish(self, coordinator: Coordinator, run: Mapping[str, Any], why: str | None) -> None:
        """Write the file for the last time, if there is something new, and show it."""
        config, timing, saved = self._sweep.config, coordinator.timing, self._held.saved
        self._run = {**run, "n_writes": timing.n_writes + 1}
        if timing.unsaved_s > 0:
            coordinator.publish()
        elif why is not None and saved is None and not timing.n_writes:
            logger.warning("stopped before anything was done (%s); nothing is written", why)
            return
        elif why is None:
            if saved is not None and resume.is_the_same(saved, config):
                logger.info("%s: is complete; nothing to do", config.output)
            else:
                coordinator.publish()
        try:
            read_table(config.output).show()
        except (ResultsError, OSError) as error:
            raise WriteError(f"what was written cannot be read: {message_of(error)}") from error
        if why is not None:
            show(f"stopped early ({why}); the same command goes on from here")
        show(f"results: {config.output}")
        where = f"the results are whole; python -m bprune_hpc.report {config.output} prints them"
        check_shown(where, is_product=False)
