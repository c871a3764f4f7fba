"""By how many spike frames a sequence's exposures are off, and how sure that is.

The residuals of its images over a sweep (`sweeps`) make an error curve whose lowest point is the best offset. Moving a
window by one spike frame changes two frames of it, so the curve is shallow and rests on many pixels; where nothing
moves it carries no information at all, and its lowest point is chance. Several measures of chance are taken, and the
widest counts: the bootstrap over tiles of the picture, the bootstrap over frames, how far the curve strays from a
parabola, which shows spikes that fire in step all over the picture, and by how much windows of different widths, and
blurry and sharp frames, disagree. A verdict needs a minimum that stands out of the curve's flanks by `LEAST_DEPTH`
standard errors, and an interval of `CONFIDENCE` that is narrow enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.alignment.sweeps import Curves, Kind
from pipeline.physics import Doubles

Verdict = Literal["aligned", "shifted", "drifting", "undecidable"]

CONFIDENCE = 0.99
_SIGMAS = 2.576
"""Standard errors on each side of a normal interval of that confidence."""
REPEATS = 400
LEAST_DEPTH = 4.0
MOST_UNSURE = 1.5
"""Spike frames to each side of the best offset beyond which an interval decides nothing."""
ROUNDING = 0.5
"""An exposure is given in whole spike frames: being off by half of one is not being off."""
SHARP_ROUNDING = 1.0
"""Sharp frames alone: what moves unevenly in the windows around one draws the best offset by up to a spike frame."""
LEAST_DRIFT = 2.0
"""Spike frames by which early and late frames must differ to be told so."""
KINDS: tuple[Kind, ...] = ("blurry", "sharp")
FIT_REACH = 4
"""Offsets to both sides of the lowest point that the parabola is fitted to."""
LEAST_FRAMES = 4
"""Images from which the bootstrap over frames is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What an error curve says.

    Attributes:
        verdict: `aligned`; `shifted` by `offset`; `drifting`: early and late frames are off by different numbers;
            `undecidable`: the curve tells nothing.
        offset: spike frames to add to the exposures, a whole number; 0 unless shifted.
        best: lowest point of the curve, between spike frames; None without a curve.
        low, high: the interval of `CONFIDENCE` around it.
        hint: why nothing can be told, or what to do; may be empty.
        offsets, error: the curve: residual variance at each offset over that at the best.
    """

    verdict: Verdict
    offset: int = 0
    best: float | None = None
    low: float | None = None
    high: float | None = None
    hint: str = ""
    offsets: tuple[int, ...] = ()
    error: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """The estimate of a sequence, and of each of its frames alone."""

    whole: Estimate
    frames: tuple[Estimate, ...]


def estimate_offsets(curves: Sequence[Sequence[Curves]]) -> Estimates:
    """Estimate the offset of a sequence from the curves of each of its frames (of none, one or two images)."""
    frames = tuple(estimate_offset(of_frame) for of_frame in curves)
    whole = estimate_offset([one for of_frame in curves for one in of_frame])
    if len(curves) < LEAST_FRAMES:
        return Estimates(whole=whole, frames=frames)
    middle = len(curves) // 2
    early, late = (
        estimate_offset([one for of_frame in half for one in of_frame])
        for half in (curves[:middle], curves[middle:])
    )
    drift = _trend(frames) or _difference(early, late)
    if drift:
        hint = f"off by {drift[0]:+.1f} early and by {drift[1]:+.1f} late: the log's clock drifts or jumped"
        whole = replace(whole, verdict="drifting", offset=0, hint=hint)
    return Estimates(whole=whole, frames=frames)


def _trend(frames: Sequence[Estimate]) -> tuple[float, float] | None:
    """Offsets of the first and the last frame, by the line through what frames tell alone, if they surely differ."""
    place = np.array([k for k, one in enumerate(frames) if one.verdict != "undecidable"], np.float64)
    if len(place) < LEAST_FRAMES:
        return None
    telling = [one for one in frames if one.verdict != "undecidable"]
    best = np.array([one.best for one in telling])
    errors = np.array([one.high - one.low for one in telling]) / (2 * _SIGMAS)
    x = place - place.mean()
    slope = float((x * best).sum() / (x * x).sum())
    left = best - best.mean() - slope * x
    variance = max(float((left**2).sum()) / (len(x) - 2), float((errors**2).mean()))
    first, last = (float(best.mean()) + slope * end for end in (x[0], x[-1]))
    certain = abs(slope) > LEAST_DEPTH * (variance / float((x * x).sum())) ** 0.5
    return (first, last) if certain and abs(last - first) >= LEAST_DRIFT else None


def _difference(early: Estimate, late: Estimate) -> tuple[float, float] | None:
    """Offsets of the early and of the late frames, if their intervals tell them apart."""
    if "undecidable" in (early.verdict, late.verdict):
        return None
    apart = max(late.low - early.high, early.low - late.high)
    return (early.best, late.best) if apart > 0 and abs(late.best - early.best) >= LEAST_DRIFT else None


def estimate_offset(curves: Sequence[Curves]) -> Estimate:
    """Estimate one offset from the curves of some images.

    Where blurry and sharp frames tell different offsets, that of the exposures, which the blurry frames show, counts.
    """
    both = _estimate(curves, ROUNDING if any(one.kind == "blurry" for one in curves) else SHARP_ROUNDING)
    if len({one.kind for one in curves}) < 2:
        return both
    blurry, sharp = (_estimate([one for one in curves if one.kind == kind], ROUNDING) for kind in KINDS)
    if blurry.verdict == "undecidable" or sharp.verdict == "undecidable":
        return both
    if abs(blurry.best - sharp.best) > SHARP_ROUNDING:
        hint = f"sharp frames are off by {sharp.best:+.1f}: check the manifest's rule of the sharp frame"
        return replace(blurry, hint=hint)
    low, high = min(both.low, blurry.best, sharp.best), max(both.high, blurry.best, sharp.best)
    decided = _decide(both.best, low, high, ROUNDING)
    return replace(both, low=low, high=high, **decided)


def _estimate(curves: Sequence[Curves], tolerance: float) -> Estimate:
    if not curves:
        return Estimate(verdict="undecidable", hint="no image, or the recording ends too near to it")
    offsets, chosen = _common(curves)
    images = [one.residuals[:, :, _columns(one, offsets)] for one in chosen]
    residuals = np.stack([image.mean(axis=0) for image in images])  # (images, tiles, D)
    total = residuals.sum(axis=(0, 1))
    curve = {
        "offsets": tuple(offsets.tolist()),
        "error": tuple((total / total.min()).round(6).tolist()),
    }
    if not np.ptp(total) > 0:
        return Estimate(verdict="undecidable", hint="moving the window changes nothing", **curve)
    best, low, high = (float(offsets[0]) + column for column in _interval(residuals, _by_width(images)))
    found = {"best": best, "low": low, "high": high}
    lowest = int(total.argmin())
    if _depth(residuals, lowest) >= LEAST_DEPTH:
        return Estimate(**_decide(best, low, high, tolerance), **found, **curve)
    hint = "no minimum stands out: static, flat or dark, or not the same scene"
    if lowest in (0, len(offsets) - 1):
        hint = "the lowest point is at the end of the sweep: static, or off by more"
    return Estimate(verdict="undecidable", hint=hint, **found, **curve)


def _decide(best: float, low: float, high: float, tolerance: float) -> dict[str, Any]:
    """Verdict, offset and hint, for an interval."""
    certain = max(best - low, high - best) <= MOST_UNSURE
    if certain and (low > tolerance or high < -tolerance):
        return {"verdict": "shifted", "offset": round(best), "hint": ""}
    if certain and abs(best) < tolerance + ROUNDING:
        return {"verdict": "aligned", "offset": 0, "hint": ""}
    hint = f"too little motion: anywhere between {low:+.1f} and {high:+.1f}"
    return {"verdict": "undecidable", "offset": 0, "hint": hint}


def _common(curves: Sequence[Curves]) -> tuple[npt.NDArray[np.int64], list[Curves]]:
    """The offsets that most curves share, as a product of how many offsets and how many curves; and those curves."""

    def covering(offsets: npt.NDArray[np.int64]) -> list[Curves]:
        first, last = offsets[0], offsets[-1]
        return [one for one in curves if one.offsets[0] <= first and last <= one.offsets[-1]]

    ranges = {(int(one.offsets[0]), int(one.offsets[-1])): one.offsets for one in curves}
    offsets = max(ranges.values(), key=lambda offsets: len(offsets) * len(covering(offsets)))
    return offsets, covering(offsets)


def _columns(one: Curves, offsets: npt.NDArray[np.int64]) -> slice:
    first = int(offsets[0] - one.offsets[0])
    return slice(first, first + len(offsets))


def _by_width(images: Sequence[Doubles]) -> Doubles:
    """Curves of images (W, tiles, D) summed for each width of window, (most W, D); a blurry frame has but one."""
    most = max(map(len, images))
    curves = [[image[min(w, len(image) - 1)].sum(axis=0) for image in images] for w in range(most)]
    return np.sum(curves, axis=1)


def _interval(residuals: Doubles, by_width: Doubles) -> tuple[float, float, float]:
    """The best offset and the widest of the intervals around it, (best, low, high) in columns."""
    best, strays = (float(value[0]) for value in _vertex(residuals.sum(axis=(0, 1))[None]))
    found = [best - _SIGMAS * strays, best + _SIGMAS * strays, *_vertex(by_width)[0].tolist()]
    by_tile = residuals.sum(axis=0)
    units = [by_tile[by_tile.any(axis=1)]]
    if len(residuals) >= LEAST_FRAMES:
        units.append(residuals.sum(axis=1))
    for of_unit in units:
        found += np.quantile(_bootstrap(of_unit), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    last = residuals.shape[-1] - 1
    return best, max(min(found), 0.0), min(max(found), float(last))


def _bootstrap(units: Doubles) -> Doubles:
    """Best offsets, in columns, of curves summed over as many units (U, D), drawn with replacement: (REPEATS,)."""
    rng = np.random.default_rng(0)  # the same data always gets the same verdict
    times = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=REPEATS)
    return _vertex(times @ units)[0]


def _vertex(curves: Doubles) -> tuple[Doubles, Doubles]:
    """Lowest points of curves (n, D), in columns, by a parabola around the lowest value; and their standard errors.

    The error is that of least squares, from what is left of the curve beside the parabola. A parabola that opens
    downwards gives the lowest value itself, and an error of the whole range.
    """
    length = curves.shape[1]
    reach = min(FIT_REACH, (length - 1) // 2)
    middle = curves.argmin(axis=1).clip(reach, length - 1 - reach)
    x = np.arange(-reach, reach + 1)
    y = np.take_along_axis(curves, middle[:, None] + x, axis=1)
    design = np.stack([np.ones_like(x), x, x * x], axis=1).astype(np.float64)
    inverse = np.linalg.inv(design.T @ design)
    coefficients = y @ design @ inverse  # (n, 3)
    left = y - coefficients @ design.T
    variance = (left**2).sum(axis=1) / max(len(x) - 3, 1)
    b, a = coefficients[:, 1], coefficients[:, 2]
    opens = a > 0
    safe = np.where(opens, a, 1.0)
    vertex = -b / (2 * safe)
    slope_b, slope_a = -1 / (2 * safe), b / (2 * safe**2)
    error = np.sqrt(variance * (slope_b**2 * inverse[1, 1] + slope_a**2 * inverse[2, 2]))
    inside = opens & (np.abs(vertex) <= reach)
    vertex = np.where(opens, middle + vertex.clip(-reach, reach), curves.argmin(axis=1))
    return vertex, np.where(inside, error, length)


def _depth(residuals: Doubles, lowest: int) -> float:
    """By how many standard errors the curve's ends lie above its lowest point; the lower end counts."""
    by_tile = residuals.sum(axis=0)
    rises = by_tile[:, [0, -1]] - by_tile[:, lowest, None]
    errors = rises.std(axis=0) * len(rises) ** 0.5
    return float(np.divide(rises.sum(axis=0), errors, out=np.zeros(2), where=errors > 0).min())
