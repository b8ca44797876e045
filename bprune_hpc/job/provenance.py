"""What numbers rest on, and where they were made: facts by name, compared in words.

Two runs of one identity can be one: a resume compares. The environment changes the last bits only;
where it has changed, a file says so. What defines a sweep's numbers does not belong here
(``results.identity``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..mpi.comm import Comm
from .device import PROCESSORS
from .environment import BIT_VARIABLES, cpu_model, variables, versions

Identity = dict[str, Any]
"""What defines the numbers, by name: what JSON can hold, digests of what is large."""

Environment = dict[str, list[str]]
"""Every value that each fact of the environment has had, sorted."""

_NAMES = {
    "graph": "network graph",
    "pruned_weights": "--pruned_weights",
    "output_kind": "outputs that are",
    "grid": "a grid of",
    "draw_noise": "--draw_noise",
}
_CHOICES = ("layout", "input_scale", "x_key", "y_key", "target_columns", "first_label")
"""Flags that are part of an identity only where they are not at their defaults."""
SHARED_NOISE = "shared"
"""Noise of draws in a file that does not say which: older ones, and those without noise by block or
example."""
_FAULTS = {
    ("evaluator", "channels"): "channels, which left out channels that were not zero, so that its "
    "numbers may be wrong",
    **{
        ("evaluator", name): f"{name}, which left out neurons that constants alone feed, where "
        "dense layers are added: numbers of such networks may be wrong"
        for name in ("layers", "layers-2")
    },
}
"""Why what stood under a name is not used any more, in place of what it was."""
_OF_CPU = PROCESSORS.facts
_PACKAGES = ("bprune_hpc", "tensorflow", "numpy", "scipy")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words: ``seed 1, now 2``."""
    return [
        f"{_name_of(name)} {fault_of(before, name) or _short(before.get(name), name)}, "
        f"now {_short(now.get(name), name)}"
        for name in dict.fromkeys([*now, *before])
        if before.get(name) != now.get(name)
    ]


def fault_of(identity: Mapping[str, Any], name: str) -> str:
    """What is known to be wrong with numbers of an identity; empty where nothing is."""
    value = identity.get(name)
    return _FAULTS.get((name, value), "") if isinstance(value, str) else ""


def environment_of(
    comm: Comm, n_intra: int, n_inter: int, of_device: Mapping[str, str] = MappingProxyType({})
) -> Environment:
    """Where this job computes; every rank calls this.

    Parameters
    ----------
    of_device : mapping of str to str
        Facts of this rank's GPU, if it has one.

    Returns
    -------
    Environment
        Whole on rank 0 only.
    """
    mine = {
        "cpu": cpu_model(),
        "num_intra": str(n_intra),
        "num_inter": str(n_inter),
        **versions(_PACKAGES),
        **variables(BIT_VARIABLES),
        **of_device,
    }
    del mine["python"]
    everyone = comm.gather(mine) or [mine]
    return union([{name: [value] for name, value in one.items()} for one in everyone])


def union(environments: Sequence[Mapping[str, Sequence[str]]]) -> Environment:
    """Every value of each fact; what is missing in one of them has the value "unset" there.

    What an environment does not say of a device is that of processors.
    """
    names = sorted({name for one in environments for name in one})
    without = {name: [_OF_CPU.get(name, "unset")] for name in names}
    return {
        name: sorted({value for one in environments for value in one.get(name, without[name])})
        for name in names
    }


def mixture(environment: Environment) -> str:
    """Facts that were not the same for all of the work, in words; empty where all were."""
    return "; ".join(
        f"{name} {', '.join(values)}" for name, values in environment.items() if len(values) > 1
    )


def _name_of(name: str) -> str:
    return f"--{name}" if name in _CHOICES else _NAMES.get(name, name)


def _short(value: Any, name: str) -> str:
    if value is None and name in _CHOICES:
        return "at its default"
    if value is None and name == "draw_noise":
        return SHARED_NOISE
    if isinstance(value, str):
        return f"{value[:19]}…" if value.startswith("sha256 ") else value
    return "none" if value is None else f"{value}"
