"""The verb deblur on a simulated recording, with small networks of known weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.deblur import deblur
from model.deblurring.config import DeblurConfig
from pipeline.errors import SpkError, UsageError
from pipeline.images import read_rgb
from pipeline.own_settings import OwnFiles

CONFIG = DeblurConfig(num_frames=3, overlap_frames=1)


@pytest.fixture
def checkpoint(tmp_path: Path, tiny: Any, saved: Any) -> Path:
    path = tmp_path / "network.safetensors"
    saved(path, tiny())
    return path


@pytest.fixture
def own(moving_raw: Path) -> OwnFiles:
    folder = moving_raw / "test" / "test_0000"
    files = {"video": folder / "blurry", "spikes": folder / "spikes.dat", "log": folder / "exposures.csv"}
    return OwnFiles(**files, settings=("rate_hz=4000",))


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_an_interrupted_restoration_goes_on_to_the_same_bytes(checkpoint, own, tmp_path):
    whole = deblur(checkpoint, own, tmp_path / "whole", CONFIG)
    assert (whole.frames, whole.written, whole.tiling.tile) == (5, 5, None)

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        deblur(checkpoint, own, out, CONFIG, progress=stop)
    assert len(bytes_in(out)) == 4 and not json.loads((out / "deblur.json").read_text())["finished"]
    with pytest.raises(UsageError, match="not empty"):
        deblur(checkpoint, own, out, CONFIG)
    with pytest.raises(UsageError, match=r"settings\.num_frames: 3, now 2"):
        deblur(checkpoint, own, out, DeblurConfig(num_frames=2), resume=True)
    assert deblur(checkpoint, own, out, CONFIG, resume=True).written == 3
    assert bytes_in(out) == bytes_in(tmp_path / "whole")
    record = (out / "deblur.json").read_text()
    assert deblur(checkpoint, own, out, CONFIG, resume=True).written == 0
    assert (out / "deblur.json").read_text() == record
    (out / "deblur.json").write_text(record.replace('"finished": true', '"finished": false'))
    assert deblur(checkpoint, own, out, CONFIG, resume=True).written == 0  # stopped just before the record
    assert json.loads((out / "deblur.json").read_text())["finished"]


def test_the_record_tells_what_was_made_of_what(checkpoint, own, tmp_path):
    report = deblur(checkpoint, own, tmp_path / "out", CONFIG, side_by_side=False)
    assert not (tmp_path / "out" / "side_by_side").exists() and report.side_by_side is None
    record = json.loads(report.record.read_text())
    assert record["finished"] and record["checkpoint"]["step"] == 7
    assert record["checkpoint_file"] == str(checkpoint)
    assert record["checkpoint"]["digest"].startswith("sha256:")
    assert record["inputs"]["spikes"]["bytes"] == own.spikes.stat().st_size
    assert record["tiling"]["num_frames"] == 3 and record["seconds"] > 0 and record["peak_bytes"] > 1e6
    assert record["physics"]["cause"] is None and len(record["physics"]["r2"]) == 5
    first = record["frames"][0]
    start, stop = first["exposure"]
    assert stop - start == 32 and first["instants"] == [(start + stop) / 2]
    assert first["instants_ns"] == [round(sum(first["exposure_ns"]) / 2)]


def test_a_dry_run_writes_nothing(checkpoint, own, tmp_path):
    report = deblur(checkpoint, own, tmp_path / "out", dry_run=True)
    assert (report.frames, report.written, report.tiling) == (5, 5, None)
    assert not (tmp_path / "out").exists()


def test_one_output_for_every_instant(checkpoint, own, tmp_path, monkeypatch):
    """With a network that makes frames the brighter the later they are."""
    from model import deblur as verb

    class Later:
        takes_spikes, num_frames = True, 3

        def __init__(self, place, info) -> None:
            self.place, self.info = place, info

        def __call__(self, blurry, counts, instants):
            return blurry * 0.0 + instants[..., None, None, None]

    info = verb.find_info(checkpoint)
    info.config["network"]["instants"] = True
    monkeypatch.setattr(verb, "find_info", lambda path: info)
    monkeypatch.setattr(verb, "load_restorer", lambda path, place: Later(place, info))
    report = deblur(checkpoint, own, tmp_path / "out", at=(0.2, 0.6))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names[:3] == ["000000_at0.20.png", "000000_at0.60.png", "000001_at0.20.png"] and len(names) == 10
    assert np.unique(read_rgb(tmp_path / "out" / names[0])).tolist() == [51]
    assert np.unique(read_rgb(tmp_path / "out" / names[1])).tolist() == [153]
    frame = json.loads(report.record.read_text())["frames"][2]
    start, _ = frame["exposure"]
    assert frame["instants"] == pytest.approx([start + 0.2 * 32, start + 0.6 * 32])


def test_a_network_of_one_instant_refuses_others(checkpoint, own, tmp_path):
    with pytest.raises(UsageError, match="none that --at names"):
        deblur(checkpoint, own, tmp_path / "out", at=(0.2,))


def test_out_of_memory_is_explained(checkpoint, own, tmp_path, monkeypatch):
    def starving(*_):
        torch.empty(1 << 50, dtype=torch.uint8)

    monkeypatch.setattr("model.restorer.Restorer.__call__", starving)
    with pytest.raises(SpkError, match="out of memory even with tiles of 64") as caught:
        deblur(checkpoint, own, tmp_path / "out")
    assert "num_frames=3" in caught.value.fix
