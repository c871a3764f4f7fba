"""What `spk ingest` and `spk voxelize` say when they are done."""

from cli.console import Output, human_bytes
from pipeline.reports import StageReport


def report_stage(output: Output, report: StageReport, what: str, next_step: str, *, dry_run: bool) -> None:
    """Print the report of a stage, as JSON or as two lines, and exit with 3 if inputs were set aside."""
    amount = f"{report.sequences} sequences, {report.frames} frames"
    if dry_run:
        size = human_bytes(report.num_bytes)
        output.say(
            f"would write {what} of {amount}: {report.written} shards, {size}; {report.skipped} are there already"
        )
    elif report.written == 0:
        output.say(f"{report.store}: {what} of {amount} are up to date")
    else:
        size = human_bytes(report.num_bytes)
        output.say(
            f"{report.store}: {what} of {amount}, {report.written} shards written ({size}), {report.skipped} kept"
        )
        output.say(f"took {report.seconds:.1f} s; next: {next_step}")
    output.result(report.to_json())
    output.quarantined(report.quarantined)
