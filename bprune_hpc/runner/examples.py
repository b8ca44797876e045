"""The examples of a sweep: read, fitted to the network, and what was done to them.

Where a data set and a network meet. What does not belong here: reading files (``data.loading``),
the rules (``data.fitting``), what the network takes (``graph.network_input``).
"""

from __future__ import annotations

import logging
from typing import Any

from numpy.typing import NDArray

from .. import data
from ..config.sweep_config import SweepConfig
from ..data.fitting import NetworkInput
from ..data.values import Split
from ..errors import DataError
from ..metrics.tasks import Classification, Task
from .datasets import OUT_OF_DISTRIBUTION, TEST_SET, TRAINING, DataRecord, Examples

logger = logging.getLogger(__name__)

_Named = tuple[str, str, str | None, Split]
"""What examples are to the sweep, data set, path, and which half of it."""

_LIKE_UNITS = 3
"""Targets whose standard deviations differ by more are taken to have replicates of their own."""
_ANOTHER_SCALE = 50.0
"""Factor between two sets of examples from which on one has not been scaled as the other was."""


def check_paths(config: SweepConfig) -> None:
    """Raise DataError where a data set is not there: before a network is read."""
    task = "regression" if config.task == "regression" else "classification"
    for dataset, path in (
        (config.dataset, config.data_path), (config.ood_dataset, config.ood_path),
        (config.elbo_dataset, config.elbo_path),
    ):  # fmt: skip
        if dataset is not None and (path is not None or dataset != "auto"):
            data.check_path(dataset, path, task)


def read_sets(
    config: SweepConfig, task: Task, network: NetworkInput
) -> tuple[list[Examples], dict[str, str]]:
    """The sets of examples that a sweep names, the test set first, training data last; and digests
    of their files.

    Raises
    ------
    DataError
        If one cannot be read, or does not fit the network.
    """
    held_out: _Named = TEST_SET, config.dataset, config.data_path, "test"
    test, hashes = _labelled(config, task, network, held_out)
    sets = [test]
    if config.ood_dataset is not None:
        other, more = _other_kind(config, network, test)
        sets.append(other)
        hashes |= more
    if config.elbo_dataset is not None:
        trained_on: _Named = TRAINING, config.elbo_dataset, config.elbo_path, "train"
        training, more = _labelled(config, task, network, trained_on)
        _warn_of_scales(config.elbo_path or config.elbo_dataset, training, test)
        sets.append(training)
        hashes |= more
    return sets, hashes


def _labelled(
    config: SweepConfig, task: Task, network: NetworkInput, named: _Named
) -> tuple[Examples, dict[str, str]]:
    """Examples with labels."""
    which, dataset, path, split = named
    loaded = data.read(
        dataset,
        path,
        split=split,
        subtract_pixel_mean=config.subtract_pixel_mean,
        task=task.name,
        x_key=config.x_key,
        y_key=config.y_key,
        target_columns=config.target_columns,
        first_label=config.first_label,
        network=network,
    )
    try:
        if isinstance(task, Classification):
            data.check_labels(loaded.labels, task.n_classes, loaded.classes, loaded.n_columns)
        else:
            data.check_targets(loaded.labels, task.n_targets)
            _warn_of_units(loaded.labels)
        fitted = _fit(loaded, config, network, which, path)
    except DataError as error:
        raise DataError(f"{path or loaded.name}: {error}") from error
    asked = {
        "layout": config.layout,
        "input_scale": None if fitted.is_usual else fitted.scale,
        "x_key": config.x_key,
        "y_key": config.y_key,
        "target_columns": ",".join(config.target_columns),
        "first_label": str(config.first_label or ""),
    }
    choices = {flag: value for flag, value in asked.items() if value}
    record = DataRecord(fitted.scaling, fitted.scale, loaded.classes, choices)
    return Examples(which, fitted.x, loaded.labels, record), loaded.sha256


def _other_kind(
    config: SweepConfig, network: NetworkInput, test: Examples
) -> tuple[Examples, dict[str, str]]:
    """Examples of another kind, which need no labels."""
    assert config.ood_dataset is not None
    loaded = data.read(
        config.ood_dataset,
        config.ood_path,
        split="test",
        subtract_pixel_mean=config.subtract_pixel_mean,
        x_key=config.x_key,
        target_columns=config.target_columns,
        with_labels=False,
        network=network,
    )
    name = config.ood_path or loaded.name
    try:
        fitted = _fit(loaded, config, network, OUT_OF_DISTRIBUTION, config.ood_path)
        shapes = fitted.x.shape[1:], test.x.shape[1:]
        if shapes[0] != shapes[1]:
            raise DataError(f"one example has shape {shapes[0]}, those of the test set {shapes[1]}")
    except DataError as error:
        finding = str(error).partition("; give the data set")[0]
        fix = "; give examples of the test set's shape" if "has shape" in finding else ""
        raise DataError(f"{name}: {finding}{fix}") from error
    record = DataRecord(fitted.scaling, fitted.scale)
    other = Examples(OUT_OF_DISTRIBUTION, fitted.x, None, record)
    _warn_of_scales(name, other, test)
    return other, loaded.sha256


def _warn_of_scales(name: str, other: Examples, test: Examples) -> None:
    """Say where examples have not been scaled as those of the test set were."""
    largest = [max(abs(float(x.min())), abs(float(x.max()))) for x in (other.x, test.x)]
    if other.record.scale == test.record.scale or max(largest) <= _ANOTHER_SCALE * min(largest):
        return
    effect = (
        "uncertainty may tell them apart by that alone"
        if other.label is None
        else "the free energy is of another input"
    )
    logger.warning(
        "%s: %s, up to %.4g, but the test set is %s, up to %.4g: %s; store both alike",
        name, other.record.scaling, largest[0], test.record.scaling, largest[1], effect,
    )  # fmt: skip


def _warn_of_units(targets: NDArray[Any]) -> None:
    """Say where averages over targets are those of the one whose numbers are largest."""
    if targets.ndim == 1:
        return
    spread = targets.std(axis=0)
    if spread.max() > _LIKE_UNITS * spread.min():
        logger.warning(
            "targets differ in size (standard deviations %.4g to %.4g), so the largest dominate "
            "RMSE and other averages over targets; /targets has each one by itself",
            spread.min(), spread.max(),
        )  # fmt: skip


def _fit(
    loaded: data.DataSet,
    config: SweepConfig,
    network: NetworkInput,
    which: str,
    path: str | None,
) -> data.Fitted:
    fitted = data.fit(
        loaded.x,
        network,
        input_scale=config.input_scale,
        layout=config.layout,
        scaling=loaded.scaling,
        is_scaled=loaded.is_scaled,
    )
    logger.info("%s: %s", which, data.describe(loaded, path, fitted))
    logger.info("%s: input %s, %s", which, fitted.scaling, fitted.why)
    for warning in fitted.warnings:
        logger.warning("%s: %s", path or loaded.name, warning)
    return fitted
