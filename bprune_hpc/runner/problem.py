"""Reading what a sweep works on: a network, and the examples that it is given.

Rank 0 alone reads files; the other ranks get the arrays as buffers.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import data
from ..config.sweep_config import SweepConfig
from ..errors import ConfigError
from ..evaluators.compaction import Weights
from ..evaluators.draw_noise import default_block
from ..evaluators.selection import choose_draw_noise, choose_evaluator, make_evaluator
from ..graph import flops, weight_uses
from ..graph.layer_graph import LayerGraph
from ..graph.lifted import LiftedGraph
from ..graph.network_input import network_input
from ..metrics.tasks import Task
from ..mpi.comm import Comm, on_root
from ..posterior.criteria import CRITERIA
from ..posterior.mean_field import Posterior, Prior
from ..sources import sha256_of
from ..tensorflow_import import CPU, Device, import_graphs
from .batch_dependence import check_examples_apart
from .datasets import Examples
from .examples import check_paths, read_sets
from .network import Network
from .output_probe import some_outputs
from .task_selection import choose_task, kind_asked, told_by

if TYPE_CHECKING:
    from ..checkpoints.case import Case

logger = logging.getLogger(__name__)

Problem = tuple[Network, list[Examples]]
"""A network, and every set of examples that it is given, the test set first."""


def load(config: SweepConfig, comm: Comm, device: Device = CPU) -> Problem:
    """Read a sweep's problem on rank 0 and give it to every rank; all ranks call this.

    Parameters
    ----------
    device : Device
        What runs the network on this rank.
    """
    if not comm.is_root and config.evaluator == "graph":
        import_graphs()  # which takes seconds, while rank 0 reads
    return share(on_root(comm, lambda: read(config, device)), comm)


def read(config: SweepConfig, device: Device = CPU) -> Problem:
    """Read the network and the data sets that a sweep names, and check that they fit.

    Raises
    ------
    InputError
        If either cannot be read, or they do not fit each other.
    """
    _check_named(config)
    check_paths(config)
    found, task = read_network(config)
    if task.name == "regression" and config.ood_dataset is not None:
        raise ConfigError("--ood_path: is for classification; leave it out for a regression")
    if config.elbo_dataset is not None:
        _check_deviations(found.posterior)
    takes = network_input(found.graph, found.fixed)
    sets, hashes = read_sets(config, task, takes)
    x = sets[0].x
    of_the_sweep = network_of(config, found, task, x, device)
    check_examples_apart(
        found.graph, found.posterior, found.fixed, x, found.source.path,
        (config.num_intra, config.num_inter),
    )  # fmt: skip
    hashes |= found.source.sha256
    _check_not_read(config.output, hashes.values())
    is_exact = config.limit is not None and config.choice != "asymptotic"
    draw_noise, noise_block = noise_of(
        (config.draw_noise, config.noise_block),
        of_the_sweep.evaluator,
        (found.graph, found.posterior, found.fixed),
        [one.x for one in sets if one.keeps_examples],
        is_exact and task.name == "classification" and config.target is None,
    )
    return (
        replace(of_the_sweep, sha256=hashes, draw_noise=draw_noise, noise_block=noise_block),
        sets,
    )


def read_network(config: SweepConfig) -> tuple[Case, Task]:
    """Read the network that a sweep names; of its task all that can be told without examples.

    Raises
    ------
    InputError
        If it cannot be read, or is not what was asked for.
    """
    from ..checkpoints import case

    needs_prior = _needs_prior(config)
    found = case.read_case(
        config.model_dir,
        config.model_ckpt,
        model=config.model,
        example_shape=lambda: _example_shape(config),
        input_op=config.input_op,
        logits_op=config.logits_op,
        loc_op=config.loc_op,
        scale_op=config.scale_op,
        output_kind=kind_asked(config.task, config.output_kind, config.noise_scale),
        feed=config.feed,
        with_prior=needs_prior,
        n_intra=config.num_intra,
        n_inter=config.num_inter,
    )
    if needs_prior:
        of_criterion = CRITERIA[config.criterion].needs_prior
        flag = f"--criterion={config.criterion}" if of_criterion else "--elbo_path"
        check_prior(flag, found.posterior, found.prior, found.source.path)
    task = choose_task(
        config.task, config.noise_scale, found.graph, found.source.path, config.output_kind
    )
    return found, task


def network_of(
    config: SweepConfig, found: Case, task: Task, x: NDArray[Any], device: Device = CPU
) -> Network:
    """A network as a sweep takes it, its task told by some outputs for examples."""
    evaluator = choose_evaluator(config.evaluator, found.graph)
    return Network(
        graph=found.graph,
        posterior=found.posterior,
        fixed=found.fixed,
        task=_told(config, found, task, evaluator, x, device),
        checkpoint=found.source.path,
        sha256=found.source.sha256,
        evaluator=evaluator,
        prior=found.prior if _needs_prior(config) else None,
    )


def _needs_prior(config: SweepConfig) -> bool:
    is_needed = CRITERIA[config.criterion].needs_prior or config.elbo_dataset is not None
    return is_needed and config.prior_scale is None


def noise_of(
    asked: tuple[str, int | None],
    evaluator: str,
    case: tuple[LiftedGraph, Posterior, Mapping[str, NDArray[Any]]],
    sets: Sequence[NDArray[Any]],
    is_one_network: bool = False,
) -> tuple[str, int]:
    """Which examples share the noise of a draw, and how many where it is by block (else 0).

    Parameters
    ----------
    asked : tuple
        As ``draw_noise`` and ``noise_block`` of the configuration.
    evaluator : str
        What runs the network.
    case : tuple
        Graph, posterior and fixed weights.
    sets : sequence of array
        Sets of examples, of which shapes alone count.
    is_one_network : bool
        See :func:`bprune_hpc.evaluators.selection.choose_draw_noise`.

    Raises
    ------
    ConfigError
        If what was asked for is not right for the network.
    """
    graph, posterior, fixed = case
    weights = Weights(posterior, fixed)
    kind = choose_draw_noise(asked[0], evaluator, graph, weights, is_one_network)
    if kind != "per_block":
        return kind, 0
    block = asked[1] or default_block(
        posterior.n_weights, _multiplications(graph, {**fixed, **posterior.loc}, sets[0])
    )
    if asked[0] == "auto" and max(map(len, sets)) <= block:
        return "shared", 0  # a single block has nothing of its own
    return kind, block


def _multiplications(
    graph: LiftedGraph, weights: Mapping[str, NDArray[Any]], x: NDArray[Any]
) -> int:
    """Of a draw for an example; where they cannot be counted, as if each weight were used once."""
    if isinstance(graph.layers, LayerGraph):
        shapes = {
            name: array.shape for name, array in {**weights, **graph.layers.constants}.items()
        }
        return weight_uses.multiplications(graph.layers, shapes)
    some = np.repeat(x[:1], graph.batch_size or 1, axis=0)
    try:
        return flops.multiplications(graph, some, weights) // len(some)
    except (ValueError, TypeError, import_graphs().OpError) as error:
        logger.debug("operations cannot be counted: %s", error)
        return sum(array.size for array in weights.values())


def _told(
    config: SweepConfig, network: Case, task: Task, name: str, x: NDArray[Any], device: Device
) -> Task:
    """The task, by some outputs of the evaluator that the sweep will have."""
    evaluator = make_evaluator(
        name, network.graph, network.fixed, config.num_intra, config.num_inter, device
    )
    outputs = some_outputs(evaluator, network.posterior, x, network.graph.batch_size)
    return told_by(outputs, task, network.graph, network.source.path, config.output_kind)


def _example_shape(config: SweepConfig) -> tuple[int, ...]:
    """Shape of an example of the test set, for a model that does not say what it takes."""
    examples = data.read(
        config.dataset,
        config.data_path,
        task="regression" if config.task == "regression" else "classification",
        x_key=config.x_key,
        target_columns=config.target_columns,
        with_labels=False,
    )
    return examples.x.shape[1:]


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
    if config.elbo_dataset == "auto" and config.elbo_path is None:
        raise ConfigError("--elbo_path is missing: name the data that the network was trained on")


def _check_not_read(output: str, sha256: Collection[str]) -> None:
    """Refuse to replace a file that was read, by whatever name."""
    for path in (Path(output), Path(f"{output}.bak")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if sha256_of(file) in sha256:
                raise ConfigError(
                    f"--output: {path} is one of the files that are read; choose another file"
                )


def _check_deviations(posterior: Posterior) -> None:
    """Refuse weights whose divergence from any prior is infinite."""
    for name, loc in posterior.loc.items():
        n_certain = int(np.count_nonzero((posterior.scale[name] == 0) & (loc != 0)))
        if n_certain:
            raise ConfigError(
                f"--elbo_path: {n_certain} weights of '{name}' have a deviation of 0 and a mean "
                "that is not: their divergence from the prior is infinite; leave --elbo_path out"
            )


def check_prior(flag: str, posterior: Posterior, prior: Mapping[str, Prior], path: str) -> None:
    """Raise :class:`ConfigError` where a flag needs a prior that is not known."""
    unknown = [name for name in posterior.names if name not in prior]
    if unknown:
        more = f" and {len(unknown) - 1} more tensors" if len(unknown) > 1 else ""
        raise ConfigError(
            f"{flag}: the prior is not known: {path} holds no divergence of "
            f"'{unknown[0]}'{more} from a fixed Normal; give the standard deviation of the "
            "weights' Gaussian prior with --prior_scale"
        )


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
        names = [(one.name, one.record) for one in sets]
        small = replace(network, posterior=nothing, fixed={}, sha256=dict(network.sha256)), names
    network, names = comm.from_root(lambda: small)
    tables: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    for key, array in comm.bcast_arrays(arrays).items():
        table, name = key.split("/", 1)
        tables[table][name] = array
    posterior = Posterior(tables["loc"], tables["scale"])
    sets = [
        Examples(name, tables["x"][name], tables["label"].get(name), record)
        for name, record in names
    ]
    return replace(network, posterior=posterior, fixed=tables["fixed"]), sets
