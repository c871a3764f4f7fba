"""Being asked to stop: by a scheduler, by a terminal that closes, or by Ctrl-C."""

import contextlib
import logging
import os
import signal
import socket
import threading
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_PATIENCE_S = 5.0
"""Time for a second Ctrl-C to end the program by itself, which it cannot while it waits for a device or a process."""


class StopRequest:
    """Remembers a request to stop while it is entered, so that the work at hand can be finished and saved.

    The first SIGINT, SIGTERM, SIGUSR1 or SIGHUP sets `requested`; a Ctrl-C after it raises KeyboardInterrupt at once.
    A signal that was ignored before (`nohup`, a job in the background) stays ignored. Outside the main thread, where
    Python delivers no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}
        self._answering: threading.Thread | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            # A handler runs in the middle of anything, a write to the same log included, and not before a long
            # operation is done. So it only remembers, and a thread, which hears of the signal at once, answers.
            heard, self._told = socket.socketpair()
            self._told.setblocking(False)
            self._fd_before = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
            self._answering = threading.Thread(target=_answer, args=(heard,), name="signals", daemon=True)
            self._answering.start()
            self._before = {
                number: signal.signal(number, self._remember)
                for number in _SIGNALS
                if signal.getsignal(number) is not signal.SIG_IGN
            }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._answering is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._fd_before)
        self._told.close()
        self._answering.join()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def _answer(heard: socket.socket) -> None:
    """Say what the first signal leads to, and see to it that a Ctrl-C after it ends the process.

    Args:
        heard: gives the number of each signal as a byte; closed from the other side at the end.
    """
    with heard:
        asked = False
        while number := heard.recv(1):
            if number[0] not in _SIGNALS:
                continue
            if not asked:
                name = signal.Signals(number[0]).name
                logger.warning("%s: stopping after this step, with a checkpoint (Ctrl-C: at once)", name)
            elif number[0] == signal.SIGINT:
                heard.settimeout(_PATIENCE_S)
                with contextlib.suppress(TimeoutError):
                    if not heard.recv(1):
                        return
                os._exit(128 + signal.SIGINT)  # files are whole at any instant
            asked = True
