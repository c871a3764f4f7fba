import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.files import PARTIAL
from pipeline.storage.building import RECEIPTS, ArrayJob, StoreBuilder
from pipeline.storage.nodes import BUILDING
from pipeline.storage.part_building import PartBuilder
from pipeline.storage.pieces import WholeBlock, build_piece
from pipeline.storage.plans import Part, PartRecord, Plan, read_record
from pipeline.storage.root import WORK
from pipeline.storage.shards import ArrayLayout

PLAN = Plan(stage="ingest", count=2, sequences=("train/a", "train/b"), settings={})
FIRST, SECOND = PLAN.parts
LAYOUT = ArrayLayout(shape=(4,), shard=(2,), chunk=(2,), names=("x",))


class Fours:
    def open(self, region):
        return WholeBlock(region, np.full(4, 4, np.uint8)[region])


def job(store, key, inputs="i"):
    return ArrayJob(array=store / key / "x", layout=LAYOUT, source=Fours(), inputs=inputs)


def one_by_one(pieces):
    return [build_piece(piece) for piece in pieces]


def build(builder, key, inputs="i"):
    jobs = [job(builder.store, key, inputs)]
    builder.begin(jobs)
    return [one.written for one in builder.build(jobs, one_by_one)]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_parts_work_side_by_side_and_leave_each_other_alone(store):
    with PartBuilder(store, PLAN, FIRST, None) as first, PartBuilder(store, PLAN, SECOND, None) as second:
        assert build(first, "train/a") == [True, True]
        partial = store / BUILDING / "train/a/x/c" / f".0.{PARTIAL}"
        partial.write_text("being written")
        second.begin([job(store, "train/b", "other")])
        assert partial.exists() and (store / BUILDING / "train/a/x/zarr.json").is_file()
        assert build(second, "train/b") == [True, True]
    with PartBuilder(store, PLAN, FIRST, None) as first:
        assert build(first, "train/a") == [False, False]
        assert not partial.exists()
        first.forget_receipts()
        assert build(first, "train/a") == [True, True]
        first.begin([])
        assert not (store / BUILDING / "train/a/x").exists()
        assert (store / RECEIPTS / "ingest/train/b/x").is_dir()


def test_a_writer_and_parts_refuse_each_other(store):
    with PartBuilder(store, PLAN, FIRST, None), pytest.raises(StoreError, match="another process is writing"):
        StoreBuilder(store, "ingest", None).__enter__()
    with (
        StoreBuilder(store, "ingest", None),
        pytest.raises(StoreError, match="another process is writing"),
    ):
        PartBuilder(store, PLAN, FIRST, None).__enter__()


def test_the_same_part_twice_and_another_plan_are_refused(store):
    other = Plan(stage="ingest", count=2, sequences=("train/a",), settings={})
    with PartBuilder(store, PLAN, FIRST, None):
        with pytest.raises(StoreError, match="part 1/2 is being built"):
            PartBuilder(store, PLAN, FIRST, None).__enter__()
        with pytest.raises(StoreError, match="different sequences"):
            PartBuilder(store, other, SECOND, None).__enter__()
    with PartBuilder(store, PLAN, FIRST, None):
        pass


def test_a_record_holds_until_its_part_is_begun_again(store):
    record = PartRecord(sequences={}, quarantined=(), written=0, skipped=0, num_bytes=0)
    with PartBuilder(store, PLAN, FIRST, None) as builder:
        builder.keep(record)
    assert read_record(store, "ingest", FIRST) == record
    with PartBuilder(store, PLAN, FIRST, None):
        assert read_record(store, "ingest", FIRST) is None


def test_an_ordinary_run_uses_what_parts_built_and_ends_their_plan(store):
    with PartBuilder(store, PLAN, FIRST, None) as builder:
        build(builder, "train/a")
    with StoreBuilder(store, "ingest", None) as builder:
        assert build(builder, "train/a") == [False, False]
        assert not (store / WORK / "parts").exists()
    with StoreBuilder(store, "ingest", None) as builder:
        builder.forget_receipts()
    assert [path for path in store.rglob("*") if path.is_file()] == []


def test_the_lock_goes_with_the_last_part(store):
    lock = store / WORK / "lock"
    with PartBuilder(store, PLAN, FIRST, None):
        with PartBuilder(store, PLAN, SECOND, None):
            assert lock.exists()
        assert lock.exists()
        with pytest.raises(StoreError, match="another process is writing"):
            StoreBuilder(store, "ingest", None).__enter__()
    assert not lock.exists()
    assert Part.parse("1/2") == FIRST
