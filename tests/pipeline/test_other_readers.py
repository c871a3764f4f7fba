"""A store read by programs that know nothing of this one: zarr-python, tensorstore, xarray."""

import json
import warnings

import numpy as np
import pytest
import zarr

from pipeline.dat import write_dat
from pipeline.images import write_png
from pipeline.ingest import ingest
from pipeline.logs.timestamps import write_log
from pipeline.spike_format import SpikeFormat
from pipeline.storage import shards
from pipeline.storage.mapped import MappedArray
from pipeline.storage.root import WORK
from pipeline.store import open_store
from pipeline.voxelize import voxelize

HEIGHT, WIDTH, FRAMES, WINDOW = 136, 137, 5, 11
"""Rows that end within a byte and within a tile."""
BINS = {"raw": ("none", 3), "quick": ("lz4", 4), "small": ("zstd", 8)}
KEYS = ("train/a", "test/b")
ARRAYS = (
    "spikes",
    "blurry",
    "sharp",
    "exposure",
    "exposure_ns",
    "sharp_index",
    *(f"voxels/{n}" for n in BINS),
)


def make_recording(folder, seed):
    rng = np.random.default_rng(seed)
    rate = np.linspace(0.1, 0.9, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    spikes = (rng.random((FRAMES * WINDOW + 2, HEIGHT, WIDTH)) < rate).astype(np.uint8)
    write_dat(folder / "spikes.dat", spikes, SpikeFormat(height=HEIGHT, width=WIDTH, rate_hz=1000))
    names = [f"{k:03d}" for k in range(FRAMES)]
    for kind in ("blurry", "sharp"):
        for name in names:
            write_png(folder / kind / f"{name}.png", rng.integers(0, 256, (3, HEIGHT, WIDTH), np.uint8))
    starts = [k * WINDOW * 1_000_000 for k in range(FRAMES)]
    write_log(folder / "exposures.csv", names, starts, [start + WINDOW * 1_000_000 for start in starts])
    return spikes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, manifest_of):
    """A store of two sequences with several shards to an array, the last of them not full; and the spikes in it."""
    folder = tmp_path_factory.mktemp("others")
    spikes = {key: make_recording(folder / "raw" / key, seed) for seed, key in enumerate(KEYS)}
    manifest = manifest_of(spikes={"height": HEIGHT, "width": WIDTH, "rate_hz": 1000}, scale="auto")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "TARGET_SHARD_BYTES", 1 << 18)
        ingest(folder / "raw", folder / "store", manifest)
        for name, (codec, num_bins) in BINS.items():
            voxelize(folder / "store", num_bins=num_bins, name=name, codec=codec)
    return folder / "store", spikes


@pytest.fixture
def store(recorded):
    return recorded[0]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of libraries, about each other
        warnings.filterwarnings(
            "ignore", category=ResourceWarning
        )  # of ours, that stay open while they are read
        yield


def nodes_on_disk(store):
    """The metadata of every group and array, but what this program keeps for itself."""
    files = [file for file in store.rglob("zarr.json") if WORK not in file.parts and file.parent != store]
    return {file.parent.relative_to(store).as_posix(): json.loads(file.read_text()) for file in files}


def test_the_store_is_a_hard_one(store):
    layouts = {name: MappedArray(store / "train/a" / name).layout for name in ARRAYS}
    assert any(layout.shape[0] % layout.shard[0] and layout.grid[0] > 1 for layout in layouts.values())
    assert layouts["voxels/small"].shape[3] % layouts["voxels/small"].chunk[3]
    assert {layout.codec for layout in layouts.values()} == {"none", "lz4", "zstd"}


def test_zarr_python_walks_from_the_root_without_a_warning_and_finds_every_node(store):
    root = zarr.open_group(store, mode="r", zarr_format=3)
    members = {name: node for name, node in root.members(max_depth=None) if name != WORK}
    expected = nodes_on_disk(store)
    assert set(members) == set(expected) and {"train/a/voxels/small", "stats/small", "test"} <= set(members)
    for name, node in members.items():
        assert dict(node.attrs) == expected[name]["attributes"], name
        assert isinstance(node, zarr.Array) == (expected[name]["node_type"] == "array"), name
    assert root.attrs["splits"] == {"train": ["a"], "test": ["b"]}


