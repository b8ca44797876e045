"""How a network's means and scales come of its variables, and which variables make weights zero.

What belongs here: the graph's own functions from variables to the posterior, evaluated at other
values. What does not: reading and writing variables (``checkpoints``), which weights are to be zero
(``posterior.pruning``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from .constant_folding import Evaluator
from .nodes import Tensor

Values = Mapping[str, NDArray[np.floating]]
Floats = NDArray[np.floating]

_LOW, _HIGH = -0.5, 0.25
"""Two numbers at which a scale is told by what it is: no parametrisation in use is even in them."""
_SIZES = sorted(
    {0.0, 1.2e-38, 1e-30, 1e-20, 1e-10, *(2.0 ** (quarter / 4) for quarter in range(-16, 41))}
)
_CANDIDATES = [sign * size for size in _SIZES for sign in (1, -1) if size or sign == 1]
"""Numbers that a variable is tried at, by size: up to 1024, where softplus and exp have long met 0
or what is added to them."""
_SAME = 1e-6


@dataclass(frozen=True)
class WeightEnds:
    """Where a mean-field tensor comes from.

    Attributes
    ----------
    loc, scaled : Tensor
        In the uncut graph; ``scaled`` with its noise at 1.
    is_variance : bool
        Whether ``scaled`` is the scale's square.
    loc_variables, scale_variables : tuple of str
        Stored names of what they are computed from.
    """

    loc: Tensor
    scaled: Tensor
    is_variance: bool
    loc_variables: tuple[str, ...]
    scale_variables: tuple[str, ...]


class SharedError(GraphError):
    """Weights cannot be made zero one by one, as some have a number in common."""


class Parametrization:
    """The functions from variables to the posterior.

    Parameters
    ----------
    evaluator : Evaluator
        Of the uncut graph.
    ends : mapping of str to WeightEnds
        By mean-field tensor.
    shapes : mapping of str to tuple of int
        Of the tensors in the posterior.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        ends: Mapping[str, WeightEnds],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._evaluator = evaluator
        self._ends = dict(ends)
        self._shapes = dict(shapes)

    @property
    def variables(self) -> tuple[str, ...]:
        """Stored names of all variables that means and scales are computed from."""
        ends = self._ends.values()
        return tuple(
            sorted({name for one in ends for name in (*one.loc_variables, *one.scale_variables)})
        )

    def zeroed(
        self,
        values: Values,
        pruned: Mapping[str, NDArray[np.bool_]],
        advance: Callable[[int], None] = lambda n: None,
    ) -> dict[str, Floats]:
        """New values of the variables, with which some weights are zero as nearly as can be.

        A mean becomes exactly 0 where the graph can give that. A scale becomes the smallest normal
        number that the graph gives, so that its logarithm stays finite; or 0 in a tensor that has
        such scales already. What is zero already stays as it is.

        Parameters
        ----------
        values : mapping of str to array
            Of all ``variables``, as they are stored.
        pruned : mapping of str to bool array
            Of each tensor, True where a weight is to be zero.
        advance : callable
            Called with the number of evaluations just done.

        Returns
        -------
        dict
            Of the variables that change.

        Raises
        ------
        SharedError
            If a number that is to change is that of another weight too, which is not pruned; or if
            a weight is computed from several.
        """
        tensors = [tensor for one in self._ends.values() for tensor in (one.loc, one.scaled)]
        with self._evaluator.function(tensors) as run:

            def posterior(at: Values) -> dict[tuple[str, str], NDArray[np.float64]]:
                found = iter(run({**values, **at}))
                advance(1)
                table = {}
                for name, one in self._ends.items():
                    table[name, "loc"] = _as(next(found), self._shapes[name])
                    scaled = np.abs(_as(next(found), self._shapes[name]))
                    table[name, "scale"] = np.sqrt(scaled) if one.is_variance else scaled
                return table

            return self._zeroed(values, pruned, posterior)

    def _zeroed(
        self,
        values: Values,
        pruned: Mapping[str, NDArray[np.bool_]],
        posterior: Callable[[Values], dict[tuple[str, str], NDArray[np.float64]]],
    ) -> dict[str, Floats]:
        main = {}
        for name, one in self._ends.items():
            # Where a scale has a factor for the whole layer, that stays as it is.
            main[name, "loc"] = max(one.loc_variables, key=lambda v: values[v].size)
            main[name, "scale"] = max(one.scale_variables, key=lambda v: values[v].size)
        mains = set(main.values())
        stored = posterior({})
        elements = _elements(values, mains, main, posterior)
        best = _least(values, mains, posterior, stored)
        changed: dict[str, Floats] = {}
        for variable in sorted(mains):
            stays = np.zeros(values[variable].size, bool)
            goes = np.zeros(values[variable].size, bool)
            new = np.array(values[variable])
            flat = new.reshape(-1)
            for key in [key for key, of in main.items() if of == variable]:
                name, is_pruned = key[0], pruned[key[0]].ravel()
                is_new = is_pruned & ((stored[name, "loc"] != 0) | (stored[name, "scale"] != 0))
                stays[elements[key][~is_pruned]] = True
                goes[elements[key][is_new]] = True
                flat[elements[key][is_new]] = best[key][is_new]
                if (stays & goes).any():
                    raise SharedError(
                        f"'{name}': weights share their {key[1]} (in '{variable}'), so that it "
                        "cannot be made 0 for some of them"
                    )
            if goes.any():
                changed[variable] = new
        return changed


