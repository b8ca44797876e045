"""States that no sweep writes, under a digest that fits: each is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bprune_hpc import sweep
from tests.helpers import fake_problem
from tests.helpers.bits import all_bits
from tests.helpers.rewriting import rewritten
from tests.helpers.sweeps import FLAGS, KINDS, start


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_problem.install(monkeypatch.setattr, replicate_by_replicate=True)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Contents of a results file of a sweep that was stopped, one for each set of flags."""
    directory = tmp_path_factory.mktemp("begun")
    done: dict[tuple[str, ...], bytes] = {}

    def of(*flags: str) -> bytes:
        if flags not in done:
            with pytest.MonkeyPatch.context() as patch:
                fake_problem.install(patch.setattr, replicate_by_replicate=True)
                path = directory / f"{len(done)}.h5"
                n_supersteps = 5
                if any("limit" in flag for flag in flags):  # one block, and a part of the next
                    n_supersteps = 10 if any("regression" in flag for flag in flags) else 20
                assert start(path, *flags, n_supersteps=n_supersteps) == sweep.STOPPED
            done[flags] = path.read_bytes()
        return done[flags]

    return of


def _put(name: str, change: Callable[[np.ndarray], object]) -> Callable[[h5py.File], None]:
    """An array of the state in the place of what it was."""

    def put(file: h5py.File) -> None:
        value = file["state/0"][name][()]
        del file["state/0"][name]
        file["state/0"][name] = change(value)

    return put


