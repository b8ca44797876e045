"""The dense network on disk, as a training run leaves it: a TF1 checkpoint with its meta graph.

What belongs here: writing the case and its test set. What does not: running it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc import graph_info
from bprune_hpc.runner.datasets import Examples
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import open_session
from bprune_hpc.training import config as train_config
from bprune_hpc.training import graph as train_graph

from .overpruned import SIZES
from .peers import untransformed

DATA_NAME = "test.npz"


def save(directory: Path, dense: Network, test: Examples) -> None:
    """Write a network (with optimizer and loss) and examples.

    Parameters
    ----------
    directory : Path
        New or empty.
    """
    hidden = ",".join(map(str, SIZES[1:-1]))
    config = train_config.parse(
        ["--dataset=npz", f"--model_dir={directory}", "--model=dense", f"--hidden={hidden}"],
        "benchmarks",
    )
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / DATA_NAME, x=test.x, y=test.summed_label)
    training = train_graph.build(config, SIZES[:1], SIZES[-1], len(test))
    with open_session(training.graph) as session:
        session.run(training.init)
        table, network = dense.posterior, training.network
        for name, layer in zip(table.names, network.locs, strict=True):
            raw = network.untransformed_scales[layer]
            for variable, value in (
                (_loc_variable(training.graph, raw.op.name), table.loc[name]),
                (raw, untransformed(table.scale[name])),
            ):
                session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        training.saver.save(session, str(directory / "model.ckpt"), global_step=1)
    graph_info.write(directory, training.graph)


def _loc_variable(graph: Any, raw_scale: str) -> Any:
    """The variable of the means, of a layer whose scales are known."""
    wanted = raw_scale.replace("_untransformed_scale", "_loc")
    variables = graph.get_collection("variables")
    return next(variable for variable in variables if variable.op.name == wanted)
