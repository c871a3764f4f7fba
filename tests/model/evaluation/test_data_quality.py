"""What the store knows of a recording's quality, and what of it gives cause for doubt."""

import dataclasses

import pytest

from model.evaluation.data_quality import DataQuality, LightQuality, data_quality
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.store import open_store

LIGHT = LightQuality(slope=0.01, r2_median=0.9, r2_worst=0.8, attainable=0.95, questionable=False)
GOOD = DataQuality(
    timing={"verdict": "regular"}, spike_frames=(8, 8), offset=0, residual_ns=0, runs=1, light=LIGHT
)


@pytest.fixture(scope="module")
def store(moving_raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("quality") / "store"
    ingest(moving_raw, path, read_manifest("simulated"))
    return open_store(path)


def test_a_simulated_recording_is_good_data(store):
    (sequence,) = store.sequences("test")
    found = data_quality(sequence)
    assert found.doubts == () and found.spike_frames == (32, 32) and found.runs == 1 and found.offset == 0
    assert found.timing["verdict"] == "regular" and set(found.timing) >= {"rate", "jitter", "exposure"}
    r2 = sorted(fit.r2 for fit in sequence.light)
    assert (found.light.r2_worst, found.light.r2_median) == (r2[0], r2[2]) and found.light.r2_worst > 0.6
    assert not found.light.questionable and found.light.slope > 0


def test_what_the_store_says_is_wrong_is_told(store):
    (sequence,) = store.sequences("test")
    sequence.attributes |= {
        "alignment_offset": -3,
        "residual_ns": [10, -250, 0, 0, 0],
        "set_aside": [{"path": "log.csv:7", "reason": "no image"}],
        "left_out": ["000007"],
        "timing": sequence.attributes["timing"] | {"verdict": "irregular", "overlaps": 2},
    }
    found = data_quality(sequence)
    assert (found.offset, found.residual_ns) == (-3, 250)
    assert found.set_aside == (("log.csv:7", "no image"),) and found.left_out == ("000007",)
    assert found.doubts == ("irregular times", "2 overlaps", "1 set aside")


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        (
            {"light": dataclasses.replace(LIGHT, r2_median=0.3, questionable=True)},
            "frames do not fit their spikes: median R² 0.30",
        ),
        ({"timing": {"verdict": "irregular"}}, "irregular times"),
        ({"timing": {"noticed": "1 step"}}, "1 step"),
        ({"runs": 3}, "2 gaps"),
        ({"set_aside": (("log:1", "bad"),)}, "1 set aside"),
    ],
)
def test_each_flaw_is_a_doubt(changes, doubt):
    assert GOOD.doubts == ()
    assert dataclasses.replace(GOOD, **changes).doubts == (doubt,)
