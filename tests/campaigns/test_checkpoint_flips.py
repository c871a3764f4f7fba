"""Bits flipped, and files cut short, deleted, swapped, in what a run is gone on from: never used as if nothing were."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.checkpoint import CheckpointFolder, find_checkpoint, read_info
from model.checkpoint_file import load_tensors
from model.parallel import Parallel
from model.training.config import TrainConfig
from model.training.provenance import identity_of
from model.training.run_folder import RunFolder, require_same
from model.training.same_run import tensors_digest
from pipeline.clips import ClipSource
from pipeline.config import load_config
from pipeline.errors import SpkError
from pipeline.store import open_store
from tests.campaigns.damage import CHANGES, drawn_bits, flip

SEED = 20261203
SMALL, FULL = 20, 2000
QUICK = ("truncated", "swapped", "overwritten with another")


class Told(logging.Handler):
    """Whether anything was said."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Findings:
    """What became of damage.

    Attributes:
        n: trials; refused: of these, the ones in which the file itself could not be read.
        announced: uses of the run folder that took another checkpoint, or another setting, and said so.
        harmless: uses of the folder that gave what they would have given.
        silent: files read, or uses of the folder, that gave something else and said nothing.
        crashed: readings that ended in an error that only programmers can read.
    """

    n: int = 0
    refused: int = 0
    announced: int = 0
    harmless: int = 0
    silent: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, object]:
        return {name: len(value) if isinstance(value, list) else value for name, value in vars(self).items()}


def checkpoint_digest(path: Path) -> str:
    """A digest of all that a checkpoint file gives to those who read it."""
    info = read_info(path)
    return f"{info.step} {info.header['digest']} {tensors_digest(load_tensors(path))}"


def start_of(run: Path) -> str:
    """What the run would be gone on with."""
    start = CheckpointFolder(run / "checkpoints").load_last()
    assert start is not None
    return checkpoint_digest(start.path)


def best_of(run: Path) -> str:
    """What `spk evaluate RUN` would evaluate."""
    return checkpoint_digest(find_checkpoint(run))


def settings_of(run: Path) -> str:
    """What `spk train RUN/config.yaml -o RUN --resume` would be told."""
    config = load_config(TrainConfig, run / "config.yaml", [])
    store = open_store(config.store)
    source = ClipSource(store, "train", store.voxel_name(config.voxels), config.clip)
    identity = identity_of(config, store, source, Parallel(device=torch.device("cpu")))
    start = RunFolder(run).find_start(resume=True)
    assert start is not None
    require_same(run, start.header["identity"], identity)
    return repr(config)


USES: dict[str, Callable[[Path], str]] = {"start": start_of, "best": best_of, "settings": settings_of}


@dataclass(frozen=True)
class Whole:
    """A finished run, and what using it gives while nothing is wrong."""

    run: Path
    used: dict[str, str]
    files: dict[str, str]

    def look(self, findings: Findings, changed: list[Path], what: str) -> None:
        """Use the run, some files of which are not as they were, and count what comes of it."""
        findings.n += 1
        for path in changed:
            if path.name.startswith("step_") and path.exists():  # `last` and `best` may be names of any
                self._count(findings, checkpoint_digest, path, self.files[path.name], f"{what}, read")
        for name, use in USES.items():
            self._count(findings, use, self.run, self.used[name], f"{what}, {name}")

    def _count(
        self, findings: Findings, use: Callable[[Path], str], place: Path, wanted: str, what: str
    ) -> None:
        told = Told()
        loggers = [logging.getLogger(name) for name in ("model", "pipeline")]
        for logger in loggers:
            logger.addHandler(told)
        try:
            found = use(place)
        except SpkError:
            findings.refused += 1
        except BaseException as error:  # a panic in a library is no Exception
            findings.crashed.append(f"{what}: {error!r}")
        else:
            if found == wanted:
                findings.harmless += 1
            elif told.lines and place == self.run:
                findings.announced += 1
            else:
                findings.silent.append(what)
        finally:
            for logger in loggers:
                logger.removeHandler(told)


@pytest.fixture(scope="module")
def made(trainings, tmp_path_factory) -> Whole:
    run = tmp_path_factory.mktemp("made") / "run"
    ended = trainings.run(run, "steps=6", "checkpoint_every=2", "validate_every=3", "network.fusion=none")
    assert ended.code == 0, ended
    for log in ("log.txt", "metrics.jsonl", "run.json"):  # nothing is gone on from these
        (run / log).unlink()
    shutil.rmtree(run / "tensorboard")
    files = {path.name: checkpoint_digest(path) for path in (run / "checkpoints").iterdir()}
    return Whole(run, {name: use(run) for name, use in USES.items()}, files)


@pytest.fixture
def whole(made, tmp_path) -> Whole:
    copy_with_links(made.run, tmp_path / "run")
    return replace(made, run=tmp_path / "run")


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Let the loggers of the program hear everything."""
    loggers = [logging.getLogger(name) for name in ("model", "pipeline")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def flip_often(whole: Whole, count: int) -> Findings:
    """Flip one bit at a time of a checkpoint or the settings, use the run, and put the bit back."""
    findings, rng = Findings(), np.random.default_rng(SEED)
    for path, bit in drawn_bits(whole.run, rng, count):
        data = path.read_bytes()
        path.write_bytes(flip(data, bit))
        whole.look(findings, [path], f"bit {bit} of {path.name}")
        path.write_bytes(data)
    return findings


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_flipped_bits_are_never_silent(count, whole, campaign):
    findings = flip_often(whole, count)
    campaign("bit flips in a run", **findings.figures, seed=SEED)
    assert (findings.silent, findings.crashed) == ([], [])
    assert findings.refused and findings.announced


def test_flipped_bits_are_silent_where_digests_are_not_compared(whole, monkeypatch, campaign):
    """Teeth: with the digest of a checkpoint not compared, the same campaign finds weights that are wrong."""
    monkeypatch.setattr(checkpoint, "verify", lambda path, digest: None)
    findings = flip_often(whole, SMALL)
    campaign("bit flips in a run, no digests", **findings.figures, seed=SEED)
    assert findings.silent


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in CHANGES]
)
def test_changed_files_are_never_silent(kind, made, whole, campaign):
    """Each checkpoint, by each of its names, and the settings."""
    findings, rng = Findings(), np.random.default_rng([SEED, list(CHANGES).index(kind)])
    files = [whole.run / "config.yaml", *sorted((whole.run / "checkpoints").iterdir())]
    for path in files:
        changed = CHANGES[kind](path, files, rng)
        whole.look(findings, changed, f"{path.name} {kind}")
        shutil.rmtree(whole.run)
        copy_with_links(made.run, whole.run)
    campaign(f"files of a run {kind}", **findings.figures, seed=SEED)
    assert (findings.silent, findings.crashed) == ([], [])
    assert findings.refused + findings.announced, "nothing was noticed"


def copy_with_links(source: Path, target: Path) -> None:
    """Copy a folder; what was one file under two names is so in the copy."""
    copies: dict[int, Path] = {}
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            inode = path.stat().st_ino
            if inode in copies:
                os.link(copies[inode], place)
            else:
                copies[inode] = Path(shutil.copyfile(path, place))
