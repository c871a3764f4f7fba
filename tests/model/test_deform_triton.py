"""The kernels against plain PyTorch and the golden vectors: on CUDA where there is one, else in Triton's interpreter.

Triton decides on import whether it interprets, so without CUDA this file runs itself once more in a child process.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import model.deform
import model.vrt
from model.deform import deform_conv2d, flow_guided_deform_conv, has_kernels
from model.vrt import FlowGuidedDeformConv

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

needs_kernels = pytest.mark.skipif(
    not (_HAS_TRITON and (torch.cuda.is_available() or _INTERPRETED)),
    reason="runs on CUDA, or in the child process that interprets Triton",
)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run; in the interpreter they take tensors on the CPU."""
    if not _INTERPRETED:
        return "cuda"
    for module in (model.deform, model.vrt):
        monkeypatch.setattr(module, "has_kernels", _takes_half)
    return "cpu"


def _takes_half(*tensors: Tensor | None) -> bool:
    """float64 stays with plain PyTorch: what the kernels are compared with."""
    return all(x is None or x.dtype != torch.float64 for x in tensors)


@pytest.mark.skipif(not _HAS_TRITON, reason="triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on CUDA itself")
@pytest.mark.skipif(_INTERPRETED, reason="this is the child process")
def test_the_kernels_pass_in_the_interpreter(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            tmp_path / "child",
            __file__,
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def test_the_cpu_double_precision_and_a_machine_without_triton_stay_with_plain_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OnCuda:
        device = torch.device("cuda")

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

    monkeypatch.setattr(model.deform, "_HAS_TRITON", True)
    assert has_kernels(OnCuda(torch.float32), None, OnCuda(torch.bfloat16))
    assert not has_kernels(OnCuda(torch.float32), OnCuda(torch.float64))
    assert not has_kernels(OnCuda(torch.float32), torch.zeros(1))
    monkeypatch.setattr(model.deform, "_HAS_TRITON", False)
    assert not has_kernels(OnCuda(torch.float32))


def test_a_machine_without_triton_imports_the_network() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; import model.deform, model.network;"
        "assert not model.deform._HAS_TRITON; assert 'model.deform_triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


@pytest.mark.skipif(not _HAS_TRITON or _INTERPRETED, reason="needs Triton's compiler")
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_compiles_for_hopper_and_carries_no_tile_through_shared_memory(dtype: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from model import deform_triton

    features = dict.fromkeys(("packed", "offset", "mask", "columns", "grad_offset", "grad_mask"), f"*{dtype}")
    sizes = ("offset_stride", "mask_stride", "height", "width", "pixels", "out_width", "blocks")
    types = features | dict.fromkeys(("motion", "grad_packed", "grad_flow"), "*fp32")
    types |= dict.fromkeys(sizes, "i32") | {"limit": "fp32"}
    constants = {"KERNEL_W": 3, "TAPS": 9, "GROUPS": 16, "NEIGHBOURS": 1, "CHANNELS": 6, "SQUASH": True}
    constants |= dict.fromkeys(("STRIDE_Y", "STRIDE_X", "PAD_Y", "PAD_X", "DILATION_Y", "DILATION_X"), 1)
    constants |= {
        "LANES": 8 if dtype == "bf16" else 4,
        "QUAD": 4,
        "HAS_MASK": True,
        "RESTORE": True,
        "BLOCK": 128,
    }
    for kernel, wide in ((deform_triton._sample, "ld.global"), (deform_triton._scatter, "add.v4.f32")):
        names = [parameter.name for parameter in kernel.params]
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if name in types and name not in ("limit", "blocks", "pixels")
        }
        signature = {name: types.get(name, "constexpr") for name in names}
        source = ASTSource(kernel, signature, {n: constants[n] for n in names if n not in types}, aligned)
        compiled = compile(source, target=GPUTarget("cuda", 90, 32))
        assert compiled.metadata.shared == 0
        assert wide in compiled.asm["ptx"]
        assert ".v4.b32" in compiled.asm["ptx"]


@needs_kernels
@pytest.mark.parametrize(
    "case",
    [
        "basic_3x3",
        "vrt_like_g1_og16",
        "vrt_like_g2_og8",
        "no_mask_no_bias_stride2_dil2",
        "outside_image",
        "kernel_1x3_aniso",
    ],
)
def test_matches_the_reference_operator_and_its_gradients(
    case: str, device: str, golden_folder: Path
) -> None:
    with safe_open(golden_folder / "deform_conv" / f"{case}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key).float().to(device) for key in file.keys()}  # noqa: SIM118
        params = json.loads(file.metadata()["params"])
    names = [n for n in ("input", "offset", "weight", "bias", "mask") if n in tensors]
    arguments = {name: tensors[name].requires_grad_() for name in names}
    geometry = {name: tuple(params[name]) for name in ("stride", "padding", "dilation")}

    out = deform_conv2d(arguments.pop("input"), **arguments, **geometry)
    assert "spk_deform_conv" in type(out.grad_fn).__name__
    out.backward(tensors["grad_output"])

    assert (out - tensors["output"]).abs().max() < 2e-5
    for name in names:
        want = tensors[f"grad_{name}"]
        assert (tensors[name].grad - want).abs().max() < 2e-4 * want.abs().max(), name


def _arguments(
    device: str,
    batch: int = 2,
    channels: int = 12,
    size: tuple[int, int] = (5, 7),
    offset_groups: int = 2,
    neighbours: int = 1,
    weight_groups: int = 1,
    spread: float = 1.5,
    kernel: int = 3,
) -> dict[str, Tensor]:
    """Arguments of `flow_guided_deform_conv` but for the limit; every dimension can be odd."""
    torch.manual_seed(0)
    shapes = {
        "x": (batch, channels, *size),
        "residual": (batch, 3 * kernel**2 * offset_groups, *size),
        "motion": (batch, neighbours, 2, *size),
        "weight": (3 * weight_groups, channels // weight_groups, kernel, kernel),
        "bias": (3 * weight_groups,),
    }
    arguments = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
    arguments["motion"] *= spread
    return {name: x.requires_grad_() for name, x in arguments.items()}


def _results(arguments: dict[str, Tensor], dtype: torch.dtype, limit: float = 2.5) -> dict[str, Tensor]:
    """Output and gradients of a fixed weighted sum of it; in float64 by plain PyTorch."""
    arguments = {name: x.detach().to(dtype).requires_grad_() for name, x in arguments.items()}
    out = flow_guided_deform_conv(**arguments, limit=limit)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.device)
    grads = torch.autograd.grad((out * weights).sum(), list(arguments.values()))
    return {"out": out.detach()} | dict(zip(arguments, grads, strict=True))


def _assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    for name, value in got.items():
        error = (value - want[name]).abs().max()
        assert error <= tolerance * max(want[name].abs().max(), 1), f"{name}: {error}"


@needs_kernels
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 6, "offset_groups": 1},
        {"channels": 15, "offset_groups": 3},
        {"channels": 11, "offset_groups": 1, "size": (3, 50)},
        {"channels": 18, "offset_groups": 6, "neighbours": 3, "weight_groups": 3, "batch": 1},
        {"channels": 20, "offset_groups": 10, "neighbours": 2, "weight_groups": 2, "batch": 1},
        {"size": (1, 9)},
        {"size": (9, 1)},
        {"size": (1, 1)},
        {"spread": 1e4},
        {"kernel": 1},
        {"kernel": 5, "batch": 1},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_equals_plain_pytorch_in_odd_shapes(changes: dict, device: str) -> None:
    arguments = _arguments(device, **changes)
    _assert_close(_results(arguments, torch.float32), _results(arguments, torch.float64), 2e-5)


@needs_kernels
def test_frames_taken_apart_give_the_same(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from model import deform_triton

    arguments = _arguments(device, batch=3)
    monkeypatch.setattr(deform_triton, "_COLUMNS", 1)
    _assert_close(_results(arguments, torch.float32), _results(arguments, torch.float64), 2e-5)


@needs_kernels
def test_without_motion_and_bias(device: str) -> None:
    arguments = _arguments(device)
    still = {**arguments, "motion": torch.zeros_like(arguments["motion"])}
    want = _results(still, torch.float64)
    x, residual, weight = arguments["x"], arguments["residual"], arguments["weight"]
    out = flow_guided_deform_conv(x, residual, None, weight, None, 2.5)
    _assert_close({"out": out + arguments["bias"].view(-1, 1, 1)}, want, 2e-5)
    x, residual, weight = (value.detach() for value in (x, residual, weight))
    frozen = flow_guided_deform_conv(x, residual.requires_grad_(), None, weight, None, 2.5)
    frozen.sum().backward()
    assert residual.grad is not None
    assert weight.grad is None


@needs_kernels
def test_half_precision_keeps_float32_positions(device: str) -> None:
    # At 300 pixels bfloat16 cannot tell 300.25 from 300.
    x = (torch.arange(304.0, device=device) - 300).view(1, 1, 1, 304).expand(1, 1, 2, 304).bfloat16()
    offset = torch.tensor([0.0, 0.25], device=device).view(1, 2, 1, 1).expand(1, 2, 2, 304)
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1, device=device))
    assert out.dtype == torch.bfloat16
    assert out[0, 0, 0, 300].item() == 0.25


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_its_own_precision(device: str, dtype: torch.dtype) -> None:
    arguments = _arguments(device)
    arguments["residual"] = arguments["residual"].detach().to(dtype).requires_grad_()
    want = _results({k: x.to(dtype) if k == "x" else x for k, x in arguments.items()}, torch.float64)
    with torch.autocast(device, dtype=dtype):
        out = flow_guided_deform_conv(**arguments, limit=2.5)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device)
    grads = dict(
        zip(arguments, torch.autograd.grad((out * weights).sum(), list(arguments.values())), strict=True)
    )
    assert out.dtype == dtype
    assert {name: grad.dtype for name, grad in grads.items()} == {n: x.dtype for n, x in arguments.items()}
    _assert_close(grads | {"out": out}, want, 2e-2)


