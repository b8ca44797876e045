"""Figures, the web page and tables of real sweeps: they have the file's numbers, and open."""

from __future__ import annotations

import contextlib
import csv
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bprune_hpc import report, results, sweep
from bprune_hpc.files.lock import hold
from bprune_hpc.results.figure import PANELS, _figure, panels_of
from bprune_hpc.results.html_report import summary
from bprune_hpc.results.progress import Progress, progress_of
from bprune_hpc.results.swept import comparison_fault, read_swept
from tests.helpers.rewriting import rewritten

FLAGS = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=20"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("sweeps")
    asked = {
        "snr": ["--thresholds=0,0.5,1,3", "--max_accuracy_drop=0.05", "--ood_dataset=digits"],
        "magnitude": ["--prune_fractions=0,0.5,0.9", "--criterion=magnitude"],
    }
    for name, flags in asked.items():
        assert sweep.main([*FLAGS, *flags, f"--output={home / name}.h5"]) == 0
    return {name: home / f"{name}.h5" for name in asked}


def test_every_panel_is_drawn_and_every_format_written(files, tmp_path, capsys):
    swept = [read_swept(str(files["snr"]))]
    of_classes = set(PANELS) - {"rmse", "crps", "sharpness", "pit", "coverage", "free_energy"}
    assert set(panels_of(swept, None)) == of_classes
    for ending, x in (("pdf", "weights_left"), ("svg", "fraction"), ("png", "threshold")):
        out = tmp_path / f"f.{ending}"
        assert report.main([str(files["snr"]), f"--plot={out}", f"--x={x}"]) == 0
        assert out.stat().st_size > 10_000
    text = (tmp_path / "f.svg").read_text()
    assert "weights pruned (%)" in text and "200" not in text.partition("posterior draws")[0][-4:]
    both = [str(files["snr"]), str(files["magnitude"])]
    assert report.main([*both, f"--plot={tmp_path / 'both.svg'}", "--panels=accuracy,nll"]) == 0
    text = (tmp_path / "both.svg").read_text()
    assert "magnitude" in text and "NOT COMPARABLE" not in text
    assert "the same 5 %" not in capsys.readouterr().err


def add_free_energy(file: h5py.File) -> None:
    """As a sweep with training data writes it; made-up numbers."""
    group = file.create_group("free_energy")
    complexity, nll = np.array([900.0, 500, 300, 100]), np.array([100.0, 102, 110, 900])
    group["complexity"], group["expected_nll"] = complexity, nll
    group["free_energy"] = complexity + nll
    group["predicted"] = complexity + nll + np.array([0, 5, 10, 40])
    for name in ("expected_nll", "free_energy", "predicted"):
        group[f"{name}_se"] = np.full(4, 3.0)
    change = group["free_energy"][()] - 1000
    group["free_energy_change"], group["predicted_change"] = change, change + 10
    group["free_energy_change_se"] = np.full(4, 2.0)
    group.attrs.update({"n_examples": 1438, "minimum": 2, "text": "the least is here"})


def test_free_energy_is_drawn_where_a_file_has_it(files, tmp_path):
    path = tmp_path / "with.h5"
    path.write_bytes(files["snr"].read_bytes())
    rewritten(path, add_free_energy)
    for both in ([path], [path, path]):
        out = tmp_path / "f.svg"
        assert report.main([*map(str, both), f"--plot={out}", "--panels=free_energy"]) == 0
        assert "nats, summed over 1,438 examples" in out.read_text()
    said = " ".join(summary(read_swept(str(path))))
    assert "The least is here" in said
    assert "is 590.0 ± 2.0 nats below unpruned" in said and "predicts 580 nats below" in said


def test_files_that_cannot_be_compared_say_so(files):
    one, other = (read_swept(str(path)) for path in files.values())
    assert comparison_fault([one, other]) == ""
    other.identity["data"] = "sha256 other"
    assert "test set" in comparison_fault([one, other])


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--panels=nonsense", "is none of accuracy, "), ("--panels=ood", "has nothing for 'ood'")],
)
def test_panels_that_cannot_be(files, capsys, flag, message):
    assert report.main([str(files["magnitude"]), flag]) == 2
    assert message in capsys.readouterr().err


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.ids: list[str] = []
        self.n_labelled = 0
        self.cells: list[float] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        for name in ("src", "href", "xlink:href"):
            value = named.get(name) or ""
            if value and not value.startswith(("#", "data:")):
                self.outside.append(value)
        self.ids += [named["id"]] if named.get("id") else []
        self.n_labelled += tag == "svg" and bool(named.get("aria-label"))
        self.cells += [float(str(named["data-value"]))] if "data-value" in named else []


def test_the_page_is_one_file_with_the_files_numbers(files, tmp_path):
    out = tmp_path / "r.html"
    assert report.main([str(files["snr"]), f"--html={out}"]) == 0
    text, page = out.read_text(), _Page()
    page.feed(text)
    assert "[" in text.partition("<tbody>")[2].split("</td>")[2]  # accuracy: its interval
    assert page.outside == [] and "@import" not in text
    assert page.n_labelled == len(panels_of([read_swept(str(files["snr"]))], None))
    metrics = results.read(str(files["snr"])).metrics
    for name in ("accuracy", "nll", "mutual_information"):
        assert set(metrics[name].values) <= set(page.cells)


