import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from model.parallel import Parallel
from model.training.validation import IDENTICAL_DB, Validator, spread, windows_of
from pipeline.clips import Sample
from pipeline.errors import TrainingError

CPU = Parallel(device=torch.device("cpu"))


@dataclass
class FakeSequence:
    """As much of a sequence as validation looks at."""

    num_frames: int
    has_sharp: npt.NDArray[np.bool_]
    size: tuple[int, int] = (16, 24)
    scale: int = 2
    seed: int = 0
    split: str = "val"
    name: str = "a"
    arrays: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    runs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        self.runs = self.runs or ((0, self.num_frames),)
        rng = np.random.default_rng(self.seed)
        height, width = self.size
        for name, shape in (("blurry", (3, height, width)), ("sharp", (3, height, width)),
                            ("voxels", (4, height // self.scale, width // self.scale))):  # fmt: skip
            self.arrays[name] = rng.integers(0, 256, (self.num_frames, *shape), dtype=np.uint8)
        self.blurry, self.sharp = self.arrays["blurry"], self.arrays["sharp"]
        start = 10 * np.arange(self.num_frames)
        self.exposure = np.stack([start, start + 8], axis=1)
        self.sharp_index = np.where(self.has_sharp, start + np.arange(self.num_frames) % 8, -1)

    def voxels(self, name: str) -> npt.NDArray[np.uint8]:
        assert name == "k4"
        return self.arrays["voxels"]


def sequence(frames: int, without_sharp: tuple[int, ...] = (), **more: object) -> FakeSequence:
    return FakeSequence(frames, np.array([i not in without_sharp for i in range(frames)]), **more)


def blurry_itself(network: nn.Module, sample: Sample) -> Tensor:
    return sample.blurry.float() / 255


def validator(*sequences: FakeSequence, **changes: object) -> Validator:
    settings = {
        "num_frames": 3,
        "crop": None,
        "max_clips": None,
        "scale": 2,
        "restore": blurry_itself,
        "place": CPU,
    }
    return Validator(sequences, "k4", **settings | changes)  # type: ignore[arg-type]


def plain_psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("frames", [2, 3, 7, 9])
def test_is_the_mean_over_every_frame_that_has_a_sharp_one(frames: int) -> None:
    one = sequence(frames, without_sharp=(1,))
    wanted = [plain_psnr(one.blurry[i], one.sharp[i]) for i in range(frames) if i != 1]
    result = validator(one)(nn.Identity())
    assert result.frames == len(wanted)
    assert result.psnr == pytest.approx(np.mean(wanted), abs=1e-9)


def test_the_last_clip_ends_with_the_sequence_and_scores_only_what_is_new() -> None:
    found = [(w.start, w.stop, w.scored) for w in windows_of(sequence(7), 3)]
    assert found == [(0, 3, (0, 1, 2)), (3, 6, (3, 4, 5)), (4, 7, (6,))]


def test_no_clip_spans_a_gap_and_yet_every_frame_is_scored_once() -> None:
    broken = sequence(9, without_sharp=(8,), runs=((0, 4), (4, 6), (6, 7), (7, 9)))
    assert [(w.start, w.stop, w.scored) for w in windows_of(broken, 3)] == [
        (0, 3, (0, 1, 2)),
        (1, 4, (3,)),
        (4, 6, (4, 5)),
        (6, 7, (6,)),
        (7, 9, (7,)),
    ]
    whole = sequence(9, without_sharp=(8,))
    assert validator(broken)(nn.Identity()) == pytest.approx(validator(whole)(nn.Identity()))


def test_a_short_sequence_is_one_clip_and_one_without_sharp_frames_none() -> None:
    assert [(w.start, w.stop) for w in windows_of(sequence(2), 3)] == [(0, 2)]
    assert not validator(sequence(3, without_sharp=(0, 1, 2))).windows


@pytest.mark.parametrize(
    ("crop", "rows", "columns"), [(None, (0, 16), (0, 24)), (9, (4, 12), (8, 16)), (16, (0, 16), (4, 20))]
)
def test_looks_at_the_centre_aligned_to_the_spikes(
    crop: int | None, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    one = sequence(3)
    check = validator(one, crop=crop)
    sample = check.read(check.windows[0])
    assert np.array_equal(sample.blurry[0], one.blurry[:, :, slice(*rows), slice(*columns)])
    assert np.array_equal(
        sample.voxels[0],
        one.arrays["voxels"][:, :, rows[0] // 2 : rows[1] // 2, columns[0] // 2 : columns[1] // 2],
    )


def test_a_cap_takes_clips_from_all_over_the_sequence() -> None:
    assert [w.start for w in validator(sequence(30), max_clips=3).windows] == [0, 9, 18]
    assert spread([], 3) == []


def test_processes_share_the_work() -> None:
    one = sequence(9)
    shares = [Parallel(device=torch.device("cpu"), rank=rank, world=2) for rank in range(2)]
    totals = []
    for place in shares:
        seen: list[float] = []
        check = validator(one, place=place)
        check.place = _Recorder(place, seen)  # type: ignore[assignment]
        check(nn.Identity())
        totals.append(seen)
    score, frames = np.sum(totals, axis=0)
    whole = validator(one)(nn.Identity())
    assert frames == whole.frames and score / frames == pytest.approx(whole.psnr)


class _Recorder:
    def __init__(self, place: Parallel, seen: list[float]) -> None:
        self.rank, self.world, self.device, self.seen = place.rank, place.world, place.device, seen

    def any(self, here: bool) -> bool:
        return here

    def sum(self, values: Tensor) -> Tensor:
        self.seen.extend(values.tolist())
        return values


def test_a_request_to_stop_ends_it_before_the_next_clip_and_there_is_no_result() -> None:
    restored: list[Sample] = []

    def restore(network: nn.Module, sample: Sample) -> Tensor:
        restored.append(sample)
        return blurry_itself(network, sample)

    check = validator(sequence(9), restore=restore)
    assert check(nn.Identity(), lambda: len(restored) == 2) is None
    assert len(restored) == 2
    assert check(nn.Identity()) == validator(sequence(9))(nn.Identity())


@pytest.mark.parametrize("asked", [0, 1])
def test_processes_agree_to_end_it_though_one_has_nothing_left_to_do(asked: int) -> None:
    """Three clips: the second of two processes has none in the last round, and yet it is asked."""
    meeting = threading.Barrier(2)
    votes, results, rounds = [False, False], [[], []], [0, 0]

    class Meeting:
        device, world = torch.device("cpu"), 2

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def any(self, here: bool) -> bool:
            votes[self.rank] = here
            rounds[self.rank] += 1
            meeting.wait(10)
            answer = any(votes)
            meeting.wait(10)
            return answer

        def sum(self, values: Tensor) -> Tensor:
            raise AssertionError("there is nothing to sum")

    def take_part(rank: int) -> None:
        check = validator(sequence(9), place=Meeting(rank))
        results[rank].append(check(nn.Identity(), lambda: rank == asked and rounds[rank] == 1))

    threads = [threading.Thread(target=take_part, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [[None], [None]] and rounds == [2, 2]


def test_a_frame_that_becomes_identical_raises_the_mean() -> None:
    one = sequence(3)
    before = [plain_psnr(one.blurry[i], one.sharp[i]) for i in range(3)]
    best = int(np.argmax(before))
    one.sharp[best] = one.blurry[best]
    rest = [value for i, value in enumerate(before) if i != best]
    found = validator(one)(nn.Identity())
    assert found.frames == 3 and found.psnr == pytest.approx((sum(rest) + IDENTICAL_DB) / 3)
    one.sharp[:] = one.blurry
    assert validator(one)(nn.Identity()) == (IDENTICAL_DB, 3)


def test_a_network_that_gives_nan_is_an_error() -> None:
    check = validator(sequence(3), restore=lambda network, sample: sample.blurry.float() * float("nan"))
    with pytest.raises(TrainingError, match=r"not finite on val/a frames 0\.\.2"):
        check(nn.Identity())
