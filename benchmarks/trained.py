"""Sweeps of trained networks with convolutions: TensorFlow's graph over what ``auto`` chooses.

What training has found prunes unlike numbers at random: filters die together, and layers at
thresholds of their own. The networks are the zoo's, trained by the package's own command on the
digits inside it, enlarged to 32 x 32. Each is trained once, which is not timed, and kept in
``results/benchmarks``. Theta's network is its authors'.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.data import embedded
from bprune_hpc.posterior import pruning
from bprune_hpc.runner.datasets import Examples
from bprune_hpc.runner.network import Network

from . import conv_networks
from .dense import GRIDS, Sweep
from .processes import ROOT, python
from .record import Measured
from .timing import Settings, in_turns

FOLDER = ROOT / "results" / "benchmarks"
_ENLARGED = 4
_TRAINING_LIMIT_S = 3600
_COMMON = (
    "--prior_scale=1", "--posterior_scale_init=0.02", "--batch_size=32", "--n_draws_eval=20",
    "--seed=1",
)  # fmt: skip
RECIPES: Mapping[str, tuple[str, ...]] = {
    "vgg16": ("--model=vgg16", "--width=16", "--learning_rate=0.001"),
    "resnet18": ("--model=resnet18", "--width=16", "--learning_rate=0.002"),
    "six": ("--model=vgg", "--width=32", "--learning_rate=0.002"),
}
"""Flags of a training; widths are small enough that each takes some minutes."""
_EPOCHS = ("--epochs=50", "--kl_anneal_epochs=20")
_QUICK = ("--width=2", "--epochs=1")

logger = logging.getLogger("benchmarks")


def run(settings: Settings) -> Measured:
    """Measure every network over both grids."""
    n_examples, n_draws, n_points = settings.choose((20, 2, 3), (256, 4, None))
    networks: dict[str, Callable[[], tuple[Network, Examples]]] = {
        "theta": partial(conv_networks.theta, n_examples)
    }
    for name, flags in RECIPES.items():
        more = settings.choose(_QUICK, _EPOCHS)
        networks[name] = partial(trained, name, (*_COMMON, *flags, *more), n_examples)
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {"n_examples": n_examples, "n_draws": n_draws}
    for name, make in networks.items():
        network, test = make()
        evaluators = {
            "graph": replace(network, evaluator="graph").make_evaluator(1, 1),
            "ours": network.make_evaluator(1, 1),
        }
        absolute[name] = {
            "evaluator": network.evaluator, "n_weights": network.posterior.n_weights,
        }  # fmt: skip
        for grid in ("thresholds", "fractions"):
            kind, points = GRIDS[grid]
            masks = pruning.pruning_masks(network.posterior, kind, points[:n_points])
            sweeps = {
                by: Sweep(network, test, evaluator, masks, n_draws, n_examples)
                for by, evaluator in evaluators.items()
            }
            seconds = in_turns(
                {by: partial(one.seconds, settings) for by, one in sweeps.items()},
                settings.choose(1, 3),
                settings.clock,
            )
            ratios[f"{name}_{grid}_graph_over_ours"] = seconds["graph"] / seconds["ours"]
            absolute[name][grid] = {
                "seconds": seconds,
                "kept": [1 - mask.pruned_fraction for mask in masks],
            }
    return Measured(ratios, absolute)


def trained(name: str, flags: tuple[str, ...], n_examples: int) -> tuple[Network, Examples]:
    """The network of a recipe, trained if it has not been yet, and held-out digits."""
    recipe = json.dumps([name, flags, _ENLARGED, "bilinear"])
    place = FOLDER / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not place.is_dir():
        logger.info("%s: is trained first, for some minutes, into %s", name, place)
        FOLDER.mkdir(parents=True, exist_ok=True)
        python(
            "-m", "bprune_hpc.train", "--dataset=npz", f"--data_path={_digits(FOLDER)}",
            f"--model_dir={place}", *flags, limit_s=_TRAINING_LIMIT_S,
        )  # fmt: skip
    case = read_case(place)
    x, label = enlarged("test")
    rows = np.resize(np.arange(len(x)), n_examples)
    of_network = x[rows].reshape(n_examples, -1)
    return conv_networks.problem(
        case.graph, case.posterior, case.fixed, of_network, label[rows], str(place)
    )


def enlarged(split: embedded.Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The embedded digits at 32 x 32, between their pixels by straight lines."""
    part = embedded.digits(split)
    images = ndimage.zoom(part.x, (1, _ENLARGED, _ENLARGED), order=1)
    return images[..., None].astype(np.float32), np.asarray(part.y, np.int64)


def _digits(folder: Path) -> Path:
    """A file of them, as a training reads it."""
    path = folder / "digits32.npz"
    (x_train, y_train), (x_test, y_test) = enlarged("train"), enlarged("test")
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path
