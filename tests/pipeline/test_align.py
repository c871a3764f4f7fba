import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.align import align_recording
from pipeline.config import build
from pipeline.dat import open_spikes, write_dat
from pipeline.errors import AlignmentError
from pipeline.images import read_rgb, write_png
from pipeline.manifest import Manifest, read_manifest
from pipeline.recordings import Recording, find_recordings
from pipeline.spike_format import SpikeFormat

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside this checkout")
FORMAT = SpikeFormat(height=2, width=8, rate_hz=1000)


def make(
    folder: Path,
    lengths,
    frames,
    exposure,
    *,
    listed=None,
    source_name="s",
    has_sharp=True,
    log="",
    **changes,
):
    """A recording whose spike files have the given lengths, its manifest and its opened streams."""
    folder.mkdir(exist_ok=True)
    paths = tuple(folder / f"{k}.dat" for k in range(len(lengths)))
    for path, length in zip(paths, lengths, strict=True):
        write_dat(path, np.zeros((length, 2, 8), np.uint8), FORMAT)
    by_frame = "/{frame}" if len(lengths) > 1 else ""
    layout = {"spikes": "{sequence}" + by_frame + ".dat", "blurry": "{sequence}/{frame}.png"}
    log_path = None
    if exposure["rule"] == "log":
        log_path = folder / "log.csv"
        log_path.write_text(log)
        layout["log"] = "log.csv"
    values = {"name": "test", "layout": layout, "exposure": exposure, "splits": {"train": {}}}
    values["spikes"] = {"height": 2, "width": 8, "rate_hz": 1000}
    recording = Recording(
        split="train",
        sequence="s",
        source_name=source_name,
        spike_paths=paths,
        listed=tuple(listed or frames),
        frames=tuple(frames),
        blurry_paths=tuple(folder / f"{frame}.png" for frame in frames),
        sharp_paths=tuple(folder / f"sharp{frame}.png" if has_sharp else None for frame in frames),
        log_path=log_path,
        format=FORMAT,
    )
    streams = [open_spikes(path, FORMAT) for path in paths]
    return recording, build(Manifest, values | changes, "test"), streams


def reasons(alignment) -> list[str]:
    return [problem.reason for problem in alignment.problems]


def test_whole_files_follow_one_another(tmp_path):
    alignment = align_recording(*make(tmp_path, [5, 4, 6], "abc", {"rule": "whole_file"}))
    assert alignment.frames == ("a", "b", "c")
    assert alignment.exposure.tolist() == [[0, 5], [5, 9], [9, 15]]
    assert alignment.exposure_ns.tolist() == [[0, 5_000_000], [5_000_000, 9_000_000], [9_000_000, 15_000_000]]
    assert alignment.sharp_index.tolist() == [2, 7, 12]
    assert alignment.exposure.dtype == alignment.exposure_ns.dtype == alignment.sharp_index.dtype == np.int64
    assert alignment.problems == ()


def test_whole_file_needs_one_file_per_frame(tmp_path):
    with pytest.raises(AlignmentError, match="1 spike files for 2 frames"):
        align_recording(*make(tmp_path, [5], "ab", {"rule": "whole_file"}))


@pytest.mark.parametrize(("n", "sharp"), [(7, 24), (11, 40), (13, 48)])
def test_the_gopro_sharp_frame_is_raw_frame_n_over_2(tmp_path, n, sharp):
    shipped = read_manifest("gopro_spike")
    exposure = {
        "rule": "whole_file",
        "raw_frames": {"pattern": shipped.exposure.raw_frames.pattern, "spike_frames": 8, "last_short": 7},
    }
    made = make(
        tmp_path,
        [8 * n, 8 * n, 8 * n - 7],
        "abc",
        exposure,
        source_name=f"GOPR0372_{n:02d}_00",
        sharp={"rule": "raw_frames"},
    )
    alignment = align_recording(*made)
    assert alignment.sharp_index.tolist() == [sharp, 8 * n + sharp, 16 * n + sharp]
    assert alignment.exposure[-1].tolist() == [16 * n, 24 * n - 7]
    assert alignment.problems == ()


