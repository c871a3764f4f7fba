"""Calling a function in a process of its own: its memory is its own, and so is its death."""

import contextlib
import logging
import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pipeline.reports import Progress, no_progress

T = TypeVar("T")


class ProcessDiedError(Exception):
    """A process ended without an answer.

    Args:
        exit_code: its own, or minus the number of the signal that ended it.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def call_apart(function: Callable[..., T], *arguments: Any, progress: Progress = no_progress) -> T:
    """`function(*arguments, progress=…)`, called in a new process, which is gone when this returns or raises.

    Args:
        function: of a module; it, what it is given and what it returns can be pickled.
        progress: told what the function tells its own.

    Raises:
        ProcessDiedError: the process was killed, or ended itself.
        Exception: what the function raises.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit memory, threads and a CUDA context
    answers, to_us = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(to_us, function, arguments), daemon=True)
    process.start()
    to_us.close()
    try:
        while True:
            kind, value = answers.recv()
            if kind == "progress":
                progress(*value)
            elif kind == "result":
                return value
            else:
                raise value
    except (EOFError, ConnectionResetError):
        process.join()
        raise ProcessDiedError(process.exitcode or 0) from None
    finally:
        process.kill()  # not terminate: training would take that as a request to finish its step
        process.join()
        answers.close()


def _answer(to_parent: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    logging.getLogger().addHandler(logging.NullHandler())  # or warnings would go to stderr, bare

    def progress(done: int, total: int, what: str) -> None:
        to_parent.send(("progress", (done, total, what)))

    try:
        answer = "result", function(*arguments, progress=progress)
    except Exception as error:
        error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
        answer = "error", error
    with contextlib.suppress(BrokenPipeError):  # the one that asked is gone
        to_parent.send(answer)