def _as(found: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers in the shape of the posterior's tensor, one number standing for many."""
    size = int(np.prod(shape))
    whole = found.reshape(shape) if found.size == size else np.broadcast_to(found, shape)
    return np.asarray(whole, np.float64).ravel()


def _elements(
    values: Values,
    mains: set[str],
    main: Mapping[tuple[str, str], str],
    posterior: Callable[[Values], dict[tuple[str, str], NDArray[np.float64]]],
) -> dict[tuple[str, str], NDArray[np.intp]]:
    """Which number of its variable each mean and each scale is computed from.

    Each number is given the digits of its own place in base 2, one evaluation a digit.
    """

    def filled(low: float) -> dict[str, Floats]:
        return {name: np.full_like(values[name], low) for name in mains}

    at_low, at_high = posterior(filled(_LOW)), posterior(filled(_HIGH))
    found = {key: np.zeros(at.size, np.intp) for key, at in at_low.items()}
    for digit in range(max(values[name].size - 1 for name in mains).bit_length()):
        codes = {
            name: np.where((np.arange(values[name].size) >> digit) & 1, _HIGH, _LOW)
            .astype(values[name].dtype)
            .reshape(values[name].shape)
            for name in mains
        }
        for key, at in posterior(codes).items():
            is_low, is_high = _close(at, at_low[key]), _close(at, at_high[key])
            if not (is_low ^ is_high).all():
                raise SharedError(
                    f"'{key[0]}': its {key[1]} is not computed number by number from '{main[key]}'"
                )
            found[key] |= is_high.astype(np.intp) << digit
    return found


def _close(found: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.abs(found - expected) <= _SAME * np.abs(expected)


def _least(
    values: Values,
    mains: set[str],
    posterior: Callable[[Values], dict[tuple[str, str], NDArray[np.float64]]],
    stored: Mapping[tuple[str, str], NDArray[np.float64]],
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """For each mean and scale the number at which it is smallest; of equals the one nearest 0.

    ``stored`` has what they are: a scale is 0 only where others of its tensor are.
    """
    smallest = float(np.finfo(np.float32).tiny)
    best: dict[tuple[str, str], NDArray[np.float64]] = {}
    least: dict[tuple[str, str], NDArray[np.float64]] = {}
    for at in _CANDIDATES:
        with np.errstate(over="ignore"):
            filled = {name: np.full_like(values[name], at) for name in mains}
        for key, found in posterior(filled).items():
            size = np.abs(found)
            allowed = np.isfinite(size)
            if key[1] == "scale" and stored[key].all():
                allowed &= size >= smallest
            size = np.where(allowed, size, np.inf)
            if key not in best:
                best[key], least[key] = np.full(size.shape, float(at)), size
                continue
            is_better = size < least[key] * (1 - _SAME)
            best[key][is_better] = at
            least[key] = np.where(is_better, size, least[key])
    return best
