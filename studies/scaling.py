"""How trainings and sweeps scale: measured on one and two ranks, projected to 1,024.

    python -m studies.scaling
    python -m studies.scaling --quick --output DIR

Images a second of trainings, their gradients added up by MPI and by Horovod, and cells a second of
a sweep; a cell is one draw at one threshold, over all examples. Times are those of the machine that
it runs on, which should have nothing else to do; no claim depends on them.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import ranks as sweeps
from benchmarks.processes import mpirun, python

from .study import Claim, Missing, Outcome, Request, listed, main, table

MEASURED = (1, 2)
PROJECTED = (64, 128, 256, 512, 1024)
BATCH = 64
"""Images a step of each rank."""
EPOCH = 2**20
"""Images of the projected epoch."""
_SMALL_EPOCH = 60_000  # MNIST's
_SUMS = {"mpi": "MPI", "horovod": "Horovod"}
_N_ROUNDS = 3  # of which medians are taken
_TEXT = Path(__file__).with_name("scaling_page.md")
_WITHOUT = " Horovod is not installed here: its rows are left out."
_PUBLISHED = {1: 1.0, 2: 1.8, 4: 3.3, 6: 4.7, 8: 6.1}
"""Speed by nodes, strong scaling, read off Sharma and Jennings's figure."""


@dataclass(frozen=True)
class Link:
    """A network that is assumed: what a message takes is ``latency_s`` and its bytes over a rate.

    Attributes
    ----------
    name : str
    latency_s, bytes_per_s : float
    """

    name: str
    latency_s: float
    bytes_per_s: float


LINKS = (Link("10 GB/s a rank", 2e-6, 1e10), Link("1 GB/s a rank", 2e-6, 1e9))


@dataclass(frozen=True)
class Epoch:
    """An epoch's time on some ranks: a number of steps, and what is done once.

    Attributes
    ----------
    step_s, once_s : float
    """

    step_s: float
    once_s: float

    @classmethod
    def of(cls, seconds: Mapping[int, float]) -> Epoch:
        """From epochs of two numbers of steps; of one, all is taken to be steps.

        Parameters
        ----------
        seconds : mapping of int to float
            Of an epoch, by its steps.
        """
        (few, short), *more = sorted(seconds.items())
        if not more:
            return cls(short / few, 0.0)
        ((many, long),) = more
        step_s = (long - short) / (many - few)
        once_s = short - few * step_s
        # Both are times. Where noise says otherwise, all is steps.
        return cls(step_s, once_s) if step_s > 0 and once_s > 0 else cls(long / many, 0.0)

    def images_per_s(self, n_ranks: int, n_images: int = EPOCH) -> float:
        """Of all ranks together, in an epoch of so many images; 0 if there is no whole step."""
        n_steps = n_images // (BATCH * n_ranks)
        return n_steps * BATCH * n_ranks / (n_steps * self.step_s + self.once_s)


@dataclass(frozen=True)
class Training:
    """What was measured of one network.

    Attributes
    ----------
    epochs : mapping of (str, int) to Epoch
        By what adds up and the number of ranks; one rank has nothing to add up.
    exchange_s : float
        Of gradients and weights between two ranks by MPI, nothing else to do.
    n_trained : int
        Numbers that are trained, each of four bytes.
    digests : mapping of str to set of str
        Of the network that two ranks have trained, by what adds up.
    """

    epochs: Mapping[tuple[str, int], Epoch]
    exchange_s: float
    n_trained: int
    digests: Mapping[str, set[str]]

    @property
    def sums(self) -> list[str]:
        """What adds up, where it is installed."""
        return [name for name in _SUMS if (name, 2) in self.epochs]

    @property
    def own_s(self) -> float:
        """A step on two ranks by MPI without messages."""
        return max(0.0, self.epochs["mpi", 2].step_s - self.exchange_s)

    @property
    def horovod_s(self) -> float:
        """What a step takes longer by Horovod between two ranks."""
        return max(0.0, self.epochs["horovod", 2].step_s - self.epochs["mpi", 2].step_s)

    def projected(self, by: str, n_ranks: int, link: Link) -> Epoch:
        """An epoch on ranks that have a core as those here each, and a network between them."""
        share = (n_ranks - 1) / n_ranks * 4 * self.n_trained / link.bytes_per_s
        one = share + math.ceil(math.log2(n_ranks)) * link.latency_s
        # A sum of shares, and new weights to all. Horovod gives all of the sum to all, besides.
        messages_s = (3 if by == "horovod" else 2) * one
        extra_s = self.horovod_s if by == "horovod" else 0.0
        return Epoch(self.own_s + extra_s + messages_s, self.epochs[by, 2].once_s)

    def rate(self, by: str, n_ranks: int, link: Link) -> float:
        """Images a second, measured or projected."""
        if n_ranks in MEASURED:
            return self.epochs[by, n_ranks].images_per_s(n_ranks)
        return self.projected(by, n_ranks, link).images_per_s(n_ranks)


