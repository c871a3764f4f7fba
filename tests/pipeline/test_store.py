import hashlib
import json
import shutil

import numpy as np
import pytest

from pipeline.errors import StoreError, UsageError
from pipeline.fingerprints import fingerprint_of
from pipeline.ingest import ingest
from pipeline.storage.mapped import forget_maps
from pipeline.storage.nodes import Nodes
from pipeline.storage.root import WORK
from pipeline.store import Sequence, open_store, runs_of
from pipeline.voxelize import voxelize


@pytest.fixture(scope="module")
def whole(shared_raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "whole"
    ingest(shared_raw.root, path, shared_raw.manifest)
    voxelize(path, num_bins=8)
    voxelize(path, num_bins=4, name="coarse")
    return path


@pytest.fixture
def store(whole, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(whole, tmp_path / "store")


def test_tells_what_it_holds(whole, shared_raw):
    store = open_store(whole)
    assert store.splits == {"train": ("a", "b"), "test": ("c",)} and store.scale == 2 and store.name == "made"
    assert store.stages == ("ingest", "voxelize/k8", "voxelize/coarse") and store.voxel_names == (
        "k8",
        "coarse",
    )
    sequence = store.sequence("train", "b")
    assert (sequence.split, sequence.name, sequence.frames) == ("train", "b", ("000", "001", "002"))
    assert sequence.spike_shape == (18, 20) and sequence.num_frames == 3
    assert sequence.exposure.tolist() == [list(span) for span in shared_raw.spans["train/b"]]
    assert sequence.exposure_ns.tolist() == [
        [0, 11_000_000],
        [11_000_000, 52_000_000],
        [60_000_000, 64_000_000],
    ]
    assert sequence.sharp_index.tolist() == [5, 31, 62] and sequence.has_sharp.all()
    assert sequence.voxels("k8").shape == (3, 8, 18, 20)
    assert [s.name for s in store.sequences("train")] == ["a", "b"] and store.sequences("none") == []


@pytest.mark.parametrize(
    ("positions", "runs"),
    [
        ((), ()),
        ((4,), ((0, 1),)),
        ((0, 1, 2), ((0, 3),)),
        ((0, 1, 3, 4, 5, 9), ((0, 2), (2, 5), (5, 6))),
        ((2, 4, 6), ((0, 1), (1, 2), (2, 3))),
        ((3, 4, 4, 5, 1, 2), ((0, 2), (2, 4), (4, 6))),
    ],
)
def test_runs_end_where_a_position_is_not_the_next(positions, runs):
    assert runs_of(positions) == runs


def test_frames_on_the_two_sides_of_a_gap_are_in_different_runs(store):
    sequence = open_store(store).sequence("train", "a")
    assert sequence.positions == (0, 1, 2) and sequence.runs == ((0, 3),)
    node = store / "train/a/zarr.json"
    metadata = json.loads(node.read_text())
    metadata["attributes"]["positions"] = [0, 2, 3]
    node.write_text(json.dumps(metadata))
    nodes = Nodes(store, {"train/a": hashlib.sha256(node.read_bytes()).hexdigest()})
    assert Sequence(nodes, "train/a").runs == ((0, 1), (1, 3))


def test_refuses_sequences_and_voxels_it_does_not_have(whole):
    store = open_store(whole)
    with pytest.raises(UsageError, match=r"no sequence train/c.*'train': 2"):
        store.sequence("train", "c")
    with pytest.raises(StoreError, match="no finished voxel grids 'k9'; there are: k8, coarse"):
        store.sequence("train", "a").voxels("k9")
    with pytest.raises(StoreError, match="several voxel grids to choose from; there are: k8, coarse"):
        store.voxel_name()
    assert store.voxel_name("coarse") == "coarse"


def test_voxels_of_an_unfinished_stage_are_refused(whole):
    with pytest.raises(StoreError, match="no finished voxel grids"):
        Sequence(open_store(whole).nodes, "train/a").voxels("k8")


def test_normalization_is_of_the_train_split(whole):
    store = open_store(whole)
    counts = np.concatenate([store.sequence("train", n).voxels("k8")[:].ravel() for n in "ab"]).astype(float)
    for transform, values in (("log1p", np.log1p(counts)), ("count", counts)):
        found = store.normalization("k8", transform)
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.std == pytest.approx(values.std(), rel=1e-12)
    assert (found.num_bins, found.num_values) == (8, counts.size)
    assert store.normalization("k8").transform == "log1p"
    with pytest.raises(StoreError, match="no voxel grids 'k9'"):
        store.normalization("k9")


def test_no_store_there(tmp_path):
    with pytest.raises(StoreError, match="no store here") as caught:
        open_store(tmp_path / "none")
    assert "spk ingest" in caught.value.fix


def shards_of(store):
    return sorted(path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json")


def nodes_of(store):
    return sorted(path for path in store.rglob("zarr.json") if path.parent.name != WORK)


@pytest.mark.parametrize("how", ["deleted", "emptied", "truncated", "grown"])
def test_opening_refuses_any_shard_that_is_not_there_at_its_size(store, how):
    shards = shards_of(store)
    assert len(shards) == 3 * (6 + 2)
    for path in shards:
        data = path.read_bytes()
        if how == "deleted":
            path.unlink()
        else:
            path.write_bytes({"emptied": b"", "truncated": data[:-1], "grown": data + b"\0"}[how])
        with pytest.raises(StoreError, match=str(path)):
            open_store(store)
        path.write_bytes(data)
    open_store(store)


def test_opening_refuses_any_changed_or_missing_metadata_by_name(store):
    nodes = nodes_of(store)
    assert len(nodes) == 1 + 2 + 3 * (1 + 6 + 1 + 2) + 3
    for path in nodes:
        data = path.read_bytes()
        for changed in (data.replace(b"3", b"2", 1), data[:-9], b"", None):
            if changed is None:
                path.unlink()
            else:
                path.write_bytes(changed)
            named = str(path.parent if path.parent == store else path)
            with pytest.raises(StoreError, match=named):
                open_store(store)
            path.write_bytes(data)
    open_store(store)


def everything(store):
    for split, name in store.sequence_keys:
        sequence = store.sequence(split, name)
        arrays = [
            sequence.spikes,
            sequence.blurry,
            sequence.sharp,
            sequence.voxels("k8"),
            sequence.voxels("coarse"),
        ]
        yield from (array[:] for array in arrays)
        yield from (sequence.exposure, sequence.exposure_ns, sequence.sharp_index)


def test_a_flipped_bit_anywhere_is_refused_by_name_at_first_touch(store):
    rng = np.random.default_rng(0)
    for path in shards_of(store):
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        forget_maps(store)
        with pytest.raises(StoreError, match=str(path)):
            list(everything(open_store(store)))
        path.write_bytes(data)
    forget_maps(store)
    assert len(list(everything(open_store(store)))) == 3 * 8


def test_swapped_shards_are_refused(store):
    one, other = store / "train/a/blurry/c/0/0/0/0", store / "train/b/blurry/c/0/0/0/0"
    data = one.read_bytes()
    assert len(data) == other.stat().st_size
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    opened = open_store(store)
    with pytest.raises(StoreError, match=f"{one}: is not the shard that was written here"):
        opened.sequence("train", "a").blurry[0]


def test_a_damaged_store_can_be_looked_at_without_checks(store):
    shards_of(store)[0].unlink()
    assert open_store(store, check=False).splits["train"] == ("a", "b")


def test_a_store_without_spikes_in_train_cannot_be_normalized(tmp_path, raw):
    for name in "ab":
        path = raw.root / "train" / name / "spikes.dat"
        path.write_bytes(bytes(path.stat().st_size))
    ingest(raw.root, tmp_path / "dark", raw.manifest)
    voxelize(tmp_path / "dark", num_bins=4)
    with pytest.raises(StoreError, match="all counts of 'k4' in the train split are equal"):
        open_store(tmp_path / "dark").normalization("k4")


def forge(store, node, change):
    """Change the metadata of a node, and let the root agree with it."""
    for place in (node, ""):
        file = store / place / "zarr.json"
        metadata = json.loads(file.read_text())
        attributes = metadata["attributes"]
        if place:
            change(metadata)
        else:
            sequences = attributes["stages"]["ingest"]["sequences"]
            sequences["train/a"][node] = hashlib.sha256((store / node / "zarr.json").read_bytes()).hexdigest()
            attributes.pop("checksum")
            attributes["checksum"] = fingerprint_of(attributes)
        file.write_text(json.dumps(metadata))


@pytest.mark.parametrize("key", ["../../../x", "/etc/passwd", "c/../../x", "c/0/0/0/", ""])
def test_refuses_a_ledger_that_leads_out(store, key):
    forge(store, "train/a/spikes", lambda metadata: metadata["attributes"].update(ledger={key: [1, 1]}))
    with pytest.raises(StoreError, match="its ledger is not as spk writes it"):
        open_store(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 3},
        {"frames": []},
        {"positions": [0]},
        {"spike_shape": [1]},
        {"arrays": None},
        {"spike_shape": "ab"},
    ],
)
def test_refuses_a_sequence_that_is_none(store, changes):
    forge(store, "train/a", lambda metadata: metadata["attributes"].update(changes))
    with pytest.raises(StoreError, match="not a sequence as spk writes it"):
        open_store(store).sequence("train", "a")


def test_refuses_a_table_of_another_length(store):
    attributes = {"frames": ["000", "001"], "positions": [0, 1]}
    forge(store, "train/a", lambda metadata: metadata["attributes"].update(attributes))
    sequence = open_store(store).sequence("train", "a")
    with pytest.raises(StoreError, match=r"int64 \(3, 2\) for 2 frames"):
        sequence.exposure  # noqa: B018


def test_refuses_links_and_pipes_in_a_store(store, tmp_path):
    shard = store / "train/a/spikes/c/0/0/0"
    shard.rename(tmp_path / "moved")
    shard.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match=f"{shard}: not an ordinary file"):
        open_store(store)
    shard.unlink()
    (tmp_path / "moved").rename(shard)
    (store / "train/a").rename(tmp_path / "a")
    (store / "train/a").symlink_to(tmp_path / "a")
    with pytest.raises(StoreError, match="a symbolic link in a store"):
        open_store(store)


def test_refuses_a_root_without_a_name(store):
    root = json.loads((store / "zarr.json").read_text())
    attributes = root["attributes"]
    del attributes["name"], attributes["checksum"]
    attributes["checksum"] = fingerprint_of(attributes)
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match="not the root of a store"):
        open_store(store)
