import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from pipeline.alignment.correct import correct_alignment
from pipeline.config import to_plain
from pipeline.errors import AlignmentError, StoreError
from pipeline.finalise import drop, finalise
from pipeline.ingest import ingest
from pipeline.storage.plans import PARTS, Part
from pipeline.storage.root import WORK
from pipeline.store import open_store
from pipeline.verify import verify
from pipeline.voxelize import voxelize
from pipeline.yaml_files import dump_yaml

THIRDS = [Part(number, 3) for number in (1, 2, 3)]
SLOWLY = """
import sys, time
from pathlib import Path
import pipeline.ingest as stage
from pipeline.manifest import read_manifest
from pipeline.storage.plans import Part

build, number = stage.build_piece, sys.argv[4]

def slowly(piece):
    built = build(piece)
    print(piece.array.name, flush=True)
    time.sleep(60 if number == sys.argv[5] else 0.05)
    return built

stage.build_piece = slowly
raw, out, manifest = map(Path, sys.argv[1:4])
stage.ingest(raw, out, read_manifest(manifest), workers=1, part=Part(int(number), 3))
"""


@pytest.fixture(scope="module")
def serial(shared_raw, tmp_path_factory):
    """A store built by one process, and what it was before it got voxel grids."""
    store = tmp_path_factory.mktemp("serial") / "store"
    ingest(shared_raw.root, store, shared_raw.manifest, workers=1)
    before = shutil.copytree(store, store.parent / "before")
    voxelize(store, num_bins=8, workers=1)
    return store, before


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def ingest_parts(raw, out, parts=THIRDS, **options):
    return [ingest(raw.root, out, raw.manifest, workers=1, part=part, **options) for part in parts]


def voxelize_parts(store, parts=THIRDS, **options):
    return [voxelize(store, num_bins=8, workers=1, part=part, **options) for part in parts]


def test_processes_side_by_side_one_of_them_killed(shared_raw, serial, out, tmp_path, tree_of):
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(dump_yaml(to_plain(shared_raw.manifest)))

    def start(part, hangs="2"):
        words = [sys.executable, "-c", SLOWLY, shared_raw.root, out, manifest, str(part), hangs]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    processes = {number: start(number) for number in (1, 2, 3)}
    assert processes[2].stdout.readline()  # a piece is built
    with pytest.raises(StoreError, match="another process is writing"):
        ingest(shared_raw.root, out, shared_raw.manifest)
    with pytest.raises(StoreError, match="part 2/3 is being built by another process"):
        ingest_parts(shared_raw, out, THIRDS[1:2])
    for number in (1, 3):
        assert processes[number].wait(60) == 0, processes[number].stderr.read()
    processes[2].kill()
    processes[2].wait(60)
    before = tree_of(out)
    with pytest.raises(
        StoreError, match=r"ingest cannot be finished yet\npart 2/3 is not built: train/b"
    ) as caught:
        finalise(out)
    assert "spk ingest" in caught.value.fix and caught.value.fix.endswith("--parts 2/3")
    assert tree_of(out) == before and not (out / "zarr.json").exists()
    (report,) = ingest_parts(shared_raw, out, THIRDS[1:2])
    assert (report.written, report.skipped) == (5, 1)
    (done,) = finalise(out)
    assert (done.stage, done.parts, done.report.sequences, done.report.frames) == ("ingest", 3, 3, 9)
    assert tree_of(out) == tree_of(serial[1])
    assert finalise(out) == ()


def test_voxel_grids_in_parts(serial, out, tree_of):
    shutil.copytree(serial[1], out)
    reports = voxelize_parts(out)
    assert [report.sequences for report in reports] == [1, 1, 1]
    assert open_store(out).stages == ("ingest",)
    assert finalise(out, dry_run=True)[0].report.written == 3
    (done,) = finalise(out)
    assert (done.stage, done.report.written, done.report.frames) == ("voxelize/k8", 3, 9)
    assert tree_of(out) == tree_of(serial[0])


def test_nothing_is_changed_until_all_is_there(serial, out, tree_of):
    shutil.copytree(serial[1], out)
    voxelize_parts(out, THIRDS[1:2])
    before = tree_of(out)
    with pytest.raises(
        StoreError, match="part 1/3 is not built: train/a\npart 3/3 is not built: test/c"
    ) as caught:
        finalise(out)
    assert f"spk voxelize {out} --bins 8 --name k8 --codec none --parts 1/3, and so on for 3/3" in str(
        caught.value
    )
    assert tree_of(out) == before


def test_more_parts_than_recordings(shared_raw, serial, out, tree_of):
    reports = ingest_parts(shared_raw, out, [Part(number, 5) for number in (5, 4, 3, 2, 1)])
    assert [report.sequences for report in reports] == [0, 0, 1, 1, 1]
    finalise(out)
    assert tree_of(out) == tree_of(serial[1])


