import logging
import threading

import pytest
from torch import nn

from model.training.events import Listener
from model.training.guarded import Guarded, guarded_threads

FULL = OSError(28, "No space left on device")


class Writer(Listener):
    """Fails while `full`; hears of skipped steps without writing."""

    def __init__(self) -> None:
        self.full = True
        self.recovered = 0
        self.written: list[int] = []

    def on_pictures(self, step: int, network: nn.Module) -> None:
        if self.full:
            raise FULL
        self.written.append(step)

    def recover(self) -> None:
        self.recovered += 1


def test_says_once_that_writing_fails_and_once_that_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer()
    guarded = Guarded(writer)
    with caplog.at_level(logging.WARNING):
        for step in range(6):
            writer.full = step < 4
            guarded.on_pictures(step, nn.Identity())
            guarded.on_skipped(step, 0.0, 0.0)  # that this works says nothing
    assert [record.getMessage() for record in caplog.records] == [
        f"Writer CANNOT WRITE: {FULL}; training goes on without it",
        "Writer can write again",
    ]
    assert writer.written == [4, 5] and writer.recovered == 4


def test_one_that_cannot_recover_yet_is_asked_again() -> None:
    writer = Writer()
    guarded = Guarded(writer)
    guarded.on_pictures(0, nn.Identity())
    writer.full, recover = False, writer.recover

    def fail() -> None:
        raise FULL

    writer.recover = fail  # type: ignore[method-assign]
    guarded.on_pictures(1, nn.Identity())
    writer.recover = recover  # type: ignore[method-assign]
    guarded.on_pictures(2, nn.Identity())
    assert writer.written == [2]


def test_other_errors_are_raised() -> None:
    class Wrong(Listener):
        def on_pictures(self, step: int, network: nn.Module) -> None:
            raise ValueError("a mistake in the program")

    with pytest.raises(ValueError, match="mistake"):
        Guarded(Wrong()).on_pictures(1, nn.Identity())


def test_a_thread_that_ends_at_a_full_disk_says_so_in_one_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        raise FULL

    with guarded_threads():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert "a thread cannot write: [Errno 28]" in caplog.text
    assert "Traceback" not in capsys.readouterr().err
