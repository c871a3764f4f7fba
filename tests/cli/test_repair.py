"""`spk repair` and what it says."""

import json
import shutil

from pipeline.ingest import ingest
from pipeline.manifest import read_manifest


def test_repairs_says_so_and_refuses_without_the_recordings(spk, moving_raw, tmp_path):
    raw, store = shutil.copytree(moving_raw, tmp_path / "raw"), tmp_path / "store"
    ingest(raw, store, read_manifest("simulated"))
    assert "nothing is damaged" in spk("repair", store).out
    shard = next((store / "train").rglob("spikes/c/0/0/0"))
    whole = shard.read_bytes()
    shard.unlink()
    ran = spk("repair", store)
    assert ran.code == 0 and "1 file repaired" in ran.out and shard.read_bytes() == whole
    shard.unlink()
    raw.rename(tmp_path / "away")
    ran = spk("repair", store, "--json")
    assert ran.code == 4 and not json.loads(ran.out)["ok"] and len(json.loads(ran.out)["damaged"]) == 1
    assert "--raw" in ran.err
    assert spk("repair", store, "--raw", tmp_path / "away", "--json").json["repaired"]
