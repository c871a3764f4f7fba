import logging

import pytest

from pipeline.checkup.finding import note, ok, problem, run_checks
from pipeline.errors import StoreError


def raising(error: Exception):
    def check():
        raise error
        yield

    return check


def test_runs_all_checks_whatever_becomes_of_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pipeline")
    seen = []
    findings = run_checks(
        [
            ("a", lambda: [ok("a", "fine"), note("a", "hm")]),
            ("b", raising(StoreError("broken", "repair it"))),
            ("c", raising(ImportError("no numba", name="numba.core"))),
            ("d", raising(ZeroDivisionError("by zero"))),
            ("e", lambda: [problem("e", "bad", "good")]),
        ],
        lambda done, total, what: seen.append((done, total, what)),
    )
    assert [finding.status for finding in findings] == [
        "ok",
        "note",
        "problem",
        "problem",
        "problem",
        "problem",
    ]
    assert (findings[2].found, findings[2].fix) == ("broken", "repair it")
    assert findings[3].fix == "pip install --upgrade --force-reinstall numba"
    assert "ZeroDivisionError: by zero" in findings[4].found and findings[4].fix
    assert seen[0] == (0, 5, "a") and seen[-1][:2] == (5, 5)
    assert "by zero" in caplog.text
