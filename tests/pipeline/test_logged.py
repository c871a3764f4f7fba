"""The rule `log`, through `align_recording`; the simpler logs are in test_align.py."""

from pathlib import Path

import pytest

from pipeline.align import align_recording
from pipeline.config import build
from pipeline.errors import AlignmentError
from pipeline.manifest import Manifest
from pipeline.recordings import Recording
from pipeline.spike_format import SpikeFormat


class Stream:
    def __init__(self, path: Path, length: int) -> None:
        self.path, self.length = path, length

    def __len__(self) -> int:
        return self.length


def align(
    folder, text, frames, *, rate=1000, length=1000, log="log.txt", spikes="s.dat", sharp=None, **exposure
):
    path = folder / "log.txt"
    path.write_text(text)
    values = {
        "name": "test",
        "layout": {"spikes": spikes, "blurry": spikes[:-5] + "{frame}.png", "log": log},
        "exposure": {"rule": "log"} | exposure,
        "splits": {"train": {}},
        "spikes": {"height": 2, "width": 8, "rate_hz": rate},
    } | ({} if sharp is None else {"sharp": sharp})
    images = tuple(folder / f"{frame}.png" for frame in frames)
    recording = Recording(
        split="train",
        sequence="s",
        source_name="s",
        spike_paths=(folder / "s.dat",),
        listed=tuple(frames),
        frames=tuple(frames),
        blurry_paths=images,
        sharp_paths=(None,) * len(images) if sharp is None else images,
        log_path=path,
        format=SpikeFormat(height=2, width=8, rate_hz=rate),
    )
    return align_recording(recording, build(Manifest, values, "test"), [Stream(folder / "s.dat", length)])


def reasons(alignment):
    return [problem.reason for problem in alignment.problems]


INDICES = "split,scene,sub,frame,t0_idx,t1_idx,events\n"


def test_spike_frame_indices_need_no_clock(tmp_path):
    text = (
        INDICES + "train,s,,000007,8,96,1\ntrain,s,,8,96,184,1\ntrain,s,,9,990,1001,1\ntrain,other,,7,0,5,1\n"
    )
    alignment = align(tmp_path, text, ["000007", "000008", "000009"], rate=1920)
    assert alignment.frames == ("000007", "000008")
    assert alignment.exposure.tolist() == [[8, 96], [96, 184]]
    assert alignment.exposure_ns.tolist() == [[4_166_667, 50_000_000], [50_000_000, 95_833_333]]
    assert reasons(alignment) == ["exposure of spike frames [990, 1001) ends after the recording of 1000"]
    assert alignment.timing["outside"] == 1 and alignment.timing["unit"] == "spike frames"
    with pytest.raises(AlignmentError, match=r"indices have no clock\.origin"):
        align(tmp_path, text, ["7", "8", "9"], clock={"origin": 5})


def pairs(*stamps, length="4000 us"):
    return "".join(f">unix standard time stamp:17{s}s,{us}us\nExp Time:{length},Gain:1\n" for s, us in stamps)


@pytest.mark.parametrize(
    ("clock", "spans"),
    [
        ({"stamp": "start", "origin": "first_frame"}, [[0, 4], [40, 44], [80, 84]]),
        ({"stamp": "start", "origin": 17099_900_000_000}, [[80, 84], [120, 124], [160, 164]]),
        ({"stamp": "end", "origin": 17099_900_000_000}, [[76, 80], [116, 120], [156, 160]]),
        ({"stamp": "middle", "origin": 17099_900_000_000}, [[78, 82], [118, 122], [158, 162]]),
    ],
)
def test_pairs_are_placed_by_the_clock_of_the_manifest(tmp_path, clock, spans):
    text = pairs(("099", 980_000), ("100", 20_000), ("100", 60_000))
    assert align(tmp_path, text, "abc", dialect="pairs", clock=clock).exposure.tolist() == spans
    assert align(tmp_path, text, "abc", clock=clock).exposure.tolist() == spans


def test_pairs_without_a_clock_are_refused(tmp_path):
    text = pairs(("099", 0), ("100", 0))
    for clock in ({}, {"stamp": "start"}, {"origin": "first_frame"}):
        with pytest.raises(AlignmentError, match="neither what its stamps are nor when the spikes began"):
            align(tmp_path, text, "ab", clock=clock)


