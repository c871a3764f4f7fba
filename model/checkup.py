"""PyTorch and the GPUs, for `spk doctor`. Nothing heavy is imported until a check asks for it, and that may fail."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkup.finding import Check, Finding, note, ok, problem

_GB = 1e9
_WAIT_S = 20
_OLDEST_TRITON = (7, 0)
_OLDEST_BF16 = (8, 0)
_MOSTLY_FREE = 0.8
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What a PyTorch was built for, and what it sees.

    Attributes:
        version: its own.
        cuda: the CUDA version it was built for; None without.
        available: whether it can use a device.
        error: what it said when it could not.
    """

    version: str
    cuda: str | None
    available: bool
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A CUDA device as PyTorch sees it; memory in bytes."""

    name: str
    capability: tuple[int, int]
    free: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """The NVIDIA driver of the machine, as `nvidia-smi` tells.

    Attributes:
        version: of the driver.
        gpus: names of the devices.
        processes: that compute on them: process id and memory as text.
    """

    version: str
    gpus: tuple[str, ...]
    processes: tuple[str, ...]


def torch_checks() -> list[tuple[str, Check]]:
    """The checks, each with its name; only the first is of use where PyTorch cannot be imported."""
    try:
        import torch  # noqa: F401
    except Exception as error:  # broken installations raise OSError, AttributeError, …
        failed = error
        return [("torch", lambda: check_import(failed))]
    return [
        ("torch", check_build),
        ("GPUs", check_gpus),
        ("Triton", check_triton),
        ("bf16", check_bf16),
        ("NCCL", check_nccl),
        ("VGG16 weights", check_vgg),
    ]


def check_import(error: BaseException) -> Iterator[Finding]:
    """What it means that PyTorch cannot be imported."""
    missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
    said = "not installed" if missing else f"cannot be imported: {type(error).__name__}: {error}"
    again = "" if missing else "--force-reinstall --no-cache-dir "
    yield problem(
        "torch", f"{said}; GPUs, Triton, bf16, NCCL and weights not looked at", f"pip install {again}torch"
    )


def check_build(build: Build | None = None, driver: Driver | None = None) -> Iterator[Finding]:
    """Whether this PyTorch can use the GPUs that the machine has."""
    if build is None:
        build, driver = _build(), nvidia_driver()
    if build.available:
        yield ok("torch", f"{build.version}, CUDA {build.cuda}, driver {driver.version if driver else '?'}")
    elif driver is None:
        yield ok("torch", f"{build.version}, on the CPU: no NVIDIA GPU here")
    elif build.cuda is None:
        yield problem(
            "torch",
            f"{build.version} is built for the CPU only, and here is {_listed(driver.gpus)}",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128 (or the cuXXX "
            "that nvidia-smi names)",
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        yield note(
            "torch",
            f"{build.version}: CUDA_VISIBLE_DEVICES hides {_listed(driver.gpus)}",
            "unset CUDA_VISIBLE_DEVICES",
        )
    else:
        yield problem(
            "torch",
            f"{build.version} for CUDA {build.cuda} cannot use {_listed(driver.gpus)} with driver {driver.version}"
            + (f": {build.error}" if build.error else ""),
            f"update the driver to one of CUDA {build.cuda}, or install a torch for an older CUDA: "
            "https://pytorch.org/get-started/previous-versions",
        )


def check_gpus(gpus: Sequence[Gpu] | None = None, driver: Driver | None = None) -> Iterator[Finding]:
    """Memory, capability and other users of every GPU."""
    if gpus is None:
        gpus, driver = _gpus(), nvidia_driver()
    if not gpus:
        yield ok("GPUs", "none: training runs on the CPU")
    for number, gpu in enumerate(gpus):
        name = f"GPU {number}"
        found = (
            f"{gpu.name}, {gpu.free / _GB:.1f} of {gpu.total / _GB:.1f} GB free,"
            f" capability {gpu.capability[0]}.{gpu.capability[1]}"
        )
        if gpu.capability < _OLDEST_TRITON:
            yield problem(
                name, f"{found}: too old for Triton's kernels", "train on another GPU, or on the CPU"
            )
        elif gpu.free < _MOSTLY_FREE * gpu.total:
            used = f", processes {', '.join(driver.processes)}" if driver and driver.processes else ""
            yield note(name, f"{found}{used}", "nvidia-smi, and wait for them or end them")
        else:
            yield ok(name, found)


def check_triton() -> Iterator[Finding]:
    """Whether Triton compiles a kernel and gets the right answer from it; only with a GPU."""
    import torch

    if not torch.cuda.is_available():
        yield ok("Triton", "not needed without a GPU")
        return
    if importlib.util.find_spec("triton") is None:
        yield problem(
            "Triton", "not installed: attention and deformable convolution run slowly", "pip install triton"
        )
        return
    from model.triton_probe import doubled

    values = torch.arange(100.0, device="cuda")
    try:
        right = torch.equal(doubled(values), 2 * values)
    except Exception as error:  # of a compiler, a linker or a driver
        yield problem(
            "Triton", f"cannot compile: {str(error).splitlines()[0]}", "apt-get install gcc python3-dev"
        )
        return
    if right:
        import triton

        yield ok("Triton", f"{triton.__version__} compiles")
    else:
        yield problem("Triton", "computes wrongly", "pip install --force-reinstall triton")


def check_bf16(capabilities: Sequence[tuple[int, int]] | None = None) -> Iterator[Finding]:
    """Whether `parallel.precision=bf16` is of use.

    Args:
        capabilities: of the GPUs.
    """
    if capabilities is None:
        capabilities = [gpu.capability for gpu in _gpus()]
    if not capabilities:
        yield ok(
            "bf16", "on the CPU; 3D convolutions keep to float32, as PyTorch's gradients of them are wrong"
        )
    elif min(capabilities) >= _OLDEST_BF16:
        yield ok("bf16", "parallel.precision=bf16 can be used")
    else:
        yield note("bf16", "not in hardware", "use parallel.precision=fp16, or fp32")


def check_nccl(devices: int | None = None, available: bool | None = None) -> Iterator[Finding]:
    """NCCL, which several GPUs talk through."""
    import torch
    import torch.distributed as dist

    devices = torch.cuda.device_count() if devices is None else devices
    available = (dist.is_available() and dist.is_nccl_available()) if available is None else available
    if devices < 2:
        yield ok("NCCL", "not needed with fewer than two GPUs")
    elif available:
        yield ok("NCCL", f"there, for {devices} GPUs")
    else:
        yield problem("NCCL", f"missing, and here are {devices} GPUs", "install a torch built with it")


def check_vgg(folder: Path | None = None) -> Iterator[Finding]:
    """The weights for the perceptual loss.

    Args:
        folder: of the torch hub cache.
    """
    from model.vgg import HUB_NAME

    if folder is None:
        import torch

        folder = Path(torch.hub.get_dir())
    path = folder / "checkpoints" / HUB_NAME
    if path.is_file():
        yield ok("VGG16 weights", f"{path}")
    else:
        yield note(
            "VGG16 weights",
            f"not at {path}: the perceptual loss needs them",
            f"curl -o {path} --create-dirs https://download.pytorch.org/models/{HUB_NAME}, or name a file as "
            "loss.vgg_weights=FILE",
        )


def nvidia_driver(environment: Mapping[str, str] | None = None) -> Driver | None:
    """What `nvidia-smi` tells, or the kernel where that is missing; None without an NVIDIA driver."""
    program = shutil.which("nvidia-smi", path=(environment or os.environ).get("PATH"))
    if program:
        gpus = _ask(program, "--query-gpu=driver_version,name")
        if gpus:
            version = gpus[0].partition(", ")[0]
            names = tuple(line.partition(", ")[2] for line in gpus)
            return Driver(
                version=version,
                gpus=names,
                processes=tuple(_ask(program, "--query-compute-apps=pid,used_memory")),
            )
    if _DRIVER.is_file() and (
        found := re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", _DRIVER.read_text())
    ):
        return Driver(version=found[1], gpus=("an NVIDIA GPU",), processes=())
    return None


def _ask(program: str, query: str) -> list[str]:
    """The lines that `nvidia-smi` answers; none if it fails."""
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=_WAIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _build() -> Build:
    import warnings

    import torch

    with warnings.catch_warnings(record=True) as caught:  # that is how it tells of an old driver
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    error = str(caught[-1].message).splitlines()[0] if caught else ""
    return Build(version=torch.__version__, cuda=torch.version.cuda, available=available, error=error)


def _gpus() -> list[Gpu]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(name=facts.name, capability=(facts.major, facts.minor), free=free, total=total))
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
