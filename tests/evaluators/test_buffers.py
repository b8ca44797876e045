"""Parts of work on a process's own threads."""

from __future__ import annotations

import threading

import pytest

from bprune_hpc.evaluators.buffers import Threads, Workspace


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
@pytest.mark.parametrize("n_parts", [0, 1, 2, 4, 17])
def test_each_part_is_done_once_in_room_of_its_thread(n_threads: int, n_parts: int) -> None:
    done: list[int] = []
    rooms: dict[int, set[int]] = {}
    lock = threading.Lock()

    def work(room: Workspace, start: int, stop: int) -> None:
        with lock:
            done.extend(range(start, stop))
            rooms.setdefault(id(room), set()).add(start)

    Threads(n_threads).run(work, n_parts)
    assert sorted(done) == list(range(n_parts))
    assert all(len(starts) == 1 for starts in rooms.values()) and len(rooms) <= n_threads


def test_one_thread_is_the_one_that_asks() -> None:
    threads: list[int] = []
    Threads(1).run(lambda *_: threads.append(threading.get_ident()), 3)
    assert threads == [threading.get_ident()]


def test_an_error_is_told_once_no_thread_works_any_more() -> None:
    has_failed, ended = threading.Event(), threading.Event()

    def work(_: Workspace, start: int, __: int) -> None:
        if start == 0:
            has_failed.set()
            raise ZeroDivisionError("in a thread")
        assert has_failed.wait()
        threading.Event().wait(0.2)
        ended.set()

    with pytest.raises(ZeroDivisionError, match="in a thread"):
        Threads(2).run(work, 2)
    assert ended.is_set()
