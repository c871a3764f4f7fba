from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from model.evaluation.pictures import SMALLEST_PANEL
from model.training.samples import Example, SamplePictures, examples
from pipeline.clips import Sample

SIDE = 8
LARGER = SMALLEST_PANEL // SIDE
GAP, LABEL = 8, 20


def clip(value: int = 10) -> Sample:
    """Three frames, of which only the middle one is not black; spikes in the middle bins of its left half only."""
    blurry = torch.zeros(1, 3, 3, SIDE, SIDE, dtype=torch.uint8)
    blurry[:, 1] = value
    voxels = torch.zeros(1, 3, 12, SIDE // 2, SIDE // 2, dtype=torch.uint8)
    voxels[:, 1, 5:7, :, :2] = 3
    return Sample(blurry, voxels, torch.full_like(blurry, 200))


def restore(network: nn.Module, sample: Sample) -> Tensor:
    return torch.full(sample.blurry.shape, 0.2)


def test_shows_the_middle_frames_blurry_restored_sharp_and_spikes(tmp_path: Path) -> None:
    shown: list[tuple[int, tuple[int, ...]]] = []
    clips = [Example("val/a", clip(10)), Example("val/b", clip(90))]
    pictures = SamplePictures(
        tmp_path, clips, restore, lambda step, picture: shown.append((step, picture.shape))
    )
    pictures.on_pictures(30, nn.Identity())
    found = np.asarray(Image.open(tmp_path / "step_000030.png"))
    panel = SIDE * LARGER
    assert found.shape == (GAP + 2 * (panel + LABEL + GAP), GAP + 4 * (panel + GAP), 3)
    assert shown == [(30, (3, *found.shape[:2]))]
    for row, blurry in ((0, 10), (1, 90)):
        y = GAP + row * (panel + LABEL + GAP) + LABEL + panel // 2
        at = [found[y, GAP + column * (panel + GAP) + panel // 4].tolist() for column in range(4)]
        assert at == [[blurry] * 3, [51] * 3, [200] * 3, [255] * 3]
        assert found[y, GAP + 3 * (panel + GAP) + 3 * panel // 4].tolist() == [0] * 3


def test_labels_tell_step_score_and_place(tmp_path: Path, monkeypatch) -> None:
    told: list[str] = []

    def sheet(images, labels, columns):
        told.extend(labels)
        return np.zeros((3, 4, 4), np.uint8)

    monkeypatch.setattr("model.training.samples.contact_sheet", sheet)
    SamplePictures(tmp_path, [Example("val/a", clip())], restore).on_pictures(30, nn.Identity())
    # 20 log10(255 / 190) and 20 log10(255 / 149)
    assert told == ["blurry  2.56 dB", "restored  4.67 dB  step 30", "sharp  val/a", "spikes"]


def test_values_that_are_not_finite_are_drawn_black(tmp_path: Path) -> None:
    broken = SamplePictures(
        tmp_path, [Example("a", clip())], lambda n, s: torch.full(s.blurry.shape, float("nan"))
    )
    broken.on_pictures(1, nn.Identity())
    assert (tmp_path / "step_000001.png").is_file()


def window(name: str, start: int) -> SimpleNamespace:
    return SimpleNamespace(sequence=SimpleNamespace(split="val", name=name), start=start)


def chosen(windows: list[SimpleNamespace], count: int) -> list[tuple[str, int]]:
    validator = SimpleNamespace(windows=windows, read=lambda it: it)
    found = examples(validator, None, count, seed=0)
    assert all(example.name == f"val/{example.sample.sequence.name}" for example in found)
    return [(example.sample.sequence.name, example.sample.start) for example in found]


def test_examples_are_of_different_sequences_as_long_as_there_are_enough() -> None:
    windows = [window(name, start) for name in "abcd" for start in (0, 5, 10)]
    assert chosen(windows, 2) == [("a", 5), ("c", 5)]
    assert chosen(windows, 4) == [("a", 5), ("b", 5), ("c", 5), ("d", 5)]
    assert chosen(windows[:3], 2) == [("a", 0), ("a", 5)]


def test_without_anything_to_validate_they_are_clips_to_learn_from() -> None:
    class Source:
        def __len__(self) -> int:
            return 2

        def batch(self, numbers: range, seed: int) -> tuple[range, int]:
            return numbers, seed

    found = examples(SimpleNamespace(windows=[]), Source(), 3, seed=7)
    assert found == [("from training", (range(1), 7)), ("from training", (range(1, 2), 7))]


def test_the_spikes_are_those_around_the_instant_of_the_sharp_frame(tmp_path: Path) -> None:
    panel = SIDE * LARGER
    y, x = GAP + LABEL + panel // 2, GAP + 3 * (panel + GAP) + panel // 4
    for instant, shown in ((0.5, 255), (0.05, 0)):
        told = clip()._replace(instants=torch.full((1, 3), instant))
        SamplePictures(tmp_path, [Example("a", told)], restore).on_pictures(1, nn.Identity())
        assert np.asarray(Image.open(tmp_path / "step_000001.png"))[y, x].tolist() == [shown] * 3
