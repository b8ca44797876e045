"""Scales evaluated part by part have the bits of those evaluated whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.graph import blockwise_folding, noise_removal
from tests.helpers.small_graphs import save


def _layers(images: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf
    import tensorflow_probability as tfp

    normal = tfp.layers.default_mean_field_normal_fn()
    layers = [
        tfp.layers.DenseFlipout(37, bias_posterior_fn=normal),
        tfp.layers.DenseReparameterization(11),
        tfp.layers.DenseLocalReparameterization(3),
    ]
    hidden = images
    for layer in layers:
        hidden = layer(hidden)
    tf.nn.softmax(hidden)
    return hidden, [layer.kernel_posterior.distribution for layer in layers]


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_same_bits_as_whole(tmp_path: Path, block: int) -> None:
    saved = save(tmp_path, _layers, (29,))
    n_whole = []

    def whole(self: Any, site: Any, levels: Any) -> None:
        n_whole.append(site)

    with mock.patch.object(noise_removal.NoiseRemoval, "_by_blocks", whole):
        expected = read_case(tmp_path).posterior
    with (
        mock.patch.object(blockwise_folding, "BLOCK", block),
        mock.patch.object(noise_removal.NoiseRemoval, "_at_one", side_effect=AssertionError),
    ):
        found = read_case(tmp_path).posterior
    assert found.names == expected.names and len(n_whole) == 4
    for name in found.names:
        np.testing.assert_array_equal(found.scale[name], expected.scale[name])
    for scale in saved.scales:
        assert any(np.array_equal(scale, value) for value in found.scale.values())
