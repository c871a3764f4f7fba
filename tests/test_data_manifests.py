"""Every shipped manifest, on a small data set with the folders, names and lengths of the real one."""

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from pipeline.dat import write_dat
from pipeline.errors import AlignmentError, FormatError, UsageError
from pipeline.ingest import ingest
from pipeline.manifest import SHIPPED, Manifest, read_manifest
from pipeline.spike_format import SpikeFormat
from pipeline.store import open_store
from pipeline.video import open_video

SIZES = {"train": (24, 32), "val": (16, 24), "test": (24, 32)}
"""Small pictures; `val` differs where the manifest says that it does."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """What must be in the store, worked out by hand."""

    frames: list[str]
    exposure: list[list[int]]
    sharp_index: list[int]
    spikes: list[np.ndarray]
    positions: list[int] | None = None
    left_out: list[str] = field(default_factory=list)


@dataclass
class Small:
    """A data set being made at `root`, by the manifest with smaller spike frames."""

    root: Path
    manifest: Manifest
    expected: dict[str, Sequence] = field(default_factory=dict)

    def format(self, split: str) -> SpikeFormat:
        return self.manifest.format_of(split) or SpikeFormat(height=24, width=32, rate_hz=1920)

    def spikes(self, path: str, num_frames: int, split: str = "train") -> np.ndarray:
        """Write a stream of a smooth picture that gets brighter, seen by counters without noise."""
        fmt = self.format(split)
        y, x = np.mgrid[: fmt.height, : fmt.width]
        phase = len(path) + sum(path.encode()) % 7
        rate = 0.3 + 0.2 * np.sin(y / 5 + phase) * np.cos(x / 7)
        light = np.arange(num_frames + 1)[:, None, None] * rate
        frames = np.diff(np.floor(light), axis=0).astype(np.uint8)
        write_dat(self.root / path, frames, fmt)
        return frames

    def image(self, path: str, split: str = "train", scale: int | None = None) -> None:
        """Write a picture that no other path has."""
        fmt, factor = self.format(split), scale or int(self.manifest.scale)
        image = np.random.default_rng(list(path.encode())).integers(
            0, 256, (3, fmt.height * factor, fmt.width * factor), np.uint8
        )
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image.transpose(1, 2, 0))
        if path.endswith(".jpg"):
            picture = picture.resize((4, 4)).resize(picture.size, Image.BICUBIC)
        picture.save(self.root / path)


def small(name: str, root: Path) -> Small:
    manifest = read_manifest(name)
    spikes = manifest.spikes and replace(manifest.spikes, height=24, width=32)
    by_split = {
        split: replace(fmt, height=SIZES[split][0], width=SIZES[split][1])
        for split, fmt in manifest.split_spikes.items()
    }
    return Small(root, replace(manifest, spikes=spikes, split_spikes=by_split))


def gopro_spike(made: Small) -> None:
    """n raw frames of 8 spike frames; the last file 7 short; sharp at 8 (n // 2): 24, 40, 48."""
    for split, name, lengths, exposure, sharp in (
        ("train", "GOPR0372_07_00", (56, 56, 49), [[0, 56], [56, 112], [112, 161]], [24, 80, 136]),
        ("train", "GOPR0378_13_00", (104, 104, 97), [[0, 104], [104, 208], [208, 305]], [48, 152, 256]),
        ("test", "GOPR0384_11_00", (88, 88, 81), [[0, 88], [88, 176], [176, 257]], [40, 128, 216]),
    ):
        frames = ["000004", "000011", "000018"]
        streams = []
        for frame, length in zip(frames, lengths, strict=True):
            folder = f"GOPRO_Large_spike_seq/{split}/{name}/spike"
            streams.append(made.spikes(f"{folder}/{frame}.dat", length))
            for kind in ("blur", "blur_gamma", "sharp"):
                made.image(f"GOPRO_Large/{split}/{name}/{kind}/{frame}.png")
        made.expected[f"{split}/{name}"] = Sequence(
            frames=frames, exposure=exposure, sharp_index=sharp, spikes=streams
        )
    (made.root / "GOPRO_Large_spike_seq/config.yaml").write_text("spike_h: 250\nspike_w: 400\n")


def base4(spike_frame: int) -> str:
    """X4K names: raw frame, and which of the three between it and the next."""
    raw, quarter = divmod(spike_frame, 4)
    return f"{raw:04d}" + (f"_{quarter - 1:03d}" if quarter else "")


def x4k(made: Small, length: int, centres: range) -> None:
    for split, clip in (("train", "002/occ008.320_f2881"), ("val", "Type1/TEST01_003_f0433")):
        stream = made.spikes(f"{split}_spike_2xds/{clip}/spike.dat", 257, split)
        for frame in (base4(k) for k in centres):
            made.image(f"{split}_blurry_{length}/{clip}/{frame}.png", split)
        for k in range(centres[0], centres[-1] + 1):
            if k % 5 == centres[0] % 5:  # more sharp frames than blurry ones
                made.image(f"{split}_fullRGB/{clip}/{base4(k)}.png", split)
        half = length // 2
        made.expected[f"{split}/{clip.replace('/', '__')}"] = Sequence(
            frames=[base4(k) for k in centres],
            exposure=[[k - half, k + half + 1] for k in centres],
            sharp_index=list(centres),
            spikes=[stream],
        )


def x4k1000fps(made: Small) -> None:
    """15 windows of 33, centres every 15 from 16."""
    assert [base4(28), base4(31)] == ["0007", "0007_002"]
    x4k(made, 33, range(16, 227, 15))
    assert len(made.expected["train/002__occ008.320_f2881"].frames) == 15


def x4k1000fps_65(made: Small) -> None:
    """13 windows of 65, centres every 15 from 32."""
    x4k(made, 65, range(32, 213, 15))
    assert len(made.expected["train/002__occ008.320_f2881"].frames) == 13


def unified(made: Small) -> None:
    """One log; its seconds are spike frames by the thousand: (31 - 16) / 1000 to (31 + 16) / 1000."""
    rows = ["frame_idx,t0,t1,event_count,seq"]
    for split, name in (("train", "002/occ008"), ("val", "Type1/TEST01")):
        stream = made.spikes(f"{split}/{name}/spike/spike.dat", 257, split)
        for k in (16, 31, 46):
            for kind in ("blur", "sharp"):
                made.image(f"{split}/{name}/{kind}/{base4(k)}.png", split, scale=2)
            rows.append(f"{k},{(k - 16) / 1000:.6f},{(k + 16) / 1000:.6f},812345,{split}/{name}")
        made.expected[f"{split}/{name.replace('/', '__')}"] = Sequence(
            frames=["0004", "0007_002", "0011_001"],
            exposure=[[0, 32], [15, 47], [30, 62]],
            sharp_index=[16, 31, 46],
            spikes=[stream],
        )
    (made.root / "align_x4k.txt").write_text("\n".join(rows) + "\n")


def ssdm_gopro(made: Small) -> None:
    """137 = 20 + 97 + 20 spike frames to a file; the first blurry frame, and here the last, have none."""
    for split, name in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00")):
        for frame in ("000006", "000019", "000032", "000045"):
            for kind in ("blur_data", "sharp_data"):
                made.image(f"GOPRO/{split}/{kind}/{name}/{frame}.png")
        made.expected[f"{split}/{name}"] = Sequence(
            frames=["000019", "000032"],
            exposure=[[20, 117], [157, 254]],
            sharp_index=[68, 205],
            positions=[1, 2],
            left_out=["000006", "000045"],
            spikes=[
                made.spikes(f"GOPRO/{split}/spike_data/{name}/{frame}.dat", 137)
                for frame in ("000019", "000032")
            ],
        )


def rsb(made: Small) -> None:
    streams = [made.spikes(f"spike_data/street/{frame}.dat", 200 + k) for k, frame in enumerate(("1", "2"))]
    for frame in ("1", "2"):
        made.image(f"blur_data/street/{frame}.jpg")
    made.expected["test/street"] = Sequence(
        frames=["1", "2"], exposure=[[0, 200], [200, 401]], sharp_index=[-1, -1], spikes=streams
    )


def hybrid_rig(made: Small) -> None:
    """20000 Hz: 50 us to a spike frame. The stamps of the second frame are 10 us and 5 us off the frames' edges."""
    stream = made.spikes("walk/spikes.dat", 400)
    made.expected["test/walk"] = Sequence(
        frames=["000000", "000001", "000002"],
        exposure=[[0, 100], [120, 220], [240, 400]],
        sharp_index=[-1, -1, -1],
        spikes=[stream],
    )
    rows = ["frame,start_us,stop_us", "000000,0,5000", "000001,6010,10995", "000002,12000,20000"]
    (made.root / "walk/exposures.csv").write_text("\n".join(rows) + "\n")


def simulated(made: Small) -> None:
    stream = made.spikes("val/000/spikes.dat", 60)
    (made.root / "val/000/format.yaml").write_text("{height: 24, width: 32, rate_hz: 1920}\n")
    for frame in ("000000", "000001"):
        for kind in ("blurry", "sharp"):
            made.image(f"val/000/{kind}/{frame}.png", scale=2)
    rows = ["frame,start_ns,stop_ns", "000000,0,12500000", "000001,16666667,29166667"]
    (made.root / "val/000/exposures.csv").write_text("\n".join(rows) + "\n")
    made.expected["val/000"] = Sequence(
        frames=["000000", "000001"], exposure=[[0, 24], [32, 56]], sharp_index=[12, 44], spikes=[stream]
    )


def sreds(made: Small) -> None:
    """Frames count from 1: id 21 is spike frame 20, the middle of 41."""
    stream = made.spikes("test/spike/000_part1_key_id21.dat", 41)
    made.image("test/gt/000_part1_key_id21.png")
    made.expected["test/000_part1"] = Sequence(
        frames=["21"], exposure=[[0, 41]], sharp_index=[20], spikes=[stream]
    )


def sreds_pairs(made: Small) -> None:
    stream = made.spikes("203_part1_key_id151.dat", 301)
    made.image("203_part1_key_id151.png")
    made.expected["train/203_part1"] = Sequence(
        frames=["151"], exposure=[[102, 199]], sharp_index=[150], spikes=[stream]
    )


def gopro_pair(made: Small) -> None:
    stream = made.spikes("000226.dat", 88)
    made.image("000226_sharp.png")
    made.expected["train/gopro_pair"] = Sequence(
        frames=["000226"], exposure=[[0, 88]], sharp_index=[40], spikes=[stream]
    )


IMAGED = (gopro_spike, x4k1000fps, x4k1000fps_65, unified, ssdm_gopro, rsb, hybrid_rig, simulated)
MAKERS = {make.__name__: make for make in (*IMAGED, sreds, sreds_pairs, gopro_pair)}


@pytest.fixture
def make(tmp_path, request):
    def made_of(name: str) -> Small:
        made = small(name, tmp_path / "raw")
        made.root.mkdir()
        MAKERS[name](made)
        if name == "hybrid_rig":
            request.getfixturevalue("write_video")(
                made.root / "walk/rgb.mp4", pictures(3), "mpeg4", "yuv420p"
            )
        return made

    return made_of


def pictures(num_frames: int) -> np.ndarray:
    """(N, 3, 96, 128): four times the spikes' size, each with a bar elsewhere."""
    frames = np.full((num_frames, 3, 96, 128), 60, np.uint8)
    for k, frame in enumerate(frames):
        frame[0, :, 20 * k : 20 * k + 16] = 220
    return frames


def test_every_shipped_manifest_is_tried_here():
    assert set(MAKERS) == {path.stem for path in SHIPPED.glob("*.yaml")}


@pytest.mark.parametrize("name", MAKERS)
def test_the_data_set_of_a_manifest_goes_into_a_store(name, make, tmp_path):
    made, out = make(name), tmp_path / "store"
    report = ingest(made.root, out, made.manifest, workers=2)
    store, group = open_store(out), zarr.open_group(out, mode="r")
    assert {"/".join(key) for key in store.sequence_keys} == set(made.expected)
    assert report.quarantined == () and report.frames == sum(
        len(one.frames) for one in made.expected.values()
    )
    for key, expected in made.expected.items():
        found = group[key]
        assert found.attrs["frames"] == expected.frames
        assert found["exposure"][:].tolist() == expected.exposure
        assert found["sharp_index"][:].tolist() == expected.sharp_index
        assert found.attrs["positions"] == (expected.positions or list(range(len(expected.frames))))
        assert found.attrs["left_out"] == expected.left_out
        spikes = np.concatenate(expected.spikes)
        unpacked = np.unpackbits(found["spikes"][:], axis=2, count=spikes.shape[2], bitorder="little")
        np.testing.assert_array_equal(unpacked, spikes)
        assert ("sharp" in found) == (max(expected.sharp_index) >= 0)


@pytest.mark.parametrize(
    ("name", "key", "patterns"),
    [
        ("gopro_spike", "test/GOPR0384_11_00", ("GOPRO_Large/{}/blur/{}.png", "GOPRO_Large/{}/sharp/{}.png")),
        ("ssdm_gopro", "train/GOPR0372_07_00", ("GOPRO/train/blur_data/GOPR0372_07_00/{1}.png", None)),
        ("rsb", "test/street", ("blur_data/street/{1}.jpg", None)),
    ],
)
def test_every_frame_has_its_own_images(name, key, patterns, make, tmp_path):
    made, out = make(name), tmp_path / "store"
    ingest(made.root, out, made.manifest)
    found = zarr.open_group(out, mode="r")[key]
    for kind, pattern in zip(("blurry", "sharp"), patterns, strict=True):
        for k, frame in enumerate(made.expected[key].frames if pattern else ()):
            path = made.root / pattern.format(key, frame)
            np.testing.assert_array_equal(found[kind][k], np.array(Image.open(path)).transpose(2, 0, 1))


def test_no_shipped_data_set_without_sharp_frames_can_be_trained_on():
    without = {name for name in MAKERS if read_manifest(name).layout.sharp is None}
    assert without == {"rsb", "hybrid_rig"}
    assert all(list(read_manifest(name).splits) == ["test"] for name in without)


@pytest.mark.parametrize(
    ("name", "path", "length", "reason"),
    [
        ("gopro_spike", "GOPRO_Large_spike_seq/train/GOPR0372_07_00/spike/000011.dat", 49, "expected 56"),
        (
            "gopro_spike",
            "GOPRO_Large_spike_seq/test/GOPR0384_11_00/spike/000018.dat",
            80,
            "expected 81 or 88",
        ),
        ("ssdm_gopro", "GOPRO/test/spike_data/GOPR0384_11_00/000032.dat", 136, "expected 137"),
        ("ssdm_gopro", "GOPRO/test/spike_data/GOPR0384_11_00/000019.dat", 97, "expected 137"),
        (
            "x4k1000fps",
            "train_spike_2xds/002/occ008.320_f2881/spike.dat",
            240,
            "ends after the recording of 240",
        ),
    ],
)
def test_a_file_of_another_length_is_refused(name, path, length, reason, make, tmp_path):
    made = make(name)
    made.spikes(path, length)
    with pytest.raises(AlignmentError, match=rf"{reason}"):
        ingest(made.root, tmp_path / "store", made.manifest)
    assert not (tmp_path / "store").exists()


def test_what_is_left_out_is_said(make, tmp_path, caplog):
    made = make("ssdm_gopro")
    with caplog.at_level(logging.WARNING):
        ingest(made.root, tmp_path / "store", made.manifest)
    assert "4 frames without a spike file are left out" in caplog.text
    assert (
        "train/GOPR0372_07_00/000006, train/GOPR0372_07_00/000045, test/GOPR0384_11_00/000006" in caplog.text
    )


def test_a_sequence_outside_the_official_split_is_said(make, tmp_path, caplog):
    made = make("gopro_spike")
    (made.root / "GOPRO_Large/train/GOPR0372_07_00").rename(made.root / "GOPRO_Large/train/GOPR9999_07_00")
    old = made.root / "GOPRO_Large_spike_seq/train/GOPR0372_07_00"
    old.rename(old.with_name("GOPR9999_07_00"))
    with caplog.at_level(logging.WARNING):
        report = ingest(made.root, tmp_path / "store", made.manifest)
    assert report.sequences == 2 and "1 sequences are in no split: GOPR9999_07_00" in caplog.text


def test_a_rig_s_video_is_decoded_frame_by_frame(make, tmp_path):
    made, out = make("hybrid_rig"), tmp_path / "store"
    report = ingest(made.root, out, made.manifest)
    found = zarr.open_group(out, mode="r")["test/walk"]
    decoded = np.stack(list(open_video(made.root / "walk/rgb.mp4").read(0, 3)))
    np.testing.assert_array_equal(found["blurry"][:], decoded)
    assert np.abs(decoded.astype(int) - pictures(3)).mean() < 12  # the bars are where they were drawn
    assert found["exposure_ns"][:].tolist() == [
        [0, 5_000_000],
        [6_010_000, 10_995_000],
        [12_000_000, 20_000_000],
    ]
    assert found["blurry"].attrs["video"] == "mpeg4 yuv420p, BT.601, not declared"
    video = made.root / "walk/rgb.mp4"
    state = ["walk/rgb.mp4", video.stat().st_size, video.stat().st_mtime_ns]
    assert found.attrs["sources"][1:] == [state]
    assert ingest(made.root, out, made.manifest).written == 0
    os.utime(video, ns=(5, 5))
    assert (
        ingest(made.root, out, made.manifest).written == 3 and report.written == 5
    )  # and the fits to the spikes


@pytest.mark.parametrize("per_shard", [1, 2, 5])
def test_shards_of_a_video_are_those_of_one_pass(make, tmp_path, write_video, monkeypatch, per_shard):
    made = make("hybrid_rig")
    write_video(made.root / "walk/rgb.mp4", pictures(12), "libx264", "yuv420p", group=4)
    rows = [f"{k:06d},{1500 * k},{1500 * k + 1000}" for k in range(12)]
    (made.root / "walk/exposures.csv").write_text("\n".join(["frame,start_us,stop_us", *rows]))
    monkeypatch.setattr("pipeline.storage.shards.TARGET_SHARD_BYTES", per_shard * 3 * 96 * 128)
    ingest(made.root, tmp_path / "store", made.manifest, workers=2)
    found = zarr.open_group(tmp_path / "store", mode="r")["test/walk/blurry"]
    assert found.shards[0] == per_shard
    np.testing.assert_array_equal(
        found[:], np.stack(list(open_video(made.root / "walk/rgb.mp4").read(0, 12)))
    )


@pytest.mark.parametrize(
    ("num_frames", "reason"), [(2, "000002 of test/walk has no image"), (4, "000003 .*no row")]
)
def test_a_video_and_a_log_of_different_lengths_are_refused(make, tmp_path, write_video, num_frames, reason):
    made = make("hybrid_rig")
    write_video(made.root / "walk/rgb.mp4", pictures(num_frames), "mpeg4", "yuv420p")
    with pytest.raises(AlignmentError, match=reason):
        ingest(made.root, tmp_path / "store", made.manifest)


def test_a_video_of_the_wrong_size_or_cut_short_is_refused(make, tmp_path, write_video):
    made = make("hybrid_rig")
    write_video(made.root / "walk/rgb.mp4", pictures(3)[..., :90], "mpeg4", "yuv420p")
    with pytest.raises(FormatError, match=r"rgb\.mp4 frame 0: 96x90 is not a whole multiple of the 24x32"):
        ingest(made.root, tmp_path / "store", made.manifest)
    path = write_video(made.root / "walk/rgb.mp4", pictures(3), "mpeg4", "yuv420p")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match=r"rgb\.mp4"):
        ingest(made.root, tmp_path / "store", made.manifest)


