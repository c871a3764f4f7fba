import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from pipeline.config import build, to_plain
from pipeline.dat import write_dat
from pipeline.errors import AlignmentError, FormatError, StoreError, UsageError
from pipeline.ingest import ingest
from pipeline.manifest import Manifest, read_manifest
from pipeline.storage.building import StoreBuilder
from pipeline.storage.mapped import forget_maps
from pipeline.storage.root import WORK
from pipeline.store import open_store
from pipeline.voxelize import voxelize
from pipeline.yaml_files import dump_yaml

KEYS = ("train/a", "train/b", "test/c")
NUM_SHARDS = 3 * 6


def images_of(folder):
    return np.stack([np.array(Image.open(path)).transpose(2, 0, 1) for path in sorted(folder.iterdir())])


@pytest.fixture(scope="module")
def finished(shared_raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("ingest") / "store"
    return out, ingest(shared_raw.root, out, shared_raw.manifest, workers=2)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def test_what_zarr_reads_equals_the_sources(finished, shared_raw):
    root = zarr.open_group(finished[0], mode="r")
    for key in KEYS:
        group = root[key]
        unpacked = np.unpackbits(group["spikes"][:], axis=2, count=20, bitorder="little")
        np.testing.assert_array_equal(unpacked, shared_raw.spikes(key))
        for kind in ("blurry", "sharp"):
            np.testing.assert_array_equal(group[kind][:], images_of(shared_raw.root / key / kind))
        spans = np.array(shared_raw.spans[key])
        np.testing.assert_array_equal(group["exposure"][:], spans)
        np.testing.assert_array_equal(group["exposure_ns"][:], spans * 1_000_000)
        np.testing.assert_array_equal(group["sharp_index"][:], (spans[:, 0] + spans[:, 1]) // 2)
        assert group.attrs["frames"] == ["000", "001", "002"]


def test_zarr_lists_every_array(finished):
    root = zarr.open_group(finished[0], mode="r")
    names = {name for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
    arrays = ("spikes", "blurry", "sharp", "exposure", "exposure_ns", "sharp_index")
    assert names == {f"{key}/{array}" for key in KEYS for array in arrays}


def test_the_report_counts(finished):
    out, report = finished
    assert (report.store, report.sequences, report.frames) == (out, 3, 9)
    assert (report.written, report.skipped, report.quarantined) == (NUM_SHARDS, 0, ())
    assert report.num_bytes == 3 * (70 * 18 * 3 + 2 * 3 * 3 * 36 * 40 + 3 * (2 + 2 + 1) * 8)


@pytest.mark.parametrize("workers", [1, 5])
def test_any_number_of_workers_writes_the_same_bytes(finished, shared_raw, out, workers, tree_of):
    ingest(shared_raw.root, out, shared_raw.manifest, workers=workers)
    assert tree_of(out) == tree_of(finished[0])


def test_a_finished_ingest_writes_nothing(finished, shared_raw, times_of):
    out, _ = finished
    before = times_of(out)
    again = ingest(shared_raw.root, out, shared_raw.manifest)
    assert times_of(out) == before
    assert (again.written, again.skipped) == (0, NUM_SHARDS)


def test_a_dry_run_writes_nothing_and_says_what_it_would(raw, out, times_of):
    before = times_of(raw.root.parent)
    report = ingest(raw.root, out, raw.manifest, dry_run=True)
    assert (report.written, report.skipped, report.frames) == (NUM_SHARDS, 0, 9)
    assert times_of(raw.root.parent) == before and not out.exists()


def test_a_replaced_image_rebuilds_its_sequence_alone(raw, out, tree_of, times_of, caplog):
    ingest(raw.root, out, raw.manifest)
    voxelize(out, num_bins=8)
    before, trees, fingerprint = times_of(out), tree_of(out), open_store(out).fingerprint
    (raw.root / "train/b/sharp/001.png").write_bytes((raw.root / "train/b/sharp/002.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        report = ingest(raw.root, out, raw.manifest)
    assert (report.written, report.skipped) == (4, NUM_SHARDS - 4)
    assert "voxel grids have to be brought up to date" in caplog.text
    shards = {path for path in before if "zarr.json" not in path and Path(path).is_file()}
    rewritten = {os.path.relpath(path, out) for path in shards if times_of(out)[path] != before[path]}
    images = {f"train/b/{name}/c/0/0/0/0" for name in ("blurry", "sharp")}
    assert rewritten == images | {"train/b/spikes/c/0/0/0", "train/b/exposure/c/0/0"}
    assert tree_of(out)["train/a/zarr.json"] == trees["train/a/zarr.json"]
    store = open_store(out)
    assert store.voxel_names == () and store.fingerprint != fingerprint and store.stages == ("ingest",)
    with pytest.raises(StoreError, match="no voxel grids yet"):
        store.normalization("k8")
    with pytest.raises(StoreError, match="no finished voxel grids"):
        store.sequence("train", "a").voxels("k8")
    assert voxelize(out, num_bins=8).written == 1
    assert open_store(out).voxel_names == ("k8",)


def test_overwrite_rebuilds_everything_to_the_same_bytes(finished, shared_raw, out, tree_of):
    shutil.copytree(finished[0], out)
    report = ingest(shared_raw.root, out, shared_raw.manifest, overwrite=True)
    assert report.written == NUM_SHARDS
    assert tree_of(out) == tree_of(finished[0])


def test_overwrite_mends_a_damaged_shard_and_a_missing_one_needs_no_overwrite(
    finished, shared_raw, out, tree_of
):
    shutil.copytree(finished[0], out)
    shard = out / "train/a/spikes/c/0/0/0"
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(StoreError, match=str(shard)):
        open_store(out).sequence("train", "a").spikes[:]
    ingest(shared_raw.root, out, shared_raw.manifest, overwrite=True)
    assert open_store(out).sequence("train", "a").spikes.shape[0] == 70
    shard.unlink()
    assert ingest(shared_raw.root, out, shared_raw.manifest).written == 1
    assert tree_of(out) == tree_of(finished[0])


def test_a_sequence_that_is_gone_is_dropped_on_request_only(raw, out):
    ingest(raw.root, out, raw.manifest)
    shutil.rmtree(raw.root / "train/b")
    with pytest.raises(UsageError, match=r"holds train/b, which .* does not have"):
        ingest(raw.root, out, raw.manifest)
    assert (out / "train/b").is_dir()
    ingest(raw.root, out, raw.manifest, overwrite=True)
    assert open_store(out).splits == {"train": ("a",), "test": ("c",)} and not (out / "train/b").exists()


def test_sharp_frames_that_are_gone_are_gone_from_the_store(raw, out):
    ingest(raw.root, out, raw.manifest)
    shutil.rmtree(raw.root / "train/a/sharp")
    ingest(raw.root, out, raw.manifest)
    sequence = open_store(out).sequence("train", "a")
    assert (
        sequence.sharp is None and not sequence.has_sharp.any() and sequence.sharp_index.tolist() == [-1] * 3
    )
    assert not (out / "train/a/sharp").exists()


def test_a_frame_without_a_sharp_one_is_kept_and_marked(raw, out):
    (raw.root / "train/a/sharp/001.png").unlink()
    with pytest.raises(FormatError, match=r"sharp/001.png: no such file"):
        ingest(raw.root, out, replace(raw.manifest, missing_sharp="error"))
    assert not out.exists()
    ingest(raw.root, out, raw.manifest)
    sequence = open_store(out).sequence("train", "a")
    assert sequence.has_sharp.tolist() == [True, False, True] and sequence.sharp_index.tolist() == [5, -1, 62]
    assert not sequence.sharp[1].any() and sequence.sharp[2].any()


def refused(raw, out, kind, match):
    with pytest.raises(kind, match=match):
        ingest(raw.root, out, raw.manifest)
    assert not out.exists()


def test_what_examination_finds_leaves_nothing_behind(raw, out):
    spikes, blurry = raw.root / "train/a/spikes.dat", raw.root / "test/c/blurry/001.png"
    whole = spikes.read_bytes()
    spikes.write_bytes(whole[:-1])
    refused(raw, out, FormatError, r"train/a/spikes.dat: 3149 bytes is not a whole number of 45-byte frames")
    spikes.unlink()
    refused(raw, out, FormatError, r"train/a/spikes.dat: no such file")
    spikes.write_bytes(whole)
    image = blurry.read_bytes()
    blurry.write_bytes((raw.root / "test/c/sharp/001.png").read_bytes())
    refused(raw, out, FormatError, r"test/c/sharp/001.png: the sharp frame has the very pixels")
    Image.new("RGB", (41, 36)).save(blurry)
    refused(raw, out, FormatError, r"test/c/blurry/001.png: 36x41 pixels, expected 36x40")
    blurry.unlink()
    refused(raw, out, AlignmentError, r"exposures.csv:3: frame 001 of test/c has no image")
    blurry.write_bytes(image)
    (raw.root / "train/b/exposures.csv").unlink()
    refused(raw, out, FormatError, r"train/b/exposures.csv: no such file")


def test_a_copy_in_another_encoding_is_refused_and_the_store_stays_closed(raw, out):
    path = raw.root / "train/b/sharp/001.png"
    Image.open(raw.root / "train/b/blurry/001.png").save(path, compress_level=9)
    with pytest.raises(FormatError, match=r"train/b/sharp/001.png: the sharp frame has the very pixels"):
        ingest(raw.root, out, raw.manifest)
    with pytest.raises(StoreError, match="its ingest did not finish"):
        open_store(out)
    path.unlink()
    assert ingest(raw.root, out, raw.manifest).skipped >= NUM_SHARDS - 5
    open_store(out)


def test_exposures_outside_the_recording_are_refused_or_set_aside_but_never_clipped(raw, out):
    path = raw.root / "train/a/spikes.dat"
    write_dat(path, raw.spikes("train/a")[:63], raw.manifest.spikes)
    refused(
        raw,
        out,
        AlignmentError,
        r"train/a/blurry/002.png: exposure of spike frames \[60, 64\) ends after .* of 63",
    )
    report = ingest(raw.root, out, raw.manifest, quarantine=True)
    assert [(q.path.rpartition("/")[2], report.frames) for q in report.quarantined] == [("002.png", 8)]
    sequence = open_store(out).sequence("train", "a")
    assert sequence.exposure.tolist() == [[0, 11], [11, 52]]
    assert sequence.attributes["set_aside"][0]["reason"].startswith(
        "exposure of spike frames [60, 64) ends after"
    )


def test_a_frame_set_aside_is_reported_once_and_leaves_a_gap(raw, out):
    (raw.root / "train/a/sharp/001.png").unlink()
    manifest = replace(raw.manifest, missing_sharp="error")
    report = ingest(raw.root, out, manifest, quarantine=True)
    (problem,) = report.quarantined
    assert problem.path == str(raw.root / "train/a/sharp/001.png") and problem.reason.startswith(
        "no such file"
    )
    store = open_store(out)
    sequence = store.sequence("train", "a")
    assert sequence.frames == ("000", "002") and sequence.positions == (0, 2)
    assert sequence.runs == ((0, 1), (1, 2))
    assert store.sequence("train", "b").runs == ((0, 3),)


def test_a_gap_that_only_the_log_tells_of_is_recorded_when_the_log_does(raw, out):
    log = raw.root / "train/a/exposures.csv"
    whole = log.read_text()
    (raw.root / "train/a/blurry/001.png").unlink()
    log.write_text("\n".join(line for line in whole.split("\n") if not line.startswith("001")))
    ingest(raw.root, out, raw.manifest)
    assert open_store(out).sequence("train", "a").positions == (0, 1)
    log.write_text(whole)
    report = ingest(raw.root, out, raw.manifest, quarantine=True)
    assert report.written == 0 and [q.reason for q in report.quarantined] == [
        "frame 001 of train/a has no image"
    ]
    assert open_store(out).sequence("train", "a").positions == (0, 2)


@pytest.mark.parametrize("damage", ["without positions", "broken", "gone"])
def test_ingesting_again_mends_the_attributes_of_a_sequence(finished, shared_raw, out, damage, tree_of):
    shutil.copytree(finished[0], out)
    node = out / "train/a/zarr.json"
    metadata = json.loads(node.read_text())
    del metadata["attributes"]["positions"]
    node.write_text(json.dumps(metadata) if damage == "without positions" else "{")
    if damage == "gone":
        node.unlink()
    assert ingest(shared_raw.root, out, shared_raw.manifest).written == 0
    assert tree_of(out) == tree_of(finished[0])


def test_nothing_usable_is_an_error_even_with_quarantine(raw, out):
    for key in KEYS:
        write_dat(raw.root / key / "spikes.dat", raw.spikes(key)[:5], raw.manifest.spikes)
    with pytest.raises(AlignmentError, match="no frame has a usable exposure") as caught:
        ingest(raw.root, out, raw.manifest, quarantine=True)
    assert "and 1 more" in caught.value.problem and not out.exists()


def test_refuses_to_write_among_other_things(raw, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="exists and is not a store"):
        ingest(raw.root, tmp_path / "photos", raw.manifest)


def test_refuses_a_split_called_like_the_statistics(raw, out):
    (raw.root / "train").rename(raw.root / "stats")
    splits = {"stats": {}, "test": {}}
    manifest = build(Manifest, to_plain(raw.manifest) | {"splits": splits}, "test")
    with pytest.raises(UsageError, match="a split cannot be called 'stats'"):
        ingest(raw.root, out, manifest)


class PowerCut(BaseException):
    """Not an Exception, as Ctrl-C is not."""


@pytest.mark.parametrize("pieces", [0, 1, 7, 17])
def test_an_interrupted_ingest_is_refused_by_readers_and_resumes(
    finished, shared_raw, out, pieces, monkeypatch, tree_of
):
    def cut(done, total, what):
        before = {"shards written": 0, "exposures compared": NUM_SHARDS - 3}
        if what in before and before[what] + done == pieces:
            raise PowerCut

    with pytest.raises(PowerCut):
        ingest(shared_raw.root, out, shared_raw.manifest, workers=1, progress=cut)
    with pytest.raises(StoreError, match="its ingest did not finish"):
        open_store(out)
    report = ingest(shared_raw.root, out, shared_raw.manifest)
    assert report.skipped >= pieces and report.written + report.skipped == NUM_SHARDS
    assert tree_of(out) == tree_of(finished[0])


def test_overwrite_rebuilds_even_what_an_interrupted_run_finished(shared_raw, out):
    def cut(done, total, what):
        if what == "shards written" and done == 7:
            raise PowerCut

    with pytest.raises(PowerCut):
        ingest(shared_raw.root, out, shared_raw.manifest, workers=1, progress=cut)
    assert ingest(shared_raw.root, out, shared_raw.manifest, overwrite=True).written == NUM_SHARDS


def test_a_sequence_that_was_to_be_dropped_when_power_failed_is_not_forgotten(raw, out, monkeypatch):
    ingest(raw.root, out, raw.manifest)
    shutil.rmtree(raw.root / "train/b")
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(StoreBuilder, "build", raise_power_cut)
        ingest(raw.root, out, raw.manifest, overwrite=True)
    with pytest.raises(UsageError, match="holds train/b"):
        ingest(raw.root, out, raw.manifest)
    ingest(raw.root, out, raw.manifest, overwrite=True)
    assert not (out / "train/b").exists()


def raise_power_cut(*_):
    raise PowerCut


KILLED_AFTER = 11
"""Renames, each of which makes one file whole, that a process lives to see. More than the last steps of a stage."""

STAGES = f"""
import os, signal, sys
from pathlib import Path
from pipeline import ingest, voxelize
from pipeline.manifest import read_manifest

raw, manifest, killed, once = Path(sys.argv[1]), read_manifest(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
replace = os.replace

def stages(store, kill):
    def count(*names):
        replace(*names)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    left = [{KILLED_AFTER}]
    os.replace = count if kill else replace
    ingest.ingest(raw, store, manifest, workers=2)
    left[0] = {KILLED_AFTER}
    voxelize.voxelize(store, num_bins=8, workers=2)

def child(store, kill):
    pid = os.fork()
    if pid == 0:
        stages(store, kill)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

deaths = 0
while child(killed, kill=True) == signal.SIGKILL:
    deaths += 1
    assert deaths < 60
assert child(once, kill=False) == 0
print(deaths)
"""


def test_killed_again_and_again_it_ends_as_if_it_never_was(shared_raw, tmp_path, tree_of):
    """kill -9 after every few files, in ingest and voxelize, until both get through."""
    manifest = tmp_path / "made.yaml"
    manifest.write_text(dump_yaml(to_plain(shared_raw.manifest)))
    command = [
        sys.executable,
        "-c",
        STAGES,
        shared_raw.root,
        manifest,
        tmp_path / "killed",
        tmp_path / "once",
    ]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    assert tree_of(tmp_path / "killed") == tree_of(tmp_path / "once")
    forget_maps(tmp_path)
    assert open_store(tmp_path / "killed").voxel_names == ("k8",)


def test_what_a_kill_between_the_last_two_steps_leaves_is_tidied_up(finished, shared_raw, out, tree_of):
    shutil.copytree(finished[0], out)
    (out / WORK / "receipts/ingest/train/a/spikes").mkdir(parents=True)
    ingest(shared_raw.root, out, shared_raw.manifest)
    assert tree_of(out) == tree_of(finished[0])


def test_the_real_gopro_pair(shared_data, out, read_plainly):
    folder = shared_data / "gopro_spike_pair"
    ingest(folder, out, read_manifest("gopro_pair"))
    group = zarr.open_group(out, mode="r")["train/gopro_pair"]
    spikes = read_plainly(folder / "000226.dat", 360, 640)
    np.testing.assert_array_equal(np.unpackbits(group["spikes"][:], axis=2, bitorder="little"), spikes)
    sharp = np.array(Image.open(folder / "000226_sharp.png"))
    np.testing.assert_array_equal(group["sharp"][0], sharp.transpose(2, 0, 1))
    assert group["exposure"][:].tolist() == [[0, 88]] and group["sharp_index"][:].tolist() == [40]
    assert group["exposure_ns"][:].tolist() == [[0, round(88 * 10**9 / 1920)]]
    grey = np.minimum(np.rint(255 * 2.0 * spikes.sum(axis=0, dtype=np.int64) / 88), 255).astype(np.uint8)
    np.testing.assert_array_equal(
        group["blurry"][0], np.broadcast_to(np.kron(grey, np.ones((2, 2), np.uint8)), (3, 720, 1280))
    )


def test_the_real_sreds_streams(shared_data, out, read_plainly):
    folder = shared_data / "sreds_t301_250x400"
    ingest(folder, out, read_manifest("sreds_pairs"))
    root = zarr.open_group(out, mode="r")
    for part in ("203_part1", "203_part2", "203_part3"):
        group, spikes = root["train"][part], read_plainly(folder / f"{part}_key_id151.dat", 250, 400)
        np.testing.assert_array_equal(np.unpackbits(group["spikes"][:], axis=2, bitorder="little"), spikes)
        np.testing.assert_array_equal(
            group["sharp"][0, 1], np.array(Image.open(folder / f"{part}_key_id151.png"))
        )
        assert group["exposure"][:].tolist() == [[150 - 48, 150 + 49]] and group["sharp_index"][
            :
        ].tolist() == [150]


def test_windows_that_begin_before_a_real_recording(shared_data, out):
    folder, manifest = shared_data / "sreds_t41_250x400", read_manifest("sreds_pairs")
    manifest = replace(manifest, exposure=replace(manifest.exposure, window=41))
    with pytest.raises(AlignmentError) as caught:
        ingest(folder, out, manifest)
    expected = {
        7: (-14, "begins before"),
        14: (-7, "begins before"),
        28: (7, "ends after"),
        35: (14, "ends after"),
    }
    lines = caught.value.problem.splitlines()
    assert len(lines) == 4 and not out.exists()
    for line, (number, (start, where)) in zip(lines, expected.items(), strict=True):
        assert (
            f"key_id{number}.png: exposure of spike frames [{start}, {start + 41}) {where} the recording of 41"
            in line
        )
    report = ingest(folder, out, manifest, quarantine=True)
    assert report.frames == 1 and len(report.quarantined) == 4
    sequence = open_store(out).sequence("train", "000_part1")
    assert sequence.frames == ("21",) and sequence.exposure.tolist() == [[0, 41]]


def test_a_corrected_camera_file_corrects_the_store_and_no_array(raw, out, manifest_of):
    layout = to_plain(raw.manifest.layout) | {"camera": "camera.yaml"}
    (raw.root / "camera.yaml").write_text("threshold: 2.0")
    ingest(raw.root, out, manifest_of(layout=layout))
    (raw.root / "camera.yaml").write_text("threshold: 4.0")
    assert ingest(raw.root, out, manifest_of(layout=layout)).written == 0
    assert open_store(out).sequence("test", "c").camera == {"threshold": 4.0}