@needs_kernels
def test_a_position_that_is_no_number_shows(device: str) -> None:
    offset = torch.zeros(1, 2, 3, 3, device=device)
    offset[0, 0, 1, 1] = torch.nan
    out = deform_conv2d(torch.ones(1, 1, 3, 3, device=device), offset, torch.ones(1, 1, 1, 1, device=device))
    assert out.isnan().nonzero().tolist() == [[0, 0, 1, 1]]


@needs_kernels
def test_features_outside_the_image_do_not_leak(device: str) -> None:
    x = torch.full((1, 2, 2, 2), torch.inf, device=device)
    offset = torch.full((1, 2, 2, 2), 100.0, device=device)
    assert not deform_conv2d(x, offset, torch.ones(1, 2, 1, 1, device=device)).any()


def _alignment(device: str) -> tuple[FlowGuidedDeformConv, list[Tensor]]:
    torch.manual_seed(0)
    align = FlowGuidedDeformConv(6, 1, 2, 10.0).to(device)
    torch.nn.init.normal_(align.conv_offset[-1].weight, std=0.3)
    inputs = [torch.randn(1, n, 4, 5, device=device, requires_grad=True) for n in (6, 6, 2)]
    return align, inputs


@needs_kernels
def test_the_alignment_equals_plain_pytorch(device: str) -> None:
    align, inputs = _alignment(device)

    def run(dtype: torch.dtype) -> list[Tensor]:
        values = [x.detach().to(dtype).requires_grad_() for x in inputs]
        align.to(dtype)
        out = align(values[0], [values[1]], [values[2]])
        return [out, *torch.autograd.grad(out.square().sum(), [*values, *align.parameters()])]

    for got, want in zip(run(torch.float32), run(torch.float64), strict=True):
        assert (got - want).abs().max() < 1e-4 * want.abs().max()


