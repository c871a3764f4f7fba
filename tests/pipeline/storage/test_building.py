import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import StoreError
from pipeline.storage import pieces
from pipeline.storage.building import ArrayJob, StoreBuilder, was_interrupted
from pipeline.storage.mapped import MappedArray
from pipeline.storage.nodes import BUILDING, Nodes
from pipeline.storage.pieces import WholeBlock, build_piece
from pipeline.storage.root import SPK_FORMAT, WORK, digests_of, read_root
from pipeline.storage.shards import ArrayLayout

ROOT = {"spk_format": SPK_FORMAT, "splits": {}}
LAYOUT = ArrayLayout(shape=(6, 2), shard=(2, 2), chunk=(1, 2), names=("x", "y"))


@dataclass(frozen=True)
class Numbers:
    """Values whose blocks are counted."""

    first: int = 0
    read: list = field(default_factory=list)

    def open(self, region):
        self.read.append(region[0].start)
        values = np.arange(self.first, self.first + 12, dtype=np.uint8).reshape(6, 2)[region]
        return WholeBlock(region, values, {"sum": int(values.sum())})


def job(store: Path, source: Numbers, inputs: str = "i") -> ArrayJob:
    def add(summaries):
        return {"sums": [summary["sum"] for summary in summaries]}

    return ArrayJob(array=store / "a", layout=LAYOUT, source=source, inputs=inputs, summarise=add)


def one_by_one(pieces):
    return [build_piece(piece) for piece in pieces]


def failing_after(count):
    def run(pieces):
        for piece in pieces[:count]:
            build_piece(piece)
        raise RuntimeError("power cut")

    return run


def build(store, one, run=one_by_one):
    with StoreBuilder(store, "ingest", read_root(store)) as builder:
        builder.begin([one])
        built = builder.build([one], run)
        builder.commit(ROOT, {"ingest": builder.record({"sequence": ["a"]})})
    return built


def is_finished(one):
    return one.is_finished(Nodes(one.array.parent, digests_of(read_root(one.array.parent))))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_builds_an_array_that_zarr_reads_and_tidies_up(store):
    built = build(store, job(store, Numbers()))
    np.testing.assert_array_equal(zarr.open_array(store / "a", mode="r")[:], np.arange(12).reshape(6, 2))
    assert MappedArray(store / "a").attributes["sums"] == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7, 8 + 9 + 10 + 11]
    assert [one.written for one in built] == [True] * 3
    assert sorted(path.name for path in store.iterdir()) == [WORK, "a", "zarr.json"]
    assert is_finished(job(store, Numbers()))


def test_other_inputs_or_a_missing_shard_are_not_finished(store):
    build(store, job(store, Numbers()))
    assert not is_finished(job(store, Numbers(), inputs="other"))
    (store / "a/c/1/0").unlink()
    assert not is_finished(job(store, Numbers()))


def test_resumes_with_the_pieces_that_are_missing(store, tree_of):
    with pytest.raises(RuntimeError, match="power cut"):
        build(store, job(store, Numbers()), failing_after(2))
    assert was_interrupted(store, "ingest") and read_root(store) is None
    (store / BUILDING / "a/.c.partial").write_bytes(b"half")
    source = Numbers()
    built = build(store, job(store, source))
    assert source.read == [4] and [one.written for one in built] == [False, False, True]
    assert not was_interrupted(store, "ingest")
    build(store.parent / "at once", job(store.parent / "at once", Numbers()))
    assert tree_of(store) == tree_of(store.parent / "at once")


def test_pieces_of_other_inputs_are_built_anew(store):
    with pytest.raises(RuntimeError):
        build(store, job(store, Numbers()), failing_after(2))
    source = Numbers(first=100)
    build(store, job(store, source, inputs="other"))
    assert source.read == [0, 2, 4] and MappedArray(store / "a")[0, 0] == 100


