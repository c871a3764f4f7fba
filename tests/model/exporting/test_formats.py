"""Programs as files, read back as users do: a stage of the network, and whole networks where there is time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.exporting.formats import load_onnx, load_pt2, operators, require_packages, to_onnx, to_pt2, trace
from model.exporting.parity import agree, random_clip
from model.exporting.standalone import ClipShape, Standalone, standalone
from model.restorer import Restorer
from pipeline.errors import SpkError, UsageError
from tests.model.exporting.conftest import Piece, small_network

ABOUT = {"checkpoint": {"digest": "sha256:0123"}}
SHAPE = ClipShape(frames=2, height=8, width=8, num_bins=None, scale=1)
USER = """
import io, json, sys, torch
extra = {"spk.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
inputs = torch.load(sys.argv[2])
torch.save(program(*inputs), sys.argv[3])
assert not {"model", "pipeline", "cli"} & set(sys.modules)
print(json.loads(extra["spk.json"])["checkpoint"]["digest"])
"""


@pytest.fixture(scope="module")
def traced() -> torch.export.ExportedProgram:
    return trace(Standalone(Piece().eval(), None), SHAPE)


@pytest.fixture
def without_spikes(restorer) -> Restorer:
    return restorer(Piece(), takes_spikes=False)


def test_a_program_holds_no_kernel_or_operator_of_ours(traced: torch.export.ExportedProgram) -> None:
    assert operators(traced) <= {"aten", "_operator"}
    names = " ".join(str(node.target) for node in traced.graph.nodes)
    assert "scaled_dot_product_attention" in names and "grid_sampler" in names


def test_refuses_what_would_need_this_code_to_run() -> None:
    @torch.library.custom_op("test_formats::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    twice.register_fake(torch.empty_like)

    class Ours(torch.nn.Module):
        def forward(self, blurry: torch.Tensor, voxels: torch.Tensor | None = None) -> torch.Tensor:
            return twice(blurry)

    with pytest.raises(SpkError, match="operators of test_formats"):
        trace(Standalone(Ours(), None), SHAPE)


def test_a_pt2_file_runs_where_this_code_is_not(
    traced: torch.export.ExportedProgram, without_spikes: Restorer, tmp_path: Path
) -> None:
    clip = random_clip(SHAPE)
    (tmp_path / "x.pt2").write_bytes(to_pt2(traced, ABOUT))
    torch.save(tuple(clip.inputs.values()), tmp_path / "in.pt")
    files = [tmp_path / name for name in ("x.pt2", "in.pt", "out.pt")]
    done = subprocess.run(
        [sys.executable, "-c", USER, *files], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "sha256:0123"
    restored = torch.load(tmp_path / "out.pt")
    assert agree(without_spikes, lambda inputs: restored, [clip], 1e-6)


def test_an_onnx_file_computes_the_same(
    traced: torch.export.ExportedProgram, without_spikes: Restorer
) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime (the export extra) is not installed")
    content = to_onnx(traced, ABOUT, None)
    assert agree(without_spikes, load_onnx(content), [random_clip(SHAPE)], 1e-5)
    model = onnx.load_from_string(content)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["spk"]) == ABOUT and metadata["checkpoint"] == "sha256:0123"
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    assert str(Path(__file__).parents[3]).encode() not in content  # no trace of the code that made it


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"flow": "spynet"}, {"fusion": "none"}], ids=str)
def test_a_whole_network_computes_the_same_in_both_formats(changes: dict[str, str], restorer) -> None:
    spikes = "fusion" not in changes
    made = restorer(small_network(**changes), takes_spikes=spikes)
    shape = ClipShape(frames=2, height=24, width=16, num_bins=4 if spikes else None, scale=1)
    traced = trace(standalone(made), shape)
    assert agree(made, load_pt2(to_pt2(traced, ABOUT)), [random_clip(shape)], 1e-5)
    pytest.importorskip("onnxruntime", reason="onnxruntime (the export extra) is not installed")
    assert agree(made, load_onnx(to_onnx(traced, ABOUT, None)), [random_clip(shape)], 1e-4)


def test_says_which_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else name)
    require_packages("pt2")
    with pytest.raises(UsageError, match="needs onnxscript, not installed") as error:
        require_packages("onnx")
    assert "spike-deblur[export]" in error.value.fix
