"""Where the time of an evaluation goes."""

import time

import pytest

from model.evaluation.timing import Timing


def test_parts_add_up_and_frames_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timing = Timing()
    for seconds in (1.0, 3.0):
        with timing.part("networks"):
            now[0] += seconds
        timing.frames += 1
    with pytest.raises(RuntimeError), timing.part("scores"):
        now[0] += 1
        raise RuntimeError
    now[0] += 3
    assert timing.to_json() == {
        "seconds": 8.0,
        "frames": 2,
        "frames_per_second": 0.25,
        "seconds_networks": 4.0,
        "seconds_scores": 1.0,
    }
