"""Alignment logs with one fault each: every one is detected or exactly accounted, and none shifts a frame in silence.

A recording and its log are made up: rate of both cameras, jitter, exposure lengths, decimals and dialect at random.
The log then suffers one fault and is aligned with the frames set aside that are found wrong. What is left must lie
where it lay without the fault, to one spike frame.

Not detectable in a log alone, and counted as such: a drift without sync rows; a step smaller than the jitter explains
(`detects` in the timing says how small); a step forward by a whole number of periods, which is accounted as a gap.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.align import Alignment, align_recording
from pipeline.config import build
from pipeline.errors import AlignmentError, SpkError
from pipeline.manifest import Manifest
from pipeline.recordings import Recording
from pipeline.spans import SECOND_NS
from pipeline.spike_format import SpikeFormat

SEED = 20
SMALL, IN_FULL = 40, 500
"""Logs for each fault, in the normal tests and with `-m slow`."""
CLEAN = 200
RATES = (1920, 4000, 20000, 40000)
FPS = (Fraction(15), Fraction(24), Fraction(30), Fraction(60000, 1001), Fraction(120))
JITTERS = (0, 0, 1e-5, 1e-4, 1e-3, 1e-2)
NAMED = ("seconds", "csv_ns", "csv_us", "csv_ms", "csv_s", "indices", "columns")
DIALECTS = (*NAMED, "pairs")
STEADY = {"fewest": 12, "jitters": (0, 0, 1e-5, 1e-4, 1e-3), "steady": True}
CONTINUED = pytest.mark.parametrize("number", [SMALL, pytest.param(IN_FULL, marks=pytest.mark.slow)])


@dataclass(frozen=True)
class Row:
    """One frame as it is logged, in ns of the log's clock; `sync` is the spike frame that began at `start`."""

    name: str
    start: int
    stop: int
    sync: int | None = None


@dataclass(frozen=True)
class Log:
    """A recording with its log: `rows` in the order of the file, `frames` the images there are."""

    rate: int
    dialect: str
    rows: tuple[Row, ...]
    frames: tuple[str, ...]
    spike_frames: int
    period: int
    end: str = "\n"
    sync: tuple[Row, ...] = field(default=())


class FakeStream:
    """Spike frames that nobody looks into."""

    def __init__(self, path: Path, length: int) -> None:
        self.path, self.length = path, length

    def __len__(self) -> int:
        return self.length


def make_log(rng: random.Random, *, dialects=DIALECTS, fewest: int = 4, jitters=JITTERS, steady=False) -> Log:
    rate, dialect = rng.choice(RATES), rng.choice(dialects)
    frames = fewest + rng.choice((0, 1, rng.randrange(40), rng.randrange(140)))
    period = SECOND_NS / rng.choice(FPS)
    jitter, kind = rng.choice(jitters) * float(period), rng.choice(("gauss", "uniform", "laplace"))
    wander = 0 if steady else rng.choice((0, 0, 0, 0.02, 0.1))  # a variable frame rate
    unsteady = rng.choice((0, 0, 1))  # auto exposure
    at = Fraction(0 if dialect == "pairs" else rng.randrange(1, 200) * 1_000_000)
    length = float(period) * rng.uniform(0.03, 0.5)
    rows = []
    for k in range(frames):
        start = at + round(noise(rng, kind, jitter)) if k else at
        length = (
            min(max(length * rng.uniform(0.8, 1.25), 3e9 / rate), 0.9 * float(period)) if unsteady else length
        )
        rows.append(Row(f"{k:06d}", round(start), round(start + round(length))))
        at += period + round(max(-0.5, rng.gauss(0, wander)) * float(period)) if wander else period
    rows = [row for row in rows if row.stop > row.start]
    spike_frames = (rows[-1].stop + int(period)) * rate // SECOND_NS
    names = tuple(row.name for row in rows)
    return Log(rate, dialect, tuple(rows), names, spike_frames, int(period))