def test_only_the_last_gopro_file_may_be_short(tmp_path):
    exposure = {
        "rule": "whole_file",
        "raw_frames": {"pattern": r"_(\d+)_", "spike_frames": 8, "last_short": 7},
    }
    made = make(tmp_path, [88, 81, 80], "abc", exposure, source_name="GOPR0384_11_00")
    alignment = align_recording(*made)
    assert alignment.frames == ("a",)
    assert reasons(alignment) == [
        "81 spike frames, expected 88 (11 raw frames of 8)",
        "80 spike frames, expected 81 or 88 (11 raw frames of 8)",
    ]
    assert alignment.problems[0].path == str(tmp_path / "b.png")


def test_a_sequence_without_its_number_is_set_aside(tmp_path):
    exposure = {"rule": "whole_file", "raw_frames": {"pattern": r"_(\d+)_", "spike_frames": 8}}
    alignment = align_recording(*make(tmp_path, [8, 8], "ab", exposure, source_name="plain"))
    assert alignment.frames == ()
    assert alignment.exposure.shape == (0, 2)
    assert "sequence 'plain' has no number" in reasons(alignment)[0]


def test_centred_windows_hold_the_frame_in_their_middle(tmp_path):
    made = make(tmp_path, [257], ["0004", "0007_002", "0060"], {
        "rule": "centred", "window": 33, "numbering": {"per_number": 4},
    })  # fmt: skip
    alignment = align_recording(*made)
    assert alignment.exposure.tolist() == [[0, 33], [15, 48], [224, 257]]
    assert alignment.sharp_index.tolist() == [16, 31, 240]


def test_windows_that_leave_the_recording_are_set_aside_not_clipped(tmp_path):
    made = make(tmp_path, [41], ["7", "14", "21", "28", "35"], {
        "rule": "centred", "window": 20, "numbering": {"offset": -1},
    })  # fmt: skip
    alignment = align_recording(*made)
    assert alignment.frames == ("14", "21", "28")
    assert alignment.exposure.tolist() == [[3, 23], [10, 30], [17, 37]]
    assert alignment.sharp_index.tolist() == [13, 20, 27]
    assert reasons(alignment) == [
        "exposure of spike frames [-4, 16) begins before the recording of 41",
        "exposure of spike frames [24, 44) ends after the recording of 41",
    ]


def test_every_window_begins_a_stride_after_the_last(tmp_path):
    made = make(tmp_path, [20], "0123", {"rule": "every", "window": 4, "stride": 6}, has_sharp=False)
    alignment = align_recording(*made)
    assert alignment.exposure.tolist() == [[0, 4], [6, 10], [12, 16]]
    assert alignment.sharp_index.tolist() == [-1, -1, -1]
    assert reasons(alignment) == ["exposure of spike frames [18, 22) ends after the recording of 20"]


def test_a_frame_that_is_not_there_does_not_shift_the_others(tmp_path):
    made = make(tmp_path, [20], ["000001", "000003"], {"rule": "every", "window": 5})
    assert align_recording(*made).exposure.tolist() == [[5, 10], [15, 20]]


def test_a_sharp_instant_by_index_must_lie_in_the_exposure(tmp_path):
    made = make(tmp_path, [5, 9], "ab", {"rule": "whole_file"}, sharp={"rule": "index", "index": 6})
    alignment = align_recording(*made)
    assert (alignment.frames, alignment.sharp_index.tolist()) == (("b",), [11])
    assert reasons(alignment) == ["the sharp frame is at 6 of an exposure of 5 spike frames"]


def test_logs_give_the_frames_whose_middles_they_hold(tmp_path):
    log = "frame,start_us,stop_us\na,0,4000\nb,4400,9600\n"
    alignment = align_recording(*make(tmp_path, [20], "ab", {"rule": "log"}, log=log))
    assert alignment.exposure.tolist() == [[0, 4], [4, 10]]
    assert alignment.exposure_ns.tolist() == [[0, 4_000_000], [4_400_000, 9_600_000]]
    assert alignment.residual_ns.tolist() == [0, 400_000]
    assert alignment.sharp_index.tolist() == [2, 7]


@pytest.mark.parametrize("offset", [(3, 0), (0, 3), (5, -2)])
def test_offsets_of_the_manifest_and_of_the_store_move_everything(tmp_path, offset):
    log = "frame,start_us,stop_us\na,0,4000\nb,4400,9600\n"
    rule = {"rule": "log", "offset_frames": offset[0]}
    alignment = align_recording(*make(tmp_path, [20], "ab", rule, log=log), offset[1])
    assert alignment.exposure.tolist() == [[3, 7], [7, 13]]
    assert alignment.exposure_ns.tolist() == [[3_000_000, 7_000_000], [7_400_000, 12_600_000]]
    assert alignment.residual_ns.tolist() == [0, 400_000]
    assert alignment.sharp_index.tolist() == [5, 10]