def test_pairs_must_be_as_many_as_the_frames(tmp_path):
    clock = {"stamp": "start", "origin": "first_frame"}
    with pytest.raises(AlignmentError, match="2 entries for the 3 frames of train/s"):
        align(tmp_path, pairs(("099", 0), ("100", 0)), "abc", clock=clock)


def test_a_broken_pair_sets_its_own_frame_aside(tmp_path):
    text = pairs(("099", 0), ("099", 40_000), ("099", 80_000)).replace("099s,40000us", "099s,4oooous")
    alignment = align(tmp_path, text, "abc", clock={"stamp": "start", "origin": "first_frame"})
    assert alignment.frames == ("a", "c") and alignment.positions.tolist() == [0, 2]
    assert "log.txt:3: no time stamp" in reasons(alignment)[0]


def test_one_log_without_names_cannot_serve_all_sequences(tmp_path):
    text = pairs(("099", 0), ("100", 0))
    with pytest.raises(AlignmentError, match="keep one such log per sequence"):
        align(
            tmp_path,
            text,
            "ab",
            spikes="{sequence}/s.dat",
            clock={"stamp": "start", "origin": "first_frame"},
        )


def test_the_first_frame_must_be_known_to_begin_the_clock(tmp_path):
    clock = {"origin": "first_frame"}
    text = "frame,start_us,stop_us\na,7000,9000\nb,47000,49000\n"
    assert align(tmp_path, text, "ab", clock=clock).exposure.tolist() == [[0, 2], [40, 42]]
    for broken in (
        text.replace("a,7000", "a,x"),
        text.replace("a,7000,9000\n", ""),
        text.replace("7000", "7x", 1),
    ):
        with pytest.raises(AlignmentError, match="there is no origin of the clock"):
            align(tmp_path, broken, "ab", clock=clock)


def test_a_users_own_table_is_read_by_its_manifest(tmp_path):
    text = "no;image;middle [ms];exp\n1;a;12.0;4000\n2;b;52.0;4000\n"
    columns = {
        "frame": "image",
        "middle": "middle [ms]",
        "unit": "ms",
        "duration": "exp",
        "duration_unit": "us",
    }
    alignment = align(tmp_path, text, "ab", timestamps={**columns, "delimiter": ";"})
    assert alignment.exposure.tolist() == [[10, 14], [50, 54]]
    with pytest.raises(AlignmentError, match="no column 'image'"):
        align(tmp_path, text, "ab", timestamps=columns)


SYNC = "frame,start_us,stop_us,spike_index\n"


def with_sync(ppm=100, lost=0, frames=20):
    """Frames every 40 ms on a clock that starts at 5000 s and is fast; a sync row every 100 spike frames."""

    def there(ms):
        return 5_000_000_000 + round(ms * 1000 * (1 + ppm / 1e6))

    rows = [f",{there(index + lost * (index >= 500))},,{index}" for index in range(0, 1000, 100)]
    rows += [f"f{k:02d},{there(10 + 40 * k)},{there(14 + 40 * k)}," for k in range(frames)]
    return SYNC + "\n".join(rows) + "\n"


def test_exposures_go_through_the_clock_that_sync_rows_give(tmp_path):
    frames = [f"f{k:02d}" for k in range(20)]
    alignment = align(tmp_path, with_sync(), frames)
    assert alignment.exposure.tolist() == [[10 + 40 * k, 14 + 40 * k] for k in range(20)]
    assert abs(alignment.exposure_ns[19] - (770_000_000, 774_000_000)).max() < 2000
    clock = alignment.timing["clock"]
    assert clock["drift_ppm"] == pytest.approx(100, abs=1) and clock["rms_frames"] < 0.001


def test_sync_rows_with_a_step_set_every_frame_aside_with_the_numbers(tmp_path):
    frames = [f"f{k:02d}" for k in range(20)]
    alignment = align(tmp_path, with_sync(lost=3), frames)
    assert alignment.frames == () and len(alignment.problems) == 20
    assert "line 7: a step of 3000" in reasons(alignment)[0] and "+3.00 spike frames" in reasons(alignment)[0]


