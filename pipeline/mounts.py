"""Which disk a path is on, as the system names it."""

import re
from pathlib import Path
from typing import NamedTuple

_TABLE = Path("/proc/self/mountinfo")  # Linux; its columns are described in proc(5)
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system: where it is mounted, its kind (ext4, nfs4, tmpfs) and the device or server it is on."""

    folder: Path
    kind: str
    device: str

    def __str__(self) -> str:
        return f"{self.device} ({self.kind} at {self.folder})"


def mount_of(path: Path, table: Path = _TABLE) -> Mount | None:
    """The file system that `path` is on; None where the system does not tell."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    path, found = path.resolve(), None
    for line in lines:
        ours, _, theirs = line.partition(" - ")
        kind, device = (_unescaped(text) for text in theirs.split(" ")[:2])
        folder = Path(_unescaped(ours.split(" ")[4]))
        if path.is_relative_to(folder) and (not found or folder.is_relative_to(found.folder)):
            found = Mount(folder, kind, device)  # of several at one place the last lies on top
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda code: chr(int(code[1], 8)), text)
