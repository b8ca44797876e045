"""A file that is replaced: whatever happens, there is the old one or the new one whole."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import threading
from pathlib import Path

import pytest

from bprune_hpc import results
from bprune_hpc.errors import DamagedError, ResultsError, WriteError
from bprune_hpc.files import atomic_write
from bprune_hpc.files.atomic_write import put, signature
from bprune_hpc.results import file as results_file
from tests.helpers.contents import contents


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_what_was_good_becomes_the_backup(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    first = put(path, [b"1"])
    assert names(tmp_path) == ["r.h5"]
    second = put(path, [b"2"], keep=first)
    assert (path.read_bytes(), (tmp_path / "r.h5.bak").read_bytes()) == (b"2", b"1")
    put(path, [b"3"], keep=second)
    assert (tmp_path / "r.h5.bak").read_bytes() == b"2"
    path.write_bytes(b"damaged")  # by another hand
    put(path, [b"4"], keep=second)
    assert (path.read_bytes(), (tmp_path / "r.h5.bak").read_bytes()) == (b"4", b"2")
    assert names(tmp_path) == ["r.h5", "r.h5.bak"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_links_the_backup_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*names: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "r.h5"
    first = put(path, [b"1"])
    monkeypatch.setattr(os, "link", refuse)
    put(path, [b"2"], keep=first)
    assert (path.read_bytes(), (tmp_path / "r.h5.bak").read_bytes()) == (b"2", b"1")
    assert names(tmp_path) == ["r.h5", "r.h5.bak"]


def test_a_directory_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems refuse that; what is put is there all the same."""
    fsync = os.fsync

    def of_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_files)
    put(tmp_path / "r.h5", [b"1"])
    assert (tmp_path / "r.h5").read_bytes() == b"1"


def test_what_is_not_to_be_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "kept").write_text("x")
    (tmp_path / "kept").chmod(0o444)
    (tmp_path / "file").write_text("x")
    for suffix in ("bak", "lock"):
        (tmp_path / f"{suffix}.{suffix}").mkdir()
    (tmp_path / "link.bak").symlink_to(tmp_path)
    for name, finding in (
        ("fifo", "is not a regular file"),
        ("circle", "Symlink loop"),
        ("kept", "is protected from being written; chmod"),
        (".", "is a directory"),
        ("new/", "is a directory"),
        ("file/s.h5", "cannot be written"),
        ("bak", "bak.bak: is a directory, where a sweep that writes bak has to put a file; move"),
        ("lock", "lock.lock: is a directory"),
    ):
        with pytest.raises(ResultsError, match=finding):
            atomic_write.check_writable(f"{tmp_path}/{name}")
    before = names(tmp_path)
    atomic_write.check_writable(tmp_path / "new" / "deep.h5")
    atomic_write.check_writable(tmp_path / "file")
    atomic_write.check_writable(tmp_path / "link")  # a link is replaced as a file is
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["r.h5", "r.h5.bak", "r.h5.lock"])
def test_another_users_file_where_only_owners_replace_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    atomic_write.check_writable(tmp_path / "r.h5")
    tmp_path.chmod(0o1777)
    with pytest.raises(ResultsError, match=rf"{name}: is another user's"):
        atomic_write.check_writable(tmp_path / "r.h5")
    monkeypatch.setattr(os, "geteuid", lambda: mine)
    atomic_write.check_writable(tmp_path / "r.h5")


@pytest.mark.parametrize("step", ["fsync", "link", "replace", "check"])
def test_a_failure_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "r.h5"
    first = put(path, [b"1"])

    def fail(*names: object) -> None:
        raise OSError(errno.EIO, "planted")

    where = {"fsync": os, "link": os, "replace": Path}.get(step)
    if where is not None:
        monkeypatch.setattr(where, step, fail)
    with pytest.raises(WriteError, match=r"r.h5: cannot be written \(planted\)"):
        put(path, [b"2"], keep=first, just_before=fail if step == "check" else lambda: None)
    assert path.read_bytes() == b"1" and names(tmp_path) == ["r.h5"]


def test_only_what_a_writer_of_this_file_left_is_cleaned(tmp_path: Path) -> None:
    left = [".r.h5.0123456789abcdef.part", ".r.h5.lock.0123456789abcdef.next"]
    new = ".r.h5.lock.0123456789abcde0"  # of a job that is about to be refused
    others = [".r.h5.x.0123456789abcdef.part", ".q.h5.0123456789abcdef.part", "r.h5.part", "r.h5"]
    for name in (*left, *others, new):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / left[1], (0, 0))
    atomic_write.clean(tmp_path / "r.h5")
    assert names(tmp_path) == sorted([*others, new])


def test_forty_kinds_of_damage_are_found(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    results_file.write(path, contents())
    whole, chance = path.read_bytes(), random.Random(1)
    for trial in range(40):
        damaged = bytearray(whole)
        if trial % 4 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        elif trial % 4 == 1:
            damaged += bytes(chance.randrange(1, 600))
        else:  # half of them in the digest itself
            end = 512 if trial % 4 == 2 else len(damaged)
            damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match="damaged, its digest does not fit; run the sweep"):
            results.read(path)
    (tmp_path / "r.h5.bak").write_bytes(whole)
    with pytest.raises(ResultsError, match="move r.h5.bak, an earlier state, to its place, or run"):
        results.read(path)
    link = tmp_path / "deep" / "link.h5"
    link.parent.mkdir()
    link.symlink_to(path)
    with pytest.raises(ResultsError, match=f"link.h5: damaged.*; move {path}.bak, an earlier"):
        results.read(link)
    (tmp_path / "r.h5.bak").write_bytes(whole[:-1])
    with pytest.raises(DamagedError, match="does not fit; run the sweep with --overwrite"):
        results.read(path)


def test_a_reader_finds_a_whole_file_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    state = results_file.write(path, contents(0.0))
    is_over = threading.Event()
    seen: list[float] = []

    def read() -> None:
        while not is_over.is_set():
            found = results.read(path)
            assert found.attrs["n_draws"] == 4
            seen.append(float(found.metrics.nll.values[0]))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        number = 0
        while number < 60 or len(seen) <= 5:
            number += 1
            state = results_file.write(path, contents(float(number)), keep=state)
    finally:
        is_over.set()
        reader.join()
    assert seen == sorted(seen)


def test_a_permission_that_is_taken_away(tmp_path: Path) -> None:
    """Root is stopped by no permission, so that a child ceases to be root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
    directory = tmp_path / "d"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.setgid(65534)
            os.setuid(65534)
            first = put(directory / "r.h5", [b"1"])
            directory.chmod(0o555)
            try:
                put(directory / "r.h5", [b"2"], keep=first)
            except WriteError as error:
                is_said = "r.h5: cannot be written (Permission denied)" in str(error)
                is_old = signature(directory / "r.h5") == first
                status = 3 if is_said and is_old else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert names(directory) == ["r.h5"]