def test_an_offset_that_leads_out_of_the_recording_sets_the_frame_aside(tmp_path):
    rule = {"rule": "every", "window": 10, "offset_frames": -3}
    alignment = align_recording(*make(tmp_path, [40], ["0", "1", "2"], rule))
    assert alignment.frames == ("1", "2") and alignment.exposure.tolist() == [[7, 17], [17, 27]]
    assert reasons(alignment) == ["exposure of spike frames [-3, 7) begins before the recording of 40"]


def test_logs_of_the_x4k_tradition_count_frames_by_the_thousand(tmp_path):
    log = "frame_idx,t0,t1,event_count,seq\n31,0.015000,0.047000,1,train/s\n31,0.000000,0.001000,1,val/s\n"
    exposure = {"rule": "log", "log_rate_hz": 4000, "numbering": {"per_number": 4}}
    alignment = align_recording(*make(tmp_path, [200], ["0007_002"], exposure, log=log))
    assert alignment.exposure.tolist() == [[60, 188]]
    assert alignment.exposure_ns.tolist() == [[60_000_000, 188_000_000]]


def test_bad_rows_of_a_log_set_their_frames_aside_with_file_and_line(tmp_path):
    rows = [
        "1,0.0,0.0,0,s",
        "2,0.004000,0.008000,1,s",
        "3,0.002000,0.006000,1,s",
        "4,0.018000,0.022000,1,s",
        "x",
    ]
    rows += [
        "6,0.020000,0.022000,1,s",
        "7,0.024000,0.026000,1,s",
        "8,0.028000,0.030000,1,s",
        "9,0.032000,0.040000,1,s",
    ]
    log = "\n".join(["frame_idx,t0,t1,event_count,seq", *rows]) + "\n"
    alignment = align_recording(*make(tmp_path, [36], "123456789", {"rule": "log"}, log=log))
    assert alignment.frames == ("2", "6", "7", "8")
    found = dict(
        zip((Path(problem.path).name for problem in alignment.problems), reasons(alignment), strict=True)
    )
    assert found["log.csv:6"].startswith("1 values, expected 5")
    assert "log.csv:2: a 0.0,0.0 placeholder" in found["1.png"]
    assert "out of line with the frames around it" in found["3.png"] and "log.csv:4" in found["3.png"]
    assert "out of line" in found["4.png"]
    assert "ends after the recording" in found["9.png"]
    assert "has no row in" in found["5.png"]
    assert len(found) == 6


def test_a_clock_that_was_reset_sets_all_that_follows_aside(tmp_path):
    starts = [0, 4, 8, 12, 2, 6, 10, 14, 18]
    rows = [f"{k},{start}.000,{start + 2}.000" for k, start in enumerate(starts)]
    log = "\n".join(["frame,start_ms,stop_ms", *rows]) + "\n"
    alignment = align_recording(*make(tmp_path, [20], "012345678", {"rule": "log"}, log=log))
    assert alignment.frames == ("0", "1", "2", "3")
    first, *others = reasons(alignment)
    assert "log.csv:6: exposure starts at 2000000, not after frame 3 at 12000000" in first
    assert len(others) == 4 and all("it was reset" in reason for reason in others)
    assert alignment.timing["resets"] == 1 and alignment.timing["distrusted"] == 5


def test_rows_of_frames_without_an_image_are_reported(tmp_path):
    log = "frame,start_us,stop_us\na,0,4000\nb,4000,8000\n"
    alignment = align_recording(*make(tmp_path, [20], "a", {"rule": "log"}, log=log))
    assert alignment.frames == ("a",)
    assert [(problem.path, problem.reason) for problem in alignment.problems] == [
        (f"{tmp_path}/log.csv:3", "frame b of train/s has no image")
    ]


def test_a_frame_whose_files_are_missing_is_not_reported_again_at_its_row(tmp_path):
    log = "frame,start_us,stop_us\na,0,4000\nb,4000,8000\nc,8000,12000\nd,x,16000\n"
    alignment = align_recording(*make(tmp_path, [20], "ac", {"rule": "log"}, listed="abcd", log=log))
    assert alignment.frames == ("a", "c") and alignment.positions.tolist() == [0, 2]
    (problem,) = alignment.problems  # that the row of d is bad as well is another problem
    assert problem.path == f"{tmp_path}/log.csv:5" and "'x' is not a decimal" in problem.reason


