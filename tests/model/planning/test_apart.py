import os
import signal

import pytest

from model.planning.apart import ProcessDiedError, call_apart
from pipeline.errors import TrainingError


def describe(number, *, progress):
    progress(1, 2, "half")
    return number, os.getpid()


def fail(*, progress):
    raise TrainingError("problem", "fix")


def die(number, *, progress):
    if number:
        os.kill(os.getpid(), number)
    os._exit(7)


def test_calls_in_another_process_and_passes_progress_on() -> None:
    seen = []
    number, process = call_apart(describe, 5, progress=lambda *what: seen.append(what))
    assert number == 5 and process != os.getpid() and seen == [(1, 2, "half")]


def test_errors_come_back_as_they_are_with_where_they_were_raised() -> None:
    with pytest.raises(TrainingError, match="problem") as caught:
        call_apart(fail)
    assert caught.value.fix == "fix" and "in fail" in caught.value.__notes__[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (0, 7)])
def test_a_process_that_dies_is_told_from_one_that_fails(number: int, code: int) -> None:
    with pytest.raises(ProcessDiedError) as caught:
        call_apart(die, number)
    assert caught.value.exit_code == code
