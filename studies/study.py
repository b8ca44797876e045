"""What studies have in common: their command line, commands of the package, claims and pages.

What a study is about does not belong here.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/studies"
DATA = Path(os.environ.get("BPRUNE_TEST_DATA", ROOT.parent / "shared/data"))
"""Data that are not in the repository."""


class Missing(Exception):
    """Something that a study needs is not here."""


@dataclass(frozen=True)
class Claim:
    """A sentence of a page, and whether the numbers bear it out."""

    text: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else '**does not hold**'}: {self.text}"


@dataclass(frozen=True)
class Number:
    """A number of a page.

    Attributes
    ----------
    se : float
        What another seed changes: the error of its mean over trainings, their draws in it.
    n : int
        Trainings.
    """

    name: str
    value: float
    se: float
    n: int

    @classmethod
    def of(cls, name: str, of_trainings: ArrayLike, step: float = 0.0) -> Number:
        """Mean over trainings.

        Parameters
        ----------
        of_trainings : float array, shape (n,)
        step : float
            Of what lies on a grid: its error is no less.
        """
        values = np.asarray(of_trainings, np.float64)
        se = max(values.std(ddof=1) / np.sqrt(len(values)), step)
        return cls(name, float(values.mean()), float(se), len(values))


@dataclass(frozen=True)
class Outcome:
    """What a study has found: claims of its page and, of a whole one, numbers."""

    claims: Sequence[Claim]
    numbers: Sequence[Number] = ()


@dataclass(frozen=True)
class Request:
    """What a study is asked for.

    Attributes
    ----------
    quick : bool
        Whether in small, for orders and minima and not for digits.
    seed : int
        Of the first training; those after it have the next.
    output : Path
        Where page, figure and numbers go.
    work : Path
        For networks and results files.
    """

    quick: bool
    seed: int
    output: Path
    work: Path


Study = Callable[[Request], Outcome]


def main(name: str, about: str, study: Study, argv: Sequence[str] | None = None) -> int:
    """Run a study from its command line, and say which claims hold.

    A whole one elsewhere than in the docs, with another seed, is compared with the page.

    Parameters
    ----------
    name : str
        Of its module.
    about : str
        One line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}", description=about)
    parser.add_argument("--quick", action="store_true", help="in small; goes with --output")
    parser.add_argument("--seed", type=int, default=1, help="two have no training in common (1)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for page and numbers (docs/studies)"
    )
    options = parser.parse_args(argv)
    if options.quick and options.output is None:
        parser.error("--quick: is no page of the docs; give --output")
    if options.seed < 1:
        parser.error(f"--seed={options.seed}: must be 1 or more")
    output = options.output or PAGES
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as work:
        try:
            outcome = study(Request(options.quick, options.seed, output, Path(work)))
        except Missing as missing:
            print(f"error: {missing}", file=sys.stderr)
            return 2
    claims = list(outcome.claims)
    if outcome.numbers:
        _write(output / f"{name}_numbers.csv", outcome.numbers)
        page = PAGES / f"{name}_numbers.csv"
        if output.resolve() != PAGES and page.is_file():
            lines, again = compared(_read(page), outcome.numbers)
            print(lines)
            claims.append(again)
    for claim in claims:
        print(claim)
    return 0 if all(claim.holds for claim in claims) else 1


def compared(page: Sequence[Number], here: Sequence[Number]) -> tuple[str, Claim]:
    """A table of numbers beside those of the page, and whether they come out again.

    They do if no difference is larger than that which one of so many would have by chance once in
    twenty times (Student's t, as errors are of few trainings).
    """
    from scipy import stats

    other = {one.name: one for one in here}
    heads, rows, ratios = ["", "page", "here", "difference in standard errors"], [], []
    for one in page:
        there = other[one.name]
        ratios.append((there.value - one.value) / np.hypot(one.se, there.se))
        both = (f"{number.value:.4g} ± {number.se:.2g}" for number in (one, there))
        rows.append([one.name, *both, f"{ratios[-1]:.1f}"])
    freedom = sum(number.n - 1 for number in (page[0], here[0]))
    limit = float(stats.t.ppf(1 - 0.05 / (2 * len(ratios)), freedom))
    sizes = np.abs(ratios)
    text = (
        f"the page's {len(sizes)} numbers come out again with this seed: {(sizes < 2).sum()} "
        f"differ by less than two standard errors of the difference, all by {sizes.max():.1f} or "
        f"less (limit: {limit:.1f}, of Student's t for so many numbers and {freedom} degrees of "
        "freedom)"
    )
    return table(heads, rows), Claim(text, bool(sizes.max() <= limit))


def _write(path: Path, numbers: Sequence[Number]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "value", "se", "n"])
        for number in numbers:
            writer.writerow([f"{one:.6g}" if isinstance(one, float) else one
                             for one in astuple(number)])  # fmt: skip


def _read(path: Path) -> list[Number]:
    with path.open(newline="") as file:
        return [
            Number(row["name"], float(row["value"]), float(row["se"]), int(row["n"]))
            for row in csv.DictReader(file)
        ]


def command(name: str, *flags: str, launcher: Sequence[str] = ()) -> None:
    """Run a command of the package; what it says goes with it if it fails."""
    done = subprocess.run(
        [*launcher, sys.executable, "-m", f"bprune_hpc.{name}", *flags],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(flags)}: {done.stderr[-2000:]}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of a page."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(claims: Sequence[Claim]) -> str:
    """Claims as a list of a page."""
    return "\n".join(f"- {claim}" for claim in claims)
