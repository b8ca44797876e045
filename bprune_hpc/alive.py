"""Which units of a chain of dense layers still do something, once weights are zero.

Pure. A unit that no varying unit feeds is a constant; a unit that feeds nothing is not needed.
Leaving both out is exact. Running what is left does not belong here (``chain_network``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Alive:
    """The units between two layers that the outputs depend on.

    Attributes
    ----------
    varying : int array
        Those that depend on the example, in ascending order.
    constant : int array
        Those that do not; their value is that of their bias and of other constants.
    """

    varying: Indices
    constant: Indices


def alive_units(nonzero: Sequence[NDArray[np.bool_]]) -> list[Alive]:
    """Find the units that are left in a chain of dense layers.

    Parameters
    ----------
    nonzero : sequence of bool array, shape (n_in, n_out) of each layer
        Where a weight is not exactly zero.

    Returns
    -------
    list of Alive
        One more than there are layers: the inputs first, of which none is constant, and the
        outputs last, all of which count as varying.
    """
    varies = [np.ones(nonzero[0].shape[0], bool)]
    for mask in nonzero:
        varies.append(mask[varies[-1]].any(axis=0))
    varies[-1][:] = True
    needed = [np.ones(nonzero[-1].shape[1], bool)]
    for mask in reversed(nonzero):
        needed.append(mask[:, needed[-1]].any(axis=1))
    needed.reverse()
    constant = [needed[0] & False]
    constant += [need & ~vary for need, vary in zip(needed[1:], varies[1:], strict=True)]
    return [
        Alive(np.flatnonzero(need & vary), np.flatnonzero(fixed))
        for need, vary, fixed in zip(needed, varies, constant, strict=True)
    ]
