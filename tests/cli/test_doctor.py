import json
import sys
from pathlib import Path

import pytest

from pipeline.checkup import codecs, disk, host
from pipeline.checkup.finding import problem

KEYS = {"name", "status", "found", "fix"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_MOST_BYTES", 4 << 20)


def test_looks_at_everything_and_ends_well(spk, store: Path) -> None:
    before = sorted(store.parent.rglob("*"))
    ran = spk("doctor", store, "--json")
    found = ran.json
    assert found.keys() == {"ok", "checks"} and found["ok"] is True
    assert all(check.keys() == KEYS for check in found["checks"])
    names = {check["name"] for check in found["checks"]}
    assert names >= {
        "Python",
        "packages",
        "torch",
        "GPUs",
        "bf16",
        "memory",
        "open files",
        "codecs",
        "crc32c",
    }
    assert names >= {f"store {store}", f"speed at {store.parent}", f"promises at {store.parent}"}
    assert sorted(store.parent.rglob("*")) == before


def test_a_problem_is_shown_with_its_fix_and_exit_code_4(
    spk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        host, "check_memory", lambda: [problem("memory", "0.1 GB available", "end other programs")]
    )
    ran = spk("doctor", tmp_path)
    assert ran.code == 4
    assert "problem: memory: 0.1 GB available" in ran.out and "fix: end other programs" in ran.out
    as_json = spk("doctor", tmp_path, "--json")
    assert as_json.code == 4 and json.loads(as_json.out)["ok"] is False


def test_works_without_torch_and_says_so(spk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    ran = spk("doctor", tmp_path)
    assert ran.code == 4 and "Traceback" not in ran.err
    assert "problem: torch: not installed" in ran.out and "fix: pip install torch" in ran.out
    assert "problem: numba: numba cannot be imported" in ran.out
    assert "speed at" in ran.out


def test_a_damaged_store_is_a_problem_with_the_fix_of_its_own(spk, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "zarr.json").write_text("{")
    ran = spk("doctor", tmp_path / "store", "--json")
    assert ran.code == 4
    (found,) = [check for check in json.loads(ran.out)["checks"] if check["status"] == "problem"]
    assert found["name"].startswith("store ") and "spk" in found["fix"]


def test_a_check_that_fails_is_a_problem_and_the_rest_goes_on(
    spk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("in a codec")

    monkeypatch.setattr(codecs, "check_codecs", fail)
    ran = spk("doctor", tmp_path)
    assert ran.code == 4 and "ZeroDivisionError: in a codec" in ran.out and "speed at" in ran.out


def test_refuses_a_path_that_is_not_there(spk, tmp_path: Path) -> None:
    spk("doctor", tmp_path / "none").assert_fails(2, "no such file")
