"""VGG-16 and ResNet-18 on CIFAR-10, pruned by SNR (Sharma and Jennings 2020).

    BPRUNE_TEST_DATA=DIR python -m studies.cifar10
    BPRUNE_TEST_DATA=DIR python -m studies.cifar10 --quick --output DIR

``cifar-10-batches-py`` is in DIR, as its authors distribute it; nothing is downloaded. Trains on as
many ranks as there are cores. Without the data it writes a page that says so, and ends with 2.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.processes import mpirun
from bprune_hpc.data import cifar10

from . import study
from .study import Claim, Missing, Outcome, Request, command, listed, main, table

NETWORKS = {"vgg16": "VGG-16", "resnet18": "ResNet-18"}
FRACTIONS = (0.0, 0.5, 0.8, 0.9, 0.95)
_CUT, _COST = 0.8, 0.07
"""Published: so much is pruned for so much accuracy, of certain networks."""
_QUICK_CUT = 0.5  # what tiny networks can do without
_TEXT = Path(__file__).with_name("cifar10_page.md")
_NOT_RUN = (
    "**Not run.** CIFAR-10 was not at hand where this page was made, so it has no number. The "
    "command is tested on a few made-up images in the same files: it trains, prunes and writes "
    "what is described here."
)


@dataclass(frozen=True)
class Point:
    """A network on the test set: a number and its errors, of draws and of the set.

    Attributes
    ----------
    accuracy, nll : tuple of float
    """

    accuracy: tuple[float, float, float]
    nll: tuple[float, float, float]


Found = dict[str, dict[float, Point]]


def run(request: Request) -> Outcome:
    """The study: networks, sweeps, figure, page."""
    data = cifar10.directory_of(study.DATA)
    if not (data / cifar10.TEST_FILE).is_file():
        if not request.quick:
            (request.output / "cifar10.md").write_text(_TEXT.read_text().format(results=_NOT_RUN))
        raise Missing(
            f"{study.DATA / cifar10.DIRECTORY}: has no {cifar10.TEST_FILE}; set BPRUNE_TEST_DATA "
            "to the directory that it is in"
        )
    found = {name: _network(request, data, name) for name in NETWORKS}
    claims = _claims(found, _QUICK_CUT if request.quick else _CUT)
    _write_numbers(request.output / "cifar10.csv", found)
    if not request.quick:
        _draw(request.output / "cifar10.png", found)
        results = _results(found, claims)
        (request.output / "cifar10.md").write_text(_TEXT.read_text().format(results=results))
    return Outcome(claims)


def _network(request: Request, data: Path, name: str) -> dict[float, Point]:
    """Train one network, and sweep it."""
    import h5py

    case, results = request.work / name, request.work / f"{name}.h5"
    files = ["--dataset=cifar10", f"--data_path={data}", "--subtract_pixel_mean"]
    size = ["--width=16", "--batch_size=64", "--epochs=60", "--kl_anneal_epochs=20"]
    if request.quick:
        size = ["--width=2", "--batch_size=10", "--epochs=12", "--kl_weight=0.01"]
    n_ranks = 1 if request.quick else len(os.sched_getaffinity(0))
    launcher = [mpirun(), "-n", str(n_ranks)] if n_ranks > 1 else []
    command(
        "train", *files, f"--model={name}", *size, "--learning_rate=0.002",
        "--posterior_scale_init=0.02", "--n_draws_eval=2", f"--seed={request.seed}",
        f"--model_dir={case}", launcher=launcher,
    )  # fmt: skip
    command(
        "sweep", *files, f"--model_dir={case}", f"--seed={request.seed}", "--criterion=snr",
        f"--prune_fractions={','.join(f'{one:g}' for one in FRACTIONS)}", f"--output={results}",
        f"--num_monte_carlo={4 if request.quick else 100}", launcher=launcher,
    )  # fmt: skip
    with h5py.File(results) as file:
        metrics = {key: item[()] for key, item in file["metrics"].items()}

    def number(key: str, index: int) -> tuple[float, float, float]:
        value, mc, of_set = (float(metrics[key + part][index]) for part in ("", "_se", "_se_data"))
        return value, mc, of_set

    return {
        fraction: Point(number("accuracy", index), number("nll", index))
        for index, fraction in enumerate(FRACTIONS)
    }


def _claims(found: Found, cut: float) -> list[Claim]:
    learned = [
        Claim(
            f"{NETWORKS[name]} has learned: it is right in {100 * points[0.0].accuracy[0]:.1f} %, "
            "unpruned (chance: 10)",
            points[0.0].accuracy[0] - 3 * np.hypot(*points[0.0].accuracy[1:]) > 0.1,
        )
        for name, points in found.items()
    ]
    cost = {
        name: points[0.0].accuracy[0] - points[cut].accuracy[0] for name, points in found.items()
    }
    of_each = ", ".join(f"{NETWORKS[name]} {100 * one:.1f}" for name, one in cost.items())
    published = Claim(
        f"{100 * cut:.0f} % pruned cost one of them no more than {100 * _COST:.1f} points of "
        f"accuracy: {of_each}",
        min(cost.values()) <= _COST,
    )
    return [*learned, published]


def _write_numbers(path: Path, found: Found) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        heads = (
            f"{name}{part}" for name in ("accuracy", "nll") for part in ("", "_se", "_se_data")
        )
        writer.writerow(["network", "fraction", *heads])
        for name, points in found.items():
            for fraction, point in points.items():
                numbers = (f"{one:.6g}" for one in (*point.accuracy, *point.nll))
                writer.writerow([name, f"{fraction:g}", *numbers])


def _draw(path: Path, found: Found) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for name, points in found.items():
        at = [100 * fraction for fraction in points]
        for axes, key, factor in ((left, "accuracy", 100.0), (right, "nll", 1.0)):
            value, mc, of_set = factor * np.array([getattr(one, key) for one in points.values()]).T
            axes.errorbar(at, value, np.hypot(mc, of_set), marker="o", ms=4, label=NETWORKS[name])
    left.set(xlabel="weights pruned, %", ylabel="accuracy, %")
    right.set(xlabel="weights pruned, %", ylabel="NLL, nats an image")
    left.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _results(found: Found, claims: Sequence[Claim]) -> str:
    def text(number: tuple[float, ...], digits: int, factor: float = 1.0) -> str:
        return " ± ".join(f"{factor * one:.{digits}f}" for one in number)

    rows = [
        [
            NETWORKS[name],
            f"{100 * fraction:g} %",
            text(point.accuracy, 2, 100.0),
            text(point.nll, 4),
        ]
        for name, points in found.items()
        for fraction, point in points.items()
    ]
    picture = (
        "![Accuracy and NLL of both networks against the share of weights pruned](cifar10.png)"
    )
    numbers = table(["network", "pruned", "accuracy, %", "NLL, nats an image"], rows)
    errors = "The first ± is the error of draws, the second that of the test set."
    return "\n\n".join([picture, listed(claims), errors, numbers])


if __name__ == "__main__":
    sys.exit(main("cifar10", (__doc__ or "").splitlines()[0], run))
