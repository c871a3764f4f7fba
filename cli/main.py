"""The `spk` application: its commands, and the one place where errors become messages and exit codes."""

import os
import re
import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli import (
    align,
    compare,
    deblur,
    demo,
    doctor,
    evaluate,
    export,
    finalise,
    ingest,
    inspect,
    plan,
    preview,
    repair,
    simulate,
    train,
    verify,
    voxelize,
)
from cli.console import printable, process_rank
from pipeline.errors import SpkError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

CommandLineError = typer.BadParameter.__base__ or typer.BadParameter
"""Click's UsageError: the one of the click package, or of the copy that newer versions of typer bring along."""

app = typer.Typer(
    name="spk",
    help="Motion deblurring with a spike camera beside an RGB camera: ingest, voxelize, train, evaluate.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (demo.demo, doctor.doctor, simulate.simulate, ingest.ingest, align.align, voxelize.voxelize):
    app.command()(command)
for command in (plan.plan, train.train, evaluate.evaluate, compare.compare, deblur.deblur, export.export):
    app.command()(command)
for command in (inspect.inspect, preview.preview):
    app.command()(command)
for command in (finalise.finalise, verify.verify, repair.repair):
    app.command()(command)


@app.callback(invoke_without_command=True)
def spk(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Print the version, or, without a command, the help."""
    if version:
        typer.echo(f"spk {_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(EXIT_USAGE)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit.

    Exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 finished with inputs set aside, 4 a check
    failed, 5 worse than what it was compared with, 75 training stopped and resumable, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments, standalone_mode=False, prog_name="spk") or 0
        if code == EXIT_INTERRUPTED:  # typer's reading of Ctrl-C
            raise KeyboardInterrupt
    except SpkError as error:
        code = _fail(error.problem, error.fix, error.exit_code, arguments)
    except CommandLineError as error:
        code = _fail(*_usage(error), EXIT_USAGE, arguments)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", "", EXIT_INTERRUPTED, [])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{place}{error.strerror or error}", "", EXIT_FAILED, arguments)
    except MemoryError as error:
        code = _fail(f"out of memory: {error}".rstrip(": "), "use fewer --workers", EXIT_FAILED, arguments)
    except Exception as error:
        text = f"this is a bug in spk: {type(error).__name__}: {error}"
        code = _fail(text, "run it again with -v and report what it prints", EXIT_FAILED, arguments)
    sys.exit(code)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("spike-deblur")
    except PackageNotFoundError:
        return "(not installed)"


def _usage(error: Exception) -> tuple[str, str]:
    """What is wrong with the command line, and the help to read."""
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return message, f"{context.command_path} --help" if context else "spk --help"


def _fail(problem: str, fix: str, code: int, arguments: list[str]) -> int:
    """Print one readable block to stderr; the traceback only where -v asks for it.

    Of several processes, all of which find the same mistake in what they were told, the first one of each machine says
    so; a failure is told by every one, as it may be the only one that failed.
    """
    rank = process_rank()
    if process_rank("LOCAL_RANK") and code in (EXIT_USAGE, EXIT_INTERRUPTED):
        return code
    if any(re.fullmatch(r"-[qv]*v[qv]*|--verbose", argument) for argument in arguments):
        traceback.print_exc()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    problem = printable(f"process {rank}: " * bool(rank) + problem)
    console.print(Text("error: ", style="bold red") + Text(problem))
    if fix:
        console.print(Text("fix:   ", style="bold green") + Text(printable(fix)))
    return code
