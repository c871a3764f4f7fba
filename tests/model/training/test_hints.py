import functools
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.training.hints import Hints, Reading, long_pauses, reading_of, slow_data
from pipeline.clips import Sample, batches
from pipeline.reader_times import ReaderTimes, Readings
from pipeline.store import open_store
from tests.model.test_train import store  # noqa: F401
from tests.model.training.test_runlog import METRICS

READING = Reading(
    store="/data/store", folder=Path("/data/store"), codec="none", workers=2, processors=8, epoch_steps=5
)
UNPACKING = Readings(wall_s=20.0, cpu_s=19.0, queued_s=0.5)
HELD_UP = Readings(wall_s=20.0, cpu_s=2.0, queued_s=1.0, disk_bytes=120_000_000)
CROWDED = Readings(wall_s=20.0, cpu_s=8.0, queued_s=11.0)
IDLE = Readings(wall_s=2.0, cpu_s=1.9)


def test_threads_that_unpack_all_the_time_need_company() -> None:
    hint = slow_data(READING, UNPACKING, 10.0, 0.5)
    assert hint.startswith(
        "50% of the time is spent waiting for clips: the 2 reading threads are busy unpacking"
    )
    assert hint.endswith(
        "busy unpacking and copying 100% of the time: set workers=5"
    )  # 20 s of reading in 5 s


def test_no_more_threads_than_processors_and_no_codec_that_is_none_already() -> None:
    assert slow_data(replace(READING, processors=3), UNPACKING, 10.0, 0.9).endswith(": set workers=3")
    full = replace(READING, processors=2)
    assert "its 2 processors cannot read more" in slow_data(full, UNPACKING, 10.0, 0.5)
    packed = slow_data(replace(full, codec="lz4"), UNPACKING, 10.0, 0.5)
    assert "need not be unpacked (spk voxelize /data/store --codec none --name raw, voxels=raw)" in packed
    assert "workers=" not in packed
    counted = slow_data(replace(full, codec="virtual"), UNPACKING, 10.0, 0.5)
    assert "need not be counted (spk voxelize /data/store --codec none" in counted


def test_threads_that_are_held_up_name_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "model.training.hints.mount_of", lambda path: f"server:/export (nfs4 at {path.parent})"
    )
    hint = slow_data(READING, HELD_UP, 10.0, 0.5, early=True)
    assert (
        "held up 85% of the reading time by the disk: 12 MB/s came from server:/export (nfs4 at /data)"
        in hint
    )
    assert all(
        word in hint for word in ("copy /data/store", "--virtual", "--codec lz4", "workers=4", "first epoch")
    )
    later = slow_data(replace(READING, codec="virtual"), HELD_UP, 10.0, 0.5)
    assert "--virtual" not in later and "first epoch" not in later


def test_no_disk_is_blamed_from_which_nothing_came() -> None:
    hint = slow_data(READING, HELD_UP._replace(disk_bytes=0), 10.0, 0.5)
    assert "by no disk of this machine" in hint and "MB/s" not in hint
    remote = replace(READING, store="s3://bucket/store")
    assert "copy s3://bucket/store to a faster disk of this machine" in slow_data(remote, HELD_UP, 10.0, 0.5)


def test_processors_that_others_use_and_steps_that_are_too_short() -> None:
    assert "others use the 8 processors" in slow_data(READING, CROWDED, 10.0, 0.5)
    assert "busy only 10% of the time: steps are too short" in slow_data(READING, IDLE, 10.0, 0.5)
    idle_and_held_up = Readings(wall_s=2.0, cpu_s=0.5)
    assert "steps are too short" in slow_data(READING, idle_and_held_up, 10.0, 0.5)
    assert "by the disk" in slow_data(READING, idle_and_held_up._replace(disk_bytes=1000), 10.0, 0.5)
    one = replace(READING, workers=1)
    assert "the reading thread is busy unpacking" in slow_data(one, UNPACKING, 20.0, 0.5)


def test_reading_in_the_thread_that_trains_is_named() -> None:
    assert "set workers=2 or more" in slow_data(replace(READING, workers=0), UNPACKING, 10.0, 0.9)


