"""The tables of the report."""

import math
from html import escape

from model.evaluation.judge import BLURRY, RESTORED
from model.evaluation.results import Results
from model.evaluation.scores import MeanScore
from model.report.marks import EXPLAINED, colour_of, decibels, gain_over, signed, swatch, title


def summary_table(results: Results) -> str:
    means = results.means()
    finite = [m.psnr for m in means.values() if math.isfinite(m.psnr)]
    low = min(finite, default=0.0)
    span = max(finite, default=0.0) - low or 1.0
    rows = "".join(
        _summary_row(results, name, m, (m.psnr - low) / span if math.isfinite(m.psnr) else None)
        for name, m in means.items()
    )
    head = (
        '<th></th><th class="meter"></th><th>PSNR (dB)<br>mean of frames</th><th>SSIM<br>mean of frames</th>'
        "<th>PSNR (dB)<br>mean of sequences</th><th>SSIM<br>mean of sequences</th><th>frames</th>"
    )
    return (
        '<div class="scroll"><table class="summary wide">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _summary_row(results: Results, name: str, m: MeanScore, place: float | None) -> str:
    """A method's numbers, with a dot that shows where its PSNR lies between the lowest and the highest."""
    colour, explained = colour_of(results, name), EXPLAINED.get(name, "for comparison")
    cells = (
        ("over_frames", "psnr", 2),
        ("over_frames", "ssim", 4),
        ("over_sequences", "psnr", 2),
        ("over_sequences", "ssim", 4),
    )
    dot = "" if place is None else f'<i style="left:{100 * place:.1f}%;background:{colour}"></i>'
    return (
        f"<tr><th>{swatch(results, name)}{escape(title(name))}<small>{escape(explained)}</small></th>"
        f'<td class="meter"><div>{dot}</div></td>'
        + "".join(
            f"<td{_best(results, means, metric, m)}>{decibels(getattr(m, means)[metric], digits)}</td>"
            for means, metric, digits in cells
        )
        + f"<td>{m.frames:,}</td></tr>"
    )


def _best(results: Results, means: str, metric: str, m: MeanScore) -> str:
    values = [getattr(other, means)[metric] for other in results.means().values()]
    return " class=best" if getattr(m, means)[metric] == max(values) else ""


def sequence_table(results: Results) -> str:
    names = "".join(
        f"<th>{swatch(results, method)}{escape(title(method))}<br>PSNR / SSIM</th>"
        for method in results.methods
    )
    rows = "".join(_sequence_row(results, sequence, frames) for sequence, frames in results.frames.items())
    return (
        '<div class="scroll"><table class="wide"><thead><tr><th>sequence</th><th>frames</th>'
        f"{names}<th>gain over<br>blurry (dB)</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _sequence_row(results: Results, sequence: str, frames: int) -> str:
    means = results.sequence_means(sequence)
    best = max((m.psnr for m in means.values() if not math.isnan(m.psnr)), default=math.nan)
    gain = gain_over(means[RESTORED].psnr, means[BLURRY].psnr)
    cells = "".join(
        f"<td{' class=best' if m.psnr == best else ''}>{decibels(m.psnr)} / {decibels(m.ssim, 4)}</td>"
        for m in means.values()
    )
    kind = "" if not gain else ' class="gain"' if gain > 0 else ' class="loss"'
    return f"<tr><th>{escape(sequence)}</th><td>{frames}</td>{cells}<td{kind}>{signed(gain)}</td></tr>"