@needs_kernels
@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiles_without_a_graph_break_with_and_without_checkpointing(
    device: str, checkpointed: bool
) -> None:
    align, (current, neighbour, flow) = _alignment(device)

    def forward(current: Tensor, neighbour: Tensor, flow: Tensor) -> Tensor:
        return align(current, [neighbour], [flow])

    def run(current: Tensor, neighbour: Tensor, flow: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            if checkpointed:
                return checkpoint(forward, current, neighbour, flow, use_reentrant=False)
            return forward(current, neighbour, flow)

    leaves = [current, neighbour, flow, *align.parameters()]
    backend = "aot_eager" if device == "cpu" else "inductor"
    exact = _with_gradients(forward(current, neighbour, flow), leaves)
    eager = _with_gradients(run(current, neighbour, flow), leaves)
    compiled = _with_gradients(
        torch.compile(run, fullgraph=True, backend=backend)(current, neighbour, flow), leaves
    )
    assert compiled[0].dtype == torch.bfloat16
    # Offsets in half precision decide between pixels: the two may differ, but one is as near to float32 as the other.
    for got, usual, want in zip(compiled, eager, exact, strict=True):
        error, accepted = (got - want).norm(), (usual - want).norm()
        assert error <= 1.5 * accepted + 1e-3 * want.norm()


def _with_gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [out.detach(), *torch.autograd.grad(out.float().sum(), leaves)]


@needs_kernels
def test_keeps_nothing_but_its_arguments_for_backward(device: str) -> None:
    arguments = _arguments(device)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        flow_guided_deform_conv(**arguments, limit=2.5)
    assert {x.data_ptr() for x in kept} == {
        arguments[name].data_ptr() for name in ("x", "residual", "motion", "weight")
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_waits_for_the_device_nowhere(device: str) -> None:
    arguments = _arguments(device)
    flow_guided_deform_conv(**arguments, limit=2.5).sum().backward()  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        flow_guided_deform_conv(**arguments, limit=2.5).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
