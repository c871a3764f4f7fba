"""Made-up results and pictures for the report, and a look at the HTML that comes of them."""

import html.parser
from collections.abc import Callable

import pytest
import torch

from model.evaluation.judge import JudgedFrame
from model.evaluation.pictures import Album
from model.evaluation.protocols import PROTOCOLS
from model.evaluation.results import Results
from model.evaluation.scores import FrameScore

HOSTILE = "<script>alert('x')</script>&\"$title"
RGB8 = PROTOCOLS["rgb8-all"]
METHODS = ("restored", HOSTILE, "spike_only", "blurry")


def frame_score(sequence: str, index: int, method: str, psnr: float, ssim: float) -> FrameScore:
    return FrameScore(sequence, f"{index:06d}", index, method, RGB8.name, {"psnr": psnr, "ssim": ssim})


def make(
    frames: int = 3, sequences: tuple[str, ...] = ("a", HOSTILE), psnr: float | None = 30.0
) -> tuple[Results, Album]:
    """Results of `sequences` of `frames` frames, each 1 dB better than the last; restored is the best by 3 dB."""
    scores, album = [], Album(4, frozenset((name, 1) for name in sequences))
    for name in sequences:
        for i in range(frames):
            mine = [
                frame_score(name, i, m, (psnr or 0) + (3 if m == "restored" else 0) + i, 0.8)
                for m in (METHODS if psnr is not None else ())
            ]
            scores += mine
            images = {
                m: torch.full((3, 12, 16), 40, dtype=torch.uint8) for m in (*METHODS, "sharp", "spikes")
            }
            album.offer(
                JudgedFrame(sequence=name, frame=f"{i:06d}", index=i, images=images, scores=tuple(mine))
            )
    network = {
        "checkpoint": f"runs/{HOSTILE}.safetensors",
        "step": 12000,
        "digest": "sha256:1",
        "averaged_weights": True,
        "trained_on": {"fingerprint": "abc"},
        "config": {"note": HOSTILE, "lr": 0.0002},
    }
    provenance = {
        "store": {"path": "x.zarr", "name": HOSTILE, "fingerprint": "f00d"},
        "networks": {"restored": network, HOSTILE: network},
        "settings": {"split": "test"},
        "versions": {"torch": "2.13"},
    }
    results = Results(
        split="test",
        protocols=(RGB8,),
        methods=METHODS,
        frames=dict.fromkeys(sequences, frames),
        scores=tuple(scores),
        provenance=provenance,
    )
    return results, album


def scored(psnr: dict[str, dict[str, list[float]]], ssim: float = 0.5) -> Results:
    """Results with these PSNRs, by sequence and method."""
    methods = tuple(next(iter(psnr.values())))
    scores = [
        frame_score(sequence, i, method, value, ssim)
        for sequence, by_method in psnr.items()
        for method, values in by_method.items()
        for i, value in enumerate(values)
    ]
    frames = {sequence: len(by_method[methods[0]]) for sequence, by_method in psnr.items()}
    return Results(
        split="test", protocols=(RGB8,), methods=methods, frames=frames, scores=tuple(scores), provenance={}
    )


class Elements(html.parser.HTMLParser):
    """Counts elements, and collects cells of tables, what would be loaded from elsewhere, and tags left open."""

    VOID = ("meta", "link", "img", "br", "line", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.external: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attributes:
            if name in ("src", "href", "action", "srcset") and not (value or "").startswith("data:"):
                self.external.append(f"{tag} {name}={value}")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="session")
def hostile() -> str:
    """A name that is HTML, a template and a quotation."""
    return HOSTILE


@pytest.fixture(scope="session")
def made() -> Callable[..., tuple[Results, Album]]:
    return make


@pytest.fixture(scope="session")
def results_of() -> Callable[..., Results]:
    return scored


@pytest.fixture(scope="session")
def read_html() -> type[Elements]:
    return Elements
