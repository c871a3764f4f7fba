"""`spk verify` and what it says."""

from pipeline.ingest import ingest
from pipeline.manifest import read_manifest


def test_whole_damaged_and_json(spk, moving_raw, tmp_path):
    ingest(moving_raw, tmp_path / "store", read_manifest("simulated"))
    ran = spk("verify", tmp_path / "store")
    assert ran.code == 0 and "the sizes of" in ran.out and "--deep" in ran.out
    told = spk("verify", tmp_path / "store", "--deep", "--json").json
    assert told["ok"] and told["damaged"] == []
    shard = next((tmp_path / "store/train").rglob("blurry/c/0/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    assert spk("verify", tmp_path / "store").code == 0
    ran = spk("verify", tmp_path / "store", "--deep")
    assert ran.code == 4 and "blurry/c/0/0/0/0" in ran.out and "spk repair" in ran.out
    spk("verify", tmp_path / "nowhere").assert_fails(1, "no store here", "spk ingest")