def test_a_sharp_video_that_is_the_blurry_one_is_refused(make, tmp_path):
    made = make("hybrid_rig")
    (made.root / "walk/sharp.mp4").write_bytes((made.root / "walk/rgb.mp4").read_bytes())
    with_sharp = replace(made.manifest, layout=replace(made.manifest.layout, sharp="{sequence}/sharp.mp4"))
    with pytest.raises(FormatError, match=r"sharp\.mp4 frame 0: the sharp frame has the very pixels"):
        ingest(made.root, tmp_path / "store", with_sharp)


@pytest.mark.parametrize("where", ["frame", "folder", "stream"])
def test_links_out_of_the_root_are_refused_and_not_read(where, make, tmp_path):
    made = make("rsb")
    inside = {
        "frame": made.root / "blur_data/street/1.jpg",
        "folder": made.root / "blur_data/street",
        "stream": made.root / "spike_data/street/2.dat",
    }[where]
    outside = tmp_path / f"outside_{inside.name}"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(UsageError, match=r"leads out of"):
        ingest(made.root, tmp_path / "store", made.manifest)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("where", ["blur_data/street/1.jpg", "blur_data/around", "spike_data/street/1.dat"])
def test_links_in_a_circle_are_refused(where, make, tmp_path):
    made = make("rsb")
    (made.root / where).unlink(missing_ok=True)
    (made.root / where).symlink_to((made.root / where).name)
    with pytest.raises((UsageError, FormatError), match="cannot be followed"):
        ingest(made.root, tmp_path / "store", made.manifest)


def test_folders_nested_without_end_are_refused(make, tmp_path):
    made = make("rsb")
    made.root.joinpath("blur_data", *"d" * 300).mkdir(parents=True)
    with pytest.raises(FormatError, match="64 folders deep"):
        ingest(made.root, tmp_path / "store", made.manifest)


def test_a_link_to_a_folder_above_is_refused(make, tmp_path):
    made = make("rsb")
    (made.root / "blur_data/street/up").symlink_to(made.root)
    with pytest.raises(FormatError, match="links to"):
        ingest(made.root, tmp_path / "store", made.manifest)
