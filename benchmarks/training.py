"""Trainings: images a second, ours on one and two ranks, and tf_keras' ``fit``.

Two networks: 784-400-400-10 on images of MNIST's shape, whose half a million weights cost more than
its products; and ResNet-18 on 8 x 8 images, where it is the other way round. All are Flipout layers
of TensorFlow Probability; batches are 64 images a rank or thread. Each is a process of its own, or
two ranks, one after the other in several rounds: what is compared is the median over rounds of the
ratio within a round.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from statistics import median
from typing import Any

from .processes import python
from .record import Measured
from .timing import Settings

_PROGRAM = "benchmarks.training_program"
RUNS: dict[str, tuple[int, dict[str, Any]]] = {
    "one_rank": (0, {"by": "mpi"}),
    "two_ranks": (2, {"by": "mpi"}),
    "two_ranks_horovod": (2, {"by": "horovod"}),
    "fit_one_thread": (0, {"by": "fit"}),
    "fit_two_threads": (0, {"by": "fit", "batch_size": 128, "n_threads": 2}),
}
"""Ranks (0: no launcher), and what differs."""
LOCAL: dict[str, tuple[int, dict[str, Any]]] = {
    "local_one_rank": (0, {"by": "mpi", "estimator": "local"}),
    "local_two_ranks": (2, {"by": "mpi", "estimator": "local"}),
}
_QUICK = {name: run for name, run in RUNS.items() if name != "two_ranks_horovod"}
RATIOS = (
    ("one_rank", "fit_one_thread"),
    ("two_ranks", "one_rank"),
    ("two_ranks", "fit_two_threads"),
    ("two_ranks_horovod", "two_ranks"),
    ("local_one_rank", "one_rank"),
    ("local_two_ranks", "local_one_rank"),
)

logger = logging.getLogger("benchmarks")


def run(settings: Settings) -> Measured:
    """Measure both networks."""
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    cases: dict[str, dict[str, Any]] = {
        "dense": {"n_images": settings.choose(256, 4000), "n_epochs": settings.choose(4, 14)},
        "resnet18": {"n_images": 1438, "n_epochs": 8, "width": 8},
    }
    for network in settings.choose(["dense"], cases):
        case = cases[network]
        runs = settings.choose(_QUICK, {**RUNS, **(LOCAL if network == "dense" else {})})
        rounds = [_round(network, case, runs) for _ in range(settings.choose(1, 5))]
        for one, other in RATIOS:
            pairs = [(each[one], each[other]) for each in rounds if {one, other} <= each.keys()]
            if pairs:
                ratios[f"{network}_{one}_over_{other}"] = median(
                    top["images_per_s"] / bottom["images_per_s"] for top, bottom in pairs
                )
        absolute[network] = {**case, "rounds": rounds}
    return Measured(ratios, absolute)


def _round(
    network: str, case: Mapping[str, Any], runs: Mapping[str, tuple[int, dict[str, Any]]]
) -> dict[str, Any]:
    """Each once; without Horovod where it is not installed."""
    found = {}
    for name, (n_ranks, differences) in runs.items():
        given = json.dumps({"network": network, **case, **differences})
        try:
            found[name] = python("-m", _PROGRAM, given, n_ranks=n_ranks).said
        except RuntimeError as error:
            if "Horovod cannot be imported" not in str(error):
                raise
            logger.info("Horovod is not installed: %s is left out", name)
    return found
