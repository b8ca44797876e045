"""Figures of sweeps, for papers: panels against the weights that are left.

What belongs here: drawing with matplotlib. What does not: reading (``results.swept``).
Colours are those of M. Okabe and K. Ito, "Color universal design", 2008, which colour-blind people
can tell apart.
"""

from __future__ import annotations

import io
import logging
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import Float64Array
from ..errors import ConfigError
from ..metrics.estimates import Metric
from .swept import Swept, comparison_fault, finite

AXES = ("weights_left", "fraction", "threshold")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "lines.linewidth": 1.2, "lines.markersize": 3.5,
    "legend.framealpha": 0.75, "legend.edgecolor": "none",
    "svg.hashsalt": "bprune_hpc", "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip
_OF_ONE = ("ood", "layers", "snr")  # show one sweep alone, the first
_TWO_SIGMA = 1.96
_WIDTH, _HEIGHT = 3.4, 2.6  # of a panel, inches


@dataclass(frozen=True)
class Panel:
    """A part of a figure.

    Attributes
    ----------
    about : str
        What it shows, in words.
    draw : callable
        Takes axes, sweeps and the name of the horizontal axis.
    needs : str
        A metric, or GROUP/DATASET, without which it cannot be drawn.
    """

    about: str
    draw: Callable[[Any, Sequence[Swept], str], None]
    needs: str

    def is_in(self, sweep: Swept) -> bool:
        """Whether a file has what it shows."""
        group, slash, name = self.needs.partition("/")
        if not slash:
            return group in sweep.table.metrics
        return (group == "snr" and bool(sweep.snr)) or name in sweep.groups.get(group, {})


def panels_of(sweeps: Sequence[Swept], asked: Sequence[str] | None) -> list[str]:
    """Panels to draw: those asked for, or all that every file has.

    Raises
    ------
    ConfigError
        If one is unknown, or a file has not what it shows.
    """
    if asked is None:
        alone = _OF_ONE if len(sweeps) > 1 else ()
        return [
            name
            for name, panel in PANELS.items()
            if name not in alone and all(map(panel.is_in, sweeps))
        ]
    for name in asked:
        if name not in PANELS:
            raise ConfigError(f"--panels: '{name}' is none of {', '.join(PANELS)}")
        for sweep in sweeps:
            if not PANELS[name].is_in(sweep):
                raise ConfigError(
                    f"--panels: {sweep.path} has nothing for '{name}' ({PANELS[name].about}); "
                    "leave it out"
                )
    return list(asked)


def plot(path: str | Path, sweeps: Sequence[Swept], panels: Sequence[str], x: str) -> None:
    """Draw panels into one file, whose ending chooses the format.

    Parameters
    ----------
    path : path
    sweeps : sequence of Swept
    panels : sequence of str
        Of :data:`PANELS`.
    x : str
        One of :data:`AXES`.

    Raises
    ------
    ImportError
        If matplotlib is missing: ``pip install "bprune_hpc[plot]"``.
    """
    with _styled():
        figure = _figure(sweeps, panels, x)
        metadata = {"Date": None} if Path(path).suffix == ".svg" else None
        figure.savefig(path, dpi=200, metadata=metadata)


def svg(sweeps: Sequence[Swept], panel: str, x: str) -> str:
    """One panel as SVG, without a head."""
    with _styled():
        figure = _new((_WIDTH * 1.3, _HEIGHT * 1.3))
        PANELS[panel].draw(figure.add_subplot(), sweeps, x)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _styled() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            f'figures need matplotlib: pip install "bprune_hpc[plot]" ({error})'
        ) from error
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # which tells of each glyph
    return matplotlib.rc_context(_STYLE)


