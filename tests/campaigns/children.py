"""A process that runs `spk` command lines in children, with protections of the store switched off where a test asks.

Requests are lines of JSON on stdin, answers lines on stdout. The children are forked from a process that has loaded
everything and has no threads, so that one costs milliseconds; what starts them may kill them at any instant.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import dask.threaded
import numcodecs
import zarr

import pipeline.ingest
import pipeline.overview
import pipeline.voxelize
from cli.main import main
from pipeline.storage import shards
from tests.campaigns.protections import everywhere, protect_less
from tests.campaigns.stores import follow

PRELOADED = (dask.threaded, numcodecs, zarr, pipeline.ingest, pipeline.overview, pipeline.voxelize)
MAX_SECONDS = 120.0
GATE_SECONDS = 0.0005
SHARD_BYTES, SPIKE_FRAMES = 8 << 10, 8
"""Sizes that cut arrays of kilobytes into several shards, and shards of spikes into several chunks."""


class Children:
    """Answers requests: `start`, then `wait`; `here` runs a command in this process and `load` imports a module.

    What this process has loaded its children need not load.
    """

    def __init__(self) -> None:
        self._started: dict[int, float] = {}

    def here(self, words: list[str]) -> dict[str, Any]:
        return {"code": _command(words)}

    def load(self, module: str) -> dict[str, Any]:
        """Load a module here, so that no child has to."""
        importlib.import_module(module)
        return {"code": 0}

    def start(self, words: list[str], folder: str, off: list[str], gate: str) -> dict[str, Any]:
        """Fork a child for one command; its output goes to files in `folder`. It waits until `gate` is a file."""
        if not (child := os.fork()):
            os._exit(_child(words, Path(folder), off, gate))
        with contextlib.suppress(OSError):  # it does so itself, now or already
            os.setpgid(child, child)
        self._started[child] = time.monotonic()
        return {"pid": child}

    def wait(self, pid: int) -> dict[str, Any]:
        """How a child ended: its exit code (below 0: the signal) and the seconds since it was started."""
        started = self._started.pop(pid)
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() - started > MAX_SECONDS:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        return {"code": os.waitstatus_to_exitcode(ended[1]), "seconds": time.monotonic() - started}


def use_small_shards() -> None:
    """From here on, what is built in this process has shards of a few kilobytes."""
    layout_of = shards.spikes_layout

    def small(*arguments: Any, **options: Any) -> shards.ArrayLayout:
        whole = layout_of(*arguments, **options)
        row = whole.chunk[1:]
        return dataclasses.replace(whole, chunk=(SPIKE_FRAMES, *row), shard=(3 * SPIKE_FRAMES, *row))

    shards.TARGET_SHARD_BYTES = SHARD_BYTES
    for module, name, function in everywhere(layout_of, small):
        setattr(module, name, function)


def _child(words: list[str], folder: Path, off: list[str], gate: str) -> int:
    for name, standard in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), standard)
    os.chdir(folder)
    os.setpgid(0, 0)  # signals to its group are for it alone
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground
    protect_less(off)
    while gate and not os.path.exists(gate):
        time.sleep(GATE_SECONDS)
    if words[0] == "follow":  # not of spk: a process that trains from a store while it changes
        return follow(*words[1:])
    return _command(words)


def _command(words: list[str]) -> int:
    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    return 99


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        use_small_shards()
        children = Children()
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(children, request.pop("do"))(**request)
            print(json.dumps(answer), file=answers, flush=True)
