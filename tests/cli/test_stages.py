from pathlib import Path

import pytest
import typer

from cli.console import Output
from cli.stages import report_stage
from pipeline.reports import Quarantined, StageReport


def report(**changes: object) -> StageReport:
    values = {"store": Path("S"), "sequences": 1, "frames": 1, "written": 1, "skipped": 2, "num_bytes": 2048}
    return StageReport(**(values | {"quarantined": (), "seconds": 0.5} | changes))


def test_one_is_said_in_the_singular(capsys: pytest.CaptureFixture[str], spk) -> None:
    report_stage(Output(), report(), "grids", "NEXT", dry_run=False)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "S: grids of 1 sequence, 1 frame, 1 shard written (2.0 KiB), 2 kept"
    assert second == "took 0.5 s; next: NEXT"


def test_a_plan_has_no_next_step(capsys: pytest.CaptureFixture[str], spk) -> None:
    report_stage(Output(), report(frames=3), "grids", "NEXT", dry_run=True)
    assert capsys.readouterr().out == (
        "would write grids of 1 sequence, 3 frames: 1 shard, 2.0 KiB; 2 are there already\n"
    )


def test_nothing_written_is_up_to_date(capsys: pytest.CaptureFixture[str], spk) -> None:
    report_stage(Output(), report(written=0), "grids", "NEXT", dry_run=False)
    assert capsys.readouterr().out == "S: grids of 1 sequence, 1 frame are up to date\n"


def test_what_was_set_aside_decides_the_exit_code(spk) -> None:
    with pytest.raises(typer.Exit) as caught:
        report_stage(Output(), report(quarantined=(Quarantined("a", "b"),)), "grids", "N", dry_run=False)
    assert caught.value.exit_code == 3
