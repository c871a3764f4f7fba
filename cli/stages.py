"""What `spk ingest` and `spk voxelize` say when they are done."""

from shlex import quote

from cli.console import Output, counted, human_bytes
from pipeline.reports import StageReport
from pipeline.storage.places import shown


def report_stage(
    output: Output, report: StageReport, what: str, next_step: str, *, dry_run: bool, parts: str | None = None
) -> None:
    """Print the report of a stage, as JSON or as two lines, and exit with 3 if inputs were set aside.

    Args:
        parts: which part of the stage it is, as "2/8".
    """
    if parts is not None:
        what = f"{what} (part {parts})"
        next_step = f"the other parts, then spk finalise {quote(shown(report.store))}"
    amount = f"{counted(report.sequences, 'sequence')}, {counted(report.frames, 'frame')}"
    shards = counted(report.written, "shard")
    size = human_bytes(report.num_bytes)
    if dry_run:
        output.say(f"would write {what} of {amount}: {shards}, {size}; {report.skipped} are there already")
    elif report.written == 0 and parts is None:
        output.say(f"{shown(report.store)}: {what} of {amount} are up to date")
    else:
        output.say(
            f"{shown(report.store)}: {what} of {amount}, {shards} written ({size}), {report.skipped} kept"
        )
        output.say(f"took {report.seconds:.1f} s; next: {next_step}")
    about = {"dry_run": dry_run} | ({} if parts is None else {"parts": parts})
    output.result(report.to_json() | about)
    output.quarantined(report.quarantined)
