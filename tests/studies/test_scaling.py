"""The study of scaling in small, and its model; no time is judged here."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies import scaling
from studies.scaling import LINKS, PROJECTED, Epoch, Training
from tests.helpers.launch import find_mpirun, run_group

needs_mpirun = pytest.mark.skipif(find_mpirun() is None, reason="no mpirun")
DIGESTS = {"mpi": {"a"}, "horovod": {"a"}}
EPOCHS = {
    ("mpi", 1): Epoch(0.006, 0.01), ("mpi", 2): Epoch(0.007, 0.02),
    ("horovod", 1): Epoch(0.006, 0.01), ("horovod", 2): Epoch(0.009, 0.03),
}  # fmt: skip


@needs_mpirun
@pytest.mark.slow
@pytest.mark.mpi
def test_its_claims_hold_in_small(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "studies.scaling"]
    done = run_group([*program, "--quick", f"--output={tmp_path}"])
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = {(row["what"], row["by"], row["n_ranks"]): row["kind"] for row in rows}
    for what in ("dense", "sweep"):
        assert [kinds[what, "MPI", str(n)] for n in (1, 2)] == ["measured"] * 2
        assert {kinds[what, "MPI", str(n)] for n in PROJECTED} == {"projected"}
    has_horovod = "Horovod is not installed" not in done.stdout
    assert (("dense", "Horovod", "2") in kinds) is has_horovod
    assert all(float(row["per_s"]) > 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["scaling.csv"]


def test_a_step_and_what_is_done_once_are_those_of_two_epochs() -> None:
    found = Epoch.of({10: 0.5 + 10 * 0.02, 40: 0.5 + 40 * 0.02})
    assert (found.step_s, found.once_s) == (pytest.approx(0.02), pytest.approx(0.5))
    assert Epoch.of({10: 0.2}) == Epoch(0.02, 0.0)
    assert Epoch.of({10: 0.3, 40: 0.8}).once_s > 0
    assert Epoch.of({10: 0.2, 40: 0.9}) == Epoch(0.9 / 40, 0.0)  # noise: once would be below 0
    assert Epoch(0.01, 0.1).images_per_s(4, 64 * 4 * 10 + 5) == pytest.approx(64 * 4 * 10 / 0.2)
    assert Epoch(0.01, 0.1).images_per_s(1024, 60_000) == 0


@pytest.mark.parametrize("link", LINKS)
def test_a_projected_step_is_the_own_part_and_messages(link: scaling.Link) -> None:
    training = Training(EPOCHS, 0.001, 10**6, DIGESTS)
    for n in PROJECTED:
        message_s = 4e6 * (n - 1) / n / link.bytes_per_s + math.log2(n) * link.latency_s
        assert training.projected("mpi", n, link).step_s == pytest.approx(0.006 + 2 * message_s)
        by_horovod = training.projected("horovod", n, link)
        assert by_horovod.step_s == pytest.approx(0.006 + 0.002 + 3 * message_s)
        assert by_horovod.once_s == 0.03


def test_it_leaves_out_horovod_where_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"images_per_s": 1e4, "n_trained": 100, "sha256": "a", "seconds": 1e-4}

    def python(*arguments: str, n_ranks: int = 0) -> SimpleNamespace:
        if any('"horovod"' in one for one in arguments):
            raise RuntimeError("status 2\nHorovod cannot be imported (no module)")
        return SimpleNamespace(said=said)

    monkeypatch.setattr(scaling, "python", python)
    training = scaling._training("dense", {"n_images": (512,), "n_epochs": 4}, 1)
    assert training.sums == ["mpi"] and "its rows are left out" in capsys.readouterr().out
    sweep = scaling.Sweep({1: 2.0, 2: 1.0}, 100, 0.02, 0.1, {"a"})
    rows = scaling._rows({"dense": training}, sweep)
    assert {row.by for row in rows} == {"MPI"}
    assert all(claim.holds for claim in scaling._claims({"dense": training}, sweep, rows))
    other = scaling.Sweep({1: 2.0, 2: 1.0}, 100, 0.02, 0.1, {"a", "b"})
    assert not scaling._claims({"dense": training}, other, rows)[0].holds
    apart = Training(EPOCHS, 0.001, 100, {"mpi": {"a"}, "horovod": {"b"}})
    assert not scaling._claims({"dense": apart}, sweep, rows)[1].holds
