"""`spk compare`: is one evaluation better than another, and by more than chance?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.console import MAX_LISTED, Json, Output, Quiet, Verbose, counted

if TYPE_CHECKING:
    from model.evaluation.comparison import Comparison


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run folder, its eval, or a per_frame.csv.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What to compare with A.")],
    protocol: Annotated[
        str | None, typer.Option(help="The one that both were evaluated by; rgb8-all of several.")
    ] = None,
    metric: Annotated[str, typer.Option(help="A column of per_frame.csv.")] = "psnr",
    method: Annotated[str, typer.Option(help="Of both: restored, blurry, a network's name.")] = "restored",
    against: Annotated[
        str | None, typer.Option(help="The method of A, where it is another one.", show_default=False)
    ] = None,
    better: Annotated[
        Literal["higher", "lower"] | None,
        typer.Option(help="Which values are better, of metrics where that is not known.", show_default=False),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare the frames that both have where they differ in some.")
    ] = False,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Exit with 5 when B's mean is worse by more than this, and the whole interval is worse too.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1000, help="How often the bootstrap draws.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of its draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A picture to draw, .png.", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pair the frames of two evaluations: how much does B differ from A, and is that more than chance?"""
    from pipeline.errors import UsageError

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"-o {out}: pictures are .png", f"-o {out.with_suffix('.png')}")

    from model.compare import CompareConfig
    from model.compare import compare as run_comparison

    config = CompareConfig(
        protocol=protocol,
        metric=metric,
        method=method,
        against=against,
        better=better,
        common=common,
        samples=samples,
        seed=seed,
    )
    found = run_comparison(a, b, config)
    _show(output, found)
    if out is not None:
        from model.evaluation.difference_picture import draw_comparison

        draw_comparison(found, out)
        output.say(f"picture: {out}")
    gate = {} if fail_if_worse is None else {"fail_if_worse": fail_if_worse}
    output.result(found.to_json() | gate | {"picture": None if out is None else str(out)})
    if fail_if_worse is not None:
        found.check(fail_if_worse)
        _say_passed(output, found, fail_if_worse)


def _show(output: Output, found: "Comparison") -> None:
    from model.evaluation.comparison import told
    from model.evaluation.results import weights_text

    unit, shares = found.unit, found.shares
    rows = found.to_json()["per_sequence"]
    estimates = dict(zip(found.compared, found.estimates.per_sequence, strict=True))
    listed = sorted(rows, key=lambda row: -abs(row["difference"]["mean"]) if row["difference"] else 0.0)
    cells = [
        (
            row["sequence"],
            str(row["frames"]),
            *("inf" if row[side] is None else f"{row[side]:.4f}" for side in ("a", "b")),
            told(estimates[row["sequence"]]) if row["sequence"] in estimates else "-",
            f"{row['won']:.0%}",
        )
        for row in listed[:MAX_LISTED]
    ]
    title = f"{found.metric}{unit and ' in' + unit}, {found.b.protocol}, {found.b.split} split"
    if len(rows) > MAX_LISTED:
        title += f"; the {MAX_LISTED} of {len(rows)} sequences that differ most, all of which --json lists"
    output.table(title, ("sequence", "frames", "A", "B", "B - A", "B better in"), cells)
    for name, side in (("A", found.a), ("B", found.b)):
        weights = f", {weights_text(side.network['step'])}" if "step" in side.network else ""
        output.say(f"{name}: {side.path}, {side.method}{weights}")
    if any(found.left_out.values()):
        left = found.left_out
        output.say(
            f"left out: {counted(left['a'], 'frame')} that only A has, {left['b']} that only B has, "
            f"{left['undefined']} not defined in both"
        )
    if any(found.infinite.values()):
        output.say(
            f"restored exactly: {found.infinite['a']} by A alone, {found.infinite['b']} by B alone; "
            "their difference is infinite, and in no mean"
        )
    both = found.estimates
    output.say(f"B - A over frames:    {told(both.frames, unit)}")
    output.say(f"B - A over sequences: {told(both.sequences, unit)}")
    output.say(_how(found))
    told_apart = "not told from A" if found.verdict.startswith("not") else found.verdict
    output.say(
        f"B is {told_apart} (by the mean over {found.averaging}): of the frames it wins {shares['won']:.1%}, "
        f"ties {shares['tied']:.1%}, loses {shares['lost']:.1%}"
    )


def _how(found: "Comparison") -> str:
    number = len(found.sequences)
    if found.estimates.unit == "sequences":
        return f"95 % intervals of a bootstrap of {number} sequences: what to expect of others like these"
    return (
        f"{counted(number, 'sequence')} cannot speak for others: 95 % intervals of a bootstrap of blocks of frames, "
        "which hold for these alone"
    )


def _say_passed(output: Output, found: "Comparison", threshold: float) -> None:
    output.say(f"passed: B is not worse by more than {threshold:g}{found.unit}")
    estimate = found.difference
    half = (estimate.high - estimate.low) / 2
    if half > threshold:
        output.say(
            f"note: the interval is ±{half:.3g}{found.unit}, so a loss of {threshold:g} could not be told from chance; "
            "evaluate more sequences to see one"
        )
