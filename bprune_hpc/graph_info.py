"""The two text files BPrune's users keep beside a checkpoint: what the graph's things are called.

What belongs here: writing them for the graph that was trained. What does not: reading them, or
deciding from names what has a posterior (structure decides that, in ``graph``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .tensorflow_import import import_tensorflow

LAYER_NAMES = "LayerNames.txt"
OP_NAMES = "Ops_name_BNN.txt"


def write(case_dir: str | os.PathLike[str], graph: Any = None) -> tuple[Path, Path]:
    """Write ``LayerNames.txt`` and ``Ops_name_BNN.txt`` of a TF1 graph.

    Parameters
    ----------
    case_dir : path
        An existing directory; files of these names in it are replaced.
    graph : tf.Graph, optional
        Default: the current graph.

    Returns
    -------
    tuple of Path
        Trainable variables, one name a line with its ``:0``; every op's name, one a line in the
        order of creation, so that a graph whose placeholders were made first starts with them.

    Raises
    ------
    ConfigError
        If a file cannot be written.
    """
    tf = import_tensorflow()
    graph = tf.compat.v1.get_default_graph() if graph is None else graph
    trainable = graph.get_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)
    directory = Path(case_dir)
    layers, ops = directory / LAYER_NAMES, directory / OP_NAMES
    try:
        layers.write_text("".join(f"{variable.name}\n" for variable in trainable))
        ops.write_text("".join(f"{op.name}\n" for op in graph.get_operations()))
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be written to ({error.strerror}); choose another directory"
        ) from None
    return layers, ops
