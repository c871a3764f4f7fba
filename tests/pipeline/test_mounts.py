from pathlib import Path

import pytest

from pipeline.mounts import Mount, mount_of

TABLE = r"""22 1 254:1 / / rw,relatime - ext4 /dev/root rw
23 22 0:5 / /data rw shared:7 master:1 - nfs4 server:/export rw
24 23 0:6 / /data/a\040disk rw - tmpfs tmpfs rw
25 22 8:1 / /data2 rw - xfs /dev/sdb1 rw
26 22 8:2 / /data2 rw - btrfs /dev/sdc1 rw
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/home/x/store", Mount(Path("/"), "ext4", "/dev/root")),
        ("/data/store", Mount(Path("/data"), "nfs4", "server:/export")),
        ("/data/a disk/store", Mount(Path("/data/a disk"), "tmpfs", "tmpfs")),
        ("/database", Mount(Path("/"), "ext4", "/dev/root")),
        ("/data2/store", Mount(Path("/data2"), "btrfs", "/dev/sdc1")),
    ],
)
def test_the_innermost_mount_is_the_one(table: Path, path: str, mount: Mount) -> None:
    assert mount_of(Path(path), table) == mount


def test_reads_as_a_sentence() -> None:
    assert str(Mount(Path("/data"), "nfs4", "server:/export")) == "server:/export (nfs4 at /data)"


def test_a_system_without_the_table_does_not_tell(tmp_path: Path) -> None:
    assert mount_of(tmp_path, tmp_path / "absent") is None


def test_this_system_tells(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert found is None or tmp_path.resolve().is_relative_to(found.folder)
