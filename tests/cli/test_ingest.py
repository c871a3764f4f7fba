import json
from pathlib import Path

import pytest

from pipeline.store import open_store

KEYS = {"store", "sequences", "frames", "written", "skipped", "quarantined", "seconds"}


def test_reports_what_was_done_and_does_nothing_again(raw: Path, tmp_path: Path, spk) -> None:
    command = ("ingest", raw, "-o", tmp_path / "store", "-m", "simulated", "--json")
    first = spk(*command).json
    assert first.keys() >= KEYS and first["store"] == str(tmp_path / "store")
    assert (first["sequences"], first["frames"], first["skipped"], first["quarantined"]) == (4, 12, 0, [])
    again = spk(*command).json
    assert (again["written"], again["skipped"]) == (0, first["written"])
    assert spk(*command, "--overwrite").json["written"] == first["written"]


def test_a_dry_run_writes_nothing(raw: Path, tmp_path: Path, spk) -> None:
    command = ("ingest", raw, "-o", tmp_path / "store", "-m", "simulated")
    ran = spk(*command, "--dry-run")
    assert ran.code == 0 and "would write recordings of 4 sequences, 12 frames" in ran.out
    assert not (tmp_path / "store").exists()
    plan = spk(*command, "--dry-run", "--json").json
    assert plan["dry_run"] and plan["written"] == spk(*command, "--json").json["written"]


def test_says_how_to_go_on(raw: Path, tmp_path: Path, spk) -> None:
    ran = spk("ingest", raw, "-o", tmp_path / "store", "-m", "simulated")
    assert ran.code == 0 and f"next: spk voxelize {tmp_path / 'store'}" in ran.out
    assert "up to date" in spk("ingest", raw, "-o", tmp_path / "store", "-m", "simulated").out


@pytest.mark.parametrize("as_json", [True, False])
def test_frames_set_aside_are_listed_with_exit_code_3(as_json: bool, raw: Path, tmp_path: Path, spk) -> None:
    missing = raw / "train" / "train_0000" / "sharp" / "000001.png"
    missing.unlink()
    flags = ["--quarantine", *(["--json"] if as_json else [])]
    ran = spk("ingest", raw, "-o", tmp_path / "store", "-m", "simulated", *flags)
    assert ran.code == 3
    assert str(missing) in (ran.err if as_json else ran.out)
    if as_json:
        report = json.loads(ran.out)
        assert report["frames"] == 11 and report["quarantined"][0]["path"] == str(missing)
        assert "no such file" in report["quarantined"][0]["reason"]
    assert spk("voxelize", tmp_path / "store", "--bins", 4, "--json").json["frames"] == 11


def test_a_manifest_may_be_a_file(raw: Path, tmp_path: Path, spk) -> None:
    shipped = Path(__file__).parents[2] / "data_manifests" / "simulated.yaml"
    (tmp_path / "mine.yaml").write_text(shipped.read_text())
    ran = spk("ingest", raw, "-o", tmp_path / "store", "--manifest", tmp_path / "mine.yaml", "--json")
    assert ran.json["frames"] == 12


def test_settings_of_the_manifest_are_changed_by_words(raw: Path, tmp_path: Path, spk) -> None:
    command = ("ingest", raw, "-m", "simulated", "--dry-run", "-o", tmp_path / "store")
    spk(*command, "layout.sharp=null", 'layout.log="{sequence}/no.csv"').assert_fails(
        1, "no.csv", "alignment log"
    )
    spk(*command, "exposure.rule=lgo").assert_fails(2, "exposure.rule", "'lgo'")


def test_what_the_manifest_leaves_open_is_found(raw: Path, tmp_path: Path, spk) -> None:
    command = ("ingest", raw, "-m", "simulated", "-o", tmp_path / "store")
    settings = ("layout.format=null", "spikes={geometry: auto, rate_hz: 4000}", "splits={train: {}}")
    assert spk(*command, *settings, "--json").json["frames"] == 6
    store = open_store(tmp_path / "store")
    formats = [store.sequence(*key).attributes["format"] for key in store.sequence_keys]
    declared = {"height": 48, "width": 48, "rate_hz": "4000", "bit_order": "lsb", "flip": "vertical"}
    assert all(declared.items() <= found.items() for found in formats)
