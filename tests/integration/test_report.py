from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc.metrics.estimates import Metric, number_with_error, number_with_interval
from bprune_hpc.report import main
from bprune_hpc.results.file import SCHEMA, Contents, Variable, open_results, write
from bprune_hpc.results.table import LEGEND, table


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.96875, 0.0219, "0.969 ± 0.022"),
        (1.39084, 0.13, "1.39 ± 0.13"),
        (0.00533, 0.000481, "0.00533 ± 0.00048"),
        (12.3, 4.56, "12.3 ± 4.6"),
        (123.0, 45.6, "123 ± 46"),
        (1.0, 0.0999, "1.00 ± 0.10"),
        (0.5, 0.0, "0.5000"),
        (0.5, 3e-17, "0.5000"),
        (0.5, np.nan, "0.5000 ± n/a"),
        (np.nan, 0.1, "nan"),
        (-0.0, 0.0, "0.0000"),
        (103.972, 1.3e-9, "103.972000 ± 1e-09"),
    ],
)
def test_two_digits_of_the_error(value: float, error: float, text: str) -> None:
    assert number_with_error(value, error) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.96875, 0.8954, 0.9914), "0.969 [0.895, 0.991]"),
        ((0.5, 0.12, 0.88), "0.50 [0.12, 0.88]"),
        ((1.0, 0.9884, 1.0), "1.000 [0.988, 1.000]"),
        ((1.0, 0.99999, 1.0), "1.000000 [0.999990, 1.000000]"),
        ((0.5, np.nan, np.nan), "0.5000 [n/a]"),
        ((np.nan, 0.0, 1.0), "nan"),
    ],
)
def test_two_digits_of_the_width(numbers: tuple[float, float, float], text: str) -> None:
    assert number_with_interval(*numbers) == text


NAMES = ["accuracy", "nll", "predictive_entropy", "expected_entropy", "mutual_information"]


def test_the_table_has_a_line_for_each_threshold() -> None:
    metric = Metric(np.array([0.25, 0.75]), np.array([0.03, 0.0]), np.array([0.04, 0.02]))
    found = table(["0", "0.5"], np.array([0, 0.25]), dict.fromkeys(NAMES, metric))
    lines = found.splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].split()[:3] == ["0", "0.00", "%"]
    assert lines[3].split()[:3] == ["0.5", "25.00", "%"]
    assert lines[2].count("0.250 ± 0.050") == 5
    assert lines[3].count("0.750 ± 0.020") == 5


def test_what_failed_is_said_in_place_of_numbers() -> None:
    metric = Metric(np.array([0.25, np.nan]), np.array([0.03, np.nan]), np.array([0.04, np.nan]))
    arguments = ["0", "0.5"], np.array([0, 0.25]), dict.fromkeys(NAMES, metric)
    heading, rule, fine, failed = table(*arguments, failures=["", "draw 17, a/MatMul"]).split("\n")
    plain = table(*arguments).split("\n")
    assert [heading, rule, fine] == plain[:3] and len(failed) == len(fine)
    assert failed.split() == ["0.5", "25.00", "%", "failed:", "draw", "17,", "a/MatMul"]
    assert "nan" not in failed and "nan" in plain[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A results file with the metrics that the report reads."""
    names = [*NAMES, "accuracy_single_draw", "accuracy_mean_weights"]
    suffixes = ("", "_se", "_se_data")
    numbers = {
        name + suffix: Variable(("threshold",), np.array([0.5, 0.25]))
        for name in names
        for suffix in suffixes
    }
    fractions = {"pruned_fraction": Variable(("threshold",), np.array([0, 0.75]))}
    labels = {"threshold": Variable(("threshold",), np.array([0, 1.0]))}
    groups = {"metrics": numbers, "sparsity": fractions}
    write(tmp_path / "r.h5", Contents({"schema": SCHEMA}, labels, groups))
    return tmp_path / "r.h5"


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_command_prints_the_table_and_draws(
    file: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    figure = file.with_suffix(f".{ending}")
    assert main([str(file), f"--plot={figure}"]) == 0
    assert "75.00 %" in capsys.readouterr().out
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert figure.read_bytes().startswith(start)


def test_results_that_may_be_wrong_are_shown_with_a_warning(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_results(file) as opened:
        contents = Contents(
            dict(opened.attrs),
            {"threshold": Variable(("threshold",), opened["threshold"][()])},
            {
                group: {
                    name: Variable(("threshold",), opened[group][name][()])
                    for name in opened[group] if name != "threshold"
                }
                for group in ("metrics", "sparsity")
            },
            state={"0/grid": np.zeros(2)},
            state_attrs={"identity": json.dumps({"evaluator": "channels"})},
        )  # fmt: skip
    write(file, contents)
    assert main([str(file)]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("warning: was made with evaluator channels, which left out channels")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere.h5"], "/nowhere.h5: no such file"),
        (["FILE", "--plot=x.nonsense"], "x.nonsense: cannot be drawn"),
        (["FILE", "--plott=x.png"], "unknown flag '--plott'"),
        ([], "the following arguments are required: file"),
    ],
)
def test_what_is_wrong_is_one_line(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(file) if item == "FILE" else item for item in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.fixture
def new_file(file: Path) -> Path:
    """The same with intervals, bands and the metrics that have them."""
    with open_results(file) as opened:
        metrics = {
            name: Variable(("threshold",), opened["metrics"][name][()])
            for name in opened["metrics"] if name != "threshold"
        }  # fmt: skip
    changes = ["accuracy_drop", "nll_rise"]
    for name in changes:
        for suffix in ("", "_se", "_se_data"):
            metrics[name + suffix] = Variable(("threshold",), np.array([0, 0.1]))
    of_intervals = {"_low": -0.2, "_high": 0.3}
    for name in [*NAMES, "accuracy_single_draw", "accuracy_mean_weights", *changes]:
        for suffix, away in of_intervals.items():
            metrics[name + suffix] = Variable(("threshold",), metrics[name].data + away)
            if name in changes:
                metrics[f"{name}_band{suffix}"] = metrics[name + suffix]
    fractions = {"pruned_fraction": Variable(("threshold",), np.array([0, 0.75]))}
    labels = {"threshold": Variable(("threshold",), np.array([0, 1.0]))}
    groups = {"metrics": metrics, "sparsity": fractions}
    path = file.with_name("new.h5")
    write(path, Contents({"schema": SCHEMA}, labels, groups))
    return path


def test_shares_are_printed_with_intervals_of_old_files_with_errors(
    file: Path, new_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(new_file)]) == 0
    new = capsys.readouterr().out.splitlines()
    assert "0.50 [0.30, 0.80]" in new[2] and new[2].count("±") == 4
    assert new[-1] == LEGEND
    assert main([str(file)]) == 0
    old = capsys.readouterr().out.splitlines()
    assert "[" not in old[2] and old[2].count("±") == 5 and old[-1] == LEGEND


def test_the_figure_draws_bands_where_there_are_some(
    file: Path, new_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    for path in (file, new_file):
        assert main([str(path), "--plot=x.png"]) == 0
    ends = [
        {
            (round(float(heights.min()), 6), round(float(heights.max()), 6))
            for axes in figure.axes
            for band in axes.collections
            for heights in [band.get_paths()[0].vertices[:, 1]]
        }
        for figure in drawn
    ]
    assert (-0.2, 0.4) in ends[1] and (-0.2, 0.4) not in ends[0]  # of a change from 0 to 0.1
    old, new = (figure.get_supxlabel() for figure in drawn)
    assert "95 % intervals" in new and "one standard error" in old
