"""Places of stores: a folder, or `s3://bucket/prefix`.

A place travels as a `Path` from the command line to the store; a `Path` keeps one of the two slashes of a URL, so both
spellings are understood.
"""

import re
from pathlib import Path

from pipeline.errors import UsageError

SCHEME = "s3:"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"[^\x00-\x1f\x7f?#%*\\]+")


def is_remote(place: Path | str) -> bool:
    """Whether a place is in an object store: `s3://bucket/prefix`, or `s3:/bucket/prefix`."""
    return str(place).startswith(f"{SCHEME}/")


def url_of(place: Path | str) -> str:
    """The `s3://bucket/prefix` of a place in an object store.

    Raises:
        UsageError: it is none.
    """
    return f"{SCHEME}//" + "/".join(filter(None, bucket_and_prefix(place)))


def bucket_and_prefix(place: Path | str) -> tuple[str, str]:
    """The two parts of a place in an object store; the prefix may be empty.

    Raises:
        UsageError: it is none.
    """
    bucket, *parts = str(place).removeprefix(SCHEME).strip("/").split("/")
    whole = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    if not is_remote(place) or not _BUCKET.fullmatch(bucket) or not whole:
        raise UsageError(f"{place}: not a place in an object store", "write s3://BUCKET/NAME")
    return bucket, "/".join(parts)


def require_folder(place: Path | str) -> None:
    """Refuse an object store where processes have to see what others build.

    Raises:
        UsageError: it is one.
    """
    if is_remote(place):
        raise UsageError(
            f"{shown(place)}: parts are built in a folder that all of them see",
            "build them in one on a shared disk, and copy the store once it is whole",
        )


def shown(place: Path | str) -> str:
    """A place as a user writes it."""
    return url_of(place) if is_remote(place) else str(place)