def test_positions_skip_a_number_for_every_frame_set_aside(tmp_path):
    made = make(tmp_path, [9, 5, 9, 9], "bcde", {"rule": "whole_file"}, listed="abcdefg",
                sharp={"rule": "index", "index": 6})  # fmt: skip
    alignment = align_recording(*made)
    assert alignment.frames == ("b", "d", "e")  # the exposure of c is too short
    assert alignment.positions.tolist() == [1, 3, 4] and alignment.positions.dtype == np.int64


def test_positions_skip_a_number_for_every_frame_that_only_the_log_knows(tmp_path):
    rows = [f"{k},{4000 * k},{4000 * k + 4000}" for k in (1, 2, 4, 8, 9, 10, 11)]
    log = "\n".join(["frame,start_us,stop_us", *rows, "3,-,0", "12,0,0"])
    made = make(tmp_path, [48], ["2", "9", "10", "11"], {"rule": "log"}, log=log)
    alignment = align_recording(*made)
    assert alignment.frames == ("2", "9", "10", "11")
    assert alignment.positions.tolist() == [
        1,
        8,
        9,
        10,
    ]  # without an image: 1; 3, 4, 8; 12; by their times 5, 6, 7
    assert len(alignment.problems) == 5


def test_positions_of_numbered_logs_go_by_the_number(tmp_path):
    rows = [f"{4 * k},{k / 1000:.6f},{k / 1000 + 0.001:.6f},1,s" for k in (1, 2, 3, 10)]
    log = "\n".join(["frame_idx,t0,t1,event_count,seq", *rows])
    exposure = {"rule": "log", "numbering": {"per_number": 4}}
    alignment = align_recording(*make(tmp_path, [20], ["0001", "0003", "0010", "x"], exposure, log=log))
    assert alignment.frames == ("0001", "0003", "0010")
    assert alignment.positions.tolist() == [0, 2, 9]


def test_a_log_that_has_changed_is_read_again(tmp_path):
    made = make(tmp_path, [20], "a", {"rule": "log"}, log="frame,start_us,stop_us\na,0,4000\n")
    assert align_recording(*made).exposure.tolist() == [[0, 4]]
    made[0].log_path.write_text("frame,start_us,stop_us\na,1000,14000\n")
    assert align_recording(*made).exposure.tolist() == [[1, 14]]


def test_an_exposure_shorter_than_a_frame_is_set_aside(tmp_path):
    log = "frame,start_us,stop_us\na,4100,4400\n"
    alignment = align_recording(*make(tmp_path, [20], "a", {"rule": "log"}, log=log))
    assert reasons(alignment) == ["exposure [4100000, 4400000) ns holds the middle of no spike frame"]


def test_the_streams_must_be_those_of_the_recording(tmp_path):
    recording, manifest, streams = make(tmp_path, [5, 6], "ab", {"rule": "whole_file"})
    with pytest.raises(ValueError, match="not those of the recording"):
        align_recording(recording, manifest, streams[::-1])


def put(root: Path, name: str, source: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SHARED / source, root / name)


def align_only(root: Path, manifest: Manifest):
    (recording,) = find_recordings(manifest, root)
    streams = [open_spikes(path, recording.format) for path in recording.spike_paths]
    return recording, streams, align_recording(recording, manifest, streams)


def correlation(recording: Recording, stream, index: int, k: int, half: int) -> float:
    sharp = read_rgb(recording.sharp_paths[k]).mean(axis=0)
    scale = len(sharp) // stream.shape[1]
    grey = sharp.reshape(stream.shape[1], scale, stream.shape[2], scale).mean(axis=(1, 3))
    start, stop = max(0, index - half), min(len(stream), index + half + 1)
    return float(np.corrcoef(grey.ravel(), stream.count(start, stop).ravel())[0, 1])