def _new(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _figure(sweeps: Sequence[Swept], panels: Sequence[str], x: str) -> Any:
    n_columns = min(len(panels), 2 if len(panels) <= 4 else 3)
    n_rows = math.ceil(len(panels) / n_columns)
    width = _WIDTH * n_columns
    figure = _new((width, _HEIGHT * n_rows + 0.5))
    # Each panel is laid out by itself: long names in one leave no gap in the others.
    parts = figure.subfigures(n_rows, n_columns, squeeze=False).flat
    for part, name in zip(parts, panels, strict=False):
        PANELS[name].draw(part.add_subplot(), sweeps, x)
    fault = comparison_fault(list(sweeps))
    title = sweeps[0].title if len(sweeps) == 1 else ", ".join(one.title for one in sweeps[:2])
    title = title if not fault else f"NOT COMPARABLE: {fault}"
    figure.suptitle(_wrapped(title, width, 8), fontsize=8)
    footer = f"{sweeps[0].footer}; {signs(sweeps)}"
    figure.supxlabel(_wrapped(footer, width, 6.5), fontsize=6.5, color="0.35")
    return figure


def _wrapped(text: str, width: float, font_size: float) -> str:
    """Text in lines that are as long as a figure, inches, is wide."""
    return textwrap.fill(text, int(width * 72 / (0.55 * font_size)))


def signs(sweeps: Sequence[Swept]) -> str:
    """What bands and lines without a label are."""
    has_intervals = all(
        metric.low is not None for one in sweeps for metric in list(one.table.metrics.values())[:1]
    )
    size = "95 % intervals" if has_intervals else "one standard error"
    dotted = "; dotted: chosen threshold" if any(one.chosen is not None for one in sweeps) else ""
    return (
        f"bands: {size} of draws and test set together, for changes at all thresholds together; "
        f"dashed: unpruned{dotted}"
    )


# Curves against the weights that are left


def _x_of(sweep: Swept, x: str) -> Float64Array:
    if x == "threshold":
        return np.where(np.isfinite(sweep.thresholds), sweep.thresholds, np.nan)
    return 100 * (sweep.weights_left if x == "weights_left" else sweep.table.pruned_fraction)


def _set_x(axes: Any, sweeps: Sequence[Swept], x: str) -> None:
    axes.set_xlabel({"weights_left": "weights left (%)", "fraction": "weights pruned (%)"}.get(
        x, sweeps[0].table.heading.replace(" <=", "").replace(" >=", "")
    ))  # fmt: skip
    if x == "weights_left":
        axes.set_xscale("log")
        axes.invert_xaxis()
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for sweep in sweeps:
        if sweep.chosen is not None:
            axes.axvline(_x_of(sweep, x)[sweep.chosen], color="0.4", linestyle=":", linewidth=1)


def _band(metric: Metric) -> tuple[Float64Array, Float64Array]:
    """At all thresholds together where that is known, else at each."""
    if metric.band_low is not None and metric.band_high is not None:
        return metric.band_low, metric.band_high
    if metric.low is None or metric.high is None:
        return metric.value - metric.se_combined, metric.value + metric.se_combined
    return metric.low, metric.high


def _curves(label: str, *curves: tuple[str, str]) -> Callable[[Any, Sequence[Swept], str], None]:
    """Metrics of one sweep, or the first metric of each of several."""

    def draw(axes: Any, sweeps: Sequence[Swept], x: str) -> None:
        drawn = [(sweeps[0], name, text) for name, text in curves]
        if len(sweeps) > 1:
            drawn = [(one, curves[0][0], one.label) for one in sweeps]
        for at, (sweep, name, text) in enumerate(drawn):
            metric = sweep.table.metrics.get(name)
            if metric is None:
                continue
            where, colour = _x_of(sweep, x), _COLOURS[at % len(_COLOURS)]
            order = np.argsort(where, kind="stable")
            low, high = _band(metric)
            axes.fill_between(where[order], low[order], high[order], color=colour, alpha=0.15,
                              linewidth=0)  # fmt: skip
            axes.plot(where[order], metric.value[order], color=colour,
                      marker=_MARKERS[at % len(_MARKERS)], label=text)  # fmt: skip
            if at == 0:
                axes.axhline(metric.value[0], color="0.6", linewidth=0.7, linestyle="--")
        unit = f" ({label})" if label else ""
        is_several = len(sweeps) == 1 and len(curves) > 1
        axes.set_ylabel(label if is_several else f"{curves[0][1]}{unit}")
        _set_x(axes, sweeps, x)
        if len(drawn) > 1:
            axes.legend()

    return draw


def _uncertainty(axes: Any, sweeps: Sequence[Swept], x: str) -> None:
    """Predictive entropy in its two parts."""
    if len(sweeps) > 1:
        _curves("nats", ("mutual_information", "mutual information"))(axes, sweeps, x)
        return
    sweep, metrics = sweeps[0], sweeps[0].table.metrics
    where = _x_of(sweep, x)
    order = np.argsort(where, kind="stable")
    where, expected = where[order], metrics["expected_entropy"].value[order]
    whole = metrics["predictive_entropy"]
    axes.fill_between(where, 0, expected, color=_COLOURS[0], alpha=0.3, linewidth=0,
                      label="expected entropy (data)")  # fmt: skip
    axes.fill_between(where, expected, whole.value[order], color=_COLOURS[1], alpha=0.35,
                      linewidth=0, label="mutual information (weights)")  # fmt: skip
    low, high = _band(whole)
    bars = np.maximum([whole.value - low, high - whole.value], 0)[:, order]
    axes.errorbar(where, whole.value[order], bars, color="black", marker="o", capsize=2,
                  linewidth=1, label="predictive entropy")  # fmt: skip
    axes.set_ylabel("nats")
    axes.set_ylim(bottom=0)
    _set_x(axes, sweeps, x)
    axes.legend()


def _free_energy(axes: Any, sweeps: Sequence[Swept], x: str) -> None:
    """Complexity, expected NLL and their sum; what Bayesian model reduction predicts beside it."""
    curves = [("free_energy", "free energy"), ("expected_nll", "expected NLL"),
              ("complexity", "complexity"), ("predicted", "free energy, predicted")]  # fmt: skip
    drawn = [(sweeps[0], name, text) for name, text in curves]
    if len(sweeps) > 1:
        drawn = [(one, "free_energy", one.label) for one in sweeps]
    for at, (sweep, name, text) in enumerate(drawn):
        group, colour = sweep.groups["free_energy"], _COLOURS[at % len(_COLOURS)]
        if name not in group:
            continue
        where = _x_of(sweep, x)
        order = np.argsort(where, kind="stable")
        value = group[name]
        error = _TWO_SIGMA * group.get(f"{name}_se", np.zeros_like(value))
        axes.fill_between(where[order], (value - error)[order], (value + error)[order],
                          color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        is_theory = name == "predicted"
        axes.plot(where[order], value[order], color=colour, label=text,
                  marker=None if is_theory else _MARKERS[at % len(_MARKERS)],
                  linestyle="--" if is_theory else "-")  # fmt: skip
        least = int(sweep.group_attrs["free_energy"].get("minimum", -1))
        if name == "free_energy" and least >= 0:
            axes.plot(where[least], value[least], marker="*", markersize=11, color=colour,
                      markeredgecolor="white", linestyle="none",
                      label="least free energy" if at == 0 else None)  # fmt: skip
    n_examples = sweeps[0].group_attrs["free_energy"].get("n_examples")
    of = "" if n_examples is None else f", summed over {int(n_examples):,} examples"
    axes.set_ylabel(f"nats{of}")
    _set_x(axes, sweeps, x)
    axes.legend()


# Panels at a few thresholds


def _lines_at(sweeps: Sequence[Swept]) -> list[tuple[Swept, int, str, str]]:
    """Sweep, threshold, label and colour of the lines that are drawn."""
    if len(sweeps) == 1:
        pairs = [(sweeps[0], at, sweeps[0].point(at)) for at in sweeps[0].shown]
    else:
        pairs = [
            (one, at, f"{one.label}, {one.point(at)}")
            for one in sweeps
            for at in [one.shown[-1] if one.chosen is None else one.chosen]
        ]
    return [
        (sweep, at, text, _COLOURS[n % len(_COLOURS)]) for n, (sweep, at, text) in enumerate(pairs)
    ]


def _reliability(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=0.8)
    for sweep, at, text, colour in _lines_at(sweeps):
        group = sweep.groups["calibration"]
        has = group["equal_mass_count"][at] > 0
        axes.plot(group["equal_mass_confidence"][at][has], group["equal_mass_accuracy"][at][has],
                  color=colour, marker="o", label=text)  # fmt: skip
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(right=1.02)
    axes.legend()


def _risk_coverage(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    for sweep, at, text, colour in _lines_at(sweeps):
        group = sweep.groups["risk_coverage"]
        axes.plot(100 * group["coverage"], 100 * group["risk"][at], color=colour, label=text)
    axes.set_xlabel("examples kept, surest first (%)")
    axes.set_ylabel("of them wrong (%)")
    axes.legend()


def _ood(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    sweep = sweeps[0]
    at = sweep.shown[-1] if sweep.chosen is None else sweep.chosen
    both = [finite(sweep.groups[name]["predictive_entropy"][at]) for name in ("examples", "ood")]
    edges = np.linspace(0, max(float(values.max(initial=0.1)) for values in both), 31)
    for values, text, colour in zip(
        both, ("test set", "out of distribution"), _COLOURS, strict=False
    ):
        axes.hist(values, edges, density=True, color=colour, alpha=0.45, label=text)
    axes.set_xlabel(f"predictive entropy (nats), {sweep.point(at)}")
    axes.set_ylabel("density")
    axes.legend()


def _layers(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    sweep = sweeps[0]
    shares = 100 * sweep.groups["sparsity"]["layer_pruned_fraction"].T
    image = axes.imshow(shares, aspect="auto", cmap="cividis", vmin=0, vmax=100)
    axes.grid(visible=False)
    names = [_short(name) for name in sweep.layers]
    axes.set_yticks(range(len(names)), names)
    every = max(1, math.ceil(len(sweep.table.labels) / 6))
    shown = range(0, len(sweep.table.labels), every)
    axes.set_xticks(shown, [sweep.table.labels[at] for at in shown])
    axes.set_xlabel(sweep.table.heading.replace(" <=", "").replace(" >=", ""))
    if shares.size <= 60 and shares.shape[1] <= 10:
        for (row, column), share in np.ndenumerate(shares):
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=6,
                      color="white" if share < 60 else "black")  # fmt: skip
    axes.figure.colorbar(image, ax=axes, label="weights pruned (%)")


def _snr(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    sweep = sweeps[0]
    for at, (name, (counts, edges)) in enumerate(sweep.snr.items()):
        if at < len(_COLOURS):
            axes.stairs(counts / max(1, counts.sum()), edges, color=_COLOURS[at],
                        label=_short(name))  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("|μ|/σ before pruning")
    axes.set_ylabel("share of the layer's weights")
    if sweep.config.get("criterion") == "snr" and sweep.chosen is not None:
        axes.axvline(sweep.thresholds[sweep.chosen], color="0.4", linestyle=":", linewidth=1)
    axes.legend()


def _pit(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    axes.axhline(1, color="0.6", linestyle="--", linewidth=0.8)
    for sweep, at, text, colour in _lines_at(sweeps):
        group = sweep.groups["calibration"]
        counts, edges = group["pit_count"][at], group["pit_edges"]
        density = counts / max(1, counts.sum()) / np.diff(edges)
        axes.stairs(density, edges, color=colour, label=text)
    axes.set_xlabel("probability integral transform of the targets")
    axes.set_ylabel("density")
    axes.set_ylim(bottom=0)
    axes.legend()


def _coverage(axes: Any, sweeps: Sequence[Swept], _: str) -> None:
    axes.plot([0, 100], [0, 100], color="0.6", linestyle="--", linewidth=0.8)
    levels = (50, 90, 95)
    for n, (sweep, at, text, colour) in enumerate(_lines_at(sweeps)):
        metrics = [sweep.table.metrics[f"coverage_{level}"] for level in levels]
        value = np.array([metric.value[at] for metric in metrics])
        low, high = np.array([[end[at] for end in _band(metric)] for metric in metrics]).T
        bars = np.maximum([value - low, high - value], 0)
        axes.errorbar(
            np.array(levels) + n - 1, 100 * value, 100 * bars, color=colour, marker="o",
            capsize=2, label=text,
        )  # fmt: skip
    axes.set_xlabel("central interval (%)")
    axes.set_ylabel("targets inside (%)")
    axes.set_xlim(40, 100)
    axes.set_ylim(0, 102)
    axes.legend()


def _short(name: str) -> str:
    """A layer's name without what all have."""
    parts = [part for part in name.split("/") if "posterior" not in part]
    return parts[-1] if parts else name


PANELS: dict[str, Panel] = {
    "accuracy": Panel(
        "accuracy, averaged over draws, of single draws and at the mean weights",
        _curves(
            "accuracy",
            ("accuracy", "averaged over draws"),
            ("accuracy_single_draw", "single draw"),
            ("accuracy_mean_weights", "mean weights"),
        ),
        "accuracy",
    ),
    "rmse": Panel(
        "root mean square error",
        _curves("units of the target", ("rmse", "RMSE"), ("rmse_single_draw", "single draw")),
        "rmse",
    ),
    "nll": Panel("negative log-likelihood of the labels", _curves("nats", ("nll", "NLL")), "nll"),
    "crps": Panel(
        "continuous ranked probability score",
        _curves("units of the target", ("crps", "CRPS")),
        "crps",
    ),
    "sharpness": Panel(
        "predictive standard deviation",
        _curves("units of the target", ("sharpness", "predictive sd")),
        "sharpness",
    ),
    "uncertainty": Panel(
        "predictive entropy, split into expected entropy and mutual information",
        _uncertainty,
        "mutual_information",
    ),
    "ece": Panel(
        "expected calibration error",
        _curves("", ("ece", "ECE")),
        "ece",
    ),
    "accuracy_drop": Panel(
        "change of accuracy, with a band for all thresholds together",
        _curves("", ("accuracy_drop", "drop of accuracy")),
        "accuracy_drop",
    ),
    "changes": Panel(
        "changes of likelihood and entropies, with bands for all thresholds together",
        _curves(
            "change (nats)",
            ("nll_rise", "NLL"),
            ("predictive_entropy_change", "predictive entropy"),
            ("expected_entropy_change", "expected entropy"),
            ("mutual_information_change", "mutual information"),
        ),
        "nll_rise",
    ),
    "free_energy": Panel(
        "variational free energy: complexity and expected negative log-likelihood, and their sum, "
        "as measured and as Bayesian model reduction predicts it; bands are 95 %",
        _free_energy,
        "free_energy/free_energy",
    ),
    "calibration": Panel(
        "reliability diagram, bins of equal mass", _reliability, "calibration/equal_mass_count"
    ),
    "pit": Panel("probability integral transform", _pit, "calibration/pit_count"),
    "coverage": Panel("coverage of predictive intervals against nominal", _coverage, "coverage_90"),
    "risk_coverage": Panel("risk against coverage", _risk_coverage, "risk_coverage/risk"),
    "ood": Panel(
        "entropies of the test set and out of distribution", _ood, "ood/predictive_entropy"
    ),
    "layers": Panel(
        "share of each layer that is pruned", _layers, "sparsity/layer_pruned_fraction"
    ),
    "snr": Panel("signal-to-noise ratios of each layer", _snr, "snr/counts"),
}
"""By name, in the order in which they are drawn."""
