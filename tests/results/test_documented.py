"""``docs/results_file.md`` names all that a sweep writes: groups, datasets and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from tests.helpers import fake_problem
from tests.helpers.launch import ROOT
from tests.helpers.sweeps import FLAGS, KINDS, start

PAGE = (ROOT / "docs/results_file.md").read_text()
DOCUMENTED = {word for code in re.findall(r"`([^`]+)`", PAGE) for word in re.findall(r"\w+", code)}
OF_HDF5 = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}
OF_METRICS = r"(_change)?(_se|_se_data|_low|_high|_band_low|_band_high)?"
"""What the page calls ``NAME_se`` and so on."""


def names(group: h5py.Group) -> Iterator[str]:
    """Of attributes, of groups and of datasets but for labels of dimensions, in all of it."""
    yield from group.attrs
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            yield from set(item.attrs) - OF_HDF5
        is_label = isinstance(item, h5py.Dataset) and item.is_scale
        if not (is_label or name.isdecimal()):
            yield name
        if isinstance(item, h5py.Group) and name not in (
            "run",
            "snr",
            "finished",
            "finished_draws",
        ):
            yield from names(item)


def as_documented(name: str) -> str:
    """What the page calls it."""
    name = re.fullmatch(rf"(\w+?){OF_METRICS}", name)[1]  # type: ignore[index]
    name = re.sub(r"(au\w+?_(?:errors|ood))_\w+", r"\1_SCORE", name)
    return re.sub(r"coverage_\d+", "coverage_50", name.removeprefix("equal_mass_"))


@pytest.mark.parametrize(
    ("kind", "flags", "n_supersteps"),
    [
        ("classes", ["--max_accuracy_drop=0.5"], None),
        ("classes", ["--max_nll_rise=5"], 3),
        ("other examples", ["--max_nll_rise=5", "--save_probabilities"], None),
        ("blocks", ["--max_brier_change=1", "--draw_noise=shared"], None),
        ("regression", ["--target_se=nll=0.5", "--max_nll_rise=5"], None),
        ("training data", ["--choose=free_energy"], None),
        ("noise by block", [], None),
    ],
)
def test_the_page_names_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    flags: list[str],
    n_supersteps: int | None,
) -> None:
    fake_problem.install(monkeypatch.setattr, replicate_by_replicate=n_supersteps is not None)
    path = tmp_path / "s.h5"
    status = start(path, *KINDS[kind], *FLAGS, *flags, n_supersteps=n_supersteps)
    assert status == (0 if n_supersteps is None else 3)
    with h5py.File(path) as file:
        found = {as_documented(name) for name in names(file)}
    assert len(found) > 50
    assert sorted(found - DOCUMENTED) == []
