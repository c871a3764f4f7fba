"""Stores in an object store, from recordings to scores, by the command line, against a local S3 server."""

import pytest

from pipeline.storage.remote import RemoteStore


@pytest.fixture
def place(s3):
    return f"{s3}/data/set"


def files_of(store):
    return {
        path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()
    }


def objects_of(place):
    remote = RemoteStore.open(place)
    return {key: remote.get(key) for key in remote.sizes()}


def copies(cache):
    return [path for path in (cache / "shards").rglob("*") if path.is_file() and path.name != ".lock"]


def test_recordings_to_scores(place, spk, small_scenes, small_training, tmp_path, monkeypatch):
    cache = tmp_path / "spk-cache"
    assert spk("simulate", "scenes", *small_scenes, "-o", "raw").code == 0
    assert spk("ingest", "raw", "-o", "store", "-m", "simulated").code == 0
    assert spk("voxelize", "store", "--bins", "8").code == 0
    local = files_of(tmp_path / "store")
    limit = 2.5 * max(map(len, local.values()))
    monkeypatch.setenv("SPK_CACHE_GB", str(limit / 1e9))  # too little for what is read of the store

    ingested = spk("ingest", "raw", "-o", place, "-m", "simulated", "--json").json
    assert ingested["store"] == place and ingested["sequences"] == 4
    assert spk("voxelize", place, "--bins", "8", "--json").json["store"] == place
    mirrored = {path.name for path in (cache / "stores").rglob("*") if path.is_file()}
    assert mirrored == {"zarr.json", "remote.json", ".lock"}  # no shard is left

    assert objects_of(place) == local
    again = spk("voxelize", place, "--bins", "8", "--json").json
    assert (again["written"], again["skipped"]) == (0, 4)

    facts = spk("inspect", place, "--json").json
    assert facts["kind"] == "store" and facts["sequences"] == 4
    assert spk("preview", place, "-o", "strip.png").code == 0

    trained = spk("train", "tiny", f"store={place}", "voxels=k8", *small_training, "-o", "run", "--json").json
    assert trained["step"] == 4
    assert sum(path.stat().st_size for path in copies(cache)) <= limit < sum(map(len, local.values()))
    plain = spk("train", "tiny", "store=store", "voxels=k8", *small_training, "-o", "local", "--json").json
    assert (trained["loss"], trained["val_psnr"]) == (plain["loss"], plain["val_psnr"])
    scores = spk("evaluate", "run", "--json").json  # the run knows its store by the URL
    (frames,) = {one["frames"] for one in scores["protocols"].values()}
    assert frames == 3 and place in (tmp_path / "run" / "config.yaml").read_text()
    assert spk("evaluate", "local", place, "--json").json["protocols"] == scores["protocols"]
