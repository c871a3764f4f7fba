import time

import pytest

from model.training.pace import Pace


def test_counts_steps_and_waiting_and_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace()
    for _ in range(4):
        with pace.waiting():
            now[0] += 1.0
        now[0] += 3.0
        pace.done()
        with pace.paused():
            now[0] += 50.0
    assert pace.lap() == pytest.approx((4 / 16, 0.25))
    now[0] += 2.0
    pace.done()
    assert pace.lap() == pytest.approx((0.5, 0.0))


def test_tells_what_all_the_time_went_to(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace()
    for _ in range(2):
        now[0] += 30.0
        with pace.paused("validation"):
            now[0] += 15.0
        with pace.paused("saving"):
            now[0] += 5.0
        pace.lap()
    assert pace.pause_share("validation") == pytest.approx(0.3)
    assert pace.pause_share("saving") == pytest.approx(0.1)
    assert pace.pause_share("anything else") == 0
