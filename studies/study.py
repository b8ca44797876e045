"""What studies have in common: their command line, commands of the package, claims and pages.

What a study is about does not belong here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


Study = Callable[[Request], Sequence[Claim]]


def main(name: str, about: str, study: Study, argv: Sequence[str] | None = None) -> int:
    """Run a study from its command line, and say which claims hold.

    Parameters
    ----------
    name : str
        Of its module.
    about : str
        One line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}", description=about)
    parser.add_argument("--quick", action="store_true", help="in small; goes with --output")
    parser.add_argument("--seed", type=int, default=1, help="of the first training (1)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for page and numbers (docs/studies)"
    )
    options = parser.parse_args(argv)
    if options.quick and options.output is None:
        parser.error("--quick: is no page of the docs; give --output")
    output = options.output or PAGES
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as work:
        try:
            claims = study(Request(options.quick, options.seed, output, Path(work)))
        except Missing as missing:
            print(f"error: {missing}", file=sys.stderr)
            return 2
    for claim in claims:
        print(claim)
    return 0 if all(claim.holds for claim in claims) else 1


def command(name: str, *flags: str) -> None:
    """Run a command of the package; what it says goes with it if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"bprune_hpc.{name}", *flags],
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
