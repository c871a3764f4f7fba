import numpy as np
import pytest

from pipeline.dat import open_spikes
from pipeline.files import write_atomic
from pipeline.ingest import ingest
from pipeline.spike_format import SpikeFormat
from pipeline.storage.metadata import digest_of
from pipeline.storage.root import encoded, group_metadata
from pipeline.storage.shards import frames_layout, spikes_layout, table_layout, write_chunks, write_shard
from pipeline.store import open_store
from pipeline.voxel_blocks import VoxelBlocks
from pipeline.voxels import bin_spikes


def test_counts_the_spikes_of_each_exposure(raw, tmp_path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    store = open_store(tmp_path / "store")
    sequence = store.sequence("train", "a")
    region = (slice(1, 3), slice(0, 8), *(slice(0, side) for side in sequence.spike_shape))
    block = VoxelBlocks.of(sequence, store.nodes, num_bins=8).open(region)
    counts = np.concatenate([block.chunk((slice(k, k + 1), *region[1:])).copy() for k in (1, 2)])
    plain = raw.counts("train/a", 8)[1:3]
    np.testing.assert_array_equal(counts, plain)
    assert block.summary() == {"histogram": np.bincount(plain.ravel(), minlength=256).tolist()}


def write(node, metadata):
    write_atomic(node / "zarr.json", encoded(metadata))


def blocks_of(folder, num_bins):
    store = folder.parents[1]
    digests = {f"train/a{name}": digest_of(folder / name[1:]) for name in ("", "/spikes", "/exposure")}
    return VoxelBlocks(store=store, key="train/a", digests=digests, num_bins=num_bins)


def stored(tmp_path, spikes, spans, codec):
    """A sequence of a store that has just these spikes and exposures."""
    packed = np.packbits(spikes, axis=2, bitorder="little")
    folder = tmp_path / "store" / "train" / "a"
    spans = np.array(spans)
    layouts = {
        "spikes": spikes_layout(packed.shape, codec=codec),
        "exposure": table_layout(spans.shape, ("n", "edge")),
    }
    for name, values in (("spikes", packed), ("exposure", spans)):
        layout = layouts[name]
        receipts = [write_shard(folder / name, layout, s, values[layout.region(s)]) for s in layout.shards()]
        ledger = {receipt.key: [receipt.size, receipt.seal] for receipt in receipts}
        write(folder / name, layout.metadata({"ledger": ledger}))
    names = [str(k) for k in range(len(spans))]
    shape = list(spikes.shape[1:])
    about = {
        "frames": names,
        "positions": list(range(len(spans))),
        "arrays": [*layouts],
        "spike_shape": shape,
    }
    write(folder, group_metadata(about))
    return folder


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize(("height", "width"), [(6, 256), (130, 400), (9, 257), (3, 40)])
def test_tiles_of_any_width_hold_the_counts_cut_out(tmp_path, codec, height, width):
    spikes = np.random.default_rng(0).integers(0, 2, (300, height, width), np.uint8)
    spans = [(0, 90), (85, 300), (290, 293)]
    folder = stored(tmp_path, spikes, spans, codec)
    layout = frames_layout((3, 5, height, width), ("n", "k", "y", "x"))
    block = blocks_of(folder, num_bins=5).open(layout.region((0, 0, 0, 0)))
    expected = np.stack([bin_spikes(spikes[a:b], 5) for a, b in spans])
    for _, part in layout.parts((0, 0, 0, 0)):
        np.testing.assert_array_equal(block.chunk(part), expected[part])
    assert block.summary()["histogram"] == np.bincount(expected.ravel(), minlength=256).tolist()


def test_counts_beyond_255_take_16_bits(tmp_path):
    spikes = (np.random.default_rng(0).random((700, 4, 140)) < 0.9).astype(np.uint8)
    spans = [(0, 700), (0, 20)]
    folder = stored(tmp_path, spikes, spans, "none")
    layout = frames_layout((2, 2, 4, 140), ("n", "k", "y", "x"), dtype="uint16")
    source = blocks_of(folder, num_bins=2)
    block = source.open(layout.region((0, 0, 0, 0)))
    write_chunks(tmp_path / "counts", layout, (0, 0, 0, 0), block.chunk)
    expected = np.stack([bin_spikes(spikes[a:b], 2).astype(np.uint16) for a, b in spans])
    again = source.open(layout.region((0, 0, 0, 0)))
    for _, part in layout.parts((0, 0, 0, 0)):
        np.testing.assert_array_equal(again.chunk(part), expected[part])
    histogram = block.summary()["histogram"]
    assert histogram == np.bincount(expected.ravel(), minlength=351).tolist() and sum(histogram[256:]) > 0


@pytest.mark.parametrize(("codec", "least"), [("none", 3.9), ("lz4", 25), ("zstd", 30)])
def test_a_real_recording_takes_a_small_part_of_float32(tmp_path, shared_data, codec, least):
    recording = shared_data / "gopro_spike_pair" / "000226.dat"
    stream = open_spikes(recording, SpikeFormat(height=360, width=640, rate_hz=1920))
    folder = stored(tmp_path, stream.read(0, 88), [(0, 88)], "none")
    layout = frames_layout((1, 32, 360, 640), ("n", "k", "y", "x"), codec=codec)
    block = blocks_of(folder, num_bins=32).open(layout.region((0, 0, 0, 0)))
    receipt = write_chunks(tmp_path / "counts", layout, (0, 0, 0, 0), block.chunk)
    assert 4 * 32 * 360 * 640 / receipt.size > least
