"""Processes that find themselves where torchrun would put them, without the seconds that each takes to load torch."""

import contextlib
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any
from unittest import mock

_ROOT = Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["model.train"])


class Ranks:
    """Some processes that run one function together.

    Args:
        function: of a module, called with `arguments` in each; a string that it returns is printed.
        folder: of the files with what they print.
        world: how many.
        environment: variables of one of them, by rank.
    """

    def __init__(
        self,
        folder: Path,
        function: Callable[..., Any],
        *arguments: Any,
        world: int = 2,
        environment: dict[int, dict[str, str]] | None = None,
    ) -> None:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.logs = [folder / f"{time.monotonic_ns()}.{rank}.log" for rank in range(world)]
        paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        with mock.patch.dict(
            os.environ, PYTHONPATH=paths
        ):  # for what it loads beforehand, wherever the test works
            ensure_running()
        self.processes = []
        for rank, log in enumerate(self.logs):
            place = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                **shared,
                **(environment or {}).get(rank, {}),
            }
            process = _CONTEXT.Process(target=_run, args=(place, log, function, arguments), daemon=True)
            process.start()
            self.processes.append(process)

    def said(self, rank: int) -> str:
        """What a process printed."""
        return self.logs[rank].read_text() if self.logs[rank].exists() else ""

    def wait(self, seconds: float = 180) -> list[int | None]:
        """Their exit codes; minus the signal that killed one, None if it has not ended."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def kill(self) -> None:
        """End those that are left."""
        for process in self.processes:
            process.kill()

    def until(self, is_so: Callable[[], bool], seconds: float = 180) -> None:
        """Wait for something that happens while they run."""
        deadline = time.monotonic() + seconds
        while not is_so():
            alive = all(process.is_alive() for process in self.processes)
            assert alive and time.monotonic() < deadline, [self.said(rank) for rank in range(len(self.logs))]
            time.sleep(0.01)


@contextlib.contextmanager
def ranks(folder: Path, function: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Ranks]:
    """`Ranks`, of which none is left at the end."""
    started = Ranks(folder, function, *arguments, **options)
    try:
        yield started
    finally:
        started.kill()


def _run(place: dict[str, str], log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(place, OMP_NUM_THREADS="1")
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    import torch

    torch.set_num_threads(1)
    said = function(*arguments)
    if isinstance(said, str):
        print(said)  # noqa: T201 - it is what the test reads


def spk_in_each(*words: str) -> None:
    """A command line, in each process."""
    from cli.main import main

    main(list(words))
