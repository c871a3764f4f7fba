import json
from pathlib import Path

from pipeline.reports import Quarantined, StageReport, no_progress


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
