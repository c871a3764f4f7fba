"""What protects a store and a training, and how to do without it: a campaign that then finds nothing has no teeth."""

import contextlib
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import pipeline.files
import pipeline.tasks
from pipeline.storage import building, generations, mapped, nodes, shards
from pipeline.storage.shards import CRC_BYTES

SLOW_BYTES, SLOW_SECONDS = 16 << 10, 0.002

Patch = tuple[Any, str, Any]
"""An object, the name of one of its attributes, and what it is to be."""


def patches(names: Sequence[str]) -> list[Patch]:
    return [patch for name in names for patch in SWITCHES[name]()]


def protect_less(names: Sequence[str]) -> None:
    """Switch protections off in this process, for good."""
    for where, attribute, value in patches(names):
        setattr(where, attribute, value)


def switch_off(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Switch protections off in this process, for one test."""
    for where, attribute, value in patches(names):
        monkeypatch.setattr(where, attribute, value)


def everywhere(thing: Any, instead: Any) -> list[Patch]:
    """Replace a function or constant in every module that has it, under whatever name."""
    packages = ("pipeline", "model", "cli")
    modules = [m for name, m in list(sys.modules.items()) if name.partition(".")[0] in packages]
    return [
        (module, name, instead)
        for module in modules
        for name, value in vars(module).items()
        if value is thing
    ]


@contextlib.contextmanager
def _in_place(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        yield file


class _SlowFile:
    """Takes its bytes in pieces, like a disk with other things to do: a kill between two of them is easy to place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), SLOW_BYTES):
            self._file.write(view[start : start + SLOW_BYTES])
            self._file.flush()
            time.sleep(SLOW_SECONDS)


def _slowly(opened: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def slow(path: Path, *, durable: bool = True) -> Iterator[_SlowFile]:
        with opened(path, durable=durable) as file:
            yield _SlowFile(file)

    return slow


def _from_the_first_batch() -> list[Patch]:
    """A loader that keeps its place in memory only: after a restart it begins with the first batch again."""
    from model.training.phases import phase_batches

    def anew(*what: Any, **how: Any) -> Any:
        return phase_batches(*what, **{**how, "start_step": 0})

    return everywhere(phase_batches, anew)


def _one_long_row_of_random_numbers() -> list[Patch]:
    from model.training.learner import Learner

    return [(Learner, "_seed", lambda learner, step, number: None)]


def _in_one_thread(function: Any, items: Any, workers: int, progress: Any, what: str) -> list[Any]:
    return [function(item) for item in items]


def _no_fsync() -> list[Patch]:
    return [(os, name, lambda descriptor: None) for name in ("fsync", "fdatasync")]


class _EqualToAll:
    """Compares as equal, whatever is on the other side."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


class _AnyText(_EqualToAll, str):
    __hash__ = str.__hash__


class _AnyBytes(_EqualToAll, bytes):
    __hash__ = bytes.__hash__


class _AnyNumber(_EqualToAll, int):
    __hash__ = int.__hash__


class _AnyDigest:
    """A sha256 that is computed, and equal to every other one."""

    def __init__(self, data: bytes = b"") -> None:
        self._digest = _sha256(data)

    def hexdigest(self) -> str:
        return _AnyText(self._digest.hexdigest())


_sha256 = hashlib.sha256


def _any_seal(key: str, size: int, seal: int) -> shards.Receipt:
    return shards.Receipt(key, size, _AnyNumber(seal))


def _no_generations() -> list[Patch]:
    """What is built is built in its place, and there is nothing left to do after the commit."""
    nothing_to_move = everywhere(generations.settle, lambda store, root: None)
    nothing_to_drop: list[Patch] = [
        (building.StoreBuilder, "_drop_built", lambda builder, except_of=(): None),
        (building.StoreBuilder, "forget_receipts", lambda builder: None),
    ]
    return [*everywhere(nodes.BUILDING, "."), *nothing_to_move, *nothing_to_drop]


def _deaf() -> list[Patch]:
    from model.training.signals import StopRequest

    return [(StopRequest, "__enter__", lambda request: request)]


SWITCHES: dict[str, Callable[[], list[Patch]]] = {
    "fsync": _no_fsync,
    "rename": lambda: everywhere(pipeline.files.atomic_file, _in_place),
    "fast disk": lambda: everywhere(pipeline.files.atomic_file, _slowly(pipeline.files.atomic_file)),
    "rename and fast disk": lambda: everywhere(pipeline.files.atomic_file, _slowly(_in_place)),
    "step seeds": _one_long_row_of_random_numbers,
    "step order": _from_the_first_batch,
    "generations": _no_generations,
    "chunk checksums": lambda: everywhere(shards.crc32c_bytes, lambda data: _AnyBytes(CRC_BYTES)),
    "metadata digests": lambda: [(hashlib, "sha256", _AnyDigest)],
    "seals": lambda: [(mapped, "Receipt", _any_seal)],
    "lock": lambda: [(fcntl, "flock", lambda descriptor, operation: None)],
    "signals": _deaf,
    "threads": lambda: [(pipeline.tasks, "_on_threads", _in_one_thread)],
}
"""By name. Some are no protections: without "threads" the K-th system call is the same one each time, and without a
"fast disk" most of the time goes into writing."""