def test_a_receipt_does_not_outlive_its_bytes(store, monkeypatch):
    """Killed after a shard was replaced, before its receipt: with the old inputs again, the old receipt is void."""
    with pytest.raises(RuntimeError):
        build(store, job(store, Numbers()), failing_after(1))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(pieces, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        build(store, job(store, Numbers(first=100), inputs="other"))
    assert (store / BUILDING / "a/c/0/0").read_bytes()[0] == 100
    build(store, job(store, Numbers()))
    np.testing.assert_array_equal(MappedArray(store / "a")[:].ravel(), np.arange(12))


def test_an_interrupted_rebuild_leaves_the_array_that_it_would_replace(store):
    build(store, job(store, Numbers()))
    with pytest.raises(RuntimeError):
        build(store, job(store, Numbers(first=100), inputs="other"), failing_after(1))
    assert is_finished(job(store, Numbers()))
    np.testing.assert_array_equal(MappedArray(store / "a")[:].ravel(), np.arange(12))


def test_cut_receipts_are_ignored(store):
    with pytest.raises(RuntimeError):
        build(store, job(store, Numbers()), failing_after(3))
    receipts = sorted((store / WORK).rglob("*.json"))
    for receipt, text in zip(receipts, ("", "[1]", "{}"), strict=True):
        receipt.write_text(text)
    source = Numbers()
    build(store, job(store, source))
    assert source.read == [0, 2, 4]


def test_shards_of_a_longer_past_are_removed(store):
    longer = ArrayLayout(shape=(8, 2), shard=(2, 2), chunk=(1, 2), names=("x", "y"))

    class Zeros:
        def open(self, region):
            return WholeBlock(region, np.zeros((2, 2), np.uint8))

    build(store, ArrayJob(array=store / "a", layout=longer, source=Zeros(), inputs="i"))
    build(store, job(store, Numbers()))
    assert sorted(p.relative_to(store / "a").as_posix() for p in (store / "a/c").rglob("0")) == [
        "c/0",
        "c/0/0",
        "c/1/0",
        "c/2/0",
    ]


def test_a_second_writer_is_refused_and_told_who_the_first_is(store):
    with StoreBuilder(store, "ingest", None):
        with pytest.raises(
            StoreError, match=f"another process is writing: process {os.getpid()} on"
        ) as caught:
            StoreBuilder(store, "voxelize/k4", None).__enter__()
        assert caught.value.fix == "wait for it, or stop it"
    with StoreBuilder(store, "voxelize/k4", None):
        pass


def test_a_writer_in_another_process_is_named_and_its_death_frees_the_store(store):
    code = (
        "import sys, time; from pathlib import Path; from pipeline.storage.building import StoreBuilder\n"
        "with StoreBuilder(Path(sys.argv[1]), 'ingest', None): print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(store), "--manifest", "m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(StoreError, match=rf"process {other.pid} on .* --manifest m"):
            StoreBuilder(store, "ingest", None).__enter__()
        other.kill()
        other.wait()
    with StoreBuilder(store, "ingest", None):
        pass


def test_many_writers_take_turns_or_are_refused(store):
    """The lock file goes away with its owner: whoever opened it meanwhile must not hold a lock on nothing."""
    from concurrent.futures import ThreadPoolExecutor

    inside, most, entered = [], [], []

    def enter(_):
        try:
            with StoreBuilder(store, "ingest", None):
                inside.append(1)
                most.append(len(inside))
                entered.append(1)
                inside.pop()
        except StoreError:
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(400)))
    assert max(most) == 1 and entered
    assert not (store / WORK).exists()


def test_a_lock_on_a_file_that_was_taken_away_meanwhile_is_no_lock(store, monkeypatch):
    flock, path = fcntl.flock, store / WORK / "lock"
    locked = []

    def late(descriptor, how):
        if not locked:
            path.unlink()
            path.write_text("the next owner's")
        locked.append(os.fstat(descriptor).st_ino)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with StoreBuilder(store, "ingest", None):
        assert len(locked) == 2 and locked[1] == path.stat().st_ino


def test_a_place_where_no_lock_can_be_is_refused(store):
    store.mkdir()
    (store / WORK).write_text("a file")
    with pytest.raises(StoreError, match="lock: cannot be made"):
        StoreBuilder(store, "ingest", None).__enter__()


def test_a_store_that_changed_since_the_plan_was_made_is_refused(store):
    build(store, job(store, Numbers()))
    with pytest.raises(StoreError, match="another process changed it just now"):
        StoreBuilder(store, "voxelize/k4", None).__enter__()
    with StoreBuilder(store, "voxelize/k4", read_root(store)):
        pass
    assert [path.name for path in (store / WORK).iterdir()] == ["zarr.json"]


def test_refuses_to_write_where_a_link_leads_out(store, tmp_path):
    build(store, job(store, Numbers()))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("untouched")
    (store / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="link: a link or special file in a store"):
        build(store, job(store, Numbers(first=100), inputs="other"))
    (store / "link").unlink()
    (store / WORK / "lock").symlink_to(tmp_path / "outside" / "file")
    with pytest.raises(StoreError, match="lock: a link or special file in a store"):
        build(store, job(store, Numbers(first=100), inputs="other"))
    assert (tmp_path / "outside" / "file").read_text() == "untouched"
