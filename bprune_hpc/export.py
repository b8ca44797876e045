"""Take a pruned network home: the network of one threshold, in files that others open.

    python -m bprune_hpc.export results/sweep.h5 --at choice --to DIR

Of a results file and the case that it was made of; or of a case alone, with the flags of a sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Sequence
from typing import Any

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=False)

from .checkpoints.case import Case
from .config import flags, sweep_config
from .config.argument_file import ArgumentParser
from .config.sweep_config import SweepConfig
from .errors import ConfigError
from .formats import card
from .formats.pruned_network import BITS, InputFitting, PrunedNetwork, SweptMetric
from .formats.selection import DEFAULT, FORMATS, read_formats
from .formats.writing import check_place, export, place_of
from .graph.network_input import network_input
from .mpi.comm import Comm, run
from .posterior.draws import draws_per_replicate, in_whole_replicates
from .posterior.pruning import pruning_masks, thresholds_in_words
from .results.threshold import SweptThreshold, read_threshold
from .runner import problem
from .runner.batch_dependence import made_up_examples
from .runner.examples import check_paths, read_sets
from .runner.prediction import Sampling
from .streams import check_shown, show

logger = logging.getLogger(__name__)

_BESIDE_A_FILE = {
    "--at", "--to", "--formats", "--overwrite", "--data_path", "--dataset", "--model_dir",
    "--model_ckpt", "--model", "--verbose", "--bits", "--keep_slots",
}  # fmt: skip
"""Flags that go with a results file, which says all else."""


def parser() -> ArgumentParser:
    """The command line of ``python -m bprune_hpc.export``: that of a sweep, and more."""
    root = flags.parser()
    root.prog = "python -m bprune_hpc.export"
    root.description = __doc__
    root.add_argument("file", nargs="?", help="results file of a sweep")
    wanted = root.add_argument_group("export")
    wanted.add_argument(
        "--at",
        metavar="POINT",
        help="threshold of the results file: choice (default), index=K, threshold=X or fraction=F",
    )
    wanted.add_argument("--to", metavar="DIR", help="directory to make")
    wanted.add_argument(
        "--formats",
        default=",".join(DEFAULT),
        metavar="LIST",
        help=f"formats to write, of {', '.join(FORMATS)}",
    )
    wanted.add_argument(
        "--threshold",
        action=flags.Grid,
        dest="grid",
        metavar="X",
        default=flags.Grid.NONE,
        help="threshold to prune at, where there is no results file",
    )
    wanted.add_argument(
        "--bits",
        type=int,
        choices=BITS,
        default=BITS[0],
        help="bits of a weight in the bundle; 16 where that moves it by less than 1/1024 of its "
        "standard deviation",
    )
    root.set_help("--overwrite", "put the export in the place of one that is there")
    wanted.add_argument(
        "--keep_slots",
        action="store_true",
        help="keep what the optimizer has for each weight in the checkpoint",
    )
    return root


def export_network(comm: Comm, argv: Sequence[str]) -> int:
    """Write the network of one threshold, on rank 0."""

    def on_root() -> None:
        command = parser()
        arguments: Any = command.parse(argv)
        if arguments.verbose:
            logging.getLogger(__package__).setLevel(logging.DEBUG)
        if not arguments.to:
            raise ConfigError("--to is missing; name a directory to make")
        formats = read_formats(arguments.formats.split(","))
        target = place_of(arguments.to)
        check_place(target, arguments.overwrite)
        is_swept = arguments.file is not None
        network = _of_results(arguments, command.given) if is_swept else _of_case(arguments)
        network = dataclasses.replace(
            network, bits=arguments.bits, keeps_slots=arguments.keep_slots
        )
        found = export(network, target, formats, overwrite=arguments.overwrite)
        show(card.text(found))
        show(f"export: {arguments.to}")
        check_shown("what was exported is not shown whole")

    comm.from_root(on_root)
    return 0


def _of_results(arguments: Any, given: Sequence[str]) -> PrunedNetwork:
    """The network of a results file's threshold, after a look whether its case is the same."""
    odd = sorted(set(given) - _BESIDE_A_FILE)
    if odd:
        raise ConfigError(
            f"{odd[0]}: is said by {arguments.file}; leave it out, or give --model_dir in place of "
            "the results file"
        )
    swept = read_threshold(arguments.file, arguments.at or "choice")
    config = swept.config
    for name in ("model_dir", "model_ckpt", "model"):
        if f"--{name}" in given:
            config = dataclasses.replace(config, **{name: getattr(arguments, name)})
    has_data = bool({"--data_path", "--dataset"} & set(given))
    if has_data:
        config = dataclasses.replace(
            config, data_path=arguments.data_path, dataset=arguments.dataset
        )
    config = dataclasses.replace(config, n_draws=swept.n_draws)
    network = _pruned(config, (swept.grid_kind, swept.value), has_data, swept)
    swept.check_mask(network.mask)
    return network


