import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = """
from pipeline.compiled import compiled

@compiled("int64(int64)")
def twice(n):
    return 2 * n
"""


def load(folder: Path):
    """The function of SOURCE, compiled anew or from what is kept in `folder`."""
    path = folder / "doubling.py"
    if not path.exists():
        path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("doubling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nb[ci]"))


def test_is_compiled_at_once_and_kept(tmp_path):
    first = load(tmp_path)
    assert first.signatures and first(21) == 42 and len(kept(tmp_path)) == 2
    times = [path.stat().st_mtime_ns for path in kept(tmp_path)]
    again = load(tmp_path)
    assert again(4) == 8 and sum(again.stats.cache_hits.values()) == 1
    assert [path.stat().st_mtime_ns for path in kept(tmp_path)] == times


def test_another_source_is_compiled_anew(tmp_path):
    load(tmp_path)
    (tmp_path / "doubling.py").write_text(SOURCE.replace("2 * n", "3 * n + 0"))
    assert load(tmp_path)(5) == 15


def test_a_full_disk_keeps_nothing_and_stops_nothing(tmp_path, monkeypatch):
    from numba.core import caching

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    assert load(tmp_path)(5) == 10 and not kept(tmp_path)


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"not what numba wrote"])
def test_what_was_kept_may_be_damaged(tmp_path, ending, content):
    load(tmp_path)
    (damaged,) = tmp_path.rglob(f"*.{ending}")
    damaged.write_bytes(content)
    assert load(tmp_path)(6) == 12


def test_counts_without_any_folder_to_keep_code_in(tmp_path):
    """A read-only installation and home: no folder that numba would write to can be made."""
    code = (
        "import numpy as np, numba.core.caching as caching, pipeline.voxels as voxels\n"
        "caching.CacheImpl._locator_classes = []\n"
        "print(voxels.bin_packed(np.full((3, 1, 16), 255, np.uint8), 1, 128).sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["384"] and not done.stderr
