import pickle

import pytest

from pipeline import errors


def test_a_fix_follows_the_problem():
    assert (
        str(errors.FormatError("a.dat: too short", "copy it again")) == "a.dat: too short\nfix: copy it again"
    )
    assert str(errors.FormatError("a.dat: too short")) == "a.dat: too short"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.FormatError, 1),
        (errors.AlignmentError, 1),
        (errors.StoreError, 1),
        (errors.CheckpointError, 1),
        (errors.TrainingError, 1),
        (errors.UsageError, 2),
        (errors.ConfigError, 2),
        (errors.ParityError, 4),
        (errors.WorseError, 5),
    ],
)
def test_exit_codes(kind, code):
    assert issubclass(kind, errors.SpkError)
    assert kind("x").exit_code == code


def test_errors_come_back_whole_from_another_process():
    error = pickle.loads(pickle.dumps(errors.StoreError("broken", "mend it")))
    assert (type(error), error.problem, error.fix) == (errors.StoreError, "broken", "mend it")
