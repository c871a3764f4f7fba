import tomllib
from pathlib import Path

import pytest

from pipeline.checkup import packages
from pipeline.checkup.packages import check_extras, check_python, check_requirements, satisfies

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("3.1.6", ">=3.1,<4", True),
        ("4.0", ">=3.1,<4", False),
        ("3.0.9", ">=3.1,<4", False),
        ("2.13.0+cpu", ">=2.11", True),
        ("2.9", ">=2.11", False),
        ("1.0", "==1.0.0", True),
        ("1.0", "!=1", False),
        ("1.0", "<=1,>0.9", True),
        ("1.0", "", True),
    ],
)
def test_compares_versions(version: str, wanted: str, met: bool) -> None:
    assert satisfies(version, wanted) == met


def test_an_old_python_is_a_problem() -> None:
    (found,) = check_python(version="3.10.4")
    assert found.status == "problem" and "3.10.4, wanted >=3.11" in found.found
    assert next(iter(check_python())).status == "ok"


def test_missing_and_old_packages_are_named_with_the_command_that_installs_them() -> None:
    required = ["numpy>=2.0", "zarr>=3.1,<4", "numba>=0.61"]
    found = list(check_requirements(required, {"numpy": "2.4.6", "zarr": "2.18"}))
    assert [(one.name, one.status, one.fix) for one in found] == [
        ("zarr", "problem", "pip install 'zarr>=3.1,<4'"),
        ("numba", "problem", "pip install 'numba>=0.61'"),
    ]
    assert "2.18, wanted >=3.1,<4" in found[0].found and "not installed" in found[1].found


def test_what_the_project_requires_is_here() -> None:
    (found,) = check_requirements()
    assert found.status == "ok" and f"all {len(PROJECT['dependencies'])} as required: torch 2" in found.found


def test_an_installed_program_is_asked_for_what_it_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_PROJECT", Path("/nowhere"))
    texts = ["numpy>=2.0", 'obstore>=0.6; extra == "s3"', 'pytest>=8; extra == "test"']
    monkeypatch.setattr(packages.metadata, "requires", lambda name: texts)
    monkeypatch.setattr(packages.metadata, "metadata", lambda name: {"Requires-Python": ">=3.99"})
    assert [one.name for one in check_requirements(installed={})] == ["numpy"]
    assert [one.name for one in check_extras(installed={})] == ["extra s3"]
    assert next(iter(check_python())).status == "problem"


def test_extras_that_are_missing_are_worth_knowing() -> None:
    extras = {"s3": ["obstore>=0.6"], "video": ["av>=14"], "test": ["pytest>=8"]}
    missing, there = check_extras(extras, {"av": "18.1.0"})
    assert (missing.status, missing.fix) == (
        "note",
        "pip install 'obstore>=0.6'",
    ) and "s3://" in missing.found
    assert (there.status, there.found) == ("ok", "av 18.1.0")
