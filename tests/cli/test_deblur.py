"""`spk deblur`: a recording's own files give what its store would, to the bit; and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.metrics import to_rgb8
from model.parallel import Parallel
from model.repeatable import inference
from model.restorer import load_restorer
from model.tiling import Tiling, restore_tiled
from pipeline.images import read_rgb
from pipeline.store import open_store
from pipeline.video import open_video

CPU = torch.device("cpu")


@pytest.fixture
def files(made_raw: Path) -> list[object]:
    """The recording of the split test, as options."""
    folder = made_raw / "test" / "test_0000"
    return [
        "--video",
        folder / "blurry",
        "--spikes",
        folder / "spikes.dat",
        "--log",
        folder / "exposures.csv",
    ]


@pytest.fixture(scope="module")
def from_store(store: Path, trained: Path) -> np.ndarray:
    """Its frames, restored as `spk evaluate` does from the store."""
    restorer = load_restorer(trained, Parallel(device=CPU))
    sequence = open_store(store).sequence("test", "test_0000")
    tiling = Tiling(tile=256, num_frames=restorer.num_frames, overlap_frames=1)
    with inference():
        restored = restore_tiled(restorer, sequence.blurry, sequence.voxels("k4"), tiling)
        return np.stack([to_rgb8(frame).numpy() for frame in restored])


def test_own_files_give_what_a_store_gives_bit_for_bit(spk, trained, files, from_store, tmp_path):
    out = tmp_path / "out"
    ran = spk("deblur", trained, *files, "--manifest", "simulated", "-o", out, "--json").json
    assert (ran["frames"], ran["written"], ran["quarantined"], ran["dry_run"]) == (3, 3, [], False)
    assert ran["physics"]["cause"] is None and ran["seconds"] > 0
    assert sorted(path.name for path in out.iterdir()) == [*(f"00000{k}.png" for k in range(3)), "deblur.json",
                                                           "side_by_side"]  # fmt: skip
    np.testing.assert_array_equal(np.stack([read_rgb(out / f"00000{k}.png") for k in range(3)]), from_store)
    assert len(list((out / "side_by_side").iterdir())) == 3


def test_from_a_video_to_a_video(
    spk, trained, files, from_store, tmp_path, write_video: Callable[..., Path], made_raw: Path
):
    images = sorted((made_raw / "test" / "test_0000" / "blurry").iterdir())
    files[1] = write_video(tmp_path / "mine.mkv", np.stack([read_rgb(path) for path in images]))
    out = tmp_path / "out.mkv"
    settings = ["rate_hz=4000", "height=48", "width=48", "fps=12"]
    ran = spk("deblur", trained, *files, *settings, "-o", out, "--json").json
    assert "lossless" in ran["encoding"]
    video = open_video(out)
    np.testing.assert_array_equal(np.stack(list(video.read(0, 3))), from_store)
    assert video.rate_hz == 12 and open_video(Path(ran["side_by_side"])).length == 3
    assert Path(ran["record"]) == tmp_path / "out.deblur.json"
    spk("deblur", trained, *files, *settings, "-o", out).assert_fails(2, "out.mkv: is there already")


def test_a_dry_run_says_what_would_be_done(spk, trained, files, tmp_path):
    ran = spk("deblur", trained, *files, "-m", "simulated", "-o", tmp_path / "out", "--dry-run")
    assert ran.code == 0 and "would restore 3 frames, in tiles as memory allows" in ran.out
    assert not (tmp_path / "out").exists()


def test_frames_left_out_are_listed_with_exit_code_3(spk, trained, raw, tmp_path):
    folder = raw / "test" / "test_0000"
    log = folder / "exposures.csv"
    log.write_text("\n".join(log.read_text().splitlines()[:3]) + "\n")
    command = ["deblur", trained, "--video", folder / "blurry", "--spikes", folder / "spikes.dat", "--log", log,
               "-m", "simulated", "-o", tmp_path / "out"]  # fmt: skip
    spk(*command).assert_fails(1, "frame 000002", "has no row", "--quarantine")
    ran = spk(*command, "--quarantine")
    assert ran.code == 3 and "set aside" in ran.out
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["heigth=48"], ("heigth=48: no such setting", "did you mean height?")),
        (["48"], ("48: expected KEY=VALUE",)),
        (["tile=20"], ("tile 20",)),
        (["--at", "0.5,2"], ("--at 0.5,2",)),
        (["--at", "0.5"], ("none that --at names", "network.instants=true")),
        (["--resume"], ("nothing here to go on with",)),
        (["rule=every", "window=4"], ("which of them",)),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(spk, trained, files, tmp_path, words, said):
    command = ["deblur", trained, *files, "-m", "simulated", "-o", tmp_path / "out"]
    spk(*command, *words).assert_fails(2, *said)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_a_folder_to_go_on_with(spk, trained, files, tmp_path, monkeypatch):
    from model.deblurring.outputs import FrameFolder

    add = FrameFolder.add

    def interrupted(self, index, images, panels):
        add(self, index, images, panels)
        raise KeyboardInterrupt

    command = ["deblur", trained, *files, "-m", "simulated", "-o", tmp_path / "out"]
    monkeypatch.setattr(FrameFolder, "add", interrupted)
    ran = spk(*command)
    assert ran.code == 75 and "--resume" in ran.out
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert spk(*command, "--resume", "--json").json["written"] == 2


def test_frames_of_another_scene_are_warned_of(spk, trained, moving_raw, tmp_path):
    mine, other = moving_raw / "test" / "test_0000", moving_raw / "train" / "train_0000"
    shutil.copytree(other / "blurry", tmp_path / "frames")
    options = [
        "--video",
        tmp_path / "frames",
        "--spikes",
        mine / "spikes.dat",
        "--log",
        mine / "exposures.csv",
    ]
    ran = spk(
        "deblur", trained, *options, "rate_hz=4000", "flip=vertical", "-o", tmp_path / "out", "--dry-run"
    )
    assert ran.code == 0 and "frames do not fit the spikes" in ran.err
