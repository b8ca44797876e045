"""Reading what a sweep works on: a network, and the examples that it is given.

Rank 0 alone reads files; the other ranks get the arrays as buffers.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .. import data
from ..config.sweep_config import SweepConfig
from ..data import loading as data_loading
from ..errors import ConfigError, DataError
from ..evaluators.selection import choose_evaluator, make_evaluator
from ..metrics.tasks import Classification, Task
from ..mpi.comm import Comm, on_root
from ..posterior.criteria import CRITERIA
from ..posterior.mean_field import Posterior, Prior
from ..tensorflow_import import import_graphs
from .batch_dependence import check_examples_apart
from .datasets import OUT_OF_DISTRIBUTION, TEST_SET, Examples
from .network import Network
from .output_probe import some_outputs
from .task_selection import choose_task, kind_asked, told_by

if TYPE_CHECKING:
    from ..checkpoints.case import Case

logger = logging.getLogger(__name__)

_LIKE_UNITS = 3
"""Targets whose standard deviations differ by more are taken to have units of their own."""


Problem = tuple[Network, list[Examples]]
"""A network, and every set of examples that it is given, the test set first."""


def load(config: SweepConfig, comm: Comm) -> Problem:
    """Read a sweep's problem on rank 0 and give it to every rank; all ranks call this."""
    if not comm.is_root and config.evaluator == "graph":
        import_graphs()  # which takes seconds, while rank 0 reads
    return share(on_root(comm, lambda: read(config)), comm)


def read(config: SweepConfig) -> Problem:
    """Read the network and the data sets that a sweep names, and check that they fit.

    Raises
    ------
    InputError
        If either cannot be read, or they do not fit each other.
    """
    from ..checkpoints import case

    _check_named(config)
    needs_prior = CRITERIA[config.criterion].needs_prior and config.prior_scale is None
    output_kind = kind_asked(config.task, config.output_kind, config.noise_scale)
    network = case.read_case(
        config.model_dir,
        config.model_ckpt,
        model=config.model,
        example_shape=lambda: _example_shape(config),
        input_op=config.input_op,
        logits_op=config.logits_op,
        loc_op=config.loc_op,
        scale_op=config.scale_op,
        output_kind=output_kind,
        feed=config.feed,
        with_prior=needs_prior,
        n_intra=config.num_intra,
        n_inter=config.num_inter,
    )
    if needs_prior:
        check_prior(config.criterion, network.posterior, network.prior, network.source.path)
    task = choose_task(
        config.task, config.noise_scale, network.graph, network.source.path, config.output_kind
    )
    examples = data.load(
        config.dataset,
        config.data_path,
        split="test",
        subtract_pixel_mean=config.subtract_pixel_mean,
        task=task.name,
    )
    logger.info("%s: %s", TEST_SET, data_loading.describe(examples, config.data_path))
    if task.name == "regression" and config.ood_dataset is not None:
        raise ConfigError("--ood_path: is of a classification; leave it out for a regression")
    ood = None
    if config.ood_dataset is not None:
        ood = data.load(
            config.ood_dataset,
            config.ood_path,
            split="test",
            subtract_pixel_mean=config.subtract_pixel_mean,
        )
        logger.info("%s: %s", OUT_OF_DISTRIBUTION, data_loading.describe(ood, config.ood_path))
    dtype = network.graph.input_dtype
    evaluator = choose_evaluator(config.evaluator, network.graph)
    try:
        x = data.fit_input(examples.x, network.graph.input_shape).astype(dtype, copy=False)
        task = _told(config, network, task, evaluator, x)
        if isinstance(task, Classification):
            data.check_labels(examples.y, task.n_classes)
        else:
            data.check_targets(examples.y, task.n_targets)
            _warn_of_units(examples.y)
    except DataError as error:
        raise DataError(f"{config.data_path or examples.name}: {error}") from error
    check_examples_apart(
        network.graph, network.posterior, network.fixed, x, network.source.path,
        (config.num_intra, config.num_inter),
    )  # fmt: skip
    sets, hashes = [Examples(TEST_SET, x, examples.y)], {**network.source.sha256, **examples.sha256}
    if ood is not None:
        hashes |= ood.sha256
        sets.append(Examples(OUT_OF_DISTRIBUTION, _like(ood.x, x, config.ood_path or ood.name)))
    _check_not_read(config.output, hashes.values())
    of_the_sweep = Network(
        graph=network.graph,
        posterior=network.posterior,
        fixed=network.fixed,
        task=task,
        checkpoint=network.source.path,
        sha256=hashes,
        evaluator=evaluator,
        prior=network.prior if needs_prior else None,
    )
    return of_the_sweep, sets


