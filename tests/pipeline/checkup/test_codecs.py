from types import SimpleNamespace

import numba
import pytest

from pipeline.checkup.codecs import check_checksums, check_codecs, check_kernels


def test_codecs_and_checksums_work_here() -> None:
    assert [one.status for one in check_codecs()] == ["ok"]
    (found,) = check_checksums()
    assert (
        found.status in ("ok", "note") and "implementation 'c'" in found.found
    )  # a busy machine may be slow


def test_a_codec_that_gives_back_something_else_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        BITSHUFFLE = 2

        def __init__(self, **options: object) -> None: ...

        def encode(self, data: bytes) -> bytes:
            return data

        def decode(self, data: bytes) -> bytes:
            return data[:-1]

    monkeypatch.setattr("numcodecs.Blosc", Forgetful)
    (found,) = check_codecs()
    assert found.status == "problem" and "lz4" in found.found and "numcodecs" in found.fix


def test_checksums_in_python_and_wrong_ones_are_problems() -> None:
    slow = SimpleNamespace(value=lambda data: 0xE3069283, implementation="python")
    (found,) = check_checksums(slow)
    assert found.status == "problem" and "google-crc32c" in found.fix
    wrong = SimpleNamespace(value=lambda data: 1, implementation="c")
    assert next(check_checksums(wrong)).found == "gives wrong checksums"


def test_a_kernel_compiles() -> None:
    (found,) = check_kernels()
    assert found.status == "ok" and "keeps" in found.found


def test_kernels_that_cannot_be_kept_are_worth_knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*arguments: object, **options: object):
        def refuse(function):
            raise RuntimeError("cannot cache function '_add': no locator available for file 'x'")

        return refuse

    monkeypatch.setattr(numba, "njit", njit)
    (found,) = check_kernels()
    assert found.status == "note" and "NUMBA_CACHE_DIR" in found.fix and "no locator" in found.found


def test_a_kernel_that_computes_wrongly_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "njit", lambda *a, **k: lambda function: lambda x, y: x * y)
    assert next(check_kernels()).status == "problem"
