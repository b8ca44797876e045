"""The model card: what a pruned network is, where it came from, and what was measured of it.

``model_card.json`` is for programs, ``model_card.md`` for people; both say the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.case import Source
from ..job.environment import versions
from ..metrics.estimates import number_with_error, number_with_interval
from ..metrics.tasks import Classification
from ..posterior.pruning import PruningRule
from . import size_and_speed
from .pruned_network import PrunedNetwork

FILE_NAME, TEXT_NAME = "model_card.json", "model_card.md"

_PACKAGES = ("bprune_hpc", "tensorflow", "numpy")


def provenance(source: Source, rule: PruningRule | None) -> dict[str, Any]:
    """Digests of what was read, the rule by which weights were pruned, and versions."""
    found: dict[str, Any] = {"sha256": dict(source.sha256), "step": source.step}
    if rule is not None:
        names = ("criterion", "scope", "granularity", "prior_scale", "seed")
        found |= {name: getattr(rule, name) for name in names}
    return {**found, "versions": versions(_PACKAGES)}


def make(
    network: PrunedNetwork,
    checks: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The card as JSON can hold it.

    Parameters
    ----------
    checks : mapping of str to mapping
        By format, what its check has given.
    measured : mapping of str to mapping
        See :func:`bprune_hpc.formats.measurement.measure`.
    """
    task, fitting = network.task, network.fitting
    of_task: dict[str, Any] = {"name": task.name}
    if isinstance(task, Classification):
        of_task |= {
            "n_classes": task.n_classes,
            "output_kind": task.output_kind,
            "class_names": None if network.class_names is None else list(network.class_names),
        }
    else:
        of_task |= {"n_targets": task.n_targets, "noise_scale": task.noise_scale}
    examples = network.examples
    return _finite(
        {
            "cut": network.cut,
            "n_weights": network.unpruned.posterior.n_weights,
            "n_active": network.mask.n_active,
            "pruned_fraction": network.mask.pruned_fraction,
            "tensors": {
                name: {
                    "shape": list(kept.shape),
                    "pruned_fraction": network.mask.pruned_fraction_of(name),
                }
                for name, kept in network.mask.kept.items()
            },
            "task": of_task,
            "input": {
                "shape": None if fitting.network.shape is None else list(fitting.network.shape),
                "dtype": fitting.network.dtype,
                "input_scale": fitting.input_scale,
                "layout": fitting.layout,
            },
            "source": {"kind": network.source.kind, "path": network.source.path},
            "provenance": dict(network.provenance),
            "sampling": asdict(network.sampling),
            "swept": {name: asdict(metric) for name, metric in network.metrics.items()},
            "measured": {name: dict(of_one) for name, of_one in measured.items()},
            "measured_on": None if examples is None else len(examples),
            "formats": {name: dict(check) for name, check in checks.items()},
        }
    )


def write(card: Mapping[str, Any], directory: Path) -> None:
    """Write the card for programs and for people."""
    (directory / FILE_NAME).write_text(json.dumps(card, indent=2, allow_nan=False) + "\n")
    (directory / TEXT_NAME).write_text(_markdown(card))


def text(card: Mapping[str, Any]) -> str:
    """What is printed at the end of an export."""
    lines = [_headline(card)]
    if card["measured"]:
        rows = _rows(card["measured"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *rest in rows:
            cells = zip(rest, widths[1:], strict=True)
            lines.append("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in cells)]))
    for name, check in card["formats"].items():
        lines.append(f"{name}: {_in_words(check)}")
    if "size_and_speed" in card:
        lines += ["", size_and_speed.as_text(card["size_and_speed"])]
    return "\n".join(lines)


def _headline(card: Mapping[str, Any]) -> str:
    n_active, n_weights = card["n_active"], card["n_weights"]
    share = 100 * n_active / n_weights
    return f"{card['cut']}: {n_active:,} of {n_weights:,} weights are left ({share:.2f} %)"


def _rows(measured: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """A table of numbers with both errors combined, its headings first."""
    names = list(next(iter(measured.values())))
    titles = {"rmse": "RMSE", "nll": "NLL"}
    rows = [["", *(titles.get(name, name) for name in names)]]
    for what, of_one in measured.items():
        rows.append([what, *(_number(of_one[name]) for name in names)])
    return rows


def _number(metric: Mapping[str, Any]) -> str:
    value, *errors = (
        math.nan if metric[key] is None else float(metric[key])
        for key in ("value", "se", "se_data")
    )
    if metric.get("low") is not None:
        return number_with_interval(value, metric["low"], metric["high"])
    return number_with_error(value, math.hypot(*errors))


def _in_words(check: Mapping[str, Any]) -> str:
    """What a check has found, one number after the other."""
    shown = []
    for name, value in check.items():
        if isinstance(value, Mapping):
            shown += [
                f"{name} of {what.replace('_', ' ')} {one:.2g}" for what, one in value.items()
            ]
        elif name != "place" and not isinstance(value, Sequence):
            number = f"{value:.3g}" if isinstance(value, float) else f"{value}"
            shown.append(f"{name.replace('_', ' ')} {number}")
    return "; ".join(shown)


def _markdown(card: Mapping[str, Any]) -> str:
    source, input_, sampling = card["source"], card["input"], card["sampling"]
    lines = [
        "# A pruned Bayesian network",
        "",
        f"{_headline(card)}.",
        "",
        f"- from `{source['path']}` ({source['kind']})",
        f"- task: {', '.join(f'{k} {v}' for k, v in card['task'].items() if v is not None)}",
        f"- takes {input_['dtype']} of shape {input_['shape']}; input scale: "
        f"{input_['input_scale']}",
        f"- draws: {sampling['n_draws']}, seed {sampling['seed']}, {sampling['pairing']}",
        "",
    ]
    if card["measured"]:
        first, *rest = _rows(card["measured"])
        lines += [
            f"## Measured on {card['measured_on']} examples",
            "",
            "± is one standard error, [ ] a 95 % interval.",
            "",
            *_table(["used as", *first[1:]], rest),
            "The network at its mean is another predictor than the posterior.",
            "",
        ]
    if card["swept"]:
        rows = [
            [name, *(_plain(metric[key]) for key in ("value", "se", "se_data"))]
            for name, metric in card["swept"].items()
        ]
        lines += [
            "## What the sweep has found at this threshold",
            "",
            *_table(["metric", "value", "Monte Carlo error", "test-set error"], rows),
        ]
    lines += ["## Formats", ""]
    lines += _table(
        ["format", "where", "found when it was opened again"],
        [
            [name, f"`{check['place']}`", _in_words(check)]
            for name, check in card["formats"].items()
        ],
    )
    if "size_and_speed" in card:
        table = size_and_speed.as_text(card["size_and_speed"])
        lines += ["## Size and speed, measured in one run", "", "```text", table, "```", ""]
    lines += ["## Provenance", "", "```json", json.dumps(card["provenance"], indent=2), "```"]
    return "\n".join(lines) + "\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _finite(value: Any) -> Any:
    """The same with null in place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
