"""Frames restored piece by piece: the same wherever one begins, and however long the recording is, no more memory."""

import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.deblurring.frames import Panels, restored_frames
from model.metrics import to_rgb8
from model.tiling import Tiling
from pipeline.config import from_overrides
from pipeline.errors import CheckpointError
from pipeline.own_recording import OwnRecording, open_own_recording
from pipeline.own_settings import OwnFiles
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig

BINS = 3


class Adding:
    """A network that looks at single pixels only: it makes a frame brighter where there are spikes."""

    takes_spikes = True
    place = SimpleNamespace(device=torch.device("cpu"))
    info = SimpleNamespace(num_bins=BINS, path=Path("best.safetensors"))

    def __call__(self, blurry, counts, instants=None):
        instant = 0.0 if instants is None else instants[..., None, None, None]
        return blurry / 255 * 0.5 + 0.01 * counts.sum(dim=2, keepdim=True) + 0.1 * instant


@pytest.fixture(scope="module")
def recording(moving_raw) -> OwnRecording:
    return opened(moving_raw / "test" / "test_0000")


def opened(folder: Path, *settings: str) -> OwnRecording:
    files = {"video": folder / "blurry", "spikes": folder / "spikes.dat", "log": folder / "exposures.csv"}
    return open_own_recording(OwnFiles(**files, settings=("rate_hz=4000", *settings)))


def test_every_frame_is_restored_once_from_its_own_exposure(recording):
    found = list(
        restored_frames(recording, Adding(), Tiling(tile=32, overlap=16, num_frames=3, overlap_frames=1))
    )
    assert [index for index, _ in found] == list(range(5))
    counts = recording.voxels(BINS)
    for index, images in found:
        blurry, voxels = (
            torch.tensor(recording.blurry[index : index + 1]),
            torch.tensor(counts[index : index + 1]),
        )
        expected = to_rgb8(Adding()(blurry[None], voxels[None])[0, 0])
        np.testing.assert_array_equal(images[0], expected.numpy())


@pytest.mark.parametrize("since", [1, 2, 3, 4, 5])
def test_going_on_gives_the_same_frames(recording, since):
    tiling = Tiling(num_frames=3, overlap_frames=1)
    whole = list(restored_frames(recording, Adding(), tiling, (0.2, 0.8)))
    rest = list(restored_frames(recording, Adding(), tiling, (0.2, 0.8), since=since))
    assert [index for index, _ in rest] == list(range(since, 5))
    for (_, images), (_, expected) in zip(rest, whole[since:], strict=True):
        np.testing.assert_array_equal(images, expected)


def test_values_that_are_not_finite_are_the_checkpoints_fault(recording):
    broken = Adding()
    broken.__class__ = type(
        "Broken", (Adding,), {"__call__": lambda self, b, c: torch.full(b.shape, torch.nan)}
    )
    with pytest.raises(CheckpointError, match=r"best\.safetensors: restoring 000000"):
        next(restored_frames(recording, broken, Tiling()))


def test_pictures_show_all_three_with_equally_bright_spikes(recording):
    panels = Panels(recording)
    pictures = [panels.picture(k, recording.blurry[k], None) for k in range(5)]
    assert len({picture.shape for picture in pictures}) == 1
    assert pictures[0].shape[2] > 3 * 64
    assert panels._white == Panels(recording)._white > 0


@pytest.fixture
def long_and_short(tmp_path) -> dict[int, OwnRecording]:
    """Recordings of the same scene, the one ten times as long as the other."""
    made = {}
    for count in (10, 100):
        rig = [f"rig.num_frames={count}", "rig.exposure_frames=8", "rig.gap_frames=2"]
        settings = ["train=0", "val=0", "test=1", "height=64", "width=64", "objects=[1,1]", *rig]
        simulate_scenes(tmp_path / str(count), from_overrides(SceneConfig, settings))
        shutil.rmtree(tmp_path / str(count) / "test" / "test_0000" / "sharp")
        made[count] = opened(tmp_path / str(count) / "test" / "test_0000", "height=64", "width=64")
    return made


def test_memory_does_not_grow_with_the_recording(long_and_short):
    peaks = {}
    for count, recording in long_and_short.items():
        panels = Panels(recording)
        tracemalloc.start()
        for index, images in restored_frames(recording, Adding(), Tiling(num_frames=4)):
            panels.picture(index, images[0], None)
            assert len(recording.blurry._kept) <= 4
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    more = 90 * 3 * 64 * 64  # bytes of the frames that the one has more
    assert peaks[100] - peaks[10] < more / 3
