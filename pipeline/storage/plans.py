"""Plans by which separate processes build the parts of a stage, until `spk finalise` merges what they have built.

A plan lies in the store, below `.spk/parts`, with a record for each part that is built:

    .spk/parts/lock              held while a plan is made, or compared with
    .spk/parts/<stage>/plan.json
    .spk/parts/<stage>/1.json    what part 1 built
    .spk/parts/<stage>/1.lock    held while part 1 is built
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import StoreError, UsageError
from pipeline.files import make_durable, write_atomic
from pipeline.reports import Quarantined, StageReport
from pipeline.storage.root import WORK

PARTS = f"{WORK}/parts"
MOST_PARTS = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> "Part":
        """Read "1/3".

        Raises:
            UsageError: it is not the number of a part.
        """
        number, slash, count = text.partition("/")
        if slash and all(word.isascii() and word.isdigit() and len(word) < 8 for word in (number, count)):
            part = Part(int(number), int(count))
            if 1 <= part.number <= part.count <= MOST_PARTS:
                return part
        raise UsageError(
            f"--parts {text!r}: not a part", "write 1/3, 2/3, 3/3 for the three parts of a store"
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What of `items` is this part's: every `count`-th, so that neighbours are in different parts."""
        return items[self.number - 1 :: self.count]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What all parts of a stage agree on.

    Attributes:
        count: how many parts there are.
        sequences: keys of all sequences, in order; every part has its share of them.
        settings: everything else that determines what is built, as JSON values.
    """

    stage: str
    count: int
    sequences: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def parts(self) -> list[Part]:
        return [Part(number, self.count) for number in range(1, self.count + 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltSequence:
    """A sequence that a part has built.

    Attributes:
        arrays: digests of its arrays' metadata, by their names in the store.
        group: attributes that the stage gives to its group.
        scale: RGB pixels per spike pixel; None where the stage has nothing to do with that.
        is_new: whether any of the arrays had to be built.
    """

    arrays: dict[str, str]
    group: dict[str, Any] = field(default_factory=dict)
    frames: int
    scale: int | None = None
    is_new: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """What one part has built: its sequences, by key, and as in the stage's report the numbers."""

    sequences: dict[str, BuiltSequence]
    quarantined: tuple[Quarantined, ...]
    written: int
    skipped: int
    num_bytes: int

    @staticmethod
    def of(sequences: dict[str, BuiltSequence], report: StageReport) -> "PartRecord":
        """What was built, with the numbers of the report on it."""
        names = ("quarantined", "written", "skipped", "num_bytes")
        return PartRecord(sequences=sequences, **{name: getattr(report, name) for name in names})


def read_plan(store: Path, stage: str) -> Plan | None:
    """The plan of a stage; None if there is none.

    Raises:
        StoreError: it is damaged.
    """
    path = _folder(store, stage) / "plan.json"
    if not path.is_file():
        return None
    with _readable(path):
        values = json.loads(path.read_bytes())
        return Plan(**values | {"sequences": tuple(values["sequences"])})


def read_plans(store: Path) -> list[Plan]:
    """All plans of a store, that of the first stage first."""
    stages = sorted(path.parent.name for path in (store / PARTS).glob("*/plan.json"))
    return [plan for stage in stages if (plan := read_plan(store, stage)) is not None]


def require_same(store: Path, plan: Plan) -> bool:
    """Whether there is a plan of the stage already, which has to be the same.

    Raises:
        StoreError: it is another one.
    """
    found = read_plan(store, plan.stage)
    if found is None:
        return False
    ours, theirs = (json.loads(json.dumps(asdict(one))) for one in (plan, found))
    flat, other = ours.pop("settings") | ours, theirs.pop("settings") | theirs
    different = [name for name in flat if flat[name] != other.get(name)]
    if different:
        raise StoreError(
            f"{store}: parts of another {plan.stage} wait there to be merged, with different {', '.join(different)}",
            f"use the same command for all parts, or drop the others: spk finalise {store} --drop",
        )
    return True


@contextlib.contextmanager
def locked_plans(store: Path) -> Iterator[None]:
    """Be the only process that makes plans or compares with them, for the time of a `with` block."""
    make_durable(store / PARTS)
    with (store / PARTS / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_part(store: Path, stage: str, part: Part) -> Iterator[None]:
    """Be the only process that builds this part, for the time of a `with` block.

    Raises:
        StoreError: another process does.
    """
    with (_folder(store, stage) / f"{part.number}.lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{store}: part {part} is being built by another process", "wait for it, or stop it"
            ) from None
        yield


def write_plan(store: Path, plan: Plan) -> None:
    """Keep a plan in the store."""
    write_atomic(_folder(store, plan.stage) / "plan.json", json.dumps(asdict(plan)))


def write_record(store: Path, stage: str, part: Part, record: PartRecord) -> None:
    """Keep what a part has built."""
    write_atomic(_record_path(store, stage, part), json.dumps(asdict(record)))


def read_record(store: Path, stage: str, part: Part) -> PartRecord | None:
    """What a part has built; None if it is not finished.

    Raises:
        StoreError: the record is damaged.
    """
    path = _record_path(store, stage, part)
    if not path.is_file():
        return None
    with _readable(path):
        values = json.loads(path.read_bytes())
        sequences = {key: BuiltSequence(**one) for key, one in values["sequences"].items()}
        quarantined = tuple(Quarantined(**one) for one in values["quarantined"])
        return PartRecord(**values | {"sequences": sequences, "quarantined": quarantined})


def forget_record(store: Path, stage: str, part: Part) -> None:
    """A part is about to be built again: what its record says holds no longer."""
    _record_path(store, stage, part).unlink(missing_ok=True)


def forget_plan(store: Path, stage: str) -> None:
    """Take a plan and its records away, once nobody else is at work in the store."""
    shutil.rmtree(_folder(store, stage), ignore_errors=True)
    if (store / PARTS).is_dir() and os.listdir(store / PARTS) == ["lock"]:
        shutil.rmtree(store / PARTS)


def _folder(store: Path, stage: str) -> Path:
    return store / PARTS / stage.replace("/", "-")


def _record_path(store: Path, stage: str, part: Part) -> Path:
    return _folder(store, stage) / f"{part.number}.json"


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: damaged: {error}", f"delete {path.parent}, and build the parts again"
        ) from error
