"""Protocols with LPIPS, which need weights that the user has."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from model.evaluation.protocols import PROTOCOLS, RGB8, Protocol, score_of
from model.evaluation.shots import Candidate, Shot
from model.lpips import Backbone, load_lpips
from model.metrics import LEVELS

LPIPS: Mapping[str, Backbone] = {"lpips-alex": "alex", "lpips-vgg": "vgg"}
"""The names of these protocols, and the network each has."""
_NETWORKS = {"alex": "AlexNet", "vgg": "VGG16"}


def load_protocols(names: Iterable[str], lpips_weights: Sequence[Path]) -> tuple[Protocol, ...]:
    """The protocols of these names, ready to score.

    Raises:
        CheckpointError: one needs weights that the files do not hold.
    """
    return tuple(
        _with_lpips(name, LPIPS[name], lpips_weights) if name in LPIPS else PROTOCOLS[name] for name in names
    )


def _with_lpips(name: str, backbone: Backbone, weights: Sequence[Path]) -> Protocol:
    network = load_lpips(backbone, weights)

    def lpips(candidate: Candidate, shot: Shot) -> float:
        assert shot.sharp is not None
        pictures = (frame.unsqueeze(0).float() / LEVELS for frame in (candidate.rgb8, shot.sharp))
        return network.to(candidate.rgb8.device)(*pictures).item()

    return Protocol(
        name=name,
        text=(
            f"as rgb8-all; and LPIPS 0.1 with {_NETWORKS[backbone]} of the 8-bit frames, whole, in float32, lower is "
            f"better; with the weights in {', '.join(path.name for path in weights)}; written from the published "
            "definition, and never compared with its authors' program"
        ),
        metrics=(*RGB8, "lpips"),
        score=score_of(RGB8 | {"lpips": lpips}),
    )
