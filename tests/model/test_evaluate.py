"""The verb evaluate, on a small made-up store and networks whose scores are known beforehand."""

import csv
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import evaluate as verb
from model import restorer
from model.evaluate import evaluate
from model.evaluation.config import EvaluateConfig
from model.evaluation.protocols import PROTOCOLS
from model.lpips import Lpips
from pipeline.errors import CheckpointError, SpkError, StoreError, UsageError
from pipeline.images import read_rgb
from pipeline.stats import Normalization

SCALE, BINS, HEIGHT, WIDTH = 2, 8, 32, 48
NORMALIZATION = Normalization(num_bins=BINS, transform="count", mean=0.0, std=1.0, num_values=1)


@dataclass
class FakeSequence:
    name: str
    num_frames: int
    without_sharp: tuple[int, ...] = ()
    blurry: Any = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(len(self.name) + self.num_frames)
        shape = (self.num_frames, 3, HEIGHT, WIDTH)
        self.frames = tuple(f"{i:06d}" for i in range(self.num_frames))
        self.sharp = rng.integers(20, 200, shape, dtype=np.uint8)
        self.blurry = self.sharp + 10
        self.counts = rng.integers(
            0, 5, (self.num_frames, BINS, HEIGHT // SCALE, WIDTH // SCALE), dtype=np.uint8
        )
        self.exposure = np.stack(
            [np.arange(self.num_frames) * 40, np.arange(self.num_frames) * 40 + 32], axis=1
        )
        self.sharp_index = self.exposure.mean(axis=1).astype(np.int64)
        self.sharp_index[list(self.without_sharp)] = -1
        self.has_sharp = self.sharp_index >= 0
        self.runs = ((0, self.num_frames),)
        self.attributes, self.light = {}, ()

    def voxels(self, name: str) -> np.ndarray:
        return self.counts


class FakeStore:
    path, name, fingerprint, scale = Path("fake.zarr"), "fake <b>set</b>", "f00d", SCALE
    place = "fake.zarr"

    def __init__(self, sequences: list[FakeSequence], voxel_names: tuple[str, ...] = ("k8",)) -> None:
        self.splits = {"train": ("x",), "val": (), "test": tuple(s.name for s in sequences)}
        self.found, self.voxel_names = sequences, voxel_names

    def sequences(self, split: str) -> list[FakeSequence]:
        return self.found if split == "test" else []

    def voxel_name(self, wanted: str | None = None) -> str:
        if wanted not in self.voxel_names:
            raise StoreError(f"no voxel grids {wanted!r}")
        return wanted


class Darken(nn.Module):
    """Takes `levels` of 255 off the blurry frame, which was made by adding 10: 10 is perfect."""

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels, self.voxels_seen = levels, []

    def forward(self, blurry: Tensor, voxels: Tensor | None) -> Tensor:
        assert not torch.is_grad_enabled() and not self.training
        self.voxels_seen.append(None if voxels is None else tuple(voxels.shape))
        return blurry - self.levels / 255


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A store of two sequences, and checkpoints by name: what they load as can be changed."""
    made = SimpleNamespace(
        store=FakeStore([FakeSequence("s1", 6), FakeSequence("seq2", 3, without_sharp=(1,))]),
        networks={"good": Darken(9), "poor": Darken(3), "perfect": Darken(10)},
        info={},
    )

    def load(path: Path) -> tuple[nn.Module, SimpleNamespace]:
        info = {
            "path": path,
            "step": 1200,
            "config": {"clip": {"num_frames": 4}, "network": {"fusion": "cross_attention"}},
            "num_bins": BINS,
            "scale": SCALE,
            "voxels": "k8",
            "normalization": NORMALIZATION,
            "store": {"fingerprint": "0ld"},
            "averaged": True,
            "header": {"digest": "sha256:00"},
        }
        return made.networks[path.name], SimpleNamespace(**(info | made.info))

    monkeypatch.setattr(restorer, "load_network", load)
    monkeypatch.setattr(verb, "open_store", lambda path: made.store)
    return made


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_scores_are_those_worked_out_by_hand(bench: SimpleNamespace, tmp_path: Path) -> None:
    report = evaluate(Path("good"), Path("s"), tmp_path, compare={"rgb_only": Path("poor")})
    one_off, seven_off, ten_off = (20 * math.log10(255 / error) for error in (1, 7, 10))
    found = report.to_json()
    assert found["protocols"]["rgb8-all"]["psnr"] == pytest.approx(one_off, abs=1e-9)
    assert found["protocols"]["rgb8-all"]["frames"] == 8  # nine, one of them without a sharp frame
    assert found["baselines"]["rgb_only"]["psnr"] == pytest.approx(seven_off, abs=1e-9)
    assert found["baselines"]["blurry"]["psnr"] == pytest.approx(ten_off, abs=1e-9)
    assert found["report"] == str(tmp_path / "rgb8-all" / "report.html")
    assert [row["name"] for row in report.rows] == ["restored", "rgb_only", "spike_only", "blurry"]
    assert report.rows[0]["psnr"] == found["protocols"]["rgb8-all"]["psnr"]
    json.dumps(found, allow_nan=False)


def test_every_file_is_written_and_the_tables_agree(bench: SimpleNamespace, tmp_path: Path) -> None:
    report = evaluate(Path("good"), Path("s"), tmp_path)
    folder = tmp_path / "rgb8-all"
    assert sorted(p.name for p in folder.iterdir()) == [
        "log.txt",
        "per_frame.csv",
        "per_sequence.csv",
        "report.html",
        "summary.json",
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"] == "rgb8-all" and summary["store"]["fingerprint"] == "f00d"
    assert (summary["frames"], summary["unscored_frames"], summary["sequences"]) == (9, 1, 2)
    assert summary["networks"]["restored"]["step"] == 1200
    frames = rows_of(folder / "per_frame.csv")
    assert len(frames) == 8 * 3
    mine = [float(row["psnr"]) for row in frames if row["method"] == "spike_only"]
    assert summary["methods"]["spike_only"]["psnr"] == pytest.approx(sum(mine) / len(mine), abs=1e-6)
    assert ("seq2", "000001") not in {(row["sequence"], row["frame"]) for row in frames}
    sequences = {(row["sequence"], row["method"]): row for row in rows_of(folder / "per_sequence.csv")}
    assert (sequences["seq2", "restored"]["frames"], sequences["seq2", "restored"]["scored"]) == ("3", "2")
    assert report.report.read_text().count("rgb8-all") >= 4


def test_pictures_show_the_middle_frames_with_or_without_a_sharp_one(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    evaluate(Path("good"), Path("s"), tmp_path)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["s1_000003.png", "seq2_000001.png"]
    with_sharp, without = (
        read_rgb(tmp_path / "samples" / name) for name in ("s1_000003.png", "seq2_000001.png")
    )
    larger = 6  # times 48 pixels across is 288, the first above 256
    assert with_sharp.shape[2] == 8 + 4 * (WIDTH * larger + 8)  # blurry, restored, sharp, spikes
    assert without.shape[2] == 8 + 3 * (WIDTH * larger + 8)
    blurry = with_sharp[:, 28 : 28 + 32 * larger : larger, 8 : 8 + 48 * larger : larger]
    assert (blurry == bench.store.found[0].blurry[3]).all()


def test_the_spikes_reach_the_network_and_only_one_that_takes_them(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    evaluate(Path("good"), Path("s"), tmp_path)
    shapes = set(bench.networks["good"].voxels_seen)
    assert shapes == {
        (1, 4, BINS, HEIGHT // SCALE, WIDTH // SCALE),
        (1, 3, BINS, HEIGHT // SCALE, WIDTH // SCALE),
    }
    bench.info = {"config": {"clip": {"num_frames": 4}, "network": {"fusion": "none"}}, "num_bins": 99}
    evaluate(Path("poor"), Path("s"), tmp_path)
    assert set(bench.networks["poor"].voxels_seen) == {None}


def test_a_perfect_network_is_reported_as_such_and_not_as_a_number(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    report = evaluate(Path("perfect"), Path("s"), tmp_path)
    found = report.to_json()["protocols"]["rgb8-all"]
    assert (found["psnr"], found["identical"], found["frames"]) == (None, 8, 8)
    assert found["ssim"] == pytest.approx(1, abs=1e-12)
    page = report.report.read_text()
    assert "∞" in page and "left out of its means" in page
    assert {
        r["psnr"] for r in rows_of(tmp_path / "rgb8-all" / "per_frame.csv") if r["method"] == "restored"
    } == {"inf"}


def test_a_split_without_any_sharp_frame_is_restored_but_not_scored(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    bench.store = FakeStore([FakeSequence("s", 2, without_sharp=(0, 1))])
    report = evaluate(Path("good"), Path("s"), tmp_path)
    found = report.to_json()["protocols"]["rgb8-all"]
    assert (found["psnr"], found["ssim"], found["sequence_psnr"], found["frames"]) == (None, None, None, 0)
    assert "2 of 2 frames have no sharp frame" in report.report.read_text()
    assert (tmp_path / "samples" / "s_000001.png").is_file()


def test_the_same_input_gives_the_same_bytes(bench: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate(Path("good"), Path("s"), tmp_path / name, EvaluateConfig(tile=32, overlap=8))
    first, second = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in "ab"
    )
    clocks = [files.pop(Path("timing.json")) for files in (first, second)]
    assert first == second
    assert all(json.loads(text)["frames"] == 9 for text in clocks)


def test_several_protocols_are_scored_in_one_pass(
    bench: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = evaluate(Path("good"), Path("s"), tmp_path, EvaluateConfig(protocols=tuple(PROTOCOLS)))
    found = report.to_json()["protocols"]
    assert list(found) == list(PROTOCOLS)
    assert len(bench.networks["good"].voxels_seen) == 3  # clips, once each: two of s1 and one of seq2
    assert [r.args for r in caplog.records if "takes none" in r.message] == [("shiftnet-48",)]
    one_off = 20 * math.log10(255)
    for name, numbers in found.items():
        assert (tmp_path / name / "summary.json").is_file()
        if name == "shiftnet-48":  # no sequence is long enough
            assert (numbers["frames"], numbers["psnr"]) == (0, None)
        elif PROTOCOLS[name].needs_sharp:
            assert numbers["frames"] == 8 and numbers["psnr"] == pytest.approx(one_off, abs=1e-4)
    assert found["rgb8-change"]["psnr_change"] is None  # one level off in every frame: the change is perfect
    change = {
        r["frame"]: r for r in rows_of(tmp_path / "rgb8-change" / "per_frame.csv") if r["sequence"] == "seq2"
    }
    assert [row["psnr_change"] for row in change.values()] == ["", ""]  # frame 1 has no sharp one


def test_the_log_has_a_line_a_sequence_while_it_runs_and_afterwards(
    bench: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        evaluate(Path("good"), Path("s"), tmp_path)
    said = [record.getMessage() for record in caplog.records if record.name == "model.evaluate"]
    written = (tmp_path / "rgb8-all" / "log.txt").read_text().splitlines()
    assert said == written[1:] and written[0].startswith("rgb8-all: clamped")
    assert said[0] == "Testing s1                   ( 1/2) - PSNR: 48.13 dB; SSIM: 1.0000"
    assert said[-1] == "Average PSNR: 48.13 dB; SSIM: 1.0000"


def test_lpips_is_scored_with_the_weights_given(bench: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "alex.pth"
    state = {name.replace("heads.", "lin"): value for name, value in Lpips("alex").state_dict().items()}
    heads = {
        f"{name}.model.1.weight": torch.ones_like(state.pop(name)) for name in list(state) if "lin" in name
    }
    config = EvaluateConfig(protocols=("lpips-alex",), lpips_weights=(path,))
    torch.save(heads, path)
    with pytest.raises(CheckpointError, match=r"lpips-alex: .*no weights of its network there"):
        evaluate(Path("good"), Path("s"), tmp_path, config)
    torch.save(state | heads, path)
    report = evaluate(Path("good"), Path("s"), tmp_path, config, compare={"poor": Path("poor")})
    values = {row["name"]: row["lpips"] for row in report.rows}
    assert 0 < values["restored"] < values["poor"]


def test_timing_is_told_beside_the_scores(bench: SimpleNamespace, tmp_path: Path) -> None:
    timing = evaluate(Path("good"), Path("s"), tmp_path).to_json()["timing"]
    assert timing == json.loads((tmp_path / "timing.json").read_text())
    assert timing["seconds"] >= timing["seconds_networks"] + timing["seconds_scores"] > 0
    assert timing["peak_memory_bytes"] > 0


def test_tiles_do_not_change_the_scores(bench: SimpleNamespace, tmp_path: Path) -> None:
    whole = evaluate(Path("good"), Path("s"), tmp_path / "a", EvaluateConfig(tile=None, num_frames=20))
    tiled = evaluate(
        Path("good"), Path("s"), tmp_path / "b", EvaluateConfig(tile=16, overlap=8, num_frames=2)
    )
    assert whole.results.scores == tiled.results.scores


def test_progress_counts_every_frame(bench: SimpleNamespace, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(Path("good"), Path("s"), tmp_path, progress=lambda done, total, what: seen.append((done, total)))
    assert seen == [(i, 9) for i in range(1, 10)]


def test_a_split_without_sequences_names_those_there_are(bench: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(Path("good"), Path("s"), tmp_path, EvaluateConfig(split="val"))
    wanted = "split 'val' has no sequences; there are: train (1 sequence), test (2 sequences)"
    assert caught.value.problem.endswith(wanted) and caught.value.fix == "--split train"
    bench.store.splits = dict.fromkeys(bench.store.splits, ())
    with pytest.raises(UsageError, match="there are: none at all"):
        evaluate(Path("good"), Path("s"), tmp_path, EvaluateConfig(split="val"))


def test_a_recording_without_rgb_is_refused(bench: SimpleNamespace, tmp_path: Path) -> None:
    bench.store.found[1].blurry = None
    with pytest.raises(UsageError, match="test/seq2 has no blurry frames"):
        evaluate(Path("good"), Path("s"), tmp_path)


def test_other_bins_than_the_network_takes_are_refused(bench: SimpleNamespace, tmp_path: Path) -> None:
    bench.info = {"num_bins": 32}
    with pytest.raises(UsageError, match=r"takes voxel grids of 32 bins; k8 of fake\.zarr has 8") as caught:
        evaluate(Path("good"), Path("s"), tmp_path)
    assert "--bins 32" in caught.value.fix


def test_voxels_the_store_lacks_are_refused(bench: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="k9"):
        evaluate(Path("good"), Path("s"), tmp_path, EvaluateConfig(voxels="k9"))


def test_a_tile_off_the_scale_is_refused_with_one_that_fits(bench: SimpleNamespace, tmp_path: Path) -> None:
    bench.store.scale = 3
    with pytest.raises(UsageError, match=r"tile 256 is not a multiple of fake\.zarr's scale 3") as caught:
        evaluate(Path("good"), Path("s"), tmp_path)
    assert caught.value.fix == "tile=240"


@pytest.mark.parametrize("name", ["restored", "blurry", "sharp", ""])
def test_names_of_fixed_methods_cannot_be_taken(bench: SimpleNamespace, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is taken"):
        evaluate(Path("good"), Path("s"), tmp_path, compare={name: Path("poor")})


def test_a_network_that_gives_nan_is_an_error_with_the_frame(bench: SimpleNamespace, tmp_path: Path) -> None:
    bench.networks["good"].levels = math.nan
    with pytest.raises(CheckpointError, match=r"good: restoring s1/000000: .*NaN"):
        evaluate(Path("good"), Path("s"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_the_normalization_it_needs_is_refused(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    bench.info = {"normalization": None}
    with pytest.raises(CheckpointError, match="lacks the normalization"):
        evaluate(Path("good"), Path("s"), tmp_path)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_running_out_of_memory_for_good_is_told_without_a_traceback(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def starve(*arguments: Any) -> Tensor:
        raise error

    monkeypatch.setattr(Darken, "forward", starve)
    with pytest.raises(SpkError, match="out of memory even with tiles") as caught:
        evaluate(Path("good"), Path("s"), tmp_path)
    assert "num_frames" in caught.value.fix


def test_another_scale_than_in_training_is_warned_about(
    bench: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.info = {"scale": 4}
    with caplog.at_level(logging.WARNING):
        evaluate(Path("good"), Path("s"), tmp_path)
    assert "trained at scale 4" in caplog.text


class DarkenBySpikes(nn.Module):
    """Takes twice the mean count of a clip off the blurry frame, in levels of 255; 10 is perfect."""

    def forward(self, blurry: Tensor, voxels: Tensor | None) -> Tensor:
        assert voxels is not None
        return blurry - 2 * voxels.mean() / 255


ABLATE = EvaluateConfig(ablate=("spikes=zero", "spikes=shuffle", "spikes=rate:½"), thresholds=(1, 2, 4))


def test_other_spikes_are_more_rows_with_their_difference_to_restored(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    for sequence in bench.store.found:
        sequence.counts[...] = 4
    bench.networks["good"] = DarkenBySpikes()
    report = evaluate(Path("good"), Path("s"), tmp_path, ABLATE, compare={"rgb_only": Path("poor")})
    eight_off, none_off = (20 * math.log10(255 / error) for error in (10 - 8, 10))
    assert [row["name"] for row in report.rows] == [
        "restored",
        "spikes=zero",
        "spikes=shuffle",
        "spikes=rate:1/2",
        "threshold 2",
        "threshold 4",
        "rgb_only",
        "spike_only",
        "spike_only threshold 2",
        "spike_only threshold 4",
        "blurry",
    ]
    by_name = {row["name"]: row["psnr"] for row in report.rows}
    assert by_name["restored"] == by_name["spikes=shuffle"] == pytest.approx(eight_off, abs=1e-6)
    assert by_name["spikes=zero"] == by_name["blurry"] == pytest.approx(none_off, abs=1e-6)
    assert (
        by_name["threshold 2"]
        == by_name["spikes=rate:1/2"]
        == pytest.approx(20 * math.log10(255 / 6), abs=1e-6)
    )
    spikes = report.to_json()["spikes"]
    assert spikes["ignored"] is False
    assert spikes["text"] == "The spikes are worth 13.98 dB of mean PSNR: so much is lost with spikes=zero."
    assert spikes["differences"]["spikes=zero"]["psnr"] == pytest.approx(none_off - eight_off, abs=1e-6)
    summary = json.loads((tmp_path / "rgb8-all" / "summary.json").read_text())
    assert summary["spikes"] == spikes and summary["methods"]["threshold 4"]["frames"] == 8
    assert summary["ablations"]["spikes=shuffle"] == {
        "spikes": {"s1": "those of seq2", "seq2": "those of s1"},
        "left_out_frames": 0,
    }
    assert len(rows_of(tmp_path / "rgb8-all" / "per_frame.csv")) == 8 * 11


def test_a_network_that_ignores_its_spikes_is_said_to(bench: SimpleNamespace, tmp_path: Path) -> None:
    report = evaluate(Path("good"), Path("s"), tmp_path, ABLATE)
    assert report.to_json()["spikes"]["ignored"] is True
    assert report.to_json()["spikes"]["text"].startswith(
        "The network ignores its spikes: with spikes=zero and"
    )
    assert "spikes" not in evaluate(Path("good"), Path("s"), tmp_path).to_json()


def test_spikes_of_a_network_without_any_cannot_be_changed(bench: SimpleNamespace, tmp_path: Path) -> None:
    bench.info = {"config": {"clip": {"num_frames": 4}, "network": {"fusion": "none"}}}
    with pytest.raises(UsageError, match="poor: takes no spikes"):
        evaluate(Path("poor"), Path("s"), tmp_path, ABLATE)
    assert not list(tmp_path.iterdir())


def test_names_of_changed_spikes_cannot_be_taken(bench: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'threshold 2' is taken"):
        evaluate(Path("good"), Path("s"), tmp_path, ABLATE, compare={"threshold 2": Path("poor")})


def test_frames_without_a_sharp_one_have_scores_of_their_own(bench: SimpleNamespace, tmp_path: Path) -> None:
    config = EvaluateConfig(protocols=("rgb8-all", "no-reference"))
    found = evaluate(Path("good"), Path("s"), tmp_path, config).to_json()["protocols"]
    assert (found["rgb8-all"]["frames"], found["no-reference"]["frames"]) == (8, 9)
    summary = json.loads((tmp_path / "no-reference" / "summary.json").read_text())
    assert summary["unscored_frames"] == 0 and "psnr" not in summary["methods"]["restored"]
    assert set(rows_of(tmp_path / "no-reference" / "per_frame.csv")[0]) >= {"psnr_reblur", "spikes"}