@dataclass(frozen=True)
class Sweep:
    """What was measured of a sweep.

    Attributes
    ----------
    seconds : mapping of int to float
        By ranks.
    n_cells : int
        Draws (the posterior mean too) at thresholds.
    cell_s, write_s : float
        On one rank: a cell, and statistics and files, which rank 0 makes alone.
    digests : set of str
        Of all its numbers, on any number of ranks.
    """

    seconds: Mapping[int, float]
    n_cells: int
    cell_s: float
    write_s: float
    digests: set[str]

    def projected(self, n_ranks: int, link: Link) -> sweeps.Projected:
        """The large sweep, by its own plan and loop."""
        between_two = sweeps.Messages.over(link.latency_s, link.bytes_per_s)
        return sweeps.simulate(n_ranks, self.cell_s, self.write_s, between_two)

    def measured(self, n_ranks: int) -> float:
        """Cells a second of the small sweep."""
        return self.n_cells / self.seconds[n_ranks]


@dataclass(frozen=True)
class Row:
    """A line of the numbers' file; see its heads."""

    what: str
    by: str
    link: str
    n_ranks: int
    kind: str
    rate: float
    efficiency: float


def run(request: Request) -> Outcome:
    """The study: measurements, projection, figure, page."""
    try:
        mpirun()
    except RuntimeError as error:
        raise Missing(f"{error}; two ranks need one") from None
    n_rounds = 1 if request.quick else _N_ROUNDS
    networks: dict[str, dict[str, Any]] = {
        "dense": {"n_images": (512,) if request.quick else (1024, 4096), "n_epochs": 14},
    }
    if request.quick:
        networks["dense"]["n_epochs"] = 4
    else:
        networks["resnet18"] = {"n_images": (512, 1408), "n_epochs": 8, "width": 8}
    trainings = {name: _training(name, case, n_rounds) for name, case in networks.items()}
    sweep = _sweep(request.quick, n_rounds)
    rows = _rows(trainings, sweep)
    claims = _claims(trainings, sweep, rows)
    _write_numbers(request.output / "scaling.csv", rows)
    if not request.quick:
        _draw(request.output / "scaling.png", rows)
        (request.output / "scaling.md").write_text(_page(trainings, sweep, rows, claims))
    return Outcome(claims)


def _training(network: str, given: Mapping[str, Any], n_rounds: int) -> Training:
    seconds: dict[tuple[str, int], dict[int, list[float]]] = {}
    digests: dict[str, set[str]] = {}
    n_trained = 0
    sizes = given["n_images"]
    for _ in range(n_rounds):
        for by, n_ranks in (("mpi", 1), ("mpi", 2), ("horovod", 2)):
            for n_images in sizes:
                case = {**given, "network": network, "by": by, "n_images": n_images}
                case["batch_size"] = BATCH
                said = _said(case, n_ranks)
                if said is None:
                    continue
                n_steps = n_images // (BATCH * n_ranks)
                of_epoch = n_steps * BATCH * n_ranks / said["images_per_s"]
                seconds.setdefault((by, n_ranks), {}).setdefault(n_steps, []).append(of_epoch)
                n_trained = said["n_trained"]
                if n_ranks == 2 and n_images == sizes[-1]:
                    digests.setdefault(by, set()).add(said["sha256"])
    epochs = {
        key: Epoch.of({n_steps: median(times) for n_steps, times in of_one.items()})
        for key, of_one in seconds.items()
    }
    if ("horovod", 2) in epochs:
        epochs["horovod", 1] = epochs["mpi", 1]
    exchange = [
        python("-m", "studies.exchange_program", str(n_trained), n_ranks=2).said["seconds"]
        for _ in range(n_rounds)
    ]
    return Training(epochs, median(exchange), n_trained, digests)


def _said(case: Mapping[str, Any], n_ranks: int) -> Any:
    """What a training says of itself; None where Horovod is not installed."""
    n_started = 0 if n_ranks == 1 else n_ranks
    try:
        program = "benchmarks.training_program"
        return python("-m", program, json.dumps(case), n_ranks=n_started).said
    except RuntimeError as error:
        if "Horovod cannot be imported" not in str(error):
            raise
        print("Horovod is not installed: its rows are left out")
        return None


