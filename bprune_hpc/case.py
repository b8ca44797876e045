"""A case: a trained network as it was found on disk, lifted and checked.

What belongs here: going from a directory to a network and its posterior, and where both came
from. What does not: reading tensors (``checkpoint``), lifting (``graph``).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checkpoint
from .errors import CheckpointError
from .graph import lift
from .graph_search import OPS_NAME_FILE, read_ops_names
from .network import LiftedGraph
from .posterior import Posterior

LAYER_NAMES_FILE = "LayerNames.txt"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a case came from.

    Attributes
    ----------
    kind : str
        ``tf1``: a meta graph and a Saver checkpoint.
    path : str
        The checkpoint, without suffixes.
    tf_version : str
        TensorFlow that wrote the graph.
    step : int or None
        Training step.
    sha256 : mapping of str to str
        Digest of every file read, by base name.
    stripped : mapping of str to (tuple of int, str)
        Shape and type of the checkpoint's variables that inference does not need.
    dropped_ops : mapping of str to int
        How many operations of each type inference does not need.
    """

    kind: str
    path: str
    tf_version: str
    step: int | None
    sha256: Mapping[str, str]
    stripped: Mapping[str, tuple[tuple[int, ...], str]]
    dropped_ops: Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """A lifted network, its posterior, its deterministic variables, and where it came from."""

    graph: LiftedGraph
    posterior: Posterior
    fixed: dict[str, NDArray[Any]]
    source: Source


def case_directory(name: str | Path) -> Path:
    """Directory of a case by its path, or by ``embedded:NAME`` for one in the package.

    Raises
    ------
    CheckpointError
        If the package has no case of that name.
    """
    scheme, _, embedded = str(name).partition(":")
    if scheme != "embedded":
        return Path(name)
    home = Path(__file__).with_name("embedded")
    cases = sorted(entry.name for entry in home.iterdir() if entry.is_dir())
    if embedded not in cases:
        raise CheckpointError(f"{name}: no such embedded case; there are {', '.join(cases)}")
    return home / embedded


def read_case(
    model_dir: str | Path,
    model_ckpt: str | None = None,
    *,
    input_op: str | None = None,
    logits_op: str | None = None,
    n_intra: int = 1,
    n_inter: int = 1,
) -> Case:
    """Read a TF1 case directory: a meta graph and the checkpoint that belongs to it.

    Parameters
    ----------
    model_dir : path
        Directory of the case; ``embedded:NAME`` is one that comes with the package.
    model_ckpt : str, optional
        Checkpoint in it; see :func:`bprune_hpc.checkpoint.find_checkpoint`.
    input_op, logits_op : str, optional
        Override what ``Ops_name_BNN.txt`` (here or one directory up) or the graph says.
    n_intra, n_inter : int
        TensorFlow threads; the same as for the networks of this process.

    Returns
    -------
    Case

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, a weight is not finite or a scale is negative.
    GraphError
        If the graph cannot be lifted.
    """
    directory = case_directory(model_dir)
    prefix = checkpoint.find_checkpoint(directory, model_ckpt)
    meta = checkpoint.read_meta_graph(prefix)
    stored = checkpoint.list_variables(prefix)
    files = checkpoint.checkpoint_files(prefix)
    graph_ops = {node.name for node in meta.graph_def.node}
    if input_op is None or logits_op is None:
        ops_file = _beside(directory, OPS_NAME_FILE)
        if ops_file is not None:
            files.append(ops_file)
            named_input, product = read_ops_names(ops_file)
            input_op = input_op or named_input
            if logits_op is None and product is None:
                _LOG.warning("%s: no operation ends in /log_prob/mul; searching", ops_file)
            logits_op = logits_op or product
    lifted = lift(
        meta.graph_def,
        lambda names: checkpoint.read_variables(prefix, names),
        input_op=input_op,
        logits_op=logits_op,
        label=f"{prefix.name}.meta",
        n_intra=n_intra,
        n_inter=n_inter,
    )
    _check_weights(prefix.name, lifted.posterior, lifted.fixed)
    _warn_of_layer_names(_beside(directory, LAYER_NAMES_FILE), graph_ops)
    source = Source(
        kind="tf1",
        path=str(prefix),
        tf_version=meta.meta_info_def.tensorflow_version,
        step=checkpoint.step_of(prefix),
        sha256=checkpoint.file_sha256(files),
        stripped={n: kept for n, kept in stored.items() if n not in lifted.used_variables},
        dropped_ops=lifted.dropped_ops,
    )
    case = Case(lifted.graph, lifted.posterior, lifted.fixed, source)
    _log_summary(case)
    return case


def _beside(directory: Path, name: str) -> Path | None:
    candidates = [directory / name, directory.resolve().parent / name]
    return next((path for path in candidates if path.is_file()), None)


def _check_weights(label: str, posterior: Posterior, fixed: Mapping[str, NDArray[Any]]) -> None:
    tables = [("loc", posterior.loc), ("scale", posterior.scale), ("weights", fixed)]
    for what, table in tables:
        for name, values in table.items():
            if not np.issubdtype(values.dtype, np.inexact):
                continue
            n_bad = int(np.count_nonzero(~np.isfinite(values)))
            if n_bad:
                kind = "NaN" if np.isnan(values).any() else "infinities"
                raise CheckpointError(
                    f"{label}: {kind} in weights: {n_bad} of {values.size} numbers are not finite "
                    f"in the {what} of '{name}'; choose a checkpoint from before training diverged"
                )
    for name, scale in posterior.scale.items():
        n_negative = int(np.count_nonzero(scale < 0))
        if n_negative:
            raise CheckpointError(
                f"{label}: {n_negative} of {scale.size} scales of '{name}' are negative; use the "
                ".meta file that was written with this checkpoint"
            )


def _warn_of_layer_names(path: Path | None, graph_ops: set[str]) -> None:
    if path is None:
        return
    names = [line.strip().partition(":")[0] for line in path.read_text().splitlines()]
    absent = [name for name in names if name and name not in graph_ops]
    if absent:
        _LOG.warning(
            "%s: names %d variables that the graph lacks (%s...); the graph decides",
            path,
            len(absent),
            absent[0],
        )


def _log_summary(case: Case) -> None:
    kinds = Counter(name.rpartition("/")[2] for name in case.source.stripped)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
    _LOG.info("stripped %d variables (%s)", len(case.source.stripped), listed or "none")
    ops = case.source.dropped_ops
    n_horovod = sum(count for op, count in ops.items() if op.startswith("Horovod"))
    _LOG.info("dropped %d operations, %d of them Horovod's", sum(ops.values()), n_horovod)
    for name, loc in case.posterior.loc.items():
        _LOG.info("mean-field: %s %s", name, loc.shape)
    for name, values in case.fixed.items():
        _LOG.info("fixed: %s %s", name, values.shape)
    for note in case.graph.notes:
        _LOG.info("note: %s", note)