def _told(config: SweepConfig, network: Case, task: Task, name: str, x: NDArray[Any]) -> Task:
    """The task, by some outputs of the evaluator that the sweep will have."""
    shapes = {name: loc.shape for name, loc in network.posterior.loc.items()}
    evaluator = make_evaluator(
        name, network.graph, network.fixed, shapes, config.num_intra, config.num_inter
    )
    outputs = some_outputs(evaluator, network.posterior, x, network.graph.batch_size)
    return told_by(outputs, task, network.graph, network.source.path, config.output_kind)


def _warn_of_units(targets: NDArray[Any]) -> None:
    """Say where averages over targets are those of the one whose numbers are largest."""
    if targets.ndim == 1:
        return
    spread = targets.std(axis=0)
    if spread.max() > _LIKE_UNITS * spread.min():
        logger.warning(
            "targets differ in size (standard deviations %.4g to %.4g): RMSE and other averages "
            "over them are mostly those of the largest; /targets has each alone",
            spread.min(), spread.max(),
        )  # fmt: skip


def _example_shape(config: SweepConfig) -> tuple[int, ...]:
    """Shape of an example of the test set, for a model that does not say what it takes."""
    tasks = (config.task,) if config.task != "auto" else ("classification", "regression")
    for task in tasks:
        try:
            return data.load(config.dataset, config.data_path, split="test", task=task).x.shape[1:]
        except DataError:
            if task == tasks[-1]:
                raise
    raise AssertionError("there is a task")


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


def _like(ood_x: NDArray[Any], x: NDArray[Any], data_set: str) -> NDArray[Any]:
    """Examples of another kind in the shape and type of those of the test set."""
    try:
        return data.fit_input(ood_x, (None, *x.shape[1:])).astype(x.dtype, copy=False)
    except DataError as error:
        finding = str(error).partition("; ")[0]
        raise DataError(f"{data_set}: {finding}; give examples of the test set's shape") from error


def share(problem: Problem | None, comm: Comm) -> Problem:
    """Give what rank 0 has read to every rank.

    Parameters
    ----------
    problem : Problem on rank 0, None elsewhere
    """
    arrays: dict[str, NDArray[Any]] | None = None
    small: Any = None
    if problem is not None:
        network, sets = problem
        posterior = network.posterior
        arrays = {
            **{f"loc/{name}": loc for name, loc in posterior.loc.items()},
            **{f"scale/{name}": scale for name, scale in posterior.scale.items()},
            **{f"fixed/{name}": value for name, value in network.fixed.items()},
            **{f"x/{one.name}": one.x for one in sets},
            **{f"label/{one.name}": one.label for one in sets if one.label is not None},
        }
        nothing = Posterior({}, {})
        names = [one.name for one in sets]
        small = replace(network, posterior=nothing, fixed={}, sha256=dict(network.sha256)), names
    network, names = comm.from_root(lambda: small)
    tables: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    for key, array in comm.bcast_arrays(arrays).items():
        table, name = key.split("/", 1)
        tables[table][name] = array
    posterior = Posterior(tables["loc"], tables["scale"])
    sets = [Examples(name, tables["x"][name], tables["label"].get(name)) for name in names]
    return replace(network, posterior=posterior, fixed=tables["fixed"]), sets
