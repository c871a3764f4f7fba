"""The files under the root of a data set, none of which may lead out of it."""

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import FormatError
from pipeline.files import safe_join
from pipeline.layout import fixed_folder, matcher


class Tree:
    """Looks up path patterns under `root`. Names that begin with '.' are passed over (`.DS_Store`, `._0001.png`).

    Raises:
        FormatError: `root` is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FormatError(f"{root}: no such folder", "give the folder that holds the recordings")
        self.root = root
        self._safe_folders: set[str] = set()

    def matches(self, pattern: str) -> Iterator[dict[str, str]]:
        """The placeholders' values for every file that fits the pattern.

        Raises:
            UsageError: a symbolic link on the way leads out of the root.
            FormatError: a folder cannot be read, or links to one of the folders it is in.
        """
        expression = matcher(pattern)
        depth = None if "{sequence}" in pattern else len(PurePosixPath(pattern).parts)
        for relative in self._files(fixed_folder(pattern), depth, ()):
            if match := expression.fullmatch(relative):
                yield match.groupdict()

    def find(self, pattern: str) -> Path | None:
        """The one file at `pattern`, whose only open part may be '*' in the file's name; None if there is none.

        Raises:
            UsageError: it leads out of the root.
            FormatError: '*' fits several files.
        """
        folder, _, name = pattern.rpartition("/")
        names = [name]
        if "*" in name:
            names = sorted(other for other in self._names(folder) if fnmatch.fnmatchcase(other, name))
        if len(names) > 1:
            raise FormatError(
                f"{self.root / pattern}: fits {len(names)} files, {names[0]} and {names[1]}, expected one"
            )
        path = self.root / folder / names[0] if names else self.root / pattern
        if not names or not os.path.lexists(path):
            return None
        return self._safe(f"{folder}/{names[0]}" if folder else names[0], is_link=path.is_symlink())

    def _names(self, folder: str) -> list[str]:
        path = self.root / folder
        return [name for name in os.listdir(path) if not name.startswith(".")] if path.is_dir() else []

    def _safe(self, relative: str, *, is_link: bool) -> Path:
        """The path, once its folder, and itself if it is a link, are known to stay inside."""
        folder = str(PurePosixPath(relative).parent)
        if folder not in self._safe_folders:
            safe_join(self.root, folder)
            self._safe_folders.add(folder)
        return safe_join(self.root, relative) if is_link else self.root / relative

    def _files(self, folder: str, depth: int | None, above: tuple[Path, ...]) -> Iterator[str]:
        path = safe_join(self.root, folder)
        if not path.is_dir():
            return
        resolved = path.resolve()
        if resolved in above:
            raise FormatError(f"{path}: links to {resolved}, which it is in", "remove the link")
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error}") from error
        for entry in entries:
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield relative
            elif depth is None or len(PurePosixPath(relative).parts) < depth:
                yield from self._files(relative, depth, (*above, resolved))