def _of_case(arguments: Any) -> PrunedNetwork:
    if arguments.at is not None:
        raise ConfigError("--at: is of a results file; give one, or --threshold=X")
    if arguments.grid == flags.Grid.NONE:
        raise ConfigError("--threshold is missing; say what to prune, or give a results file")
    config = sweep_config.from_arguments(arguments)
    if len(config.grid) != 1:
        flag = arguments.grid[2]
        raise ConfigError(f"{flag}: an export is of one threshold, not of {len(config.grid)}")
    has_data = config.data_path is not None or config.dataset != "auto"
    return _pruned(config, (config.grid_kind, config.grid[0]), has_data, None)


def _pruned(
    config: SweepConfig, point: tuple[str, float], has_data: bool, swept: SweptThreshold | None
) -> PrunedNetwork:
    """Read a network, and examples where there are some, and prune it."""
    config = dataclasses.replace(
        config, ood_path=None, ood_dataset=None, elbo_path=None, elbo_dataset=None
    )
    if has_data:
        check_paths(config)
    with contextlib.nullcontext() if swept is None else swept.asks(_BESIDE_A_FILE):
        found, task = problem.read_network(config)
    examples = None
    if has_data:
        (examples,), _ = read_sets(config, task, network_input(found.graph, found.fixed))
    some = made_up_examples(found.graph) if examples is None else examples.x
    if some is None:
        raise ConfigError(
            f"{found.source.path}: the shape of its examples is open; give some with --data_path"
        )
    unpruned = problem.network_of(config, found, task, some)
    if swept is not None:
        swept.check_network(unpruned, "--model_dir")
    rule = config.rule(unpruned.prior)
    (mask,) = pruning_masks(found.posterior, point[0], [point[1]], rule)
    (cut,) = thresholds_in_words(rule, point[0], [mask])
    size = draws_per_replicate(config.pairing, unpruned.task.noises_per_replicate)
    n_draws = in_whole_replicates(config.n_draws, size)
    draw_noise = ("shared", 0)
    if swept is not None:
        draw_noise = swept.draw_noise
    elif examples is not None:
        asked = config.draw_noise, config.noise_block
        case = found.graph, found.posterior, found.fixed
        draw_noise = problem.noise_of(asked, unpruned.evaluator, case, [examples.x])
    metrics = {} if swept is None else swept.metrics
    names = None if swept is None else swept.class_names
    if examples is not None and examples.record.classes is not None:
        names = examples.record.classes
    return PrunedNetwork(
        unpruned=unpruned,
        mask=mask,
        rule=rule,
        cut=cut,
        source=found.source,
        opening=found.opening,
        fitting=InputFitting(
            network_input(found.graph, found.fixed), config.input_scale, config.layout
        ),
        sampling=Sampling(n_draws, config.seed, config.pairing, config.batch_size),
        class_names=names,
        provenance=_provenance(found, rule, swept),
        metrics={name: SweptMetric(*of_one) for name, of_one in metrics.items()},
        examples=examples,
        draw_noise=draw_noise,
    )


def _provenance(found: Case, rule: Any, swept: SweptThreshold | None) -> dict[str, Any]:
    of_results: dict[str, Any] = {}
    if swept is not None:
        of_results = {
            "results": {
                "path": swept.path,
                "sha256": swept.sha256,
                "status": swept.status,
                "index": swept.index,
                "n_draws": swept.n_draws,
                "n_examples": swept.n_examples,
                "choice": swept.choice,
                "identity": swept.identity,
            }
        }
    return {**card.provenance(found.source, rule), **of_results}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.export``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: export_network(comm, arguments))


if __name__ == "__main__":
    startup.end(main)
