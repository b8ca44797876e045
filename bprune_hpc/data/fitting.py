"""Examples as a network takes them: its type, its scale, its axes; and one line on what was done.

What belongs here: the rules by which a data set and a network meet. What does not: reading either
(``data.loading``; ``graph.network_input`` says what a network takes).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .values import as_stored, blocks, check_finite

LAYOUTS = ("channels_last", "channels_first")
_OF_BYTES = "1/255"
_FAR_BELOW_255 = 128
_NUMBER = r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_FACTOR = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?")


@dataclass(frozen=True)
class NetworkInput:
    """What a network takes.

    Attributes
    ----------
    shape : tuple of int or None; None
        Of the input, the examples' axis first; None where an axis is open. None instead of a
        tuple: any shape.
    dtype : str
        NumPy's name of its type.
    own_scaling : str
        In what way the network itself scales what it is given, in words; empty where it does not.
    flat_image : tuple of int or None
        Axes that the network gives flat rows first, as in (32, 32, 3).
    layout : str
        Where its first convolution expects the channels, one of :data:`LAYOUTS`; empty where
        there is none.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str = "float32"
    own_scaling: str = ""
    flat_image: tuple[int, ...] | None = None
    layout: str = ""

    @cached_property
    def type(self) -> np.dtype[Any]:
        """NumPy's type.

        Raises
        ------
        DataError
            If it is none of real numbers.
        """
        try:
            found = np.dtype(self.dtype)
        except TypeError:
            found = np.dtype(object)
        if found.kind not in "biuf":
            raise DataError(f"the network takes {self.dtype}, not numbers; export it behind that")
        return found

    @property
    def n_values(self) -> int | None:
        """How many numbers an example has; None where that is open."""
        sizes = None if self.shape is None else self.shape[1:]
        known = [size for size in sizes or (None,) if size is not None]
        return math.prod(known) if sizes is not None and len(known) == len(sizes) else None


