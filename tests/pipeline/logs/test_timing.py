import json

from pipeline.logs.timing import MAX_LISTED, Fault, Timing


def timing(**values):
    plain = {"frames": 9, "verdict": "regular", "period": 40_000_000, "jitter": 3, "detects": 50_000}
    return Timing(**(plain | {"exposure": (1, 2, 3)} | values))


def test_what_is_stored_is_plain_and_counts_by_kind():
    faults = tuple(
        Fault(kind=kind, name="a", line=3, size=-7) for kind in ("reset", "duplicate", "duplicate")
    )
    stored = timing(gaps=((3, 2), (7, 1)), faults=faults, distrusted={4: "why", 5: "why"}).to_json()
    assert json.loads(json.dumps(stored)) == stored
    assert (stored["rate_hz"], stored["gaps"], stored["missing"]) == (25.0, 2, 3)
    assert (stored["resets"], stored["duplicates"], stored["steps"], stored["distrusted"]) == (1, 2, 0, 2)
    assert stored["faults"][0] == {"kind": "reset", "frame": "a", "line": 3, "size": -7}


def test_no_rate_without_a_period_or_in_spike_frames():
    assert timing(period=None).to_json()["rate_hz"] is None
    assert timing().to_json("spike frames")["rate_hz"] is None


def test_many_faults_are_counted_and_some_listed():
    faults = (Fault(kind="duplicate", name="a", line=3, size=0),) * 50
    stored = timing(faults=faults).to_json()
    assert (stored["duplicates"], len(stored["faults"])) == (50, MAX_LISTED)
