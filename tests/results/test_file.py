from __future__ import annotations

import os
import pickle
import stat
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from bprune_hpc import results
from bprune_hpc.config import sweep_config
from bprune_hpc.errors import ResultsError, WriteError
from bprune_hpc.files import atomic_write
from bprune_hpc.results import file as results_file
from bprune_hpc.results import output
from bprune_hpc.results.file import Contents, Variable
from tests.helpers.contents import contents


def test_xarray_opens_a_group_with_its_labels(tmp_path: Path) -> None:
    results_file.write(tmp_path / "r.h5", contents())
    with xarray.open_dataset(tmp_path / "r.h5", engine="h5netcdf", group="metrics") as metrics:
        assert metrics.nll.dims == ("threshold",)
        assert metrics.nll.sel(threshold=0.5) == 2
        assert metrics.nll.attrs["units"] == "nat" and metrics.attrs["note"] == "said"
    with xarray.open_dataset(tmp_path / "r.h5", engine="h5netcdf", group="sparsity") as sparsity:
        assert sparsity.layer.values.tolist() == ["a/kernel", "b/kernel", "c"]
        assert sparsity.fraction.dims == ("threshold", "layer")


@pytest.mark.filterwarnings("error")
def test_read_gives_every_group(tmp_path: Path) -> None:
    results_file.write(tmp_path / "r.h5", contents())
    found = results.read(tmp_path / "r.h5")
    assert found.attrs["status"] == "complete"
    assert set(found.groups) == {"", "metrics", "sparsity", "snr/a/kernel", "run"}
    assert found.metrics.nll.sel(threshold=0.0) == 1
    assert found.groups["snr/a/kernel"].counts.values.tolist() == [0, 1, 2, 3, 4]
    assert found.groups[""].requested_fraction.dims == ("threshold",)
    assert str(found.run.launcher.values) == "mpirun"
    with pytest.raises(AttributeError, match="no group 'nothing'; there are"):
        _ = found.nothing


def test_a_new_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    results_file.write(path, contents(1.0))
    with h5py.File(path, "r") as reader:
        results_file.write(path, contents(5.0))
        assert reader["metrics/nll"][0] == 1  # who reads the old file goes on reading it
    assert results.read(path).metrics.nll.values[0] == 5
    assert os.listdir(tmp_path) == ["r.h5"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 or os.umask(os.umask(0)) & 0o044


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    results_file.write(path, contents())
    before = path.read_bytes()
    broken = Contents({}, {}, {"g": {"x": Variable(("a",), np.array([object()]))}})
    with pytest.raises(TypeError):
        results_file.write(path, broken)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["r.h5"]


@pytest.mark.parametrize("limit_bytes", [0, 1000, 100_000, 7_000_000])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, limit_bytes: int) -> None:
    import resource
    import signal

    path = tmp_path / "r.h5"
    results_file.write(path, contents())
    before = path.read_bytes()
    large = Contents({}, {}, {"g": {"x": Variable(("a",), np.random.default_rng(0).random(10**6))}})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit[1]))
        with pytest.raises(WriteError, match="r.h5: cannot be written"):
            results_file.write(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["r.h5"]


def test_a_place_that_cannot_be_written_is_found_before_any_work(tmp_path: Path) -> None:
    atomic_write.check_writable(tmp_path / "new" / "deep" / "r.h5")
    assert os.listdir(tmp_path) == []  # nothing is made before it is needed
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"file/r.h5: cannot be written \(.*\); choose another"):
        atomic_write.check_writable(tmp_path / "file" / "r.h5")
    for directory in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(ResultsError, match="is a directory"):
            atomic_write.check_writable(directory)
    with pytest.raises(ResultsError, match="cannot be written"):
        atomic_write.check_writable("/proc/r.h5")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "r.h5").symlink_to("there/real.h5")
    results_file.write(tmp_path / "r.h5", contents())
    assert (tmp_path / "r.h5").is_symlink()
    assert results.read(tmp_path / "there" / "real.h5").metrics.nll.values[0] == 1


def test_the_file_is_on_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (events.append("rename"), replace(self, to))[1]
    )
    results_file.write(tmp_path / "r.h5", contents())
    assert events == ["sync", "rename", "sync"]


def test_checking_keeps_an_existing_file(tmp_path: Path) -> None:
    results_file.write(tmp_path / "r.h5", contents())
    before = (tmp_path / "r.h5").read_bytes()
    atomic_write.check_writable(tmp_path / "r.h5")
    assert (tmp_path / "r.h5").read_bytes() == before


def test_what_is_no_results_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResultsError, match="no such file"):
        results.read(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ResultsError, match="not a readable results file"):
        results.read(tmp_path / "text.h5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file.attrs["schema"] = results.SCHEMA
    with pytest.raises(ResultsError, match="HDF5, but without a digest"):
        results.read(tmp_path / "plain.h5")
    results_file.write(tmp_path / "empty.h5", Contents({}, {}, {}))
    with (
        pytest.raises(ResultsError, match="damaged or incomplete .*; run the sweep again"),
        results.open_results(tmp_path / "empty.h5") as file,
    ):
        file["metrics/nll"]
    with monkeypatch.context() as patch:
        patch.setattr(results_file, "SCHEMA", "bprune-hpc/0")
        results_file.write(tmp_path / "other.h5", contents())
    with pytest.raises(ResultsError, match="schema bprune-hpc/0, not 'bprune-hpc/1'"):
        results.read(tmp_path / "other.h5")


def test_what_cannot_write_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sweep_config.parse(["--model_dir=none", f"--output={tmp_path / 'sweep.h5'}"])
    with output.open_output(asked):
        pass
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError), output.open_output(asked):
        pass


def test_what_is_read_is_a_tree(tmp_path: Path) -> None:
    results_file.write(tmp_path / "r.h5", contents())
    found = results.read(tmp_path / "r.h5")
    assert isinstance(found, xarray.DataTree) and isinstance(found, results.Results)
    for name, group in found.groups.items():  # as xarray itself reads them
        with xarray.open_dataset(
            tmp_path / "r.h5", engine="h5netcdf", group=name or None
        ) as written:
            assert group.identical(written.load()), name
    assert isinstance(found.metrics, xarray.Dataset)
    assert found["metrics/nll"].sel(threshold=0.5) == 2 and found["metrics"].parent is found
    assert found.sel(threshold=0.5)["sparsity/fraction"].dims == ("layer",)
    assert found.snr.a.kernel.counts.size == 5
    for text in (repr(found), found._repr_html_()):
        assert "metrics" in text and "nll" in text and "r.h5" in text
    for copied in (pickle.loads(pickle.dumps(found)), found.copy(deep=True)):
        assert copied.identical(found) and copied.metrics.identical(found.metrics)


def test_a_tensor_can_be_called_like_a_label(tmp_path: Path) -> None:
    made = contents()
    groups = {**made.groups, "snr/layer/kernel": made.groups["snr/a/kernel"]}
    results_file.write(tmp_path / "r.h5", replace(made, groups=groups))
    found = results.read(tmp_path / "r.h5")
    assert found.groups["snr/layer/kernel"].counts.values.tolist() == [0, 1, 2, 3, 4]
    assert found.sparsity.layer.values.tolist() == ["a/kernel", "b/kernel", "c"]
