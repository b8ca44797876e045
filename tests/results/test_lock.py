"""One writer at a time: locks that are held, given back, left behind, and fought for."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bprune_hpc.errors import LockError, WriteError
from bprune_hpc.files import lock, lock_owner
from bprune_hpc.files.lock import hold
from bprune_hpc.files.lock_owner import LockOwner

TAKER = """
import sys
from bprune_hpc.errors import LockError
from bprune_hpc.files.lock import hold
print("ready", flush=True)
sys.stdin.readline()
try:
    with hold(sys.argv[1], 60.0):
        print("held", flush=True)
        sys.stdin.readline()
except LockError as error:
    print("refused", error, flush=True)
"""


def path_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.lock")


def leave(output: Path, age_s: float = 0.0, **changes: object) -> LockOwner:
    """Put a lock there as if another process had."""
    left_by = dataclasses.replace(LockOwner.me(), **changes)  # type: ignore[arg-type]
    path_of(output).write_bytes(left_by.to_text())
    os.utime(path_of(output), (time.time() - age_s,) * 2)
    return left_by


def ended() -> dict[str, int]:
    """A process that has been, by its number and beginning."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    started = lock_owner.started_at(child.pid)
    child.kill()
    child.wait()
    assert started is not None
    return {"pid": child.pid, "started": started}


def test_the_second_is_refused_by_name_and_the_lock_is_given_back(tmp_path: Path) -> None:
    output = tmp_path / "new" / "deep" / "r.h5"
    with (
        hold(output, 60.0) as held,
        pytest.raises(LockError, match=rf"is being written by process {os.getpid()} on .*, since"),
        hold(output, 60.0),
    ):
        pass
    assert os.listdir(tmp_path) == []  # no directory is left that was made for nothing
    with pytest.raises(ZeroDivisionError), hold(output, 60.0) as held:
        held.check()
        output.write_text("results")
        raise ZeroDivisionError
    assert os.listdir(output.parent) == ["r.h5"]


def test_two_names_of_a_file_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "r.h5").symlink_to("there/real.h5")
    with (
        hold(tmp_path / "r.h5", 60.0),
        pytest.raises(LockError),
        hold(tmp_path / "there" / "real.h5", 60.0),
    ):
        pass


@pytest.mark.parametrize(
    ("age_s", "changes", "is_stale"),
    [
        (0, {}, False),
        (10**6, {}, False),  # its process is there, however long it was stopped
        (0, "ended", True),
        (0, {"started": 1}, True),  # the number was used again
        (1, {"boot": "another"}, False),
        (70, {"boot": "another"}, True),
        (70, {"host": "another"}, False),
        (130, {"host": "another"}, True),
        (70, {"pid_namespace": "another"}, False),
        (130, {"pid_namespace": "another"}, True),
    ],
)
def test_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, changes: object, is_stale: bool
) -> None:
    output = tmp_path / "r.h5"
    leave(output, age_s, **(ended() if changes == "ended" else changes))  # type: ignore[arg-type]
    monkeypatch.setattr(lock.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    if is_stale:
        with hold(output, 120.0) as held:
            held.check()
    else:
        with pytest.raises(LockError, match="is being written by"), hold(output, 120.0):
            pass
    assert len(os.listdir(tmp_path)) == (0 if is_stale else 1)


def test_a_holder_elsewhere_is_waited_for(tmp_path: Path) -> None:
    output = tmp_path / "r.h5"
    leave(output, host="another")
    start = time.monotonic()
    with hold(output, 0.8):
        assert time.monotonic() - start > 0.5
    leave(output, host="another")
    ready = subprocess.Popen(
        [sys.executable, "-c", "import os, sys, time; time.sleep(.6); os.utime(sys.argv[1])",
         path_of(output)],
    )  # fmt: skip
    with pytest.raises(LockError, match="on another, since"), hold(output, 600.0):
        pass
    assert ready.wait() == 0


def test_a_lock_that_was_cut_short_is_not_for_ever(tmp_path: Path) -> None:
    output = tmp_path / "r.h5"
    path_of(output).write_text('{"token": "ab')
    os.utime(path_of(output), (time.time() - 200,) * 2)
    with hold(output, 60.0):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\x00", b"[]", b"[" * 4000, b'{"token": "ab"}',
        b'{"token": "ab", "host": [], "boot": "", "pid_namespace": "", "pid": 1, "started": 1,'
        b' "since": ""}',
        b'{"token": "../../ab", "host": "x", "boot": "", "pid_namespace": "", "pid": 1,'
        b' "started": 1, "since": ""}',
    ],
)  # fmt: skip
def test_garbage_is_a_lock_until_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    output = tmp_path / "r.h5"
    path_of(output).write_bytes(text)
    with monkeypatch.context() as fast:
        fast.setattr(lock.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
        fast.setattr(lock.time, "sleep", lambda seconds: None)
        with pytest.raises(LockError, match="process 0 on an unknown host"), hold(output, 60.0):
            pass
    os.utime(path_of(output), (time.time() - 200,) * 2)
    with hold(output, 60.0):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["directory", "link to nothing", "link", "of another user"])
