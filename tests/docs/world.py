"""The small real things that stand for the names in capitals of the pages, made when a command first needs them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.docs.pages import REPOSITORY, blocks
from tests.docs.rules import small

ONLY_HERE = {"PAIR": REPOSITORY.parent / "shared" / "data" / "gopro_spike_pair"}
"""Real recordings, which are not part of the repository."""
SCENES = ("train=2", "val=1", "test=3", "height=64", "width=64")
RIG = ("rig.num_frames=3", "rig.exposure_frames=32", "rig.gap_frames=16")
MICROSECOND = 1000
"""In nanoseconds, which is what simulated logs are in."""


class Catalogue:
    """A folder of things by the names that the pages give them; not to be changed, but copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            making = self.folder / f".{name}"
            MAKERS[name](self, making)
            making.rename(path)
        return path


class World:
    """A folder in which the commands of one page run, one after the other.

    It begins with `data_manifests` and `configs` of the repository and with the files that the page shows: a ```yaml
    block whose first line is `# my_rig.yaml` is the file my_rig.yaml. What a command reads and nothing has made yet
    comes from the catalogue.
    """

    def __init__(self, folder: Path, page: Path, catalogue: Catalogue) -> None:
        self.folder = folder
        self.catalogue = catalogue
        for name in ("data_manifests", "configs"):
            (folder / name).symlink_to(REPOSITORY / name)
        for path, text in shown_files(page).items():
            (folder / path).write_text(text)

        self._out_of_reach: set[str] = set()

    def provide(self, words: Sequence[str]) -> bool:
        """Put there what the command reads; False where that needs something that only some machines have."""
        written = {words[k + 1] for k, word in enumerate(words[:-1]) if word in ("-o", "--out")}
        for word in words[1:]:
            name = word.rpartition("=")[2].partition("/")[0]
            if name in self._out_of_reach or (name in ONLY_HERE and not ONLY_HERE[name].exists()):
                self._out_of_reach |= {path.partition("/")[0] for path in written}
                return False
            is_read = word not in written or "--resume" in words
            if is_read and name in MAKERS and not (self.folder / name).exists():
                made = self.catalogue[name]
                copy = shutil.copytree if made.is_dir() else shutil.copy
                copy(made, self.folder / name)
        return True


def shown_files(page: Path) -> dict[str, str]:
    """Files that a page shows, by their names."""
    first_lines = {block: block.text.partition("\n")[0] for block in blocks(page, "yaml")}
    return {
        line.removeprefix("# "): block.text
        for block, line in first_lines.items()
        if line.startswith("# ") and line.endswith(".yaml") and "/" not in line
    }


def make_raw(_: Catalogue, path: Path) -> None:
    """What spk simulate writes."""
    _simulate(path, *SCENES, *RIG)


def make_rig(_: Catalogue, path: Path) -> None:
    """Two recordings of an RGB camera beside a spike camera of half its size at 20 kHz."""
    raw = path.with_name(".raw-of-rig")
    _simulate(
        raw, "train=0", "val=0", "test=2", "height=96", "width=96", *RIG, "rig.rate_hz=20000", "rig.scale=2"
    )
    for source, name in zip(sorted((raw / "test").iterdir()), ("street", "walk"), strict=True):
        recording = path / name
        shutil.copytree(source / "blurry", recording / "rgb")
        shutil.copy(source / "spikes.dat", recording)
        header, *rows = (source / "exposures.csv").read_text().splitlines()
        stamps = [row.split(",") for row in rows]
        lines = [
            f"{frame},{int(start) // MICROSECOND},{int(stop) // MICROSECOND}" for frame, start, stop in stamps
        ]
        (recording / "exposures.csv").write_text("\n".join([header.replace("_ns", "_us"), *lines]) + "\n")
    shutil.rmtree(raw)


def make_store(catalogue: Catalogue, path: Path) -> None:
    from pipeline.ingest import ingest
    from pipeline.manifest import read_manifest
    from pipeline.voxelize import voxelize

    ingest(catalogue["RAW"], path, read_manifest("simulated"), workers=1)
    voxelize(path, workers=1)


def make_run(catalogue: Catalogue, path: Path) -> None:
    """A run that has finished."""
    from model.train import train

    train(_small_config(catalogue, "tiny"), path)


def make_rgb_run(catalogue: Catalogue, path: Path) -> None:
    """The same without spikes."""
    from model.train import train

    train(_small_config(catalogue, "tiny", "network.fusion=none"), path)


def make_instants_run(catalogue: Catalogue, path: Path) -> None:
    """One that is told which instant of an exposure to restore."""
    from model.train import train

    train(_small_config(catalogue, "tiny", "network.instants=true"), path)


