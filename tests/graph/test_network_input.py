"""What a network does first with what it is given, read from its graph."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.data import NetworkInput
from bprune_hpc.graph.network_input import network_input
from tests.helpers import input_models


def input_of(name: str, place: Path, moving: float = 1.0) -> NetworkInput:
    _, (weights, _) = input_models.saved(name, place, moving=moving)
    case = read_case(weights.partition("=")[2], model=f"tests.helpers.input_models:{name}")
    return network_input(case.graph, case.fixed)


@pytest.mark.parametrize(
    ("name", "own_scaling"),
    [
        ("plain", ""),
        ("convolution", ""),
        ("rescaling", "multiplies by 0.003922 first"),
        ("rescaling_behind_padding", "multiplies by 0.007843 first"),
        ("division", "divides by 255 first"),
        ("clipped_bytes", "compares with 255 first"),
        ("thresholded_bytes", "compares with 127 first"),
        ("clipped_scaled", ""),
        ("normalization_of_bytes", "subtracts means of up to 120 first"),
        ("preprocess_input", "subtracts means of up to 123.7 first"),
        ("normalization_of_scaled", ""),
        ("tokens_as_floats", "rounds to integers first"),
        ("flat_rows", ""),
    ],
)
def test_its_own_scaling(tmp_path: Path, name: str, own_scaling: str) -> None:
    assert input_of(name, tmp_path).own_scaling == own_scaling


@pytest.mark.parametrize("name", ["batch_normalization", "batch_normalization_of_rows"])
def test_batch_normalization_says_what_it_was_trained_on(tmp_path: Path, name: str) -> None:
    assert input_of(name, tmp_path, moving=0.5).own_scaling == ""
    found = input_of(name, tmp_path, moving=100.0).own_scaling
    assert re.fullmatch(r"normalizes by (means|variances) of up to \d\d\S* first", found)


def test_types_and_axes(tmp_path: Path) -> None:
    flat = input_of("flat_rows", tmp_path)
    assert (flat.shape, flat.flat_image) == ((None, 108), (6, 6, 3))
    assert (flat.layout, flat.n_values) == ("channels_last", 108)
    image = input_of("convolution", tmp_path)
    assert (image.shape, image.flat_image) == ((None, 6, 6, 3), None)
    assert (image.layout, image.n_values) == ("channels_last", 108)
    tokens = input_of("tokens", tmp_path)
    assert (tokens.dtype, tokens.own_scaling, tokens.layout) == ("int32", "", "")
    assert input_of("float64", tmp_path).dtype == "float64"
