"""Opens a TensorFlow 1 meta graph with its Saver checkpoint, and BPrune's text files beside it.

What belongs here: which files make up such a case, and what they say. What does not: reading
tensors (``checkpoints.saver``), lifting (``graph.lifting``).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..graph.endpoints import OPS_NAME_FILE, read_ops_names
from ..graph.source import Endpoints, GraphSource
from . import saver
from .saver_names import restored_names

LAYER_NAMES_FILE = "LayerNames.txt"
LOC_OP, SCALE_OP = "predictive/loc", "predictive/scale"
"""What the trainer here calls a regression's mean and standard deviation."""

_LOG = logging.getLogger(__name__)


def open_tf1(prefix: Path, given: Endpoints) -> GraphSource:
    """Open a meta graph and the checkpoint that belongs to it.

    Parameters
    ----------
    prefix : Path
        The checkpoint, without suffixes.
    given : Endpoints
        What the user names; ``Ops_name_BNN.txt`` (here or one directory up) fills in the rest.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    """
    meta = saver.read_meta_graph(prefix)
    reader = saver.CheckpointReader(prefix)
    files = saver.checkpoint_files(prefix)
    names = {node.name for node in meta.graph_def.node}
    ends = given
    has_output = given.logits_op is not None or given.loc_op is not None
    if not has_output and {LOC_OP, SCALE_OP} <= names:
        ends = given.or_else(Endpoints(None, None, LOC_OP, SCALE_OP))
        has_output = True
    ops_file = _beside(prefix.parent, OPS_NAME_FILE)
    if ops_file is not None and (given.input_op is None or not has_output):
        files.append(ops_file)
        with saver.reading(ops_file):
            input_op, product = read_ops_names(ops_file)
        if not has_output and product is None:
            _LOG.warning("%s: no operation ends in /log_prob/mul; searching", ops_file)
        ends = ends.or_else(Endpoints(input_op, product))
    _warn_of_layer_names(_beside(prefix.parent, LAYER_NAMES_FILE), names)
    return GraphSource(
        kind="tf1",
        path=prefix,
        label=f"{prefix.name}.meta",
        graph_def=meta.graph_def,
        read=reader.read,
        types=reader.types,
        variable_names=_stored_names(meta, reader),
        ends=ends,
        files=files,
        tf_version=meta.meta_info_def.tensorflow_version,
        step=saver.step_of(prefix),
    )


def _stored_names(meta: Any, reader: saver.CheckpointReader) -> dict[str, str]:
    """Names in the checkpoint where the Saver does not use the variables' own."""
    names = restored_names(meta.graph_def, meta.saver_def.restore_op_name)
    return {node: key for node, key in names.items() if key != node and key in reader.types}


def _beside(directory: Path, name: str) -> Path | None:
    candidates = [directory / name, directory.resolve().parent / name]
    return next((path for path in candidates if path.is_file()), None)


def _warn_of_layer_names(path: Path | None, graph_ops: set[str]) -> None:
    if path is None:
        return
    with saver.reading(path):
        lines = path.read_text(errors="replace").splitlines()
    names = [line.strip().partition(":")[0] for line in lines]
    absent = [name for name in names if name and name not in graph_ops]
    if absent:
        _LOG.warning(
            "%s: names %d variables that the graph lacks (%s...); the graph decides",
            path,
            len(absent),
            absent[0],
        )
