"""What a sweep works on: a network and the examples it is tested on.

Rank 0 alone reads files; the other ranks get the arrays as buffers.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import targets
from ..config.sweep_config import SweepConfig
from ..errors import ConfigError
from ..evaluators.interface import Evaluator
from ..evaluators.selection import choose_evaluator, make_evaluator
from ..graph.lifted import LiftedGraph
from ..graph.network_input import network_input
from ..metrics.tasks import Task
from ..mpi.comm import Comm
from ..posterior.criteria import CRITERIA
from ..posterior.draws import draws_per_unit
from ..posterior.mean_field import Posterior, Prior
from ..tensorflow_import import import_graphs
from .examples import DataRecord, check_paths, read_other_kind, read_test_set
from .task_selection import choose_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """A network with its posterior, and labelled examples that fit it.

    Attributes
    ----------
    graph : LiftedGraph
        The deterministic network.
    posterior : Posterior
    fixed : mapping of str to array
        Variables of the network that have no posterior.
    x : array, shape (n_examples, ...)
        In the shape that the network takes.
    label : array, shape (n_examples,)
        Class numbers, int64 in [0, n_classes); or targets, float64.
    task : Task
        What the network is for.
    checkpoint : str
        Where the network came from.
    sha256 : mapping of str to str
        Of every file that was read.
    ood_x : array, shape (n_ood_examples, ...), or None
        Examples of another kind, as the network takes them.
    record : DataRecord
        What was done to the examples.
    evaluator : str
        What runs the network; see ``evaluator_choice``.
    prior : mapping of str to Prior, or None
        Of every mean-field tensor, read from the graph; None where it is not needed.
    """

    graph: LiftedGraph
    posterior: Posterior
    fixed: Mapping[str, NDArray[Any]]
    x: NDArray[Any]
    label: NDArray[Any]
    task: Task
    checkpoint: str
    sha256: Mapping[str, str]
    ood_x: NDArray[Any] | None = None
    record: DataRecord = field(default_factory=DataRecord)
    evaluator: str = "graph"
    prior: Mapping[str, Prior] | None = None

    def on_every_set(self) -> list[Problem]:
        """The network on the test set and, where there are any, on examples of another kind.

        Those have no class: their labels are 0, and no number that needs one may be used.
        """
        if self.ood_x is None:
            return [self]
        no_label = np.zeros(len(self.ood_x), np.int64)
        return [self, replace(self, x=self.ood_x, label=no_label, ood_x=None)]

    def make_evaluator(self, n_intra: int, n_inter: int) -> Evaluator:
        """What runs the network, on this rank."""
        shapes = {name: loc.shape for name, loc in self.posterior.loc.items()}
        return make_evaluator(self.evaluator, self.graph, self.fixed, shapes, n_intra, n_inter)

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for a regression."""
        return self.task.n_classes


def load(config: SweepConfig, comm: Comm) -> Problem:
    """Read a sweep's problem on rank 0 and give it to every rank; all ranks call this."""
    if not comm.is_root and config.evaluator == "graph":
        import_graphs()  # which takes seconds, while rank 0 reads
    on_root: list[Problem] = []
    comm.from_root(lambda: on_root.append(read(config)))
    return share(on_root[0] if on_root else None, comm)


