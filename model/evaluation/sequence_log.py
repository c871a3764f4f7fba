"""Scores as lines of text, in the format that KAIR prints and that people search their logs for."""

from model.evaluation.methods import RESTORED
from model.evaluation.protocols import Protocol
from model.evaluation.results import Results
from model.evaluation.scores import MeanScore


def sequence_line(sequence: str, number: int, total: int, mean: MeanScore) -> str:
    """The means over one sequence, the `number`-th of `total`."""
    return f"Testing {sequence:20s} ({number:2d}/{total}) - {_scores(mean, of_sequence=True)}"


def average_line(mean: MeanScore) -> str:
    """The protocol's numbers."""
    return f"Average {_scores(mean, of_sequence=False)}"


def sequence_log(results: Results, protocol: Protocol) -> str:
    """The content of `log.txt`: how `restored` scores on each sequence, and on average."""
    total = len(results.frames)
    lines = [f"{protocol.name}: {protocol.text}"]
    lines += [
        sequence_line(name, number, total, results.sequence_means(name, protocol)[RESTORED])
        for number, name in enumerate(results.frames, start=1)
    ]
    lines += [average_line(results.means(protocol)[RESTORED])]
    return "\n".join(lines) + "\n"


def _scores(mean: MeanScore, *, of_sequence: bool) -> str:
    values = mean.over_frames if of_sequence else mean.values
    return "; ".join(f"{name.upper()}: {_value(name, values[name])}" for name in mean.protocol.metrics)


def _value(name: str, value: float) -> str:
    return f"{value:.2f} dB" if name.startswith("psnr") else f"{value:.4f}"
