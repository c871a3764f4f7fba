"""How an evaluation was made: the command that repeats it, fingerprints, versions and configurations."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from model.evaluation.results import weights_text
from model.report.marks import title
from pipeline.yaml_files import dump_yaml


def making(provenance: Mapping[str, Any]) -> str:
    return _command(provenance) + _facts(provenance) + "".join(_configs(provenance))


def _command(provenance: Mapping[str, Any]) -> str:
    return (
        '<div class="command"><pre tabindex="0"><code id="command">'
        f'{escape(provenance["command"])}</code></pre><button class="plain" id="copy">Copy</button></div>'
    )


def _facts(provenance: Mapping[str, Any]) -> str:
    store = provenance["store"]
    facts = [("Store", store["path"]), ("Store fingerprint", store["fingerprint"])]
    for name, network in provenance["networks"].items():
        weights = weights_text(network["step"])
        if network["step"] is not None:
            weights += ", averaged weights" if network["averaged_weights"] else ", last weights"
        facts += [
            (f"{title(name)}: checkpoint", f"{network['checkpoint']}, {weights}"),
            (f"{title(name)}: checksum", network["digest"] or "none"),
            (f"{title(name)}: trained on", network["trained_on"].get("fingerprint", "unknown")),
        ]
    facts += list(provenance["versions"].items())
    listed = "".join(f"<dt>{escape(str(k))}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in facts)
    return f"<dl>{listed}</dl>"


def _configs(provenance: Mapping[str, Any]) -> Iterator[str]:
    configs = [("Evaluation settings", provenance["settings"])]
    configs += [
        (f"{title(name)}: training config", n["config"]) for name, n in provenance["networks"].items()
    ]
    for name, values in configs:
        text = escape(dump_yaml(values))
        yield f'<details><summary>{escape(name)}</summary><pre tabindex="0">{text}</pre></details>'
