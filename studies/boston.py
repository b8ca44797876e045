"""Free energy against weights pruned, for three criteria, on Boston housing (Beckers et al. 2022).

    python -m studies.boston
    python -m studies.boston --quick --output DIR

A network of 13-50-1 is trained, pruned per cent by per cent by BMR, SNR and |loc| + scale, and its
variational free energy measured each time, beside the one that BMR predicts in closed form.
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

from .study import DATA, Claim, Missing, Number, Outcome, Request, command, listed, main, table

Floats = NDArray[np.float64]

CRITERIA = ("bmr", "snr", "signal_plus_noise")
COLUMNS = ("theory", *CRITERIA)
"""Curves: what BMR predicts, and what is measured by each criterion."""
TITLES = {
    "theory": "BMR, closed form", "bmr": "BMR", "snr": "SNR",
    "signal_plus_noise": "\\|loc\\| + scale",
}  # fmt: skip
_PUBLISHED = {
    "theory": "theoretical bmr", "bmr": "observed bmr", "snr": "observed snr",
    "signal_plus_noise": "observed spr",
}  # fmt: skip
_COLOURS = {"theory": "black", "bmr": "C0", "snr": "C1", "signal_plus_noise": "C2"}
_TEXT = Path(__file__).with_name("boston_page.md")
_N_TRAININGS = 5
_COMPARED = (0.3, 0.8)
_AT_START = (0.01, 0.1)
_MOST = 0.9  # pruned; beyond that both go up steeply
_COMPARED_AGAIN = (0.0, 0.1, 0.3, 0.5, 0.8, 0.95)
_SHOWN = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.78, 0.8, 0.9, 0.95, 0.97)


@dataclass(frozen=True)
class Energies:
    """Free energies of some trainings, nats, in the targets' own units.

    Attributes
    ----------
    fraction : float64 array, shape (n,)
        Of the weights, pruned.
    value, se : mapping of str to float64 array, shape (n_trainings, n)
        By curve; the error is that of draws, of the change against the unpruned network.
    start_se : float64 array, shape (n_trainings,)
        Of the unpruned network's free energy.
    """

    fraction: Floats
    value: Mapping[str, Floats]
    se: Mapping[str, Floats]
    start_se: Floats

    def mean(self, curve: str) -> Floats:
        """Over trainings."""
        return np.asarray(self.value[curve].mean(axis=0))

    def error(self, curve: str) -> Floats:
        """Of that mean, as an estimate for these trainings: of draws alone."""
        return np.asarray(np.sqrt((self.se[curve] ** 2).mean(axis=0) / len(self.start_se)))

    @property
    def difference(self) -> tuple[Floats, Floats]:
        """What is measured by BMR less what is predicted, and its Monte Carlo error."""
        return self.mean("bmr") - self.mean("theory"), self.error("bmr")

    def near(self, fraction: float) -> int:
        """Index of a fraction."""
        return int(np.abs(self.fraction - fraction).argmin())

    def least(self, curve: str) -> float:
        """Fraction pruned where the mean is least."""
        return float(self.fraction[self.mean(curve).argmin()])


def run(request: Request) -> Outcome:
    """The study: networks, sweeps, figure, page."""
    source = DATA / "beckers"
    for name in ("boston.csv", "boston-bbb-global.csv"):
        if not (source / name).is_file():
            raise Missing(f"{source / name}: is not there; set BPRUNE_TEST_DATA to where it is")
    published = _published(source / "boston-bbb-global.csv")
    examples, unit = _standardised(source / "boston.csv", request.work)
    first = _N_TRAININGS * (request.seed - 1) + 1  # no training is in the study of two seeds
    seeds = range(first, first + (1 if request.quick else _N_TRAININGS))
    ours = _joined([_energies(request, examples, unit, seed) for seed in seeds])
    claims = _claims(ours, published)
    _write_numbers(request.output / "boston.csv", ours)
    if request.quick:
        return Outcome(claims)
    claims.append(_largest_difference(ours, published))
    _draw(request.output / "boston.png", ours, published)
    page = _page(ours, published, claims, seeds)
    (request.output / "boston.md").write_text(page)
    return Outcome(claims, _numbers(ours))


def _standardised(path: Path, work: Path) -> tuple[Path, float]:
    """A file of standardised columns, and what the log-density of all targets gains by it, nats.

    All rows are training data. A sweep wants a test set too, of which no number is used.
    """
    rows = np.loadtxt(path)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    x, y = scaled[:, :-1].astype(np.float32), scaled[:, -1]
    np.savez(work / "boston.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return work / "boston.npz", float(len(y) * np.log(rows[:, -1].std()))


def _energies(request: Request, examples: Path, unit: float, seed: int) -> Energies:
    """Train one network and sweep it by each criterion."""
    import h5py

    case = str(request.work / f"case{seed}")
    command(
        "train", "--task=regression", "--dataset=npz", f"--data_path={examples}", "--hidden=50",
        "--estimator=local", "--batch_size=16", f"--epochs={400 if request.quick else 1000}",
        "--learning_rate=0.01", "--n_draws_eval=2",
        f"--seed={seed}", f"--model_dir={case}",
    )  # fmt: skip
    fractions = "0,0.01,0.05:0.95:19,0.97" if request.quick else "0:0.99:100"
    grid = _grid(fractions)
    value, se, start_se = {}, {}, np.zeros(1)
    for criterion in CRITERIA:
        results = request.work / f"{criterion}{seed}.h5"
        command(
            "sweep", f"--model_dir={case}", f"--data_path={examples}", f"--elbo_path={examples}",
            f"--criterion={criterion}", f"--prune_fractions={grid}", f"--output={results}",
            f"--num_monte_carlo={200 if request.quick else 500}", "--draw_noise=shared",
            f"--seed={seed}",
        )  # fmt: skip
        with h5py.File(results) as file:
            fraction, found = file["sparsity/pruned_fraction"][()], file["free_energy"]
            value[criterion] = found["free_energy"][()][None] + unit
            se[criterion] = found["free_energy_change_se"][()][None]
            start_se = found["free_energy_se"][:1]
            if criterion == "bmr":
                value["theory"] = found["predicted"][()][None] + unit
                se["theory"] = np.zeros((1, len(fraction)))
    return Energies(fraction, value, se, start_se)


def _grid(text: str) -> str:
    """A list of fractions, of which the command takes one form at a time."""
    if "," not in text:
        return text
    out: list[float] = []
    for part in text.split(","):
        ends = part.split(":")
        if len(ends) == 1:
            out.append(float(part))
        else:
            out += np.linspace(float(ends[0]), float(ends[1]), int(ends[2])).round(6).tolist()
    return ",".join(f"{one:g}" for one in out)


def _joined(parts: Sequence[Energies]) -> Energies:
    return Energies(
        parts[0].fraction,
        {curve: np.concatenate([one.value[curve] for one in parts]) for curve in COLUMNS},
        {curve: np.concatenate([one.se[curve] for one in parts]) for curve in COLUMNS},
        np.concatenate([one.start_se for one in parts]),
    )


def _published(path: Path) -> dict[str, Floats]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    columns = {"fraction": "fraction", **_PUBLISHED}
    return {
        name: np.array([float(row[column]) for row in rows]) for name, column in columns.items()
    }


def _claims(ours: Energies, published: Mapping[str, Floats]) -> list[Claim]:
    bmr, snr = ours.mean("bmr"), ours.mean("snr")
    least = int(bmr.argmin())
    fall, fall_se = bmr[0] - bmr[least], ours.error("bmr")[least]
    low, high = _COMPARED
    among = (ours.fraction > low - 0.005) & (ours.fraction < high + 0.005)
    gap = (snr - bmr)[among]
    of_gap = np.hypot(ours.error("snr"), ours.error("bmr"))[among]
    worst = int((gap / of_gap).argmin())
    third = ours.mean("signal_plus_noise")[among] - snr[among]
    claims = [
        Claim(
            f"by BMR the free energy falls to a minimum, by {fall:.1f} ± {fall_se:.1f} nats, and "
            f"rises behind it: it lies at {100 * ours.least('bmr'):.0f} % pruned as measured, at "
            f"{100 * ours.least('theory'):.0f} % in closed form (published: 95 % and 78 %)",
            bool(fall > 3 * fall_se and 0.5 < ours.fraction[least] < ours.fraction[-1]),
        ),
        Claim(
            f"it lies below SNR's at every fraction from 30 to 80 % pruned, by {gap.min():.1f} to "
            f"{gap.max():.1f} nats, at the least certain of them {gap[worst]:.1f} ± "
            f"{of_gap[worst]:.1f}",
            bool((gap > 2 * of_gap).all()),
        ),
        Claim(
            f"|loc| + scale is worse than SNR there, by {third.min():.0f} nats or more",
            bool((third > 0).all()),
        ),
    ]
    away, error = ours.difference
    for fraction in _AT_START:
        at, there = ours.near(fraction), int(np.abs(published["fraction"] - fraction).argmin())
        of_theirs = float(published["bmr"][there] - published["theory"][there])
        claims.append(
            Claim(
                f"at {100 * ours.fraction[at]:.1f} % pruned measurement and closed form differ by "
                f"{away[at]:.1f} ± {error[at]:.1f} nats, no more than published ({of_theirs:.1f}), "
                "within twice the error",
                bool(abs(away[at]) - 2 * error[at] <= abs(of_theirs)),
            )
        )
    return claims


def _largest_difference(ours: Energies, published: Mapping[str, Floats]) -> Claim:
    """Of a whole study: a short training is further from what the closed form assumes."""
    away, error = ours.difference
    near, theirs = published["fraction"] <= _MOST, published["bmr"] - published["theory"]
    within = ours.fraction <= _MOST
    at = int(np.abs(np.where(within, away, 0)).argmax())
    most = float(np.abs(theirs[near]).max())
    return Claim(
        f"nowhere up to {100 * _MOST:.0f} % pruned do they differ by more than the published "
        f"curves do at most ({most:.1f} nats): most at {100 * ours.fraction[at]:.0f} %, by "
        f"{away[at]:.1f} ± {error[at]:.1f}",
        bool((np.abs(away) - 2 * error <= most)[within].all()),
    )


def _numbers(ours: Energies) -> list[Number]:
    out = []
    for curve in COLUMNS:
        for fraction in _COMPARED_AGAIN:
            of_trainings = ours.value[curve][:, ours.near(fraction)]
            out.append(Number.of(f"{curve} at {100 * fraction:g} %, nats", of_trainings))
    for curve in ("theory", "bmr"):
        least = ours.fraction[ours.value[curve].argmin(axis=1)]
        out.append(Number.of(f"{curve}: share pruned at the minimum", least, step=0.01))
        falls = ours.value[curve][:, 0] - ours.value[curve].min(axis=1)
        out.append(Number.of(f"{curve}: fall to the minimum, nats", falls))
    for fraction in (*_AT_START, *_COMPARED):
        at = ours.near(fraction)
        text = f"at {100 * fraction:g} %, nats"
        away = ours.value["bmr"][:, at] - ours.value["theory"][:, at]
        out.append(Number.of(f"BMR less closed form {text}", away))
        gap = ours.value["snr"][:, at] - ours.value["bmr"][:, at]
        out.append(Number.of(f"SNR less BMR {text}", gap))
    return out


def _write_numbers(path: Path, ours: Energies) -> None:
    columns = [ours.fraction, *(ours.mean(curve) for curve in COLUMNS)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fraction", *COLUMNS])
        writer.writerows([f"{value:.6g}" for value in row] for row in zip(*columns, strict=True))


def _draw(path: Path, ours: Energies, published: Mapping[str, Floats]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right, below) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for curve in COLUMNS:
        style: dict[str, Any] = {"color": _COLOURS[curve], "label": TITLES[curve].replace("\\", "")}
        style["linestyle"] = "--" if curve == "theory" else "-"
        left.plot(100 * ours.fraction, ours.mean(curve), **style)
        low, high = ours.value[curve].min(axis=0), ours.value[curve].max(axis=0)
        left.fill_between(100 * ours.fraction, low, high, color=_COLOURS[curve], alpha=0.2, lw=0)
        right.plot(100 * published["fraction"], published[curve], **style)
    for axes, start, title in (
        (left, ours.mean("bmr"), "here"), (right, published["bmr"], "published"),
    ):  # fmt: skip
        axes.set(title=f"free energy, {title}", xlabel="weights pruned, %", ylabel="nats")
        axes.set_ylim(start.min() - 30, start[0] + 120)
    left.legend(fontsize=8)
    away, error = ours.difference
    below.axhline(0, color="grey", lw=0.5)
    below.errorbar(
        100 * ours.fraction, away, 2 * error, fmt=".", ms=3, lw=0.7, label="here, ± 2 se"
    )
    theirs = published["bmr"] - published["theory"]
    below.plot(100 * published["fraction"], theirs, color="C3", label="published")
    below.set(title="BMR: measured less closed form", xlabel="weights pruned, %", ylabel="nats")
    below.set_ylim(-60, 60)
    below.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _page(
    ours: Energies, published: Mapping[str, Floats], claims: Sequence[Claim], seeds: range
) -> str:
    away, error = ours.difference
    rows = []
    for fraction in _SHOWN:
        at, there = ours.near(fraction), int(np.abs(published["fraction"] - fraction).argmin())
        row = [f"{100 * fraction:.0f} %"]
        for curve in COLUMNS:
            spread = ours.value[curve][:, at].std(ddof=1)
            row.append(f"{ours.mean(curve)[at]:.1f} ({spread:.1f})")
        row.append(f"{away[at]:.1f} ± {error[at]:.1f}")
        row.append(f"{published['bmr'][there] - published['theory'][there]:.1f}")
        rows.append(row)
    names = [TITLES[curve] for curve in COLUMNS]
    heads = ["pruned", *names, "BMR less closed form", "the same as published"]
    return _TEXT.read_text().format(
        n=len(ours.start_se), first=seeds[0], last=seeds[-1],
        start_se=float(np.sqrt((ours.start_se**2).mean())),
        spread=float(ours.value["bmr"][:, 0].std(ddof=1)), claims=listed(claims),
        table=table(heads, rows),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main("boston", (__doc__ or "").splitlines()[0], run))
