"""The tables of the report below its summary: sequences, the frames that came out worst, and the data's quality."""

import math
from collections.abc import Collection, Iterable, Sequence
from html import escape

from model.evaluation.data_quality import DataQuality, LightQuality
from model.evaluation.methods import BLURRY, RESTORED
from model.evaluation.results import Results
from model.report.frames import FrameRow
from model.report.marks import PSNR, counted, gain_over, main_methods, metric, signed, swatch, title, toned

LISTED = 10
_TIMING = {"rate": "frame rate", "jitter": "jitter", "clock": "clock"}
"""Columns of what `DataQuality.timing` says, by key; each is there if it is known of any sequence."""
Place = tuple[str, int]
"""Sequence and index of a frame."""


def sequence_table(results: Results, rows: Sequence[FrameRow], pictured: Collection[Place]) -> str:
    """A row a sequence: both first metrics of the restored frames, the first of other methods, gain, worst frame."""
    protocol = results.protocols[0]
    first, second = protocol.metrics[0], protocol.metrics[1:2]
    others = [method for method in main_methods(results) if method != RESTORED]
    columns = [(RESTORED, name) for name in (first, *second)] + [(method, first) for method in others]
    head = [
        _sortable("sequence", text=True),
        _sortable("frames"),
        *(
            _sortable(f"{swatch(results, method)}{escape(title(method))}<br>{escape(metric(name).heading)}")
            for method, name in columns
        ),
    ]
    if results.psnr_protocol:
        head += [_sortable("gain over<br>blurry (dB)"), _sortable("worst frame<br>PSNR (dB)")]
    worst = _worst_of_sequences(rows)
    body = []
    for name, frames in results.frames.items():
        means = results.sequence_means(name)
        best = metric(first).best([means[method].values[first] for method in (RESTORED, *others)])
        cells = [f"<th scope=row>{escape(name)}{_doubt(results.quality.get(name))}</th>"]
        cells.append(_number(frames, f"{frames:,}"))
        for method, of in columns:
            value = means[method].values[of]
            cells.append(_value(value, of, of == first and value == best))
        if results.psnr_protocol:
            by_psnr = results.sequence_means(name, results.psnr_protocol)
            gain = gain_over(by_psnr[RESTORED].psnr, by_psnr[BLURRY].psnr)
            cells.append(_number(gain, signed(gain), toned(gain)))
            cells.append(_worst_cell(worst.get(name), pictured))
        body.append(f"<tr>{''.join(cells)}</tr>")
    return _table(head, body)


def _worst_of_sequences(rows: Iterable[FrameRow]) -> dict[str, FrameRow]:
    worst: dict[str, FrameRow] = {}
    for row in rows:
        if row.sequence not in worst or row.psnr < worst[row.sequence].psnr:
            worst[row.sequence] = row
    return worst


def _worst_cell(row: FrameRow | None, pictured: Collection[Place]) -> str:
    if row is None:
        return "<td>–</td>"
    return _number(row.psnr, _link(row, f"{escape(row.frame)} · {PSNR.text(row.psnr)}", pictured))


def worst_lists(rows: Sequence[FrameRow], pictured: Collection[Place]) -> str:
    """The frames with the lowest PSNR, and those that gained least over the blurry frame."""
    if not rows:
        return "<p>No frame has a PSNR.</p>"
    lowest = sorted(rows, key=lambda row: (row.psnr, row.sequence, row.index))[:LISTED]
    known = [row for row in rows if row.gain is not None]
    least = sorted(known, key=lambda row: (row.gain, row.sequence, row.index))[:LISTED]
    lost = bool(least) and least[0].gain is not None and least[0].gain < 0
    lists = (
        ("Lowest PSNR", lowest),
        ("Largest loss against blurry" if lost else "Least gain over blurry", least),
    )
    return (
        '<div class="columns">'
        + "".join(_list(name, found, pictured) for name, found in lists if found)
        + "</div>"
    )


def _list(name: str, rows: Iterable[FrameRow], pictured: Collection[Place]) -> str:
    items = "".join(
        f"<tr><th scope=row>{_link(row, escape(row.name), pictured)}</th><td>{PSNR.text(row.psnr)}</td>"
        f'<td class="{toned(row.gain)}">{signed(row.gain)}</td></tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{name}</caption><thead><tr><th scope=col>frame</th>'
        f"<th scope=col>PSNR (dB)</th><th scope=col>gain (dB)</th></tr></thead><tbody>{items}</tbody></table></div>"
    )


