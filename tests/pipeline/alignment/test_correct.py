"""Corrections are recorded, found again by ingest, and touch nothing else."""

import json
import shutil

import numpy as np
import pytest

from pipeline.alignment.check import check_alignment
from pipeline.alignment.correct import correct_alignment
from pipeline.errors import AlignmentError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.storage.building import StoreBuilder
from pipeline.store import open_store
from pipeline.voxelize import voxelize

KEY = "train/train_0000"


@pytest.fixture
def raw(moving_raw, tmp_path, shift_log):
    copy = shutil.copytree(moving_raw, tmp_path / "raw")
    shift_log(copy / KEY, 3)
    return copy


@pytest.fixture
def out(raw, tmp_path):
    ingest(raw, tmp_path / "store", read_manifest("simulated"), workers=1)
    return tmp_path / "store"


def corrections_of(out):
    found = check_alignment(open_store(out), workers=1)
    return {one.key: one.estimates.whole.offset for one in found if one.verdict == "shifted"}


def test_a_correction_moves_the_tables_and_nothing_else(out, raw, content_of, tree_of):
    before, trees, sources = open_store(out).sequence(*KEY.split("/")), content_of(out), tree_of(raw)
    tables = before.exposure, before.exposure_ns, before.sharp_index, before.light
    assert corrections_of(out) == {KEY: -3}
    assert correct_alignment(open_store(out), {KEY: -3}) == {KEY: -3}
    after = open_store(out).sequence(*KEY.split("/"))
    np.testing.assert_array_equal(after.exposure, tables[0] - 3)
    np.testing.assert_array_equal(after.exposure_ns, tables[1] - 3 * 250_000)
    np.testing.assert_array_equal(after.sharp_index, tables[2] - 3)
    assert all(fit.r2 > was.r2 for fit, was in zip(after.light, tables[3], strict=True))
    assert after.attributes["alignment_offset"] == -3
    assert json.loads((out / "zarr.json").read_bytes())["attributes"]["offsets"] == {KEY: -3}
    changed = {name for name, data in content_of(out).items() if trees.get(name) != data}
    tables = {
        f"{KEY}/{name}/{file}" for name in ("exposure", "exposure_ns") for file in ("zarr.json", "c/0/0")
    }
    tables |= {f"{KEY}/sharp_index/{file}" for file in ("zarr.json", "c/0")}
    assert changed == {"zarr.json", f"{KEY}/zarr.json"} | tables
    assert tree_of(raw) == sources


def test_the_second_check_finds_nothing(out, times_of):
    correct_alignment(open_store(out), corrections_of(out))
    assert corrections_of(out) == {}
    before = times_of(out)
    assert correct_alignment(open_store(out), {}) == {KEY: -3}
    assert correct_alignment(open_store(out), {KEY: 0}) == {KEY: -3}
    assert times_of(out) == before


def test_corrections_add_up_and_may_end_at_nothing(out, content_of):
    before = content_of(out)
    correct_alignment(open_store(out), {KEY: -3})
    assert correct_alignment(open_store(out), {KEY: 1}) == {KEY: -2}
    assert correct_alignment(open_store(out), {KEY: 2}) == {}
    assert {name: data for name, data in content_of(out).items() if name != "zarr.json"} == {
        name: data for name, data in before.items() if name != "zarr.json"
    }


def test_ingesting_again_keeps_the_correction_and_does_nothing(out, raw, times_of):
    correct_alignment(open_store(out), {KEY: -3})
    before = times_of(out)
    assert ingest(raw, out, read_manifest("simulated"), workers=1).written == 0
    assert times_of(out) == before


def test_ingesting_anew_with_overwrite_arrives_at_the_same_bytes(out, raw, content_of):
    correct_alignment(open_store(out), {KEY: -3})
    before = content_of(out)
    ingest(raw, out, read_manifest("simulated"), workers=1, overwrite=True)
    assert content_of(out) == before


def test_voxelize_counts_exactly_the_corrected_sequence_again(out):
    voxelize(out, num_bins=8)
    correct_alignment(open_store(out), {KEY: -3})
    assert open_store(out).voxel_names == ()
    report = voxelize(out, num_bins=8)
    assert (report.written, report.skipped) == (1, 2)


@pytest.mark.parametrize("step", ["build", "write_group", "commit"])
def test_an_interrupted_correction_changes_nothing(out, raw, content_of, monkeypatch, step):
    before = content_of(out)

    def cut(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StoreBuilder, step, cut)
        correct_alignment(open_store(out), {KEY: -3})
    assert content_of(out) == before and open_store(out).sequence(*KEY.split("/")).exposure[0, 0] >= 3
    ingest(raw, out, read_manifest("simulated"), workers=1)
    assert content_of(out) == before


@pytest.mark.parametrize(("offset", "frame"), [(-20, "000000"), (40, "000004")])
def test_an_exposure_that_would_leave_the_recording_is_refused(out, times_of, offset, frame):
    before = times_of(out)
    with pytest.raises(AlignmentError, match=rf"{KEY} frame {frame}: its exposure .* would leave") as error:
        correct_alignment(open_store(out), {KEY: offset})
    assert f"exposure.offset_frames: {offset}" in error.value.fix
    assert times_of(out) == before


def test_frames_made_from_spikes_are_made_anew(shared_data, tmp_path, content_of):
    raw, manifest, out = shared_data / "sreds_t301_250x400", read_manifest("sreds_pairs"), tmp_path / "store"
    ingest(raw, out, manifest)
    correct_alignment(open_store(out), {"train/203_part1": 7})
    sequence = open_store(out).sequence("train", "203_part1")
    start, stop = sequence.exposure[0]
    bits = np.unpackbits(sequence.spikes[start:stop], axis=2, count=400, bitorder="little")
    grey = np.minimum(np.rint(255 * 2.0 * bits.sum(axis=0, dtype=np.int64) / (stop - start)), 255)
    np.testing.assert_array_equal(sequence.blurry[0][1], grey)
    before = content_of(out)
    assert ingest(raw, out, manifest).written == 0
    ingest(raw, out, manifest, overwrite=True)
    assert content_of(out) == before
