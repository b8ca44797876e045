"""What is in a case, in numbers: one row for each tensor, and totals.

What belongs here: statistics of arrays, arrays in and numbers out. What does not: files, text,
figures (``inspection.text``), the command (``inspect``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..posterior.mean_field import Posterior, snr

COLLAPSED_BELOW_NATS = 0.01
"""KL divergence to the prior below which a weight's posterior counts as collapsed to it."""

SNR_QUANTILES = (0.05, 0.5, 0.95)
KINDS = ("mean-field", "fixed", "stripped")


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a case; what does not apply to its kind is None.

    Attributes
    ----------
    name : str
        As the checkpoint has it.
    kind : {"mean-field", "fixed", "stripped"}
        With a posterior; deterministic and read by the network; not read by it.
    shape : tuple of int
    dtype : str
    n_values : int
    n_bytes : int or None
        Of ``loc`` and ``scale`` together where the tensor has a posterior; None where a value has
        no fixed size (text).
    mean_abs_loc : float or None
        Mean of \\|loc\\|, of \\|value\\| for a fixed tensor.
    median_scale : float or None
    snr_quantiles : dict of float to float, or None
        By :data:`SNR_QUANTILES`: the smallest SNR that at least this share of the weights is at
        or below, so that pruning there removes at least this share. Infinite where the scale is 0.
    kl : float or None
        KL divergence of all the tensor's weights from the prior, nats.
    collapsed_fraction : float or None
        Share of the weights with less than :data:`COLLAPSED_BELOW_NATS` of it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    n_values: int
    n_bytes: int | None
    mean_abs_loc: float | None = None
    median_scale: float | None = None
    snr_quantiles: dict[float, float] | None = None
    kl: float | None = None
    collapsed_fraction: float | None = None


@dataclass(frozen=True)
class Total:
    """All tensors of one kind; ``n_bytes`` leaves out those that have no fixed size."""

    n_tensors: int
    n_values: int
    n_bytes: int


def kl_to_prior(loc: ArrayLike, scale: ArrayLike, prior_scale: float) -> NDArray[np.float64]:
    """KL divergence of each weight's posterior N(loc, scale²) from its prior N(0, prior_scale²).

    Parameters
    ----------
    loc, scale : float array, any shape (the same)
    prior_scale : float
        Positive.

    Returns
    -------
    float64 array, same shape; nats. Infinite where ``scale`` is 0.
    """
    mean = np.asarray(loc, np.float64) / prior_scale
    deviation = np.asarray(scale, np.float64) / prior_scale
    with np.errstate(divide="ignore"):
        return (deviation**2 + mean**2 - 1) / 2 - np.log(deviation)


def is_collapsed(loc: ArrayLike, scale: ArrayLike, prior_scale: float) -> NDArray[np.bool_]:
    """Whether each weight's posterior is the prior again, up to 0.01 nats.

    Such a weight has \\|loc\\| below 0.14 prior scales and a scale within about 10 % of the
    prior's, so the data have told next to nothing about it; its SNR is below 0.15.

    References
    ----------
    B. Trippe and R. Turner, "Overpruning in variational Bayesian neural networks",
    arXiv:1801.06230, 2018: variational inference gives up whole units by returning their weights
    to the prior. The rule here looks at each weight alone, and the limit is this project's.
    """
    return kl_to_prior(loc, scale, prior_scale) < COLLAPSED_BELOW_NATS


def tensor_rows(
    posterior: Posterior,
    fixed: Mapping[str, NDArray[Any]],
    stripped: Mapping[str, tuple[tuple[int, ...], str]],
    prior_scale: float,
) -> list[TensorRow]:
    """One row for each tensor: mean-field, then fixed, then stripped.

    Parameters
    ----------
    posterior : Posterior
    fixed : mapping of str to array
        Deterministic tensors that the network reads.
    stripped : mapping of str to (tuple of int, str)
        Shape and type of what the network does not read.
    prior_scale : float
        Standard deviation of the prior N(0, prior_scale²) of every weight.
    """
    rows = [
        _mean_field(name, posterior.loc[name], posterior.scale[name], prior_scale)
        for name in posterior.names
    ]
    for name, value in fixed.items():
        mean = None
        if np.issubdtype(value.dtype, np.inexact) and value.size:
            mean = float(np.abs(value.astype(np.float64)).mean())
        rows.append(
            TensorRow(name, "fixed", value.shape, value.dtype.name, value.size, value.nbytes, mean)
        )
    for name, (shape, dtype) in stripped.items():
        n_values = int(np.prod(shape, dtype=np.int64))
        width = _width(dtype)
        n_bytes = None if width is None else n_values * width
        rows.append(TensorRow(name, "stripped", shape, dtype, n_values, n_bytes))
    return rows


def totals(rows: Iterable[TensorRow]) -> dict[str, Total]:
    """Number of tensors, values and bytes of each of :data:`KINDS`."""
    by_kind: dict[str, list[TensorRow]] = {kind: [] for kind in KINDS}
    for row in rows:
        by_kind[row.kind].append(row)
    return {
        kind: Total(len(found), sum(r.n_values for r in found), sum(r.n_bytes or 0 for r in found))
        for kind, found in by_kind.items()
    }


def collapsed_fraction(rows: Iterable[TensorRow]) -> float:
    """Share of all weights with a posterior that have collapsed to the prior."""
    found = [row for row in rows if row.collapsed_fraction is not None]
    n_weights = sum(row.n_values for row in found)
    n_collapsed = sum((row.collapsed_fraction or 0.0) * row.n_values for row in found)
    return n_collapsed / n_weights if n_weights else 0.0


def _mean_field(
    name: str, loc: NDArray[np.float32], scale: NDArray[np.float32], prior_scale: float
) -> TensorRow:
    row = TensorRow(
        name, "mean-field", loc.shape, loc.dtype.name, loc.size, loc.nbytes + scale.nbytes
    )
    if not loc.size:
        return row
    # An order statistic, since a mean of two neighbours has no value when one is infinite.
    quantiles = np.quantile(snr(loc, scale), SNR_QUANTILES, method="inverted_cdf")
    return TensorRow(
        **{
            **vars(row),
            "mean_abs_loc": float(np.abs(loc.astype(np.float64)).mean()),
            "median_scale": float(np.median(scale.astype(np.float64))),
            "snr_quantiles": dict(zip(SNR_QUANTILES, quantiles.tolist(), strict=True)),
            "kl": float(kl_to_prior(loc, scale, prior_scale).sum()),
            "collapsed_fraction": float(is_collapsed(loc, scale, prior_scale).mean()),
        }
    )


def _width(dtype: str) -> int | None:
    if dtype == "bfloat16":  # not a type of NumPy's own
        return 2
    try:
        width = np.dtype(dtype).itemsize
    except TypeError:
        return None
    return None if np.dtype(dtype).kind in "OSU" else width
