"""One sweep, from what is asked for to its results file: on its own, or inside of a training.

The story of a sweep stands here; each of its steps has a module of its own. What does not belong
here: flags and exit statuses (``sweep``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

from ..config.sweep_config import SweepConfig
from ..job import environment
from ..job.progress import progress
from ..mpi.comm import Comm, of_root, on_root
from ..runner import loop
from ..runner.coordinator import Coordinator
from ..runner.preparation import PreparedSweep, prepare
from ..runner.worker import RankWorker
from . import resume
from .output import Output, open_output

logger = logging.getLogger(__name__)


def run(
    comm: Comm, config: SweepConfig, ask: loop.Ask, model_dir: str | None = None
) -> tuple[str | None, int]:
    """Run a sweep, or the rest of one; every rank calls this.

    Parameters
    ----------
    ask : callable
        See :data:`bprune_hpc.runner.loop.Ask`.
    model_dir : str, optional
        Where the network is going to be, for the results file; default: where it is.

    Returns
    -------
    why : str or None
        Why it has stopped early; the same sweep goes on.
    n_failed : int
        Thresholds at which outputs were not finite.
    """
    with contextlib.ExitStack() as stack:
        file = on_root(comm, lambda: stack.enter_context(open_output(config)))
        watch = environment.Stopwatch()
        with watch.time("read"):
            prepared = prepare(config, comm, lambda *case: resume.join(of_root(file).saved, *case))
        if model_dir is not None:
            prepared = _recorded_at(prepared, model_dir)
        threads, used = (config.num_intra, config.num_inter), prepared.used_device
        run_facts = environment.describe_run(comm, watch, *threads, used)
        output = on_root(comm, lambda: Output(of_root(file), prepared, run_facts))
        coordinator = None
        if output is not None:
            states, write = output.sweep_states, output.write
            coordinator = Coordinator(prepared, states, comm.size, watch, write)
            logger.info(
                "%d weights, %d thresholds x %d draws x %d examples, on %d rank%s",
                prepared.network.posterior.n_weights, len(prepared.masks), prepared.plan.n_draws,
                len(prepared.datasets[0]), comm.size, "s" if comm.size > 1 else "",
            )  # fmt: skip
        n_items = comm.from_root(lambda: of_root(coordinator).n_items_left)
        with progress(-(-n_items // comm.size), "sweep", comm.is_root) as advance:
            worker = RankWorker(comm, prepared, watch, advance)
            why = loop.run(comm, worker, coordinator, watch, ask)

        run_facts = environment.describe_run(comm, watch, *threads, used)
        comm.from_root(lambda: of_root(output).finish(of_root(coordinator), run_facts, why))
        return why, comm.from_root(lambda: of_root(coordinator).n_failed)


def _recorded_at(sweep: PreparedSweep, model_dir: str) -> PreparedSweep:
    """What a sweep works on, as if network and data had been read from another directory."""
    config, network = sweep.config, sweep.network

    def moved(path: str) -> str:
        at = Path(path)
        is_inside = at.is_relative_to(config.model_dir)
        return str(Path(model_dir, at.relative_to(config.model_dir))) if is_inside else path

    checkpoint = Path(model_dir).resolve() / Path(network.checkpoint).name
    data = {name: getattr(config, name) for name in ("data_path", "ood_path", "elbo_path")}
    data = {name: moved(path) for name, path in data.items() if path is not None}
    sha256 = {moved(path): digest for path, digest in network.sha256.items()}
    return dataclasses.replace(
        sweep,
        config=dataclasses.replace(config, model_dir=model_dir, **data),
        network=dataclasses.replace(network, checkpoint=str(checkpoint), sha256=sha256),
    )