def _with(value: float, place: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    def changed(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return changed


def _drop(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def _link(link: object) -> Callable[[h5py.File], None]:
    def put(file: h5py.File) -> None:
        del file["state/0/sums/0/0"]
        file["state/0/sums/0/0"] = link

    return put


def _unstored(file: h5py.File) -> None:
    del file["state/0/sums/0/0"]
    file["state/0/sums/0"].create_dataset("0", (2**20, 2**20, 2**10), "i8", chunks=(1, 1, 1024))


def _virtual(file: h5py.File) -> None:
    value = file["state/0/draws/0"]
    layout = h5py.VirtualLayout(value.shape, value.dtype)
    layout[...] = h5py.VirtualSource("/nowhere.h5", "a", shape=value.shape)
    del file["state/0/draws/0"]
    file["state/0/draws"].create_virtual_dataset("0", layout)


def _group_for_array(file: h5py.File) -> None:
    del file["state/0/draws/0"]
    file["state/0/draws/0/a"] = [1]


def _attr(where: str, name: str, change: Callable[[object], object]) -> Callable[..., None]:
    """A JSON text with something else in it."""

    def put(file: h5py.File) -> None:
        attrs = file[where].attrs
        attrs[name] = json.dumps(change(json.loads(attrs[name])))

    return put


def _without(name: str) -> Callable[[dict], dict]:
    return lambda found: {key: value for key, value in found.items() if key != name}


SUMS, DRAWS = "sums/0/0", "draws/0"
OTHER_STATES: dict[str, tuple[str, Callable[[h5py.File], object]]] = {
    "no limit": ("classes", _attr("/", "config", _without("limit"))),
    "text for a number": ("classes", _attr("/", "config", lambda c: {**c, "n_draws": "28"})),
    "fewer draws": ("classes", _attr("/", "config", lambda c: {**c, "n_draws": 2})),
    "no configuration": ("classes", lambda file: file.attrs.__delitem__("config")),
    "a list": ("classes", _attr("/", "config", lambda c: [c])),
    "no JSON": ("classes", lambda file: file.attrs.__setitem__("config", "{" * 9000)),
    "identity": ("classes", _attr("state", "identity", lambda i: list(i))),
    "environment": ("classes", _attr("state", "environment", lambda e: {**e, "cpu": "x"})),
    "no blocks": ("classes", lambda file: file["state"].attrs.__delitem__("blocks")),
    "other blocks": ("blocks", _attr("state", "blocks", lambda b: [b[0][:-1]])),
    "blocks in two": ("blocks", _attr("state", "blocks", lambda b: [[[0, 5], [5, 45]]])),
    "blocks of floats": ("classes", _attr("state", "blocks", lambda b: [[[0.0, 45.0]]])),
    "another set": ("classes", _attr("state", "blocks", lambda b: [*b, *b])),
    "shape": ("classes", _put(SUMS, lambda s: s[:, :, :-1])),
    "fewer thresholds": ("classes", _put(SUMS, lambda s: s[:-1])),
    "type": ("classes", _put(SUMS, lambda s: s.astype(float))),
    "shape of draws": ("classes", _put(DRAWS, lambda s: s[:, :-1])),
    "negative sums": ("classes", _put(SUMS, _with(-5, (1, 2, 3)))),
    "negative tail": ("classes", _put(SUMS, _with(-(2**62), (1, -5, 3)))),
    "large sums": ("classes", _put(SUMS, _with(2**60, (1, 2, 3)))),
    "many correct": ("classes", _put(SUMS, _with(29, (1, -1, 3)))),
    "negative draws": ("classes", _put(DRAWS, _with(-1, (0, 0, 1)))),
    "too many correct": ("classes", _put(DRAWS, _with(46, (0, 0, 0)))),
    "no group": ("classes", _drop("state/0/sums/0/3")),
    "no mean": ("classes", _drop("state/0/sums/0/mean")),
    "no sums": ("classes", _drop("state/0/sums")),
    "no draws": ("classes", _drop("state/0/draws")),
    "no ledger": ("classes", _drop("state/0")),
    "no grid": ("classes", _drop("state/0/grid")),
    "something more": ("classes", lambda file: file["state/0"].__setitem__("more", [1])),
    "a group for an array": ("classes", _group_for_array),
    "position twice": ("classes", _put("position", lambda p: np.array([p, p]))),
    "position as one": ("classes", _put("position", lambda p: p[0])),
    "three positions": ("classes", _put("position", lambda p: np.array([0, 0, *p]))),
    "position of floats": ("classes", _put("position", lambda p: p.astype(float))),
    "position behind": ("classes", _put("position", lambda p: -p)),
    "position beyond": ("classes", _put("position", lambda p: p + 10**12)),
    "no passes": ("classes", _put("position", lambda p: p + np.array([1, 0]))),
    "further": ("classes", _put("position", lambda p: p + np.array([0, 1]))),
    "NaN": ("classes", _put("grid", _with(np.nan, (1,)))),
    "a negative threshold": ("classes", _put("grid", _with(-1.0, (1,)))),
    "an infinite threshold": ("classes", _put("grid", _with(np.inf, (1,)))),
    "a threshold twice": ("classes", _put("grid", _with(0.0, (1,)))),
    "grid of text": ("classes", _put("grid", lambda g: g.astype("S3"))),
    "external link": ("classes", _link(h5py.ExternalLink("/nowhere.h5", "a"))),
    "soft link": ("classes", _link(h5py.SoftLink("/state/0/sums/0/1"))),
    "in itself": ("classes", lambda file: file["state/0"].__setitem__("x", file["state"])),
    "around": ("classes", lambda file: file["state/0/sums"].__setitem__("1", file["state/0"])),
    "virtual": ("classes", _virtual),
    "not stored": ("classes", _unstored),
    "fault elsewhere": (
        "classes",
        lambda file: file["state/0"].update({"faults/at": [[9, 0, 0, 0]], "faults/layer": [b"x"]}),
    ),
    "half a fault": ("classes", lambda file: file["state/0"].update({"faults/at": [[0, 0, 0, 0]]})),
    "bins": ("regression", _put(f"{SUMS}/bins", lambda s: s[..., :-1])),
    "no top": ("regression", _drop(f"state/0/{SUMS}/top")),
    "negative squares": ("regression", _put(f"{SUMS}/bins", _with(-(2**20), (1, 2, 1, 0)))),
    "negative draw": ("regression", _put(f"{DRAWS}/bins", _with(-(2**20), (1, 2, 0, 0)))),
    "finished": ("blocks", _put("finished/0/whole/nll", lambda s: s[:, 1:])),
    "not finished": ("blocks", _drop("state/0/finished/0/scores")),
}  # fmt: skip


@pytest.mark.parametrize("form", OTHER_STATES)
def test_a_state_that_no_sweep_writes_is_refused(
    tmp_path: Path, begun: Callable[..., bytes], capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """In one line, whatever a file with a valid digest has in the place of its state."""
    kind, change = OTHER_STATES[form]
    path, flags = tmp_path / "s.h5", [*KINDS[kind], *FLAGS]
    path.write_bytes(begun(*flags))
    rewritten(path, change)
    before = path.read_bytes()
    capsys.readouterr()
    assert start(path, *flags) == 2
    said = capsys.readouterr().err
    (error,) = [line for line in said.splitlines() if "error: " in line]
    assert error.startswith(f"error: {path}: ") and "Traceback" not in said
    assert error.endswith("; pass --overwrite or another --output")
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_only_written_anew_goes_on(
    tmp_path: Path, begun: Callable[..., bytes], kind: str
) -> None:
    path, flags = tmp_path / "s.h5", [*KINDS[kind], *FLAGS]
    path.write_bytes(begun(*flags))
    rewritten(path, lambda file: None)
    assert start(path, *flags) == 0
    assert start(tmp_path / "whole.h5", *flags) == 0
    assert all_bits(path) == all_bits(tmp_path / "whole.h5")
