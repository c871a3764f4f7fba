"""Lines that people search their logs for."""

import math
import re

from model.evaluation.protocols import PROTOCOLS
from model.evaluation.results import Results
from model.evaluation.scores import FrameScore
from model.evaluation.sequence_log import sequence_log

KAIR = PROTOCOLS["kair"]


def log_of(values: dict[str, list[float]]) -> list[str]:
    """Of sequences with these PSNRs; all other numbers follow from them. Another method is far better."""
    scores = [
        FrameScore(name, f"{i}", i, method, KAIR.name, metrics)
        for name, psnrs in values.items()
        for i, psnr in enumerate(psnrs)
        for method, metrics in (
            ("restored", {"psnr": psnr, "ssim": min(psnr, 100) / 100, "psnr_y": psnr + 1, "ssim_y": 0.99}),
            ("other", {"psnr": 99.0, "ssim": 1.0, "psnr_y": 99.0, "ssim_y": 1.0}),
        )
    ]
    results = Results(
        split="test",
        protocols=(PROTOCOLS["rgb8-all"], KAIR),
        methods=("restored", "other"),
        frames={name: len(psnrs) for name, psnrs in values.items()} | {"unscored": 2},
        scores=tuple(scores),
        provenance={},
    )
    return sequence_log(results, KAIR).splitlines()


def test_a_line_a_sequence_and_the_protocols_number_last() -> None:
    lines = log_of({"GOPR0384_11_00": [30.0, 34.0, 35.0], "GOPR0385_11_01": [20.0]})
    assert lines[0].startswith("kair: clamped")
    assert lines[1:] == [
        "Testing GOPR0384_11_00       ( 1/3) - PSNR: 33.00 dB; SSIM: 0.3300; PSNR_Y: 34.00 dB; SSIM_Y: 0.9900",
        "Testing GOPR0385_11_01       ( 2/3) - PSNR: 20.00 dB; SSIM: 0.2000; PSNR_Y: 21.00 dB; SSIM_Y: 0.9900",
        "Testing unscored             ( 3/3) - PSNR: nan dB; SSIM: nan; PSNR_Y: nan dB; SSIM_Y: nan",
        "Average PSNR: 26.50 dB; SSIM: 0.2650; PSNR_Y: 27.50 dB; SSIM_Y: 0.9900",  # of the sequences
    ]


def test_numbers_are_found_by_the_usual_pattern() -> None:
    lines = log_of({"a": [30.0], "b": [math.inf]})
    found = [re.search(r"PSNR: ([\d.]+|inf) dB; SSIM: ([\d.]+)", line) for line in lines]
    assert [match and match[1] for match in found] == [None, "30.00", "inf", None, "30.00"]
