from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.images import image_size, read_rgb
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.store import open_store


def test_a_store_knows_its_threshold(made_raw: Path, tmp_path: Path, spk) -> None:
    store = tmp_path / "store"
    ingest(made_raw, store, read_manifest("simulated"), workers=1)
    facts = spk("preview", store, "-o", tmp_path / "a.png", "--sequence", "test/test_0000", "--json").json
    assert (facts["threshold"], facts["threshold_is"], facts["pictures"], facts["white"]) == (
        2.0,
        "known",
        6,
        1.0,
    )
    facts = spk("preview", store, "-o", tmp_path / "b.gif", "--method", "mean", "--json").json
    assert facts["pictures"] == open_store(store).sequence("train", "train_0000").num_frames == 3
    with Image.open(tmp_path / "b.gif") as image:
        assert image.n_frames == 3
    ran = spk("preview", store, "-o", tmp_path / "c.png", "--at", 20, "--threshold", 1)
    assert "1 picture of tfp: given threshold 1 x rate of spikes, 1 is white" in ran.out
    assert image_size(tmp_path / "c.png") == (48, 48)
    spk("preview", store, "-o", tmp_path / "d.png", "height=48").assert_fails(2, "a store knows")
    spk("preview", store, "-o", tmp_path / "d.png", "--sequence", "train/x").assert_fails(2, "train/x")


def test_a_simulated_file_is_read_with_what_lies_beside_it(made_raw: Path, tmp_path: Path, spk) -> None:
    folder = made_raw / "train" / "train_0000"
    command = ("preview", folder / "spikes.dat", "-o", tmp_path / "a.gif", "--format", folder / "format.yaml")
    facts = spk(*command, "--every", 4, "--fps", 10, "--start", 20, "--json").json
    assert facts["threshold_is"] == "known" and (facts["first"], facts["pictures"]) == (20, 7)
    ran = spk(*command, "--method", "tfi")
    assert "pixels lie in no interval and show the most light" in ran.out and "1 is white" in ran.out
    assert spk(*command, "--auto-contrast", "--json").json["white"] < 1
    spk(*command, "--sequence", "train/a").assert_fails(2, "goes with a store")


def test_the_real_gopro_stream_needs_nothing_said(shared_data: Path, tmp_path: Path, spk) -> None:
    path = shared_data / "gopro_spike_pair" / "000226.dat"
    ran = spk("preview", path, "-o", tmp_path / "a.png", "--at", 40)
    assert "assumed threshold 2" in ran.out and "88 frames of 360x640, as found" in ran.out
    grey = np.asarray(Image.open(path.with_name("000226_sharp.png")).convert("L"), float)
    error = read_rgb(tmp_path / "a.png")[0] - grey.reshape(360, 2, 640, 2).mean(axis=(1, 3))
    assert 20 * np.log10(255) - 10 * np.log10((error**2).mean()) >= 28.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "a.jpg"), ("a.jpg", "neither .png nor .gif")),
        (("-o", "a.gif", "--fps", 60), ("fps",)),
        (("-o", "a.png", "--threshold", 0), ("--threshold 0",)),
        (("-o", "a.png", "--at", 9999), ("no frame 9999",)),
        (("-o", "a.png", "--at", 3, "--method", "mean"), ("--at goes with",)),
        (("-o", "a.png", "--at", 3, "--every", 2), ("--at goes with",)),
        (("-o", "a.png", "--start", 40, "--stop", 30), ("no frames [40, 30)",)),
        (("-o", "a.png", "--every", 1, "--method", "tfi"), ("too many", ".gif")),
        (("-o", "a.png", "--method", "mean", "--window", 999), ("no whole window",)),
        (("-o", "a.png", "hieght=48"), ("give these or --format",)),
    ],
)
def test_refuses_by_name(options: tuple, words: tuple, made_raw: Path, tmp_path: Path, spk) -> None:
    folder = made_raw / "train" / "train_0000"
    options = tuple(tmp_path / word if word in ("a.png", "a.gif", "a.jpg") else word for word in options)
    spk("preview", folder / "spikes.dat", "--format", folder / "format.yaml", *options).assert_fails(
        2, *words
    )
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_is_not_there(tmp_path: Path, spk) -> None:
    spk("preview", tmp_path / "none.dat", "-o", tmp_path / "a.png").assert_fails(2, "no such file")
    spk("preview", tmp_path, "-o", tmp_path / "a.png").assert_fails(1, "no store here")


def test_says_what_a_reset_to_zero_does(made_raw: Path, tmp_path: Path, spk) -> None:
    path = tmp_path / "spikes.dat"
    path.write_bytes((made_raw / "train" / "train_0000" / "spikes.dat").read_bytes())
    (tmp_path / "camera.yaml").write_text("reset: zero")
    ran = spk("preview", path, "-o", tmp_path / "a.png", "height=48", "width=48")
    assert "resets to zero" in ran.out and "assumed threshold 2" in ran.out