def test_what_is_not_whole_is_built_again(shared_raw, serial, out, tree_of):
    ingest_parts(shared_raw, out)
    shard = next(path for path in (out / WORK / "building/train/a/sharp/c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"part 1/3 has to be built again: .*train/a/sharp"):
        finalise(out)
    assert [report.written for report in ingest_parts(shared_raw, out, THIRDS[:1])] == [1]
    finalise(out)
    assert tree_of(out) == tree_of(serial[1])


def test_a_recording_that_changed_meanwhile_is_built_again(raw, out, content_of, tmp_path):
    ingest_parts(raw, out)
    raw.add("train/b", seed=9)
    with pytest.raises(StoreError, match=r"part 2/3 has to be built again: .*train/b/.* has changed"):
        finalise(out)
    (raw.root / "train/b/spikes.dat").rename(raw.root / "train/b/moved")
    with pytest.raises(StoreError, match=r"spikes\.dat: No such file"):
        finalise(out)
    (raw.root / "train/b/moved").rename(raw.root / "train/b/spikes.dat")
    ingest_parts(raw, out, THIRDS[1:2])
    finalise(out)
    ingest(raw.root, tmp_path / "serial", raw.manifest)
    assert content_of(out) == content_of(tmp_path / "serial")


def test_a_store_is_extended_in_parts(raw, out, tmp_path, content_of):
    ingest(raw.root, out, raw.manifest)
    voxelize(out, num_bins=8)
    raw.add("train/d", seed=9)
    reports = ingest_parts(raw, out)
    assert sorted((report.written, report.skipped) for report in reports) == [(0, 6), (0, 12), (6, 0)]
    finalise(out)
    ingest(raw.root, tmp_path / "serial", raw.manifest)
    voxelize(out, num_bins=8)
    voxelize(tmp_path / "serial", num_bins=8)
    assert content_of(out) == content_of(tmp_path / "serial")
    again = ingest_parts(raw, out, overwrite=True)
    assert [report.skipped for report in again] == [0, 0, 0]
    finalise(out)
    assert content_of(out) == content_of(tmp_path / "serial")


def test_parts_of_different_plans_do_not_mix(shared_raw, out, tree_of):
    ingest_parts(shared_raw, out, THIRDS[:1])
    before = tree_of(out)
    for options, word in [({"codec": "lz4"}, "codec"), ({"quarantine": True}, "quarantine")]:
        for dry_run in (True, False):
            with pytest.raises(StoreError, match=f"parts of another ingest .* different {word}"):
                ingest_parts(shared_raw, out, THIRDS[1:2], dry_run=dry_run, **options)
    with pytest.raises(StoreError, match="different count"):
        ingest_parts(shared_raw, out, [Part(2, 4)])
    with pytest.raises(StoreError, match="different manifest"):
        other = replace(shared_raw.manifest, licence="other")
        ingest(shared_raw.root, out, other, part=THIRDS[1])
    assert tree_of(out) == before
    assert drop(out) == ("ingest",) and tree_of(out) == {}
    assert len(ingest_parts(shared_raw, out, [Part(2, 4)])) == 1


def test_an_ordinary_run_takes_over(shared_raw, serial, out, tree_of):
    ingest_parts(shared_raw, out, THIRDS[:2])
    report = ingest(shared_raw.root, out, shared_raw.manifest)
    assert (report.written, report.skipped) == (6, 12)
    assert tree_of(out) == tree_of(serial[1])


def test_a_dry_run_writes_nothing(shared_raw, out):
    assert ingest_parts(shared_raw, out, THIRDS[:1], dry_run=True)[0].written == 6
    assert not out.exists()


def test_frames_set_aside_are_reported_by_the_part_and_by_the_end(raw, out, tmp_path, tree_of):
    (raw.root / "train/b/sharp/001.png").unlink()
    shutil.rmtree(raw.root / "test/c/sharp")
    shutil.rmtree(raw.root / "test/c/blurry")
    (raw.root / "test/c/blurry").mkdir()
    ingest(raw.root, tmp_path / "serial", raw.manifest, quarantine=True)
    reports = ingest_parts(raw, out, quarantine=True)
    assert sum(report.sequences for report in reports) == 2
    (done,) = finalise(out)
    assert set(done.report.quarantined) == {one for report in reports for one in report.quarantined}
    assert tree_of(out) == tree_of(tmp_path / "serial")


def test_recordings_without_a_usable_frame_are_no_store(raw, out):
    for log in raw.root.rglob("exposures.csv"):
        log.write_text("not a log\n")
    assert [report.sequences for report in ingest_parts(raw, out, quarantine=True)] == [0, 0, 0]
    with pytest.raises(AlignmentError, match="no frame has a usable exposure"):
        finalise(out)
    assert not (out / "zarr.json").exists()


def test_grids_of_recordings_that_changed_are_not_merged(raw, out):
    ingest(raw.root, out, raw.manifest)
    voxelize_parts(out)
    correct_alignment(open_store(out), {"train/a": 1})
    with pytest.raises(StoreError, match="changed since parts of voxelize/k8 were built") as caught:
        finalise(out)
    assert caught.value.fix.endswith("--drop")
    assert drop(out) == ("voxelize/k8",)
    assert verify(out, deep=True).ok


def test_a_merge_that_was_killed_goes_on(shared_raw, serial, out, tree_of, monkeypatch):
    ingest_parts(shared_raw, out)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.storage.building.settle", lambda *_: time.monotonic() / 0)
        with pytest.raises(ZeroDivisionError):
            finalise(out)
    assert (out / "zarr.json").is_file() and (out / PARTS).is_dir()
    open_store(out)
    finalise(out)
    assert tree_of(out) == tree_of(serial[1])


def test_where_there_is_nothing_that_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="no store, and no part of one"):
        finalise(tmp_path / "nothing")
