"""Stores in an object store, from recordings to scores, by the command line, against a local S3 server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.storage.remote import RemoteStore
from tests.s3_server import CuttingProxy

REPOSITORY = Path(__file__).parents[1]


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


@pytest.mark.parametrize("uploaded", [1, 9])
def test_a_process_that_is_killed_goes_on_where_it_was(place, spk, small_scenes, tmp_path, uploaded):
    assert spk("simulate", "scenes", *small_scenes, "-o", "raw").code == 0
    assert spk("ingest", "raw", "-o", "store", "-m", "simulated").code == 0
    command = [sys.executable, "-m", "cli", "ingest", str(tmp_path / "raw"), "-o", place, "-m", "simulated"]
    killed = subprocess.Popen([*command, "--workers", "1"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    remote = RemoteStore.open(place)
    while len(remote.sizes(".spk/building")) < uploaded:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert ".spk/lock" in remote.sizes()
    resumed = spk("ingest", "raw", "-o", place, "-m", "simulated", "--json").json
    assert resumed["skipped"] >= uploaded - 1 and resumed["written"] > 0
    assert objects_of(place) == files_of(tmp_path / "store")


def test_a_server_that_is_gone_for_a_while_costs_one_command(
    place, spk, small_scenes, s3_server, tmp_path, monkeypatch
):
    assert spk("simulate", "scenes", *small_scenes, "-o", "raw").code == 0
    assert spk("ingest", "raw", "-o", "store", "-m", "simulated").code == 0
    proxy = CuttingProxy(s3_server.port, after=0, cuts=0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    put, uploaded = RemoteStore.put, []

    def put_until_it_breaks(self, key, data):
        uploaded.append(key)
        proxy.cuts = 10**6 if len(uploaded) > 5 else 0
        put(self, key, data)

    monkeypatch.setattr(RemoteStore, "put", put_until_it_breaks)
    ingest = ("ingest", "raw", "-o", place, "-m", "simulated")
    spk(*ingest).assert_fails(1, f"{place}/.spk/", "AWS_ENDPOINT_URL", "it resumes")
    spk("voxelize", place).assert_fails(1, f"{place}/zarr.json")
    monkeypatch.setattr(RemoteStore, "put", put)
    proxy.cuts = 0
    assert spk(*ingest, "--json").json["skipped"] >= 4
    assert objects_of(place) == files_of(tmp_path / "store")
    proxy.close()


def test_without_a_store_it_says_how_to_make_one(place, spk):
    for command in (("voxelize", place), ("verify", place), ("train", "tiny", f"store={place}", "-o", "run")):
        spk(*command).assert_fails(1, f"{place}: no store here", f"spk ingest RAW -o {place}")
    spk("inspect", "s3://no").assert_fails(2, "s3:/no: not a place in an object store", "s3://BUCKET/NAME")
