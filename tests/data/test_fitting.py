"""Where a network and data meet: type, scale and axes; refused where it is not sure."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from bprune_hpc.data import NetworkInput, fit
from bprune_hpc.data.fitting import fit_shape, read_scale
from bprune_hpc.errors import DataError

BYTES = np.random.default_rng(0).integers(0, 256, (7, 4, 5), np.uint8)
BYTES[0, 0, 0] = 255
RESCALES = "multiplies by 0.003922 first"


def takes(*shape: int | None, **more: object) -> NetworkInput:
    return NetworkInput((None, *shape), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bytes_are_divided_by_255(dtype: str) -> None:
    found = fit(BYTES, takes(4, 5, dtype=dtype))
    assert found.x.dtype == dtype
    exact = BYTES.astype(np.float32 if dtype == "float16" else dtype)
    np.testing.assert_array_equal(found.x, (exact / exact.dtype.type(255)).astype(dtype))
    assert (found.scale, found.scaling, found.is_usual) == ("1/255", "uint8 divided by 255", True)
    assert found.why == f"as the network takes {dtype} and scales nothing itself"
    assert not found.warnings


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (takes(4, 5, dtype="uint8"), "as the network takes uint8"),
        (takes(4, 5, dtype="int32"), "as the network takes int32"),
        (takes(4, 5, dtype="int64"), "as the network takes int64"),
        (takes(4, 5, own_scaling=RESCALES), f"as the network {RESCALES}"),
    ],
)
def test_bytes_are_not_scaled_twice_and_not_as_tokens(network: NetworkInput, why: str) -> None:
    found = fit(BYTES, network)
    assert found.x.dtype == network.dtype
    np.testing.assert_array_equal(found.x, BYTES)
    assert (found.scale, found.scaling, found.is_usual) == ("none", "uint8 as stored", False)
    assert found.why == why and not found.warnings


@pytest.mark.parametrize(
    "stored", ["bool", "int8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("wanted", ["float32", "float64", "int32", "int64", "uint8"])
def test_all_but_bytes_are_the_same_numbers(stored: str, wanted: str) -> None:
    x = (BYTES % (2 if stored == "bool" else 100)).astype(stored)
    found = fit(x, takes(4, 5, dtype=wanted))
    assert found.x.dtype == wanted
    np.testing.assert_array_equal(found.x, x)
    assert found.scaling == f"{stored} as stored" and found.is_usual


def test_no_digit_is_lost_where_the_network_takes_float64() -> None:
    x = 1.6e9 + np.random.default_rng(1).normal(size=(7, 3))
    np.testing.assert_array_equal(fit(x, takes(3, dtype="float64")).x, x)
    assert np.abs(fit(x, takes(3)).x - x).max() > 0.1


@pytest.mark.parametrize(
    ("text", "factor", "name"),
    [("none", 1, "none"), ("1", 1, "none"), ("0.5", 0.5, "0.5"), ("1/16", 1 / 16, "1/16"),
     ("2/510", 2 / 510, "2/510"), ("1e-3", 1e-3, "0.001"), (".25", 0.25, "0.25")],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_what_is_asked_for_is_done(text: str, factor: float, name: str, dtype: str) -> None:
    x = BYTES.astype(dtype)
    found = fit(x, takes(4, 5, own_scaling=RESCALES), input_scale=text)
    np.testing.assert_allclose(found.x, x * factor, rtol=2e-7)
    assert found.x.dtype == np.float32
    assert (found.scale, found.why) == (name if factor != 1 else "none", "by --input_scale")
    assert found.is_usual == (factor == 1 and dtype != "uint8")
    assert not found.warnings


@pytest.mark.parametrize("text", ["", "0", "-1", "1/0", "nan", "inf", "1/255/2", "all", "1e99"])
def test_what_is_no_scale(text: str) -> None:
    with pytest.raises(DataError, match=f"--input_scale: '{re.escape(text)}' is neither auto"):
        read_scale(text)


@pytest.mark.parametrize(
    ("x", "network", "asked", "finding"),
    [
        (BYTES + 0.5, takes(4, 5, dtype="int32"), {}, "it has .*5 in example 0; the network takes"),
        (BYTES.astype(int) - 300, takes(4, 5, dtype="uint8"), {}, "takes uint8, 0 to 255: give"),
        (np.full((3, 2), 2**40), takes(2, dtype="int32"), {}, "it has 1099511627776 in example 0"),
        (np.full((3, 2), np.nan), takes(2, dtype="int32"), {}, "it has nan in example 0"),
        (np.full((3, 2), np.nan), takes(2), {}, "it has nan in example 0; mend or drop it"),
        (np.full((3, 2), 1e300), takes(2), {}, "it has inf in example 0"),
        (BYTES, takes(4, 5, dtype="int32"), {"input_scale": "1/255"}, "takes int32; leave the f"),
        (BYTES, takes(4, 5, dtype="object"), {}, "the network takes object, not numbers"),
        (BYTES.astype(complex), takes(4, 5), {}, "examples are complex128; the network takes"),
        (BYTES / 16, takes(4, 5), {"input_scale": "none", "is_scaled": True}, "leave the flag out"),
        (BYTES, takes(4, 5), {"layout": "NHWC"}, "'NHWC' is none of channels_last, channels_first"),
    ],
)  # fmt: skip
def test_what_is_refused(x: np.ndarray, network: NetworkInput, asked: dict, finding: str) -> None:
    with pytest.raises(DataError, match=finding) as caught:
        fit(x, network, **asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "network", "finding"),
    [
        (BYTES // 16, takes(4, 5), "largest byte is 15, far below 255.*--input_scale=1/15$"),
        (BYTES // 255, takes(4, 5), "largest byte is 1, far below 255.*--input_scale=none$"),
        (BYTES.astype(np.int64), takes(4, 5), "whole, from 0 to 255.* pass --input_scale=1/255"),
        (BYTES.astype(np.float64), takes(4, 5), "whole, from 0 to 255, and taken as they are"),
        (BYTES // 2, takes(4, 5), "largest byte is 127"),
        (BYTES // 16, takes(4, 5, dtype="int32"), None),
        (BYTES // 16, takes(4, 5, own_scaling=RESCALES), None),
        (BYTES / 255, takes(4, 5), None),
        (BYTES + 0.5, takes(4, 5), None),
        (BYTES * 1000.0, takes(4, 5), None),
        (BYTES.astype(np.int64) - 128, takes(4, 5), None),
    ],
)
def test_what_looks_wrong_is_warned_of(
    x: np.ndarray, network: NetworkInput, finding: str | None
) -> None:
    for asked, expected in (("auto", finding), ("none", None)):
        warnings = fit(x, network, input_scale=asked).warnings
        assert len(warnings) == (expected is not None)
        assert expected is None or re.search(expected, warnings[0])


@pytest.mark.parametrize(
    ("example", "network"),
    [
        ((28, 28), (784,)),
        ((784,), (28, 28, 1)),
        ((784, 1), (28, 28, 1)),
        ((784,), (1, 28, 28)),
        ((784,), (28, 28)),
        ((28, 28), (28, 28, 1)),
        ((28, 28, 1), (28, 28)),
        ((28, 28, 1), (784,)),
        ((32, 32, 3), (3072,)),
        ((32, 32, 3), (32, 32, 3)),
        ((5, 6), (None, 6)),
        ((5, 6), (30,)),
    ],
)  # fmt: skip
def test_shapes_that_fit_keep_the_values_in_order(
    example: tuple[int, ...], network: tuple[int | None, ...]
) -> None:
    x = np.arange(3 * np.prod(example), dtype=np.float32).reshape(3, *example)
    found = fit_shape(x, takes(*network), None)
    wanted = [size or x.shape[1 + at] for at, size in enumerate(network)]
    assert found.shape == (3, *wanted)
    np.testing.assert_array_equal(found.ravel(), x.ravel())
    assert fit_shape(x, NetworkInput(None), None) is x


@pytest.mark.parametrize(
    ("example", "network", "finding"),
    [
        ((4, 4), (784,), r"\(4, 4\), the network takes \(784\); give the data set"),
        ((4, 4), (4, None, 1), r"the network takes \(4, any, 1\)"),
        ((4, 4), (5, 5), r"the network takes \(5, 5\)"),
        ((14, 56), (28, 28), r"\(14, 56\), the network takes \(28, 28\)"),
        ((3, 32, 32), (32, 32, 3), r"\(32, 32, 3\); pass --layout=channels_first"),
        ((32, 32, 3), (3, 32, 32), r"\(3, 32, 32\); pass --layout=channels_last"),
        ((3072,), (32, 32, 3), r"a flat row of 3072, .* \(32, 32, 3\): are its channels first or"),
        ((1, 3072), (32, 32, 3), r"a flat row of 3072, .* \(32, 32, 3\): are its channels first"),
        ((3072, 1), (32, 32, 3), r"a flat row of 3072, .* \(32, 32, 3\): are its channels first"),
        ((3072,), (3, 32, 32), "Pass --layout=channels_last or --layout=channels_first"),
        ((1152,), (128, 9), "are its channels first or last"),
        ((3071,), (32, 32, 3), r"shape \(3071\), the network takes \(32, 32, 3\); give"),
    ],
)
def test_shapes_that_do_not_fit_or_not_surely(
    example: tuple[int, ...], network: tuple[int | None, ...], finding: str
) -> None:
    with pytest.raises(DataError, match=finding):
        fit_shape(np.zeros((2, *example)), takes(*network), None)


LAST = np.random.default_rng(3).normal(size=(2, 4, 5, 3))
FIRST = np.array(
    [[[[e[i, j, k] for j in range(5)] for i in range(4)] for k in range(3)] for e in LAST]
)


@pytest.mark.parametrize(
    ("data", "network", "is_flat_data", "is_flat_network"),
    itertools.product(
        ("channels_last", "channels_first"), ("channels_last", "channels_first"),
        (False, True), (False, True),
    ),
)  # fmt: skip
def test_every_layout_of_data_for_every_network(
    data: str, network: str, is_flat_data: bool, is_flat_network: bool
) -> None:
    of = {"channels_last": LAST, "channels_first": FIRST}
    x, expected = of[data], of[network]
    image = expected.shape[1:]
    if is_flat_data:
        x = x.reshape(2, -1)
    if is_flat_network:
        expected = expected.reshape(2, -1)
    given = NetworkInput(
        (None, *expected.shape[1:]), layout=network, flat_image=image if is_flat_network else None
    )
    np.testing.assert_array_equal(fit_shape(x, given, data), expected)


@pytest.mark.parametrize("image", [(1, 784), (28, 28), (28, 28, 1), (1, 28, 28), (4, 4, 49), None])
def test_images_of_one_channel_are_flat_rows_whatever_they_become(image: tuple | None) -> None:
    x = np.arange(3 * 784.0).reshape(3, 28, 28)
    for stored in (x, x[..., None], x[:, None]):
        found = fit_shape(stored, NetworkInput((None, 784), flat_image=image), None)
        np.testing.assert_array_equal(found, x.reshape(3, 784))


def test_images_for_a_network_that_takes_flat_rows_of_another_order() -> None:
    network = NetworkInput((None, 60), flat_image=(4, 5, 3))
    np.testing.assert_array_equal(fit_shape(LAST, network, None), LAST.reshape(2, -1))
    with pytest.raises(DataError, match=r"\(60\), of images \(4, 5, 3\); pass --layout=channels_f"):
        fit_shape(FIRST, network, None)
    with pytest.raises(DataError, match="in which order is not known"):
        fit_shape(FIRST, takes(60), "channels_first")


def test_sequences_have_channels_too() -> None:
    rows = np.arange(48.0).reshape(2, 24)
    found = fit_shape(rows, takes(8, 3, layout="channels_last"), "channels_first")
    for example, row in zip(found, rows, strict=True):
        np.testing.assert_array_equal(
            example, [[row[c * 8 + t] for c in range(3)] for t in range(8)]
        )
