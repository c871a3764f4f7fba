"""The files under the root of a data set, none of which may lead out of it."""

import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import FormatError
from pipeline.files import safe_join
from pipeline.layout import fixed_folder, matcher

MAX_DEPTH = 64


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
        self._listed: dict[str, list[str]] = {}

    def matches(self, pattern: str, endings: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
        """The placeholders' values for every file that fits the pattern.

        Args:
            endings: where the pattern ends in '.*', the only endings that this stands for, in upper or lower case.

        Raises:
            UsageError: a symbolic link on the way leads out of the root.
            FormatError: a folder cannot be read, is too deep, or links to one of the folders it is in; a file would
                fit but for its ending being upper or lower case.
        """
        expression = matcher(pattern)
        ending = PurePosixPath(pattern).suffix
        depth = None if "{sequence}" in pattern else len(PurePosixPath(pattern).parts)
        for relative in self._files(fixed_folder(pattern), depth, ()):
            if not _has_ending(relative, pattern, endings):
                continue
            if match := expression.fullmatch(relative):
                yield match.groupdict()
            elif ending and relative.lower().endswith(ending.lower()):
                other = relative[: -len(ending)] + ending
                if other != relative and expression.fullmatch(other):
                    raise FormatError(
                        f"{self.root / relative}: its ending is not {ending}, though it would fit otherwise",
                        "rename it; for images the manifest may also say .* instead, for any ending",
                    )

    def find(self, pattern: str, endings: tuple[str, ...] = ()) -> Path | None:
        """The one file at `pattern`, whose only open part may be '*' in the file's name; None if there is none.

        Args:
            endings: as for `matches`.

        Raises:
            UsageError: it leads out of the root.
            FormatError: '*' fits several files.
        """
        folder, _, name = pattern.rpartition("/")
        names = [name]
        if "*" in name:
            names = sorted(other for other in self._names(folder) if fnmatch.fnmatchcase(other, name))
            names = [other for other in names if _has_ending(other, name, endings)]
        if len(names) > 1:
            raise FormatError(
                f"{self.root / pattern}: fits {len(names)} files, {names[0]} and {names[1]}, expected one"
            )
        if not names:
            return None
        relative = f"{folder}/{names[0]}" if folder else names[0]
        path = self.root / relative
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            return None
        return self._safe(path, relative, is_link=stat.S_ISLNK(mode))

    def _names(self, folder: str) -> list[str]:
        if folder not in self._listed:
            path = self.root / folder
            names = os.listdir(path) if path.is_dir() else []
            self._listed[folder] = [name for name in names if not name.startswith(".")]
        return self._listed[folder]

    def _safe(self, path: Path, relative: str, *, is_link: bool) -> Path:
        """The path, once its folder, and itself if it is a link, are known to stay inside."""
        folder = relative.rpartition("/")[0]
        if folder not in self._safe_folders:
            safe_join(self.root, folder)
            self._safe_folders.add(folder)
        return safe_join(self.root, relative) if is_link else path

    def _files(
        self, folder: str, depth: int | None, above: tuple[str, ...], resolved: str | None = None
    ) -> Iterator[str]:
        """The files below a folder; `resolved` is where it is, once that is known to be inside."""
        path = self.root / folder
        if resolved is None:
            if not safe_join(self.root, folder).is_dir():
                return
            resolved = str(path.resolve())
        if len(above) > MAX_DEPTH:
            raise FormatError(
                f"{path}: more than {MAX_DEPTH} folders deep", "give a root nearer to the files"
            )
        if resolved in above:
            raise FormatError(f"{path}: links to {resolved}, which it is in", "remove the link")
        self._safe_folders.add(folder)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error}") from error
        for entry in entries:
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield relative
            elif depth is None or relative.count("/") + 1 < depth:
                inside = None if entry.is_symlink() else f"{resolved}/{entry.name}"
                yield from self._files(relative, depth, (*above, resolved), inside)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself
        raise FormatError(f"{entry.path}: cannot be followed: {error}", "remove the link") from error


def _has_ending(name: str, pattern: str, endings: tuple[str, ...]) -> bool:
    return not endings or not pattern.endswith(".*") or name.lower().endswith(endings)
