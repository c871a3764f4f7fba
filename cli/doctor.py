"""`spk doctor`: is everything here that training needs, and what to do about what is not?"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import EXIT_CHECK_FAILED, Json, Output, Quiet, Verbose, counted
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.checkup.finding import Check, Finding


def doctor(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...", help="Stores, or folders for stores and runs; the current folder by default."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check Python, packages, PyTorch, GPUs, the machine, and the disks and stores given. Exit code 4: a problem."""
    from pipeline.checkup.finding import run_checks

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    with output.progress() as progress:
        findings = run_checks(_checks(paths or [Path()]), progress)
    _show(output, findings)
    problems = [finding for finding in findings if finding.status == "problem"]
    output.result({"ok": not problems, "checks": [asdict(finding) for finding in findings]})
    if problems:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _checks(paths: list[Path]) -> "list[tuple[str, Check]]":
    from model.checkup import torch_checks
    from pipeline.checkup import codecs, disk, host, packages, stores
    from pipeline.storage.places import is_remote, shown

    checks: list[tuple[str, Check]] = [
        ("Python", packages.check_python),
        ("packages", packages.check_requirements),
        *torch_checks(),
        ("processors", host.check_processors),
        ("OMP_NUM_THREADS", host.check_threads),
        ("memory", host.check_memory),
        ("/dev/shm", host.check_shared_memory),
        ("open files", host.check_open_files),
        ("locale", host.check_locale),
        ("clock", host.check_clock),
        ("codecs", codecs.check_codecs),
        ("crc32c", codecs.check_checksums),
        ("numba", codecs.check_kernels),
        ("extras", packages.check_extras),
    ]
    for path in paths:
        if not is_remote(path) and not path.exists():
            raise UsageError(f"{path}: no such file or directory")
        a_store = is_remote(path) or stores.is_store(path)
        if a_store:
            checks.append((f"store {shown(path)}", partial(stores.check_store, path)))
        if not is_remote(path):
            inside = path.is_dir() and not a_store  # nothing is written into a store
            folder = path if inside else path.absolute().parent
            for check in (disk.check_file_system, disk.check_space, disk.check_promises, disk.check_speed):
                checks.append((f"disk of {path}", partial(check, folder)))
    return checks


def _show(output: Output, findings: "list[Finding]") -> None:
    if not output.quiet:
        output.table(
            f"{counted(len(findings), 'check')}",
            ("check", "found", "verdict"),
            [(finding.name, finding.found, finding.status) for finding in findings],
        )
    fixes = [finding for finding in findings if finding.fix and finding.status != "ok"]
    for finding in fixes:
        output.say(f"{finding.status}: {finding.name}: {finding.found}")
        output.say(f"  fix: {finding.fix}")
    if not any(finding.status == "problem" for finding in findings):
        output.say("no problems")