def _link(row: FrameRow, text: str, pictured: Collection[Place]) -> str:
    """A button that shows the frame, where there is a picture of it."""
    if (row.sequence, row.index) not in pictured:
        return text
    return f'<button class="link" data-sequence="{escape(row.sequence)}" data-index="{row.index}">{text}</button>'


def data_table(results: Results) -> str:
    """What the store knows of the quality of each sequence's data, beside its scores."""
    if not results.quality:
        return "<p>Nothing is known of the data.</p>"
    qualities = results.quality.values()
    lit = any(quality.light for quality in qualities)
    first = metric(results.protocols[0].metrics[0]).heading
    labels = [f"{title(RESTORED)}<br>{first}"]
    labels += (
        ["light fit R²<br>median", "R²<br>worst", "R²<br>attainable", "slope, light<br>per spike"]
        if lit
        else []
    )
    labels += ["residual<br>µs", "offset<br>applied", "runs"]
    timed = [key for key in _TIMING if any(key in quality.timing for quality in qualities)]
    words = ["exposure<br>spike frames", *(_TIMING[key] for key in timed)]
    head = [_sortable("sequence", text=True), _sortable("verdict", text=True), *map(_sortable, labels)]
    head += [_sortable(word, text=True) for word in words]
    rows = [_data_row(results, name, quality, timed, lit) for name, quality in results.quality.items()]
    return _table(head, rows) + "".join(_data_details(results.quality.items()))


def _data_row(results: Results, name: str, quality: DataQuality, timed: Iterable[str], lit: bool) -> str:
    first, doubts = results.protocols[0].metrics[0], "; ".join(quality.doubts)
    cells = [
        f"<th scope=row>{escape(name)}</th>",
        f'<td class="verdict loss">{escape(doubts)}</td>'
        if doubts
        else '<td class="verdict">no objection</td>',
        _value(results.sequence_means(name)[RESTORED].values[first], first),
        *(_light_cells(quality.light) if lit else ()),
        _number(quality.residual_ns, f"{quality.residual_ns / 1000:.3g}"),
        _number(quality.offset, signed(quality.offset, 0) if quality.offset else "0"),
        _number(quality.runs, str(quality.runs)),
    ]
    fewest, most = quality.spike_frames
    cells.append(f"<td>{fewest if fewest == most else f'{fewest} to {most}'}</td>")
    cells += [f"<td>{escape(quality.timing.get(key, '–'))}</td>" for key in timed]
    return f"<tr>{''.join(cells)}</tr>"


def _light_cells(light: LightQuality | None) -> Iterable[str]:
    if light is None:
        return ["<td>–</td>"] * 4
    return [
        _number(light.r2_median, f"{light.r2_median:.3f}", "loss" if light.questionable else ""),
        _number(light.r2_worst, f"{light.r2_worst:.3f}"),
        _number(light.attainable, f"{light.attainable:.3f}"),
        _number(light.slope, f"{light.slope:.4g}"),
    ]


def _data_details(qualities: Iterable[tuple[str, DataQuality]]) -> Iterable[str]:
    """Every fault of a clock and everything that was set aside, to be opened."""
    for name, quality in qualities:
        lines = [*quality.faults, *(f"{path}: {reason}" for path, reason in quality.set_aside)]
        lines += [f"frame {frame}: no spikes, left out" for frame in quality.left_out]
        if lines:
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            about = f"{escape(name)}: {counted(len(lines), 'remark')}"
            yield f"<details><summary>{about}</summary><ul>{items}</ul></details>"


def _doubt(quality: DataQuality | None) -> str:
    if quality is None or not quality.doubts:
        return ""
    return f' <a class="doubt" href="#data" title="{escape("; ".join(quality.doubts))}">data?</a>'


def _table(head: Iterable[str], body: Iterable[str]) -> str:
    return (
        '<div class="scroll" tabindex="0"><table class="wide sortable">'
        f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _sortable(label: str, text: bool = False) -> str:
    return f'<th scope=col{" class=text" if text else ""}><button class="sort">{label}</button></th>'


def _value(value: float, name: str, best: bool = False) -> str:
    return _number(value, metric(name).text(value), "best" if best else "")


def _number(value: float | None, text: str, kind: str = "") -> str:
    """A cell that sorts by `value`."""
    kind = f' class="{kind}"' if kind else ""
    key = "" if value is None or math.isnan(value) else f' data-value="{value:.6g}"'
    return f"<td{kind}{key}>{text}</td>"