def make_checkpoint(catalogue: Catalogue, path: Path) -> None:
    shutil.copy(catalogue["RUN"] / "checkpoints" / "best.safetensors", path)


def make_published(catalogue: Catalogue, path: Path) -> None:
    """Weights of an RGB network as their authors publish them, of the size that the rules make all networks."""
    import torch

    from model.network import build_network

    config = _small_config(catalogue, "base", "network.fusion=none")
    torch.save({"params": build_network(config.network, 32).state_dict()}, path)


def make_plan(catalogue: Catalogue, path: Path) -> None:
    """A plan for this machine, with figures that nothing measured."""
    from model.planning.device import device_of
    from model.planning.plan import write_plan
    from tests.model.planning.test_plan import PLAN

    config = _small_config(catalogue, "base")
    write_plan(
        path,
        replace(PLAN, config=config, device=device_of("cpu"), measured=replace(PLAN.measured, peak_bytes=1)),
    )


def make_camera(_: Catalogue, path: Path) -> None:
    """A manifest for RAW, as its owner would write it."""
    text = (REPOSITORY / "data_manifests" / "simulated.yaml").read_text()
    path.write_text(text.replace("name: simulated", "name: my_camera"))


def make_photos(_: Catalogue, path: Path) -> None:
    """Three sharp pictures."""
    import numpy as np

    from pipeline.images import write_png
    from pipeline.simulation.textures import random_texture

    path.mkdir()
    for seed in range(3):
        texture = random_texture(np.random.default_rng(seed), 128, 20)[:3]
        write_png(path / f"photo_{seed}.png", (texture * 255).astype(np.uint8))


def make_gopro(_: Catalogue, path: Path) -> None:
    """GoPro-spike with pictures of 48x64."""
    from tests.test_data_manifests import gopro_spike
    from tests.test_data_manifests import small as small_data_set

    made = small_data_set("gopro_spike", path)
    path.mkdir()
    gopro_spike(made)


def make_pair(_: Catalogue, path: Path) -> None:
    """A real exposure of GoPro-spike, beside its sharp frame."""
    shutil.copytree(ONLY_HERE["PAIR"], path)


def make_demo(catalogue: Catalogue, path: Path) -> None:
    """What spk demo leaves behind."""
    parts = {"raw": "RAW", "store": "STORE", "runs/fused": "RUN", "runs/rgb_only": "RGB_RUN"}
    for inner, name in parts.items():
        shutil.copytree(catalogue[name], path / inner)


def make_film(catalogue: Catalogue, path: Path) -> None:
    """The blurry frames of FILE.dat as a video."""
    import av
    from PIL import Image

    frames = sorted((catalogue["RIG"] / "walk" / "rgb").iterdir())
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(Image.open(frame))))
        container.mux(stream.encode())


def make_folder(_: Catalogue, path: Path) -> None:
    path.mkdir()


def _of_rig(inner: str) -> Callable[[Catalogue, Path], None]:
    def make(catalogue: Catalogue, path: Path) -> None:
        shutil.copy(catalogue["RIG"] / "walk" / inner, path)

    return make


MAKERS: dict[str, Callable[[Catalogue, Path], None]] = {
    "RAW": make_raw,
    "RIG": make_rig,
    "GOPRO": make_gopro,
    "PAIR": make_pair,
    "MY_PHOTOS": make_photos,
    "FILE.dat": _of_rig("spikes.dat"),
    "LOG.csv": _of_rig("exposures.csv"),
    "my_camera.yaml": make_camera,
    "STORE": make_store,
    "RUN": make_run,
    "RGB_RUN": make_rgb_run,
    "INSTANTS_RUN": make_instants_run,
    "CKPT": make_checkpoint,
    "published.pth": make_published,
    "006_VRT_videodeblurring_GoPro.pth": make_published,
    "plan.json": make_plan,
    "gopro.json": make_plan,
    "my_video.mp4": make_film,
    "spk-demo": make_demo,
    "FOLDER": make_folder,
}
"""By the name in the pages, how it is made, at a path that does not exist yet."""


def _simulate(path: Path, *settings: str) -> None:
    from pipeline.config import from_overrides
    from pipeline.simulate import simulate_scenes
    from pipeline.simulation.scenes import SceneConfig

    simulate_scenes(path, from_overrides(SceneConfig, settings), workers=1)


def _small_config(catalogue: Catalogue, preset: str, *settings: str):
    from cli.presets import config_path
    from model.training.config import TrainConfig
    from pipeline.config import load_config

    _, _, _, *overrides = small(["spk", "train", preset, f"store={catalogue['STORE']}", *settings])
    return load_config(TrainConfig, config_path(Path(preset)), overrides)