def noise(rng: random.Random, kind: str, size: float) -> float:
    if kind == "gauss":
        return rng.gauss(0, size)
    if kind == "uniform":
        return rng.uniform(-1.7 * size, 1.7 * size)
    return rng.choice((-1, 1)) * rng.expovariate(1) * size / 1.4


def decimal(ns: int, unit: int, places: int) -> str:
    scaled = round(Fraction(ns * 10**places, unit))
    sign, digits = "-" if scaled < 0 else "", f"{abs(scaled):0{places + 1}d}"
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def text_of(log: Log) -> str:
    rows = log.rows
    if log.dialect == "seconds":
        lines = [
            f"{int(r.name)},{decimal(r.start, 10**9, 6)},{decimal(r.stop, 10**9, 6)},7,train/s" for r in rows
        ]
        return "\n".join(["frame_idx,t0,t1,event_count,seq", *lines]) + log.end
    if log.dialect == "indices":
        index = [[round(ns * log.rate / Fraction(SECOND_NS)) for ns in (r.start, r.stop)] for r in rows]
        lines = [f"train,s,,{r.name},{a},{max(b, a + 1)},5" for r, (a, b) in zip(rows, index, strict=True)]
        return "\n".join(["split,scene,sub,frame,t0_idx,t1_idx,events", *lines]) + log.end
    if log.dialect == "columns":
        lines = [f"{r.start // 1000};{r.name};{(r.stop - r.start) // 1000}" for r in rows]
        return "\n".join(["when;image;exposure", *lines]) + log.end
    if log.dialect == "pairs":
        stamps = [divmod(r.start // 1000 + 1763626982598990, 10**6) for r in rows]
        lines = [
            f">unix standard time stamp:{s}s,{us}us\nExp Time:{(r.stop - r.start) // 1000} us,Gain:1"
            for r, (s, us) in zip(rows, stamps, strict=True)
        ]
        return "\n".join(lines) + log.end
    unit, places = {"csv_ns": (1, 0), "csv_us": (10**3, 0), "csv_ms": (10**6, 3), "csv_s": (10**9, 6)}[
        log.dialect
    ]
    name = log.dialect.removeprefix("csv_")
    if log.sync:
        both = sorted([*rows, *log.sync], key=lambda r: r.start)
        lines = [
            f"{r.name},{decimal(r.start, unit, places)},{decimal(r.stop, unit, places) if r.name else ''},"
            f"{'' if r.sync is None else r.sync}"
            for r in both
        ]
        return "\n".join([f"frame,start_{name},stop_{name},spike_index", *lines]) + log.end
    lines = [f"{r.name},{decimal(r.start, unit, places)},{decimal(r.stop, unit, places)}" for r in rows]
    return "\n".join([f"frame,start_{name},stop_{name}", *lines]) + log.end


def align(folder: Path, log: Log, text: str | None = None) -> Alignment:
    path = folder / "log.txt"
    path.write_text(text_of(log) if text is None else text)
    exposure: dict[str, object] = {"rule": "log"}
    if log.dialect == "columns":
        exposure["timestamps"] = {
            "frame": "image",
            "start": "when",
            "duration": "exposure",
            "unit": "us",
            "delimiter": ";",
        }
    if log.dialect == "pairs":
        exposure["clock"] = {"stamp": "start", "origin": "first_frame"}
    values = {
        "name": "campaign",
        "layout": {"spikes": "s.dat", "blurry": "{frame}.png", "log": "log.txt"},
        "spikes": {"height": 2, "width": 8, "rate_hz": log.rate},
        "exposure": exposure,
        "splits": {"train": {}},
    }
    stream = FakeStream(folder / "s.dat", log.spike_frames)
    images = tuple(folder / f"{frame}.png" for frame in log.frames)
    recording = Recording(
        split="train",
        sequence="s",
        source_name="s",
        spike_paths=(stream.path,),
        listed=log.frames,
        frames=log.frames,
        blurry_paths=images,
        sharp_paths=(None,) * len(images),
        log_path=path,
        format=SpikeFormat(height=2, width=8, rate_hz=log.rate),
    )
    return align_recording(recording, build(Manifest, values, "campaign"), [stream])


def shift(found: Alignment, truth: Alignment) -> int:
    """Spike frames by which the worst edge of a frame that was kept is off."""
    where = dict(zip(truth.frames, truth.exposure.tolist(), strict=True))
    pairs = zip(found.frames, found.exposure.tolist(), strict=True)
    return max(
        (abs(a - b) for name, span in pairs for a, b in zip(span, where[name], strict=True)), default=0
    )


# --- faults: each changes a log, and leaves it as it was where it could only hide ---


def reset(rng: random.Random, log: Log) -> Log:
    k = rng.randrange(1, len(log.rows))
    back = log.rows[k].start - rng.randrange(0, min(2 * log.period, log.rows[k - 1].start + 1))
    return moved(log, k, -back)


def step(rng: random.Random, log: Log) -> Log:
    size = rng.choice((-1, 1)) * int(log.period * 10 ** rng.uniform(-2, 1))
    return moved(log, rng.randrange(1, len(log.rows)), size)


def moved(log: Log, k: int, by: int) -> Log:
    late = tuple(replace(row, start=row.start + by, stop=row.stop + by) for row in log.rows[k:])
    return replace(log, rows=log.rows[:k] + late)


def stuck(rng: random.Random, log: Log) -> Log:
    """A frame has the stamps of the one before."""
    k = rng.randrange(1, len(log.rows))
    twin = replace(log.rows[k - 1], name=log.rows[k].name)
    return replace(log, rows=(*log.rows[:k], twin, *log.rows[k + 1 :]))


def doubled(rng: random.Random, log: Log) -> Log:
    """A frame has two rows, some way apart."""
    k, again = rng.randrange(len(log.rows)), rng.randrange(len(log.rows) + 1)
    return replace(log, rows=(*log.rows[:again], log.rows[k], *log.rows[again:]))


def swapped(rng: random.Random, log: Log) -> Log:
    """Two neighbours have each other's stamps."""
    k = rng.randrange(1, len(log.rows))
    a, b = log.rows[k - 1], log.rows[k]
    twins = replace(b, name=a.name), replace(a, name=b.name)
    return replace(log, rows=(*log.rows[: k - 1], *twins, *log.rows[k + 1 :]))


def unit(rng: random.Random, log: Log) -> Log:
    """From one row on, or in one row only, times are a thousand times larger or smaller."""
    k = rng.randrange(1, len(log.rows))
    last = rng.choice((k + 1, len(log.rows)))
    factor = rng.choice((Fraction(1000), Fraction(1, 1000)))
    other = tuple(
        replace(row, start=round(row.start * factor), stop=round(row.stop * factor))
        for row in log.rows[k:last]
    )
    return replace(log, rows=log.rows[:k] + other + log.rows[last:])


FAULTS: dict[str, Callable[[random.Random, Log], Log]] = {
    "reset": reset,
    "step": step,
    "stuck stamp": stuck,
    "double row": doubled,
    "swapped stamps": swapped,
    "unit change": unit,
}


@CONTINUED
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_or_move_nothing(tmp_path, campaign, fault, number):
    """A fault that is not found moves no frame by more than a spike frame, unless it is smaller than `detects`."""
    rng = random.Random(f"{SEED} {fault}")
    found = accounted = below = silent = 0
    for _ in range(number):
        log = make_log(rng, **STEADY) if fault == "step" else make_log(rng)
        truth = align(tmp_path, log)
        broken = FAULTS[fault](rng, log)
        try:
            result = align(tmp_path, broken)
        except AlignmentError:
            found += 1
            continue
        off, limit = shift(result, truth), limit_of(result, log)
        if fault == "step" and off > 1 and is_whole(broken, log, limit, result):
            accounted += 1
        elif off > 1 and off <= limit:
            below += 1
        elif off > 1:
            silent += 1
        else:
            found += bool(result.problems)
            below += not result.problems
    campaign(
        f"log {fault}", n=number, found=found, accounted=accounted, below=below, silent=silent, seed=SEED
    )
    assert silent == 0
    assert found >= number * (0.7 if fault == "step" else 0.9)


def limit_of(result: Alignment, log: Log) -> int:
    """Spike frames below which the timing says that it sees no step; rounded up, and one for the rounding."""
    detects, in_frames = result.timing.get("detects") or 0, result.timing.get("unit") != "ns"
    return 1 + (detects if in_frames else -(-detects * log.rate // SECOND_NS))


def is_whole(broken: Log, log: Log, limit: int, result: Alignment) -> bool:
    """Whether a step forward is a whole number of periods, as near as can be told, and is accounted as a gap."""
    size = next(b.start - a.start for a, b in zip(log.rows, broken.rows, strict=True) if a != b)
    off = abs(size - round(size / log.period) * log.period) * log.rate // SECOND_NS
    return size > 0 and off <= limit and result.timing["missing"] > 0


@CONTINUED
def test_gaps_are_counted_exactly_and_break_the_run(tmp_path, campaign, number):
    rng = random.Random(f"{SEED} gap")
    wrong = silent = 0
    for _ in range(number):
        log = make_log(rng, fewest=12, jitters=(0, 1e-5, 1e-3), steady=True)
        truth = align(tmp_path, log)
        k = rng.randrange(2, len(log.rows) - 2)
        count = rng.randrange(1, min(8, len(log.rows) - k - 1) + 1)
        rows = log.rows[:k] + log.rows[k + count :]
        result = align(tmp_path, replace(log, rows=rows, frames=tuple(row.name for row in rows)))
        silent += shift(result, truth) > 1
        expected = [p + count * (p >= k) for p in range(len(rows))]
        wrong += result.positions.tolist() != expected or bool(result.problems)
    campaign("log gap", n=number, accounted=number - wrong, silent=silent, seed=SEED)
    assert wrong == silent == 0


@CONTINUED
def test_rows_in_any_order_move_nothing_where_they_name_their_frames(tmp_path, campaign, number):
    rng = random.Random(f"{SEED} order")
    accounted = wrong = 0
    for _ in range(number):
        log = make_log(rng, dialects=NAMED)
        truth = align(tmp_path, log)
        rows = list(log.rows)
        rng.shuffle(rows)
        result = align(tmp_path, replace(log, rows=tuple(rows)))
        wrong += result.exposure.tolist() != truth.exposure.tolist() or bool(result.problems)
        accounted += result.timing["rows_out_of_order"] > 0 or tuple(rows) == log.rows
    campaign("log out of order", n=number, accounted=accounted, silent=wrong, seed=SEED)
    assert (wrong, accounted) == (0, number)


@CONTINUED
def test_a_log_cut_short_anywhere_loses_frames_and_moves_none(tmp_path, campaign, number):
    rng = random.Random(f"{SEED} truncated")
    found = harmless = silent = 0
    for _ in range(number):
        log = make_log(rng)
        truth, text = align(tmp_path, log), text_of(log)
        cut = text[: rng.randrange(1, len(text))]
        try:
            result = align(tmp_path, log, cut)
        except SpkError:
            found += 1
            continue
        silent += shift(result, truth) > 1
        found += bool(result.problems)
        harmless += not result.problems
    campaign("log cut short", n=number, found=found, harmless=harmless, silent=silent, seed=SEED)
    assert silent == 0 and found >= 0.9 * number


def with_sync(rng: random.Random, log: Log, ppm: float, jitter: float) -> Log:
    """The same log on a clock of its own, with sync rows at least every tenth of a second and 13 in all."""
    offset, rate = rng.randrange(0, 10**15), 1 + Fraction(round(ppm * 1000), 10**9)

    def there(ns: Fraction | int) -> int:
        return offset + round(ns * rate)

    rows = tuple(replace(row, start=there(row.start), stop=there(row.stop)) for row in log.rows)
    every = max(1, min(log.rate // 10, log.spike_frames // 13))
    sync = []
    for index in range(0, log.spike_frames, every):
        ns = Fraction(index * SECOND_NS, log.rate) + round(rng.gauss(0, jitter) * SECOND_NS / log.rate)
        sync.append(Row("", there(ns), 0, index))
    return replace(log, rows=rows, sync=tuple(sync))


@CONTINUED
def test_drift_is_recovered_from_sync_rows(tmp_path, campaign, number):
    rng = random.Random(f"{SEED} drift")
    lost = silent = 0
    worst = 0
    for _ in range(number):
        log = make_log(rng, dialects=("csv_ns", "csv_us"), fewest=10, jitters=(0, 1e-4), steady=True)
        truth = align(tmp_path, log)
        result = align(tmp_path, with_sync(rng, log, rng.uniform(-300, 300), rng.choice((0, 0.05, 0.2))))
        lost += bool(result.problems)
        worst = max(worst, shift(result, truth))
        silent += shift(result, truth) > 1
        assert abs(result.timing["clock"]["rms_frames"]) < 0.5
    campaign("log drift", n=number, recovered=number - lost, silent=silent, worst_frames=worst, seed=SEED)
    assert silent == lost == 0


@CONTINUED
def test_a_step_or_lost_spike_frames_show_in_the_sync_rows(tmp_path, campaign, number):
    rng = random.Random(f"{SEED} sync step")
    found = silent = 0
    for _ in range(number):
        log = make_log(rng, dialects=("csv_ns", "csv_us"), fewest=20, jitters=(0,), steady=True)
        truth = align(tmp_path, log)
        broken = with_sync(rng, log, rng.uniform(-300, 300), rng.choice((0, 0.02)))
        k = rng.randrange(1, len(broken.sync))
        frames = rng.choice((1, 2, 5, 40))  # lost: what comes after has a smaller index than it should
        late = [replace(row, sync=row.sync - frames) for row in broken.sync[k:]]
        result = align(tmp_path, replace(broken, sync=broken.sync[:k] + tuple(late)))
        found += bool(result.problems)
        silent += not result.problems and shift(result, truth) > 1 and frames > 1
    campaign("log sync step", n=number, found=found, silent=silent, seed=SEED)
    assert silent == 0 and found >= 0.8 * number


def test_a_drift_without_sync_rows_shows_nowhere(tmp_path):
    """Stated plainly: the log of a clock that is 200 ppm fast is a good log of another frame rate."""
    rng = random.Random(
        SEED
    )  # at least 100 frames at 120 Hz, so that 200 ppm come to some spike frames at 40 kHz
    log = make_log(rng, dialects=("csv_ns",), fewest=100, jitters=(0,), steady=True)
    log = replace(log, rate=40000, spike_frames=10**9)
    fast = [replace(r, start=r.start * 5001 // 5000, stop=r.stop * 5001 // 5000) for r in log.rows]
    result = align(tmp_path, replace(log, rows=tuple(fast)))
    assert not result.problems and not result.timing["faults"]
    assert shift(result, align(tmp_path, log)) > 1


def test_clean_logs_raise_no_alarm(tmp_path, campaign):
    rng = random.Random(SEED)
    alarms, worst = [], 0
    for _ in range(CLEAN):
        log = make_log(rng)
        result = align(tmp_path, log)
        alarms += [problem.reason for problem in result.problems]
        alarms += [fault["kind"] for fault in result.timing["faults"]]
        alarms += ["gap"] * result.timing["gaps"]
        exact = [[Fraction(ns * log.rate, SECOND_NS) for ns in (r.start, r.stop)] for r in log.rows]
        worst = max(
            worst,
            *(
                abs(edge - true)
                for span, truth in zip(result.exposure.tolist(), exact, strict=True)
                for edge, true in zip(span, truth, strict=True)
            ),
        )
    campaign("log clean", n=CLEAN, alarms=len(alarms), worst_frames=f"{float(worst):.3f}", seed=SEED)
    assert alarms == []
    assert worst < 1
