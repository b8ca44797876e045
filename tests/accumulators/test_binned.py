"""Sums of numbers of any size: exact fractions tell what they are; order does not matter."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from bprune_hpc.accumulators.binned import EMPTY, BinnedSums


def bits_of(sums: BinnedSums) -> bytes:
    return sums.value().tobytes() + sums.top.tobytes()


def summed(terms: np.ndarray) -> BinnedSums:
    sums = BinnedSums(terms.shape[1:])
    for term in terms:
        sums.add(slice(None), term)
    return sums


def terms_of(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], shape)
    size = {
        "like": np.exp(generator.normal(0, 1, shape)),
        "wide": 10.0 ** generator.uniform(-290, 290, shape),
        "near": 10.0 ** generator.uniform(-20, 20, shape),
        "whole": generator.integers(0, 2**40, shape).astype(float),
    }[kind]
    size[generator.random(shape) < 0.1] = 0
    return signs * size


@pytest.mark.parametrize("kind", ["like", "wide", "near", "whole"])
def test_against_exact_fractions(kind: str) -> None:
    terms = terms_of(kind, (57, 40))
    found = summed(terms).value()
    for column, value in zip(terms.T, found, strict=True):
        exact = sum((Fraction(term) for term in column), Fraction(0))
        # Half a unit of the result, and what falls below the third bin of the largest term.
        allowed = 2.0**-52 * abs(float(exact)) + 57 * 2.0**-79 * np.abs(column).max()
        assert abs(Fraction(value) - exact) <= allowed


def test_positive_terms_are_summed_as_fsum_does() -> None:
    terms = np.abs(terms_of("like", (200, 30)))
    exact = [math.fsum(column) for column in terms.T]
    np.testing.assert_allclose(summed(terms).value(), exact, rtol=2.0**-51)


@pytest.mark.parametrize("kind", ["like", "wide", "near"])
def test_order_and_place_do_not_matter(kind: str) -> None:
    terms = terms_of(kind, (60, 25), seed=1)
    generator = np.random.default_rng(2)
    reference = bits_of(summed(terms))
    for n_parts in (1, 2, 3, 7):
        shuffled = generator.permutation(terms)
        together, *others = [summed(part) for part in np.array_split(shuffled, n_parts)]
        for part in others:
            for at in (slice(None, 10), slice(10, None)):
                together.add_sums(at, *(array[at] for array in part.arrays))
        assert bits_of(together) == reference


def test_what_is_not_contiguous_is_not_added_to() -> None:
    sums = BinnedSums((4, 3))
    sums.top = sums.top[::2]
    with pytest.raises(ValueError, match="not contiguous"):
        sums.add_sums(slice(None), sums.top, sums.bins)


def test_densities_that_float64_cannot_hold() -> None:
    log2 = np.array([-5000.3, -5000.7, -5003.2, -9000.0, -(2.0**52)])
    for chosen in (log2, log2[::-1]):
        sums = BinnedSums((1,))
        for value in chosen:
            one = np.array([value])
            sums.add_scaled(slice(None), np.exp2(one - np.floor(one)), np.floor(one).astype(int))
        expected = (-5000 + math.log2(sum(2.0 ** (v + 5000) for v in log2[:3]))) * math.log(2)
        assert sums.log(0) == pytest.approx(expected, rel=1e-15)


def test_cleared_sums_are_as_new_ones() -> None:
    sums, fresh = BinnedSums((3,)), BinnedSums((3,))
    sums.add(slice(None), np.array([1e300, -1e-300, 0.0]))
    sums.clear()
    for one in (sums, fresh):
        one.add(slice(0, 2), np.array([1e-20, 3.0]))
    assert [a.tobytes() for a in sums.arrays] == [a.tobytes() for a in fresh.arrays]


def test_what_is_empty_or_zero() -> None:
    sums = BinnedSums((2, 3))
    sums.add((0, slice(None)), np.zeros(3))
    assert (sums.value() == 0).all() and (sums.top == EMPTY).all()
    assert (sums.log(slice(None)) == -np.inf).all()
    sums.add((0, slice(None)), np.array([1e300, -1e-300, 2.0]))
    assert sums.value()[0].tolist() == [1e300, -1e-300, 2.0]


def test_one_term_comes_back_as_it_was() -> None:
    terms = terms_of("wide", (1, 1000), seed=3)
    np.testing.assert_array_equal(summed(terms).value(), terms[0])
    smallest = np.array([[5e-324, 2.2e-308, 1.7976931348623157e308]])
    np.testing.assert_array_equal(summed(smallest).value(), smallest[0])


def test_no_bin_overflows() -> None:
    sums = BinnedSums((1,))
    largest = np.array([np.nextafter(2.0**40, 0)])
    sums.add(slice(None), largest)
    sums.bins *= 2**22
    assert sums.value()[0] == pytest.approx(largest[0] * 2**22, rel=1e-15)
    assert sums.bins.max() < 2**62
