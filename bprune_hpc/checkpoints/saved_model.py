"""Opens a SavedModel directory: a graph of its own, no builder needed.

What belongs here: which signature, which input and output, and which tensor of ``variables/``
belongs to which variable. What does not: lifting (``graph.lifting``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import CheckpointError, GraphError
from ..graph.source import Endpoints, GraphSource
from ..tensorflow_import import import_graphs
from . import saver
from .object_graph import OBJECT_GRAPH_KEY
from .saver_names import restored_names

FILE_NAME = "saved_model.pb"

_DEFAULT = "serving_default"
_INITIALIZER = "__saved_model_init_op"


def open_saved_model(directory: Path, given: Endpoints, fed: Collection[str] = ()) -> GraphSource:
    """Open a SavedModel for its ``serving_default`` signature, or the only one that it has.

    Parameters
    ----------
    directory : Path
        Holds ``saved_model.pb`` and ``variables/``.
    given : Endpoints
        What the user names; the signature gives the rest.
    fed : collection of str
        Placeholders that have a value already, and are no input.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    GraphError
        If there is no signature of one input and one output, and none is named.
    """
    path = directory / FILE_NAME
    meta = _meta_graph(path)
    prefix = directory / "variables" / "variables"
    if not prefix.with_name("variables.index").is_file():
        raise CheckpointError(
            f"{directory}: variables/variables.index is missing; copy the whole directory"
        )
    prefix = saver.find_checkpoint(prefix.parent, prefix.name)
    reader = saver.CheckpointReader(prefix)
    keys = restored_names(meta.graph_def, meta.saver_def.restore_op_name)
    keys = {node: key for node, key in keys.items() if key in reader.types}
    # Slices keep the one name that they have in the checkpoint; other variables their node's.
    repeated = {key for key in keys.values() if list(keys.values()).count(key) > 1}
    names = {node: key if key in repeated else node for node, key in keys.items()}
    key_of = {names[node]: key for node, key in keys.items()}
    signature = _signature(path, meta)
    is_used = set(key_of.values()) | {OBJECT_GRAPH_KEY}

    def read(wanted: Collection[str]) -> dict[str, NDArray[Any]]:
        stored = reader.read([key_of.get(name, name) for name in wanted])
        return {name: stored[key_of.get(name, name)] for name in wanted}

    return GraphSource(
        kind="saved_model",
        path=directory,
        label=f"{directory.name}/{FILE_NAME}",
        graph_def=meta.graph_def,
        read=read,
        types={name: reader.types[key] for name, key in key_of.items()},
        variable_names=names,
        ends=given.or_else(_ends(path, signature, given, fed)),
        files=[path, *saver.checkpoint_files(prefix)],
        tf_version=meta.meta_info_def.tensorflow_version,
        others={key: kept for key, kept in reader.types.items() if key not in is_used},
        keys=key_of,
    )


def _meta_graph(path: Path) -> Any:
    kind = import_graphs().SavedModel
    with saver.reading(path):
        data = path.read_bytes()
    with saver.reading(path):
        saved = kind.FromString(data)
    if not saved.meta_graphs or not saved.meta_graphs[0].graph_def.node:
        raise CheckpointError(f"{path}: holds no graph, or is cut short; copy the file again")
    serving = [meta for meta in saved.meta_graphs if "serve" in meta.meta_info_def.tags]
    return (serving or list(saved.meta_graphs))[0]


def _signature(path: Path, meta: Any) -> Any:
    signatures: Mapping[str, Any] = {
        name: signature for name, signature in meta.signature_def.items() if name != _INITIALIZER
    }
    if _DEFAULT in signatures:
        return signatures[_DEFAULT]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    if not signatures:
        return None
    raise GraphError(
        f"{path}: no signature '{_DEFAULT}' but {', '.join(sorted(signatures))}; save it with one, "
        "or pass --input_op and --logits_op"
    )


def _ends(path: Path, signature: Any, given: Endpoints, fed: Collection[str]) -> Endpoints:
    has_output = given.logits_op is not None or given.loc_op is not None
    if signature is None:
        if has_output:
            return Endpoints()
        raise GraphError(
            f"{path}: has no signature; save it with tf.saved_model.save(model, DIR, "
            "signatures=model.call...)"
        )
    inputs = {
        key: info.name
        for key, info in signature.inputs.items()
        if not {info.name, info.name.removesuffix(":0")} & set(fed)
    }
    outputs = {key: info.name for key, info in signature.outputs.items()}
    if given.input_op is None and len(inputs) != 1:
        raise GraphError(
            f"{path}: its signature has {len(inputs)} inputs ({', '.join(sorted(inputs))}); pass "
            "one as --input_op, and give the others values with --feed NAME=VALUE"
        )
    input_op = next(iter(inputs.values())) if len(inputs) == 1 else None
    if has_output:
        return Endpoints(input_op)
    if {"loc", "scale"} <= outputs.keys():
        return Endpoints(input_op, None, outputs["loc"], outputs["scale"])
    if len(outputs) > 1 and "logits" not in outputs:
        named = ", ".join(f"{key} ({name})" for key, name in sorted(outputs.items()))
        raise GraphError(
            f"{path}: its signature has several outputs: {named}; pass one as --logits_op"
        )
    return Endpoints(input_op, outputs.get("logits") or next(iter(outputs.values())))
