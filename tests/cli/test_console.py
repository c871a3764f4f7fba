import io
import json
import logging
import re
from pathlib import Path

import pytest
import typer

from cli.console import Output, counted, human_bytes, human_time, printable
from pipeline.reports import Quarantined, no_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_put_back(spk) -> None:
    """The fixture `spk` does it."""


def test_with_json_all_else_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.say("for people")
    output.table("title", ("a", "b"), [("1", "2")])
    logging.getLogger("pipeline.x").info("logged")
    output.result({"path": Path("x"), "psnr": float("inf"), "rows": [{"loss": float("nan")}]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"path": "x", "psnr": None, "rows": [{"loss": None}]}
    assert out.count("\n") == 1
    for text in ("for people", "title", "logged"):
        assert text in err


def test_without_json_results_are_on_stdout_and_messages_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()
    output.say("for people")
    logging.getLogger("model.x").info("logged")
    output.result({"a": 1})
    out, err = capsys.readouterr()
    assert out == "for people\n" and err == "INFO    logged\n"


def test_quiet_leaves_warnings_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.say("for people")
    output.table("title", ("a",), [("1",)])
    logging.getLogger("model.x").info("info")
    logging.getLogger("model.x").warning("careful")
    out, err = capsys.readouterr()
    assert "for people" not in out and "title" in out
    assert err == "WARNING careful\n"


def test_verbose_also_says_details_of_ours_and_nothing_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    Output(verbose=True)
    logging.getLogger("pipeline.x").debug("detail")
    logging.getLogger("numba.core").info("foreign")
    err = capsys.readouterr().err
    assert "detail" in err and "pipeline.x" in err and "foreign" not in err


def test_only_the_first_of_several_processes_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    output = Output(as_json=True)
    output.say("for people")
    output.table("title", ("a",), [("1",)])
    output.result({"a": 1})
    logging.getLogger("model.x").warning("careful")
    assert capsys.readouterr() == ("", "")
    logging.getLogger("model.x").error("broken")
    assert "broken" in capsys.readouterr().err


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    long = "runs/[bold]x[/bold] :smile: " + "a" * 300
    output.say(long)
    output.table(long, ("[red]",), [("[link=x]",)])
    out = capsys.readouterr().out
    assert out.count(f"{long}\n") == 2 and "[red]" in out and "[link=x]" in out


def test_a_long_cell_is_folded_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    cell = "".join(f"{i:04d}" for i in range(100))
    Output().table("title", ("a", "b"), [("x", cell)])
    out = capsys.readouterr().out
    assert "".join(character for character in out if character.isdigit()) == cell


@pytest.mark.parametrize("quiet", [False, True])
def test_what_was_set_aside_is_listed_a_line_each(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Quarantined(f"path/{i:03d}" + "x" * 200, "no [such] file") for i in range(25)]
    with pytest.raises(typer.Exit) as caught:
        Output(quiet=quiet).quarantined(problems)
    assert caught.value.exit_code == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[19] == f"set aside: path/019{'x' * 200}: no [such] file" and len(lines) == 21
    assert lines[20] == "and 5 more, all of which --json lists"


def test_nothing_set_aside_is_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    Output().quarantined([])
    assert capsys.readouterr() == ("", "")


def test_bars_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take anything for a terminal
    with Output().progress() as progress:
        assert progress is no_progress
    monkeypatch.setattr("sys.stderr", Terminal())
    with Output(quiet=True).progress() as progress:
        assert progress is no_progress


def test_messages_go_above_what_is_live_but_for_those_that_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    output, log = Output(), logging.getLogger("model.x")
    routine = {"routine": True}
    with output.live("SHOWN"):
        log.info("step 1", extra=routine)
        log.warning("careful")
    log.info("step 2", extra=routine)
    drawn = terminal.getvalue()
    text = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert "step 1" not in text and text.index("careful") < text.rindex("SHOWN") < text.index("step 2")
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # the cursor is shown again


def test_work_is_one_bar_whatever_it_says_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Output().progress() as progress:
        for step in range(1, 4):
            progress(step, 4, f"loss {step} [x]")
        progress(0, 9, "shards")
        progress(9, 9, "shards")
    frames = [frame for frame in terminal.getvalue().split("\x1b[2K") if "/9" in frame]
    assert "shards" in frames[-1] and "9/9" in frames[-1]
    assert not [frame for frame in frames if "loss" in frame]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")],
)
def test_bytes_are_readable(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_one_is_singular() -> None:
    assert [counted(n, "sequence") for n in (0, 1, 2)] == ["0 sequences", "1 sequence", "2 sequences"]


def test_a_log_message_on_a_terminal_is_itself_and_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    Output()
    logging.getLogger("model.train").info("learning")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert plain.split() == ["INFO", "learning"]


def test_nothing_printed_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of files are any bytes: an escape sequence, half a character."""
    name = "a\x1b[2J\udcff\x9b\rb"
    assert printable(name + "\n\té") == r"a\x1b[2J\udcff\x9b\rb" + "\n\té"
    output = Output()
    output.say(name)
    output.table(name, (name,), [(name,)])
    logging.getLogger("pipeline.x").warning("%s is odd", name)
    with pytest.raises(typer.Exit):
        output.quarantined([Quarantined(name, name)])
    out, err = capsys.readouterr()
    assert not re.search(r"[\x1b\udcff\x9b\r]", out + err) and err.count(r"a\x1b[2J") == 1


def test_another_log_hears_the_message_as_it_is() -> None:
    heard = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    Output()
    logging.getLogger("pipeline").addHandler(handler)
    logging.getLogger("pipeline.x").warning("%s\x1b", 3)
    logging.getLogger("pipeline").removeHandler(handler)
    assert heard[0].getMessage() == "3\x1b" and heard[0].args == (3,)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1234, "0.123 s"),
        (99, "99 s"),
        (150, "2 min"),
        (5400, "90 min"),
        (9000, "2 h 30 min"),
        (5e5, "5 d 19 h"),
    ],
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert human_time(seconds) == text
