"""When frames were, and how fast a video shows them."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from model.deblurring.config import DeblurConfig
from model.deblurring.facts import frame_facts, shown_rate_hz

EXPOSURE = np.array([[0, 40], [100, 140], [200, 240]])
MS = 1_000_000


def recording(video_hz: Fraction | None = None, exposure_ns: np.ndarray | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        frames=("a", "b", "c"),
        num_frames=3,
        exposure=EXPOSURE,
        exposure_ns=exposure_ns,
        setup=SimpleNamespace(video_hz=video_hz),
    )


def test_a_video_is_as_fast_as_it_is_told_or_as_the_recording_was() -> None:
    stamped = EXPOSURE * MS
    assert shown_rate_hz(recording(Fraction(30), stamped), DeblurConfig(fps=Fraction(60))) == 60
    assert shown_rate_hz(recording(Fraction(30), stamped), DeblurConfig()) == 30
    assert shown_rate_hz(recording(None, stamped), DeblurConfig()) == 10  # 100 ms from start to start
    assert shown_rate_hz(recording(), DeblurConfig()) == 25


def test_instants_are_told_in_spike_frames_and_in_nanoseconds_where_they_are_known() -> None:
    first, second, _ = frame_facts(recording(exposure_ns=EXPOSURE * MS), (0.25, 0.5))
    assert first == {
        "frame": "a",
        "exposure": [0, 40],
        "instants": [10, 20],
        "exposure_ns": [0, 40 * MS],
        "instants_ns": [10 * MS, 20 * MS],
    }
    assert second["instants"] == [110, 120]
    (middle, *_) = frame_facts(recording(), (None,))
    assert middle == {"frame": "a", "exposure": [0, 40], "instants": [20]}
