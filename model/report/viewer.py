"""What the page's script shows: methods, sequences with thumbnails and scores, and pictured frames."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from model.evaluation.methods import BLURRY, RESTORED, SHARP, SPIKE_ONLY, SPIKES
from model.evaluation.pictures import Album
from model.evaluation.results import Results
from model.report.encoding import Encoded, data_uri
from model.report.frames import FrameRow
from model.report.marks import colour_of, title


def frame_data(results: Results, album: Album, rows: Sequence[FrameRow]) -> dict[str, Any]:
    """Everything but the pictures.

    `sequences` have a thumbnail for each frame that has one, and for each frame its PSNR by method: None where it is
    not scored, "∞" where it is identical to the sharp one.
    """
    scores: dict[str, dict[int, Mapping[str, float]]] = {}
    for row in rows:
        scores.setdefault(row.sequence, {})[row.index] = row.psnrs
    order = (BLURRY, RESTORED, SHARP, SPIKES, SPIKE_ONLY, *results.methods)
    return {
        "methods": [
            {
                "name": name,
                "title": title(name),
                "colour": colour_of(results, name) if name in results.methods else None,
            }
            for name in dict.fromkeys(order)
        ],
        "sequences": [
            {
                "name": name,
                "frames": frames,
                "thumbnails": [
                    {"frame": one.frame, "index": one.index, "image": data_uri("jpeg", one.jpeg)}
                    for one in album.thumbnails.get(name, ())
                ],
                "psnrs": {
                    method: [_value(scores.get(name, {}).get(i, {}).get(method)) for i in range(frames)]
                    for method in results.methods
                    if any(method in psnrs for psnrs in scores.get(name, {}).values())
                },
            }
            for name, frames in results.frames.items()
        ],
    }


def _value(psnr: float | None) -> float | str | None:
    if psnr is None or math.isnan(psnr):
        return None
    return "∞" if math.isinf(psnr) else round(psnr, 3)


def sequence_options(results: Results) -> str:
    return "".join(f"<option>{escape(name)}</option>" for name in results.frames)


def pictures_json(encoded: Encoded) -> str:
    """The pictured frames, as a JSON list that cannot end the script element it stands in."""
    return script_json(f"[{','.join(text for _, text in encoded.frames)}]")


def script_json(text: str) -> str:
    """JSON text that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def to_script_json(value: Any) -> str:
    return script_json(json.dumps(value, allow_nan=False))
