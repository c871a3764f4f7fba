"""report.html: one page with everything an evaluation found, that opens anywhere and loads nothing."""

from collections.abc import Sequence
from html import escape
from string import Template

from model.evaluation.methods import RESTORED
from model.evaluation.pictures import Album
from model.evaluation.results import Results, weights_text
from model.report import assets
from model.report.chart import chart, legend, plot_of
from model.report.distribution import histogram, scatter
from model.report.encoding import Encoded, encode_frames
from model.report.frames import FrameRow, frame_rows
from model.report.making import making
from model.report.summary import notes, protocol_tables, tiles
from model.report.tables import data_table, sequence_table, worst_lists
from model.report.viewer import frame_data, pictures_json, sequence_options, to_script_json

MAX_PAGE_BYTES = 19_500_000
"""Of the whole page; pictures take what the rest leaves."""
ALL = "all"
"""Key of the plot over all sequences; those of single ones have `s0`, `s1`, ..."""


def report_page(results: Results, album: Album) -> str:
    """The whole page.

    Args:
        results: the numbers.
        album: the frames to show.
    """
    rows = frame_rows(results)
    parts = _parts(results, album, rows)
    budget = MAX_PAGE_BYTES - sum(len(part.encode()) for part in parts.values())
    encoded = encode_frames(album.pictured(), budget)
    pictured = {(frame.sequence, frame.index) for frame, _ in encoded.frames}
    parts |= {
        "notes": notes(results, encoded.dropped),
        "sequences": sequence_table(results, rows, pictured),
        "worst": worst_lists(rows, pictured),
        "pictures_note": _pictures_note(encoded),
        "pictures": pictures_json(encoded),
    }
    return Template(assets.template()).substitute(parts)


def _parts(results: Results, album: Album, rows: Sequence[FrameRow]) -> dict[str, str]:
    """Everything that does not depend on which pictures fit."""
    protocol, psnr = results.protocols[0], results.psnr_protocol
    store, network = results.provenance["store"], results.provenance["networks"][RESTORED]
    heading = f"{store['name']} · {results.split}"
    plots = {ALL: plot_of(results, rows)}
    if len(results.frames) > 1:
        for i, name in enumerate(results.frames):
            plots[f"s{i}"] = plot_of(results, [row for row in rows if row.sequence == name])
    return {
        "title": escape(f"{heading} · {protocol.name}"),
        "heading": escape(heading),
        "subheading": escape(f"{network['checkpoint']}, {weights_text(network['step'])}"),
        "protocol": escape(protocol.name),
        "psnr_protocol": escape(psnr.name if psnr else "no PSNR"),
        "tiles": tiles(results, rows),
        "protocols": protocol_tables(results),
        "options": sequence_options(results),
        "legend": legend(results),
        "chart": chart(plots[ALL], ALL),
        "charts": "".join(
            f'<div data-of="{key}" hidden>{chart(plot, key)}</div>'
            for key, plot in plots.items()
            if key != ALL
        ),
        "histogram": histogram(rows),
        "scatter": scatter(rows),
        "data": data_table(results),
        "making": making(results.provenance),
        "plots": to_script_json({key: plot.to_json() for key, plot in plots.items() if plot}),
        "frames": to_script_json(frame_data(results, album, rows)),
        "style": assets.style(),
        "script": assets.script(),
    }


def _pictures_note(encoded: Encoded) -> str:
    if encoded.lossy_side is None:
        return "Pictures keep every pixel."
    return (
        f"Whole frames are shown as JPEG, with up to {encoded.lossy_side} pixels a side; places that are outlined keep"
        " every pixel. Scores and error maps are made of the frames themselves."
    )
