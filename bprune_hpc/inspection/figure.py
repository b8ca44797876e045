"""The figure of a case: how the signal-to-noise ratios of each tensor are spread.

What belongs here: drawing. What does not: the numbers (``inspection.tensors``), the flags
(``inspect``).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..posterior.mean_field import Posterior
from .tensors import is_collapsed

_LOWEST_SNR = 1e-4
_BINS_PER_DECADE = 10


def check_figure(path: Path) -> None:
    """Find out before any work whether a figure can be drawn at a path.

    Raises
    ------
    ConfigError
        If matplotlib is missing, does not know the ending, or there is no such directory.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise ConfigError(
            f'--plot: figures need matplotlib: pip install "bprune_hpc[plot]" ({error})'
        ) from error
    endings = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in endings:
        raise ConfigError(f"--plot: '{path}' is not a figure file; end it in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot: {path.parent}: no such directory; make it first")


def plot(path: Path, posterior: Posterior, prior_scale: float) -> None:
    """Draw the histogram of SNR of each mean-field tensor, collapsed weights set apart.

    Weights with an SNR outside the axis, 0 and infinity included, are in its end bins.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    ratios = {name: ratio.ravel() for name, ratio in posterior.snr().items() if ratio.size}
    edges = _edges(np.concatenate(list(ratios.values())))
    n_columns = 1 if len(ratios) <= 4 else 2 if len(ratios) <= 16 else 3
    n_rows = -(-len(ratios) // n_columns)
    figure = Figure(figsize=(6.4 * n_columns**0.5, 1.2 + 1.3 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
    for axes in panels.flat[len(ratios) :]:
        axes.set_axis_off()
    for axes, (name, ratio) in zip(panels.flat, ratios.items(), strict=False):
        collapsed = is_collapsed(posterior.loc[name], posterior.scale[name], prior_scale).ravel()
        clipped = np.clip(ratio, edges[0], edges[-1])
        # Outlines, since a patch for each bar takes seconds for a network of many layers.
        axes.stairs(np.histogram(clipped, edges)[0], edges, fill=True, color="C0", label="others")
        axes.stairs(
            np.histogram(clipped[collapsed], edges)[0], edges,
            fill=True, color="0.7", label="collapsed to the prior",
        )  # fmt: skip
        median = float(np.quantile(ratio, 0.5, method="inverted_cdf"))
        axes.axvline(float(np.clip(median, edges[0], edges[-1])), color="C3", label="median")
        axes.set_title(f"{name}  ({ratio.size:,} weights)", fontsize=8, loc="left")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        axes.set_xlim(edges[0], edges[-1])
    figure.legend(
        *panels.flat[0].get_legend_handles_labels(),
        loc="outside upper center", ncols=3, frameon=False, fontsize=8,
    )  # fmt: skip
    figure.supxlabel(
        f"signal-to-noise ratio |loc| / scale (first bin: {edges[1]:.2g} and below)", fontsize=9
    )
    figure.supylabel("weights in a bin", fontsize=9)
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); choose another --plot"
        ) from error


def _edges(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins of equal width in the logarithm; the lowest half per cent may lie below them."""
    known = ratios[np.isfinite(ratios) & (ratios > 0)]
    if not known.size:
        return np.logspace(-1, 1, 2 * _BINS_PER_DECADE + 1)
    low = math.floor(math.log10(max(float(np.quantile(known, 0.005)), _LOWEST_SNR)))
    high = max(math.ceil(math.log10(float(known.max()))), low + 1)
    return np.logspace(low, high, _BINS_PER_DECADE * (high - low) + 1)
