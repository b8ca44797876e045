"""One process of BPrune's procedure, written anew from what it does: one threshold, one batch.

    python -m benchmarks.bprune_process CASE N_EXAMPLES THRESHOLD N_DRAWS LAUNCHED

Imports the meta graph, restores the checkpoint, prunes by writing into the variables that
``LayerNames.txt`` pairs, and then, for every draw, adds a softmax operation to the graph and runs
it. Prints JSON: seconds from ``LAUNCHED`` (of ``time.time``) to the first draw, of every draw, and
of what comes after.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc.graph_info import LAYER_NAMES, OP_NAMES
from bprune_hpc.tensorflow_import import import_tensorflow

from .bprune_case import DATA_NAME


def main(case: Path, n_examples: int, threshold: float, n_draws: int, launched: float) -> None:
    """Run one threshold."""
    tf1 = import_tensorflow().compat.v1
    import tensorflow_probability  # noqa: F401  (as the original does)

    tf1.disable_eager_execution()
    config = tf1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf1.Session(config=config) as session, np.load(case / DATA_NAME) as data:
        checkpoint = tf1.train.latest_checkpoint(str(case))
        tf1.train.import_meta_graph(f"{checkpoint}.meta").restore(session, checkpoint)
        graph = tf1.get_default_graph()
        names = (case / OP_NAMES).read_text().split()
        inputs, labels = (graph.get_tensor_by_name(f"{name}:0") for name in names[:2])
        output = next(name for name in names if name.endswith("/log_prob/mul"))
        logits = graph.get_tensor_by_name(f"{output}:0")
        _prune(session, (case / LAYER_NAMES).read_text().split(), threshold)
        x, label = data["x"][:n_examples], data["y"][:n_examples]
        feed = {inputs: x, labels: label}
        begun = time.time()
        probabilities, right, seconds = [], [], []
        for _ in range(n_draws):
            start = time.perf_counter()
            probabilities.append(session.run(tf1.nn.softmax(logits), feed))
            right.append(np.mean(probabilities[-1].argmax(axis=1) == label))
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        mean = np.mean(probabilities, axis=0)
        accuracy = float(np.mean(right))
        -(mean * np.log(mean + 1e-30)).sum(axis=1)
        after = time.perf_counter() - start
    said = {"launch_s": begun - launched, "draw_s": seconds, "after_s": after, "accuracy": accuracy}
    sys.stdout.write(json.dumps(said) + "\n")


def _prune(session: Any, names: list[str], threshold: float) -> None:
    """Write zeros into the variables of weights whose SNR is at the threshold or below."""
    tf1 = import_tensorflow().compat.v1
    variables = {variable.name: variable for variable in tf1.global_variables()}
    found = [variables[name] for name in names]
    for loc, raw in itertools.pairwise(found):
        if "untransformed_scale" not in raw.name:
            continue
        mean, value = session.run((loc, raw))
        weak = np.abs(mean) / np.log1p(np.exp(value)) <= threshold
        for variable, new in ((loc, mean), (raw, value)):
            variable.load(np.where(weak, np.float32(0), new), session)


if __name__ == "__main__":
    _case, _n_examples, _threshold, _n_draws, _launched = sys.argv[1:]
    main(Path(_case), int(_n_examples), float(_threshold), int(_n_draws), float(_launched))
