"""Processors of this host that stand for GPUs: TensorFlow divides it into logical devices.

What a GPU does with the operations is not shown by them; that they are put on the device, by whom,
and what is made of the outputs is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bprune_hpc import tensorflow_import as door
from bprune_hpc.job import device


class LogicalDevice(door.Device):
    """The second logical device of the host's processors."""

    @property
    def name(self) -> str:
        return "/device:CPU:1"

    def set_in(self, config: Any) -> None:
        door.CPU.set_in(config)
        config.device_count["CPU"] = 2


def install(
    names: Sequence[str] = ("stand-in", "stand-in", "stand-in"),
    set_attribute: Callable[[object, str, object], None] = setattr,
) -> None:
    """Have ranks see GPUs of these names in this process."""

    def description_of(taken: door.Device) -> str:
        return f"device: 0, name: stand-in, pci bus id: {taken.gpu}, compute capability: 1.0"

    set_attribute(device, "Device", LogicalDevice)
    set_attribute(device, "gpus", lambda: list(names))
    set_attribute(device, "description_of", description_of)