@needs_shared
def test_the_real_gopro_pair_meets_its_sharp_frame_at_40(tmp_path):
    put(tmp_path, "train/pair/spike/000226.dat", "gopro_spike_pair/000226.dat")
    put(tmp_path, "train/pair/sharp/000226.png", "gopro_spike_pair/000226_sharp.png")
    values = {
        "name": "gopro_spike_pair",
        "layout": {
            "spikes": "{split}/{sequence}/spike/{frame}.dat",
            "sharp": "{split}/{sequence}/sharp/{frame}.png",
        },
        "spikes": {"height": 360, "width": 640, "rate_hz": 1920},
        "exposure": {"rule": "whole_file"},
        "sharp": {"rule": "index", "index": 40},
        "blurry_from_spikes": 2.0,
        "splits": {"train": {}},
    }
    recording, (stream,), alignment = align_only(tmp_path, build(Manifest, values, "test"))
    assert alignment.exposure.tolist() == [[0, 88]]
    assert alignment.exposure_ns.tolist() == [[0, 45_833_333]]
    assert alignment.sharp_index.tolist() == [40]
    at = {index: correlation(recording, stream, index, 0, 12) for index in (32, 36, 40, 44, 48)}
    assert max(at, key=at.__getitem__) == 40


@needs_shared
def test_the_real_streams_of_301_meet_their_sharp_frame(tmp_path):
    for part in (1, 2, 3):
        name = f"203_part{part}_key_id151"
        put(tmp_path, f"train/spike/{name}.dat", f"sreds_t301_250x400/{name}.dat")
        put(tmp_path, f"train/gt/{name}.png", f"sreds_t301_250x400/{name}.png")
    manifest = read_manifest("sreds")
    recordings = find_recordings(manifest, tmp_path)
    assert [recording.sequence for recording in recordings] == ["203_part1", "203_part2", "203_part3"]
    for recording in recordings:
        stream = open_spikes(recording.spike_paths[0], recording.format)
        alignment = align_recording(recording, manifest, [stream])
        assert alignment.frames == ("151",)
        assert alignment.exposure.tolist() == [[130, 171]]
        assert alignment.sharp_index.tolist() == [150]
        assert correlation(recording, stream, 150, 0, 20) > 0.9


@needs_shared
def test_the_real_stream_of_41_loses_the_windows_at_its_ends(tmp_path):
    put(tmp_path, "train/spike/000_part1_key_id21.dat", "sreds_t41_250x400/000_part1_key_id21.dat")
    for key in (7, 14, 21, 28, 35):
        put(tmp_path, f"train/gt/000_part1_key_id{key}.png", f"sreds_t41_250x400/000_part1_key_id{key}.png")
    shipped = read_manifest("sreds")
    window = {"rule": "centred", "window": 21, "numbering": {"pattern": r"^(\d+)$", "offset": -1}}
    values = {
        "name": "sreds_t41",
        "layout": {"spikes": shipped.layout.spikes, "sharp": shipped.layout.sharp},
        "spikes": {"height": 250, "width": 400, "rate_hz": 20000},
        "exposure": window,
        "blurry_from_spikes": 2.0,
        "splits": {"train": {}},
    }
    recording, (stream,), alignment = align_only(tmp_path, build(Manifest, values, "test"))
    assert recording.frames == ("7", "14", "21", "28", "35")
    assert alignment.frames == ("14", "21", "28")
    assert alignment.sharp_index.tolist() == [13, 20, 27]
    assert [reason.split(") ")[1] for reason in reasons(alignment)] == [
        "begins before the recording of 41",
        "ends after the recording of 41",
    ]
    for row, frame in enumerate(alignment.frames):
        k = recording.frames.index(frame)
        right = int(alignment.sharp_index[row])
        fits = {index: correlation(recording, stream, index, k, 5) for index in (6, 13, 20, 27, 34)}
        assert max(fits, key=fits.__getitem__) == right


def test_the_simulated_layout_aligns_by_its_own_log(tmp_path):
    folder = tmp_path / "train/scene"
    fmt = SpikeFormat(height=4, width=8, rate_hz=8000)
    write_dat(folder / "spikes.dat", np.zeros((64, 4, 8), np.uint8), fmt)
    (folder / "format.yaml").write_text("{height: 4, width: 8, rate_hz: '8000'}")
    (folder / "exposures.csv").write_text(
        "frame,start_ns,stop_ns\n000000,0,4000000\n000001,4000000,8000000\n"
    )
    for frame in ("000000", "000001"):
        write_png(folder / f"blurry/{frame}.png", np.zeros((8, 16), np.uint8))
        write_png(folder / f"sharp/{frame}.png", np.ones((8, 16), np.uint8))
    _, _, alignment = align_only(tmp_path, read_manifest("simulated"))
    assert alignment.exposure.tolist() == [[0, 32], [32, 64]]
    assert alignment.sharp_index.tolist() == [16, 48]
