"""One threshold of a results file: which one is meant, and all that the file knows of it.

What belongs here: finding and reading it. What does not: the table of all of them
(``results.table``), the choice (``results.choice``).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config.sweep_config import SweepConfig, from_json
from ..errors import ConfigError, InputError, ResultsError
from ..job.provenance import SHARED_NOISE, Identity, differences
from ..posterior.pruning import PruningMask
from ..runner.network import Network
from .file import STATE, open_results
from .identity import network_identity
from .saved_state import as_written, json_of

_FORMS = "choice, index=K, threshold=X or fraction=F"


@dataclass(frozen=True)
class SweptThreshold:
    """A threshold of a results file.

    Attributes
    ----------
    path : str
        Of the file.
    sha256 : str
        Of the file.
    status : {"complete", "partial"}
    config : SweepConfig
        Of network, data and pruning; its grid is not that of the file.
    identity : Identity
    index : int
    grid_kind : {"threshold", "fraction"}
    value : float
        The threshold or the fraction.
    n_active : int
        Weights left.
    metrics : mapping of str to (float, float, float)
        Value, Monte Carlo error and test-set error of each; NaN where there is none.
    n_draws, n_examples : int
    choice : str
        The sentence of the choice, where it is this one; else empty.
    class_names : tuple of str or None
    """

    path: str
    sha256: str
    status: str
    config: SweepConfig
    identity: Identity
    index: int
    grid_kind: str
    value: float
    n_active: int
    metrics: Mapping[str, tuple[float, float, float]]
    n_draws: int
    n_examples: int
    choice: str
    class_names: tuple[str, ...] | None

    @property
    def draw_noise(self) -> tuple[str, int]:
        """Which examples shared the noise of a draw, and how many by block (else 0)."""
        kind, _, block = self.identity.get("draw_noise", SHARED_NOISE).partition(" of ")
        return kind, int(block or 0)

    @contextlib.contextmanager
    def asks(self, taken: Collection[str] = ()) -> Iterator[None]:
        """Do what :attr:`config` asks for: a message that names its flags says whose they are.

        Parameters
        ----------
        taken : collection of str
            Flags that the command takes itself.

        Raises
        ------
        InputError
            What was raised.
        """
        try:
            yield
        except InputError as error:
            if not set(re.findall(r"--\w+", str(error))) - set(taken):
                raise
            raise type(error)(f"{error} (flags of the sweep that made {self.path})") from error

    def check_network(self, network: Network, flag: str) -> None:
        """Refuse a network that is not the one that was swept.

        Parameters
        ----------
        flag : str
            By which it can be named.

        Raises
        ------
        ResultsError
            Naming what differs.
        """
        now = network_identity(network)
        before = {name: self.identity.get(name) for name in now}
        if changes := differences(before, now):
            raise ResultsError(
                f"{self.path}: was made with {'; with '.join(changes)}: {network.checkpoint} is "
                f"not what was swept; sweep it, or name the case as it was with {flag}"
            )

    def check_mask(self, mask: PruningMask) -> None:
        """Refuse a mask, made anew by the sweep's rule, of which other weights are left.

        Raises
        ------
        ResultsError
        """
        if mask.n_active != self.n_active:
            raise ResultsError(
                f"{self.path}: says that {self.n_active} weights stay, and the same rule leaves "
                f"{mask.n_active}; sweep again"
            )


def read_threshold(path: str, at: str) -> SweptThreshold:
    """Read what a results file knows of one threshold.

    Parameters
    ----------
    at : str
        ``choice``, ``index=K``, ``threshold=X`` or ``fraction=F``.

    Raises
    ------
    ConfigError
        If ``at`` is none of these.
    ResultsError
        If the file is damaged, has no such threshold, or outputs were not finite there.
    """
    with open_results(path) as file, as_written(path):
        if STATE not in file or "sparsity" not in file:
            raise ResultsError(f"{path}: is not a complete results file of a sweep; sweep again")
        index = _index(path, file, at)
        failure = _text(file["failure"][index]) if "failure" in file else ""
        if failure:
            raise ResultsError(f"{path}: threshold {index} failed: {failure}; choose another --at")
        fraction = float(file["requested_fraction"][index])
        kind = "threshold" if math.isnan(fraction) else "fraction"
        choice = file["choice"].attrs if "choice" in file else {}
        names = file["class"].attrs.get("names") if "class" in file else None
        return SweptThreshold(
            path=path,
            sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            status=str(file.attrs["status"]),
            config=from_json(file.attrs["config"]),
            identity=json_of(file[STATE].attrs["identity"], dict),
            index=index,
            grid_kind=kind,
            value=float(file["threshold"][index]) if kind == "threshold" else fraction,
            n_active=int(file["sparsity/n_active"][index]),
            metrics=_metrics(file["metrics"], index),
            n_draws=int(file.attrs["n_draws"]),
            n_examples=int(file.attrs["n_examples"]),
            choice=str(choice["text"]) if int(choice.get("index", -1)) == index else "",
            class_names=None if names is None else tuple(_text(name) for name in names),
        )


def _index(path: str, file: Any, at: str) -> int:
    name, equals, text = at.partition("=")
    thresholds, fractions = file["threshold"][()], file["requested_fraction"][()]
    if at == "choice":
        return _chosen(path, file)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not equals or name not in ("index", "threshold", "fraction") or math.isnan(value):
        raise ConfigError(f"--at: '{at}' is none of {_FORMS}")
    if name == "index":
        if value != int(value) or not -len(thresholds) <= value < len(thresholds):
            raise ConfigError(f"--at: {path} has indices 0 to {len(thresholds) - 1}, not {text}")
        return int(value) % len(thresholds)
    is_share = name == "fraction"
    points = fractions if is_share else thresholds
    is_of_kind = not np.isnan(fractions).any()
    found = np.flatnonzero(np.isclose(points, value, rtol=1e-9, atol=0) | (points == value))
    if is_of_kind != is_share or not len(found):
        kind = "fraction" if is_of_kind else "threshold"
        listed = ", ".join(
            f"{point:g}" for point in (fractions if is_of_kind else thresholds).tolist()
        )
        raise ConfigError(
            f"--at: {path} has no {name} {text}; it has {kind} {listed}; name one of these, or "
            "sweep that too"
        )
    return int(found[0])


def _chosen(path: str, file: Any) -> int:
    if "choice" not in file:
        raise ConfigError(
            f"--at: {path} has no choice; sweep with --max_accuracy_drop, --max_nll_rise or "
            "--choose=free_energy, or pass --at=threshold=X"
        )
    attrs = file["choice"].attrs
    if int(attrs["index"]) < 0:
        raise ConfigError(f"--at: {path}: there is no network to give: {_text(attrs['text'])}")
    return int(attrs["index"])


def _metrics(group: Any, index: int) -> dict[str, tuple[float, float, float]]:
    found = {}
    for name, item in group.items():
        is_number = item.ndim == 1 and item.dtype.kind == "f" and len(item) > index
        if not is_number or name.endswith(("_se", "_se_data")) or f"{name}_se_data" not in group:
            continue
        errors = [
            float(group[key][index]) if key in group else math.nan
            for key in (f"{name}_se", f"{name}_se_data")
        ]
        found[name] = (float(item[index]), errors[0], errors[1])
    return found


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
