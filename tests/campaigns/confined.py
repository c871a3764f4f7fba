"""A process that runs `spk` command lines in children with limits, and tells what each of them did.

A request is a line of JSON on stdin, {"words", "outside", "folder"}, an answer one on stdout. The children are forked
from a process that has loaded everything, so that one costs milliseconds.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import dask.threaded
import numcodecs
import numpy as np
import zarr

import pipeline.ingest
import pipeline.overview
import pipeline.voxelize
from cli.main import main
from pipeline.stats import CountHistogram
from pipeline.voxels import bin_packed

PRELOADED = (dask.threaded, numcodecs, zarr, pipeline.ingest, pipeline.overview, pipeline.voxelize)
MAX_MAPPED_BYTES = 3 << 29
MAX_CPU_SECONDS = 10
MAX_SECONDS = 30
TOUCHING = (
    "open",
    "os.listdir",
    "os.scandir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.link",
)
RUNNING = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")


def run(words: list[str], outside: str, folder: Path) -> dict[str, Any]:
    """Run one command line in a child; `touched` is what it did to files below `outside`, and programs it ran."""
    names = ("out", "err", "touched")
    started = time.monotonic()
    if not (child := os.fork()):
        os._exit(_command(words, outside, folder, names))
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - started > MAX_SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.003)
    texts = {name: (folder / name).read_text(errors="replace") for name in names}
    seconds, peak = time.monotonic() - started, usage.ru_maxrss << 10
    return texts | {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "peak": peak}


def _command(words: list[str], outside: str, folder: Path, names: tuple[str, ...]) -> int:
    targets = [os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in names]
    for target, standard in zip(targets[:2], (1, 2), strict=True):
        os.dup2(target, standard)
    os.chdir(folder)  # where a command may leave a picture
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MAPPED_BYTES, MAX_MAPPED_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(lambda event, about: _audit(event, about, outside, targets[2]))
    try:
        main(words)
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        return int(ended.code or 0)
    return 99


def _audit(event: str, about: tuple[Any, ...], outside: str, target: int) -> None:
    if event in RUNNING and not (event == "pickle.find_class" and _loads_a_kernel()):
        os.write(target, f"{event} {about!r}\n".encode(errors="replace"))
    elif event in TOUCHING:
        for path in about[:2]:
            if (
                isinstance(path, str | bytes)
                and path
                and os.path.realpath(os.fsdecode(path)).startswith(outside)
            ):
                os.write(target, f"{event} {path!r}\n".encode(errors="replace"))


def _loads_a_kernel() -> bool:
    """Whether numba is at work further up: it keeps what it compiled as pickles of its own, beside the code."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_globals.get("__name__", "").startswith("numba.core.caching"):
            return True
    return False


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        main(["--version"])  # loads the rest
    # compiled here once, not in every child against its limits
    CountHistogram.of(bin_packed(np.zeros((1, 1, 1), np.uint8), 1, 8))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["words"], request["outside"], Path(request["folder"]))), flush=True)  # noqa: T201
