"""The verb, with a network that is traced in a moment; real ones are in tests/model/exporting."""

from pathlib import Path

import pytest
import torch

from model.export import ExportConfig, export
from model.exporting.standalone import Standalone
from pipeline.errors import ParityError, StoreError, UsageError
from tests.model.exporting.conftest import restorer  # noqa: F401 - a fixture

SMALL = ExportConfig(size=(16, 16))


@pytest.fixture
def checkpoint(restorer, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """What `load_restorer` reads, whatever it is given."""
    made = restorer()
    monkeypatch.setattr("model.export.load_restorer", lambda path, place: made)
    return made.info.path


def test_writes_one_file_and_says_what_it_found(checkpoint: Path, tmp_path: Path) -> None:
    steps = []
    report = export(
        checkpoint, tmp_path / "out" / "x.pt2", SMALL, progress=lambda *step: steps.append(step[2])
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.pt2"]
    assert report.num_bytes == report.file.stat().st_size
    assert report.agreements[0].max_difference < 1e-6 and report.timing.ratio > 0
    assert report.no_real_clip == "the checkpoint names no store"
    assert steps == ["reading", "tracing", "writing", "checking", "timing"]
    module = torch.export.load(report.file).module()
    assert module(torch.rand(1, 2, 3, 16, 16), torch.ones(1, 2, 4, 16, 16)).shape == (1, 2, 3, 16, 16)


def test_a_program_that_computes_something_else_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(made):
        return Standalone(made.network, None)  # forgets to normalize

    monkeypatch.setattr("model.export.standalone", wrong)
    with pytest.raises(ParityError, match="differs from the network by") as error:
        export(checkpoint, tmp_path / "x.pt2", SMALL)
    assert error.value.exit_code == 4 and list(tmp_path.iterdir()) == []


def test_a_dry_run_traces_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.export.trace", None)
    report = export(checkpoint, tmp_path / "x.pt2", ExportConfig(frames=3, size=(32, 16)), dry_run=True)
    assert report.about["inputs"]["blurry"]["shape"] == [1, 3, 3, 32, 16]
    assert report.agreements == () and report.timing is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [("x.pt", "programs are .pt2 or .onnx"), ("there.pt2", "already")]
)
def test_refuses_other_kinds_of_file_and_one_that_is_there(
    name: str, words: str, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.pt2").write_bytes(b"mine")
    with pytest.raises(UsageError, match=words):
        export(checkpoint, tmp_path / name, SMALL)
    assert (tmp_path / "there.pt2").read_bytes() == b"mine"


def test_a_store_that_is_asked_for_has_to_be_there(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        export(checkpoint, tmp_path / "x.pt2", SMALL, store=tmp_path / "none", dry_run=True)