def test_a_lock_that_cannot_be_read_may_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    output = tmp_path / "r.h5"
    path = path_of(output)
    if kind == "directory":
        path.mkdir()
    elif kind == "of another user":  # root may read it
        path.touch()
        whole = os.open

        def refuse(name: object, *flags: int) -> int:
            if name == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return whole(name, *flags)  # type: ignore[call-overload]

        monkeypatch.setattr(os, "open", refuse)
    else:
        path.symlink_to("nothing" if kind == "link to nothing" else tmp_path)
    with pytest.raises(LockError, match=r"r.h5.lock: cannot be made or read \("), hold(output, 60):
        pass
    assert os.listdir(tmp_path) == ["r.h5.lock"]


def test_a_process_that_the_system_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``hidepid``, or without ``/proc``: numbers that are in use are seen, no more."""
    output = tmp_path / "r.h5"
    gone = ended()
    monkeypatch.setattr(lock_owner, "_PROC", tmp_path / "proc")
    leave(output, 10.0, started=4711)
    with pytest.raises(LockError, match="is being written by"), hold(output, 60.0):
        pass
    leave(output, 70.0, started=4711)
    with hold(output, 60.0):
        pass
    leave(output, 0.0, **gone)
    with hold(output, 60.0):
        pass


def test_a_link_that_a_server_has_made_and_denies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that got lost: NFS asks again, and finds what it has done."""
    link = os.link

    def twice(one: Path, other: Path) -> None:
        link(one, other)
        link(one, other)

    monkeypatch.setattr(os, "link", twice)
    with hold(tmp_path / "r.h5", 60.0) as held:
        held.check()


def test_who_has_lost_the_lock_does_not_write(tmp_path: Path) -> None:
    output = tmp_path / "r.h5"
    with hold(output, 60.0) as held:
        other = leave(output, host="another")
        with pytest.raises(WriteError, match="was taken by process .* on another, since .*, which"):
            held.check()
        assert lock._owner_of(path_of(output)) == other
    assert path_of(output).exists()  # it is the other's
    path_of(output).unlink()
    with hold(output, 60.0) as held:
        path_of(output).unlink()
        with pytest.raises(WriteError, match="was removed"):
            held.check()


def test_it_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    output = tmp_path / "r.h5"
    with hold(output, 60.0):
        os.utime(path_of(output), (0, 0))
        while not path_of(output).stat().st_mtime:
            time.sleep(0.01)


@pytest.mark.parametrize("kind", ["no lock", "stale", "stale taker", "no links"])
def test_exactly_one_of_many_gets_it(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "r.h5"
    program = TAKER
    if kind != "no lock":
        gone = leave(output, **ended())
    if kind == "stale taker":  # one that was killed while it took over
        taker = dataclasses.replace(LockOwner.me(), **ended())  # type: ignore[arg-type]
        lock._claim(path_of(output), gone).write_bytes(taker.to_text())
    if kind == "no links":
        refuse = f"import os\ndef refuse(*names): raise OSError({errno.EPERM}, '')\n"
        program = f"{refuse}os.link = refuse\n{TAKER}"
    takers = [
        subprocess.Popen([sys.executable, "-c", program, output], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]  # fmt: skip

    def tell_and_hear(told: str) -> list[str]:
        """What each says next, all told before any is heard."""
        for taker in takers:
            if taker.stdin and told:
                taker.stdin.write(told)
                taker.stdin.flush()
        return [taker.stdout.readline() if taker.stdout else "" for taker in takers]

    assert tell_and_hear("") == ["ready\n"] * 5
    said = tell_and_hear("take it\n")
    assert sorted(text.split()[0] for text in said) == ["held"] + ["refused"] * 4, said
    for taker in takers:
        taker.communicate()  # which ends what it reads
    assert [taker.returncode for taker in takers] == [0] * 5
    assert os.listdir(tmp_path) == []
