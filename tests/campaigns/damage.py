"""What may happen to a file of a store after it was built, and whether it shows."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from tests.campaigns.stores import Values, files_of, values_of


@dataclass
class Findings:
    """What became of damage.

    Attributes:
        n: trials; detected: of these, the ones in which reading the store was refused.
        harmless: the store was read, and everything was as it was written.
        silent: the store was read, and something was not.
        crashed: reading ended in an error that only programmers can read.
        unseen: `spk verify --deep` did not name the file.
    """

    n: int = 0
    detected: int = 0
    harmless: int = 0
    silent: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def read(
        self, store: Path, values: Values, what: str, read: Callable[[Path], Values] = values_of
    ) -> None:
        """Read a damaged store, whose values were `values`, and count what comes of it."""
        self.n += 1
        try:
            found = read(store)
        except StoreError:
            self.detected += 1
            return
        except Exception as error:
            self.crashed.append(f"{what}: {error!r}")
            return
        if found == values:
            self.harmless += 1
        else:
            self.silent.append(what)

    @property
    def figures(self) -> dict[str, object]:
        counts = {name: len(getattr(self, name)) for name in ("silent", "crashed", "unseen")}
        return {"n": self.n, "detected": self.detected, "harmless": self.harmless} | counts


def named(spk: Callable[..., object], store: Path) -> set[str]:
    """The files that `spk verify --deep` finds damaged, relative to the store."""
    ran = spk("verify", store, "--deep", "--json")
    told = json.loads(ran.out)
    assert ran.code == (0 if told["ok"] else 4) and told["ok"] == (not told["damaged"]), ran
    paths = [Path(store, one["path"]) for one in told["damaged"]]
    return {str(path.relative_to(store)) for path in paths}


def flip(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit flipped."""
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def drawn_bits(
    store: Path, rng: np.random.Generator, count: int, name: str = "*"
) -> Iterator[tuple[Path, int]]:
    """Files of a store and a bit of each: half of the draws fall on any byte alike, half on any file alike.

    Args:
        name: a pattern for the names of the files.
    """
    files = [path for path in files_of(store) if path.stat().st_size and path.match(name)]
    sizes = np.array([path.stat().st_size for path in files])
    for number in range(count):
        weights = sizes / sizes.sum() if number % 2 else None
        chosen = int(rng.choice(len(files), p=weights))
        yield files[chosen], int(rng.integers(8 * sizes[chosen]))


Change = Callable[[Path, list[Path], np.random.Generator], list[Path]]
"""Damages a file, of all those of a store; which files are not as they were."""


def remove(path: Path, files: list[Path], rng: np.random.Generator) -> list[Path]:
    path.unlink()
    return [path]


def truncate(path: Path, files: list[Path], rng: np.random.Generator) -> list[Path]:
    path.write_bytes(path.read_bytes()[: int(rng.integers(1, path.stat().st_size))])
    return [path]


def empty(path: Path, files: list[Path], rng: np.random.Generator) -> list[Path]:
    path.write_bytes(b"")
    return [path]


def append(path: Path, files: list[Path], rng: np.random.Generator) -> list[Path]:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 100))))
    return [path]


def swap(path: Path, files: list[Path], rng: np.random.Generator) -> list[Path]:
    other = another(path, files, rng)
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)
    return [path, other]


def duplicate(path: Path, files: list[Path], rng: np.random.Generator) -> list[Path]:
    shutil.copyfile(another(path, files, rng), path)
    return [path]


CHANGES: dict[str, Change] = {
    "deleted": remove,
    "truncated": truncate,
    "emptied": empty,
    "appended to": append,
    "swapped": swap,
    "overwritten with another": duplicate,
}


def another(path: Path, files: list[Path], rng: np.random.Generator) -> Path:
    """A file with other bytes: one of the same name and size where there is one, else of the same size, else any."""
    data = path.read_bytes()
    others = [other for other in files if other != path and other.read_bytes() != data]
    alike = [other for other in others if other.stat().st_size == len(data)]
    twins = [other for other in alike if other.name == path.name]
    choice = twins or alike or others
    return choice[int(rng.integers(len(choice)))]
