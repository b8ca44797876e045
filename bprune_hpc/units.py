"""What is pruned as a whole: single weights, dense units or filters, and what goes with them.

Pure. How units are scored stands in ``criteria``, which of them go in ``pruning``.
"""

from __future__ import annotations

from .errors import ConfigError
from .posterior import Posterior

GRANULARITIES = ("weight", "neuron", "filter")

_KERNELS = {
    "neuron": "dense kernel (one of two axes)",
    "filter": "convolution kernel (one of three axes or more)",
}


def tensors_of_units(posterior: Posterior, granularity: str) -> dict[str, str | None]:
    """Name of the tensor whose units each mean-field tensor follows when it is pruned.

    A kernel follows itself. A vector follows the one kernel beside it (the same name up to the
    last ``/``) that has as many units. All else is left alone: None.

    Raises
    ------
    ConfigError
        If the network has no kernel of the granularity asked for.
    """
    if granularity == "weight":
        return {name: name for name in posterior.names}
    shape = {name: loc.shape for name, loc in posterior.loc.items()}
    kernels = [
        name
        for name in posterior.names
        if (len(shape[name]) == 2 if granularity == "neuron" else len(shape[name]) > 2)
    ]
    if not kernels:
        raise ConfigError(
            f"--granularity={granularity}: the network has no mean-field {_KERNELS[granularity]}; "
            "choose another granularity"
        )
    owner: dict[str, str | None] = {}
    for name in posterior.names:
        beside = [
            kernel
            for kernel in kernels
            if kernel.rpartition("/")[0] == name.rpartition("/")[0]
            and shape[kernel][-1:] == shape[name]
        ]
        owner[name] = name if name in kernels else beside[0] if len(beside) == 1 else None
    return owner
