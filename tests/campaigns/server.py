"""The process that `children` is, from the outside: commands that are started, killed and waited for."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).parents[2]


class Ended(NamedTuple):
    """How a command ended: its exit code (below 0: the signal), what it printed, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it said in one readable block what is wrong."""
        return self.code in (1, 2, 3, 4) and self.err.count("error: ") == 1 and not self.crashed

    @property
    def crashed(self) -> bool:
        """Whether it died, or said what only programmers can read."""
        return self.code < 0 or self.code == 99 or "Traceback" in self.err or "this is a bug" in self.err


@dataclass(frozen=True)
class Child:
    """A command that is running."""

    pid: int
    folder: Path
    server: "Server"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def is_running(self) -> bool:
        """Whether it has not ended yet; one that has is told apart from none by the process that forked it."""
        with open(f"/proc/{self.pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to it, or to its process group; nothing happens if it is done."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> Ended:
        told = self.server.ask(do="wait", pid=self.pid)
        printed = (self.folder / name for name in ("out", "err"))  # killed at once, it made neither
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in printed)
        return Ended(told["code"], out, err, told["seconds"])


class Server:
    """The process that children are forked from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (folder / "server.log").open("w") as told:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.campaigns.children"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def here(self, *words: object) -> None:
        """Run a command in the process that children are forked from: what it loads, they need not."""
        assert self.ask(do="here", words=[str(word) for word in words])["code"] == 0, self._folder

    def load(self, module: str) -> None:
        """Import a module in the process that children are forked from."""
        assert self.ask(do="load", module=module)["code"] == 0, self._folder

    def start(self, *words: object, off: Sequence[str] = (), gate: Path | None = None) -> Child:
        """Start a command.

        Args:
            off: protections that it does without, see `protections`.
            gate: it waits until this file is there.
        """
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        request = {"words": [str(word) for word in words], "folder": str(folder), "off": list(off)}
        return Child(self.ask(do="start", gate=str(gate or ""), **request)["pid"], folder, self)

    def run(self, *words: object, off: Sequence[str] = ()) -> Ended:
        """Run a command to its end."""
        return self.start(*words, off=off).wait()

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