@pytest.mark.parametrize(
    ("share", "every", "rarer"), [(0.5, 100, 2000), (0.2, 1000, 5000), (0.9, 1, 200), (0.21, 5000, 30_000)]
)
def test_long_pauses_are_made_rare(share: float, every: int, rarer: int) -> None:
    hint = long_pauses("validation", share, "validate_every", every, "a smaller validate_clips")
    assert hint == (
        f"{share:.0%} of the time so far went to validation: validate_every={rarer} makes it 5%; "
        "or a smaller validate_clips"
    )
    worth = share / (1 - share) * every / rarer  # pauses over steps, then
    assert worth / (1 + worth) <= 0.05


class Said:
    """Hints, and the log lines they are given."""

    def __init__(self, **changes: Any) -> None:
        self.now = 0.0
        self.times = ReaderTimes()
        self.hints = Hints(
            replace(READING, **changes),
            self.times,
            start=100,
            validate_every=50,
            checkpoint_every=10,
            clock=lambda: self.now,
        )

    def line(self, step: int, **changes: Any) -> None:
        self.hints.on_step(replace(METRICS, step=step, **changes))


def test_each_hint_is_given_once_and_the_first_line_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    said = Said()
    with caplog.at_level(logging.INFO):
        said.line(110, data_share=0.9)
        assert not caplog.messages
        said.line(120, data_share=0.2)
        assert not caplog.messages
        said.line(130, data_share=0.3)
        said.line(140, data_share=0.3)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("hint: 30% of the time")


def test_pauses_are_judged_when_the_session_is_long_enough(caplog: pytest.LogCaptureFixture) -> None:
    said = Said()
    with caplog.at_level(logging.INFO):
        said.line(110, validation_share=0.5, saving_share=0.3, data_share=0.0)
        assert not caplog.messages
        said.now = 61.0
        for step in (120, 130):
            said.line(step, validation_share=0.5, saving_share=0.3, data_share=0.0)
    first, second = caplog.messages
    assert "to validation: validate_every=1000" in first and "to checkpoints: checkpoint_every=90" in second


class Slow:
    """A source that takes its time in a way of its choice."""

    def __init__(self, take: Callable[[], object]) -> None:
        self.take = take

    def draw(self, number: int, seed: int) -> int:
        return number

    def room(self, batch_size: int, *, pinned: bool) -> Sample:
        return Sample(*(torch.zeros(batch_size, 1) for _ in range(3)))

    def read_into(self, number: int, batch: Sample, place: int) -> None:
        self.take()


def compute() -> None:
    until = time.thread_time() + 0.02
    data = bytes(1 << 18)
    while time.thread_time() < until:
        hashlib.sha256(data).digest()  # lets go of the interpreter, as unpacking does


@pytest.mark.parametrize(
    ("take", "words"),
    [(functools.partial(time.sleep, 0.02), "held up"), (compute, ("busy unpacking", "others use"))],
)
def test_a_slow_disk_is_told_from_slow_unpacking(
    take: Callable[[], object], words: str | tuple[str, str]
) -> None:
    times = ReaderTimes()
    clips = batches(Slow(take), seed=0, start_step=0, batch_size=1, workers=1, times=times)  # type: ignore[arg-type]
    started = time.perf_counter()
    for _ in itertools.islice(clips, 15):
        pass
    seconds = time.perf_counter() - started
    clips.close()  # type: ignore[attr-defined]
    hint = slow_data(replace(READING, workers=1), times.lap(), seconds, 0.9)
    found = [word for word in ([words] if isinstance(words, str) else words) if word in hint]
    assert found, hint  # on a machine that is in use, unpacking may wait for a processor


def test_looks_at_how_a_store_is_read(store: Path) -> None:  # noqa: F811
    opened = open_store(store)
    reading = reading_of(opened, opened.voxel_names[0], workers=3, epoch_steps=7)
    assert reading == Reading(
        store=str(store),
        folder=store,
        codec="none",
        workers=3,
        processors=len(os.sched_getaffinity(0)),
        epoch_steps=7,
    )
