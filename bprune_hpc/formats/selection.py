"""Which formats there are, and which of them a network can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ConfigError
from .bundle import Bundle
from .checkpoint import Checkpoint
from .interface import Format
from .onnx import Onnx
from .pruned_network import PrunedNetwork
from .saved_model import SavedModel
from .tflite import Tflite

FORMATS: Mapping[str, Format] = {
    one.name: one for one in (Checkpoint(), Bundle(), SavedModel(), Onnx(), Tflite())
}
"""By name, in the order in which they are written."""
DEFAULT: tuple[str, ...] = ("checkpoint", "bundle")


def read_formats(names: Sequence[str]) -> list[Format]:
    """Formats by their names, each once.

    Raises
    ------
    ConfigError
        If one is unknown.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        what = f"'{unknown[0]}' is none of" if unknown else "name at least one of"
        raise ConfigError(f"--formats: {what} {', '.join(FORMATS)}")
    return [one for name, one in FORMATS.items() if name in names]


def check_possible(network: PrunedNetwork, formats: Sequence[Format]) -> None:
    """Refuse what cannot be written, before anything is.

    Raises
    ------
    ConfigError
        Naming the first format that the network cannot take, and why.
    """
    if network.mask.pruned_scale:
        raise ConfigError(
            "--pruned_weights=bprune: leaves pruned weights as noise, which no format takes; "
            "sweep again without it"
        )
    for one in formats:
        why = one.why_not(network)
        if why is not None:
            raise ConfigError(f"--formats={one.name}: {network.source.path}: {why}")
