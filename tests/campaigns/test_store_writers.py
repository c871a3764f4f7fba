"""Writers at the same time, and readers while a store is built again: no update is lost, no read is wrong."""

import collections
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from tests.campaigns.server import Server
from tests.campaigns.stores import Values, digest_of, values_of
from tests.campaigns.trials import Made

SMALL, FULL = 1, 25
SMALL_REBUILDS, REBUILDS, OPENS = 4, 20, 2000
MOST_TURNS = 20
VOXELS = {"a": 2, "b": 3, "c": 4, "d": 5}


def voxelize(store: Path, name: str) -> list[object]:
    return ["voxelize", store, "--bins", VOXELS[name], "--name", name]


def compete(
    server: Server, store: Path, names: Sequence[str], off: Sequence[str] = ()
) -> tuple[int, list[str]]:
    """Let a writer for each name start at once, and again if it was refused; how many were, and what else they said."""
    refused, odd, waiting = 0, [], list(names)
    for turn in range(MOST_TURNS):
        gate = store.parent / f"gate{turn}"
        children = {name: server.start(*voxelize(store, name), off=off, gate=gate) for name in waiting}
        gate.touch()
        ended = {name: child.wait() for name, child in children.items()}
        waiting = [name for name, one in ended.items() if one.code]
        for name in waiting:
            if ended[name].code == 1 and ended[name].refused and "another process" in ended[name].err:
                refused += 1
            else:
                odd.append(f"{name}: {ended[name]}")
        if not waiting:
            break
    return refused, odd + [f"{name} was never done" for name in waiting]


def lost_updates(store: Path, names: Sequence[str], wanted: Values) -> list[str]:
    """What writers said they had written, and is not there as it is when they write one after the other."""
    try:
        values = values_of(store)
    except StoreError as error:
        return [error.problem]
    stages = values.pop("stages") == wanted["stages"]
    mine = {key: value for key, value in values.items() if value != wanted.get(key)}
    return sorted((wanted.keys() - {"stages"}) - values.keys()) + sorted(mine) + ["stages"] * (not stages)


@pytest.fixture(scope="module")
def in_turn(made: Made, server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Values]:
    """What a store holds when so many writers wrote one after the other."""
    store, values = made.copy("plain", tmp_path_factory.mktemp("in_turn") / "store"), {}
    for number, name in enumerate(VOXELS, start=1):
        assert server.run(*voxelize(store, name)).code == 0
        values[number] = values_of(store)
    return values


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("writers", [2, 4])
def test_no_update_of_concurrent_writers_is_lost(writers, count, made, server, in_turn, tries, campaign):
    refused, faults, lost = 0, [], []
    names = list(VOXELS)[:writers]
    for _ in range(count):
        store = made.copy("plain", tries())
        turned_away, odd = compete(server, store, names)
        refused += turned_away
        faults += odd
        lost += lost_updates(store, names, in_turn[writers])
    campaign(f"{writers} writers", n=count * writers, refused=refused, lost=len(lost), other=len(faults))
    assert (lost, faults) == ([], [])
    assert refused > 0


def test_writers_without_a_lock_are_found(made, server, in_turn, tries, campaign):
    """Teeth: without the lock, the same campaign finds updates that are lost, or writers that fall over each other."""
    lost, faults = [], []
    for _ in range(2 * SMALL):
        store = made.copy("plain", tries())
        faults += compete(server, store, list(VOXELS), off=("lock",))[1]
        lost += lost_updates(store, list(VOXELS), in_turn[4])
    campaign("4 writers, no lock", n=8 * SMALL, lost=len(lost), other=len(faults))
    assert lost


# Readers while the store is built again


def rebuilds(made: Made, store: Path) -> list[list[object]]:
    """Commands that give a store other contents; after the last the first has something to do again."""
    ingest = ["-o", store, "-m", "simulated"]
    return [
        ["ingest", made.other, *ingest],
        ["voxelize", store, "--bins", 4],
        ["voxelize", store, "--bins", 6, "--name", "k4", "--codec", "zstd"],
        ["voxelize", store, "--bins", 6, "--name", "k4", "--overwrite"],
        ["ingest", made.raw, *ingest],
        ["voxelize", store, "--bins", 4, "--overwrite"],
    ]


@pytest.fixture(scope="module")
def generations(made: Made, server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of all that a store holds after each of the `rebuilds`, by the number of the command."""
    store = made.copy("k4", tmp_path_factory.mktemp("generations") / "store")
    digests = {digest_of(values_of(store)): "at first"}
    for number, words in enumerate(2 * rebuilds(made, store)):
        ended = server.run(*words)
        assert ended.code == 0, ended
        digests.setdefault(digest_of(values_of(store)), f"{number}")
    return digests


Followed = collections.Counter[str]
"""What readers saw: how often they opened and read, and what was wrong, by name of the figure."""


def follow_rebuilds(
    made: Made,
    server: Server,
    store: Path,
    generations: dict[str, str],
    count: int,
    off: Sequence[str] = (),
    off_readers: Sequence[str] = (),
) -> tuple[Followed, list[str]]:
    """Build a store again `count` times, with two processes that read it: one opens it anew for each read."""
    stop, reports = store.parent / "stop", [store.parent / f"report{k}" for k in range(2)]
    stop.unlink(missing_ok=True)
    readers = [
        server.start("follow", store, stop, keeps_open, report, off=off_readers)
        for keeps_open, report in enumerate(reports)
    ]
    commands = rebuilds(made, store)
    for number in range(count):
        ended = server.run(*commands[number % len(commands)], off=off)
        assert ended.code == 0, ended
    stop.touch()
    followed: Followed = collections.Counter(rebuilds=count, errors=0, wrong=0)
    errors: list[str] = []
    seen: set[str] = set()
    for reader, report in zip(readers, reports, strict=True):
        if (ended := reader.wait()).code:
            errors.append(str(ended))
            continue
        told = json.loads(report.read_text())
        followed.update(opens=told["opens"], reads=sum(told["digests"].values()), changed=told["changed"])
        followed.update(errors=sum(told["errors"].values()))
        errors += list(told["errors"])
        followed["wrong"] += sum(n for digest, n in told["digests"].items() if digest not in generations)
        seen |= told["digests"].keys()
    followed["generations"] = len(seen)
    return followed, errors


@pytest.mark.parametrize(
    ("count", "opens"), [(SMALL_REBUILDS, 0), pytest.param(REBUILDS, OPENS, marks=pytest.mark.slow)]
)
def test_readers_see_one_whole_generation(count, opens, made, server, generations, tries, campaign):
    store = made.copy("k4", tries())
    followed, errors = follow_rebuilds(made, server, store, generations, count)
    while followed["opens"] < opens:
        more, others = follow_rebuilds(made, server, store, generations, count)
        followed.update(more)
        errors += others
    campaign("readers during rebuilds", **followed)
    assert (followed["errors"], followed["wrong"], followed["changed"], errors) == (0, 0, 0, [])
    assert followed["reads"] > 0 and followed["generations"] > 1


def test_readers_without_a_hold_on_their_generation_are_found(made, server, generations, tries, campaign):
    """Teeth: where readers take no lock on the root they opened, what they read is deleted."""
    store = made.copy("k4", tries())
    followed, _ = follow_rebuilds(made, server, store, generations, SMALL_REBUILDS, off_readers=("lock",))
    campaign("readers during rebuilds, no hold", **followed)
    assert followed["errors"] + followed["wrong"] + followed["changed"] > 0
