"""The grammar of a sweep's grid: ``0,0.1,0.5``, ``START:STOP:COUNT[:log]``, ``auto:N``, ``none``.

Text in, thresholds or fractions out, in the order in which more and more is pruned.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigError
from .criteria import CRITERIA, Criterion

DEFAULT_THRESHOLDS = {"snr": "0,0.1,0.25,0.5,1,2,3,5"}
DEFAULT_OF_OTHERS = "auto:10"
_FLAGS = {"threshold": "--thresholds", "fraction": "--prune_fractions"}

MAX_COUNT = 10_000
"""Values that a range may have."""


def read_grid(
    text: str | None, kind: str, criterion: str = "snr", flag: str | None = None
) -> tuple[str, tuple[float, ...]]:
    """The grid that a user asks for.

    Parameters
    ----------
    text : str or None
        What :func:`parse_grid` takes, or ``auto:N`` for N fractions in equal steps;
        None for the criterion's default.
    kind : {"threshold", "fraction"}
        Of the flag that has the text.
    criterion : str
    flag : str, optional
        For messages, where it is not the usual one of its kind.

    Returns
    -------
    str
        Kind of the grid: ``auto:N`` is one of fractions, 0 to (N - 1) / N.
    tuple of float

    Raises
    ------
    ConfigError
        If the text is none of these, or a value is not in range.
    """
    if text is None:
        kind, text = "threshold", DEFAULT_THRESHOLDS.get(criterion, DEFAULT_OF_OTHERS)
    name, _, count = text.strip().partition(":")
    if name != "auto":
        return kind, parse_grid(text, kind, criterion, flag)
    if not (count.isdecimal() and int(count) > 0):
        flag = flag or _FLAGS[kind]
        raise ConfigError(f"{flag}: '{text}' is not auto:N with N at least 1")
    return "fraction", tuple(index / int(count) for index in range(int(count)))


def parse_grid(
    text: str, kind: str, criterion: str = "snr", flag: str | None = None
) -> tuple[float, ...]:
    """Thresholds or fractions from ``0,0.1,0.5`` or ``START:STOP:COUNT[:log]``.

    Parameters
    ----------
    text : str
        A list, or a range with both ends included, evenly spaced (in the logarithm with
        ``log``). ``none`` in a list of thresholds stands for the unpruned network.
    kind : {"threshold", "fraction"}
        Thresholds are finite, and not negative where no score is; fractions are in [0, 1).
    criterion : str
        Whose thresholds.
    flag : str, optional
        As for :func:`read_grid`.

    Returns
    -------
    tuple of float
        Without repeats, from the least that is pruned to the most: ascending, but for thresholds
        beyond which weights are pruned from above.

    Raises
    ------
    ConfigError
        If the list is empty or a value is not in range.
    """
    flag, chosen = flag or _FLAGS[kind], CRITERIA[criterion]
    values = _values(text, flag, unpruned(kind, chosen))
    if not values:
        raise ConfigError(f"{flag}: the list is empty; give at least one value")
    signed = kind == "threshold" and chosen.signed
    for value in values:
        if not is_allowed(value, kind, chosen):
            allowed = "at least 0 and below 1" if kind == "fraction" else "finite and not negative"
            allowed = "finite, or none for the unpruned network" if signed else allowed
            raise ConfigError(f"{flag}: {value:g} is not allowed; values are {allowed}")
    descending = kind == "threshold" and chosen.keeps == "below"
    return tuple(sorted(set(values), reverse=descending))


def unpruned(kind: str, criterion: Criterion) -> float:
    """The value of a grid of thresholds, or fractions, that prunes nothing, by definition."""
    return 0.0 if kind == "fraction" else criterion.unpruned


def is_allowed(value: float, kind: str, criterion: Criterion) -> bool:
    """Whether a grid of thresholds, or fractions, may have a value."""
    if kind == "fraction":
        return 0 <= value < 1
    is_in_range = math.isfinite(value) and (criterion.signed or value >= 0)
    return is_in_range or value == criterion.unpruned


def _values(text: str, flag: str, none: float) -> list[float]:
    try:
        if ":" in text:
            start, stop, count, *spacing = text.split(":")
            if spacing not in ([], ["log"]):
                raise ConfigError(f"{flag}: '{text}' is not START:STOP:COUNT[:log]")
            if not 1 <= int(count) <= MAX_COUNT:
                raise ConfigError(f"{flag}: '{text}': COUNT is 1 to {MAX_COUNT}")
            if not (math.isfinite(float(start)) and math.isfinite(float(stop))):
                raise ConfigError(f"{flag}: '{text}': START and STOP are finite")
            if spacing and min(float(start), float(stop)) <= 0:
                raise ConfigError(f"{flag}: '{text}': a log range starts above 0")
            space = np.geomspace if spacing else np.linspace
            return [float(value) for value in space(float(start), float(stop), int(count))]
        items = [item.strip() for item in text.split(",") if item.strip()]
        return [none if item == "none" else float(item) for item in items]
    except ValueError as error:
        raise ConfigError(
            f"{flag}: '{text}' is neither numbers with commas nor START:STOP:COUNT[:log]"
        ) from error
