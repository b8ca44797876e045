"""What is counted and timed, by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bprune_hpc.formats import size_and_speed
from bprune_hpc.formats.packing import PackedNetwork, packed
from bprune_hpc.formats.size_and_speed import as_text, latencies, multiplications
from bprune_hpc.graph.layer_graph import (
    Activation,
    Convolution,
    Dense,
    LayerGraph,
    Reshape,
    Scale,
)


def test_multiplications_of_whole_kernels_and_of_what_is_left() -> None:
    kernel, dense = np.ones((2, 2, 3, 4), np.float32), np.ones((24, 5), np.float32)
    kernel[0], dense[:, 1:] = 0, 0
    layers = LayerGraph.of_chain(
        (3, 4, 3), Convolution("k", (2, 2), (3, 4, 3)), Scale("s"), Activation("Relu"),
        Reshape((24,)), Dense("d"),
    )  # fmt: skip
    tensors = {"k": kernel, "d": dense, "s": np.ones(4, np.float32)}
    network = PackedNetwork(
        layers,
        tuple(layers.shapes({name: value.shape for name, value in tensors.items()})),
        None,
        {name: packed(name, value, None) for name, value in tensors.items()},
    )
    assert multiplications(network) == (6 * 48 + 24 + 120, 6 * 24 + 24 + 24)


def test_times_are_of_whole_batches_and_left_out_where_they_are_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(size_and_speed, "_SECONDS", 0.0)
    sizes: list[int] = []

    def slow(x: np.ndarray) -> None:
        sizes.append(len(x))
        time.sleep(0.002)

    found = latencies({"before": slow, "after": lambda x: None}, np.zeros((100, 1)))
    assert found["before"] is not None and found["before"] >= 0.002 > (found["after"] or 0)
    assert sizes[-1] == 100
    monkeypatch.setattr(size_and_speed, "_MOST_SECONDS", 0.01)
    assert latencies({"before": slow, "after": slow}, np.zeros((100, 1))) == {
        "before": None, "after": None,
    }  # fmt: skip
    assert 100 not in sizes[sizes.index(100) + 2 :]


def test_the_table() -> None:
    long: dict[str, float | None] = {"before": None, "after": None}
    found = {
        "weights": {"before": 2000, "after": 500},
        "multiplications": {"before": 9000, "dense": 9000, "left": 3000},
        "formats": {
            "bundle": {
                "bytes": {"before": 10, "after": 20},
                "gzip_bytes": {"before": 10, "after": 5},
                "seconds": {"1": {"before": 2e-4, "after": 1e-4}, "1000": long},
            },
            "checkpoint": {"bytes": {"after": 7}, "gzip_bytes": {"after": 6}},
        },
    }
    lines = [" ".join(line.split()) for line in as_text(found).splitlines()]
    assert lines == [
        "before after",
        "weights with a posterior 2,000 500 4 x less",
        "multiplications an example 9,000 9,000 the same",
        "by weights that are not zero 9,000 3,000 3 x less",
        "bundle: bytes 10 20 2 x more",
        "with gzip 10 5 2 x less",
        "batch of 1 200 us 100 us 2 x less",
        "checkpoint: bytes 7",
        "with gzip 6",
    ]
