import os
import sys
from pathlib import Path

import pytest

from model import checkup
from model.checkup import Build, Driver, Gpu
from model.vgg import HUB_NAME

GB = 10**9
DRIVER = Driver(version="535.1", gpus=("H100", "H100"), processes=("4711, 60000 MiB",))


def test_everything_is_looked_at_where_torch_can_be_imported() -> None:
    findings = [finding for _, check in checkup.torch_checks() for finding in check()]
    assert {"torch", "bf16", "Triton", "NCCL", "VGG16 weights"} <= {finding.name for finding in findings}


def test_a_torch_that_cannot_be_imported_is_the_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    ((name, check),) = checkup.torch_checks()
    (found,) = check()
    assert (name, found.status, found.fix) == ("torch", "problem", "pip install torch")


def test_a_broken_torch_is_installed_again() -> None:
    (found,) = checkup.check_import(OSError("libcudart.so.12: cannot open shared object file"))
    assert "libcudart" in found.found and "--force-reinstall" in found.fix


@pytest.mark.parametrize(
    ("build", "driver", "status", "words"),
    [
        (Build(version="2.13.0", cuda="12.8", available=True), DRIVER, "ok", "driver 535.1"),
        (Build(version="2.13.0+cpu", cuda=None, available=False), None, "ok", "no NVIDIA GPU"),
        (Build(version="2.13.0+cpu", cuda=None, available=False), DRIVER, "problem", "2 x H100"),
        (
            Build(version="2.13.0", cuda="13.0", available=False, error="driver is too old"),
            DRIVER,
            "problem",
            "driver is too old",
        ),
    ],
)
def test_judges_the_build_by_the_gpus_that_are_there(
    build: Build, driver: Driver | None, status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (found,) = checkup.check_build(build, driver)
    assert found.status == status and words in found.found and bool(found.fix) == (status == "problem")


def test_hidden_gpus_are_worth_knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = checkup.check_build(Build(version="2.13.0", cuda="12.8", available=False), DRIVER)
    assert (found.status, found.fix) == ("note", "unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("gpu", "status", "words"),
    [
        (Gpu(name="H100", capability=(9, 0), free=79 * GB, total=80 * GB), "ok", "79.0 of 80.0 GB free"),
        (Gpu(name="H100", capability=(9, 0), free=20 * GB, total=80 * GB), "note", "4711"),
        (Gpu(name="P100", capability=(6, 0), free=16 * GB, total=16 * GB), "problem", "too old"),
    ],
)
def test_judges_gpus(gpu: Gpu, status: str, words: str) -> None:
    (found,) = checkup.check_gpus([gpu], DRIVER)
    assert found.status == status and words in found.found


def test_no_gpu_is_no_problem() -> None:
    assert [one.status for one in checkup.check_gpus([], None)] == ["ok"]


@pytest.mark.parametrize(
    ("capabilities", "status"), [([], "ok"), ([(8, 0)], "ok"), ([(9, 0), (7, 5)], "note")]
)
def test_knows_which_gpus_have_bf16(capabilities: list[tuple[int, int]], status: str) -> None:
    assert next(checkup.check_bf16(capabilities)).status == status


@pytest.mark.parametrize(
    ("devices", "available", "status"), [(1, False, "ok"), (2, True, "ok"), (2, False, "problem")]
)
def test_several_gpus_need_nccl(devices: int, available: bool, status: str) -> None:
    assert next(checkup.check_nccl(devices, available)).status == status


def test_finds_the_weights_of_the_perceptual_loss(tmp_path: Path) -> None:
    (found,) = checkup.check_vgg(tmp_path)
    assert found.status == "note" and "loss.vgg_weights=" in found.fix
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / HUB_NAME).touch()
    assert next(checkup.check_vgg(tmp_path)).status == "ok"


def nvidia_smi(folder: Path, body: str) -> dict[str, str]:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"}


def test_asks_nvidia_smi(tmp_path: Path) -> None:
    body = 'case "$1" in *driver*) echo "550.54, NVIDIA H100"; echo "550.54, NVIDIA H100";; *) echo "7, 9 MiB";; esac'
    assert checkup.nvidia_driver(nvidia_smi(tmp_path, body)) == Driver(
        version="550.54", gpus=("NVIDIA H100", "NVIDIA H100"), processes=("7, 9 MiB",)
    )


def test_asks_the_kernel_where_nvidia_smi_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tmp_path / "version"
    monkeypatch.setattr(checkup, "_DRIVER", version)
    environment = nvidia_smi(tmp_path, "echo no devices; exit 9")
    assert checkup.nvidia_driver(environment) is None
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n")
    assert checkup.nvidia_driver(environment).version == "550.54.14"
