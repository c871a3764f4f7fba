"""A run in a screenful: how it stands, its curves, its sessions, its checkpoints."""

import sys
from collections.abc import Mapping
from typing import Any

from cli.console import Output, counted, human_bytes
from cli.sparkline import levels_for, sparkline

CURVE_WIDTH = 32
SHOWN_SESSIONS = 8
HEADLINES = {
    "killed": "killed: it ended without a word",
    "interrupted": "interrupted, and can be resumed",
    None: "nobody knows how it stands",
}


def show_run(output: Output, facts: Mapping[str, Any]) -> None:
    """Say what `model.run_facts.run_facts` found."""
    output.table(_headline(facts), ("", "now", "so far"), _figures(facts))
    if facts["state"] == "failed":
        output.say(f"it failed: {facts['error']}")
    for line in _origin(facts):
        output.say(line)
    sessions = facts["session_list"]
    if sessions:
        hidden = len(sessions) - SHOWN_SESSIONS
        more = f", the last {SHOWN_SESSIONS} of {len(sessions)}" if hidden > 0 else ""
        columns = ("started (UTC)", "from step", "to step", "on", "ended", "other versions than before")
        output.table(f"sessions{more}", columns, [_session(one, facts) for one in sessions[-SHOWN_SESSIONS:]])
    if facts["checkpoint_list"]:
        rows = [_checkpoint(one) for one in facts["checkpoint_list"]]
        output.table("checkpoints", ("", "step", "size", "age", "whole"), rows)
    else:
        output.say("checkpoints: none yet")
    for problem in facts["problems"]:
        output.say(f"damaged: {problem}")


def _headline(facts: Mapping[str, Any]) -> str:
    from model.training.runlog import duration

    state, steps, step = facts["state"], facts["steps"], max(facts["logged_step"], facts["step"])
    said = [HEADLINES.get(state, state)]
    said.append(f"step {step:,} of {steps:,} ({step / steps:.0%})" if steps else f"step {step:,}")
    if facts["eta_s"] is not None:
        said.append(f"ETA {duration(facts['eta_s'])}")
    if facts["heard_s"] is not None:
        said.append(f"last heard of {duration(facts['heard_s'])} ago")
    return f"{facts['run']}: {', '.join(said)}"


def _figures(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of name, value and curve, of what is known."""
    best = facts["best_psnr"]
    values = {
        "loss": _number(facts["loss"], ".4f"),
        "val_psnr": _number(facts["val_psnr"], ".2f")
        + (f", best {best:.2f} at step {facts['best_step']:,}" if best is not None else ""),
        "grad_norm": _number(facts["grad_norm"], ".3g"),
        "samples_per_s": _number(facts["samples_per_s"], ".3g"),
        "data_share": _number(facts["data_share"], ".0%"),
        "lr": _number(facts["lr"], ".2e"),
        "epoch": _number(facts["epoch"], ".1f"),
        "skipped": str(facts["skipped"] or ""),
    }
    names = {
        "val_psnr": "validation PSNR, dB",
        "grad_norm": "gradient norm",
        "samples_per_s": "clips a second",
        "data_share": "waiting for clips",
        "lr": "learning rate",
        "skipped": "steps left out",
    }
    levels = levels_for(sys.stdout.encoding)
    rows = []
    for key, value in values.items():
        curve = [value for _, value in facts["curves"].get(key, [])]
        if value:
            rows.append((names.get(key, key), value, sparkline(curve, CURVE_WIDTH, levels=levels)))
    return rows


def _origin(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if facts["parameters"]:
        learning = facts["trainable"]
        fewer = f", of which {learning} learn" if learning not in (None, facts["parameters"]) else ""
        lines.append(f"network: {counted(facts['parameters'], 'parameter')}{fewer}")
    if facts["store"]:
        now = {
            "same": "as it was learnt from",
            "changed": "CHANGED since",
            "unreadable": "cannot be read now",
        }
        lines.append(f"store: {facts['store']}, {now[facts['store_now']]}")
    if facts["lineage"]:
        parents = (
            one["path"] + (f" (step {one['step']:,})" if one["step"] is not None else "")
            for one in facts["lineage"]
        )
        lines.append(f"weights from: {' from '.join(parents)}")
    return lines


def _session(session: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    started = (session["started"] or "")[:16].replace("T", " ")
    is_now = facts["state"] == "running" and session is facts["session_list"][-1]
    where = (
        f"{session['processes']} x {session['device']}"
        if (session["processes"] or 1) > 1
        else session["device"]
    )
    changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in session["versions_changed"].items())
    how = "running" if is_now else session["how"] or "killed"
    return started, _step(session["from_step"]), _step(session["to_step"]), where or "", how, changed


def _checkpoint(one: Mapping[str, Any]) -> tuple[str, ...]:
    from model.training.runlog import duration

    names = ", ".join([one["name"], *one["also"]])
    return (
        names,
        _step(one["step"]),
        human_bytes(one["bytes"]),
        duration(one["age_s"]),
        "yes" if one["whole"] else "NO",
    )


def _step(step: int | None) -> str:
    return "?" if step is None else f"{step:,}"


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