def _sweep(is_quick: bool, n_rounds: int) -> Sweep:
    n_draws, n_examples = (4, 500) if is_quick else (200, sweeps.N_EXAMPLES)
    case: dict[str, Any] = {
        "network": "overpruned", "n_draws": n_draws, "n_examples": n_examples,
        "thresholds": sweeps.THRESHOLDS,
    }  # fmt: skip
    of_ranks: dict[int, list[Any]] = {n: [] for n in MEASURED}
    for _ in range(n_rounds):
        for n_ranks, of_one in of_ranks.items():
            of_one.append(sweeps.on_ranks(n_ranks, case))
    n_cells = sweeps.N_THRESHOLDS * (n_draws + 1)
    scale = sweeps.N_EXAMPLES / n_examples
    return Sweep(
        {
            n: median(one["seconds"] + one["after_seconds"] for one in of_one)
            for n, of_one in of_ranks.items()
        },
        n_cells,
        scale * median(sum(one["evaluate_seconds"]) for one in of_ranks[1]) / n_cells,
        median(one["after_seconds"] for one in of_ranks[1]),
        {one["sha256"] for of_one in of_ranks.values() for one in of_one},
    )


def _rows(trainings: Mapping[str, Training], sweep: Sweep) -> list[Row]:
    out = []

    def add(what: str, by: str, link: str, n_ranks: int, rate: float, of_one: float) -> None:
        kind = "measured" if n_ranks in MEASURED else "projected"
        out.append(Row(what, by, link, n_ranks, kind, rate, rate / n_ranks / of_one))

    for name, training in trainings.items():
        for by in training.sums:
            for link in LINKS:
                first = training.rate(by, 1, link)
                for n in (*MEASURED, *PROJECTED):
                    add(name, _SUMS[by], link.name, n, training.rate(by, n, link), first)
    for link in LINKS:
        for n in MEASURED:
            add("sweep", "MPI", link.name, n, sweep.measured(n), sweep.measured(1))
        # Against the same large sweep on one rank, as the smaller one's share of writes is not its.
        first = sweep.projected(1, link).cells_per_s
        for n in PROJECTED:
            add("sweep", "MPI", link.name, n, sweep.projected(n, link).cells_per_s, first)
    return out


def _claims(trainings: Mapping[str, Training], sweep: Sweep, rows: Sequence[Row]) -> list[Claim]:
    claims = [
        Claim(
            "a sweep's numbers are the same on one and on two ranks, to the last bit",
            len(sweep.digests) == 1,
        )
    ]
    for name, training in trainings.items():
        together = set().union(*training.digests.values())
        names = " and by ".join(_SUMS[by] for by in training.sums)
        claims.append(
            Claim(
                f"two ranks that train the {name} network end with the same bits each time, by "
                f"{names}",
                len(together) == 1,
            )
        )
    falls, slower = True, True
    curves = _curves(row for row in rows if row.kind == "projected")
    for (what, by, link), curve in curves.items():
        efficiency = [row.efficiency for row in curve]
        falls &= efficiency == sorted(efficiency, reverse=True)
        if link == LINKS[1].name:
            faster = curves[what, by, LINKS[0].name]
            slower &= all(a.rate <= b.rate for a, b in zip(curve, faster, strict=True))
    claims.append(Claim("the more ranks are projected, the lower is their efficiency", falls))
    claims.append(Claim("over a slower network nothing is faster", slower))
    return claims


def _curves(rows: Any) -> dict[tuple[str, str, str], list[Row]]:
    out: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        out.setdefault((row.what, row.by, row.link), []).append(row)
    return out


def _write_numbers(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "by", "link", "n_ranks", "kind", "per_s", "efficiency"])
        for row in rows:
            numbers = f"{row.rate:.6g}", f"{row.efficiency:.4g}"
            writer.writerow([row.what, row.by, row.link, row.n_ranks, row.kind, *numbers])


_TITLES = {
    "dense": ("training, 784-400-400-10", "images/s"),
    "resnet18": ("training, ResNet-18 of width 8", "images/s"),
    "sweep": ("sweep, 784-256-256-10", "cells/s"),
}