@pytest.mark.parametrize("key", KEYS)
def test_zarr_python_reads_what_we_read(store, recorded, key, plain):
    root = zarr.open_group(store, mode="r")
    for name in ARRAYS:
        ours = MappedArray(store / key / name)
        theirs = root[f"{key}/{name}"]
        assert theirs.metadata.dimension_names == ours.layout.names
        np.testing.assert_array_equal(theirs[...], ours[:], err_msg=name)
    spikes = recorded[1][key]
    unpacked = np.unpackbits(root[key]["spikes"][...], axis=2, count=WIDTH, bitorder="little")
    np.testing.assert_array_equal(unpacked, spikes)
    for name, (_, num_bins) in BINS.items():
        counts = [plain(spikes[k * WINDOW : (k + 1) * WINDOW], num_bins) for k in range(FRAMES)]
        np.testing.assert_array_equal(root[f"{key}/voxels/{name}"][...], counts, err_msg=name)


def test_zarr_python_reads_crops(store):
    theirs = zarr.open_array(store / "train/a/voxels/small", mode="r")
    ours = open_store(store).sequence("train", "a").voxels("small")
    crop = slice(1, 4), slice(2, 7), slice(60, 136), slice(3, 131)
    np.testing.assert_array_equal(theirs[crop], ours[crop])


@pytest.mark.parametrize("key", KEYS)
def test_tensorstore_reads_what_we_read(store, key):
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed")
    for name in ARRAYS:
        place = {"driver": "file", "path": str(store / key / name)}
        theirs = tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True, open=True).result()
        ours = MappedArray(store / key / name)
        assert theirs.shape == ours.shape and theirs.dtype.numpy_dtype == ours.dtype
        assert tuple(theirs.domain.labels) == ours.layout.names
        np.testing.assert_array_equal(theirs.read().result(), ours[:], err_msg=name)


def test_tensorstore_sees_a_flipped_bit(store, tmp_path):
    """The checksums are where the format wants them, not only where we look for them."""
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed")
    array = tmp_path / "raw"
    array.mkdir()
    source = store / "train/a/voxels/raw"
    (array / "zarr.json").write_bytes((source / "zarr.json").read_bytes())
    for shard in (path for path in source.rglob("*") if path.is_file() and path.name != "zarr.json"):
        target = array / shard.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = bytearray(shard.read_bytes())
        data[100] ^= 4
        target.write_bytes(data)
    theirs = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(array)}}, read=True, open=True
    ).result()
    with pytest.raises(ValueError, match="Digest mismatch"):
        theirs.read().result()


def test_xarray_opens_a_sequence_and_its_voxel_grids(store):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    sequence = open_store(store).sequence("train", "a")
    with xarray.open_zarr(store / "train/a", consolidated=False, chunks=None) as found:
        assert dict(found.sizes) == {
            "frame": FRAMES,
            "channel": 3,
            "row": HEIGHT,
            "column": WIDTH,
            "edge": 2,
            "spike_frame": FRAMES * WINDOW + 2,
            "spike_row": HEIGHT,
            "spike_byte": -(-WIDTH // 8),
        }
        np.testing.assert_array_equal(found["blurry"].values, sequence.blurry[:])
        np.testing.assert_array_equal(found["exposure"].values, sequence.exposure)
        assert found.attrs["frames"] == list(sequence.frames)
    with xarray.open_zarr(store / "train/a/voxels", consolidated=False, chunks=None) as found:
        for name in BINS:
            assert found[name].dims == ("frame", f"{name}_bin", "spike_row", "spike_column")
            np.testing.assert_array_equal(found[name].values, sequence.voxels(name)[:])


def test_xarray_opens_the_whole_store_as_a_tree(store):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    with xarray.open_datatree(store, engine="zarr", consolidated=False, chunks=None) as tree:
        assert {f"/{key}/voxels" for key in KEYS} <= set(tree.groups)
        assert tree["stats/small"].attrs["num_bins"] == 8
        assert tree["train/a/voxels/small"].shape == (FRAMES, 8, HEIGHT, WIDTH)
