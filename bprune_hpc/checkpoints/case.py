"""A case: a trained network as it was found on disk, lifted and checked.

What belongs here: telling the kinds of sources apart, checking what was lifted, and the record of
where it came from. What does not: opening each kind (the other modules of this package), reading
tensors (``checkpoints.saver``), lifting (``graph.lifting``).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, ConfigError, GraphError
from ..graph.feeds import fed
from ..graph.lifted import OF_REGRESSION, LiftedGraph
from ..graph.lifting import Lifted, lift
from ..graph.priors import find_priors
from ..graph.source import Endpoints, GraphSource
from ..posterior.mean_field import Posterior, Prior
from ..sources import HOME
from . import saver
from .keras import SUFFIXES, open_keras, open_model
from .keras_tracing import Builder, ExampleShape
from .saved_model import FILE_NAME as SAVED_MODEL_FILE
from .saved_model import open_saved_model
from .tf1 import open_tf1
from .tf2 import is_object_based, open_tf2_checkpoint

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a case came from.

    Attributes
    ----------
    kind : str
        ``tf1``: a meta graph and a Saver checkpoint; ``keras``: a file of Keras weights,
        or a model in memory;
        ``tf2_checkpoint``: an object-based checkpoint; ``saved_model``: a SavedModel directory.
    path : str
        The checkpoint without suffixes, the file, or the directory; a model's name.
    tf_version : str
        TensorFlow or Keras that wrote it; empty where the files do not say.
    step : int or None
        Training step.
    sha256 : mapping of str to str
        Digest of every file read, by base name.
    stripped : mapping of str to (tuple of int, str)
        Shape and type of what is stored and inference does not need.
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
    """A lifted network, its posterior, its deterministic variables, and where it came from.

    ``opening`` is how its source is opened again.
    ``scale_variables`` names the variables that each mean-field tensor's scale is computed from;
    they are stored, used, and neither fixed nor stripped. ``prior`` is empty unless it was asked
    for, and lacks the tensors whose prior the source does not say.
    """

    graph: LiftedGraph
    posterior: Posterior
    fixed: dict[str, NDArray[Any]]
    source: Source
    opening: Opening
    scale_variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prior: Mapping[str, Prior] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """How a source is opened: what :func:`read_case` was given, as far as files are concerned.

    Attributes
    ----------
    model_dir : path, str or tf_keras.Model
    model_ckpt : str or None
    model : str, callable or None
    example_shape : callable or None
    given : Endpoints
    output_kind : str
        ``auto``, or what the output's numbers are taken for.
    feed : mapping of str to str
    threads : tuple of int
        Of TensorFlow, within and between operations.
    """

    model_dir: Any
    model_ckpt: str | None = None
    model: str | Callable[[], Any] | None = None
    example_shape: ExampleShape | None = None
    given: Endpoints = field(default_factory=Endpoints)
    output_kind: str = "auto"
    feed: Mapping[str, str] = field(default_factory=dict)
    threads: tuple[int, int] = (1, 1)

    def open(self) -> GraphSource:
        """Open it.

        Raises
        ------
        InputError
            See :func:`read_case`.
        """
        if isinstance(self.model_dir, str | os.PathLike):
            builder = None
            if self.model is not None:
                builder = Builder(self.model, self.example_shape, *self.threads)
            place = case_directory(os.fspath(self.model_dir))
            opened = _open(place, self.model_ckpt, builder, self.given, self.feed)
        else:
            opened = open_model(self.model_dir)
        if self.feed:
            opened = replace(opened, graph_def=fed(opened.graph_def, self.feed, opened.label))
        return opened

    def lift(self, opened: GraphSource) -> Lifted:
        """Lift what was opened.

        Raises
        ------
        GraphError
            If it cannot be lifted.
        """
        kind = self.output_kind
        ends = self.given.or_else(opened.ends)
        if kind in OF_REGRESSION and ends.output_kind is not None:
            raise GraphError(
                f"{opened.label}: gives a distribution of classes, by its {ends.output_kind}; "
                f"--task=regression, --noise_scale and --output_kind={kind} do not fit it"
            )
        return lift(
            opened.graph_def,
            opened.read,
            input_op=ends.input_op,
            logits_op=ends.logits_op,
            loc_op=ends.loc_op,
            scale_op=ends.scale_op,
            output_kind=kind if kind in OF_REGRESSION else ends.output_kind,
            variable_names=opened.variable_names,
            variable_types=opened.types,
            label=opened.label,
            n_intra=self.threads[0],
            n_inter=self.threads[1],
        )


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
    home = HOME / "embedded"
    cases = sorted(entry.name for entry in home.iterdir() if entry.is_dir())
    if embedded not in cases:
        raise CheckpointError(f"{name}: no such embedded case; there are {', '.join(cases)}")
    return home / embedded


def read_case(
    model_dir: Any,
    model_ckpt: str | None = None,
    *,
    model: str | Callable[[], Any] | None = None,
    example_shape: ExampleShape | None = None,
    input_op: str | None = None,
    logits_op: str | None = None,
    loc_op: str | None = None,
    scale_op: str | None = None,
    output_kind: str = "auto",
    feed: Mapping[str, str] | None = None,
    with_prior: bool = False,
    n_intra: int = 1,
    n_inter: int = 1,
) -> Case:
    """Read a trained network from any source: what is on disk decides which kind it is.

    Parameters
    ----------
    model_dir : path or tf_keras.Model
        Directory of a TF1 case (``embedded:NAME`` is one that comes with the package), of an
        object-based checkpoint, of a SavedModel or of a file of Keras weights; or such a file; or
        a model in memory.
    model_ckpt : str, optional
        Checkpoint or weights file in it; see :func:`bprune_hpc.checkpoints.saver.find_checkpoint`.
    model : str or callable, optional
        What builds the tf_keras model, as ``MODULE:FUNCTION``, ``FILE.py:FUNCTION`` or itself;
        needed for weights and for object-based checkpoints, where the files hold no graph.
    example_shape : callable, optional
        Gives the shape of an example of the data, for a model that does not say what it takes;
        called only then.
    input_op, logits_op : str, optional
        Override what ``Ops_name_BNN.txt`` (here or one directory up), the signature or the graph
        says.
    loc_op, scale_op : str, optional
        In place of ``logits_op``: mean and standard deviation of a regression's output.
    output_kind : str
        ``auto``, or one of :data:`bprune_hpc.graph.lifted.OUTPUT_KINDS`. Of classes it is told
        better by the source or the structure, where they say anything; of a regression's targets
        it is what the output is taken for.
    feed : mapping of str to str, optional
        Values of placeholders besides the input, by name; see :func:`bprune_hpc.graph.feeds.fed`.
    with_prior : bool
        Whether to look for the prior of every mean-field tensor.
    n_intra, n_inter : int
        TensorFlow threads; the same as for the networks of this process.

    Returns
    -------
    Case

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, a weight is not finite or a scale is negative.
    ConfigError
        If the source needs ``model`` and there is none, or it cannot be built.
    GraphError
        If the graph cannot be lifted.
    """
    given = Endpoints(input_op, logits_op, loc_op, scale_op)
    opening = Opening(
        model_dir, model_ckpt, model, example_shape, given, output_kind, feed or {},
        (n_intra, n_inter),
    )  # fmt: skip
    opened = opening.open()
    lifted = opening.lift(opened)
    _check_weights(opened.path.name, lifted.posterior, lifted.fixed)
    stored = {**opened.types, **opened.others}
    source = Source(
        kind=opened.kind,
        path=str(opened.path),
        tf_version=opened.tf_version,
        step=opened.step,
        sha256=saver.file_sha256(opened.files),
        stripped={
            name: stored[name] for name in sorted(stored) if name not in lifted.used_variables
        },
        dropped_ops=lifted.dropped_ops,
    )
    prior = {}
    if with_prior:
        prior = find_priors(
            opened, lifted.posterior, lifted.scale_variables, threads=(n_intra, n_inter)
        )
    case = Case(
        lifted.graph,
        lifted.posterior,
        lifted.fixed,
        source,
        opening,
        lifted.scale_variables,
        prior,
    )
    _log_summary(case)
    return case


def _open(
    place: Path,
    model_ckpt: str | None,
    builder: Builder | None,
    given: Endpoints,
    feed: Mapping[str, str],
) -> GraphSource:
    if place.is_file():
        if place.name == SAVED_MODEL_FILE:
            place = place.parent
        else:
            place, model_ckpt = place.parent, place.name
    elif not place.is_dir() and place.with_name(place.name + ".index").is_file():
        place, model_ckpt = place.parent, place.name
    if model_ckpt is None and (place / SAVED_MODEL_FILE).is_file():
        return open_saved_model(place, given, feed)
    weights = _weights_file(place, model_ckpt)
    if weights is not None:
        return open_keras(weights, _needed(builder, weights))
    prefix = saver.find_checkpoint(place, model_ckpt)
    if not prefix.with_name(prefix.name + ".meta").is_file():
        reader = saver.CheckpointReader(prefix)
        if is_object_based(reader):
            return open_tf2_checkpoint(prefix, _needed(builder, prefix))
    return open_tf1(prefix, given)


def _weights_file(directory: Path, name: str | None) -> Path | None:
    """The file of Keras weights that is meant, if one is."""
    if name is not None:
        return directory / name if name.endswith(SUFFIXES) else None
    if not directory.is_dir() or any(directory.glob("*.index")):
        return None
    found = sorted(path for path in directory.iterdir() if path.name.endswith(SUFFIXES))
    if len(found) > 1:
        raise CheckpointError(
            f"{directory}: several files of weights: {', '.join(path.name for path in found)}; "
            "pass one as --model_ckpt"
        )
    return found[0] if found else None


def _needed(builder: Builder | None, path: Path) -> Builder:
    if builder is None:
        raise ConfigError(
            f"{path}: holds weights but no graph; pass --model=MODULE:FUNCTION (or "
            "FILE.py:FUNCTION), which builds the tf_keras model"
        )
    return builder


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


def _kind(name: str) -> str:
    """What a variable is of its kind: the last part of its name that is not a number."""
    parts = [part for part in name.split("/") if not part.isdecimal()]
    return parts[-1] if parts else name


def _log_summary(case: Case) -> None:
    """What the network is, in a line; each tensor only where more is asked for."""
    stripped, ops = case.source.stripped, case.source.dropped_ops
    _LOG.info(
        "network: %d weights have a posterior (%s), %d are fixed and never pruned (%s); the output "
        "does not depend on %d other variables and %d operations (inspect names them all)",
        case.posterior.n_weights,
        _tensors(len(case.posterior.loc)),
        sum(values.size for values in case.fixed.values()),
        _tensors(len(case.fixed)),
        len(stripped),
        sum(ops.values()),
    )
    priors = Counter(f"N({one.loc:g}, {one.scale:g}²)" for one in case.prior.values())
    if priors:
        listed = [f"{prior} ({_tensors(count)})" for prior, count in priors.most_common(3)]
        _LOG.info("prior: %s", ", ".join([*listed, *(["..."] if len(priors) > 3 else [])]))
    for note in case.graph.notes:
        _LOG.info("note: %s", note)
    for name, loc in case.posterior.loc.items():
        _LOG.debug("mean-field: %s %s", name, loc.shape)
    for name, one in case.prior.items():
        _LOG.debug("prior of %s: N(%g, %g²)", name, one.loc, one.scale)
    for name, values in case.fixed.items():
        _LOG.debug("fixed, never pruned: %s %s", name, values.shape)
    kinds = Counter(_kind(name) for name in stripped)
    _LOG.debug("other variables: %s", ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()))
    _LOG.debug("other operations: %s", ", ".join(f"{n} {op}" for op, n in ops.items()))


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"