def test_one_sync_row_gives_the_offset(tmp_path):
    text = SYNC + "a,2000000,2004000,100\nb,2040000,2044000,\n"
    assert align(tmp_path, text, "ab").exposure.tolist() == [[100, 104], [140, 144]]


def test_sync_rows_and_an_origin_contradict_one_another(tmp_path):
    with pytest.raises(AlignmentError, match="which of them is it"):
        align(tmp_path, with_sync(), ["f00"], clock={"origin": 5})


def test_a_log_that_ends_in_the_middle_of_a_row_does_not_give_that_row(tmp_path):
    text = "frame,start_us,stop_us\na,500,9000\nb,41000,49000\n"
    alignment = align(tmp_path, text[: text.index("000\nb")], "ab")
    assert alignment.frames == ()
    assert "a,500,9" in reasons(alignment)[0] or "cut short" in reasons(alignment)[0]
    alignment = align(tmp_path, "frame,start_us,stop_us\na,500,9000", "ab")
    assert (
        alignment.frames == () and "without a line break and before the last frame" in reasons(alignment)[0]
    )


def test_dropped_frames_break_the_run(tmp_path):
    starts = [10 + 40 * k for k in range(12) if k not in (4, 5, 9)]
    rows = [f"{k},{start}.000,{start + 4}.000" for k, start in enumerate(starts)]
    alignment = align(tmp_path, "\n".join(["frame,start_ms,stop_ms", *rows]) + "\n", list("012345678"))
    assert alignment.positions.tolist() == [0, 1, 2, 3, 6, 7, 8, 10, 11]
    assert alignment.problems == () and alignment.timing["missing"] == 3


SHARP = "frame,start_us,stop_us,sharp_us"
MIDDLE = {"rule": "middle"}


def test_the_log_tells_which_spike_frames_show_the_sharp_instants(tmp_path):
    text = f"{SHARP}\na,2000,8000,2000\nb,12000,18000,17999\nc,22500,28000,22500\n"
    alignment = align(tmp_path, text, "abc", sharp=MIDDLE)
    assert alignment.exposure.tolist() == [[2, 8], [12, 18], [22, 28]]
    assert alignment.sharp_index.tolist() == [2, 17, 22]
    assert align(tmp_path, text, "abc", sharp=MIDDLE, offset_frames=3).sharp_index.tolist() == [5, 20, 25]
    assert align(tmp_path, text, "abc").sharp_index.tolist() == [-1] * 3  # no sharp images


def test_an_instant_in_half_a_spike_frame_that_is_not_exposed_is_shown_by_the_next_one(tmp_path):
    text = f"{SHARP}\na,2700,8300,2800\nb,12000,18300,18200\n"
    alignment = align(tmp_path, text, "ab", sharp=MIDDLE)
    assert alignment.exposure.tolist() == [[3, 8], [12, 18]]
    assert alignment.sharp_index.tolist() == [3, 17]


@pytest.mark.parametrize(("shift", "clock"), [(0, {}), (7_000, {"clock": {"origin": 7_000_000}})])
def test_sharp_instants_go_by_the_clock_of_the_log(tmp_path, shift, clock):
    text = f"{SHARP}\na,{shift + 2000},{shift + 8000},{shift + 6500}\n"
    assert align(tmp_path, text, "a", sharp=MIDDLE, **clock).sharp_index.tolist() == [6]
    x4k = align(tmp_path, text, "a", sharp=MIDDLE, rate=4000, log_rate_hz=1000, **clock)
    assert (x4k.exposure.tolist(), x4k.sharp_index.tolist()) == ([[2, 8]], [6])


def test_sharp_instants_go_through_the_clock_that_sync_rows_give(tmp_path):
    text = f"{SHARP},spike_index\na,2000000,2004000,2001500,100\nb,2040000,2044000,2043500,\n"
    assert align(tmp_path, text, "ab", sharp=MIDDLE).sharp_index.tolist() == [101, 143]


def test_a_log_and_a_manifest_that_both_tell_the_sharp_instants_are_refused(tmp_path):
    alignment = align(tmp_path, f"{SHARP}\na,2000,8000,3000\n", "a", sharp={"rule": "index", "index": 2})
    assert alignment.frames == () and "the manifest has sharp.rule index" in reasons(alignment)[0]
