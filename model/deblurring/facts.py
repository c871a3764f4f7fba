"""What a restoration is known by: what decides its bits, and when each of its frames was."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from model.checkpoint import CheckpointInfo
from model.deblurring.config import DeblurConfig
from model.deblurring.instants import MIDDLE
from model.deblurring.record import input_facts
from pipeline.config import to_plain
from pipeline.own_recording import OwnRecording
from pipeline.own_settings import GROUPS, OwnFiles
from pipeline.spans import SECOND_NS

USUAL_FPS = Fraction(25)
MOST_IN_RATE = 1_000_000
"""Largest denominator of a frame rate: containers have room for no more."""


def identity_of(
    info: CheckpointInfo,
    files: OwnFiles,
    recording: OwnRecording,
    config: DeblurConfig,
    at: Sequence[float],
    *,
    side_by_side: bool,
) -> dict[str, Any]:
    """What decides the bits of the result."""
    inputs = {"video": files.video, "spikes": files.spikes, "log": files.log}
    return {
        "checkpoint": {"digest": info.header.get("digest"), "step": info.step},
        "inputs": {name: input_facts(path) for name, path in inputs.items() if path},
        "settings": {
            **to_plain(config),
            "at": list(at),
            "side_by_side": side_by_side,
            "recording": {group: to_plain(getattr(recording.setup.manifest, group)) for group in GROUPS},
            "sequence": recording.setup.recording.source_name,
        },
    }


def shown_rate_hz(recording: OwnRecording, config: DeblurConfig) -> Fraction:
    """How many of the frames a video is to show in a second."""
    known = config.fps or recording.setup.video_hz
    if known is None and recording.exposure_ns is not None and recording.num_frames > 1:
        between_ns = int(np.median(np.diff(recording.exposure_ns[:, 0])))
        known = Fraction(SECOND_NS, between_ns) if between_ns > 0 else None
    return (known or USUAL_FPS).limit_denominator(MOST_IN_RATE)


def frame_facts(recording: OwnRecording, instants: Sequence[float | None]) -> list[dict[str, Any]]:
    """When each frame was exposed, and which instants of it were restored: in spike frames, and in ns if known."""
    facts = []
    for k, (name, span) in enumerate(zip(recording.frames, recording.exposure.tolist(), strict=True)):
        fact: dict[str, Any] = {"frame": name, "exposure": span, "instants": _between(span, instants)}
        if recording.exposure_ns is not None:
            span_ns = recording.exposure_ns[k].tolist()
            fact |= {"exposure_ns": span_ns, "instants_ns": [round(t) for t in _between(span_ns, instants)]}
        facts.append(fact)
    return facts


def _between(span: Sequence[int], instants: Sequence[float | None]) -> list[float]:
    start, stop = span
    return [start + (MIDDLE if instant is None else instant) * (stop - start) for instant in instants]
