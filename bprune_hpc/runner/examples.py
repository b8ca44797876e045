"""The examples of a sweep: read, fitted to the network, and what was done to them.

Where a data set and a network meet. What does not belong here: reading files (``data.loading``),
the rules (``data.fitting``), what the network takes (``graph.network_input``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .. import data
from ..config.sweep_config import SweepConfig
from ..data.fitting import NetworkInput
from ..errors import DataError
from ..metrics.tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataRecord:
    """What was done to the examples, and what the labels are called.

    Attributes
    ----------
    scaling : str
        Type of the examples as stored, and what they were multiplied by.
    classes : tuple of str or None
        Names of the classes, where the labels are text.
    choices : mapping of str to str
        What defines the examples and is not what is done where nothing is asked for, by name.
    """

    scaling: str = ""
    classes: tuple[str, ...] | None = None
    choices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedSet:
    """A data set as a network takes it.

    Attributes
    ----------
    x : array, shape (n, ...)
    y : int64 or float64 array, shape (n,), or None
    sha256 : mapping of str to str
        Of every file that was read.
    record : DataRecord
    scale : str
        What the examples were multiplied by.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    sha256: Mapping[str, str]
    record: DataRecord
    scale: str

    @property
    def labels(self) -> NDArray[Any]:
        """``y`` of a set that has labels."""
        assert self.y is not None
        return self.y


def check_paths(config: SweepConfig) -> None:
    """Raise DataError where a data set is not there: before a network is read."""
    task = "regression" if config.task == "regression" else "classification"
    for dataset, path in (
        (config.dataset, config.data_path), (config.ood_dataset, config.ood_path)
    ):  # fmt: skip
        if dataset is not None and (path is not None or dataset != "auto"):
            data.check_path(dataset, path, task)


def read_test_set(config: SweepConfig, task: Task, network: NetworkInput) -> FittedSet:
    """The labelled examples that a sweep names.

    Raises
    ------
    DataError
        If they cannot be read, or do not fit the network.
    """
    loaded = data.read(
        config.dataset,
        config.data_path,
        split="test",
        subtract_pixel_mean=config.subtract_pixel_mean,
        task=task.name,
        x_key=config.x_key,
        y_key=config.y_key,
        target_columns=config.target_columns,
        first_label=config.first_label,
        network=network,
    )
    name = config.data_path or loaded.name
    try:
        if task.name == "classification" and loaded.y is not None:
            data.check_labels(loaded.y, task.n_classes, loaded.classes)
        fitted = _fit(loaded, config, network, "test set", config.data_path)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    asked = {
        "layout": config.layout,
        "input_scale": None if fitted.is_usual else fitted.scale,
        "x_key": config.x_key,
        "y_key": config.y_key,
        "target_columns": ",".join(config.target_columns),
        "first_label": str(config.first_label or ""),
    }
    choices = {key: value for key, value in asked.items() if value}
    record = DataRecord(fitted.scaling, loaded.classes, choices)
    return FittedSet(fitted.x, loaded.y, loaded.sha256, record, fitted.scale)


def read_other_kind(config: SweepConfig, network: NetworkInput, test_set: FittedSet) -> FittedSet:
    """The examples of another kind that a sweep names; they need no labels.

    Raises
    ------
    DataError
        If they cannot be read, or are not of the test set's shape.
    """
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
        fitted = _fit(loaded, config, network, "out of distribution", config.ood_path)
        if fitted.x.shape[1:] != test_set.x.shape[1:]:
            raise DataError(
                f"one example of the data has shape {fitted.x.shape[1:]}, those of the test set "
                f"{test_set.x.shape[1:]}"
            )
    except DataError as error:
        finding = str(error).partition("; give the data set")[0]
        fix = "; give examples of the test set's shape" if "has shape" in finding else ""
        raise DataError(f"{name}: {finding}{fix}") from error
    if fitted.scale != test_set.scale:
        logger.warning(
            "%s: %s, but the test set is %s: uncertainty may tell them apart by that alone; store "
            "both alike",
            name, fitted.scaling, test_set.record.scaling,
        )  # fmt: skip
    record = DataRecord(fitted.scaling)
    return FittedSet(fitted.x, None, loaded.sha256, record, fitted.scale)


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
    logger.info("input of the %s: %s, %s", which, fitted.scaling, fitted.why)
    for warning in fitted.warnings:
        logger.warning("%s: %s", path or loaded.name, warning)
    return fitted
