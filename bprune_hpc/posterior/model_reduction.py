"""What pruning does to the parts of the free energy that have a closed form.

Pure: posterior, masks and prior in, numbers out. The expected likelihood, which is measured, does
not belong here (``metrics.free_energy``), nor does the score of a single weight
(``posterior.criteria``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .criteria import Floats, bmr, kl
from .mean_field import Posterior, Prior
from .pruning import PruningMask


@dataclass(frozen=True)
class ClosedForm:
    """Closed forms at each of some thresholds.

    Attributes
    ----------
    complexity : float64 array, shape (n_thresholds,), nats
        KL divergence from the prior of the weights that are left; a weight that is exactly zero,
        mean and deviation, costs none.
    evidence_lost : float64 array, shape (n_thresholds,), nats, or None
        Loss of log evidence by fixing the pruned weights at zero, as the posterior alone tells it:
        by how much the free energy is predicted to rise (Bayesian model reduction). None where
        pruned weights are not zero.

    References
    ----------
    J. Beckers, B. van Erp, Z. Zhao, K. Kondrashov, B. de Vries, "Principled pruning of Bayesian
    neural networks through variational free energy minimization", arXiv:2210.09134.
    """

    complexity: Floats
    evidence_lost: Floats | None

    def at(self, indices: Sequence[int]) -> ClosedForm:
        """Those of some of the thresholds."""
        some = list(indices)
        lost = self.evidence_lost
        return ClosedForm(self.complexity[some], None if lost is None else lost[some])


def closed_form(
    posterior: Posterior, masks: Sequence[PruningMask], prior: Mapping[str, Prior]
) -> ClosedForm:
    """The closed forms of a posterior at each mask.

    Parameters
    ----------
    prior : mapping of str to Prior
        Of every tensor.

    Raises
    ------
    ValueError
        If a weight has a mean and no deviation: its divergence is infinite.
    """
    complexity, lost = np.zeros(len(masks)), np.zeros(len(masks))
    for name, loc in posterior.loc.items():
        of_prior = prior[name].scale, prior[name].loc
        of_weights = kl(loc, posterior.scale[name], *of_prior)
        if not np.isfinite(of_weights).all():
            raise ValueError(f"'{name}' has weights without a deviation")
        evidence = bmr(loc, posterior.scale[name], *of_prior)
        nothing = np.zeros(1, np.float32)
        for index, mask in enumerate(masks):
            kept = mask.kept[name]
            of_pruned = kl(nothing, nothing + np.float32(mask.pruned_scale), *of_prior)
            complexity[index] += np.where(kept, of_weights, of_pruned).sum()
            lost[index] += np.where(kept, 0.0, evidence).sum()
    are_zero = all(mask.pruned_scale == 0 for mask in masks)
    return ClosedForm(complexity, lost if are_zero else None)
