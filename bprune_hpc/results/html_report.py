"""A report of one sweep as a web page: one file, which opens without a network.

What belongs here: the page, and sentences that are made of the numbers. What does not: panels
(``results.figure``), numbers (``results.swept``).
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

import numpy as np

from ..metrics.definitions import ALL
from ..metrics.estimates import Metric, number_with_error, number_with_interval
from .figure import PANELS, panels_of, signs, svg
from .swept import Swept
from .table import LEGEND, columns_of, numbers

_CITATION = (
    "H. Sharma and E. Jennings, Bayesian neural networks at scale: a performance analysis and "
    "pruning study, 2020, arXiv:2005.11619"
)
_TWO_SIGMA = 1.96
_SIGNS = "± is one standard error, [ ] a 95 % interval."


def page(sweep: Swept, x: str, panels: Sequence[str] | None = None) -> str:
    """The report as HTML.

    Parameters
    ----------
    x : str
        Horizontal axis of the panels; see :data:`bprune_hpc.results.figure.AXES`.
    panels : sequence of str, optional
        Without, all that the file has.
    """
    drawn = [_panel(sweep, name, x) for name in panels_of([sweep], panels)]
    body = [
        f"<h1>{_e(sweep.title)}</h1>",
        f"<p class=lead>{_e(sweep.footer)}. File: <code>{_e(sweep.path)}</code></p>",
        "<h2>In short</h2>",
        *(f"<p>{_e(sentence)}</p>" for sentence in summary(sweep)),
        "<h2>Panels</h2>",
        f"<p>{_e(_capital(signs([sweep])))}.</p>",
        f"<div class=panels>{''.join(drawn)}</div>",
        "<h2>Table</h2>",
        f"<p>{_e(LEGEND)} Click a heading to sort.</p>",
        _table(sweep),
        "<h2>Where it comes from</h2>",
        _provenance(sweep),
        "<h2>How to cite</h2>",
        f"<p>Cite this software, bprune_hpc, and {_e(_CITATION)}. State the number of draws, the "
        "seed, the criterion, the number of examples, and which error stands after ±.</p>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{_e(sweep.title)}</title><style>{_STYLE}</style>'
        f"</head><body><main>{''.join(body)}</main><script>{_SCRIPT}</script></body></html>\n"
    )


def summary(sweep: Swept) -> list[str]:
    """Sentences made of the numbers: the choice, and what has changed there."""
    table, sentences = sweep.table, []
    if table.choice is not None:
        sentences.append(_capital(table.choice.text))
    at = sweep.chosen
    if at is None:
        at = _last_without_loss(sweep)
        if at:
            what = "accuracy or likelihood" if "accuracy" in table.metrics else "likelihood"
            sentences.append(
                f"The sweep was not asked to choose a threshold. {_capital(sweep.point(at))} is "
                f"the last point before {what} is worse than unpruned by more than twice its "
                "error; this describes the numbers and is not a test at 95 % confidence."
            )
    if at:
        sentences += _changes(sweep, at)
    failed = [label for label, why in zip(table.labels, table.failures, strict=False) if why]
    if failed:
        sentences.append(f"Outputs were not finite at {', '.join(failed)}.")
    return [*sentences, *map(_capital, table.remarks), *_free_energy(sweep)]


def _free_energy(sweep: Swept) -> list[str]:
    """Whether theory and measurement agree where the free energy is least."""
    group, attrs = sweep.groups.get("free_energy", {}), sweep.group_attrs.get("free_energy", {})
    at = int(attrs.get("minimum", -1))
    if at <= 0 or "predicted_change" not in group:
        return []
    change, predicted = float(group["free_energy_change"][at]), float(group["predicted_change"][at])
    measured = number_with_error(abs(change), float(group["free_energy_change_se"][at]))
    return [
        f"At its minimum ({sweep.point(at)}) the free energy is {measured} nats "
        f"{'above' if change > 0 else 'below'} unpruned; Bayesian model reduction, the closed "
        f"form, predicts {abs(predicted):.4g} nats {'above' if predicted > 0 else 'below'}."
    ]


def _changes(sweep: Swept, at: int) -> list[str]:
    names = {
        "accuracy_drop": ("accuracy", "", -1.0),
        "nll_rise": ("the negative log-likelihood", " nats", 1.0),
        "mutual_information_change": ("mutual information", " nats", 1.0),
        "rmse_change": ("the root mean square error", "", 1.0),
        "crps_change": ("the CRPS", "", 1.0),
    }
    parts = []
    for name, (what, units, sign) in names.items():
        metric = sweep.table.metrics.get(name)
        if metric is not None:
            parts.append(_change(name, what, units, sign, metric, at))
            whole = sweep.table.metrics.get(name.removesuffix("_change"))
            if name.startswith("mutual") and whole is not None and "unchanged" not in parts[-1]:
                share = abs(metric.value[at] / whole.value[0])
                parts[-1] += f", {100 * share:.0f} % of what it is unpruned"
    where = sweep.point(at)
    return [f"With {where}, {_listed(parts)}. Changes are paired; {_SIGNS}"] if parts else []


def _change(name: str, what: str, units: str, sign: float, metric: Metric, at: int) -> str:
    value, error = sign * float(metric.value[at]), float(metric.se_combined[at])
    if not np.isfinite(value):
        return f"of {what} nothing can be said"
    if ALL[name].interval == "share" and metric.low is not None and metric.high is not None:
        ends = sorted((sign * float(metric.low[at]), sign * float(metric.high[at])))
        if ends[0] <= 0 <= ends[1]:
            number = number_with_interval(value, *ends)
            return f"{what} is unchanged within its interval ({number}{units})"
        number = number_with_interval(abs(value), *sorted(map(abs, ends)))
        return f"{what} {'rises' if value > 0 else 'falls'} by {number}{units}"
    number = number_with_error(abs(value), error)
    if abs(value) <= _TWO_SIGMA * error or value == 0:
        return f"{what} is unchanged within its error ({number_with_error(value, error)}{units})"
    return f"{what} {'rises' if value > 0 else 'falls'} by {number}{units}"


def _last_without_loss(sweep: Swept) -> int | None:
    last = None
    for at in range(1, len(sweep.thresholds)):
        for name in ("accuracy_drop", "nll_rise"):
            metric = sweep.table.metrics.get(name)
            if metric is not None and not metric.value[at] <= _TWO_SIGMA * metric.se_combined[at]:
                return last
        last = at
    return last


def _panel(sweep: Swept, name: str, x: str) -> str:
    about = PANELS[name].about
    drawn = svg([sweep], name, x).replace(
        "<svg ", f'<svg role="img" aria-label="{_e(about)}" focusable="false" ', 1
    )
    for identifier in ("figure_1", "patch_", "axes_", "matplotlib.axis_", "clip"):
        drawn = drawn.replace(f'id="{identifier}', f'id="{name}-{identifier}')
    return f"<figure>{drawn}<figcaption>{_e(_capital(about))}</figcaption></figure>"


def _table(sweep: Swept) -> str:
    table = sweep.table
    columns = columns_of(table.metrics)
    titles = [table.heading, "pruned (%)", *(title for _, title in columns)]
    head = "".join(
        f'<th scope="col"><button type="button">{_e(title)}</button></th>' for title in titles
    )
    of_columns = [(table.metrics[name], numbers(name, table.metrics[name])) for name, _ in columns]
    rows = []
    for index, label in enumerate(table.labels):
        cells = [(label, sweep.thresholds[index]), *[
            (f"{100 * table.pruned_fraction[index]:.2f}", table.pruned_fraction[index])
        ]]  # fmt: skip
        cells += [(column[index], metric.value[index]) for metric, column in of_columns]
        mark = " class=chosen" if index == sweep.chosen else ""
        row = "".join(f'<td data-value="{float(key)!r}">{_e(text)}</td>' for text, key in cells)
        rows.append(f"<tr{mark}>{row}</tr>")
    return (
        f"<div class=wide><table><caption>Metrics at each threshold</caption><thead><tr>{head}</tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _provenance(sweep: Swept) -> str:
    attrs = sweep.attrs
    pairs = [
        ("checkpoint", attrs.get("checkpoint")), ("status", attrs.get("status")),
        ("task", attrs.get("task")), ("input", attrs.get("input")), ("schema", attrs.get("schema")),
        *((f"identity: {name}", value) for name, value in sweep.identity.items()),
    ]  # fmt: skip
    try:
        digests = json.loads(str(attrs.get("sha256", "{}")))
    except ValueError:
        digests = {}
    pairs += [(f"sha256 of {name}", value) for name, value in digests.items()]
    rows = "".join(
        f'<tr><th scope="row">{_e(name)}</th><td><code>{_e(str(value))}</code></td></tr>'
        for name, value in pairs
        if value is not None
    )
    return f"<div class=wide><table class=plain>{rows}</table></div>"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _e(text: str) -> str:
    return html.escape(text)


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:0}
main{max-width:76rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:1.8rem 0 .5rem}
.lead{color:#555;margin:.2rem 0 1rem}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(21rem,100%),1fr));gap:1rem}
figure{margin:0}figure svg{width:100%;height:auto}figcaption{font-size:.85rem;color:#555}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.85rem;color:#555}
td,th{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th button{font:inherit;font-weight:600;background:none;border:0;cursor:pointer;padding:0}
th button:focus-visible{outline:2px solid #0072B2}
.chosen{background:#e8f1fa}.plain th,.plain td{text-align:left;font-size:.8rem}
"""
_SCRIPT = """
document.querySelectorAll("thead button").forEach((button)=>button.addEventListener("click",()=>{
const head=button.parentElement,at=[...head.parentElement.children].indexOf(head);
const body=head.closest("table").tBodies[0],up=head.getAttribute("aria-sort")!=="ascending";
[...head.parentElement.children].forEach((one)=>one.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",up?"ascending":"descending");
const key=(row)=>parseFloat(row.children[at].dataset.value);
[...body.rows].sort((a,b)=>(up?1:-1)*(key(a)-key(b))).forEach((row)=>body.append(row));}));
"""
