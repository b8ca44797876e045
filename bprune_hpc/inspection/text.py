"""How the contents of a case are written: as text for people, as JSON for machines.

What belongs here: layout. What does not: the numbers (``inspection.tensors``), the figure
(``inspection.figure``), reading and printing (``inspect``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..checkpoints.case import Case, Source
from ..graph.lifted import LiftedGraph
from ..graph.network_input import network_input
from .tensors import COLLAPSED_BELOW_NATS, KINDS, TensorRow, collapsed_fraction, totals

SCHEMA = "bprune-hpc/inspect/1"

_HEADINGS = (
    "tensor", "shape", "kind", "size",
    "mean |loc|", "med. scale", "SNR 5 %", "50 %", "95 %", "collapsed",
)  # fmt: skip
_LEFT_ALIGNED = 3


def rule(prior_scale: float) -> str:
    """The rule behind the column ``collapsed``, in one line."""
    return (
        f"collapsed: KL(N(loc, scale²) || N(0, {prior_scale:g}²)) of the weight is below "
        f"{COLLAPSED_BELOW_NATS:g} nats (over-pruning, Trippe & Turner 2018; --prior_scale)"
    )


def text(name: str, case: Case, rows: Sequence[TensorRow], prior_scale: float) -> str:
    """The contents of a case for people: where it is from, a line for each tensor, totals.

    Parameters
    ----------
    name : str
        What the user called the case.
    """
    source, graph = case.source, case.graph
    step = "step unknown" if source.step is None else f"step {source.step}"
    writer = f"written by {_writer(source)}"
    lines = [
        f"case    {name}",
        f"source  {source.kind}: {source.path}, {step}, {writer}",
        f"input   {_operation(graph.input_tensor)} {_shape(graph.input_shape)} {_input(case)}",
        f"output  {_outputs(graph)} {_shape(graph.output_shape)}: {_kind(graph)}",
        *(f"note    {note}" for note in graph.notes),
        "",
        *_table([list(_HEADINGS), *(_cells(row) for row in rows)]),
        "",
    ]
    total = totals(rows)
    share = f"; {_percent(collapsed_fraction(rows))} collapsed to the prior"
    for kind in KINDS:
        found = total[kind]
        lines.append(
            f"{kind:<10}  {_count(found.n_values, 'value')} in "
            f"{_count(found.n_tensors, 'tensor')}, {_bytes(found.n_bytes)}"
            f"{share if kind == 'mean-field' else ''}"
        )
    n_horovod = sum(n for op, n in source.dropped_ops.items() if op.startswith("Horovod"))
    n_dropped = sum(source.dropped_ops.values())
    lines.append(
        f"operations  {n_dropped:,} not needed by inference, {n_horovod} of them Horovod's"
    )
    return "\n".join([*lines, "", rule(prior_scale)])


def as_json(name: str, case: Case, rows: Sequence[TensorRow], prior_scale: float) -> str:
    """The same for machines; numbers in full, null for what is infinite or does not apply."""
    source, graph = case.source, case.graph
    taken = network_input(graph, case.fixed)
    tensors = []
    for row in rows:
        entry = asdict(row)
        if row.kind == "mean-field":
            entry["scale_variables"] = case.scale_variables.get(row.name, ())
        if row.snr_quantiles is not None:
            entry["snr_quantiles"] = {str(q): value for q, value in row.snr_quantiles.items()}
        tensors.append(entry)
    document = {
        "schema": SCHEMA,
        "case": name,
        "source": {
            "kind": source.kind,
            "path": source.path,
            "tf_version": source.tf_version or None,
            "step": source.step,
            "sha256": dict(source.sha256),
        },
        "input": {
            "tensor": graph.input_tensor,
            "shape": graph.input_shape,
            "dtype": graph.input_dtype,
            "layout": taken.layout or None,
            "flat_image": taken.flat_image,
            "own_scaling": taken.own_scaling or None,
        },
        "output": {
            "tensor": graph.output_tensor,
            "shape": graph.output_shape,
            "tensors": dict(graph.output_tensors),
            "kind": graph.output_kind,
        },
        "notes": graph.notes,
        "collapse_rule": {
            "text": rule(prior_scale),
            "prior_scale": prior_scale,
            "kl_below_nats": COLLAPSED_BELOW_NATS,
        },
        "tensors": tensors,
        "totals": {
            **{kind: asdict(total) for kind, total in totals(rows).items()},
            "collapsed_fraction": collapsed_fraction(rows),
        },
        "dropped_ops": dict(source.dropped_ops),
    }
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def _cells(row: TensorRow) -> list[str]:
    numbers = [row.mean_abs_loc, row.median_scale, *(row.snr_quantiles or {}).values()]
    numbers += [None] * (5 - len(numbers))
    shown = ["-" if number is None else f"{number:.3g}" for number in numbers]
    collapsed = "-" if row.collapsed_fraction is None else _percent(row.collapsed_fraction)
    size = "-" if row.n_bytes is None else _bytes(row.n_bytes)
    return [row.name, _shape(row.shape), row.kind, size, *shown, collapsed]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:<{width}}" if index < _LEFT_ALIGNED else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines


def _operation(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _outputs(graph: LiftedGraph) -> str:
    """The logits' operation; those of a regression's mean and deviation, named as such."""
    if "loc" not in graph.output_tensors:
        return _operation(graph.output_tensor)
    return ", ".join(f"{what} {_operation(name)}" for what, name in graph.output_tensors.items())


def _kind(graph: LiftedGraph) -> str:
    """What the output's numbers are, as far as the structure of the network says."""
    shape, kind = graph.output_shape, graph.output_kind
    is_single = shape is not None and (len(shape) == 1 or shape[-1] == 1)
    if kind == "mean_and_scale":
        return "a Normal"
    if kind is None:
        what = "a mean, or of two classes" if is_single else "logits or probabilities"
        return f"{what}, which a sweep is told or finds"
    if is_single:
        return f"one {'logit' if kind == 'logits' else 'probability'} of two classes"
    return kind


def _input(case: Case) -> str:
    """Type of the input, the order of its axes, and what the network does with it first."""
    taken = network_input(case.graph, case.fixed)
    said = [taken.dtype, taken.layout.replace("_", " ")]
    if taken.flat_image:
        said.append(f"flat rows of images {_shape(taken.flat_image)}")
    if taken.own_scaling:
        said.append(taken.own_scaling)
    return ", ".join(filter(None, said))


def _writer(source: Source) -> str:
    who = "Keras" if source.kind == "keras" else "TensorFlow"
    return f"{who} {source.tf_version}" if source.tf_version else f"an unknown {who}"


def _shape(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return "(shape unknown)"
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _bytes(n_bytes: int) -> str:
    if n_bytes < 1024:
        return f"{n_bytes} B"
    power = min((n_bytes.bit_length() - 1) // 10, 3)
    return f"{n_bytes / 1024**power:.1f} {'KMG'[power - 1]}iB"


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
