"""The `spk` application: its commands, and the one place where errors become messages and exit codes."""

import os
import sys
import traceback
from typing import Any

import click
import typer
from rich.console import Console
from rich.text import Text

from cli import demo, evaluate, ingest, inspect, simulate, train, voxelize
from pipeline.errors import SpkError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="spk",
    help="Motion deblurring with a spike camera beside an RGB camera: ingest, voxelize, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (demo.demo, simulate.simulate, ingest.ingest, voxelize.voxelize):
    app.command()(command)
for command in (train.train, evaluate.evaluate, inspect.inspect):
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 ok, 1 failed, 2 usage or config, 3 finished with quarantined inputs."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments, standalone_mode=False)
    except SpkError as error:
        code = _fail(error.problem, error.fix, error.exit_code, arguments)
    except click.ClickException as error:
        code = _fail(error.format_message(), _usage(error), EXIT_USAGE, arguments)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("stopped", "", EXIT_INTERRUPTED, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except OSError as error:
        code = _fail(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), "", EXIT_FAILED, arguments
        )
    sys.exit(code or 0)


def _usage(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context else "spk --help"


def _fail(problem: str, fix: str, code: int, arguments: list[str]) -> int:
    """Print one readable block to stderr; the traceback only where -v asks for it."""
    if {"-v", "--verbose"} & set(arguments):
        traceback.print_exc()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text("error: ", style="bold red") + Text(problem))
    if fix:
        console.print(Text("fix:   ", style="bold green") + Text(fix))
    return code
