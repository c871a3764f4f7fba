"""Golden vectors of the network, read from the shared folder beside the repository where there is one."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from model.checkpoint_file import save_checkpoint
from model.network import NetworkConfig, build_network
from pipeline.config import to_plain
from pipeline.stats import Normalization

_GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"


class GoldenSet(NamedTuple):
    config: NetworkConfig
    hook: dict[str, list[float]]
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    grad_norms: dict[str, float]


NORMALIZATION = Normalization(num_bins=4, transform="log1p", mean=0.3, std=0.5, num_values=9)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    if not _GOLDEN.is_dir():
        pytest.skip(f"no golden vectors at {_GOLDEN}")
    return _GOLDEN


@pytest.fixture(scope="module", params=["pa2_t6", "pa4_t5_odd"])
def golden(request: pytest.FixtureRequest, golden_folder: Path) -> GoldenSet:
    folder = golden_folder / "vrt" / request.param
    description = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "state_dict.safetensors")
    state |= load_file(folder.parent / "spynet_random.safetensors")
    state["spynet.mean"] = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    state["spynet.std"] = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    omitted = description["omitted_index_buffers"]
    if isinstance(omitted, str):
        omitted = json.loads(omitted.replace("'", '"'))
    if omitted:
        tables = load_file(folder / "index_tables.safetensors")
        state |= {key: tables[table].long() for key, table in omitted.items()}
    return GoldenSet(
        config=config_of(description["config"]),
        hook=description["hook"],
        state=state,
        tensors=load_file(folder / "golden.safetensors"),
        grad_norms=json.loads((folder / "grad_norms.json").read_text()),
    )


@pytest.fixture(scope="session")
def official_config(golden_folder: Path) -> NetworkConfig:
    listing = json.loads((golden_folder / "vrt" / "official_keys_deblur.json").read_text())
    return config_of(listing["config"])


@pytest.fixture
def tiny() -> Any:
    """Make the configuration of a network that runs in a fraction of a second."""

    def make(**changes: Any) -> NetworkConfig:
        small: dict[str, Any] = {
            "embed_dims": (8,) * 9,
            "depths": (2,) * 7 + (1, 1),
            "num_heads": (2,) * 9,
            "window": (2, 2, 2),
            "indep_reconsts": (8,),
            "mul_attn_ratio": 0.5,
            "deformable_groups": 2,
            "flow": "none",
            "spike_channels": (4, 8, 8, 8),
        }
        return NetworkConfig(**(small | changes))

    return make


@pytest.fixture
def saved() -> Callable[..., nn.Module]:
    """Save an untrained network, no weight of which is zero, as a checkpoint: `saved(path, config, **header)`."""

    def save(path: Path, config: NetworkConfig, **changes: Any) -> nn.Module:
        torch.manual_seed(0)
        network = build_network(config, 4)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        header = {
            "step": 7,
            "config": {"network": to_plain(config), "clip": {"num_frames": 3}},
            "num_bins": 4,
            "voxels": "k4",
            "normalization": to_plain(NORMALIZATION),
        }
        save_checkpoint(path, {f"model.{k}": v for k, v in network.state_dict().items()}, header | changes)
        return network.eval()

    return save


@pytest.fixture
def scored_run(tmp_path: Path) -> Callable[..., Path]:
    """Write the evaluation of a run, of made-up PSNR by sequence: `scored_run("a", {"s1": [30.5, "inf"]})`."""

    def write(
        name: str,
        scores: Mapping[str, Sequence[object]],
        *,
        protocol: str = "rgb8-all",
        split: str = "test",
        method: str = "restored",
        fingerprint: str | None = "same",
        **summary: object,
    ) -> Path:
        folder = tmp_path / name / "eval" / protocol
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["protocol,split,sequence,frame,index,method,psnr,ssim"]
        lines += [
            f"{protocol},{split},{sequence},{index:04d},{index},{method},{psnr},0.9"
            for sequence, values in scores.items()
            for index, psnr in enumerate(values)
        ]
        (folder / "per_frame.csv").write_text("\n".join(lines) + "\n")
        if fingerprint is not None:
            known = {
                "store": {"path": "STORE", "fingerprint": fingerprint},
                "networks": {method: {"step": 4}},
            }
            (folder / "summary.json").write_text(json.dumps(known | summary))
        return tmp_path / name

    return write


def config_of(arguments: dict[str, Any]) -> NetworkConfig:
    """The published constructor's arguments as ours."""
    return NetworkConfig(
        fusion="none",
        embed_dims=tuple(arguments["embed_dims"]),
        depths=tuple(arguments["depths"]),
        num_heads=tuple(arguments["num_heads"]),
        window=tuple(arguments["window_size"]),
        indep_reconsts=tuple(arguments["indep_reconsts"]),
        pa_frames=arguments["pa_frames"],
        deformable_groups=arguments["deformable_groups"],
    )
