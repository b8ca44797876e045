"""Every metric of both tasks: name, meaning, units, and how its errors are had. Pure.

What a metric is worked out from does not belong here (``metrics.classification``,
``metrics.regression``, ``metrics.ood``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

TOP_K = 3
"""Classes that count as right for ``accuracy_top_k``, where there are more than these."""

LEVELS = (50, 90, 95)
"""Central intervals, per cent of probability, whose share of targets is counted."""

TARGET_UNITS = "units of the target"


@dataclass(frozen=True)
class Definition:
    """What is known of a metric before anything is measured.

    Attributes
    ----------
    name : str
    long_name : str
        What it is, for the results file.
    units : str
    quantity : str
        Of single examples, of which it is the mean: its own name, where it is empty.
    is_of_set : bool
        Whether it is no such mean, but a statistic of the whole set.
    is_root : bool
        Whether it is the root of the mean.
    is_discrete : bool
        Whether it moves in steps, so that its errors are rough.
    is_average : bool
        Whether it is an average over draws, so that its Monte Carlo error is exactly that of one.
    is_corrected : bool
        Whether it is a smooth function of the average over draws, whose bias of order 1/draws is
        taken off.
    has_draws : bool
        Whether it depends on draws, so that it has a Monte Carlo error.
    interval : {"mean", "share", "area", "positive", "biased"}
        Which kind its interval is, see ``metrics.intervals``.
    is_unbounded : bool
        Whether single examples can add any amount to it: then a test set that lacks rare large
        ones cannot tell of them, and its interval misses.
    has_band : bool
        Whether it has a band that holds at all thresholds together.
    difference_of : str
        The metric that it is the difference of, to the first threshold; empty where it is none.
    sign : float
        Of the difference: -1 where it is the first threshold's value less that here.
    """

    name: str
    long_name: str
    units: str = "1"
    quantity: str = ""
    is_of_set: bool = False
    is_root: bool = False
    is_discrete: bool = False
    is_average: bool = False
    is_corrected: bool = False
    has_draws: bool = True
    interval: str = "mean"
    is_unbounded: bool = False
    has_band: bool = False
    difference_of: str = ""
    sign: float = 1.0

    @property
    def has_halves(self) -> bool:
        """Whether its Monte Carlo error is by half-samples, not by leaving groups out."""
        return self.is_discrete and not self.is_average


_IN_BANDS = ("predictive_entropy", "expected_entropy", "mutual_information")
"""Of which the change has a band."""


def _with_changes(*definitions: Definition) -> dict[str, Definition]:
    """Definitions by name, with the differences, ``NAME_change``, that they do not name."""
    named = {definition.difference_of for definition in definitions}
    changes = [
        replace(
            definition,
            name=f"{definition.name}_change",
            long_name=f"{definition.long_name}: less that at the first threshold",
            difference_of=definition.name,
            has_band=definition.name in _IN_BANDS,
        )
        for definition in definitions
        if not definition.difference_of and definition.name not in named
    ]
    return {definition.name: definition for definition in (*definitions, *changes)}


_step = partial(Definition, is_discrete=True, interval="share")
_smooth = partial(Definition, is_corrected=True)
_of_set = partial(Definition, is_of_set=True, is_discrete=True)
_area = partial(_of_set, interval="area")
_of_target = partial(Definition, units=TARGET_UNITS)
_loss = partial(_of_target, is_unbounded=True)


def _areas(kind: str, examples: str) -> list[Definition]:
    """Areas under the curves of both scores, of examples that are positive against the rest."""
    precision = "average precision of mutual information for the same"
    return [
        _area(f"auroc_{kind}_entropy", f"AUROC of predictive entropy for {examples}"),
        _area(f"aupr_{kind}_entropy", f"average precision of predictive entropy for {examples}"),
        _area(f"auroc_{kind}_mutual_information", f"AUROC of mutual information for {examples}"),
        _area(f"aupr_{kind}_mutual_information", precision),
    ]


_INFORMATION = "predictive less expected entropy, corrected for its bias in 1/draws"
_VARIANCE = (
    "variance over draws of the class probabilities, summed over classes, "
    "corrected for its bias in 1/draws"
)
_DROP = "accuracy at the first threshold less that here, on the same examples"

_L2 = (
    "square of the l2 calibration error, 15 bins of equal numbers of examples, debiased: can be "
    "negative"
)

CLASSIFICATION = _with_changes(
    _step("accuracy", "accuracy of the predictive averaged over draws"),
    _step(
        "accuracy_top_k", f"share of examples whose true class is among the {TOP_K} most probable"
    ),
    _step("accuracy_single_draw", "mean accuracy of single draws", is_average=True),
    _step(
        "accuracy_mean_weights", "accuracy of the network at its posterior mean", has_draws=False
    ),
    _smooth("nll", "negative log-likelihood of the averaged predictive", "nat", is_unbounded=True),
    _smooth("brier", "Brier score of the averaged predictive, summed over classes"),
    _smooth("predictive_entropy", "entropy of the averaged predictive", "nat"),
    # Has no such bias; with it in the list, mutual information remains the difference.
    _smooth("expected_entropy", "mean entropy of single draws' predictions", "nat"),
    _smooth("mutual_information", _INFORMATION, "nat"),
    _smooth("probability_variance", _VARIANCE),
    _of_set("ece", "expected calibration error, 15 bins of equal width", interval="biased"),
    _of_set(
        "ece_equal_mass",
        "expected calibration error, 15 bins of equal numbers of examples",
        interval="biased",
    ),
    _of_set("calibration_error_l2_squared", _L2),
    _of_set("aurc", "area under the risk-coverage curve, by confidence", interval="positive"),
    *_areas("errors", "misclassified examples"),
    _step("accuracy_drop", _DROP, difference_of="accuracy", sign=-1.0, has_band=True),
    _smooth(
        "nll_rise",
        "NLL here less that at the first threshold, on the same examples",
        "nat",
        is_unbounded=True,
        difference_of="nll",
        has_band=True,
    ),
)

OUT_OF_DISTRIBUTION = _with_changes(*_areas("ood", "examples of the other set"))
"""Of a classification, where there are examples of another kind, which are the positive ones."""

_DENSITY = "negative log-density of the predictive mixture"

REGRESSION = _with_changes(
    _loss(
        "rmse",
        "root mean squared error of the predictive mean",
        quantity="squared_error",
        is_root=True,
        is_corrected=True,
    ),
    _loss(
        "rmse_single_draw",
        "root mean squared error of single draws' means",
        quantity="squared_error_single_draw",
        is_root=True,
    ),
    _loss(
        "rmse_mean_weights",
        "root mean squared error of the network at its posterior mean",
        quantity="squared_error_mean_weights",
        is_root=True,
        has_draws=False,
    ),
    _loss(
        "mae",
        "mean absolute error of the predictive mean",
        quantity="absolute_error",
        is_corrected=True,
    ),
    _smooth("nll", _DENSITY, "nat", is_unbounded=True),
    _loss("crps", "continuous ranked probability score of the predictive mixture, unbiased"),
    *(
        _step(
            f"coverage_{level}",
            f"share of targets in the central {level} % predictive interval",
            quantity=f"inside_{level}",
        )
        for level in LEVELS
    ),
    _of_target(
        "sharpness", "predictive standard deviation", quantity="predictive_sd", is_corrected=True
    ),
    _smooth(
        "epistemic_variance",
        "variance over draws of their means, corrected for its bias in 1/draws",
        f"({TARGET_UNITS})^2",
    ),
    Definition(
        "aleatoric_variance", "mean over draws of their own variance", f"({TARGET_UNITS})^2"
    ),
    _smooth(
        "nll_rise",
        f"{_DENSITY}: less that at the first threshold",
        "nat",
        is_unbounded=True,
        difference_of="nll",
        has_band=True,
    ),
)

ALL = CLASSIFICATION | OUT_OF_DISTRIBUTION | REGRESSION
"""By name, whatever the task: where two have a name in common, they differ in its meaning alone."""
