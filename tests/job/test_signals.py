from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from bprune_hpc.job.signals import StopSignals
from tests.helpers.launch import LIMIT_S, ROOT

PROGRAM = """
import subprocess, sys, time
from bprune_hpc.job import signals as stop_signals
signals = stop_signals.start()
assert stop_signals.start() is signals and "numpy" not in sys.modules
show = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
child = [sys.executable, "-c", show]
print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
command = stop_signals.with_default_signals(child)
print(subprocess.run(command, capture_output=True, text=True).stdout.strip(), flush=True)
while True:
    time.sleep(0.01)
    if signals.seen:
        print(signals.seen, flush=True)
        break
time.sleep(3600)
"""


@pytest.fixture
def process(request: pytest.FixtureRequest) -> object:
    how = getattr(request, "param", signal.SIG_DFL)
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, how),
    ) as started:  # fmt: skip
        assert started.stdout is not None
        yield started
        started.kill()


def test_signals_ask_and_the_second_sigterm_ends(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert "SIGUSR1" in process.stdout.readline()
    assert process.stdout.readline() == "[]\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "SIGUSR1\n"
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    time.sleep(3.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == -signal.SIGTERM


def test_the_second_sigint_ends(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert "SIGINT" in process.stdout.readline()
    assert process.stdout.readline() == "[]\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == -signal.SIGINT


@pytest.mark.parametrize("process", [signal.SIG_IGN], indirect=True)
def test_a_sigint_that_is_ignored_stays_so(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert "SIGINT" not in process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "SIGUSR1\n"


def test_a_sigint_in_a_callback_is_not_lost() -> None:
    # What a handler raises there, Python prints as ignored, and goes on.
    program = (
        "import os, signal, time, weakref; from bprune_hpc.job import signals as stop_signals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signals, thing = stop_signals.start(), set()\n"
        "reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))\n"
        "del thing; time.sleep(0.2); print(signals.seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=LIMIT_S, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("SIGINT\n", "")


@pytest.mark.parametrize("order", ["before", "after"])
def test_with_nothing_to_save_the_first_sigint_ends(order: str) -> None:
    send = "os.kill(os.getpid(), signal.SIGINT); time.sleep(0.3)\n"
    program = "import os, signal, time; from bprune_hpc.job import signals as stop_signals\n"
    program += "signal.signal(signal.SIGINT, signal.SIG_DFL)\nsignals = stop_signals.start()\n"
    program += send + "signals.save_nothing()" if order == "before" else (
        "signals.save_nothing()\n" + send
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=LIMIT_S)
    assert done.returncode == -signal.SIGINT


def test_one_request_on_two_ways_is_one_request() -> None:
    signals = StopSignals()
    assert signals.seen is None
    assert not signals.note(signal.SIGTERM, 100.0)
    assert not signals.note(signal.SIGTERM, 100.5)
    assert not signals.note(signal.SIGUSR1, 110.0)
    assert signals.note(signal.SIGTERM, 110.0)
    assert signals.seen == "SIGTERM"


def test_one_ctrl_c_by_a_terminal_and_a_launcher_is_one_request() -> None:
    signals = StopSignals()
    assert not signals.note(signal.SIGINT, 100.0)
    assert not signals.note(signal.SIGINT, 100.1)
    assert not signals.note(signal.SIGTERM, 101.0)
    assert signals.seen == "SIGINT"
    assert signals.note(signal.SIGINT, 100.6)


def test_a_sigterm_after_sigusr1_is_the_first_one() -> None:
    signals = StopSignals()
    assert not signals.note(signal.SIGUSR1, 100.0)
    assert not signals.note(signal.SIGTERM, 160.0)
    assert signals.seen == "SIGUSR1"
