import errno
import logging
import threading
from typing import Any

import pytest
from torch import nn

from model.training.events import Listener
from model.training.tolerant import Tolerant, tolerant_threads
from tests.model.training.test_events import METRICS, tell_everything


class Disk(Listener):
    """Writes what it hears to a disk that may be full."""

    def __init__(self) -> None:
        self.is_full = False
        self.written: list[str] = []

    def on_step(self, metrics: Any) -> None:
        self.write("step")

    def on_pictures(self, step: int, network: nn.Module) -> None:
        self.write("pictures")

    def close(self) -> None:
        self.write("close")

    def write(self, what: str) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written.append(what)


def test_passes_everything_on() -> None:
    heard = []
    names = [name for name in vars(Listener) if name.startswith("on_")]
    hears = {name: lambda self, *what, name=name: heard.append(name) for name in names}
    tell_everything(Tolerant(type("All", (Listener,), hears)()))
    assert sorted(heard) == sorted(names)


def test_a_full_disk_is_said_once_until_there_is_space_again(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    listener = Tolerant(disk)
    with caplog.at_level(logging.ERROR):
        for disk.is_full in (True, True, False, True):
            listener.on_step(METRICS)
        listener.close()
    assert disk.written == ["step"]
    said = "Disk cannot write: [Errno 28] No space left on device; training goes on"
    assert caplog.messages == [said, said]


def test_other_errors_are_bugs_and_pass() -> None:
    class Broken(Listener):
        def on_step(self, metrics: Any) -> None:
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        Tolerant(Broken()).on_step(METRICS)
    Tolerant(Broken()).close()


def test_a_thread_that_ends_at_a_full_disk_says_so_in_one_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk()
    disk.is_full = True
    with tolerant_threads():
        thread = threading.Thread(target=disk.close)
        thread.start()
        thread.join()
    assert "a thread cannot write: [Errno 28]" in caplog.text
    assert "Traceback" not in capsys.readouterr().err