def test_the_summary_is_made_of_the_numbers(files):
    swept = read_swept(str(files["snr"]))
    chosen = swept.chosen
    assert chosen
    said = " ".join(summary(swept))
    read = results.read(str(files["snr"]))
    change = float(read.metrics.mutual_information_change[chosen])
    found = re.search(r"mutual information (falls|rises) by ([\d.]+) ± ([\d.]+)", said)
    assert found and (found[1] == "falls") == (change < 0)
    assert float(found[2]) == pytest.approx(abs(change), abs=0.6 * 10 ** -len(found[2][2:]))
    errors = [
        float(read.metrics[f"mutual_information_change_{e}"][chosen]) for e in ("se", "se_data")
    ]
    assert float(found[3]) == pytest.approx(np.hypot(*errors), rel=0.1)
    assert "within its error" in said or "falls" in said


def test_tables_to_take_along(files, tmp_path):
    outs = {kind: tmp_path / f"t.{kind}" for kind in ("csv", "latex", "markdown")}
    flags = [f"--{kind}={out}" for kind, out in outs.items()]
    assert report.main([str(files["snr"]), *flags]) == 0
    metrics = results.read(str(files["snr"])).metrics
    with outs["csv"].open() as stream:
        rows = list(csv.DictReader(stream))
    for name in ("nll", "nll_se", "accuracy_low", "ece_change_se_data"):
        np.testing.assert_array_equal([float(row[name]) for row in rows], metrics[name])
    assert outs["markdown"].read_text().count("\n") == 2 + len(rows)
    latex = outs["latex"].read_text()
    assert latex.count(r"\\") == 1 + len(rows) and r"\pm" in latex and "±" not in latex


@pytest.mark.needs("chromium", "apt-get install chromium")
def test_the_page_in_a_browser(files, tmp_path):
    out = tmp_path / "r.html"
    assert report.main([str(files["snr"]), f"--html={out}"]) == 0
    # Sort by accuracy, as a click does, and show what is there then.
    text = out.read_text().replace(
        "</script>", 'document.querySelectorAll("thead button")[2].click();</script>'
    )
    out.write_text(text)
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", out.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    body = done.stdout.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.findall(r'data-value="([^"]+)"', row) for row in body.split("</tr>")[:-1]]
    accuracy = [float(row[2]) for row in rows]
    assert len(accuracy) == 4 and accuracy == sorted(accuracy)


FOLLOWER = """
import sys
from bprune_hpc import report
from bprune_hpc.results import follow

read = follow.read_table

def told(path):
    sys.stderr.write("read\\n")
    sys.stderr.flush()
    return read(path)

follow.read_table = told
sys.exit(report.main([*sys.argv[1:], "--follow"]))
"""


def test_a_running_sweep_is_followed_to_its_end(files, tmp_path):
    path = tmp_path / "sweep.h5"
    assert report.main([str(path), "--follow"]) == 2  # neither a file nor a sweep
    shutil.copy(files["snr"], tmp_path / "part")
    rewritten(tmp_path / "part", lambda file: file.attrs.modify("status", "partial"))
    with contextlib.ExitStack() as stack:
        with hold(path, 60):
            (tmp_path / "part").rename(path)
            followers = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", FOLLOWER, str(path)],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    )
                )
                for _ in range(2)
            ]  # fmt: skip
            for one in followers:
                assert one.stderr is not None and "read" in one.stderr.readline()
            stopped, rest = followers
            stopped.send_signal(signal.SIGINT)
            said, _ = stopped.communicate(timeout=120)
            assert stopped.returncode == 0 and said.count("mutual info.") == 1
            shutil.copy(files["snr"], tmp_path / "whole")
            (tmp_path / "whole").rename(path)
            assert rest.stderr is not None and "read" in rest.stderr.readline()
            assert rest.poll() is None
        said, _ = rest.communicate(timeout=120)  # the lock is gone: so is the sweep
    assert rest.returncode == 0 and said.count("mutual info.") == 1


def test_how_far_a_sweep_is_comes_from_its_file(files, tmp_path):
    assert progress_of(files["snr"]) == Progress("complete", 1, 1)
    path = tmp_path / "part.h5"
    shutil.copy(files["snr"], path)
    rewritten(path, lambda file: file.attrs.update(
        {"status": "partial", "n_cells": 80, "n_cells_done": 20}))  # fmt: skip
    assert progress_of(path) == Progress("partial", 20, 80)


def test_panels_are_of_one_size_whatever_their_names(files) -> None:
    """A long name in one leaves no gap beside the others; title and footer fit the width."""
    sweep = read_swept(str(next(iter(files.values()))))
    sweep.layers[:] = [f"{name}/{'long_' * 8}name" for name in sweep.layers]
    figure = _figure([sweep], ["accuracy", "nll", "layers"], "weights_left")
    FigureCanvasAgg(figure)
    figure.canvas.draw()
    widths = [part.axes[0].get_position().width for part in figure.subfigs if part.axes]
    assert widths[0] == pytest.approx(widths[1], rel=0.1) and widths[0] > 0.7
    narrow = _figure([sweep], ["accuracy"], "weights_left")
    FigureCanvasAgg(narrow)
    narrow.canvas.draw()
    renderer = narrow.canvas.get_renderer()
    for text in (narrow._suptitle, narrow._supxlabel):
        assert text.get_window_extent(renderer).width <= narrow.bbox.width
