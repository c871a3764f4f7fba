"""Running `spk` inside the test process, and looking at what it says."""

import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cli.main import main

# Before torch is loaded, and for the commands that tests start: tensors this small only lose time to more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PACKAGES = ("cli", "model", "pipeline")
CAMPAIGN = "campaign"


class Ran(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that is all of stdout."""
        assert self.code == 0, self.err
        value = json.loads(self.out)
        assert isinstance(value, dict) and self.out.count("\n") == 1
        return value

    def assert_fails(self, code: int, *words: str) -> None:
        """It ended with `code` and one readable block that holds all `words`; nothing was printed to stdout."""
        assert self.code == code, f"exit code {self.code}, stderr:\n{self.err}"
        assert (
            self.err.count("error: ") == 1 and "Traceback" not in self.err and "this is a bug" not in self.err
        ), self.err
        missing = [word for word in words if word not in self.err]
        assert not missing, f"{missing} not in:\n{self.err}"
        assert self.out == ""


@pytest.fixture
def spk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Ran]]:
    """Run a command line, given as words, in a folder of its own: commands may leave pictures where they run.

    The state of `logging`, which it sets up, is put back afterwards.
    """
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in PACKAGES}

    def run(*words: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return Ran(int(caught.value.code or 0), printed.out, printed.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings beside the repository."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}")
    return folder


@pytest.fixture(scope="session")
def small_scenes() -> list[str]:
    """Settings of `spk simulate scenes` for a data set of kilobytes: four sequences of three frames."""
    rig = ["rig.num_frames=3", "rig.exposure_frames=16", "rig.gap_frames=4"]
    return ["train=2", "val=1", "test=1", "height=48", "width=48", "objects=[1,1]", *rig]


@pytest.fixture(scope="session")
def small_training() -> list[str]:
    """Changes to the preset `tiny` for a run of a second."""
    network = {
        "embed_dims": "[4, 4, 4, 4, 4, 4, 4, 4]",
        "num_heads": "[1, 1, 1, 1, 1, 1, 1, 1]",
        "window": "[2, 2, 2]",
        "deformable_groups": "1",
        "spike_channels": "[4, 4, 4, 4]",
        "spike_heads": "1",
        "fusion_heads": "1",
    }
    often = ["log_every=1", "checkpoint_every=2", "validate_every=2", "sample_every=4", "validate_crop=32"]
    clips = ["steps=4", "clip.num_frames=2", "clip.crop=16", "optim.warmup_steps=1"]
    return [*clips, *often, *(f"network.{key}={value}" for key, value in network.items())]


@pytest.fixture
def campaign(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Callable[..., str]:
    """Put one line of a campaign's figures into pytest's summary: `campaign(n=200, silent=0, seed=7)`."""

    def report(name: str = "", /, **figures: object) -> str:
        numbers = " ".join(f"{key}={value}" for key, value in figures.items())
        line = f"campaign={name or request.node.name.removeprefix('test_')} {numbers}"
        record_property(CAMPAIGN, line)
        return line

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line of figures for each campaign that was run, whether it passed or not."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = [str(value) for report in reports for key, value in report.user_properties if key == CAMPAIGN]
    if lines:
        terminalreporter.section("campaigns")
    for line in lines:
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def moving_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated recordings of moving scenes, five exposures of 32 spike frames each; not to be changed."""
    from pipeline.config import from_overrides
    from pipeline.simulate import simulate_scenes
    from pipeline.simulation.scenes import SceneConfig

    raw = tmp_path_factory.mktemp("moving") / "raw"
    rig = ["rig.num_frames=5", "rig.exposure_frames=32", "rig.gap_frames=16"]
    settings = ["train=2", "val=0", "test=1", "height=64", "width=64", *rig]
    simulate_scenes(raw, from_overrides(SceneConfig, settings), seed=5)
    return raw


@pytest.fixture(scope="session")
def shift_log() -> Callable[..., None]:
    """Move the exposures of a simulated sequence's log by `offset` spike frames, and by `drift` more every frame."""

    def shift(sequence: Path, offset: int, drift: int = 0, frame_ns: int = 250_000) -> None:
        log = sequence / "exposures.csv"
        header, *rows = log.read_text().splitlines()
        moved = [header]
        for k, row in enumerate(rows):
            frame, *stamps = row.split(",")
            moved.append(",".join([frame, *(str(int(t) + (offset + k * drift) * frame_ns) for t in stamps)]))
        log.write_text("\n".join(moved) + "\n")

    return shift


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Write (N, 3, H, W) uint8 frames as a video: without loss unless another codec is asked for."""
    av = pytest.importorskip("av", reason="PyAV (the video extra) is not installed")

    def write(path: Path, frames: Any, codec: str = "ffv1", pixels: str = "bgr0", **settings: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=settings.get("options", {}))
            stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], pixels
            stream.codec_context.gop_size = settings.get("group", 6)
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(frame.transpose(1, 2, 0).copy(), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """A local S3 server, in a process of its own."""
    for package in ("obstore", "moto", "flask_cors"):
        pytest.importorskip(package, reason=f"{package} (the test extra) is not installed")
    from tests.s3_server import S3Server

    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket, `s3://…`, on the local server, which the environment names; with a cache of its own."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPK_CACHE", str(tmp_path / "spk-cache"))
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_server.make_bucket(bucket)
    return f"s3://{bucket}"


class Cluster:
    """A Dask scheduler and workers, each a process of its own, none of them where the test runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.nannies: list[subprocess.Popen[bytes]] = []
        self._port = "0"

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    def start(self, workers: int = 2) -> "Cluster":
        """Start a scheduler, at the same port if there was one before, and workers."""
        note = self.folder / "scheduler.json"
        note.unlink(missing_ok=True)
        where = ("--host", "127.0.0.1", "--port", self._port, "--scheduler-file", note)
        self.scheduler = self._run("scheduler", *where)
        self._wait(lambda: note.is_file() and note.read_text().rstrip().endswith("}"))
        self._port = json.loads(note.read_text())["address"].rpartition(":")[2]
        for _ in range(workers):
            self.add_worker()
        return self

    def add_worker(self, *, nanny: bool = False) -> None:
        """Start one, which with a nanny is started again when it dies."""
        kind = "--nanny" if nanny else "--no-nanny"
        worker = self._run("worker", self.address, "--nthreads", "1", "--host", "127.0.0.1", kind)
        (self.nannies if nanny else self.workers).append(worker)

    def stop(self) -> None:
        """End all of them; a nanny ends the worker that it looks after when it is asked to end."""
        for process in self.nannies:
            process.terminate()
            process.wait(30)
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            process.kill()
            process.wait()

    def _run(self, kind: str, *words: object) -> subprocess.Popen[bytes]:
        places = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
        code = f"import sys; sys.path[:0] = {places}; from distributed.cli.dask_{kind} import main; main()"
        command = [sys.executable, "-c", code, *map(str, words), "--no-dashboard"]
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def _wait(self, is_so: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, (self.folder / "scheduler.log").read_text()
            time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """To be started with `start`."""
    pytest.importorskip("distributed")
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()
