from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from conftest import LIMIT_S, ROOT

from bprune_hpc.stop_signals import StopSignals

PROGRAM = """
import subprocess, sys, time
from bprune_hpc import stop_signals
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
def process() -> object:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
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


def test_one_request_on_two_ways_is_one_request() -> None:
    signals = StopSignals()
    assert signals.seen is None
    assert not signals.note(signal.SIGTERM, 100.0)
    assert not signals.note(signal.SIGTERM, 100.5)
    assert not signals.note(signal.SIGUSR1, 110.0)
    assert signals.note(signal.SIGTERM, 110.0)
    assert signals.seen == "SIGTERM"


def test_a_sigterm_after_sigusr1_is_the_first_one() -> None:
    signals = StopSignals()
    assert not signals.note(signal.SIGUSR1, 100.0)
    assert not signals.note(signal.SIGTERM, 160.0)
    assert signals.seen == "SIGUSR1"
