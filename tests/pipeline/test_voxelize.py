import gc
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr

from pipeline.errors import StoreError, UsageError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.storage.mapped import MappedArray
from pipeline.storage.root import WORK, read_root
from pipeline.store import open_store
from pipeline.virtual_voxels import VirtualVoxels
from pipeline.voxelize import voxelize

KEYS = ("train/a", "train/b", "test/c")


@pytest.fixture(scope="module")
def ingested(shared_raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("voxelize") / "ingested"
    ingest(shared_raw.root, out, shared_raw.manifest)
    return out


@pytest.fixture(scope="module")
def finished(ingested):
    out = shutil.copytree(ingested, ingested.parent / "finished")
    return out, voxelize(out, num_bins=8)


@pytest.fixture
def store(ingested, tmp_path):
    return shutil.copytree(ingested, tmp_path / "store")


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("num_bins", [8, 32])
def test_zarr_and_the_mapped_reader_equal_counting_frame_by_frame(store, shared_raw, codec, num_bins):
    """Of exposures of 11, 41 and 4 spike frames: in 32 bins, two of them have fewer frames than bins."""
    voxelize(store, num_bins=num_bins, codec=codec)
    root, opened = zarr.open_group(store, mode="r"), open_store(store)
    for key in KEYS:
        expected = shared_raw.counts(key, num_bins)
        found = root[f"{key}/voxels/k{num_bins}"]
        np.testing.assert_array_equal(found[:], expected)
        np.testing.assert_array_equal(opened.sequence(*key.split("/")).voxels(f"k{num_bins}")[:], expected)
        assert found.attrs["num_bins"] == num_bins
    per_bin = found.attrs["frames_per_bin"]
    for n in (11, 41, 4):
        assert (
            per_bin[str(n)] == np.bincount([j * num_bins // n for j in range(n)], minlength=num_bins).tolist()
        )


def test_statistics_equal_those_of_all_train_counts(finished, shared_raw):
    counts = np.concatenate([shared_raw.counts(key, 8).ravel() for key in KEYS[:2]])
    kept = zarr.open_group(finished[0], mode="r")["stats/k8"].attrs
    assert kept["histogram"] == np.bincount(counts, minlength=256).tolist()
    assert kept["num_values"] == counts.size and kept["split"] == "train"
    for name, values in (
        ("count", counts.astype(np.float64)),
        ("log1p", np.log1p(counts.astype(np.float64))),
    ):
        assert kept[name]["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert kept[name]["std"] == pytest.approx(values.std(), rel=1e-12)
    everything = np.concatenate([counts, shared_raw.counts(KEYS[2], 8).ravel()])
    assert kept["count"]["mean"] != pytest.approx(everything.mean(), rel=1e-6)


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_writes_the_same_bytes(finished, store, workers, tree_of):
    report = voxelize(store, num_bins=8, workers=workers)
    assert (report.sequences, report.frames, report.written, report.skipped) == (3, 9, 3, 0)
    assert report.num_bytes == 9 * 8 * 18 * 20
    assert tree_of(store) == tree_of(finished[0])


def test_compressing_is_the_same_for_any_number_of_workers_too(ingested, tmp_path, tree_of):
    for workers in (1, 3):
        path = shutil.copytree(ingested, tmp_path / str(workers))
        voxelize(path, num_bins=8, codec="zstd", workers=workers)
    assert tree_of(tmp_path / "1") == tree_of(tmp_path / "3")


def test_a_finished_stage_and_a_dry_run_write_nothing(finished, store, times_of):
    out, _ = finished
    before = times_of(out)
    again = voxelize(out, num_bins=8)
    assert (again.written, again.skipped) == (0, 3) and times_of(out) == before
    before = times_of(store)
    assert voxelize(store, num_bins=8, dry_run=True).written == 3
    assert voxelize(store, num_bins=8, dry_run=True, overwrite=True).written == 3
    assert times_of(store) == before


def test_grids_stand_beside_each_other(store, tree_of):
    voxelize(store, num_bins=8)
    before = tree_of(store)
    voxelize(store, num_bins=4, name="coarse", codec="lz4")
    after = tree_of(store)
    assert open_store(store).voxel_names == ("k8", "coarse")
    assert {name for name in before if before[name] != after[name]} == {
        "zarr.json",
        ".spk/zarr.json",
    }


def test_virtual_grids_equal_stored_ones_and_take_no_bytes(finished, store, shared_raw):
    report = voxelize(store, num_bins=8, virtual=True)
    assert (report.written, report.skipped, report.num_bytes) == (3, 0, 0)
    stored, virtual = (open_store(path) for path in (finished[0], store))
    assert not list(store.glob("*/*/voxels/k8/*/"))
    for key in KEYS:
        one, other = (opened.sequence(*key.split("/")).voxels("k8") for opened in (stored, virtual))
        assert isinstance(one, MappedArray) and isinstance(other, VirtualVoxels)
        np.testing.assert_array_equal(one[:], other[:])
        np.testing.assert_array_equal(other[:], shared_raw.counts(key, 8))
        kept = ("num_bins", "rule", "frames_per_bin", "histogram")
        assert {name: one.attributes[name] for name in kept} == {
            name: other.attributes[name] for name in kept
        }
        assert (other.attributes["shape"], other.attributes["dtype"]) == ([3, 8, 18, 20], "uint8")
        found = zarr.open_group(store, mode="r")[f"{key}/voxels/k8"]
        assert isinstance(found, zarr.Group) and not list(found) and found.attrs["virtual"] is True
    statistics = [(path / "stats/k8/zarr.json").read_bytes() for path in (finished[0], store)]
    assert statistics[0] == statistics[1]
    about = [opened.attributes["stages"]["voxelize/k8"]["parameters"] for opened in (stored, virtual)]
    assert about[1] == about[0] | {"virtual": True} and "virtual" not in about[0]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_virtual_and_stored_grids_replace_each_other(ingested, store, codec, content_of, tree_of):
    """To the same store as when they come first; who reads the one before reads on."""
    shapes = {"stored": {"codec": codec}, "virtual": {"virtual": True}}
    alone = {}
    for name, how in shapes.items():
        path = shutil.copytree(ingested, store.parent / name)
        voxelize(path, num_bins=8, **how)
        alone[name] = content_of(path)
    assert alone["stored"].keys() != alone["virtual"].keys()
    for name in ("stored", "virtual", "stored", "virtual"):
        before = open_store(store).sequences("train") if open_store(store).voxel_names else []
        grids = [sequence.voxels("k8") for sequence in before]
        assert voxelize(store, num_bins=8, **shapes[name]).written == 3
        assert content_of(store) == alone[name]
        assert voxelize(store, num_bins=8, **shapes[name]).written == 0
        after = [sequence.voxels("k8") for sequence in open_store(store).sequences("train")]
        for old, new in zip(grids, after, strict=bool(grids)):
            assert type(old) is not type(new)
            np.testing.assert_array_equal(old[:], new[:])
    del before, grids, old
    gc.collect()
    voxelize(store, num_bins=8, virtual=True, overwrite=True)
    assert [path.name for path in (store / WORK).rglob("*")] == ["zarr.json"]


@pytest.mark.parametrize("pieces", [0, 1, 2, 3])
@pytest.mark.parametrize("then", [{"virtual": True}, {}])
def test_interrupted_counting_for_virtual_grids_is_resumed_or_replaced(
    store, ingested, tree_of, pieces, then
):
    def cut(done, total, what):
        if done == pieces:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        voxelize(store, num_bins=8, virtual=True, workers=1, progress=cut)
    assert open_store(store).voxel_names == ()
    report = voxelize(store, num_bins=8, **then)
    assert report.skipped >= pieces if then else report.written == 3
    whole = shutil.copytree(ingested, store.parent / "whole")
    voxelize(whole, num_bins=8, **then)
    assert tree_of(store) == tree_of(whole)


def test_interrupted_stored_grids_leave_nothing_in_virtual_ones(store, ingested, tree_of):
    def cut(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        voxelize(store, num_bins=8, workers=1, progress=cut)
    voxelize(store, num_bins=8, virtual=True)
    whole = shutil.copytree(ingested, store.parent / "whole")
    voxelize(whole, num_bins=8, virtual=True)
    assert tree_of(store) == tree_of(whole)


def test_virtual_grids_follow_their_recordings(raw, tmp_path):
    """Of sequences that have not changed, nothing is counted again."""
    store = tmp_path / "store"
    ingest(raw.root, store, raw.manifest)
    voxelize(store, num_bins=8, virtual=True)
    raw.add("train/b", seed=77)
    ingest(raw.root, store, raw.manifest, overwrite=True)
    assert open_store(store).voxel_names == ()
    report = voxelize(store, num_bins=8, virtual=True)
    assert (report.written, report.skipped) == (1, 2)
    opened = open_store(store)
    for key in KEYS:
        found = opened.sequence(*key.split("/")).voxels("k8")
        np.testing.assert_array_equal(found[:], raw.counts(key, 8))


def test_refuses_a_codec_for_virtual_grids(store):
    with pytest.raises(UsageError, match="--codec lz4: there is nothing to compress"):
        voxelize(store, virtual=True, codec="lz4")


def test_other_settings_under_the_same_name_rebuild(store, finished, content_of):
    voxelize(store, num_bins=4, name="k8")
    assert voxelize(store, num_bins=8).written == 3
    assert content_of(store) == content_of(finished[0])


@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_an_interrupted_stage_is_not_readable_and_resumes(finished, store, pieces, tree_of):
    def cut(done, total, what):
        if done == pieces:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        voxelize(store, num_bins=8, workers=1, progress=cut)
    opened = open_store(store)
    assert opened.voxel_names == ()
    with pytest.raises(StoreError, match="no voxel grids yet"):
        opened.voxel_name("k8")
    assert (store / WORK).is_dir()
    assert voxelize(store, num_bins=8).skipped >= pieces
    assert tree_of(store) == tree_of(finished[0])


def test_overwrite_rebuilds_to_the_same_bytes(finished, store, tree_of):
    voxelize(store, num_bins=8)
    assert voxelize(store, num_bins=8, overwrite=True).written == 3
    assert tree_of(store) == tree_of(finished[0])


def test_a_second_writer_is_refused(store):
    from pipeline.storage.building import StoreBuilder

    with (
        StoreBuilder(store, "ingest", read_root(store)),
        pytest.raises(StoreError, match="another process is writing"),
    ):
        voxelize(store, num_bins=8)
    assert open_store(store).voxel_names == ()


def test_refuses_bins_that_cannot_count(store):
    with pytest.raises(UsageError, match="--bins 0"):
        voxelize(store, num_bins=0)
    for name in ("../x", "", "a b", "ü"):
        with pytest.raises(UsageError, match="--name"):
            voxelize(store, name=name or " ")
    with pytest.raises(UsageError, match="workers: 0"):
        voxelize(store, workers=0)


@pytest.mark.parametrize("virtual", [False, True])
def test_exposures_that_are_too_long_for_a_byte_are_counted_in_two(raw, tmp_path, virtual):
    raw.add("train/long", 5, spans=((0, 800), (3, 20)))
    ingest(raw.root, tmp_path / "s", raw.manifest, quarantine=True)
    voxelize(tmp_path / "s", num_bins=3, virtual=virtual)
    store = open_store(tmp_path / "s")
    grids = store.sequence("train", "long").voxels("k3")
    assert grids.dtype == np.uint16 and store.sequence("train", "a").voxels("k3").dtype == np.uint8
    for k, (a, b) in enumerate(raw.spans["train/long"]):
        frames, bins = raw.spikes("train/long")[a:b], np.arange(b - a) * 3 // (b - a)
        np.testing.assert_array_equal(grids[k], [frames[bins == n].sum(axis=0) for n in range(3)])
    assert store.normalization("k3").num_values == sum(
        sequence.voxels("k3")[:].size for sequence in store.sequences("train")
    )


def test_empty_bins_are_told(store, caplog):
    with caplog.at_level(logging.WARNING):
        voxelize(store, num_bins=8)
    told = [record.message for record in caplog.records]
    assert told == [
        "exposures of 4 spike frames leave some of 8 bins empty: in train/a and 2 other sequences"
    ]


def test_without_a_train_split_there_are_no_statistics(raw, tmp_path, caplog):
    ingest(raw.root, tmp_path / "s", raw.manifest)
    voxelize(tmp_path / "s", num_bins=8)
    shutil.rmtree(raw.root / "train")
    ingest(raw.root, tmp_path / "s", raw.manifest, overwrite=True)
    voxelize(tmp_path / "s", num_bins=8)
    assert "no train split" in caplog.text and not (tmp_path / "s/stats/k8").exists()
    with pytest.raises(StoreError, match="no statistics of 'k8'"):
        open_store(tmp_path / "s").normalization("k8")


def real_counts_are_exact(out, files, spans, num_bins, plain):
    ingest_report = voxelize(out, num_bins=num_bins)
    assert ingest_report.written == len(files)
    root = zarr.open_group(out, mode="r")
    everything = []
    for key, spikes in files.items():
        expected = np.stack([plain(spikes[a:b], num_bins) for a, b in spans])
        np.testing.assert_array_equal(root[f"train/{key}/voxels/k{num_bins}"][:], expected)
        everything.append(expected.ravel())
    counts = np.concatenate(everything).astype(np.float64)
    found = open_store(out).normalization(f"k{num_bins}", "count")
    assert found.mean == pytest.approx(counts.mean(), rel=1e-12)
    assert found.std == pytest.approx(counts.std(), rel=1e-12)
    found = open_store(out).normalization(f"k{num_bins}")
    assert found.mean == pytest.approx(np.log1p(counts).mean(), rel=1e-12)
    assert found.num_values == counts.size


def test_the_real_gopro_pair_88_frames_in_32_bins(shared_data, tmp_path, read_plainly, plain):
    folder = shared_data / "gopro_spike_pair"
    ingest(folder, tmp_path / "s", read_manifest("gopro_pair"))
    spikes = read_plainly(folder / "000226.dat", 360, 640)
    real_counts_are_exact(tmp_path / "s", {"gopro_pair": spikes}, [(0, 88)], 32, plain)


def test_the_real_sreds_streams_97_frames_in_32_bins(shared_data, tmp_path, read_plainly, plain):
    folder = shared_data / "sreds_t301_250x400"
    ingest(folder, tmp_path / "s", read_manifest("sreds_pairs"))
    parts = [f"203_part{k}" for k in (1, 2, 3)]
    files = {part: read_plainly(folder / f"{part}_key_id151.dat", 250, 400) for part in parts}
    real_counts_are_exact(tmp_path / "s", files, [(102, 199)], 32, plain)


@pytest.mark.parametrize(("window", "span"), [(41, (0, 41)), (13, (14, 27))])
def test_a_real_stream_of_41_frames_in_32_bins(shared_data, tmp_path, read_plainly, plain, window, span):
    """Windows around spike frame 20; those of 13 frames leave bins empty."""
    folder, manifest = shared_data / "sreds_t41_250x400", read_manifest("sreds_pairs")
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("000_part1_key_id21.dat", "000_part1_key_id21.png"):
        shutil.copy(folder / name, raw / name)
    ingest(raw, tmp_path / "s", replace(manifest, exposure=replace(manifest.exposure, window=window)))
    spikes = read_plainly(folder / "000_part1_key_id21.dat", 250, 400)
    real_counts_are_exact(tmp_path / "s", {"000_part1": spikes}, [span], 32, plain)
