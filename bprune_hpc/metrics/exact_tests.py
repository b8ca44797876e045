"""Tests that a paired cost is below a limit, valid at any number of examples. Pure.

None rests on a normal approximation: a true cost at the limit or above it passes in at most the
share of test sets that its p-value says. Which costs are tested, and in which order, does not
belong here (``metrics.threshold_selection``).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.polynomial import chebyshev

from .._typing import Float64Array, Int64Array

POWER = 1.2815515655446004
"""Standard normal quantile at 90 %: how often advice on the number of examples is to do."""

_MOST_EXAMPLES = 10**9

_LEFT_OUT = 1e-4
"""Probability that the share of examples won is outside the interval in which it is looked for."""

N_ORDERS = 20
"""In which a bet is made on all examples."""

_DEGREE = 24
_ERROR = 1e-5
"""More than tails, polynomial and the grid on which its maximum is looked for leave out."""

_LEVEL = 0.05
_LARGEST_BET = 0.9


@functools.lru_cache(4096)
def drop_p_value(n_lost: int, n_won: int, n_examples: int, limit: float) -> float:
    """Exact unconditional test that fewer are lost than won, but for a share below the limit.

    Of each example pruning changes nothing, or it is lost (right before, wrong after) or won. The
    null hypothesis is P(lost) - P(won) >= limit, whatever P(won) is. Outcomes are ordered by the
    score statistic (Tango 1998); their probability is largest where the difference is the limit,
    since it falls as P(lost) rises, and is taken at the worst P(won) (Hsueh, Liu and Chen 2001) in
    an interval that holds it with probability 1 - 1e-4, which is added (Berger and Boos 1994).
    There it is a smooth function, the mean of an indicator under trinomials that overlap, and a
    polynomial through 25 Chebyshev nodes is right to 1e-6; 1e-5 is added for all such errors.

    Parameters
    ----------
    n_lost, n_won, n_examples : int
    limit : float
        In (0, 1).

    Returns
    -------
    float
        In (0, 1]; 1 where the difference found is not below the limit.

    References
    ----------
    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998) 891.
    H.-M. Hsueh, J.-P. Liu, J. J. Chen, "Unconditional exact tests for equivalence or noninferiority
    for paired binary endpoints", Biometrics 57 (2001) 478.
    R. L. Berger, D. D. Boos, "P values maximized over a confidence set for the nuisance parameter",
    JASA 89 (1994) 1012.
    """
    from scipy.special import bdtr, betaincinv, gammaln, xlogy

    n = n_examples
    if not n_lost - n_won < n * limit:
        return 1.0
    found = float(_score(np.array([n_lost]), np.array([n_won]), n, limit)[0])
    half = _LEFT_OUT / 2
    low = float(betaincinv(n_won, n - n_won + 1, half)) if n_won else 0.0
    high = float(betaincinv(n_won + 1, n - n_won, 1 - half)) if n_won < n else 1.0
    low, high = (min(share, (1 - limit) / 2) for share in (low, high))
    won = np.arange(_around(low, n)[0], _around(high, n)[1] + 1)
    most_lost = _most_lost(won, found, n, limit)

    def probability(share: float) -> float:
        first, last = _around(share, n)
        at = slice(first - won[0], last + 1 - won[0])
        w, most = won[at], most_lost[at]
        log = gammaln(n + 1) - gammaln(w + 1) - gammaln(n - w + 1)
        log += xlogy(w, share) + xlogy(n - w, 1 - share)
        lost = min((share + limit) / (1 - share), 1.0)
        below = np.where(most >= 0, bdtr(np.maximum(most, 0), n - w, lost), 0.0)
        return float(np.exp(log) @ below)

    # In the root of the share its spread is the same everywhere.
    ends = math.sqrt(low), math.sqrt(high)
    middle, width = (ends[1] + ends[0]) / 2, (ends[1] - ends[0]) / 2
    nodes = chebyshev.chebpts1(_DEGREE + 1)
    values = np.array([probability((middle + width * node) ** 2) for node in nodes])
    terms = 2 / len(nodes) * chebyshev.chebvander(nodes, _DEGREE).T @ values
    terms[0] /= 2
    largest = chebyshev.chebval(np.linspace(-1, 1, 1001), terms).max()
    return min(float(largest) + _ERROR + _LEFT_OUT, 1.0)


def _score(lost: Int64Array, won: Int64Array, n: int, limit: float) -> Float64Array:
    """Excess of what is lost over the limit, in standard errors where the limit is the truth."""
    b = (lost + won) * (1 - limit) - 2 * limit * (n - lost)
    share = (b + np.sqrt(b * b + 8.0 * n * limit * (1 - limit) * won)) / (4 * n)
    share = np.clip(share, 0.0, (1 - limit) / 2)  # of those won, at most likely
    return (lost - won - n * limit) / np.sqrt(n * (2 * share + limit * (1 - limit)))


def _most_lost(won: Int64Array, found: float, n: int, limit: float) -> Int64Array:
    """Largest number lost, for each number won, at which the score is no more; -1: none."""
    least = np.full(len(won), -1)
    # The score rises with what is lost, as far as the difference is below the limit.
    most = np.minimum(np.ceil(won + n * limit), n - won + 1).astype(np.int64)
    while (most - least > 1).any():
        middle = (least + most) // 2
        is_more = _score(np.maximum(middle, 0), won, n, limit) > found + 1e-9
        is_open = most - least > 1
        most = np.where(is_open & is_more, middle, most)
        least = np.where(is_open & ~is_more, middle, least)
    return least


def _around(share: float, n: int) -> tuple[int, int]:
    """First and last number of n that have a share, but for less than 1e-9."""
    far = 6.5 * math.sqrt(n * share * (1 - share)) + 12
    return max(0, math.floor(n * share - far)), min(n, math.ceil(n * share + far))


def orders(seed: int, n_examples: int) -> Iterator[Int64Array]:
    """Pseudo-random orders of examples, functions of the seed and their number alone.

    Philox (Salmon et al. 2011), keyed by the first 16 bytes of BLAKE2b of ``SEED/orders of N``:
    no stream of the draws'.

    Parameters
    ----------
    seed : int
        In [0, 2**64).
    n_examples : int

    Yields
    ------
    int64 array, shape (n_examples,)
    """
    digest = hashlib.blake2b(f"{seed}/orders of {n_examples}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    for _ in range(N_ORDERS):
        yield generator.permutation(n_examples)


def rise_p_value(rise: Float64Array, bound: float, limit: float, seed: int) -> float:
    """Test by betting that the mean of what is bounded above is below a limit.

    Against the null hypothesis that the mean is the limit or more, one bets on each example in
    turn, a stake that depends on those before it alone: the capital of 1, multiplied by
    1 + stake * (limit - rise), is a supermartingale. So it ends, on average, at 1 at most, and so
    does the mean over several orders, which exceeds 1/p with probability p at most (Markov). A
    single order of a test set that is sorted, by class say, would not be a random one: of many
    the mean is nearly the same in whatever order examples come. The stakes are those of
    Waudby-Smith and Ramdas (2024, equation 26) for a known number of examples, at 5 % whatever the
    level; at most 0.9 of what the largest rise would lose; the variance begins at that of rises of
    the bound whose mean is the limit.

    Parameters
    ----------
    rise : float64 array, shape (n_examples,)
    bound : float
        No rise is above it.
    limit : float
        Positive.
    seed : int
        Of the orders.

    Returns
    -------
    float
        In [0, 1].

    References
    ----------
    I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", Journal
    of the Royal Statistical Society B 86 (2024) 1.
    """
    if not limit < bound:
        return 0.0 if limit > bound else 1.0  # nothing is above the bound
    capital = [_log_capital(rise[order], bound, limit) for order in orders(seed, len(rise))]
    mean = np.logaddexp.reduce(capital) - math.log(N_ORDERS)
    return math.exp(-max(float(mean), 0.0))


def _log_capital(rise: Float64Array, bound: float, limit: float) -> float:
    """Logarithm of the capital after bets on all rises in their order."""
    n_seen = np.arange(1, len(rise) + 1)
    mean = _before(rise) / n_seen
    variance = (bound * limit + _before((rise - mean) ** 2)) / n_seen
    stake = _stake(variance, len(rise), bound, limit)
    return float(np.log1p(stake * (limit - rise)).sum())


def _stake(variance: Float64Array, n: int, bound: float, limit: float) -> Float64Array:
    stake = np.sqrt(2 * math.log(1 / _LEVEL) / (n * variance))
    return np.minimum(stake, _LARGEST_BET / (bound - limit))


def _before(values: Float64Array) -> Float64Array:
    """Sum of the values before each."""
    return np.concatenate([[0.0], values[:-1].cumsum()])


def fewest_for_drop(level: float, limit: float) -> int | None:
    """Examples, of which none moves, for :func:`drop_p_value` to be at most the level."""
    at_least = math.floor(math.log(level) / math.log1p(-limit))
    return least(lambda n: drop_p_value(0, 0, n, limit) <= level, max(at_least, 1))


def fewest_for_rise(level: float, bound: float, limit: float) -> int:
    """Examples, of which none rises, for :func:`rise_p_value` to be at most the level."""
    if limit > bound:
        return 1
    gain = math.log1p(_LARGEST_BET * limit / max(bound - limit, 1e-300))
    return math.ceil(-math.log(level) / gain)


def examples_for_drop(
    n_lost: int, n_won: int, n_examples: int, limit: float, level: float
) -> int | None:
    """Examples with which :func:`drop_p_value` would be at most the level, nine times in ten.

    By the normal approximation, were the shares lost and won as they are; None where the
    difference is not below the limit.
    """
    n, lost, won = n_examples, n_lost / n_examples, n_won / n_examples
    if not lost - won < limit:
        return None
    at_limit = (n_lost - n_won - n * limit) / float(
        _score(np.array([n_lost]), np.array([n_won]), n, limit)[0] * math.sqrt(n)
    )
    here = math.sqrt(lost + won - (lost - won) ** 2)
    needed = ((_quantile(level) * at_limit + POWER * here) / (limit - lost + won)) ** 2
    return max(math.ceil(needed), fewest_for_drop(level, limit) or _MOST_EXAMPLES, n + 1)


def examples_for_rise(rise: Float64Array, bound: float, limit: float, level: float) -> int | None:
    """The same for :func:`rise_p_value`, were all rises like these; None also where too many.

    The logarithm of the capital is taken as normal, with stakes that know the variance.
    """
    if not rise.mean() < limit < bound:
        return None

    def is_enough(n: int) -> bool:
        variance = np.array(rise.var() + bound * limit / n)
        growth = np.log1p(_stake(variance, n, bound, limit) * (limit - rise))
        mean, sd = float(growth.mean()), float(growth.std())
        return n * mean - POWER * math.sqrt(n) * sd >= -math.log(level)

    return least(is_enough, len(rise) + 1)


def least(is_enough: Callable[[int], bool], low: int) -> int | None:
    """The least number, from one on, that is enough; None where none is up to 10**9."""
    low, high = low - 1, _MOST_EXAMPLES
    if not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _quantile(level: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri(level))


def softened_nll(nll: Float64Array, share: float, n_classes: int) -> Float64Array:
    """NLL of a predictive that is mixed with a share of the uniform distribution, nats.

    Parameters
    ----------
    nll : float64 array
        Of the predictive itself.
    share : float
        Epsilon, in (0, 1).
    """
    return -np.log((1 - share) * np.exp(-nll) + share / n_classes)


def largest_softened_rise(share: float, n_classes: int) -> float:
    """By how much :func:`softened_nll` can rise, from a probability of 1 to one of 0."""
    return math.log1p(n_classes * (1 - share) / share)
