from __future__ import annotations

from pathlib import Path

import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.job import device
from bprune_hpc.job.device import Sight
from bprune_hpc.mpi.comm import EndedByRoot, SerialComm
from bprune_hpc.tensorflow_import import CPU, Device

A100 = "device: 0, name: NVIDIA A100-SXM4-40GB, pci bus id: 0000:07:00.0, compute capability: 8.0"


def sights(*ranks: tuple[str, int | None, int]) -> list[Sight]:
    return [Sight(host, local, ("a GPU",) * n_gpus) for host, local, n_gpus in ranks]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([("a", None, 1)], [0]),
        ([("a", 0, 4), ("a", 1, 4), ("a", 2, 4), ("a", 3, 4)], [0, 1, 2, 3]),
        # Round robin over hosts.
        ([("a", 0, 2), ("b", 0, 2), ("a", 1, 2), ("b", 1, 2)], [0, 0, 1, 1]),
        # The launcher shows each rank its own.
        ([("a", 0, 1), ("a", 1, 1), ("a", 2, 1)], [0, 0, 0]),
        # A launcher that does not tell.
        ([("a", None, 2), ("b", None, 2), ("b", None, 2), ("a", None, 2)], [0, 0, 1, 1]),
    ],
)
def test_each_rank_takes_the_gpu_of_its_local_rank(
    ranks: list[tuple[str, int | None, int]], expected: list[int]
) -> None:
    assert device.places(sights(*ranks)) == expected


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([("a", 0, 0)], "--device=gpu: TensorFlow sees no GPU on a .rank 0.: is it a node with"),
        ([("a", 0, 2), ("b", 0, 0)], "no GPU on b .rank 1."),
        (
            [("a", 0, 2), ("a", 1, 2), ("a", 2, 2)],
            "3 ranks on a, which has 2 GPUs for them; start one rank a GPU",
        ),
    ],
)
def test_ranks_without_a_gpu_are_refused(
    ranks: list[tuple[str, int | None, int]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        device.places(sights(*ranks))


def test_why_tensorflow_sees_none_is_said() -> None:
    with pytest.raises(ConfigError, match=r"on a \(rank 0\): ImportError: libcuda"):
        device.places([Sight("a", 0, (), "ImportError: libcuda")])


def test_two_ranks_on_one_gpu_are_refused() -> None:
    device.check_apart([("a", "1", ""), ("b", "1", ""), ("a", "2", "")])
    with pytest.raises(ConfigError, match=r"ranks 0 and 2 on a have the same GPU \(1\)"):
        device.check_apart([("a", "1", ""), ("b", "1", ""), ("a", "1", "")])
    with pytest.raises(ConfigError, match="GPU of rank 1 on b cannot be used: no memory"):
        device.check_apart([("a", "1", ""), ("b", "", "no memory")])


def test_what_tensorflow_says_of_a_gpu_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.name_in(A100) == "NVIDIA A100-SXM4-40GB, compute capability: 8.0"
    assert device.address_in(A100) == "0000:07:00.0"
    # Parts of one GPU have one address.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c89852c")
    assert device.address_in(A100) == "0000:07:00.0, MIG-5c89852c"
    assert device.name_in("") == "unknown"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n"
            "GCC version: gcc version 11.4.0\n",
            "535.129.03",
        ),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n",
            "550.54.15",
        ),
        ("sys/module/amdgpu/version", "6.3.6\n", "6.3.6"),
        ("nothing", "", "unknown"),
    ],
)
def test_the_driver_is_told(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    assert device.driver(tmp_path) == expected


def test_a_gpu_is_taken_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(device, "gpus", lambda: ["one", "two"])
    monkeypatch.setattr(device, "local_rank", lambda: 1)
    monkeypatch.setattr(device, "description_of", lambda taken: A100)
    monkeypatch.setattr(device, "driver", lambda: "535.129.03")
    monkeypatch.setattr(device, "keep_digits", lambda: done.append(1))
    used = device.take("gpu", SerialComm())
    assert used.device == Device(1) and done
    facts = {"device": "NVIDIA A100-SXM4-40GB, compute capability: 8.0", "driver": "535.129.03"}
    assert used.facts == used.environment == facts


def test_processors_are_no_fact_of_the_environment() -> None:
    used = device.take("cpu", SerialComm())
    assert used.device == CPU and used.environment == {}
    assert used.facts == {"device": "cpu", "driver": "none"}


def test_a_gpu_that_fails_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(taken: Device) -> str:
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory\nand a trace")

    monkeypatch.setattr(device, "gpus", lambda: ["one"])
    monkeypatch.setattr(device, "description_of", failing)
    with pytest.raises(EndedByRoot) as ended:
        device.take("gpu", SerialComm())
    assert ended.value.code == 2
    assert ended.value.message.endswith("RuntimeError: CUDA_ERROR_OUT_OF_MEMORY: out of memory")
