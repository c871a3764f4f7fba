"""report.html: one page with everything an evaluation found, that opens anywhere and loads nothing."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from string import Template
from typing import Any

from model.evaluation.judge import BLURRY, RESTORED
from model.evaluation.pictures import Album
from model.evaluation.results import Results
from model.report.chart import chart, plot_of
from model.report.marks import decibels, gain_over, signed, title
from model.report.page import PAGE, SCRIPT, STYLE
from model.report.tables import sequence_table, summary_table
from model.report.viewer import viewer
from pipeline.yaml_files import dump_yaml


def report_page(results: Results, album: Album) -> str:
    """The whole page.

    Args:
        results: the numbers.
        album: the frames to show.
    """
    slider, dropped = viewer(results, album)
    plot, protocol = plot_of(results), results.protocols[0]
    store, network = results.provenance["store"], results.provenance["networks"][RESTORED]
    heading = f"{store['name']} · {results.split}"
    parts = {
        "title": escape(f"{heading} · {protocol.name}"),
        "heading": escape(heading),
        "subheading": escape(f"{network['checkpoint']} at step {network['step']:,}"),
        "protocol": escape(protocol.name),
        "definition": escape(protocol.text[0].upper() + protocol.text[1:]),
        "tiles": _tiles(results),
        "notes": _notes(results, dropped),
        "summary": summary_table(results),
        "viewer": slider,
        "chart": chart(plot),
        "sequences": sequence_table(results),
        "provenance": _provenance(results.provenance),
        "footer": "Scores were computed on full frames; pictures over 1280 pixels are shown smaller, as JPEG.",
        "chart_data": _script_json(plot.to_json() if plot else None),
        "style": STYLE,
        "script": SCRIPT,
    }
    return Template(PAGE).substitute(parts)


def _tiles(results: Results) -> str:
    means, protocol = results.means(), results.protocols[0].name
    restored, blurry = means[RESTORED], means[BLURRY]
    tiles = [
        (f"{decibels(restored.psnr)}<small>dB</small>", f"PSNR, {protocol}"),
        (decibels(restored.ssim, 4), f"SSIM, {protocol}"),
        (
            f"{signed(gain_over(restored.psnr, blurry.psnr))}<small>dB</small>",
            f"over the blurry input; better in {_wins(results)}",
        ),
        (f"{restored.frames:,}<small>frames</small>", f"scored, in {restored.sequences} sequences"),
    ]
    return "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in tiles
    )


def _wins(results: Results) -> str:
    by_frame: dict[tuple[str, int], dict[str, float]] = {}
    for score in results.scores_by():
        by_frame.setdefault((score.sequence, score.index), {})[score.method] = score.psnr
    won = sum(frame[RESTORED] > frame[BLURRY] for frame in by_frame.values())
    return f"{won:,} of {len(by_frame):,} frames"


def _notes(results: Results, dropped: int) -> str:
    notes = []
    if results.unscored:
        notes.append(
            f"{results.unscored} of {results.num_frames} frames have no sharp frame: restored, but not scored."
        )
    identical = {title(name): m.identical for name, m in results.means().items() if m.identical}
    if identical:
        counts = ", ".join(f"{name} {count}" for name, count in identical.items())
        notes.append(
            f"Frames identical to the sharp one have an infinite PSNR and are left out of its means: {counts}."
        )
    if dropped:
        notes.append(f"{dropped} pictured frames were left out to keep this page small.")
    if not notes:
        return ""
    return '<section class="note">' + "".join(f"<p>{escape(note)}</p>" for note in notes) + "</section>"


def _provenance(provenance: Mapping[str, Any]) -> str:
    store = provenance["store"]
    facts = [("Store", store["path"]), ("Store fingerprint", store["fingerprint"])]
    for name, network in provenance["networks"].items():
        trained = network["trained_on"].get("fingerprint", "unknown")
        weights = "averaged weights" if network["averaged_weights"] else "last weights"
        facts += [
            (f"{title(name)}: checkpoint", f"{network['checkpoint']}, step {network['step']:,}, {weights}"),
            (f"{title(name)}: checksum", network["digest"] or "none"),
            (f"{title(name)}: trained on", trained),
        ]
    facts += [(name, value) for name, value in provenance["versions"].items()]
    listed = "".join(f"<dt>{escape(str(k))}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in facts)
    configs = [("Evaluation settings", provenance["settings"])]
    configs += [
        (f"{title(name)}: training config", n["config"]) for name, n in provenance["networks"].items()
    ]
    return f"<dl>{listed}</dl>" + "".join(_details(configs))


def _details(configs: Iterable[tuple[str, Any]]) -> Iterable[str]:
    for name, values in configs:
        text = escape(dump_yaml(values))
        yield f"<details><summary>{escape(name)}</summary><pre>{text}</pre></details>"


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")