@dataclass(frozen=True)
class InputScale:
    """A factor for examples, as a fraction: 1/255 divides by 255.

    Attributes
    ----------
    numerator, denominator : float
        Positive.
    """

    numerator: float = 1.0
    denominator: float = 1.0

    def __str__(self) -> str:
        if self.numerator == self.denominator:
            return "none"
        over = "" if self.denominator == 1 else f"/{self.denominator:.17g}"
        return f"{self.numerator:.17g}{over}"

    @property
    def in_words(self) -> str:
        """What is done to examples, as in ``divided by 255``."""
        words = []
        if self.numerator != 1:
            words.append(f"multiplied by {self.numerator:.17g}")
        if self.denominator != 1:
            words.append(f"divided by {self.denominator:.17g}")
        return " and ".join(words)

    def apply(self, x: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Scaled examples in a floating type; the arithmetic is in that, or in float32."""
        exact = np.promote_types(dtype, np.float32)
        number = exact.type
        if self.numerator == 1:
            scaled = np.divide(x, number(self.denominator), dtype=exact, casting="unsafe")
        else:
            scaled = np.multiply(x, number(self.numerator), dtype=exact, casting="unsafe")
            if self.denominator != 1:
                np.divide(scaled, number(self.denominator), out=scaled)
        return scaled.astype(dtype, copy=False)


@dataclass(frozen=True)
class Fitted:
    """Examples in a network's shape and type, and what was done to them.

    Attributes
    ----------
    x : array, shape (n, ...)
    scale : str
        What they were multiplied by: ``none``, ``1/255``, ...
    is_usual : bool
        Whether that is what is done where nothing else is known: bytes over 255, all other
        numbers as stored.
    scaling : str
        Their type as it was, and what was done.
    why : str
    warnings : list of str
        What the data look like, where that is not what was done.
    """

    x: NDArray[Any]
    scale: str
    is_usual: bool
    scaling: str
    why: str
    warnings: list[str] = field(default_factory=list)


def read_scale(text: str) -> InputScale | None:
    """A scale as it is asked for: ``auto`` (None), ``none``, a factor such as ``0.5`` or ``1/255``.

    Raises
    ------
    DataError
        If it is none of these, or not positive and finite.
    """
    if text == "auto":
        return None
    if text == "none":
        return InputScale()
    found = _FACTOR.fullmatch(text.strip())
    numbers = [float(number or 1) for number in found.groups()] if found else []
    if not numbers or not all(1e-30 <= number <= 1e30 for number in numbers):
        raise DataError(
            f"--input_scale: '{text}' is neither auto, none nor a positive factor such as 1/255"
        )
    return InputScale(*numbers)


def fit(
    x: NDArray[Any],
    network: NetworkInput,
    *,
    input_scale: str = "auto",
    layout: str | None = None,
    scaling: str | None = None,
    is_scaled: bool = False,
    with_warnings: bool = True,
) -> Fitted:
    """Examples as a network takes them.

    Bytes are divided by 255 unless the network takes integers or scales them itself; all other
    numbers are taken as they are, and so is everything where the scale is given.

    Parameters
    ----------
    x : array of real numbers, shape (n, ...)
    input_scale : str
        See :func:`read_scale`.
    layout : str, optional
        One of :data:`LAYOUTS`: where the data have their channels.
    scaling : str, optional
        What the examples are, in words; without, their type.
    is_scaled : bool
        Whether the data set has a scale of its own, which has been applied.
    with_warnings : bool
        Whether to look for any.

    Returns
    -------
    Fitted

    Raises
    ------
    DataError
        If they do not fit, cannot be of the network's type, or are not finite.
    """
    stored, asked = x.dtype, read_scale(input_scale)
    said = scaling or as_stored(stored)
    wanted = network.type
    if stored.kind not in "biuf":
        raise DataError(f"examples are {stored}; the network takes {wanted}: give numbers")
    shaped = fit_shape(x, network, layout)
    if is_scaled and asked is not None:
        raise DataError(f"--input_scale: the data set is {said} always; leave the flag out")
    is_integral = wanted.kind in "biu"
    if is_integral and asked is not None and str(asked) != "none":
        raise DataError(
            f"--input_scale: the network takes {wanted}; leave the flag out, or give the data "
            "scaled and as integers"
        )
    is_bytes = stored == np.uint8
    scale, why = asked or InputScale(), "by --input_scale"
    if is_scaled:
        why = "as this data set always is"
    elif asked is None and is_integral:
        why = f"as the network takes {wanted}"
    elif asked is None and network.own_scaling:
        why = f"as the network {network.own_scaling}"
    elif asked is None and is_bytes:
        scale, why = InputScale(1, 255), f"as the network takes {wanted} and scales nothing itself"
    elif asked is None:
        why = "as everything but bytes is"
    name = str(scale)
    if name == "none":
        fitted = _cast(shaped, wanted)
    else:
        with np.errstate(over="ignore"):  # what overflows is named as infinite below
            fitted = scale.apply(shaped, wanted)
        said = f"{said.partition(' ')[0]} {scale.in_words}"
    for rows in blocks(len(fitted), fitted[:1].nbytes):
        check_finite(fitted[rows], "it", rows.start)
    usual = _OF_BYTES if is_bytes else "none"
    is_sure = is_scaled or asked is not None or not with_warnings
    warnings = [] if is_sure else _doubts(x, name, network, is_integral)
    return Fitted(fitted, name, is_scaled or name == usual, said, why, warnings)


def _cast(x: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    """The same numbers in another type: whole and in its range where that is of integers."""
    if x.dtype == wanted:
        return x
    if wanted.kind in "biu":
        lowest, highest = (0, 1) if wanted.kind == "b" else _range_of(wanted)
        for rows in blocks(len(x), max(1, x[:1].nbytes)):
            block = x[rows]
            if block.dtype.kind == "f":
                with np.errstate(over="ignore"):  # float16 compares with infinity then
                    good = (block >= lowest) & (block < float(highest + 1))
                good &= block == np.rint(block)
            else:
                good = (block >= lowest) & (block <= highest)
            if not good.all():
                first = tuple(int(i) for i in np.argwhere(~good)[0])
                raise DataError(
                    f"it has {block[first]} in example {rows.start + first[0]}; the network takes "
                    f"{wanted}, {lowest} to {highest}: give the data that it was trained on"
                )
    with np.errstate(over="ignore"):
        return x.astype(wanted)


def _range_of(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _doubts(x: NDArray[Any], scale: str, network: NetworkInput, is_integral: bool) -> list[str]:
    """What numbers look like, where something else was done."""
    largest = x.max()
    if x.dtype == np.uint8 and scale == _OF_BYTES and largest < _FAR_BELOW_255:
        other = f" or --input_scale=1/{largest}" if largest > 1 else ""
        return [
            f"the largest byte is {largest}, far below 255, and all are divided by 255; if they "
            f"are no images of 0 to 255, save floats or, of a sweep, pass --input_scale=none{other}"
        ]
    if scale != "none" or x.dtype == np.uint8 or network.own_scaling or is_integral:
        return []
    if _FAR_BELOW_255 <= largest <= 255 and x.min() >= 0 and _are_whole(x):
        return [
            f"all numbers are whole, from {x.min():g} to {largest:g}, and taken as they are; if "
            "they are images to be divided by 255, save bytes or, of a sweep, pass "
            "--input_scale=1/255"
        ]
    return []


def _are_whole(x: NDArray[Any]) -> bool:
    rows_of_all = blocks(len(x), max(1, x[:1].nbytes))
    return x.dtype.kind != "f" or not any((x[rows] % 1).any() for rows in rows_of_all)


def fit_shape(x: NDArray[Any], network: NetworkInput, layout: str | None) -> NDArray[Any]:
    """Examples with the axes that a network takes.

    Flat rows become images, and images flat rows, where only one order of their values is
    possible: there is one channel, or the layout is given.

    Parameters
    ----------
    layout : str or None
        One of :data:`LAYOUTS`: where the data have their channels.

    Raises
    ------
    DataError
        If the number of values does not fit, or several orders are possible.
    """
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"--layout: '{layout}' is none of {', '.join(LAYOUTS)}")
    if network.shape is None:
        return x
    wanted = tuple(network.shape[1:])
    image = wanted if len(wanted) > 1 else network.flat_image
    is_first = image is not None and _is_first(network, image)
    is_moved = layout is not None and is_first != (layout == "channels_first")
    if image is None and is_moved:
        raise DataError(
            "--layout: the network takes flat rows, and in which order is not known; give them as "
            "it was trained on, without the flag"
        )
    if image is not None and _has_one_channel(image):
        is_moved = False
    sizes = [size for size in (image or wanted) if size is not None]
    is_open = len(sizes) < len(image or wanted)
    if x.ndim > 2 and max(x.shape[1:]) == x[0].size and not _fits(x.shape[1:], wanted):
        x = x.reshape(len(x), -1)
    if x.ndim == 2 and image is not None and not is_open and math.prod(sizes) == x.shape[1]:
        is_ambiguous = len(wanted) > 1 and not _has_one_channel(image) and not _is_square(image)
        if layout is None and is_ambiguous:
            raise DataError(
                f"one example of the data is a flat row of {x.shape[1]}, the network takes "
                f"{_shown(image)}: are its channels first or last? Pass --layout=channels_last or "
                "--layout=channels_first"
            )
        if is_moved:
            rows = sizes[1:] + sizes[:1] if is_first else sizes[-1:] + sizes[:-1]
            x = _moved(x.reshape(len(x), *rows), is_first)
        return x.reshape(len(x), *[size for size in wanted if size is not None])
    if is_moved and x.ndim > 2:
        x = _moved(x, is_first)
    found = tuple(x.shape[1:])
    if _fits(found, wanted):
        return x
    # Anything but this would tear images apart silently.
    is_whole = not is_open and math.prod(sizes) == math.prod(found)
    if is_whole and _is_same_order(found, tuple(sizes), is_flat=len(wanted) <= 1):
        return x.reshape(len(x), *[size for size in wanted if size is not None])
    of_images = f", of images {_shown(image)}" if image and image != wanted else ""
    other = "channels_last" if is_first else "channels_first"
    would_fit = image is not None and x.ndim > 2 and _fits(_moved(x[:1], is_first).shape[1:], image)
    fix = "give the data set the network was trained on"
    raise DataError(
        f"one example of the data has shape {_shown(found)}, the network takes "
        f"{_shown(wanted)}{of_images}; "
        + (f"pass --layout={other}" if would_fit and layout is None else fix)
    )


def _moved(x: NDArray[Any], is_first: bool) -> NDArray[Any]:
    """Examples with their channels on the other side: first, where the network has them so."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if is_first else np.moveaxis(x, 1, -1))


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(wanted) == len(found) and all(
        w is None or w == f for w, f in zip(wanted, found, strict=True)
    )


def _has_one_channel(image: Sequence[int | None]) -> bool:
    """Whether the order of a flat image's values is the same, wherever its channels are."""
    return len(image) > 1 and 1 in (image[0], image[-1])


def _is_square(image: Sequence[int | None]) -> bool:
    """Whether two axes are an image without an axis of channels, and no sequence of vectors."""
    return len(image) == 2 and image[0] == image[1]


def _is_first(network: NetworkInput, image: Sequence[int | None]) -> bool:
    """Whether a network has its channels first; where no convolution says so, by their number."""
    if network.layout:
        return network.layout == "channels_first"
    return len(image) > 2 and image[0] in (1, 3, 4) and image[-1] not in (1, 3, 4)


def _is_same_order(found: tuple[int, ...], wanted: tuple[int, ...], is_flat: bool) -> bool:
    """Whether two shapes of as many values have them in the same order.

    They have where they differ by flattening or axes of one alone; and where a network that takes
    flat rows gives them axes that are not those of the data in another order.
    """
    axes = [tuple(size for size in shape if size != 1) for shape in (found, wanted)]
    if axes[0] == axes[1] or min(map(len, axes)) <= 1:
        return True
    return is_flat and sorted(axes[0]) != sorted(axes[1])


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