def read(config: SweepConfig) -> Problem:
    """Read the network and the data set that a sweep names, and check that they fit.

    Raises
    ------
    InputError
        If either cannot be read, or they do not fit each other.
    """
    from ..checkpoints import case

    _check_named(config)
    check_paths(config)
    needs_prior = CRITERIA[config.criterion].needs_prior and config.prior_scale is None
    network = case.read_case(
        config.model_dir,
        config.model_ckpt,
        model=config.model,
        input_op=config.input_op,
        logits_op=config.logits_op,
        loc_op=config.loc_op,
        scale_op=config.scale_op,
        with_prior=needs_prior,
        n_intra=config.num_intra,
        n_inter=config.num_inter,
    )
    if needs_prior:
        check_prior(config.criterion, network.posterior, network.prior, network.source.path)
    task = choose_task(config.task, config.noise_scale, network.graph, network.source.path)
    takes = network_input(network.graph, network.fixed)
    examples = read_test_set(config, task, takes)
    if task.name == "regression" and config.ood_dataset is not None:
        raise ConfigError("--ood_path: is of a classification; leave it out for a regression")
    size = draws_per_unit(config.pairing, task.noises_per_unit)
    targets.check_task(config.target, config.limit, task.name, -(-config.n_draws // size), size)
    ood = None if config.ood_dataset is None else read_other_kind(config, takes, examples)
    hashes = {**network.source.sha256, **examples.sha256, **(ood.sha256 if ood else {})}
    _check_not_read(config.output, hashes.values())
    return Problem(
        graph=network.graph,
        posterior=network.posterior,
        fixed=network.fixed,
        x=examples.x,
        label=examples.labels,
        task=task,
        checkpoint=network.source.path,
        sha256=hashes,
        ood_x=None if ood is None else ood.x,
        record=examples.record,
        evaluator=choose_evaluator(config.evaluator, network.graph),
        prior=network.prior if needs_prior else None,
    )


def _check_named(config: SweepConfig) -> None:
    """Refuse to guess the data: those in the package are of the networks in it alone."""
    is_embedded = config.model_dir.startswith("embedded:")
    if config.dataset == "auto" and config.data_path is None and not is_embedded:
        raise ConfigError(
            f"--data_path is missing: name the test set of {config.model_dir}, or say which of "
            "those in the package it is, --dataset=digits or --dataset=diabetes"
        )
    if config.ood_dataset == "auto" and config.ood_path is None:
        raise ConfigError("--ood_path is missing: name the examples of another kind")


def _check_not_read(output: str, sha256: Collection[str]) -> None:
    """Refuse to replace a file that was read, by whatever name."""
    for path in (Path(output), Path(f"{output}.bak")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() in sha256:
                raise ConfigError(
                    f"--output: {path} is one of the files that are read; choose another file"
                )


def check_prior(
    criterion: str, posterior: Posterior, prior: Mapping[str, Prior], path: str
) -> None:
    """Raise :class:`ConfigError` where a criterion needs a prior that is not known."""
    unknown = [name for name in posterior.names if name not in prior]
    if unknown:
        more = f" and {len(unknown) - 1} more tensors" if len(unknown) > 1 else ""
        raise ConfigError(
            f"--criterion={criterion}: the prior is not known: {path} holds no divergence of "
            f"'{unknown[0]}'{more} from a fixed Normal; give the standard deviation of the "
            "weights' Gaussian prior with --prior_scale"
        )


def share(problem: Problem | None, comm: Comm) -> Problem:
    """Give rank 0's problem to every rank.

    Parameters
    ----------
    problem : Problem on rank 0, None elsewhere
    """
    arrays: dict[str, NDArray[Any]] | None = None
    small: Any = None
    if problem is not None:
        arrays = {
            **{f"loc/{name}": loc for name, loc in problem.posterior.loc.items()},
            **{f"scale/{name}": scale for name, scale in problem.posterior.scale.items()},
            **{f"fixed/{name}": value for name, value in problem.fixed.items()},
            "x/": problem.x,
            "label/": problem.label,
        }
        if problem.ood_x is not None:
            arrays["ood/"] = problem.ood_x
        small = (
            problem.graph, problem.task, problem.checkpoint, dict(problem.sha256), problem.prior,
            problem.evaluator, problem.record,
        )  # fmt: skip
    graph, task, checkpoint, sha256, prior, evaluator, record = comm.from_root(lambda: small)
    tables: dict[str, dict[str, NDArray[Any]]] = {"loc": {}, "scale": {}, "fixed": {}}
    for key, array in comm.bcast_arrays(arrays).items():
        table, name = key.split("/", 1)
        tables.setdefault(table, {})[name] = array
    return Problem(
        graph=graph,
        posterior=Posterior(tables["loc"], tables["scale"]),
        fixed=tables["fixed"],
        x=tables["x"][""],
        label=tables["label"][""],
        task=task,
        checkpoint=checkpoint,
        sha256=sha256,
        ood_x=tables["ood"][""] if "ood" in tables else None,
        record=record,
        evaluator=evaluator,
        prior=prior,
    )
