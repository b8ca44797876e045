"""What a sweep has found in the form of a results file: which number goes under which name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import BoolArray, Float64Array
from ..accumulators.classification import DrawSums
from ..accumulators.regression import NormalDrawSums
from ..config.sweep_config import SweepConfig
from ..metrics.nonfinite import blank
from ..metrics.regression import RegressionStatistics
from ..metrics.stopping import Target
from ..posterior.criteria import CRITERIA
from ..posterior.mean_field import Posterior
from ..posterior.pruning import PruningMask
from ..runner.datasets import OUT_OF_DISTRIBUTION, TEST_SET, TRAINING
from ..runner.network import Network
from ..runner.preparation import PreparedSweep
from ..runner.statistics import SweepStatistics
from . import contents_classification, contents_free_energy, contents_regression
from .choice import choice
from .file import SCHEMA, Contents, Variable

_INPUTS = {OUT_OF_DISTRIBUTION: "ood_input", TRAINING: "elbo_input"}
"""Attribute with the scaling of further examples, by what they are to the sweep."""
_SNR_EDGES = np.concatenate([[0.0], np.logspace(-6, 3, 91), [np.inf]])
_SNR_QUANTILES = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])

_DRAW = {
    "shared": "one network, the same for all examples",
    "per_block": "a network of its own for each block of noise_block examples",
    "per_example": "noise of its own for each example: a mean over examples of single predictions, "
    "of no one network",
}
"""What a draw of ``/draws`` is."""


def contents(
    sweep: PreparedSweep,
    sweep_statistics: SweepStatistics,
    run: Mapping[str, Any],
    status: str,
) -> Contents:
    """Everything a results file holds, under the names and dimensions of the schema.

    Parameters
    ----------
    run : mapping of str to number, str or list of one entry a rank
        Goes to ``/run``.
    status : {"complete", "partial"}
    """
    config, network = sweep.config, sweep.network
    records = {dataset.name: dataset.record for dataset in sweep.datasets}
    record = records[TEST_SET]
    masks = sweep_statistics.thresholds.of(sweep.masks)
    statistics, metrics, n_draws = (
        sweep_statistics.statistics[0],
        sweep_statistics.metrics,
        sweep_statistics.n_draws,
    )
    draw_sums = sweep_statistics.draw_sums
    posterior = network.posterior
    criterion, rule = CRITERIA[config.criterion], config.rule()
    heading = {"heading": rule.heading(config.grid_kind)}
    is_by_fraction = config.grid_kind == "fraction"
    pair_of_draw = [draw.noise for draws in statistics.plan.replicates for draw in draws]
    n_examples = len(statistics.label)
    coordinates = {
        "threshold": Variable(
            ("threshold",),
            np.array([mask.threshold for mask in masks]),
            {
                "long_name": criterion.meaning
                + (", as far as it reaches in any layer" if is_by_fraction else ""),
                "units": criterion.units,
                **({} if is_by_fraction else heading),
            },
        ),
        "requested_fraction": Variable(
            ("threshold",),
            np.array([mask.requested_fraction for mask in masks]),
            heading if is_by_fraction else {},
        ),
        "draw": Variable(("draw",), np.arange(n_draws)),
        "pair": Variable(("draw",), np.array(pair_of_draw, np.int64)),
        "example": Variable(("example",), np.arange(n_examples)),
        "layer": Variable(("layer",), list(posterior.names)),
        "failure": Variable(
            ("threshold",),
            sweep_statistics.failures,
            {"long_name": "where outputs were not finite"},
        ),
    }
    if isinstance(statistics, RegressionStatistics):
        assert isinstance(draw_sums, NormalDrawSums)
        of_the_task = contents_regression.groups(statistics, metrics, draw_sums)
        if statistics.target.ndim > 1:
            n_targets = statistics.target.shape[1]
            target = contents_regression.TARGET
            coordinates[target] = Variable((target,), np.arange(n_targets))
    else:
        assert isinstance(draw_sums, DrawSums)
        names = {} if record.classes is None else {"names": list(record.classes)}
        n_classes = network.task.n_classes
        coordinates["class"] = Variable(("class",), np.arange(n_classes), names)
        of_the_task = contents_classification.groups(statistics, metrics, draw_sums, n_classes)
    groups: dict[str, dict[str, Variable]] = {
        "sparsity": {**_sparsity(masks, posterior), **_priors(network)},
        **blanked(of_the_task, sweep_statistics.failed),
        **{f"snr/{name}": _snr(ratio) for name, ratio in posterior.snr().items()},
        "run": {name: _run_variable(value) for name, value in run.items()},
    }
    group_attrs = {
        "sparsity": _rule(config),
        "draws": {"draw": _DRAW[network.draw_noise]},
        "metrics": {
            "se": "NAME_se: Monte Carlo standard error, delete-group jackknife over pairs",
            "se_data": "NAME_se_data: standard error over test examples",
        },
    }
    n_classes = len(coordinates["class"].data) if "class" in coordinates else 0
    if (
        chosen := choice(config, masks, sweep_statistics, n_classes, status, network.draw_noise)
    ) is not None:
        groups["choice"], group_attrs["choice"] = chosen
    for other in sweep_statistics.statistics[1:]:
        groups |= blanked({"ood": contents_classification.ood(other)}, sweep_statistics.failed)
    if (energy := sweep_statistics.free_energy) is not None:
        groups["free_energy"], group_attrs["free_energy"] = contents_free_energy.group(
            energy, config, masks, len(sweep.datasets[-1])
        )
    if config.target is not None:
        group_attrs["metrics"] |= _target(config.target, sweep_statistics)
    is_whole = masks[0].prunes_nothing(config.criterion)
    doubt = network.task.doubt(statistics.label, metrics) if is_whole else ""
    return Contents(
        attrs={
            **({"doubt": doubt} if doubt else {}),
            "schema": SCHEMA,
            "status": status,
            "n_examples": n_examples,
            "task": network.task.name,
            "n_draws": n_draws,
            "draw_noise": network.draw_noise,
            **({"noise_block": network.noise_block} if network.noise_block else {}),
            "seed": np.uint64(config.seed),
            "config": config.to_json(),
            "checkpoint": network.checkpoint,
            "sha256": json.dumps(dict(network.sha256), sort_keys=True),
            "input": record.scaling,
            **{
                attribute: records[name].scaling
                for name, attribute in _INPUTS.items()
                if name in records
            },
        },
        coordinates=coordinates,
        groups=groups,
        group_attrs=group_attrs,
    )


def _target(target: Target, sweep_statistics: SweepStatistics) -> dict[str, Any]:
    metrics, failed = sweep_statistics.metrics, sweep_statistics.failed
    return {
        "target_metric": target.metric,
        "target_se": target.se,
        "target_reached": int(target.is_reached(metrics, failed)),
        "target_text": target.sentence(metrics, failed, sweep_statistics.n_draws),
    }


def _sparsity(masks: Sequence[PruningMask], posterior: Posterior) -> dict[str, Variable]:
    by_layer = [[mask.pruned_fraction_of(name) for name in posterior.names] for mask in masks]
    thresholds = [[mask.layer_threshold[name] for name in posterior.names] for mask in masks]
    return {
        "pruned_fraction": Variable(
            ("threshold",), np.array([mask.pruned_fraction for mask in masks])
        ),
        "n_active": Variable(("threshold",), np.array([mask.n_active for mask in masks])),
        "layer_pruned_fraction": Variable(("threshold", "layer"), np.array(by_layer)),
        "layer_threshold": Variable(("threshold", "layer"), np.array(thresholds)),
    }


def _priors(network: Network) -> dict[str, Variable]:
    """The prior of each layer, where it was read from the graph."""
    if network.prior is None:
        return {}
    priors = [network.prior[name] for name in network.posterior.names]
    return {
        "prior_loc": Variable(("layer",), np.array([prior.loc for prior in priors])),
        "prior_scale": Variable(("layer",), np.array([prior.scale for prior in priors])),
    }


def _rule(config: SweepConfig) -> dict[str, Any]:
    attrs = {
        "criterion": config.criterion,
        "scope": config.scope,
        "granularity": config.granularity,
        "pruned_weights": config.pruned_weights,
        "prior_scale": config.prior_scale,
    }
    return {name: value for name, value in attrs.items() if value is not None}


def _snr(ratio: Float64Array) -> dict[str, Variable]:
    counts, _ = np.histogram(ratio, _SNR_EDGES)
    return {
        "edges": Variable(("edge",), _SNR_EDGES),
        "counts": Variable(("bin",), counts.astype(np.int64)),
        "quantile": Variable(("quantile",), _SNR_QUANTILES),
        "quantiles": Variable(
            ("quantile",), np.quantile(ratio, _SNR_QUANTILES, method="inverted_cdf")
        ),
    }


def _run_variable(value: Any) -> Variable:
    if isinstance(value, list):
        return Variable(("rank",), value if isinstance(value[0], str) else np.array(value))
    return Variable((), value)


def blanked(
    groups: Mapping[str, Mapping[str, Variable]], failed: BoolArray
) -> dict[str, dict[str, Variable]]:
    """Datasets along the thresholds with NaN, integers with -1, where a threshold failed."""

    def blanked_variable(variable: Variable) -> Variable:
        if not failed.any() or variable.dims[:1] != ("threshold",):
            return variable
        return replace(variable, data=blank(np.asarray(variable.data), failed))

    return {
        group: {name: blanked_variable(variable) for name, variable in variables.items()}
        for group, variables in groups.items()
    }
