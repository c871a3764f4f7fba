import json
from pathlib import Path

from pipeline.reports import MAX_LISTED, Quarantined, StageReport, listed, no_progress


def test_json_has_the_keys_of_the_interface():
    report = StageReport(
        store=Path("s"),
        sequences=1,
        frames=2,
        written=3,
        skipped=4,
        num_bytes=5,
        quarantined=(Quarantined("a.png", "dark"),),
        seconds=0.5,
    )
    assert json.loads(json.dumps(report.to_json())) == {
        "store": "s",
        "sequences": 1,
        "frames": 2,
        "written": 3,
        "skipped": 4,
        "bytes": 5,
        "quarantined": [{"path": "a.png", "reason": "dark"}],
        "seconds": 0.5,
    }


def test_nobody_has_to_watch():
    assert no_progress(1, 2, "x") is None


def test_of_many_inputs_set_aside_the_first_are_named():
    problems = [Quarantined(f"{k}.png", "dark") for k in range(MAX_LISTED + 2)]
    assert listed(problems[:2]) == "0.png: dark\n1.png: dark"
    assert listed(problems).splitlines()[-2:] == [f"{MAX_LISTED - 1}.png: dark", "and 2 more"]
