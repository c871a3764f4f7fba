import itertools
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.clips import (
    ClipConfig,
    ClipSource,
    Sample,
    batch_numbers,
    batches,
    checksum_of,
    sharp_instants,
)
from pipeline.dat import write_dat
from pipeline.errors import StoreError, TrainingError, UsageError
from pipeline.images import write_png
from pipeline.ingest import ingest
from pipeline.reader_times import ReaderTimes
from pipeline.respike import SpikeAugmentation
from pipeline.spike_format import SpikeFormat
from pipeline.store import open_store
from pipeline.voxelize import voxelize
from pipeline.voxels import frames_per_bin

SIDE, SCALE, BINS, WINDOW = 24, 2, 4, 100
ROW_BIN, COLUMN_BIN, FRAME_BIN, MARK_BIN = range(BINS)
MARK = 25
CONFIG = ClipConfig(num_frames=3, crop=16)
LENGTHS = {"train/a": 6, "train/b": 4, "val/c": 2}


def spikes_of(number_of_frames: int) -> np.ndarray:
    """Bins of 25 spike frames whose counts are the row, the column, the frame, and 25."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frames = []
    for frame in range(number_of_frames):
        counts = (rows, columns, np.full_like(rows, frame + 1), np.full_like(rows, MARK))
        frames += [(j < count).astype(np.uint8) for count in counts for j in range(25)]
    return np.stack(frames)


def image_of(frame: int, kind: int) -> np.ndarray:
    """Channels: row, column, and 10 times the frame with the kind."""
    rows, columns = np.mgrid[: SIDE * SCALE, : SIDE * SCALE]
    return np.stack([rows, columns, np.full_like(rows, 10 * (frame + 1) + kind)]).astype(np.uint8)


def write_sequence(folder, number_of_frames):
    write_dat(
        folder / "spikes.dat", spikes_of(number_of_frames), SpikeFormat(height=SIDE, width=SIDE, rate_hz=1000)
    )
    for frame in range(number_of_frames):
        for kind, name in enumerate(("blurry", "sharp")):
            write_png(folder / name / f"{frame}.png", image_of(frame, kind))


@pytest.fixture(scope="module")
def build(manifest_of):
    def build(folder, quarantine=False, **changes):
        layout = {
            "spikes": "{split}/{sequence}/spikes.dat",
            "blurry": "{split}/{sequence}/blurry/{frame}.png",
            "sharp": "{split}/{sequence}/sharp/{frame}.png",
        }
        values = {
            "layout": layout,
            "spikes": {"height": SIDE, "width": SIDE, "rate_hz": 1000},
            "exposure": {"rule": "every", "window": WINDOW},
            "continuity": "report",  # these spikes are no camera's
            "splits": {"train": {}, "val": {}},
        }
        manifest = manifest_of(**(values | changes))
        ingest(folder / "raw", folder / "store", manifest, quarantine=quarantine)
        voxelize(folder / "store", num_bins=BINS)
        return open_store(folder / "store")

    return build


@pytest.fixture(scope="module")
def store(tmp_path_factory, build):
    folder = tmp_path_factory.mktemp("clips")
    for key, length in LENGTHS.items():
        write_sequence(folder / "raw" / key, length)
    return build(folder)


@pytest.fixture
def source(store):
    return ClipSource(store, "train", "k4", CONFIG)


def take(source, count, **changes):
    settings = {"seed": 0, "start_step": 0, "batch_size": 1, "workers": 2}
    stream = batches(source, **(settings | changes))
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


def same(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_clips_are_the_windows_of_consecutive_frames(source):
    assert [(clip.sequence, clip.first_frame) for clip in source.clips] == [
        *((0, first) for first in range(4)),
        *((1, first) for first in range(2)),
    ]
    assert len(source) == 6 and source.num_bins == BINS and source.scale == SCALE
    assert all(clip.reversible for clip in source.clips)


def test_samples_are_bytes_of_the_stated_shapes(source):
    sample = source.read(source.draw(0, seed=0))
    assert sample.blurry.shape == sample.sharp.shape == (3, 3, 16, 16)
    assert sample.voxels.shape == (3, BINS, 8, 8)
    assert {part.dtype for part in sample[:3]} == {torch.uint8}
    assert sample.instants.shape == (0,) and source.instant_range is None  # nobody asks
    assert source.batch(range(2), seed=0).voxels.shape == (2, 3, BINS, 8, 8)


def test_frames_and_spikes_show_the_same_places_and_times_however_they_are_turned(source):
    turned = Counter()
    for number in range(200):
        draw = source.draw(number, seed=3)
        blurry, voxels, sharp, _ = (part.numpy() for part in source.read(draw))
        how = draw.augmentation
        bins = voxels[:, ::-1] if how.reverse else voxels
        assert (bins[:, MARK_BIN] == MARK).all()
        np.testing.assert_array_equal(blurry[:, :2], sharp[:, :2])
        np.testing.assert_array_equal(blurry[:, 0, ::2, ::2] // SCALE, bins[:, ROW_BIN])
        np.testing.assert_array_equal(blurry[:, 1, ::2, ::2] // SCALE, bins[:, COLUMN_BIN])
        frames = np.arange(3)[::-1] if how.reverse else np.arange(3)
        for t, frame in enumerate(draw.clip.first_frame + frames):
            assert (bins[t, FRAME_BIN] == frame + 1).all()
            assert (blurry[t, 2] == 10 * (frame + 1)).all() and (sharp[t, 2] == 10 * (frame + 1) + 1).all()
        rows, columns = blurry[0, 0].astype(int), blurry[0, 1].astype(int)
        corner = rows.min(), columns.min()
        assert corner == (how.row * SCALE, how.column * SCALE)
        assert np.ptp(rows) == np.ptp(columns) == 15
        down = (rows[1, 0] - rows[0, 0], columns[1, 0] - columns[0, 0])
        right = (rows[0, 1] - rows[0, 0], columns[0, 1] - columns[0, 0])
        turned[down, right, how.reverse] += 1
    assert len(turned) == 16


def test_nothing_is_turned_that_should_not_be(store):
    config = ClipConfig(num_frames=3, crop=16, flips=False, rotations=False, time_reversal=False)
    plain = ClipSource(store, "train", "k4", config)
    for number in range(30):
        how = plain.draw(number, seed=0).augmentation
        assert not (how.transpose or how.flip_rows or how.flip_columns or how.reverse)


def test_every_clip_comes_once_per_epoch_in_another_order(source):
    epochs = [[source.draw(number, seed=1).clip for number in range(e * 6, e * 6 + 6)] for e in range(8)]
    for epoch in epochs:
        assert sorted(epoch, key=source.clips.index) == list(source.clips)
    assert len({tuple(map(source.clips.index, epoch)) for epoch in epochs}) > 4
    other = [source.draw(number, seed=2).clip for number in range(6)]
    assert [e for e in epochs if e == other] != epochs


def test_steps_do_not_depend_on_how_they_are_dealt_out(source):
    expected = [source.batch(range(step * 4, step * 4 + 4), 0) for step in range(5)]
    for workers in (0, 1, 3):
        for found, whole in zip(take(source, 5, batch_size=4, workers=workers), expected, strict=True):
            assert same(found, whole)
    ranks = [take(source, 5, batch_size=2, rank=rank, world=2) for rank in range(2)]
    micro = take(source, 10, batch_size=2, accumulate=2)
    both = [take(source, 10, batch_size=1, accumulate=2, rank=rank, world=2) for rank in range(2)]
    for step, whole in enumerate(expected):
        assert same(joined(*(of_rank[step] for of_rank in ranks)), whole)
        assert same(joined(*micro[2 * step : 2 * step + 2]), whole)
        dealt = [both[rank][2 * step + part] for part in range(2) for rank in range(2)]
        assert same(joined(*dealt), whole)


def joined(*parts: Sample) -> Sample:
    return Sample(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


SENSORS = SpikeAugmentation(
    thresholds=(1, 2, 4), lost_share=0.1, dark_rate=0.01, gain_spread=0.1, dead_share=0.05, hot_share=0.05
)


def test_sensors_change_the_spikes_and_nothing_else(store, source):
    other = ClipSource(store, "train", "k4", replace(CONFIG, spikes=SENSORS))
    changed = 0
    for number in range(20):
        own, theirs = (it.read(it.draw(number, seed=0)) for it in (source, other))
        assert torch.equal(own.blurry, theirs.blurry) and torch.equal(own.sharp, theirs.sharp)
        changed += not torch.equal(own.voxels, theirs.voxels)
        assert theirs.voxels.max() <= WINDOW // BINS
    assert changed == 20 and source.draw(0, seed=0).sensor is None


def test_sensors_depend_on_the_number_of_the_sample_only(store):
    def fresh():
        return ClipSource(store, "train", "k4", replace(CONFIG, spikes=SENSORS))

    whole = [fresh().batch(range(step * 4, step * 4 + 4), 0) for step in range(3)]
    for workers in (0, 3):
        assert all(map(same, take(fresh(), 3, batch_size=4, workers=workers), whole))
    assert all(map(same, take(fresh(), 2, batch_size=4, start_step=1), whole[1:]))
    ranks = [take(fresh(), 3, batch_size=2, rank=rank, world=2) for rank in range(2)]
    assert all(same(joined(*parts), step) for *parts, step in zip(*ranks, whole, strict=True))
    assert not all(map(same, take(fresh(), 3, batch_size=4, seed=1), whole))


def test_bins_of_unequal_lengths_are_turned_with_the_clip(tmp_path, build):
    write_sequence(tmp_path / "raw/train/a", 5)
    store = build(tmp_path, exposure={"rule": "every", "window": 98, "stride": 100})
    config = replace(CONFIG, spikes=SpikeAugmentation(hot_share=0.99), flips=False, rotations=False)
    source = ClipSource(store, "train", "k4", config)
    seen = set()
    for number in range(40):
        draw = source.draw(number, seed=0)
        counts = source.read(replace(draw, sensor=replace(draw.sensor, hot_share=0.999))).voxels.numpy()
        hot = np.median(counts, axis=(2, 3)).astype(int).tolist()
        assert hot == [frames_per_bin(98, BINS).tolist()[:: -1 if draw.augmentation.reverse else 1]] * 3
        seen.add(draw.augmentation.reverse)
    assert seen == {False, True}


def test_starting_at_a_step_gives_what_that_step_would_have_seen(source):
    whole = take(source, 12, batch_size=2, accumulate=2)
    late = take(source, 6, batch_size=2, accumulate=2, start_step=3)
    assert all(same(one, other) for one, other in zip(late, whole[6:], strict=True))
    other_seed = take(source, 12, batch_size=2, accumulate=2, seed=1)
    assert not all(same(one, other) for one, other in zip(other_seed, whole, strict=True))


@pytest.mark.parametrize(("workers", "threads"), [(0, 0), (1, 1), (3, 3)])
def test_samples_are_read_by_as_many_threads_as_are_wanted(source, monkeypatch, workers, threads):
    readers = set()
    read_into = source.read_into

    def watched(*arguments):
        readers.add(threading.get_ident())
        time.sleep(0.01)
        read_into(*arguments)

    monkeypatch.setattr(source, "read_into", watched)
    take(source, 4, batch_size=6, workers=workers)
    assert len(readers - {threading.get_ident()}) == threads
    assert (threading.get_ident() in readers) == (workers == 0)


@pytest.mark.parametrize(
    ("batch_size", "workers", "accumulate", "ahead"),
    [(2, 1, 1, 1), (2, 4, 1, 2), (1, 4, 1, 4), (8, 4, 1, 1), (1, 2, 4, 4), (4, 4, 3, 3)],
)
def test_a_step_and_a_sample_for_every_thread_are_ahead(
    source, monkeypatch, batch_size, workers, accumulate, ahead
):
    rooms = []
    room = source.room
    monkeypatch.setattr(source, "room", lambda size, **how: rooms.append(size) or room(size))
    settings = {"batch_size": batch_size, "workers": workers, "accumulate": accumulate}
    stream = batches(source, seed=0, start_step=0, **settings)
    for _ in range(5):
        next(stream)
    deadline = time.monotonic() + 20
    while len(rooms) < 5 + ahead and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)  # for one too many
    assert rooms == [batch_size] * (5 + ahead)
    stream.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_delivered_whole_by_who_has_read_them(source, workers):
    delivered = []

    def deliver(batch):
        delivered.append(threading.get_ident())
        copy = Sample(*(part.clone() for part in batch))  # of what is not read yet, when it is too early
        return copy, batch

    expected = [source.batch(range(step * 3, step * 3 + 3), 0) for step in range(6)]
    found = take(source, 6, batch_size=3, workers=workers, deliver=deliver)
    for (copy, batch), whole in zip(found, expected, strict=True):
        assert same(copy, whole) and same(batch, whole)
    assert (threading.get_ident() in delivered) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_in_delivery_is_handed_on(source, workers):
    def deliver(batch):
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        take(source, 1, workers=workers, deliver=deliver)


def test_tells_what_samples_take_to_read(source, monkeypatch):
    times = ReaderTimes()
    read_into = source.read_into
    monkeypatch.setattr(source, "read_into", lambda *arguments: time.sleep(0.01) or read_into(*arguments))
    take(source, 4, batch_size=2, workers=2, times=times)
    lap = times.lap()
    assert lap.wall_s >= 8 * 0.01 and lap.blocked_s > 0.5 * lap.wall_s


def test_counts_of_other_types_are_widened_to_the_widest(store):
    source = ClipSource(store, "train", "k4", CONFIG)
    expected = [source.read(source.draw(number, seed=0)) for number in range(12)]
    blurry, voxels, sharp = source._arrays[1]

    class Wide:
        """What reads like a mapped array, of another type."""

        shape, dtype = voxels.shape, np.dtype(np.uint16)

        def __getitem__(self, selection):
            return voxels[selection].astype(np.uint16)

        def read_into(self, selection, out):
            out[...] = self[selection]

    wide = ClipSource(store, "train", "k4", CONFIG)
    wide._arrays[1] = (blurry, Wide(), sharp)
    wide._voxel_type = np.dtype(np.uint16)
    assert {draw.clip.sequence for draw in (source.draw(number, 0) for number in range(12))} == {0, 1}
    for number, sample in enumerate(expected):
        found = wide.read(wide.draw(number, seed=0))
        assert found.voxels.dtype == torch.uint16
        np.testing.assert_array_equal(found.voxels.numpy(), sample.voxels.numpy())


def test_samples_can_be_written_to(source):
    sample = source.read(source.draw(0, seed=0))
    before = source.read(source.draw(0, seed=0)).blurry.clone()
    sample.blurry.zero_()
    assert torch.equal(source.read(source.draw(0, seed=0)).blurry, before)


def test_reading_ahead_hands_errors_on(source, monkeypatch):
    def broken(draw, batch, place):
        raise StoreError("damaged shard")

    monkeypatch.setattr(source, "read_into", broken)
    for workers in (0, 1, 3):
        with pytest.raises(StoreError, match="damaged shard"):
            take(source, 1, workers=workers)


def test_refuses_a_crop_that_does_not_fit(store):
    with pytest.raises(UsageError, match=r"clip.crop=15 is not a multiple of the spikes' scale, 2"):
        ClipSource(store, "train", "k4", ClipConfig(crop=15))
    with pytest.raises(
        UsageError, match=r"clip.crop=50 is larger than the frames of .*a/blurry, 48x48"
    ) as caught:
        ClipSource(store, "train", "k4", ClipConfig(num_frames=2, crop=50))
    assert "clip.crop=48 or less" in caught.value.fix
    assert len(ClipSource(store, "train", "k4", ClipConfig(num_frames=2, crop=48))) == 8


def test_refuses_a_split_without_clips(store):
    with pytest.raises(TrainingError, match=r"no clip of 3 consecutive frames .* in split 'val'"):
        ClipSource(store, "val", "k4", CONFIG)
    with pytest.raises(TrainingError, match="in split 'test'"):
        ClipSource(store, "test", "k4", CONFIG)
    with pytest.raises(StoreError, match="no finished voxel grids 'k5'"):
        ClipSource(store, "train", "k5", CONFIG)


@pytest.mark.parametrize("changes", [{"num_frames": 0}, {"crop": 7}])
def test_refuses_settings_that_mean_nothing(changes):
    with pytest.raises(ValueError):
        ClipConfig(**changes)


def test_frames_without_a_sharp_one_are_in_no_clip(tmp_path, build):
    write_sequence(tmp_path / "raw/train/a", 6)
    write_sequence(tmp_path / "raw/train/none", 4)
    (tmp_path / "raw/train/a/sharp/1.png").unlink()
    for path in (tmp_path / "raw/train/none/sharp").iterdir():
        path.unlink()
    store = build(tmp_path)
    source = ClipSource(store, "train", "k4", CONFIG)
    assert [(clip.sequence, clip.first_frame) for clip in source.clips] == [(0, 2), (0, 3)]


def test_no_clip_spans_a_frame_that_was_set_aside(tmp_path, build):
    write_sequence(tmp_path / "raw/train/a", 8)
    (tmp_path / "raw/train/a/sharp/3.png").unlink()
    store = build(tmp_path, missing_sharp="error", quarantine=True)
    assert store.sequence("train", "a").frames == ("0", "1", "2", "4", "5", "6", "7")
    source = ClipSource(store, "train", "k4", CONFIG)
    assert [clip.first_frame for clip in source.clips] == [0, 3, 4]
    with pytest.raises(TrainingError, match="no clip of 5 consecutive frames"):
        ClipSource(store, "train", "k4", ClipConfig(num_frames=5, crop=16))


def test_a_store_without_any_sharp_frame_cannot_be_learned_from(tmp_path, build):
    write_sequence(tmp_path / "raw/train/a", 3)
    for path in (tmp_path / "raw/train/a/sharp").iterdir():
        path.unlink()
    store = build(tmp_path)
    with pytest.raises(StoreError, match="split 'train' has no sharp frames to train on"):
        ClipSource(store, "train", "k4", CONFIG)


def test_clips_with_their_sharp_instant_off_the_middle_are_not_reversed(tmp_path, build):
    write_sequence(tmp_path / "raw/train/a", 5)
    store = build(tmp_path, sharp={"rule": "index", "index": 36})
    source = ClipSource(store, "train", "k4", CONFIG)  # 13.5 spike frames off, and half a bin is 12.5
    assert not any(clip.reversible for clip in source.clips)
    assert not any(source.draw(number, seed=0).augmentation.reverse for number in range(60))


@pytest.mark.parametrize(
    ("span", "sharp", "instant"),
    [((0, 4), 0, 0.125), ((0, 4), 2, 0.625), ((7, 12), 9, 0.5), ((7, 12), 11, 0.9), ((3, 4), 3, 0.5)],
)
def test_an_instant_is_the_middle_of_its_spike_frame(span, sharp, instant):
    exposure = np.array([[0, 100], span])
    sequence = SimpleNamespace(
        exposure=exposure, sharp_index=np.array([-1, sharp]), has_sharp=np.array([False, True])
    )
    found = sharp_instants(sequence)
    assert found.dtype == np.float32 and found.tolist() == np.float32([0.5, instant]).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_tell_their_instants_and_play_backwards_wherever_these_are(tmp_path, build, workers):
    write_sequence(tmp_path / "raw/train/a", 5)
    store = build(tmp_path, sharp={"rule": "index", "index": 36})
    source = ClipSource(store, "train", "k4", CONFIG, instants=True)
    assert source.instant_range == (np.float32(0.365), np.float32(0.365))
    seen = set()
    for number, batch in enumerate(take(source, 40, workers=workers)):
        reverse = source.draw(number, seed=0).augmentation.reverse
        assert batch.instants.dtype == torch.float32 and batch.instants.shape == (1, 3)
        torch.testing.assert_close(batch.instants, torch.full((1, 3), 0.635 if reverse else 0.365))
        seen.add(reverse)
    assert seen == {False, True}


def test_instants_are_turned_with_the_clip(tmp_path, build, monkeypatch):
    write_sequence(tmp_path / "raw/train/a", 5)
    monkeypatch.setattr("pipeline.clips.sharp_instants", lambda _: np.float32([0.1, 0.2, 0.3, 0.4, 0.5]))
    source = ClipSource(build(tmp_path), "train", "k4", CONFIG, instants=True)
    for number in range(30):
        draw = source.draw(number, seed=0)
        told = [0.1 * (draw.clip.first_frame + t + 1) for t in range(3)]
        wanted = [1 - at for at in reversed(told)] if draw.augmentation.reverse else told
        assert source.read(draw).instants.tolist() == pytest.approx(wanted)


def test_to_ask_for_instants_changes_nothing_else_where_all_are_in_the_middle(store, source):
    told = ClipSource(store, "train", "k4", CONFIG, instants=True)
    for one, other in zip(take(source, 10), take(told, 10), strict=True):
        assert same(Sample(*one[:3]), Sample(*other[:3]))
        assert checksum_of([one]) == checksum_of([Sample(*one[:3])]) != checksum_of([other])


def test_a_checksum_is_of_all_bytes_in_their_order():
    def sample(*values: int) -> Sample:
        return Sample(*(torch.tensor([value, value], dtype=torch.uint8) for value in values))

    one, other = sample(1, 2, 3), sample(1, 2, 4)
    assert checksum_of([one, other]) == checksum_of([sample(1, 2, 3), sample(1, 2, 4)])
    assert len({checksum_of(some) for some in ([], [one], [other], [one, other], [other, one])}) == 5
    digits = torch.tensor([*b"123456789"], dtype=torch.uint8).split(3)
    assert checksum_of([Sample(*digits)]) == "e3069283"  # the check value of CRC-32C


def test_running_numbers_of_a_step_are_dealt_out_without_gap_or_overlap():
    how = {"batch_size": 2, "world": 3, "accumulate": 2}
    of_each = [list(batch_numbers([5], rank=rank, **how)) for rank in range(3)]
    dealt = [number for batch in range(2) for rank in range(3) for number in of_each[rank][batch]]
    assert dealt == list(range(5 * 12, 6 * 12))
