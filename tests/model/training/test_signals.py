import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.training.signals import StopRequest

ROOT = Path(__file__).parents[3]
HANDLED = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """As in the foreground, wherever the tests run: behind nohup or in the background some signals are ignored."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", HANDLED)
def test_the_first_signal_is_remembered(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        deadline = time.monotonic() + 5
        while number.name not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.001)
    assert f"{number.name}: stopping after this step, with a checkpoint" in caplog.text


def test_a_second_interrupt_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler may repeat itself
        os.kill(os.getpid(), signal.SIGINT)


def test_an_answer_is_given_once(caplog: pytest.LogCaptureFixture) -> None:
    with StopRequest():
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert caplog.text.count("stopping after this step") == 1


def test_puts_everything_back() -> None:
    before = {number: signal.getsignal(number) for number in HANDLED}
    threads = threading.active_count()
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_leaves_signals_alone_in_other_threads() -> None:
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            with StopRequest() as stop:
                assert not stop.requested
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failures


STUCK = """
import _thread, signal, sys
import model.training.signals as signals
signals._PATIENCE_S = 0.1
signal.signal(signal.SIGINT, signal.default_int_handler)
with signals.StopRequest():
    print("here", flush=True)
    lock = _thread.allocate_lock()
    lock.acquire()
    while True:
        try:
            lock.acquire()  # a wait that goes on after the interrupt, as that for a lost process does
        except KeyboardInterrupt:
            pass
"""


def test_a_second_interrupt_ends_a_process_that_waits_for_something_that_never_comes() -> None:
    child = subprocess.Popen([sys.executable, "-c", STUCK], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"here\n"
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert child.wait(10) == 130
    child.stdout.close()
