"""The slider of the report, and the frames it shows."""

from html import escape
from string import Template

from model.evaluation.judge import BLURRY, RESTORED, SHARP, SPIKE_ONLY, SPIKES, JudgedFrame
from model.evaluation.pictures import Album, data_uri
from model.evaluation.results import Results
from model.report.marks import decibels, gain_over, signed, title

MAX_PICTURE_BYTES = 14_000_000
"""Of all embedded pictures together; frames that do not fit are left out, and the page says so."""


def viewer(results: Results, album: Album) -> tuple[str, int]:
    """The slider with its frames, and how many frames did not fit."""
    budget, dropped = MAX_PICTURE_BYTES, 0
    groups: dict[str, list[str]] = {"Middle of a sequence": [], "Worst frame of a sequence": []}
    shown: set[tuple[str, int]] = set()
    for group, frames in zip(groups.values(), (album.middle, album.worst), strict=True):
        for frame in frames:
            if (frame.sequence, frame.index) in shown:
                continue
            card = _card(results, frame)
            if len(card) > budget:
                dropped += 1
                continue
            budget -= len(card)
            shown.add((frame.sequence, frame.index))
            group.append(card)
    cards = "".join(
        f'<h3>{title}</h3><div class="cards">{"".join(group)}</div>'
        for title, group in groups.items()
        if group
    )
    return (Template(_VIEWER).substitute(cards=cards) if cards else "<p>No frames to show.</p>"), dropped


_VIEWER = """<div id="viewer" data-left="blurry" data-right="restored">
<div class="controls">
<label>Left<select id="choose-left"></select></label><label>Right<select id="choose-right"></select></label>
<span class="group"><button class="plain" data-zoom="1" aria-pressed="true">1×</button>
<button class="plain" data-zoom="2" aria-pressed="false">2×</button>
<button class="plain" data-zoom="4" aria-pressed="false">4×</button></span>
<button class="plain" id="difference" aria-pressed="false">Difference ×5</button>
</div>
<div class="stage"><div class="frame"><img class="left" alt=""><img class="right" alt="">
<span class="tag l"></span><span class="tag r"></span>
<div class="handle" role="slider" tabindex="0" aria-label="position of the line" aria-valuemin="0" aria-valuemax="100"
 aria-valuenow="50"></div></div></div>
<p class="caption"></p>
$cards
</div>"""


def _card(results: Results, frame: JudgedFrame) -> str:
    """A frame as a button; its hidden pictures are the slider's."""
    order = (BLURRY, RESTORED, SHARP, SPIKES, SPIKE_ONLY, *results.methods)
    methods = [name for name in dict.fromkeys(order) if name in frame.images]
    pictures = "".join(
        f'<img data-method="{escape(name)}" alt="{escape(title(name))}" src="{data_uri(frame.images[name].numpy())}"'
        f"{'' if name in (BLURRY, RESTORED) else ' hidden'}>"
        for name in methods
    )
    height, width = frame.images[BLURRY].shape[-2:]
    scores = "|".join(f"{title(method)} {decibels(psnr)} dB" for method, psnr in frame.psnrs.items())
    name = f"{frame.sequence} / {frame.frame}"
    psnr = "not scored" if frame.psnr is None else f"{decibels(frame.psnr)} dB, {signed(_frame_gain(frame))}"
    return (
        f'<button class="card" data-name="{escape(name)}" data-width="{width}" data-height="{height}" '
        f'data-scores="{escape(scores)}"><span class="pair">{pictures}</span>'
        f"<p>{escape(name)}<span>{psnr}</span></p></button>"
    )


def _frame_gain(frame: JudgedFrame) -> float | None:
    return gain_over(frame.psnrs[RESTORED], frame.psnrs[BLURRY])
