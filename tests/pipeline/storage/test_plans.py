import pytest

from pipeline.errors import StoreError, UsageError
from pipeline.reports import Quarantined
from pipeline.storage.plans import (
    PARTS,
    BuiltSequence,
    Part,
    PartRecord,
    Plan,
    forget_plan,
    forget_record,
    locked_part,
    locked_plans,
    read_plan,
    read_plans,
    read_record,
    require_same,
    write_plan,
    write_record,
)

PLAN = Plan(stage="voxelize/k4", count=3, sequences=("train/a", "test/b"), settings={"codec": "none"})
RECORD = PartRecord(
    sequences={
        "train/a": BuiltSequence(arrays={"train/a/x": "0" * 64}, group={"n": [1.5]}, frames=3, is_new=True)
    },
    quarantined=(Quarantined("a.png", "no such file"),),
    written=2,
    skipped=1,
    num_bytes=7,
)


def changed(**changes):
    values = {name: getattr(PLAN, name) for name in PLAN.__slots__}
    return Plan(**values | changes)


def test_every_item_is_in_one_part_and_neighbours_are_in_different_ones():
    shares = [Part.parse(f"{number}/3").share("abcdefg") for number in (1, 2, 3)]
    assert shares == ["adg", "be", "cf"]
    assert [Part(2, 2).share("a"), str(Part.parse("02/12"))] == ["", "2/12"]


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "x", "1", "", "1/", "/3", "1/0", "-1/3", "1/3/3", "1.0/3", "²/3"]
)
def test_what_is_no_part_is_a_usage_error(text):
    with pytest.raises(UsageError, match="--parts"):
        Part.parse(text)


def test_plans_and_records_come_back_as_they_were_and_go_without_a_trace(tmp_path):
    with locked_plans(tmp_path):
        write_plan(tmp_path, PLAN)
        write_plan(tmp_path, changed(stage="ingest"))
    write_record(tmp_path, PLAN.stage, Part(2, 3), RECORD)
    assert read_plans(tmp_path) == [changed(stage="ingest"), PLAN]
    assert [read_record(tmp_path, PLAN.stage, part) for part in PLAN.parts] == [None, RECORD, None]
    forget_record(tmp_path, PLAN.stage, Part(2, 3))
    assert read_record(tmp_path, PLAN.stage, Part(2, 3)) is None
    forget_plan(tmp_path, "ingest")
    assert read_plan(tmp_path, "ingest") is None and read_plan(tmp_path, PLAN.stage) == PLAN
    forget_plan(tmp_path, PLAN.stage)
    assert not (tmp_path / PARTS).exists()


def test_another_plan_is_refused_with_what_is_different(tmp_path):
    assert not require_same(tmp_path, PLAN)
    write_plan(tmp_path, PLAN)
    assert require_same(tmp_path, PLAN)
    for change, name in [
        ({"count": 4}, "count"),
        ({"settings": {"codec": "lz4"}}, "codec"),
        ({"sequences": ("train/a",)}, "sequences"),
    ]:
        with pytest.raises(StoreError, match=f"with different {name}\n.*--drop"):
            require_same(tmp_path, changed(**change))


def test_a_part_is_built_by_one_process(tmp_path):
    write_plan(tmp_path, PLAN)
    with (
        locked_part(tmp_path, PLAN.stage, Part(1, 3)),
        locked_part(tmp_path, PLAN.stage, Part(2, 3)),
        pytest.raises(StoreError, match="part 1/3 is being built by another process"),
    ):
        locked_part(tmp_path, PLAN.stage, Part(1, 3)).__enter__()
    with locked_part(tmp_path, PLAN.stage, Part(1, 3)):
        pass


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"stage": 1}'])
def test_what_is_damaged_is_an_error(text, tmp_path):
    write_plan(tmp_path, PLAN)
    write_record(tmp_path, PLAN.stage, Part(1, 3), RECORD)
    for file in (tmp_path / PARTS).rglob("*.json"):
        file.write_text(text)
    with pytest.raises(StoreError, match=r"plan\.json: damaged"):
        read_plans(tmp_path)
    with pytest.raises(StoreError, match=r"1\.json: damaged"):
        read_record(tmp_path, PLAN.stage, Part(1, 3))