def _draw(path: Path, rows: Sequence[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes_of = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    places = dict(zip(_TITLES, axes_of.flat, strict=False))
    last = axes_of.flat[3]
    colours = {"MPI": "C0", "Horovod": "C1"}
    styles = {LINKS[0].name: "-", LINKS[1].name: ":"}
    for (what, by, link), curve in _curves(rows).items():
        axes = places[what]
        n_ranks = [row.n_ranks for row in curve]
        is_first = link == LINKS[0].name
        measured = [row for row in curve if row.kind == "measured"]
        projected = [row for row in curve if row.kind == "projected"]
        if is_first:
            many = curve[-1]  # whose efficiency is against the same work on one rank
            ideal = [many.rate / many.efficiency / many.n_ranks * n for n in n_ranks]
            if by == "MPI":
                axes.plot(n_ranks, ideal, color="grey", lw=0.7, ls="--", label="ideal")
            axes.plot(
                [row.n_ranks for row in measured], [row.rate for row in measured], "o",
                color=colours[by], label=f"{by}, measured",
            )  # fmt: skip
        at = [row.n_ranks for row in projected]
        style = {"ls": styles[link], "color": colours[by], "marker": ".", "lw": 1}
        axes.plot(at, [row.rate for row in projected], label=f"{by}, projected, {link}", **style)
        if by == "MPI":
            colour = {"dense": "C0", "resnet18": "C2", "sweep": "C3"}[what]
            if is_first:
                of_two = [100 * row.efficiency for row in measured]
                last.plot(MEASURED, of_two, "o", color=colour)
            label = f"{_TITLES[what][0]}, {link}"
            of_many = [100 * row.efficiency for row in projected]
            last.plot(at, of_many, **{**style, "color": colour}, label=label)
    for what, axes in places.items():
        title, unit = _TITLES[what]
        axes.set(xscale="log", yscale="log", title=title, xlabel="ranks", ylabel=unit)
        axes.legend(fontsize=7)
    nodes = list(_PUBLISHED)
    published = [100 * _PUBLISHED[n] / n for n in nodes]
    last.plot(nodes, published, "kx", label="published, Cray XC40 (by nodes)")
    last.set(
        xscale="log",
        title="efficiency, by MPI (dots at 1 and 2: measured)",
        xlabel="ranks (nodes)",
        ylabel="%",
    )
    last.set_ylim(0, 110)
    last.legend(fontsize=7)
    for axes in axes_of.flat:
        ticks = (1, 2, 8, *PROJECTED)
        axes.set_xticks(ticks, [str(n) for n in ticks], fontsize=8)
        axes.minorticks_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _page(
    trainings: Mapping[str, Training], sweep: Sweep, rows: Sequence[Row], claims: Sequence[Claim]
) -> str:
    curves = _curves(rows)
    parts = []
    for what in (*trainings, "sweep"):
        of_what = {key[1:]: curve for key, curve in curves.items() if key[0] == what}
        title, unit = _TITLES[what]
        heads = ["ranks", "", *(f"{by}, {link}" for by, link in of_what)]
        lines = []
        for of_n in zip(*of_what.values(), strict=True):
            cells = [f"{row.rate:,.0f} ({100 * row.efficiency:.0f} %)" for row in of_n]
            lines.append([f"{of_n[0].n_ranks:,}", of_n[0].kind, *cells])
        parts.append(f"{title[0].upper()}{title[1:]}, {unit}:\n\n{table(heads, lines)}")
    measured = []
    for name, training in trainings.items():
        own, by_mpi = 1e3 * training.own_s, training.epochs["mpi", 2]
        extra = f"{1e3 * training.horovod_s:.2f}" if "horovod" in training.sums else "not installed"
        measured.append(
            [
                _TITLES[name][0], f"{training.n_trained:,}",
                f"{1e3 * training.epochs['mpi', 1].step_s:.2f}", f"{1e3 * by_mpi.step_s:.2f}",
                f"{1e3 * training.exchange_s:.2f}", f"{own:.2f}", extra,
                f"{1e3 * by_mpi.once_s:.1f}",
            ]
        )  # fmt: skip
    heads = [
        "", "numbers trained", "step, one rank", "step, two ranks by MPI", "messages of it",
        "own part", "Horovod, more", "once an epoch",
    ]  # fmt: skip
    dense = trainings["dense"]
    peak = max((row for row in curves["sweep", "MPI", LINKS[1].name]), key=lambda row: row.rate)
    short = [
        f"{dense.projected('mpi', n, LINKS[0]).images_per_s(n, _SMALL_EPOCH):,.0f} on {n:,}"
        for n in PROJECTED
        if BATCH * n <= _SMALL_EPOCH
    ]
    return _TEXT.read_text().format(
        claims=listed(claims),
        tables="\n\n".join(parts),
        measured=table(heads, measured),
        cell_ms=1e3 * sweep.cell_s,
        write_s=sweep.write_s,
        minutes=sweep.projected(1, LINKS[0]).seconds / 60,
        peak=f"{peak.n_ranks:,}",
        short=", ".join(short),
        without="" if "horovod" in dense.sums else _WITHOUT,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main("scaling", (__doc__ or "").splitlines()[0], run))
