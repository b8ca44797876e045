"""What every format has to do: write a pruned network, and open it again.

What belongs here: the interface alone. What does not: which formats there are
(``formats.selection``), what they get (``formats.pruned_network``), the numbers that a written
network is compared with (``formats.reference``), how a directory is put in its place
(``formats.writing``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ..graph.layer_graph import Activation, Operation
from .pruned_network import PrunedNetwork
from .reference import Reference


class UnknownLayerError(Exception):
    """A format does not know an operation of a graph of layers.

    Parameters
    ----------
    operation : Operation
    """

    def __init__(self, operation: Operation) -> None:
        name = operation.function if isinstance(operation, Activation) else type(operation).__name__
        super().__init__(
            f"it has a layer '{name}', which this format has not; checkpoint and savedmodel take "
            "any network"
        )


class Format(Protocol):
    """A form in which a pruned network is written.

    Attributes
    ----------
    name : str
        As it is asked for.
    place : str
        File or directory that it writes, below the directory of the export.
    """

    name: str
    place: str

    def why_not(self, network: PrunedNetwork) -> str | None:
        """Why the network cannot be written so: which operation, and which format can.

        Asked of all formats before anything is written; None where it can.
        """

    def write(self, network: PrunedNetwork, directory: Path) -> None:
        """Write it: ``directory / self.place``, and nothing else.

        Raises
        ------
        UnknownLayerError
            Of an operation that ``why_not`` does not see.
        """

    def check(
        self, network: PrunedNetwork, directory: Path, reference: Reference
    ) -> dict[str, Any]:
        """Open what was written in the format's own runtime, and compare its numbers.

        Returns
        -------
        dict
            For the model card, of what JSON can hold: what was compared and how far it was off.

        Raises
        ------
        ExportError
            If they are not the network's; see :func:`bprune_hpc.formats.reference.compare`.
        """
