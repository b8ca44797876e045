"""Which GPU a rank takes, or none: one for each rank of a host, and never one for two.

What belongs here: what ranks see of GPUs, who takes which, what is recorded of it. What does not:
TensorFlow (``tensorflow_import``), what runs on a GPU (``evaluators``).

A launcher that binds GPUs to ranks shows each one its own, under the same number on all of them;
one that does not shows all of a host's to each. So the number alone does not tell whether two ranks
share one: after each has taken its own into use, the addresses are compared.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, message_of
from ..mpi.comm import Comm
from ..mpi.launchers import local_rank
from ..tensorflow_import import CPU, Device, description_of, gpus, keep_digits

DEVICES = ("cpu", "gpu")

_DRIVERS = ("proc/driver/nvidia/version", "sys/module/amdgpu/version")
_VERSION = re.compile(r"\d+(\.\d+)+")
_MIG = "MIG-"  # begins the name of a part of a GPU, which has the address of the whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsedDevice:
    """What a rank's evaluator runs on, and what is recorded of it.

    Attributes
    ----------
    device : Device
    name : str
        ``cpu``; of a GPU its name and compute capability.
    driver : str
        Version of the GPU's driver.
    """

    device: Device = CPU
    name: str = "cpu"
    driver: str = "none"

    @property
    def facts(self) -> dict[str, str]:
        """For ``/run``."""
        return {"device": self.name, "driver": self.driver}

    @property
    def environment(self) -> dict[str, str]:
        """What last bits depend on; nothing of processors, whose type is recorded anyway."""
        return {} if self.device == CPU else self.facts


PROCESSORS = UsedDevice()


@dataclass(frozen=True)
class Sight:
    """What one rank sees before any GPU is in use.

    Attributes
    ----------
    local_rank : int or None
        Among the ranks of its host, as its launcher says.
    gpus : tuple of str
        Names.
    failure : str
        Why it sees none; empty if it does.
    """

    host: str
    local_rank: int | None
    gpus: tuple[str, ...]
    failure: str = ""


def take(kind: str, comm: Comm) -> UsedDevice:
    """Take a GPU into use on each rank, or none; every rank calls this.

    Parameters
    ----------
    kind : str
        One of :data:`DEVICES`.

    Raises
    ------
    EndedByRoot
        With rank 0's ConfigError, if a rank has no GPU for itself.
    """
    if kind == "cpu":
        return PROCESSORS
    sights = comm.gather(_look())
    device = Device(comm.from_root(lambda: places(sights or []))[comm.rank])
    description, failure = "", ""
    try:
        description = description_of(device)
    except Exception as error:  # whatever its libraries say
        failure = message_of(error)
    host = socket.gethostname()
    everyone = comm.gather((host, address_in(description), failure))
    comm.from_root(lambda: check_apart(everyone or []))
    keep_digits()
    used = UsedDevice(device, name_in(description), driver())
    names = comm.gather(used.name)
    if names is not None:
        said = ", ".join(f"{n} x {name}" for name, n in Counter(names).items())
        logger.info("the network runs on %s, one GPU a rank, driver %s", said, used.driver)
    return used


def _look() -> Sight:
    failure, found = "", list[str]()
    try:
        found = gpus()
    except Exception as error:  # whatever its libraries say
        failure = message_of(error)
    return Sight(socket.gethostname(), local_rank(), tuple(found), failure)


def places(sights: Sequence[Sight]) -> list[int]:
    """Which of the GPUs that it sees each rank takes: the only one, or that of its local rank.

    Parameters
    ----------
    sights : sequence of Sight
        One a rank.

    Raises
    ------
    ConfigError
        If a rank sees none, or ranks of a host outnumber those that they see.
    """
    found = []
    on_host: Counter[str] = Counter()
    n_ranks = Counter(sight.host for sight in sights)
    for rank, sight in enumerate(sights):
        n_gpus = len(sight.gpus)
        if not n_gpus:
            why = sight.failure or (
                "is it a node with GPUs, were they asked for, and can this TensorFlow use them "
                "(pip install 'tensorflow[and-cuda]')?"
            )
            raise ConfigError(
                f"--device=gpu: TensorFlow sees no GPU on {sight.host} (rank {rank}): {why}"
            )
        local = on_host[sight.host] if sight.local_rank is None else sight.local_rank
        on_host[sight.host] += 1
        if n_gpus > 1 and local >= n_gpus:
            raise ConfigError(
                f"--device=gpu: {n_ranks[sight.host]} ranks on {sight.host}, which has {n_gpus} "
                "GPUs for them; start one rank a GPU"
            )
        found.append(0 if n_gpus == 1 else local)
    return found


def check_apart(found: Sequence[tuple[str, str, str]]) -> None:
    """Raise ConfigError where a GPU cannot be used, or two ranks have the same.

    Parameters
    ----------
    found : sequence of (host, address, failure)
        One a rank.
    """
    taken: dict[tuple[str, str], int] = {}
    for rank, (host, address, failure) in enumerate(found):
        if failure:
            raise ConfigError(
                f"--device=gpu: the GPU of rank {rank} on {host} cannot be used: {failure}"
            )
        other = taken.setdefault((host, address), rank)
        if other != rank:
            raise ConfigError(
                f"--device=gpu: ranks {other} and {rank} on {host} have the same GPU ({address}); "
                "start one rank a GPU, or have the launcher give each its own (--gpus-per-task=1)"
            )


def address_in(description: str) -> str:
    """What tells a GPU from the others of its host, of what TensorFlow says of it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    part = f", {visible}" if visible.startswith(_MIG) else ""
    return description.partition("pci bus id: ")[2].partition(",")[0] + part


def name_in(description: str) -> str:
    """Name and compute capability, without what differs between GPUs of one type."""
    words = description.split(", ")
    kept = [one.removeprefix("name: ") for one in words if not one.startswith(("device:", "pci"))]
    return ", ".join(kept) or "unknown"


def driver(root: str | Path = "/") -> str:
    """Version of the driver that is loaded."""
    for name in _DRIVERS:
        try:
            found = _VERSION.search(Path(root, name).read_text())
        except OSError:
            continue
        if found:
            return found[0]
    return "unknown"
