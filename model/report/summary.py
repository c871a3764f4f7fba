"""The head of the report: its headline numbers, what to know before reading on, and every protocol's table."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from model.evaluation.methods import BLURRY, RESTORED
from model.evaluation.protocols import Protocol
from model.evaluation.results import Results
from model.evaluation.scores import MeanScore, finite_or_none
from model.report.frames import FrameRow
from model.report.marks import (
    PSNR,
    UNDER_TEST,
    colour_of,
    counted,
    explained,
    gain_over,
    grouped,
    metric,
    signed,
    swatch,
    title,
)

MEANS = (("frames", "over_frames"), ("sequences", "over_sequences"))
"""What a mean is of, as `Protocol.averaging` calls it, and where `MeanScore` has it."""


def tiles(results: Results, rows: Sequence[FrameRow]) -> str:
    """The first two metrics of the first protocol, the gain over the blurry input, and how much was scored."""
    protocol = results.protocols[0]
    restored = results.means()[RESTORED]
    found = []
    for name in protocol.metrics[:2]:
        how = metric(name)
        unit = f"<small>{how.unit}</small>" if how.unit else ""
        found.append((how.text(restored.values[name]) + unit, f"{how.title}, {protocol.name}"))
    if results.psnr_protocol:
        means = results.means(results.psnr_protocol)
        gain = gain_over(means[RESTORED].psnr, means[BLURRY].psnr)
        won = f"better in {sum(row.won for row in rows):,} of {counted(len(rows), 'frame')}"
        found.append((f"{signed(gain)}<small>{PSNR.unit}</small>", f"over the blurry input; {won}"))
    found.append(
        (f"{restored.frames:,}<small>frames</small>", f"scored, in {counted(restored.sequences, 'sequence')}")
    )
    return "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in found
    )


def notes(results: Results, dropped: int) -> str:
    """What to know before reading on; empty where there is nothing."""
    found = []
    doubtful = [name for name, quality in results.quality.items() if quality.doubts]
    if doubtful:
        which = ", ".join(doubtful[:3]) + (f" and {len(doubtful) - 3} more" if len(doubtful) > 3 else "")
        found.append(
            f"The data of {counted(len(doubtful), 'sequence')} gives cause for doubt, see Data: {which}."
        )
    if results.unscored:
        found.append(
            f"{results.unscored} of {results.num_frames} frames have no sharp frame, or are left out by"
            f" {results.protocols[0].name}: restored, but not scored."
        )
    if results.ablated and results.worth()["text"]:
        found.append(results.worth()["text"])
    identical = {title(name): mean.identical for name, mean in results.means().items() if mean.identical}
    if identical:
        counts = ", ".join(f"{name} {count}" for name, count in identical.items())
        found.append(
            f"Frames identical to the sharp one have an infinite PSNR and are left out of its means: {counts}."
        )
    if dropped:
        found.append(f"{counted(dropped, 'pictured frame')} left out to keep this page small.")
    if not found:
        return ""
    return '<aside class="note">' + "".join(f"<p>{escape(note)}</p>" for note in found) + "</aside>"


def protocol_tables(results: Results) -> str:
    """A table for each protocol; before several of them one of all, each by its number."""
    if len(results.protocols) == 1:
        protocol = results.protocols[0]
        return f"{_definition(protocol)}{protocol_table(results, protocol)}"
    blocks = "".join(
        f'<details class="protocol"{" open" if i == 0 else ""}><summary><b>{escape(protocol.name)}</b>'
        f"<span>definition and both means</span></summary>"
        f'<p class="fine">{_sentence(protocol)}</p>{protocol_table(results, protocol)}</details>'
        for i, protocol in enumerate(results.protocols)
    )
    return matrix(results) + blocks


def _definition(protocol: Protocol) -> str:
    return (
        f'<details class="definition"><summary>What {escape(protocol.name)} is</summary>'
        f'<p class="fine">{_sentence(protocol)}</p></details>'
    )


def _sentence(protocol: Protocol) -> str:
    return escape(f"{protocol.text[:1].upper()}{protocol.text[1:].rstrip('.')}.")


def matrix(results: Results) -> str:
    """Every method by every protocol: the numbers that the protocols stand for."""
    columns = [(protocol, name) for protocol in results.protocols for name in protocol.metrics]
    starts = {(protocol.name, protocol.metrics[0]) for protocol in results.protocols[1:]}
    means = {protocol.name: results.means(protocol) for protocol in results.protocols}
    best = {
        (protocol.name, name): metric(name).best(
            [mean.values[name] for mean in means[protocol.name].values()]
        )
        for protocol, name in columns
    }

    def cells(method: str) -> Iterator[str]:
        for protocol, name in columns:
            value = means[protocol.name][method].values[name]
            begins = (protocol.name, name) in starts
            yield _cell(metric(name).text(value), value == best[protocol.name, name], begins)

    names = "".join(
        f'<th colspan="{len(protocol.metrics)}" class="protocol-name{"" if i == 0 else " starts"}" scope="colgroup">'
        f"{escape(protocol.name)}</th>"
        for i, protocol in enumerate(results.protocols)
    )
    labels = "".join(
        f"<th scope=col{' class=starts' if (protocol.name, name) in starts else ''}>{escape(metric(name).heading)}</th>"
        for protocol, name in columns
    )
    head = f"<tr><td></td>{names}</tr><tr><th scope=col>method</th>{labels}</tr>"
    return _table(results, head, cells, 1 + len(columns))


def protocol_table(results: Results, protocol: Protocol) -> str:
    """Every method by one protocol: both means of each metric, and the difference to the network under test."""
    means, first = results.means(protocol), protocol.metrics[0]
    columns = [(over, name) for _, over in MEANS for name in protocol.metrics]
    best = {
        (over, name): metric(name).best([getattr(mean, over)[name] for mean in means.values()])
        for over, name in columns
    }
    places = _places({method: mean.values[first] for method, mean in means.items()})

    def cells(method: str) -> Iterator[str]:
        mean = means[method]
        yield f'<td class="meter">{_meter(results, method, places.get(method))}</td>'
        yield f"<td>{_difference(results, mean, means[RESTORED], first)}</td>"
        for over, name in columns:
            value = getattr(mean, over)[name]
            yield _cell(metric(name).text(value), value == best[over, name])
        yield f"<td>{mean.frames:,}</td>"

    groups = "".join(_mean_heading(protocol, of) for of, _ in MEANS)
    head = (
        f'<tr><td></td><td class="meter"></td><td></td>{groups}<td></td></tr>'
        '<tr><th scope=col>method</th><td class="meter"></td>'
        f"<th scope=col>difference<br>to restored</th>"
        + "".join(f"<th scope=col>{escape(metric(name).heading)}</th>" for _, name in columns)
        + "<th scope=col>frames</th></tr>"
    )
    return _table(results, head, cells, 4 + len(columns))


def _mean_heading(protocol: Protocol, of: str) -> str:
    own = of == protocol.averaging
    more = ' class="own" title="the mean that this protocol stands for"' if own else ""
    return f'<th colspan="{len(protocol.metrics)}" scope="colgroup"{more}>mean over {of}</th>'


def _table(results: Results, head: str, cells: Callable[[str], Iterator[str]], width: int) -> str:
    groups = grouped(results)
    bodies = []
    for group, methods in groups.items():
        label = f'<tr class="kind"><th colspan="{width}" scope="rowgroup">{group}</th></tr>'
        rows = "".join(f"<tr>{_method(results, method)}{''.join(cells(method))}</tr>" for method in methods)
        bodies.append(f"<tbody>{label if group != UNDER_TEST else ''}{rows}</tbody>")
    return f'<div class="scroll" tabindex="0"><table class="wide"><thead>{head}</thead>{"".join(bodies)}</table></div>'


def _method(results: Results, method: str) -> str:
    about = explained(results, method)
    small = f"<small>{escape(about)}</small>" if about else ""
    return f"<th scope=row>{swatch(results, method)}{escape(title(method))}{small}</th>"


def _cell(text: str, best: bool, starts: bool = False) -> str:
    """A number; it may be the best of its column, or the first of a protocol's."""
    kinds = " ".join(kind for kind, so in (("best", best), ("starts", starts)) if so)
    return f'<td class="{kinds}">{text}</td>' if kinds else f"<td>{text}</td>"


def _difference(results: Results, mean: MeanScore, restored: MeanScore, name: str) -> str:
    """Of a method to the network under test, over the frames that both have; red where the method is the better one."""
    if mean is restored:
        return ""
    how, gain = metric(name), gain_over(mean.values[name], restored.values[name])
    if mean.frames < restored.frames and mean.method in results.ablated:
        gain = finite_or_none(results.differences(mean.protocol)[mean.method].values[name])
    text = signed(gain, 4 if how.digits is None else how.digits)
    return f'<span class="loss">{text}</span>' if (gain or 0) * how.direction > 0 else text


def _places(values: Mapping[str, float]) -> dict[str, float]:
    """Where each finite value lies between the lowest and the highest, from 0 to 1."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    low = min(finite.values(), default=0.0)
    span = max(finite.values(), default=0.0) - low or 1.0
    return {name: (value - low) / span for name, value in finite.items()}


def _meter(results: Results, method: str, place: float | None) -> str:
    dot = (
        ""
        if place is None
        else f'<i style="left:{100 * place:.1f}%;background:{colour_of(results, method)}"></i>'
    )
    return f"<div>{dot}</div>"
